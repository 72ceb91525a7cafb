// Tests of host/file: contents survive, errors are told, and no failing call costs the old file.
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "host/file.h"

static char *in_tmp(const char *name) { return file_join_new(check_tmpdir(), name); }

static void expect_content(const char *path, const char *want) {
    FileBytes bytes;
    const Error error = file_read_new(&bytes, path, 1 << 20);
    EXPECT(error.code == EXIT_OK, "%s: %s", path, error.text);
    EXPECT(bytes.size == strlen(want) && memcmp(bytes.data, want, bytes.size) == 0,
           "%s holds '%s', wanted '%s'", path, (const char *)bytes.data, want);
    file_bytes_free(&bytes);
}

static int count_files(void) {
    char **names;
    int count;
    const Error error = file_list_new(&names, &count, check_tmpdir());
    EXPECT(error.code == EXIT_OK, "%s", error.text);
    file_list_free(names, count);
    return count;
}

TEST(file_read_and_map) {
    char *path = in_tmp("a");
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 300000};
    for (int i = 0; i < 6; i++) {
        if (CASE("size=%zu", sizes[i])) {
            uint8_t *data = xmalloc(sizes[i], 1);
            for (size_t k = 0; k < sizes[i]; k++) {
                data[k] = (uint8_t)(k * 31 >> 3);
            }
            FileWriter writer; // three pieces, so that the buffer is crossed in several ways
            EXPECT(file_writer_open(&writer, path).code == EXIT_OK, "open");
            file_writer_add(&writer, data, sizes[i] / 3);
            file_writer_add(&writer, data + sizes[i] / 3, sizes[i] / 3);
            file_writer_add(&writer, data + sizes[i] / 3 * 2, sizes[i] - sizes[i] / 3 * 2);
            EXPECT(writer.written == sizes[i], "written=%zu", writer.written);
            EXPECT(file_writer_commit(&writer).code == EXIT_OK, "commit");
            FileBytes got, mapped;
            EXPECT(file_read_new(&got, path, sizes[i]).code == EXIT_OK, "read");
            EXPECT(file_map_new(&mapped, path).code == EXIT_OK, "map");
            EXPECT(got.size == sizes[i] && memcmp(got.data, data, sizes[i]) == 0, "read differs");
            EXPECT(mapped.size == sizes[i] && memcmp(mapped.data, data, sizes[i]) == 0,
                   "map differs");
            EXPECT(count_files() == 1, "%d files left", count_files());
            file_bytes_free(&got);
            file_bytes_free(&mapped);
            free(data);
        }
    }
    free(path);
}

TEST(file_read_refusals) {
    char *path = in_tmp("b");
    FileBytes bytes;
    EXPECT(file_read_new(&bytes, path, 10).code == EXIT_NO_INPUT, "absent file");
    EXPECT(file_map_new(&bytes, path).code == EXIT_NO_INPUT, "absent file");
    EXPECT(file_read_new(&bytes, check_tmpdir(), 10).code == EXIT_NO_INPUT, "a directory");
    EXPECT(file_replace(path, "0123456789", 10).code == EXIT_OK, "write");
    EXPECT(file_read_new(&bytes, path, 9).code == EXIT_BAD_DATA, "larger than the limit");
    EXPECT(bytes.data == NULL, "nothing is returned with an error");
    free(path);
}

// Every call that can fail fails once, in every position: the old file stands, nothing is left
// behind.
TEST(file_replace_faults) {
    const char *kinds[] = {"open", "write", "fsync", "close", "rename"};
    char *path = in_tmp("c");
    for (int i = 0; i < 5; i++) {
        for (int k = 1; k <= 3; k++) {
            if (CASE("%s call %d", kinds[i], k)) {
                EXPECT(file_replace(path, "old", 3).code == EXIT_OK, "first write");
                file_fault(kinds[i], k, ENOSPC, false);
                FileWriter writer;
                Error error = file_writer_open(&writer, path);
                if (error.code == EXIT_OK) {
                    char big[70000];
                    memset(big, 'x', sizeof big);
                    file_writer_add(&writer, big, sizeof big);
                    file_writer_add(&writer, "new", 3);
                    error = file_writer_commit(&writer);
                }
                file_fault(NULL, 0, 0, false);
                FileBytes now;
                EXPECT(file_read_new(&now, path, 1 << 20).code == EXIT_OK, "read back");
                const bool is_old = now.size == 3 && memcmp(now.data, "old", 3) == 0;
                // After the rename only the directory's sync can fail: told, but the new file
                // stands.
                const bool is_renamed = i == 2 && k == 2;
                const bool is_reached = !(i == 0 && k > 1) && !(i == 1 && k > 2) &&
                                        !(i == 2 && k > 2) && !(i == 3 && k > 2) &&
                                        !(i == 4 && k > 1);
                const bool is_close_of_directory = i == 3 && k == 2;
                EXPECT((error.code == EXIT_OK) == !is_reached, "code %d '%s'", (int)error.code,
                       error.text);
                EXPECT(is_old == (is_reached && !is_renamed && !is_close_of_directory), "size %zu",
                       now.size);
                EXPECT(count_files() == 1, "%d files left", count_files());
                file_bytes_free(&now);
            }
        }
    }
    free(path);
}

TEST(file_full_disk) {
    const int fd = access("/dev/full", W_OK) == 0 ? 0 : -1;
    if (fd < 0) {
        check_skip("no /dev/full on this system");
        return;
    }
    FileLog log;
    EXPECT(file_log_open(&log, "/dev/full").code == EXIT_OK, "open");
    log_set_level(LOG_ERROR);
    file_log_line(&log, "one");
    file_log_line(&log, "two");
    EXPECT(log.dropped == 2, "dropped=%zu", log.dropped);
    file_log_close(&log);
    const Error error = file_replace("/proc/none/x", "x", 1);
    EXPECT(error.code == EXIT_NO_OUTPUT, "code %d", (int)error.code);
}

TEST(file_log) {
    char *path = in_tmp("log");
    FileLog log;
    EXPECT(file_replace(path, "whole\nhal", 9).code == EXIT_OK, "write");
    EXPECT(file_log_open(&log, path).code == EXIT_OK, "open");
    file_log_line(&log, "step %d", 1);
    file_fault("write", 1, ENOSPC, false);
    log_set_level(LOG_ERROR);
    file_log_line(&log, "step %d", 2);
    file_log_line(&log, "step %d", 3);
    EXPECT(log.dropped == 1, "dropped=%zu", log.dropped);
    file_log_close(&log);
    expect_content(path, "whole\nhal\nstep 1\nstep 3\n");
    free(path);
}

TEST(file_directories) {
    char *path = in_tmp("x/y//z"), *top = in_tmp("x"), *file = in_tmp("x/y/f");
    EXPECT(file_make_directories(path).code == EXIT_OK, "make");
    EXPECT(file_make_directories(path).code == EXIT_OK, "make again");
    EXPECT(file_is_directory(path), "is there");
    EXPECT(file_replace(file, "1", 1).code == EXIT_OK, "write");
    EXPECT(file_make_directories(file).code == EXIT_NO_OUTPUT, "a file is in the way");
    EXPECT(file_check_writable(path).code == EXIT_OK, "writable");
    EXPECT(file_free_bytes(path) > 0, "free bytes");
    char **names;
    int count;
    char *middle = in_tmp("x/y");
    EXPECT(file_list_new(&names, &count, middle).code == EXIT_OK, "list");
    EXPECT(count == 2 && strcmp(names[0], "f") == 0 && strcmp(names[1], "z") == 0, "count=%d",
           count);
    file_list_free(names, count);
    // A link to the outside is removed, its target is not.
    char *outside = in_tmp("outside"), *link = in_tmp("x/link");
    EXPECT(file_make_directories(outside).code == EXIT_OK, "make");
    EXPECT(symlink(outside, link) == 0, "symlink");
    EXPECT(file_remove_tree(top).code == EXIT_OK, "remove");
    EXPECT(!file_exists(top) && file_exists(outside), "removed too little or too much");
    EXPECT(file_remove_tree(top).code == EXIT_OK, "absent is fine");
    free(path), free(top), free(file), free(middle), free(outside), free(link);
}

TEST(file_resolve) {
    char *root = in_tmp("root"), *inside = in_tmp("root/a.png"), *secret = in_tmp("secret");
    char *link = in_tmp("root/link.png"), *sibling = in_tmp("root2");
    EXPECT(file_make_directories(root).code == EXIT_OK, "make");
    EXPECT(file_make_directories(sibling).code == EXIT_OK, "make");
    EXPECT(file_replace(inside, "1", 1).code == EXIT_OK, "write");
    EXPECT(file_replace(secret, "1", 1).code == EXIT_OK, "write");
    EXPECT(symlink(secret, link) == 0, "symlink");
    char long_name[5000];
    memset(long_name, 'a', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    const struct {
        const char *name;
        bool allow;
        ExitCode want;
    } cases[] = {
        {"a.png", false, EXIT_OK},
        {"./a.png", false, EXIT_OK},
        {"../root/a.png", false, EXIT_OK},
        {"../secret", false, EXIT_BAD_DATA},
        {"link.png", false, EXIT_BAD_DATA},
        {"link.png", true, EXIT_OK},
        {"../root2", false, EXIT_BAD_DATA},
        {"absent.png", false, EXIT_NO_INPUT},
        {secret, false, EXIT_BAD_DATA},
        {secret, true, EXIT_OK},
        {"../../../../../../etc/passwd", false, EXIT_BAD_DATA},
        {long_name, false, EXIT_BAD_DATA},
        {"", false, EXIT_BAD_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got;
        const Error error = file_resolve_new(&got, root, cases[i].name, cases[i].allow);
        EXPECT(error.code == cases[i].want, "'%.40s' allow=%d: code %d '%s'", cases[i].name,
               cases[i].allow, (int)error.code, error.text);
        EXPECT((got != NULL) == (error.code == EXIT_OK), "'%.40s': a path only without an error",
               cases[i].name);
        free(got);
    }
    free(root), free(inside), free(secret), free(link), free(sibling);
}
