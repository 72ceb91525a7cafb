// loss_log: see loss_log.h.
#include "loss_log.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "jsonl.h"

#define FILE_LIMIT ((size_t)1 << 32)

const LossStage *loss_log_find(const LossLog *log, const char *stage) {
    for (int i = 0; i < log->count; i++) {
        if (strcmp(log->items[i].stage, stage) == 0) {
            return &log->items[i];
        }
    }
    return NULL;
}

static void append(LossLog *log, const char *stage, double step, double loss) {
    LossStage *at = (LossStage *)loss_log_find(log, stage);
    if (!at) {
        log->items = xrealloc(log->items, (size_t)log->count + 1, sizeof *log->items);
        at = &log->items[log->count++];
        *at = (LossStage){.stage = xstrdup(stage)};
    }
    if ((at->n & (at->n - 1)) == 0) { // room doubles at every power of two
        const size_t room = at->n ? 2 * (size_t)at->n : 1;
        at->step = xrealloc(at->step, room, sizeof *at->step);
        at->loss = xrealloc(at->loss, room, sizeof *at->loss);
    }
    at->step[at->n] = step;
    at->loss[at->n++] = loss;
}

Error loss_log_read_new(LossLog *out, const char *path) {
    *out = (LossLog){NULL, 0};
    FileBytes bytes = {0};
    Error error = file_read_new(&bytes, path, FILE_LIMIT);
    if (error.code) {
        return error;
    }
    Jsonl reader;
    jsonl_begin(&reader, path, bytes.data, bytes.size);
    reader.max_bad_lines = INT_MAX;
    json_t *row;
    while (!(error = jsonl_next(&reader, &row)).code && row) {
        const json_t *step = json_object_get(row, "step"), *loss = json_object_get(row, "loss");
        const char *stage = json_string_value(json_object_get(row, "stage"));
        step = step ? step : json_object_get(row, "current_steps");
        if (json_is_number(step) && loss) {
            append(out, stage ? stage : "", json_number_value(step),
                   json_is_number(loss) ? json_number_value(loss) : NAN);
        }
        json_decref(row);
    }
    jsonl_end(&reader);
    file_bytes_free(&bytes);
    if (error.code) {
        loss_log_free(out);
    }
    return error;
}

void loss_log_free(LossLog *log) {
    for (int i = 0; i < log->count; i++) {
        free(log->items[i].stage);
        free(log->items[i].step);
        free(log->items[i].loss);
    }
    free(log->items);
    *log = (LossLog){NULL, 0};
}
