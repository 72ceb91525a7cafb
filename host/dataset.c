// dataset: corpus and task in memory; see dataset.h.
#include "dataset.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BLOCK 65536 // bytes per block of strings
#define BLANK_SIDE 32    // of the picture that stands for a bad one
#define BLANK_LEVEL 128

ImagePolicy image_policy_default(void) {
    return (ImagePolicy){.on_bad_image = BAD_IMAGE_FAIL,
                         .max_bad = 0.001,
                         .limits = image_limits_default()};
}

Record record_empty(void) { return (Record){.label = -1, .group_id = -1}; }

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
    return ds;
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
    if (ds->n == ds->room) {
        ds->room = ds->room ? 2 * ds->room : 256;
        ds->records = xrealloc(ds->records, (size_t)ds->room, sizeof *ds->records);
        ds->is_bad = xrealloc(ds->is_bad, (size_t)ds->room, 1);
    }
    static const Record nothing;
    const Record *last = ds->n ? &ds->records[ds->n - 1] : &nothing;
    Record kept = *record;
    kept.id = keep(ds, record->id);
    kept.text = keep(ds, record->text);
    kept.question = keep_or(ds, record->question, last->question);
    kept.answer = keep_or(ds, record->answer, last->answer);
    kept.group = keep_or(ds, record->group, last->group);
    kept.source = keep_or(ds, record->source, last->source);
    kept.path = keep(ds, record->path);
    if (record->image.data) {
        kept.image = image_copy_new(&record->image);
        kept.image_hash = image_hash(&kept.image);
    }
    ds->is_bad[ds->n] = 0;
    ds->records[ds->n] = kept;
    return ds->n++;
}

// ---- reading one ----
// Applies the policy to a row whose picture cannot be had.
static bool bad_image(Dataset *ds, int i, Error error, Image *out) {
    const Record *record = &ds->records[i];
    if (ds->policy.on_bad_image == BAD_IMAGE_FAIL) {
        die(error.code, "%s:%zu: %s; image of row %d (id '%s')", record->path, error.offset,
            error.text, i, record->id);
    }
    if (!__atomic_exchange_n(&ds->is_bad[i], 1, __ATOMIC_RELAXED)) {
        const int bad = __atomic_add_fetch(&ds->bad_images, 1, __ATOMIC_RELAXED);
        LOG(WARN, "%s:%zu: %s; row %d (id '%s') is %s", record->path, error.offset, error.text, i,
            record->id, ds->policy.on_bad_image == BAD_IMAGE_SKIP ? "skipped" : "blank");
        if (bad > ds->policy.max_bad * ds->n) {
            die(EXIT_BAD_DATA, "%d bad images among %d rows are more than a share of %g", bad, ds->n,
                ds->policy.max_bad);
        }
    }
    if (ds->policy.on_bad_image == BAD_IMAGE_SKIP) {
        return false;
    }
    *out = image_new(BLANK_SIDE, BLANK_SIDE, 1);
    memset(out->data, BLANK_LEVEL, image_bytes(out));
    return true;
}

bool dataset_image(Dataset *ds, int i, Image *out) {
    CHECK(i >= 0 && i < ds->n, "row %d of %d", i, ds->n);
    const Record *record = &ds->records[i];
    if (record->image.data) {
        *out = image_copy_new(&record->image);
        return true;
    }
    return bad_image(ds, i, error_at(EXIT_NO_INPUT, 0, "no image"), out);
}
