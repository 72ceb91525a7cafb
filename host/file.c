// file: reading, mapping, atomic replacing and appending; see file.h.
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE // dirent's d_name rules and realpath(path, NULL)
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 16 };

// ---- faults for tests ----
static struct {
    const char *kind;
    int left;
    int error_number;
    bool is_persistent;
} fault;

void file_fault(const char *kind, int k, int error_number, bool is_persistent) {
    fault.kind = kind;
    fault.left = k;
    fault.error_number = error_number;
    fault.is_persistent = is_persistent;
}

// True, with errno set, when this call of that kind is the one that has to fail.
static bool faulted(const char *kind) {
    if (!fault.kind || strcmp(fault.kind, kind) != 0) {
        return false;
    }
    if (--fault.left > 0 || (fault.left < 0 && !fault.is_persistent)) {
        return false;
    }
    errno = fault.error_number;
    return true;
}

// ---- system calls with their errors ----
static Error failed(ExitCode code, const char *what) {
    return error_at(code, ERROR_NOWHERE, "cannot %s: %s", what, strerror(errno));
}

static bool is_failure(Error error) { return error.code != EXIT_OK; }

static Error open_input(const char *path, int *fd, size_t *size) {
    *fd = faulted("open") ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        return failed(errno == ENOENT || errno == ENOTDIR ? EXIT_NO_INPUT : EXIT_IO, "open");
    }
    struct stat info;
    Error error = error_none();
    if (fstat(*fd, &info) != 0) {
        error = failed(EXIT_IO, "stat");
    } else if (!S_ISREG(info.st_mode)) {
        error = error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "is not a regular file");
    }
    if (is_failure(error)) {
        close(*fd);
        return error;
    }
    *size = (size_t)info.st_size;
    return error;
}

Error file_write_all(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        const ssize_t n = faulted("write") ? -1 : write(fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return failed(EXIT_IO, "write");
        }
        at += n;
        size -= (size_t)n;
    }
    return error_none();
}

Error file_sync(int fd) {
    if (faulted("fsync") || fsync(fd) != 0) {
        return failed(EXIT_IO, "sync");
    }
    return error_none();
}

Error file_close(int fd) {
    const bool is_bad = faulted("close");
    const int error_number = errno;
    // After EINTR Linux has closed the descriptor; closing it again could hit somebody else's.
    if (close(fd) != 0 && errno != EINTR) {
        return failed(EXIT_IO, "close");
    }
    errno = error_number;
    return is_bad ? failed(EXIT_IO, "close") : error_none();
}

Error file_sync_directory(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return failed(EXIT_IO, "open the directory to sync it");
    }
    Error error = error_none();
    // EINVAL: a file system that cannot sync directories, and says so.
    if (faulted("fsync") || (fsync(fd) != 0 && errno != EINVAL)) {
        error = failed(EXIT_IO, "sync the directory");
    }
    const Error closing = file_close(fd);
    return is_failure(error) ? error : closing;
}

static char *directory_of_new(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) {
        return xstrdup(".");
    }
    return slash == path ? xstrdup("/") : xformat_new("%.*s", (int)(slash - path), path);
}

// ---- reading ----
Error file_read_new(FileBytes *out, const char *path, size_t limit) {
    *out = (FileBytes){0};
    int fd;
    size_t size;
    Error error = open_input(path, &fd, &size);
    if (is_failure(error)) {
        return error;
    }
    if (size > limit) {
        close(fd);
        return error_at(EXIT_BAD_DATA, limit, "the file has %zu bytes, %zu are allowed", size,
                        limit);
    }
    uint8_t *data = malloc(size + 1);
    if (!data) {
        close(fd);
        return error_at(EXIT_RESOURCE, ERROR_NOWHERE, "no memory for %zu bytes", size);
    }
    size_t used = 0;
    while (used < size) {
        const ssize_t n = read(fd, data + used, size - used);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) { // the end before its time: somebody is truncating it
            error = n < 0 ? failed(EXIT_IO, "read")
                          : error_at(EXIT_IO, used, "ends early, it was %zu bytes long", size);
            break;
        }
        used += (size_t)n;
    }
    close(fd);
    if (is_failure(error)) {
        free(data);
        return error;
    }
    data[size] = 0;
    *out = (FileBytes){.data = data, .size = size};
    return error;
}

Error file_map_new(FileBytes *out, const char *path) {
    static const uint8_t nothing[1];
    *out = (FileBytes){0};
    int fd;
    size_t size;
    Error error = open_input(path, &fd, &size);
    if (is_failure(error)) {
        return error;
    }
    *out = (FileBytes){.data = nothing, .size = size, .is_mapped = true};
    if (size > 0) { // a mapping of no bytes does not exist
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            *out = (FileBytes){0};
            error = failed(errno == ENOMEM ? EXIT_RESOURCE : EXIT_IO, "map");
        } else {
            out->data = data;
        }
    }
    close(fd); // the mapping holds the file
    return error;
}

void file_bytes_free(FileBytes *bytes) {
    if (bytes->is_mapped) {
        if (bytes->size > 0) {
            munmap((void *)(uintptr_t)bytes->data, bytes->size);
        }
    } else {
        free((void *)(uintptr_t)bytes->data);
    }
    *bytes = (FileBytes){0};
}

// ---- replacing ----
Error file_writer_open(FileWriter *writer, const char *path) {
    *writer = (FileWriter){.path = xstrdup(path), .fd = -1, .error = error_none()};
    // The pid keeps two processes apart, O_EXCL two writers of one process.
    writer->temporary = xformat_new("%s.tmp-%ld", path, (long)getpid());
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    writer->fd = faulted("open") ? -1 : open(writer->temporary, flags, 0666);
    if (writer->fd < 0 && errno == EEXIST) { // left behind by a dead process with our pid
        unlink(writer->temporary);
        writer->fd = open(writer->temporary, flags, 0666);
    }
    if (writer->fd < 0) {
        const Error error =
            failed(errno == ENOSPC || errno == EIO || errno == EDQUOT ? EXIT_IO : EXIT_NO_OUTPUT,
                   "create");
        file_writer_abandon(writer);
        writer->error = error;
        return error;
    }
    writer->buffer = xmalloc(BUFFER_BYTES, 1);
    return error_none();
}

static void flush(FileWriter *writer) {
    if (!is_failure(writer->error)) {
        writer->error = file_write_all(writer->fd, writer->buffer, writer->used);
    }
    writer->used = 0;
}

void file_writer_add(FileWriter *writer, const void *data, size_t size) {
    if (is_failure(writer->error)) {
        return;
    }
    writer->written += size;
    if (size > BUFFER_BYTES - writer->used) {
        flush(writer);
    }
    if (size > BUFFER_BYTES) { // too large to be worth a copy
        if (!is_failure(writer->error)) {
            writer->error = file_write_all(writer->fd, data, size);
        }
        return;
    }
    if (size > 0) {
        memcpy(writer->buffer + writer->used, data, size);
    }
    writer->used += size;
}

void file_writer_print(FileWriter *writer, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = xformat_args_new(fmt, args);
    va_end(args);
    file_writer_add(writer, text, strlen(text));
    free(text);
}

Error file_writer_commit(FileWriter *writer) {
    if (writer->fd >= 0) {
        flush(writer);
        if (!is_failure(writer->error)) {
            writer->error = file_sync(writer->fd);
        }
        const Error closing = file_close(writer->fd);
        writer->fd = -1;
        if (!is_failure(writer->error)) {
            writer->error = closing;
        }
        if (!is_failure(writer->error)) {
            writer->error = file_rename(writer->temporary, writer->path);
        }
    }
    const Error error = writer->error;
    file_writer_abandon(writer); // after the rename the temporary name is gone already
    return error;
}

void file_writer_abandon(FileWriter *writer) {
    if (writer->fd >= 0) {
        close(writer->fd);
    }
    if (writer->temporary && writer->buffer) { // opened by us, so ours to remove
        unlink(writer->temporary);
    }
    free(writer->path);
    free(writer->temporary);
    free(writer->buffer);
    *writer = (FileWriter){.fd = -1};
}

Error file_replace(const char *path, const void *data, size_t size) {
    FileWriter writer;
    const Error error = file_writer_open(&writer, path);
    if (is_failure(error)) {
        return error;
    }
    file_writer_add(&writer, data, size);
    return file_writer_commit(&writer);
}

// ---- appending ----
Error file_log_open(FileLog *log, const char *path) {
    *log = (FileLog){.path = xstrdup(path)};
    log->fd = faulted("open") ? -1 : open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->fd < 0) {
        const Error error = failed(EXIT_NO_OUTPUT, "open for appending");
        free(log->path);
        log->path = NULL;
        return error;
    }
    // A process killed inside a line leaves half of it: ours starts on a new one.
    char last = '\n';
    const off_t end = lseek(log->fd, 0, SEEK_END);
    log->is_torn = end > 0 && pread(log->fd, &last, 1, end - 1) == 1 && last != '\n';
    return error_none();
}

void file_log_line_args(FileLog *log, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, fmt, args);
    CHECK(length >= 0, "format '%s'", fmt);
    const size_t head = log->is_torn ? 1 : 0, size = head + (size_t)length + 1;
    char *line = xmalloc(size + 1, 1);
    line[0] = '\n';
    vsnprintf(line + head, (size_t)length + 1, fmt, again);
    va_end(again);
    line[size - 1] = '\n';
    ssize_t n;
    do {
        n = log->fd < 0 || faulted("write") ? -1 : write(log->fd, line, size);
    } while (n < 0 && errno == EINTR);
    free(line);
    if (n == (ssize_t)size) {
        log->is_torn = false;
        return;
    }
    log->is_torn |= n > 0;
    if (log->dropped++ == 0) {
        LOG(WARN, "%s: a line could not be written (%s) and was dropped; the work goes on",
            log->path, n < 0 ? strerror(errno) : "disk full");
    }
}

void file_log_line(FileLog *log, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    file_log_line_args(log, fmt, args);
    va_end(args);
}

void file_log_close(FileLog *log) {
    if (log->path) {
        if (log->dropped > 0) {
            LOG(WARN, "%s: %zu lines were dropped", log->path, log->dropped);
        }
        if (log->fd >= 0 && is_failure(file_close(log->fd))) {
            LOG(WARN, "%s: cannot close: %s", log->path, strerror(errno));
        }
        free(log->path);
    }
    *log = (FileLog){.fd = -1};
}

// ---- directories and names ----
bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool file_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

Error file_make_directories(const char *path) {
    char *prefix = xstrdup(path);
    Error error = error_none();
    for (char *p = prefix + 1; prefix[0] && !is_failure(error); p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        const char stop = *p;
        *p = '\0';
        if (mkdir(prefix, 0777) != 0 && !file_is_directory(prefix)) {
            error = failed(EXIT_NO_OUTPUT, "create the directory");
        }
        *p = stop;
        if (stop == '\0') {
            break;
        }
    }
    free(prefix);
    return error;
}

Error file_rename(const char *from, const char *to) {
    if (faulted("rename") || rename(from, to) != 0) {
        return failed(EXIT_IO, "rename");
    }
    char *directory = directory_of_new(to);
    const Error error = file_sync_directory(directory);
    free(directory);
    return error;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place) {
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

Error file_remove_tree(const char *path) {
    // FTW_PHYS: a symbolic link is removed, never followed.
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return failed(EXIT_IO, "remove");
    }
    return error_none();
}

Error file_check_writable(const char *path) {
    Error error = file_make_directories(path);
    if (is_failure(error)) {
        return error;
    }
    char *probe = xformat_new("%s/.write-test.%ld", path, (long)getpid());
    const int fd = faulted("open") ? -1 : open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        error = failed(EXIT_NO_OUTPUT, "create a file in the directory");
    } else {
        error = file_write_all(fd, "x", 1);
        const Error closing = file_close(fd);
        error = is_failure(error) ? error : closing;
        unlink(probe);
    }
    free(probe);
    return error;
}

uint64_t file_free_bytes(const char *path) {
    struct statvfs info;
    if (statvfs(path, &info) != 0) {
        return UINT64_MAX;
    }
    return (uint64_t)info.f_bavail * info.f_frsize;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Error file_list_new(char ***names, int *count, const char *path) {
    *names = NULL;
    *count = 0;
    DIR *directory = opendir(path);
    if (!directory) {
        return failed(errno == ENOENT ? EXIT_NO_INPUT : EXIT_IO, "open the directory");
    }
    int room = 0;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (*count == room) {
            room = room ? 2 * room : 16;
            *names = xrealloc(*names, (size_t)room, sizeof **names);
        }
        (*names)[(*count)++] = xstrdup(entry->d_name);
    }
    closedir(directory);
    if (*count > 0) {
        qsort(*names, (size_t)*count, sizeof **names, by_text);
    }
    return error_none();
}

void file_list_free(char **names, int count) {
    for (int i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
}

char *file_join_new(const char *directory, const char *name) {
    const size_t length = strlen(directory);
    if (name[0] == '/' || length == 0) {
        return xstrdup(name);
    }
    return xformat_new("%s%s%s", directory, directory[length - 1] == '/' ? "" : "/", name);
}

Error file_resolve_new(char **out, const char *root, const char *name, bool allow_absolute) {
    *out = NULL;
    if (name[0] == '\0' || strlen(name) >= PATH_MAX) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "a file name of %zu bytes is no file name",
                        strlen(name));
    }
    char *joined = file_join_new(root, name);
    if (allow_absolute) {
        *out = joined;
        return file_exists(joined) ? error_none()
                                   : error_at(EXIT_NO_INPUT, ERROR_NOWHERE,
                                              "cannot open '%.100s': %s", name, strerror(errno));
    }
    // realpath follows every link and "..", so what counts is where the file really is.
    char *real_root = realpath(root[0] ? root : ".", NULL), *real = realpath(joined, NULL);
    const size_t length = real_root ? strlen(real_root) : 0;
    Error error = error_none();
    if (name[0] == '/') {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "absolute path '%.100s'; set data.allow_absolute_paths=true", name);
    } else if (!real || !real_root) {
        error = error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "cannot open '%.100s' under '%.60s': %s",
                         name, root, strerror(errno));
    } else if (length > 1 && (strncmp(real, real_root, length) != 0 || real[length] != '/')) {
        error =
            error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                     "path '%.90s' leaves '%.60s'; set data.allow_absolute_paths=true", name, root);
    } else {
        *out = xstrdup(real);
    }
    free(joined);
    free(real);
    free(real_root);
    return error;
}
