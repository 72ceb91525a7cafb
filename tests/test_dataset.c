// Datasets built in memory, how they are read back, and whose images are the same.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/dataset.h"
#include "host/file.h"
#include "host/png.h"
#include "tests/check.h"

TEST(dataset_in_memory) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const[]){"benign", "malignant"}, 2);
    EXPECT(dataset_class(ds, "malignant") == 1 && dataset_class(ds, "Benign") == -1, "classes");
    enum { ROWS = 700 };
    for (int i = 0; i < ROWS; i++) {
        char id[16], text[2000];
        snprintf(id, sizeof id, "row-%d", i);
        memset(text, 'a' + i % 26, sizeof text);
        text[i] = '\0';
        Record record = record_empty();
        record.id = id;
        record.text = text;
        record.question = "which grade?";
        record.label = i % 2;
        record.image = image_new(3, 2, 1);
        record.image.data[5] = (uint8_t)i;
        EXPECT(dataset_add(ds, &record) == i, "row %d", i);
        image_free(&record.image);
    }
    for (int i = 0; i < ROWS; i++) {
        const Record *record = &ds->records[i];
        EXPECT(atoi(record->id + 4) == i && strlen(record->text) == (size_t)i, "strings of %d", i);
        EXPECT(i == 0 || record->text[0] == 'a' + i % 26, "text of %d", i);
        EXPECT(record->answer[0] == '\0' && record->path[0] == '\0', "unknown is empty");
        EXPECT(record->question == ds->records[0].question, "a repeated string is kept once");
        Image image;
        EXPECT(dataset_image(ds, i, &image), "image of %d", i);
        EXPECT(image.width == 3 && image.height == 2 && image.data[5] == (uint8_t)i, "pixels %d",
               i);
        EXPECT((record->image_hash == ds->records[0].image_hash) == (i % 256 == 0), "hash %d", i);
        image_free(&image);
    }
    dataset_free(ds);
}

// ---- images in files ----
// Writes a small picture; level tells the files apart.
static void write_png(const char *directory, const char *name, int level) {
    Image image = image_new(4, 3, 1);
    memset(image.data, level, image_bytes(&image));
    size_t size;
    uint8_t *png = png_encode_new(&image, &size);
    char *path = file_join_new(directory, name);
    EXPECT(file_replace(path, png, size).code == EXIT_OK, "cannot write '%s'", path);
    free(path);
    free(png);
    image_free(&image);
}

static int add_row(Dataset *ds, const char *id, const char *path, const char *group) {
    Record record = record_empty();
    record.id = id;
    record.path = path;
    record.group = group;
    return dataset_add(ds, &record);
}

// Two good rows and one of every kind of bad one.
static Dataset *mixed_set(void) {
    char *root = file_join_new(check_tmpdir(), "data");
    EXPECT(file_make_directories(root).code == EXIT_OK, "cannot make '%s'", root);
    Dataset *ds = dataset_new();
    dataset_set_root(ds, root, false);
    write_png(check_tmpdir(), "outside.png", 33);
    write_png(root, "one.png", 11);
    write_png(root, "two.png", 22);
    char *path = file_join_new(root, "page.jpg");
    EXPECT(file_replace(path, "<html>no</html>", 15).code == EXIT_OK, "cannot write '%s'", path);
    free(path);
    free(root);
    add_row(ds, "a", "one.png", "");
    add_row(ds, "b", "page.jpg", "");
    add_row(ds, "c", "absent.png", "");
    add_row(ds, "d", "../outside.png", "");
    add_row(ds, "e", "/etc/passwd", "");
    add_row(ds, "f", "", "");
    add_row(ds, "g", "two.png", "");
    ds->policy.max_bad = 1;
    return ds;
}

TEST(dataset_bad_images) {
    log_set_level(LOG_ERROR);
    static const bool is_good[] = {true, false, false, false, false, false, true};
    for (int policy = BAD_IMAGE_SKIP; policy <= BAD_IMAGE_BLANK; policy++) {
        Dataset *ds = mixed_set();
        ds->policy.on_bad_image = (BadImage)policy;
        for (int round = 0; round < 2; round++) { // a row asked for twice counts once
            for (int i = 0; i < ds->n; i++) {
                Image image;
                const bool has = dataset_image(ds, i, &image);
                EXPECT(has == (is_good[i] || policy == BAD_IMAGE_BLANK), "row %d", i);
                EXPECT(has == (image.data != NULL), "row %d: pixels", i);
                EXPECT(!has || image.data[0] == (i == 0   ? 11
                                                 : i == 6 ? 22
                                                          : 128),
                       "row %d: level", i);
                image_free(&image);
            }
        }
        EXPECT(ds->bad_images == 5, "%d bad images", ds->bad_images);
        for (int i = 0; i < ds->n; i++) {
            EXPECT(ds->is_bad[i] == !is_good[i], "row %d", i);
        }
        dataset_free(ds);
    }
}

// The ways to stop, each in a child: what it says and its code.
static void expect_death(const char *what, int row, void (*change)(Dataset *), int code,
                         const char *says) {
    char path[64];
    snprintf(path, sizeof path, "%s/stderr", check_tmpdir());
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        if (!freopen(path, "w", stderr)) {
            _exit(1);
        }
        dup2(fileno(stderr), STDERR_FILENO);
        Dataset *ds = mixed_set();
        change(ds);
        Image image;
        dataset_image(ds, row, &image);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    FileBytes said = {0};
    EXPECT(file_read_new(&said, path, 4096).code == EXIT_OK, "%s: no message", what);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == code, "%s: status %x, want code %d", what,
           status, code);
    EXPECT(strstr((const char *)said.data, says), "%s: '%s' does not say '%s'", what,
           (const char *)said.data, says);
    file_bytes_free(&said);
}

static void change_nothing(Dataset *ds) { (void)ds; }
static void change_limit(Dataset *ds) {
    ds->policy.on_bad_image = BAD_IMAGE_SKIP;
    ds->policy.max_bad = 0;
}

TEST(dataset_bad_image_stops) {
    expect_death("page", 1, change_nothing, EXIT_BAD_DATA, "a web page");
    expect_death("absent", 2, change_nothing, EXIT_NO_INPUT, "absent.png");
    expect_death("outside", 3, change_nothing, EXIT_BAD_DATA, "'../outside.png' leaves");
    expect_death("absolute", 4, change_nothing, EXIT_BAD_DATA, "data.allow_absolute_paths");
    expect_death("none", 5, change_nothing, EXIT_NO_INPUT, "no image");
    expect_death("limit", 1, change_limit, EXIT_BAD_DATA, "1 bad images among 7 rows");
}

TEST(dataset_refuse_warnings) {
    log_set_level(LOG_ERROR);
    const char *folder = check_data("images/jpeg-corrupt");
    char **names;
    int count;
    if (!folder || file_list_new(&names, &count, folder).code != EXIT_OK) {
        return;
    }
    Dataset *accepting = dataset_new(), *refusing = dataset_new();
    for (int i = 0; i < count; i++) {
        if (strstr(names[i], ".jp")) {
            add_row(accepting, "", names[i], "");
            add_row(refusing, "", names[i], "");
        }
    }
    Dataset *const sets[2] = {accepting, refusing};
    int good[2] = {0, 0};
    for (int s = 0; s < 2; s++) {
        dataset_set_root(sets[s], folder, false);
        sets[s]->policy = (ImagePolicy){.on_bad_image = BAD_IMAGE_SKIP,
                                        .max_bad = 1,
                                        .limits = image_limits_default(),
                                        .refuse_warnings = s == 1};
        for (int i = 0; i < sets[s]->n; i++) {
            Image image;
            good[s] += dataset_image(sets[s], i, &image);
            image_free(&image);
        }
        EXPECT(good[s] + sets[s]->bad_images == sets[s]->n, "%d good, %d bad", good[s],
               sets[s]->bad_images);
    }
    EXPECT(good[1] < good[0] && good[1] > 0, "%d accepted, %d without warnings", good[0], good[1]);
    file_list_free(names, count);
    dataset_free(accepting);
    dataset_free(refusing);
}

// ---- groups ----
TEST(dataset_groups) {
    const char *root = check_tmpdir();
    write_png(root, "one.png", 11);
    write_png(root, "copy.png", 11);
    write_png(root, "two.png", 22);
    write_png(root, "three.png", 33);
    Dataset *corpus = dataset_new(), *task = dataset_new();
    dataset_set_root(corpus, root, false);
    dataset_set_root(task, root, false);
    add_row(corpus, "0", "one.png", "patient 1");
    add_row(corpus, "1", "two.png", "patient 2");
    add_row(corpus, "2", "three.png", "");
    add_row(corpus, "2", "", "");
    add_row(task, "0", "copy.png", ""); // the picture of corpus row 0
    add_row(task, "1", "", "patient 2");
    add_row(task, "2", "three.png", "patient 1"); // joins corpus rows 0 and 2 and task row 0
    add_row(task, "3", "", "patient 3");
    dataset_hash_images(corpus);
    task->policy.on_bad_image = BAD_IMAGE_SKIP;
    dataset_hash_images(task); // rows without an image are not bad, they have no hash
    EXPECT(task->bad_images == 0, "%d bad", task->bad_images);
    Dataset *const sets[] = {corpus, task};
    EXPECT(dataset_link_groups(sets, 2) == 3, "number of groups");
    static const int want[2][4] = {{0, 1, 0, -1}, {0, 1, 0, 2}};
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < 4; i++) {
            EXPECT(sets[s]->records[i].group_id == want[s][i], "set %d row %d: group %d, want %d",
                   s, i, sets[s]->records[i].group_id, want[s][i]);
        }
    }
    log_set_level(LOG_ERROR);
    EXPECT(dataset_report_duplicates(corpus) == 1, "ids of the corpus");
    EXPECT(dataset_report_duplicates(task) == 0, "ids of the task");
    dataset_free(corpus);
    dataset_free(task);
}

// Every member that is part of a row's meaning changes the hash of the set; a reading on the way
// does not.
TEST(dataset_hash) {
    enum { CHANGES = 10 };
    uint64_t hashes[CHANGES];
    write_png(check_tmpdir(), "one.png", 11);
    for (int change = 0; change < CHANGES; change++) {
        Dataset *ds = dataset_new();
        dataset_set_root(ds, check_tmpdir(), false);
        Record record = record_empty();
        record.id = change == 1 ? "other" : "id";
        record.title = change == 2 ? "other" : "title";
        record.text = change == 3 ? "other" : "text";
        record.question = change == 4 ? "other" : "question";
        record.answer = change == 5 ? "other" : "answer";
        record.path = change == 6 ? "other.png" : "one.png";
        record.label = change == 7;
        record.labels = change == 8;
        dataset_add(ds, &record);
        if (change == 9) {
            dataset_add(ds, &record);
        }
        hashes[change] = dataset_hash(ds);
        for (int before = 0; before < change; before++) {
            EXPECT(hashes[change] != hashes[before], "changes %d and %d", change, before);
        }
        if (change == 0) {
            EXPECT(ds->records[0].image_hash == 0 && dataset_image_hash(ds, 0) != 0,
                   "hash on demand");
            EXPECT(dataset_image_hash(ds, 0) == ds->records[0].image_hash, "kept");
            EXPECT(dataset_hash(ds) == hashes[0], "reading the image changed the hash of the set");
        }
        dataset_free(ds);
    }
}
