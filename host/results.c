// results: see results.h.
#include "results.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "png.h"
#include "version.h"

// ---- facts ----
void facts_add(FactList *facts, double value, const char *fmt, ...) {
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    facts->items = xrealloc(facts->items, (size_t)facts->count + 1, sizeof *facts->items);
    facts->items[facts->count++] = (Fact){xstrdup(name), value};
}

double facts_get(const FactList *facts, const char *name) {
    for (int i = 0; i < facts->count; i++) {
        if (strcmp(facts->items[i].name, name) == 0) {
            return facts->items[i].value;
        }
    }
    return NAN;
}

static void facts_free(FactList *facts) {
    for (int i = 0; i < facts->count; i++) {
        free(facts->items[i].name);
    }
    free(facts->items);
}

// ---- making one ----
RunResult *run_result_new(const char *task, int seed, int k, const Dataset *queries) {
    RunResult *result = xcalloc(1, sizeof *result);
    *result = (RunResult){.task = xstrdup(task), .commit = xstrdup(version_commit), .seed = seed,
                          .k = k, .Q = queries->n, .C = queries->C};
    result->classes = xcalloc((size_t)result->C, sizeof *result->classes);
    for (int c = 0; c < result->C; c++) {
        result->classes[c] = xstrdup(queries->class_names[c]);
    }
    result->gold = xcalloc((size_t)result->Q, sizeof *result->gold);
    result->inconsistent = xcalloc((size_t)result->Q, sizeof *result->inconsistent);
    for (int q = 0; q < result->Q; q++) {
        result->gold[q] = queries->records[q].label;
    }
    return result;
}

static void free_system(SystemResult *system) {
    free(system->name);
    for (int a = 0; a < ANSWER_COUNT; a++) {
        free(system->answers[a]);
    }
    free(system->predicted);
    free(system->passages);
    free(system->probability);
    free(system->passage_probability);
    free(system->scores);
    free(system->caption_length);
    free(system->utility);
    facts_free(&system->facts);
}

static void free_picture(Picture *picture) {
    for (int s = 0; s < picture->count; s++) {
        ShownSystem *shown = &picture->systems[s];
        for (int p = 0; p < shown->count; p++) {
            free(shown->passages[p].image);
            free(shown->passages[p].caption);
            free(shown->passages[p].answer);
        }
        free(shown->passages);
        free(shown->system);
    }
    free(picture->systems);
    free(picture->query);
    free(picture->gold);
}

void run_result_free(RunResult *result) {
    if (!result) {
        return;
    }
    for (int c = 0; c < result->C && result->classes; c++) {
        free(result->classes[c]);
    }
    for (int s = 0; s < result->system_count; s++) {
        free_system(&result->systems[s]);
    }
    for (int i = 0; i < result->picture_count; i++) {
        free_picture(&result->pictures[i]);
    }
    free(result->classes);
    free(result->systems);
    free(result->pictures);
    free(result->gold);
    free(result->inconsistent);
    free(result->task);
    free(result->commit);
    facts_free(&result->facts);
    free(result);
}

SystemResult *run_result_append(RunResult *result) {
    result->systems =
        xrealloc(result->systems, (size_t)result->system_count + 1, sizeof *result->systems);
    SystemResult *system = &result->systems[result->system_count++];
    memset(system, 0, sizeof *system);
    return system;
}

static void *copy_new(const void *from, size_t count, size_t size) {
    void *to = xmalloc(count, size);
    memcpy(to, from, count * size);
    return to;
}

SystemResult *run_result_add(RunResult *result, const char *name, const Evaluation *e,
                             const UtilityModel *utility) {
    CHECK(e->Q == result->Q && e->C == result->C, "Q=%d C=%d", e->Q, e->C);
    SystemResult *system = run_result_append(result);
    const size_t Q = (size_t)e->Q, places = Q * e->P, values = Q * e->C;
    *system = (SystemResult){.name = xstrdup(name), .P = e->P};
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = copy_new(e->answers + a * Q, Q, sizeof(int));
    }
    system->predicted = copy_new(e->predicted, places, sizeof(int));
    system->passages = copy_new(e->passages, places, sizeof(int32_t));
    system->probability = copy_new(e->fused + ANSWER_MIXTURE * values, values, sizeof(double));
    system->passage_probability = copy_new(e->probability, places * e->C, sizeof(double));
    system->caption_length = copy_new(e->caption_length, places, sizeof(int));
    if (e->side_scores) {
        system->scores = copy_new(e->side_scores, INDEX_SIDES * places, sizeof(float));
    }
    if (utility) {
        system->utility = copy_new(utility, 1, sizeof *utility);
    }
    return system;
}

SystemResult *run_result_add_answers(RunResult *result, const char *name, const int *answers,
                                     const double *probability) {
    SystemResult *system = run_result_append(result);
    const size_t Q = (size_t)result->Q;
    *system = (SystemResult){.name = xstrdup(name), .P = 1};
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = copy_new(answers, Q, sizeof(int));
    }
    system->predicted = copy_new(answers, Q, sizeof(int));
    system->passages = xmalloc(Q, sizeof(int32_t));
    for (size_t q = 0; q < Q; q++) {
        system->passages[q] = -1;
    }
    system->probability = copy_new(probability, Q * result->C, sizeof(double));
    return system;
}

void run_result_fix_subset(RunResult *result, const Evaluation *frozen) {
    analysis_inconsistent(result->inconsistent, frozen->predicted, frozen->Q, frozen->P);
}

const SystemResult *run_result_find(const RunResult *result, const char *name) {
    for (int s = 0; s < result->system_count; s++) {
        if (strcmp(result->systems[s].name, name) == 0) {
            return &result->systems[s];
        }
    }
    return NULL;
}

// ---- pictures ----
static char *base64_new(const uint8_t *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = xmalloc((size + 2) / 3 * 4 + 1, 1), *to = out;
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i;
        const uint32_t second = left > 1 ? bytes[i + 1] : 0, third = left > 2 ? bytes[i + 2] : 0;
        const uint32_t word = (uint32_t)bytes[i] << 16 | second << 8 | third;
        *to++ = digits[word >> 18];
        *to++ = digits[word >> 12 & 63];
        *to++ = left > 1 ? digits[word >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[word & 63] : '=';
    }
    *to = '\0';
    return out;
}

// The image of a row as base64 PNG; empty when it is bad.
static char *picture_of_row(Dataset *ds, int row) {
    Image image;
    if (!dataset_image(ds, row, &image)) {
        return xstrdup("");
    }
    size_t size;
    uint8_t *png = png_encode_new(&image, &size);
    char *text = base64_new(png, size);
    free(png);
    image_free(&image);
    return text;
}

void run_result_picture(RunResult *result, Dataset *queries, Dataset *corpus, int q,
                        const char *const *names, const Evaluation *const *evaluations, int count) {
    result->pictures =
        xrealloc(result->pictures, (size_t)result->picture_count + 1, sizeof *result->pictures);
    Picture *picture = &result->pictures[result->picture_count++];
    *picture = (Picture){.query = picture_of_row(queries, q), .count = count};
    const int gold = queries->records[q].label;
    picture->gold = xstrdup(gold >= 0 ? result->classes[gold] : "");
    picture->systems = xcalloc((size_t)count, sizeof *picture->systems);
    for (int s = 0; s < count; s++) {
        const Evaluation *e = evaluations[s];
        ShownSystem *shown = &picture->systems[s];
        *shown = (ShownSystem){.system = xstrdup(names[s]), .count = e->P};
        shown->passages = xcalloc((size_t)e->P, sizeof *shown->passages);
        for (int p = 0; p < e->P; p++) {
            const int row = e->passages[q * e->P + p];
            shown->passages[p] = (ShownPassage){
                row >= 0 ? picture_of_row(corpus, row) : xstrdup(""),
                xstrdup(row >= 0 ? corpus->records[row].text : ""),
                xstrdup(result->classes[e->predicted[q * e->P + p]])};
        }
    }
}
