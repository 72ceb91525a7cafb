// predictions: see predictions.h.
#include "predictions.h"

#include <math.h>
#include <stdlib.h>

#include "file.h"
#include "json.h"

static void put_text(FileWriter *out, const char *before, const char *text) {
    char *quoted = json_quote_new(text);
    file_writer_print(out, "%s%s", before, quoted);
    free(quoted);
}

static void put_number(FileWriter *out, const char *before, double value) {
    char number[JSON_NUMBER_ROOM];
    file_writer_print(out, "%s%s", before, json_number(number, value));
}

static void put_passages(FileWriter *out, const Dataset *queries, const Dataset *corpus,
                         const Evaluation *e, const OwnWords *own, int q) {
    for (int p = 0; p < e->P; p++) {
        const int row = e->passages[q * e->P + p];
        if (row < 0) {
            continue; // closed book
        }
        put_text(out, p ? ", {\"id\": " : "{\"id\": ", corpus->records[row].id);
        put_text(out, ", \"text\": ", corpus->records[row].text);
        put_number(out, ", \"score\": ", e->scores[q * e->P + p]);
        put_text(out, ", \"prediction\": ", queries->class_names[e->predicted[q * e->P + p]]);
        if (own) {
            put_text(out, ", \"generation\": ", own->texts[q * e->P + p]);
            file_writer_print(out, ", \"parsed\": %d", own->parsed[q * e->P + p]);
        }
        file_writer_print(out, "}");
    }
}

static void put_logits(FileWriter *out, const Evaluation *e, Answer answer, const OwnWords *own,
                       int q) {
    for (int p = 0; own && own->saved && p < e->P; p++) {
        for (int c = 0; c < e->C; c++) {
            put_number(out, c ? ", " : p ? "], [" : "[",
                       own->saved[((size_t)q * e->P + p) * e->C + c]);
        }
    }
    if (own && own->saved) {
        file_writer_print(out, "]");
        return;
    }
    for (int c = 0; c < e->C; c++) {
        put_number(out, c ? ", " : "", log(e->fused[((size_t)answer * e->Q + q) * e->C + c]));
    }
}

Error predictions_write(const char *path, const Dataset *queries, const Dataset *corpus,
                        const Evaluation *e, Answer answer, const OwnWords *own) {
    FileWriter out;
    Error error = file_writer_open(&out, path);
    if (error.code) {
        return error;
    }
    for (int q = 0; q < e->Q; q++) {
        const Record *query = &queries->records[q];
        const int said = e->answers[answer * e->Q + q];
        put_text(&out, "{\"id\": ", query->id);
        put_text(&out, ", \"query\": ", query->question);
        put_text(&out, ", \"answers\": [", query->answer);
        put_text(&out, "], \"generation\": ", own && own->fused_texts
                                                    ? own->fused_texts[q]
                                                    : queries->class_names[said]);
        file_writer_print(&out, ", \"logits\": [");
        put_logits(&out, e, answer, own, q);
        file_writer_print(&out, "], \"passages\": [");
        put_passages(&out, queries, corpus, e, own, q);
        file_writer_print(&out, "], \"metadata\": {\"label\": %d, \"correct\": %s}}\n",
                          query->label, said == query->label ? "true" : "false");
    }
    return file_writer_commit(&out);
}
