// dataset_files: the files datasets come from; see dataset_files.h.
#include "dataset_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "jsonl.h"
#include "npz.h"

enum { NUMBER_ROOM = 24 }; // a 64-bit integer in decimal
static const char *const split_names[] = {"test", "val", "train"}; // in the order of Split

// ---- members ----
// A member that is a text or an integer, as text; room holds an integer. Absent or null: "".
static Error label_member(const json_t *row, const char *name, char room[NUMBER_ROOM],
                          const char **out) {
    const json_t *value = json_object_get(row, name);
    *out = "";
    if (json_is_integer(value)) {
        snprintf(room, NUMBER_ROOM, "%lld", (long long)json_integer_value(value));
        *out = room;
        return error_none();
    }
    return json_member_text(row, name, false, out);
}

static Error split_member(const json_t *row, Split *out) {
    const char *name = NULL;
    const Error error = json_member_text(row, "split", false, &name);
    *out = SPLIT_COUNT;
    for (int s = 0; name && s < SPLIT_COUNT; s++) {
        if (strcmp(name, split_names[s]) == 0) {
            *out = (Split)s;
        }
    }
    if (error.code == EXIT_OK && name && *out == SPLIT_COUNT) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                        "member 'split' is '%.40s'; write train, val or test", name);
    }
    return error;
}

// ---- a row ----
typedef struct {
    Dataset *ds;
    const DatasetReading *reading;
    int open_answers; // answers that are no class
} Parser;

static Error not_a_class(const Parser *p, const char *answer) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                    "answer '%.60s' is none of the %d classes; write one "
                    "exactly as in the key 'classes'",
                    answer, p->ds->C);
}

static Error common_members(const json_t *row, const char *path_name, Record *record,
                            char room[2][NUMBER_ROOM]) {
    Error error = label_member(row, "id", room[0], &record->id);
    if (error.code == EXIT_OK) {
        error = label_member(row, "group", room[1], &record->group);
    }
    if (error.code == EXIT_OK) {
        error = split_member(row, &record->split);
    }
    if (error.code == EXIT_OK) {
        error = json_member_text(row, path_name, true, &record->path);
    }
    if (error.code == EXIT_OK && record->path[0] == '\0') {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%s' is empty; name an image",
                         path_name);
    }
    return error;
}

static Error corpus_row(Parser *p, const json_t *row, Record *record) {
    char room[2][NUMBER_ROOM];
    const char *title = "", *section = "";
    Error error = common_members(row, "img_path", record, room);
    if (error.code == EXIT_OK) {
        error = json_member_text(row, "text", true, &record->text);
    }
    if (error.code == EXIT_OK) {
        error = json_member_text(row, "dataset_source", false, &record->source);
    }
    if (error.code == EXIT_OK) {
        error = json_member_text(row, "title", false, &title);
    }
    if (error.code == EXIT_OK) {
        error = json_member_text(row, "section", false, &section);
    }
    if (error.code != EXIT_OK) {
        return error;
    }
    char *joined = xformat_new("%s%s%s", title, title[0] && section[0] ? ": " : "", section);
    record->title = joined;
    dataset_add(p->ds, record);
    free(joined);
    return error;
}

// Adds the classes named in text, commas between, to the mask of the record.
static Error add_classes(const Parser *p, const char *text, Record *record) {
    char *copy = xstrdup(text);
    Error error = error_none();
    for (char *rest = copy, *word; rest && error.code == EXIT_OK;) {
        word = rest;
        rest = strchr(word, ',');
        if (rest) {
            *rest++ = '\0';
        }
        word += strspn(word, " ");
        for (size_t n = strlen(word); n > 0 && word[n - 1] == ' '; n--) {
            word[n - 1] = '\0';
        }
        const int c = dataset_class(p->ds, word);
        if (c >= 0) {
            record->labels |= (uint32_t)1 << c;
        } else if (word[0]) {
            error = not_a_class(p, word);
        }
    }
    free(copy);
    return error;
}

// The answer under `answers` or `answer`: a text, an integer, or a list of them, of which a task
// with one label takes the first. Sets answer (which then lives in *kept, to be freed), label and
// labels.
static Error answer_member(Parser *p, const json_t *row, Record *record, char **kept) {
    const json_t *closed = json_object_get(row, "answers");
    const bool is_closed = closed && !json_is_null(closed);
    const json_t *value = is_closed ? closed : json_object_get(row, "answer");
    const size_t count =
        json_is_array(value) ? json_array_size(value) : value && !json_is_null(value);
    const size_t used = p->reading->is_multi_label || count == 0 ? count : 1;
    char *text = xstrdup("");
    for (size_t i = 0; i < used; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        char *longer = NULL;
        if (json_is_string(one)) {
            longer = xformat_new("%s%s%s", text, i ? "," : "", json_string_value(one));
        } else if (json_is_integer(one)) {
            longer =
                xformat_new("%s%s%lld", text, i ? "," : "", (long long)json_integer_value(one));
        }
        free(text);
        if (!longer) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "member '%s' wants a text or an integer, got %s",
                            is_closed ? "answers" : "answer", json_type_name(one));
        }
        text = longer;
    }
    *kept = text;
    record->answer = text;
    if (count == 0 && !p->reading->is_multi_label) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                        "no member 'answers' or 'answer'; give the row one");
    }
    if (p->ds->C > 0 && p->reading->is_multi_label) {
        return add_classes(p, text, record);
    }
    record->label = dataset_class(p->ds, text);
    p->open_answers += record->label < 0;
    return is_closed && p->ds->C > 0 && record->label < 0 ? not_a_class(p, text) : error_none();
}

static Error task_row(Parser *p, const json_t *row, Record *record) {
    char room[2][NUMBER_ROOM], *answer = NULL;
    Error error = common_members(row, "image_path", record, room);
    if (error.code == EXIT_OK) {
        error = json_member_text(row, "question", false, &record->question);
    }
    if (error.code == EXIT_OK) {
        error = answer_member(p, row, record, &answer);
    }
    if (error.code == EXIT_OK) {
        dataset_add(p->ds, record);
    }
    free(answer);
    return error;
}

// ---- a file ----
typedef Error row_fn(Parser *p, const json_t *row, Record *record);

static Error parse(Dataset *ds, const char *name, const void *data, size_t size,
                   const DatasetReading *reading, row_fn *add_row) {
    CHECK(!reading->is_multi_label || ds->C <= 32, "%d classes in a mask of 32 bits", ds->C);
    Parser p = {.ds = ds, .reading = reading};
    Jsonl lines;
    jsonl_begin(&lines, name, data, size);
    lines.max_bad_lines = reading->max_bad_lines;
    lines.is_utf8_strict = reading->is_utf8_strict;
    Error error;
    json_t *row;
    while ((error = jsonl_next(&lines, &row)).code == EXIT_OK && row) {
        Record record = record_empty();
        record.source = name;
        record.line = (int)lines.line;
        error = add_row(&p, row, &record);
        json_decref(row);
        if (error.code != EXIT_OK) {
            error.offset = lines.line;
            if (lines.bad_lines >= (size_t)reading->max_bad_lines) {
                break;
            }
            lines.bad_lines++;
            lines.last_bad = error;
        }
    }
    jsonl_end(&lines);
    if (error.code == EXIT_OK && p.open_answers > 0 && ds->C > 0) {
        LOG(INFO, "%s: %d answers are none of the %d classes (open questions)", name,
            p.open_answers, ds->C);
    }
    return error;
}

Error dataset_parse_corpus(Dataset *ds, const char *name, const void *data, size_t size,
                           const DatasetReading *reading) {
    return parse(ds, name, data, size, reading, corpus_row);
}

Error dataset_parse_task(Dataset *ds, const char *name, const void *data, size_t size,
                         const DatasetReading *reading) {
    return parse(ds, name, data, size, reading, task_row);
}

// ---- MedMNIST ----
static Error shape_error(Split split, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "array '%s_%s; is the file MedMNIST's?",
                    split_names[split], what);
}

static Error check_shapes(const Dataset *ds, Split split, const NpyArray *images,
                          const NpyArray *labels) {
    const size_t *shape = images->shape;
    const bool is_colour = images->rank == 4;
    if (images->type != NPY_U1 || images->rank < 3 || images->rank > 4 ||
        (is_colour && shape[3] != 3)) {
        return shape_error(split, "images' is not uint8 of (N,H,W) or (N,H,W,3)");
    }
    if (shape[1] < 1 || shape[2] < 1 || shape[1] > (size_t)ds->policy.limits.max_side ||
        shape[2] > (size_t)ds->policy.limits.max_side) {
        return shape_error(split, "images' has pictures of no allowed size");
    }
    if (labels->type != NPY_U1 || labels->rank != 2 || labels->shape[0] != shape[0] ||
        labels->shape[1] < 1) {
        return shape_error(split,
                           "labels' is not uint8 of (N,1) or (N,L) with the N of the images");
    }
    if (labels->shape[1] > 1 && (labels->shape[1] != (size_t)ds->C || ds->C > 32)) {
        return shape_error(split,
                           "labels' has another number of labels than 'classes' (at most 32)");
    }
    return error_none();
}

// The labels of row i into the record. Error: one that is no class.
static Error set_labels(const Dataset *ds, Split split, const NpyArray *labels, size_t i,
                        Record *record) {
    const size_t L = labels->shape[1];
    const uint8_t *row = labels->data + i * L;
    for (size_t l = 0; L > 1 && l < L; l++) {
        if (row[l] > 1) {
            return shape_error(split, "labels' has several labels a row that are not 0 or 1");
        }
        record->labels |= (uint32_t)row[l] << l;
    }
    if (L == 1) {
        if (ds->C > 0 && row[0] >= ds->C) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "label %d of %s row %zu is beyond the %d classes; "
                            "complete the key 'classes'",
                            row[0], split_names[split], i, ds->C);
        }
        record->label = row[0];
        record->answer = ds->C > 0 ? ds->class_names[row[0]] : "";
    }
    return error_none();
}

static Error add_split(Dataset *ds, const char *name, Split split, const NpyArray *images,
                       const NpyArray *labels) {
    Error error = check_shapes(ds, split, images, labels);
    if (error.code != EXIT_OK) {
        return error;
    }
    Image image =
        image_new((int)images->shape[2], (int)images->shape[1], images->rank == 4 ? 3 : 1);
    const size_t bytes = image_bytes(&image);
    for (size_t i = 0; i < images->shape[0] && error.code == EXIT_OK; i++) {
        char id[32];
        snprintf(id, sizeof id, "%s-%zu", split_names[split], i);
        memcpy(image.data, images->data + i * bytes, bytes);
        Record record = record_empty();
        record.id = id;
        record.source = name;
        record.split = split;
        record.image = image;
        error = set_labels(ds, split, labels, i, &record);
        if (error.code == EXIT_OK) {
            dataset_add(ds, &record);
        }
    }
    image_free(&image);
    return error;
}

Error dataset_parse_medmnist(Dataset *ds, const char *name, const void *data, size_t size,
                             size_t max_array_bytes) {
    Npz archive;
    Error error = npz_open_new(&archive, data, size);
    if (error.code != EXIT_OK) {
        return error;
    }
    int found = 0;
    for (int s = SPLIT_COUNT - 1; s >= 0 && error.code == EXIT_OK; s--) { // train first
        char key[2][24];
        snprintf(key[0], sizeof key[0], "%s_images", split_names[s]);
        snprintf(key[1], sizeof key[1], "%s_labels", split_names[s]);
        if (!npz_has(&archive, key[0])) {
            continue;
        }
        found++;
        NpyArray images = {0}, labels = {0};
        error = npz_load_new(&images, &archive, key[0], max_array_bytes);
        if (error.code == EXIT_OK) {
            error = npz_load_new(&labels, &archive, key[1], max_array_bytes);
        }
        if (error.code == EXIT_OK) {
            error = add_split(ds, name, (Split)s, &images, &labels);
        }
        npy_free(&images);
        npy_free(&labels);
    }
    npz_free(&archive);
    if (error.code == EXIT_OK && found == 0) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "no train_images, val_images or test_images in this "
                         "archive; is the file MedMNIST's?");
    }
    return error;
}

// ---- files on disk ----
// Dies of an error, and of a file without rows.
static int rows_added(const Dataset *ds, int before, const char *path, Error error) {
    error_die(path, error);
    if (ds->n == before) {
        die(EXIT_BAD_DATA, "%s: no row in this file; give it at least one", path);
    }
    return ds->n - before;
}

static int read_rows(Dataset *ds, const char *path, const DatasetReading *reading,
                     row_fn *add_row) {
    const int before = ds->n;
    FileBytes bytes;
    error_die(path, file_map_new(&bytes, path));
    const Error error = parse(ds, path, bytes.data, bytes.size, reading, add_row);
    file_bytes_free(&bytes);
    return rows_added(ds, before, path, error);
}

int dataset_read_corpus(Dataset *ds, const char *path, const DatasetReading *reading) {
    return read_rows(ds, path, reading, corpus_row);
}

int dataset_read_task(Dataset *ds, const char *path, const DatasetReading *reading) {
    return read_rows(ds, path, reading, task_row);
}

int dataset_read_medmnist(Dataset *ds, const char *path, size_t max_array_bytes) {
    const int before = ds->n;
    FileBytes bytes;
    error_die(path, file_map_new(&bytes, path));
    const Error error = dataset_parse_medmnist(ds, path, bytes.data, bytes.size, max_array_bytes);
    file_bytes_free(&bytes);
    return rows_added(ds, before, path, error);
}
