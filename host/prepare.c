// prepare: see prepare.h. Both formats are first read into one Dataset whose splits are the
// source's own; then one loop writes passages, queries and pictures.
#define _XOPEN_SOURCE 700 // realpath
#include "prepare.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_files.h"
#include "file.h"
#include "json.h"
#include "png.h"

#define MARKER "prepare.json"
#define MARKER_VERSION 1
#define WRITERS 16                     // threads that wait for the disk
#define JSON_LIMIT ((size_t)256 << 20) // bytes of trainset.json or testset.json

static const char *const split_names[SPLIT_COUNT] = {"test", "val", "train"};
static const char *const formats[] = {"medmnist", "vqa-rad"}; // in the order of FORMAT_CHOICES
static const char *const yes_no[] = {"no", "yes"};

// ---- which rows go where ----
Split prepare_split(uint64_t image_hash) {
    const int percent = (int)(image_hash % 100);
    return percent < 70 ? SPLIT_TRAIN : percent < 80 ? SPLIT_VAL : SPLIT_TEST;
}

bool prepare_takes(int i, int n, int most) {
    return most == 0 || most >= n || (int64_t)(i + 1) * most / n > (int64_t)i * most / n;
}

static int by_hash(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Distinct pictures of one of the source's splits, ascending. The caller frees.
static uint64_t *pictures_new(const Dataset *all, Split split, int *count) {
    uint64_t *hashes = xmalloc((size_t)all->n + 1, sizeof *hashes);
    int n = 0, distinct = 0;
    for (int i = 0; i < all->n; i++) {
        if (all->records[i].split == split && all->records[i].image_hash != 0) {
            hashes[n++] = all->records[i].image_hash;
        }
    }
    qsort(hashes, (size_t)n, sizeof *hashes, by_hash);
    for (int i = 0; i < n; i++) {
        if (distinct == 0 || hashes[i] != hashes[distinct - 1]) {
            hashes[distinct++] = hashes[i];
        }
    }
    *count = distinct;
    return hashes;
}

static void count_overlap(PrepareFacts *facts, const Dataset *all) {
    int train_count;
    uint64_t *train = pictures_new(all, SPLIT_TRAIN, &train_count);
    uint64_t *test = pictures_new(all, SPLIT_TEST, &facts->test_images);
    for (int i = 0; i < facts->test_images; i++) {
        facts->overlap +=
            bsearch(&test[i], train, (size_t)train_count, sizeof *train, by_hash) != NULL;
    }
    free(train);
    free(test);
    if (facts->overlap > 0) {
        LOG(WARN, "prepare: %d of the source's %d test pictures are in its training split too",
            facts->overlap, facts->test_images);
    }
}

static bool writes_images(const Config *config) {
    return config->prepare.format == KEY_FORMAT_MEDMNIST || config->prepare.max_side > 0;
}

const char *prepare_root(const Config *config) {
    return writes_images(config) ? config->prepare.dir : config->prepare.source;
}

// ---- reading MedMNIST ----
static void read_medmnist(Dataset *all, const Config *config) {
    if (config->classes.count < 2) {
        die(EXIT_CONFIG, "classes: %d classes; name the labels of '%s' in their order",
            config->classes.count, config->prepare.source);
    }
    if (!strstr(config->prepare.caption, "{class}")) {
        LOG(WARN, "prepare.caption: no {class} in '%s': passages will not say what they show",
            config->prepare.caption);
    }
    dataset_set_classes(all, (const char *const *)config->classes.items, config->classes.count);
    dataset_read_medmnist(all, config->prepare.source, (size_t)config->limits.max_array_bytes);
    for (int i = 0; i < all->n; i++) {
        if (all->records[i].label < 0) {
            die(EXIT_BAD_DATA, "%s: several labels a row; prepare takes archives with one",
                config->prepare.source);
        }
    }
}

// The caption with every {class} replaced.
static char *caption_new(const char *pattern, const char *class_name) {
    char *out = xstrdup("");
    for (const char *at = pattern, *hole; *at; at = hole + strlen("{class}")) {
        hole = strstr(at, "{class}");
        char *longer = hole ? xformat_new("%s%.*s%s", out, (int)(hole - at), at, class_name)
                            : xformat_new("%s%s", out, at);
        free(out);
        out = longer;
        if (!hole) {
            break;
        }
    }
    return out;
}

// ---- reading VQA-RAD ----
// A member that is a text or an integer, as text without blanks around it; NULL: it is neither, or
// empty. The caller frees.
static char *member_new(const json_t *row, const char *name) {
    const json_t *value = json_object_get(row, name);
    if (json_is_integer(value)) {
        return xformat_new("%lld", (long long)json_integer_value(value));
    }
    const char *text = json_string_value(value);
    if (!text) {
        return NULL;
    }
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    return length ? xformat_new("%.*s", (int)length, text) : NULL;
}

static bool equal_but_case(const char *a, const char *b) {
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

static void add_vqa_row(Dataset *all, const char *path, size_t i, const json_t *row, Split split) {
    static const char *const names[] = {"qid", "image_name", "question", "answer"};
    char *text[4];
    for (int m = 0; m < 4; m++) {
        text[m] = member_new(row, names[m]);
        if (!text[m]) {
            die(EXIT_BAD_DATA,
                "%s: row %zu: member '%s' is not a text or an integer; is the file VQA-RAD's?",
                path, i, names[m]);
        }
    }
    Record record = record_empty();
    record.id = text[0];
    record.group = text[1];
    record.question = text[2];
    record.answer = text[3];
    for (int c = 0; c < 2; c++) {
        if (equal_but_case(text[3], yes_no[c])) {
            record.label = c;
            record.answer = yes_no[c];
        }
    }
    char *image = file_join_new("images", text[1]);
    record.path = image;
    record.split = split;
    record.source = "vqa-rad";
    dataset_add(all, &record);
    free(image);
    for (int m = 0; m < 4; m++) {
        free(text[m]);
    }
}

static void read_vqa_file(Dataset *all, const char *source, const char *name, Split split) {
    char *path = file_join_new(source, name);
    json_t *root = NULL, *row;
    error_die(path, json_read_new(&root, path, JSON_LIMIT));
    if (!json_is_array(root) || json_array_size(root) == 0 || json_array_size(root) > INT_MAX / 4) {
        die(EXIT_BAD_DATA, "%s: not a list of questions; is the file VQA-RAD's?", path);
    }
    size_t i;
    json_array_foreach(root, i, row) {
        add_vqa_row(all, path, i, row, split);
    }
    json_decref(root);
    free(path);
}

static void read_vqa_rad(Dataset *all, const Config *config) {
    for (int c = 0; c < config->classes.count; c++) {
        if (config->classes.count != 2 || (strcmp(config->classes.items[c], "no") != 0 &&
                                           strcmp(config->classes.items[c], "yes") != 0)) {
            die(EXIT_CONFIG,
                "classes: those of vqa-rad are [no, yes]; write these or leave them out");
        }
    }
    dataset_set_classes(all, yes_no, 2);
    dataset_set_root(all, config->prepare.source, false);
    read_vqa_file(all, config->prepare.source, "trainset.json", SPLIT_TRAIN);
    read_vqa_file(all, config->prepare.source, "testset.json", SPLIT_TEST);
    LOG(INFO, "prepare: hashing the pictures of %d rows", all->n);
    dataset_hash_images(all);
}

// ---- the directory ----
static void write_marker(const Config *config, const PrepareFacts *facts, bool is_complete) {
    json_t *root = json_pack(
        "{s:i s:s s:s s:s s:b s:i s:i s:i s:i s:{s:i s:i s:i} s:i s:i s:i}", "version",
        MARKER_VERSION, "format", formats[config->prepare.format], "source", config->prepare.source,
        "data_root", prepare_root(config), "is_complete", is_complete, "rows", facts->rows,
        "left_out", facts->left_out, "bad_images", facts->bad_images, "passages", facts->passages,
        "queries", "train", facts->queries[SPLIT_TRAIN], "val", facts->queries[SPLIT_VAL], "test",
        facts->queries[SPLIT_TEST], "dropped", facts->dropped, "source_test_images",
        facts->test_images, "source_overlap", facts->overlap);
    if (!root) {
        die(EXIT_CONFIG, "prepare.source: '%s' is not valid UTF-8", config->prepare.source);
    }
    char *text = json_dumps(root, JSON_INDENT(2));
    char *path = file_join_new(config->prepare.dir, MARKER);
    error_die(path, file_replace(path, text, strlen(text)));
    free(path);
    free(text);
    json_decref(root);
}

// Is this file the marker of an earlier prepare, and no other program's?
static bool is_marker(const char *path) {
    json_t *root = NULL;
    int64_t version = 0;
    const char *format = NULL;
    const bool is_ours =
        json_read_new(&root, path, JSON_LIMIT).code == EXIT_OK && json_is_object(root) &&
        json_member_int(root, "version", true, 1, MARKER_VERSION, &version).code == EXIT_OK &&
        json_member_text(root, "format", true, &format).code == EXIT_OK &&
        json_object_get(root, "is_complete");
    json_decref(root);
    return is_ours;
}

// Dies when prepare.source lies in prepare.dir, from which an earlier prepare's images are removed.
static void keep_apart(const Config *config) {
    char *dir = realpath(config->prepare.dir, NULL);
    char *source = realpath(config->prepare.source, NULL);
    const size_t length = dir ? strlen(dir) : 0;
    if (dir && source && strncmp(dir, source, length) == 0 &&
        (source[length] == '/' || source[length] == '\0')) {
        die(EXIT_CONFIG, "prepare.dir: '%s' holds prepare.source; name another directory",
            config->prepare.dir);
    }
    free(dir);
    free(source);
}

static void open_directory(const Config *config) {
    static const char *const written[] = {"corpus.jsonl", "task.jsonl", "images"};
    const char *dir = config->prepare.dir;
    keep_apart(config);
    Error error = file_check_writable(dir);
    if (error.code != EXIT_OK) {
        die(EXIT_NO_OUTPUT, "prepare.dir: '%s': %s", dir, error.text);
    }
    char **names, *marker = file_join_new(dir, MARKER);
    int count;
    error_die(dir, file_list_new(&names, &count, dir));
    file_list_free(names, count);
    if (count > 0 && !is_marker(marker)) {
        die(EXIT_NO_OUTPUT,
            "prepare.dir: '%s' is not empty and was not written by prepare; name another", dir);
    }
    // The marker first: what is half written after a kill can be told from another's files.
    write_marker(config, &(PrepareFacts){0}, false);
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        char *path = file_join_new(dir, written[i]);
        error_die(path, file_remove_tree(path));
        free(path);
    }
    free(marker);
}

// ---- writing ----
typedef struct {
    FileWriter corpus, task;
} Output;

// What stands before a value, such as `,"text":`, and the value quoted; nothing for "".
static void put(FileWriter *writer, const char *before, const char *value) {
    if (value[0]) {
        char *quoted = json_quote_new(value);
        file_writer_print(writer, "%s", before);
        file_writer_add(writer, quoted, strlen(quoted));
        free(quoted);
    }
}

static void put_passage(FileWriter *writer, const Record *record, const char *text) {
    CHECK(record->id[0], "passage without an id");
    put(writer, "{\"id\":", record->id);
    put(writer, ",\"img_path\":", record->path);
    put(writer, ",\"text\":", text);
    put(writer, ",\"group\":", record->group);
    put(writer, ",\"split\":", split_names[record->split]);
    file_writer_print(writer, "}\n");
}

// A row of a task without questions states its class under `answers`.
static void put_query(FileWriter *writer, const Record *record) {
    CHECK(record->id[0], "query without an id");
    put(writer, "{\"id\":", record->id);
    put(writer, ",\"image_path\":", record->path);
    put(writer, ",\"question\":", record->question);
    put(writer, record->question[0] ? ",\"answer\":" : ",\"answers\":", record->answer);
    put(writer, ",\"group\":", record->group);
    put(writer, ",\"split\":", split_names[record->split]);
    file_writer_print(writer, "}\n");
}

static char *image_name_new(const Record *record) {
    return record->path[0] ? xformat_new("%s.png", record->path)
                           : xformat_new("images/%s.png", record->id);
}

// The picture of a row, at most max_side large (0: as it is); false when it is bad.
static bool scaled_image_new(Image *out, Dataset *all, int row, Device *dev, int max_side) {
    Image image;
    if (!dataset_image(all, row, &image)) {
        return false;
    }
    const int longest = image.width > image.height ? image.width : image.height;
    *out = image;
    if (max_side > 0 && longest > max_side) {
        const int width = (int)((int64_t)image.width * max_side / longest);
        const int height = (int)((int64_t)image.height * max_side / longest);
#pragma omp critical(prepare_resize) // a device serves one thread at a time
        *out = image_resize_new(dev, &image, width > 1 ? width : 1, height > 1 ? height : 1,
                                RESIZE_BICUBIC);
        image_free(&image);
    }
    return true;
}

static void put_image(const char *dir, const Record *record, const Image *image) {
    size_t size;
    char *name = image_name_new(record), *path = file_join_new(dir, name);
    uint8_t *png = png_encode_new(image, &size);
    error_die(path, file_replace(path, png, size));
    free(png);
    free(path);
    free(name);
}

// A row by the file of its picture.
typedef struct {
    const char *path;
    int row;
} PictureRow;

static int by_path(const void *a, const void *b) {
    const PictureRow *x = a, *y = b;
    const int order = strcmp(x->path, y->path);
    return order ? order : x->row - y->row;
}

// The rows taken, those of one picture side by side; embedded pictures have one row each.
static PictureRow *picture_rows_new(const Dataset *all, const bool *is_taken, int *count) {
    PictureRow *rows = xmalloc((size_t)all->n, sizeof *rows);
    *count = 0;
    for (int i = 0; i < all->n; i++) {
        if (is_taken[i]) {
            rows[(*count)++] = (PictureRow){all->records[i].path, i};
        }
    }
    qsort(rows, (size_t)*count, sizeof *rows, by_path);
    return rows;
}

// Writes the pictures of the rows taken, each once; rows whose picture turns out bad are taken no
// more. Most of the time is waiting for each file to be safe on the disk, and files can wait side
// by side.
static void write_images(const Config *config, Dataset *all, bool *is_taken) {
    char *images = file_join_new(config->prepare.dir, "images");
    error_die(images, file_make_directories(images));
    free(images);
    Device *dev = device_new(DEVICE_CPU, 0, 1);
    int count, done = 0;
    PictureRow *rows = picture_rows_new(all, is_taken, &count);
    const bool is_terminal = isatty(STDERR_FILENO);
#pragma omp parallel for schedule(dynamic, 1) num_threads(WRITERS)
    for (int i = 0; i < count; i++) {
        const int now = __atomic_add_fetch(&done, 1, __ATOMIC_RELAXED);
        if (is_terminal && now % 100 == 0) {
            log_live("prepare: pictures of %d of %d rows", now, count);
        }
        if (i > 0 && rows[i].path[0] && strcmp(rows[i - 1].path, rows[i].path) == 0) {
            continue;
        }
        Image image;
        if (scaled_image_new(&image, all, rows[i].row, dev, config->prepare.max_side)) {
            put_image(config->prepare.dir, &all->records[rows[i].row], &image);
            image_free(&image);
            continue;
        }
        is_taken[rows[i].row] = false;
        for (int k = i + 1; k < count && strcmp(rows[k].path, rows[i].path) == 0; k++) {
            is_taken[rows[k].row] = false;
        }
    }
    free(rows);
    device_free(dev);
}

// One row of the source into whatever it belongs to. record is a copy that may be changed.
static void put_row(Output *out, const Config *config, PrepareFacts *facts, Record record) {
    char *path = NULL, *text;
    if (config->prepare.format == KEY_FORMAT_MEDMNIST) {
        text = caption_new(config->prepare.caption, record.answer);
    } else {
        text = xformat_new("%s %s", record.question, record.answer);
    }
    if (writes_images(config)) {
        path = image_name_new(&record);
        record.path = path;
    }
    if (record.split == SPLIT_TRAIN) {
        put_passage(&out->corpus, &record, text);
        facts->passages++;
    }
    if (record.label >= 0) {
        put_query(&out->task, &record);
        facts->queries[record.split]++;
    }
    facts->dropped += record.split != SPLIT_TRAIN && record.label < 0;
    free(text);
    free(path);
}

// Which rows are used: (n), to be freed. Counts those left out.
static bool *choose_rows_new(const Config *config, const Dataset *all, PrepareFacts *facts) {
    bool *is_taken = xcalloc((size_t)all->n, sizeof *is_taken);
    int total[SPLIT_COUNT] = {0}, seen[SPLIT_COUNT] = {0};
    for (int i = 0; i < all->n; i++) {
        total[all->records[i].split]++;
    }
    for (int i = 0; i < all->n; i++) {
        const Split split = all->records[i].split;
        const bool is_wanted = prepare_takes(seen[split]++, total[split], config->prepare.max_rows);
        is_taken[i] = is_wanted && all->records[i].image_hash != 0;
        facts->left_out += !is_wanted;
    }
    return is_taken;
}

static void write_rows(const Config *config, const Dataset *all, const bool *is_taken,
                       PrepareFacts *facts) {
    char *corpus = file_join_new(config->prepare.dir, "corpus.jsonl");
    char *task = file_join_new(config->prepare.dir, "task.jsonl");
    Output out;
    int taken = 0;
    error_die(corpus, file_writer_open(&out.corpus, corpus));
    error_die(task, file_writer_open(&out.task, task));
    for (int i = 0; i < all->n; i++) {
        if (is_taken[i]) {
            put_row(&out, config, facts, all->records[i]);
        }
        taken += is_taken[i];
    }
    facts->bad_images = all->n - facts->left_out - taken;
    facts->dropped += all->n - taken;
    error_die(corpus, file_writer_commit(&out.corpus));
    error_die(task, file_writer_commit(&out.task));
    free(corpus);
    free(task);
}

PrepareFacts prepare_run(const Config *config) {
    PrepareFacts facts = {0};
    Dataset *all = dataset_new();
    all->policy.on_bad_image = (BadImage)config->data.on_bad_image;
    all->policy.max_bad = 1; // many rows share a picture; the facts say how many were dropped
    if (config->prepare.format == KEY_FORMAT_MEDMNIST) {
        read_medmnist(all, config);
    } else {
        read_vqa_rad(all, config);
    }
    facts.rows = all->n;
    count_overlap(&facts, all);
    for (int i = 0; config->prepare.format == KEY_FORMAT_VQA_RAD && i < all->n; i++) {
        all->records[i].split = prepare_split(all->records[i].image_hash);
    }
    open_directory(config);
    bool *is_taken = choose_rows_new(config, all, &facts);
    if (writes_images(config)) {
        write_images(config, all, is_taken);
    }
    write_rows(config, all, is_taken, &facts);
    free(is_taken);
    write_marker(config, &facts, true);
    dataset_free(all);
    return facts;
}
