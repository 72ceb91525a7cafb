// dataset: corpus and task in memory; see dataset.h.
#include "dataset.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#define TEXT_BLOCK 65536 // bytes per block of strings
#define BLANK_SIDE 32    // of the picture that stands for a bad one
#define BLANK_LEVEL 128
#define FILE_LIMIT ((size_t)256 << 20) // bytes of an image file

ImagePolicy image_policy_default(void) {
    return (ImagePolicy){.on_bad_image = BAD_IMAGE_FAIL,
                         .max_bad = 0.001,
                         .limits = image_limits_default()};
}

Record record_empty(void) {
    return (Record){.label = -1, .group_id = -1, .split = SPLIT_COUNT};
}

// ---- strings ----
// Millions of short strings: blocks that are filled from the front and freed together.
struct DatasetText {
    DatasetText *next;
    size_t used, room;
    char bytes[];
};

static const char *keep(Dataset *ds, const char *text) {
    if (!text || !text[0]) {
        return "";
    }
    const size_t size = strlen(text) + 1;
    DatasetText *block = ds->text;
    if (!block || block->room - block->used < size) {
        const size_t room = size > TEXT_BLOCK ? size : TEXT_BLOCK;
        block = xmalloc(sizeof *block + room, 1);
        *block = (DatasetText){.next = ds->text, .room = room};
        ds->text = block;
    }
    char *kept = memcpy(block->bytes + block->used, text, size);
    block->used += size;
    return kept;
}

// Columns such as source and question repeat from row to row: keep one copy of a run.
static const char *keep_or(Dataset *ds, const char *text, const char *previous) {
    return text && previous && strcmp(text, previous) == 0 ? previous : keep(ds, text);
}

// ---- making one ----
Dataset *dataset_new(void) {
    Dataset *ds = xcalloc(1, sizeof *ds);
    ds->policy = image_policy_default();
    ds->root = xstrdup(".");
    return ds;
}

void dataset_set_root(Dataset *ds, const char *root, bool allow_absolute_paths) {
    free(ds->root);
    ds->root = xstrdup(root);
    ds->allow_absolute_paths = allow_absolute_paths;
}

static void free_classes(Dataset *ds) {
    for (int c = 0; c < ds->C; c++) {
        free(ds->class_names[c]);
    }
    free(ds->class_names);
}

void dataset_free(Dataset *ds) {
    if (!ds) {
        return;
    }
    for (int i = 0; i < ds->n; i++) {
        image_free(&ds->records[i].image);
    }
    for (DatasetText *block = ds->text, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free_classes(ds);
    free(ds->records);
    free(ds->root);
    free(ds->is_bad);
    free(ds);
}

void dataset_set_classes(Dataset *ds, const char *const *names, int C) {
    free_classes(ds);
    ds->C = C;
    ds->class_names = xcalloc((size_t)C, sizeof *ds->class_names);
    for (int c = 0; c < C; c++) {
        ds->class_names[c] = xstrdup(names[c]);
    }
}

int dataset_class(const Dataset *ds, const char *name) {
    for (int c = 0; c < ds->C; c++) {
        if (strcmp(ds->class_names[c], name) == 0) {
            return c;
        }
    }
    return -1;
}

int dataset_add(Dataset *ds, const Record *record) {
    CHECK(ds->n < INT_MAX / 2, "%d rows", ds->n);
    CHECK(record->label >= -1 && record->group_id >= -1, "label %d, group %d", record->label,
          record->group_id);
    Record kept = *record; // which may be a row of this very set, about to move
    if (ds->n == ds->room) {
        ds->room = ds->room ? 2 * ds->room : 256;
        ds->records = xrealloc(ds->records, (size_t)ds->room, sizeof *ds->records);
        ds->is_bad = xrealloc(ds->is_bad, (size_t)ds->room, 1);
    }
    static const Record nothing;
    const Record *last = ds->n ? &ds->records[ds->n - 1] : &nothing;
    kept.id = keep(ds, kept.id);
    kept.title = keep_or(ds, kept.title, last->title);
    kept.text = keep(ds, kept.text);
    kept.question = keep_or(ds, kept.question, last->question);
    kept.answer = keep_or(ds, kept.answer, last->answer);
    kept.group = keep_or(ds, kept.group, last->group);
    kept.source = keep_or(ds, kept.source, last->source);
    kept.path = keep(ds, kept.path);
    if (kept.image.data) {
        kept.image = image_copy_new(&kept.image);
        kept.image_hash = image_hash(&kept.image);
    }
    ds->is_bad[ds->n] = 0;
    ds->records[ds->n] = kept;
    return ds->n++;
}

// ---- reading one ----
// "corpus.jsonl:4: image 'c3.png', id 'c3': byte 530: what is wrong; remedy"
static char *with_row_new(const Dataset *ds, int i, Error error) {
    const Record *record = &ds->records[i];
    char where[32] = "";
    if (error.offset != ERROR_NOWHERE) {
        snprintf(where, sizeof where, "byte %zu: ", error.offset);
    }
    return xformat_new("%s:%d: image '%s', id '%s': %s%s",
                       record->source[0] ? record->source : "row", record->line ? record->line : i,
                       record->path, record->id, where, error.text);
}

// Applies the policy to a row whose picture cannot be had. False: skip it. With out NULL only
// counts.
static bool bad_image(Dataset *ds, int i, Error error, Image *out) {
    char *full = with_row_new(ds, i, error);
    if (ds->policy.on_bad_image == BAD_IMAGE_FAIL) {
        die(error.code, "%s; or set data.on_bad_image=blank", full);
    }
    if (!__atomic_exchange_n(&ds->is_bad[i], 1, __ATOMIC_RELAXED)) {
        const int bad = __atomic_add_fetch(&ds->bad_images, 1, __ATOMIC_RELAXED);
        LOG(WARN, "%s; %s", full,
            ds->policy.on_bad_image == BAD_IMAGE_SKIP ? "row skipped" : "blank instead");
        if (bad > ceil(ds->policy.max_bad * ds->n)) {
            die(EXIT_BAD_DATA, "%d bad images among %d rows are more than data.max_bad_images=%g "
                "of them; mend the data", bad, ds->n, ds->policy.max_bad);
        }
    }
    free(full);
    if (ds->policy.on_bad_image == BAD_IMAGE_SKIP) {
        return false;
    }
    if (out) {
        *out = image_new(BLANK_SIDE, BLANK_SIDE, 1);
        memset(out->data, BLANK_LEVEL, image_bytes(out));
    }
    return true;
}

static Error read_file(const Dataset *ds, const Record *record, FileBytes *out) {
    *out = (FileBytes){0};
    if (record->path[0] == '\0') {
        return error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "row has no image; give it one");
    }
    char *path;
    Error error = file_resolve_new(&path, ds->root, record->path, ds->allow_absolute_paths);
    if (error.code == EXIT_OK) {
        error = file_read_new(out, path, FILE_LIMIT);
    }
    free(path);
    return error;
}

Error dataset_read_image(Dataset *ds, int i, Image *out) {
    CHECK(i >= 0 && i < ds->n, "row %d of %d", i, ds->n);
    const Record *record = &ds->records[i];
    *out = (Image){0};
    if (record->image.data) {
        *out = image_copy_new(&record->image);
        return error_none();
    }
    FileBytes bytes;
    int warnings = 0;
    Error error = read_file(ds, record, &bytes);
    if (error.code == EXIT_OK) {
        error = image_decode(bytes.data, bytes.size, &ds->policy.limits, out, &warnings);
    }
    file_bytes_free(&bytes);
    __atomic_add_fetch(&ds->image_warnings, warnings > 0, __ATOMIC_RELAXED);
    if (error.code == EXIT_OK && warnings > 0 && ds->policy.refuse_warnings) {
        image_free(out);
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "%d decoder warnings; image.warnings=accept takes it as it is",
                         warnings);
    }
    return error;
}

bool dataset_accept_image(Dataset *ds, int i, Error error, Image *out) {
    return error.code == EXIT_OK || bad_image(ds, i, error, out);
}

bool dataset_image(Dataset *ds, int i, Image *out) {
    return dataset_accept_image(ds, i, dataset_read_image(ds, i, out), out);
}

uint64_t dataset_image_hash(Dataset *ds, int i) {
    CHECK(i >= 0 && i < ds->n, "row %d of %d", i, ds->n);
    Record *record = &ds->records[i];
    uint64_t hash = __atomic_load_n(&record->image_hash, __ATOMIC_RELAXED);
    if (hash != 0 || record->path[0] == '\0') {
        return hash;
    }
    FileBytes bytes;
    const Error error = read_file(ds, record, &bytes);
    if (error.code == EXIT_OK) {
        hash = xxh64(bytes.data, bytes.size, 0);
        __atomic_store_n(&record->image_hash, hash, __ATOMIC_RELAXED);
    } else {
        bad_image(ds, i, error, NULL);
    }
    file_bytes_free(&bytes);
    return hash;
}

int dataset_drop_bad(Dataset *ds) {
    int kept = 0;
    for (int i = 0; i < ds->n; i++) {
        if (ds->is_bad[i]) {
            image_free(&ds->records[i].image);
        } else {
            ds->records[kept++] = ds->records[i];
        }
    }
    const int dropped = ds->n - kept;
    memset(ds->is_bad, 0, (size_t)ds->n);
    ds->bad_images = 0;
    ds->n = kept;
    return dropped;
}

void dataset_hash_images(Dataset *ds) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int i = 0; i < ds->n; i++) {
        dataset_image_hash(ds, i);
    }
}

uint64_t dataset_hash(const Dataset *ds) {
    uint64_t hash = xxh64(&ds->n, sizeof ds->n, 0);
    for (int i = 0; i < ds->n; i++) {
        const Record *r = &ds->records[i];
        const char *const texts[] = {r->id, r->title, r->text, r->question, r->answer, r->path};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            hash = xxh64(texts[k], strlen(texts[k]) + 1, hash); // the zero byte keeps texts apart
        }
        const uint64_t numbers[3] = {(uint64_t)(int64_t)r->label, r->labels,
                                     r->image.data ? r->image_hash : 0};
        hash = xxh64(numbers, sizeof numbers, hash);
    }
    return hash;
}

// ---- groups ----
// Rows of all sets in one numbering, each under the keys it has.
typedef struct {
    uint64_t key;
    const char *name; // of a group, or NULL where the key is an image hash
    int row;
} Key;

static int by_key(const void *a, const void *b) {
    const Key *x = a, *y = b;
    if (!x->name != !y->name) {
        return x->name ? -1 : 1;
    }
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    const int order = x->name ? strcmp(x->name, y->name) : 0;
    return order ? order : x->row - y->row;
}

static bool same_key(const Key *a, const Key *b) {
    return !a->name == !b->name && a->key == b->key && (!a->name || strcmp(a->name, b->name) == 0);
}

// The smallest row joined to this one; halves the paths on the way.
static int root_of(int *parent, int row) {
    while (parent[row] != row) {
        parent[row] = parent[parent[row]];
        row = parent[row];
    }
    return row;
}

static void join(int *parent, int a, int b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    parent[a > b ? a : b] = a > b ? b : a;
}

static size_t collect_keys(Key *keys, const Dataset *ds, int first_row) {
    size_t n = 0;
    for (int i = 0; i < ds->n; i++) {
        const Record *record = &ds->records[i];
        if (record->group[0]) {
            const uint64_t key = xxh64(record->group, strlen(record->group), 0);
            keys[n++] = (Key){key, record->group, first_row + i};
        }
        if (record->image_hash != 0) {
            keys[n++] = (Key){record->image_hash, NULL, first_row + i};
        }
    }
    return n;
}

int dataset_link_groups(Dataset *const *sets, int set_count) {
    size_t rows = 0, n = 0;
    for (int s = 0; s < set_count; s++) {
        rows += (size_t)sets[s]->n;
    }
    CHECK(rows < INT_MAX, "%zu rows", rows);
    Key *keys = xmalloc(2 * rows, sizeof *keys);
    int *parent = xmalloc(rows, sizeof *parent), *id = xmalloc(rows, sizeof *id);
    for (int s = 0, first = 0; s < set_count; first += sets[s]->n, s++) {
        n += collect_keys(keys + n, sets[s], first);
    }
    for (size_t r = 0; r < rows; r++) {
        parent[r] = (int)r;
        id[r] = -1;
    }
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t k = 1; k < n; k++) {
        if (same_key(&keys[k - 1], &keys[k])) {
            join(parent, keys[k - 1].row, keys[k].row);
        }
    }
    int count = 0, row = 0;
    for (int s = 0; s < set_count; s++) {
        for (int i = 0; i < sets[s]->n; i++, row++) {
            Record *record = &sets[s]->records[i];
            const int root = root_of(parent, row); // never behind row, so its id is known
            const bool is_grouped = record->group[0] || record->image_hash != 0;
            if (is_grouped && id[root] < 0) {
                id[root] = count++;
            }
            record->group_id = is_grouped ? id[root] : -1;
        }
    }
    free(keys);
    free(parent);
    free(id);
    return count;
}

// Rows among keys (sorted here) that repeat an earlier one; *example is one of them, or -1.
static int repeats(Key *keys, size_t n, int *example) {
    int count = 0;
    *example = -1;
    qsort(keys, n, sizeof *keys, by_key);
    for (size_t k = 1; k < n; k++) {
        if (same_key(&keys[k - 1], &keys[k])) {
            count++;
            *example = *example < 0 || keys[k].row < *example ? keys[k].row : *example;
        }
    }
    return count;
}

int dataset_report_duplicates(const Dataset *ds) {
    Key *keys = xmalloc((size_t)ds->n, sizeof *keys);
    size_t ids = 0, images = 0;
    int example;
    for (int i = 0; i < ds->n; i++) {
        const Record *record = &ds->records[i];
        if (record->id[0]) {
            const uint64_t source = xxh64(record->source, strlen(record->source), 0);
            const uint64_t key = xxh64(record->id, strlen(record->id), source);
            keys[ids++] = (Key){key, record->id, i};
        }
    }
    const int repeated_ids = repeats(keys, ids, &example);
    if (repeated_ids > 0) {
        LOG(WARN,
            "%d of %d rows repeat the id of another, as '%s' in row %d; rows are told apart by "
            "number",
            repeated_ids, ds->n, ds->records[example].id, example);
    }
    for (int i = 0; i < ds->n; i++) {
        if (ds->records[i].image_hash != 0) {
            keys[images++] = (Key){ds->records[i].image_hash, NULL, i};
        }
    }
    const int repeated_images = repeats(keys, images, &example);
    if (repeated_images > 0) {
        LOG(INFO, "%d of %d rows show the picture of another, as row %d ('%s')", repeated_images,
            ds->n, example, ds->records[example].path);
    }
    free(keys);
    return repeated_ids;
}
