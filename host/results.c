// results: see results.h.
#include "results.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "png.h"

#define VERSION 1
#define FILE_LIMIT ((size_t)1 << 30)

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
    *result = (RunResult){.task = xstrdup(task), .seed = seed, .k = k, .Q = queries->n, .C = queries->C};
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
    facts_free(&result->facts);
    free(result);
}

static SystemResult *append_system(RunResult *result) {
    result->systems = xrealloc(result->systems, (size_t)result->system_count + 1, sizeof *result->systems);
    SystemResult *system = &result->systems[result->system_count++];
    memset(system, 0, sizeof *system);
    return system;
}

// A system with room for its answers, which the caller fills.
static SystemResult *new_system(RunResult *result, const char *name, int P) {
    SystemResult *system = append_system(result);
    const size_t Q = (size_t)result->Q;
    *system = (SystemResult){.name = xstrdup(name), .P = P};
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = xmalloc(Q, sizeof(int));
    }
    system->predicted = xmalloc(Q * P, sizeof(int));
    system->passages = xmalloc(Q * P, sizeof(int32_t));
    system->probability = xmalloc(Q * result->C, sizeof(double));
    return system;
}

SystemResult *run_result_add(RunResult *result, const char *name, const Evaluation *e) {
    CHECK(e->Q == result->Q && e->C == result->C, "Q=%d C=%d", e->Q, e->C);
    SystemResult *system = new_system(result, name, e->P);
    const size_t Q = (size_t)e->Q, places = Q * e->P, values = Q * e->C;
    for (int a = 0; a < ANSWER_COUNT; a++) {
        memcpy(system->answers[a], e->answers + a * Q, Q * sizeof(int));
    }
    memcpy(system->predicted, e->predicted, places * sizeof(int));
    memcpy(system->passages, e->passages, places * sizeof(int32_t));
    memcpy(system->probability, e->fused + ANSWER_MIXTURE * values, values * sizeof(double));
    return system;
}

SystemResult *run_result_add_answers(RunResult *result, const char *name, const int *answers,
                                     const double *probability) {
    SystemResult *system = new_system(result, name, 1);
    const size_t Q = (size_t)result->Q;
    for (int a = 0; a < ANSWER_COUNT; a++) {
        memcpy(system->answers[a], answers, Q * sizeof(int));
    }
    memcpy(system->predicted, answers, Q * sizeof(int));
    for (size_t q = 0; q < Q; q++) {
        system->passages[q] = -1;
    }
    memcpy(system->probability, probability, Q * result->C * sizeof(double));
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
        const uint32_t word = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                              (left > 2 ? bytes[i + 2] : 0);
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
    result->pictures = xrealloc(result->pictures, (size_t)result->picture_count + 1, sizeof(Picture));
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

// ---- writing ----
static json_t *json_ints(const int *values, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(array, json_integer(values[i]));
    }
    return array;
}

static json_t *json_facts(const FactList *facts) {
    json_t *object = json_object();
    for (int i = 0; i < facts->count; i++) {
        const double value = facts->items[i].value;
        json_object_set_new(object, facts->items[i].name, isfinite(value) ? json_real(value) : json_null());
    }
    return object;
}

static json_t *json_system(const RunResult *result, const SystemResult *system) {
    const size_t Q = (size_t)result->Q;
    json_t *answers = json_object(), *probability = json_array();
    for (int a = 0; a < ANSWER_COUNT; a++) {
        json_object_set_new(answers, answer_name((Answer)a), json_ints(system->answers[a], Q));
    }
    for (size_t i = 0; i < Q * result->C; i++) {
        json_array_append_new(probability, json_real(system->probability[i]));
    }
    return json_pack("{s:s s:i s:o s:o s:o s:o s:o}", "name", system->name, "passages_per_query",
                     system->P, "facts", json_facts(&system->facts), "answers", answers, "predicted",
                     json_ints(system->predicted, Q * system->P), "passages",
                     json_ints(system->passages, Q * system->P), "probability", probability);
}

static json_t *json_picture(const Picture *picture) {
    json_t *systems = json_object();
    for (int s = 0; s < picture->count; s++) {
        json_t *list = json_array();
        for (int p = 0; p < picture->systems[s].count; p++) {
            const ShownPassage *shown = &picture->systems[s].passages[p];
            json_array_append_new(list, json_pack("{s:s s:s s:s}", "image", shown->image, "caption",
                                                  shown->caption, "answer", shown->answer));
        }
        json_object_set_new(systems, picture->systems[s].system, list);
    }
    return json_pack("{s:s s:s s:o}", "query", picture->query, "gold", picture->gold, "systems", systems);
}

Error run_result_write(const RunResult *result, const char *path) {
    json_t *classes = json_array(), *inconsistent = json_array(), *systems = json_array();
    json_t *pictures = json_array();
    for (int c = 0; c < result->C; c++) {
        json_array_append_new(classes, json_string(result->classes[c]));
    }
    for (int q = 0; q < result->Q; q++) {
        json_array_append_new(inconsistent, json_integer(result->inconsistent[q]));
    }
    for (int s = 0; s < result->system_count; s++) {
        json_array_append_new(systems, json_system(result, &result->systems[s]));
    }
    for (int i = 0; i < result->picture_count; i++) {
        json_array_append_new(pictures, json_picture(&result->pictures[i]));
    }
    json_t *root = json_pack("{s:i s:s s:i s:i s:o s:o s:o s:o s:o s:o}", "version", VERSION, "task",
                             result->task, "seed", result->seed, "k", result->k, "classes", classes,
                             "gold", json_ints(result->gold, (size_t)result->Q), "inconsistent",
                             inconsistent, "facts", json_facts(&result->facts), "systems", systems,
                             "pictures", pictures);
    CHECK(root, "results of '%s' are not valid UTF-8", result->task);
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(root);
    const Error error = file_replace(path, text, strlen(text));
    free(text);
    return error;
}

// ---- reading ----
static Error bad(const char *what) { return error_at(EXIT_BAD_DATA, 0, "%s; run it again", what); }

// Exactly n integers low..high.
static bool read_ints(int *out, const json_t *array, size_t n, int low, int high) {
    if (!json_is_array(array) || json_array_size(array) != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
            return false;
        }
        out[i] = (int)json_integer_value(value);
    }
    return true;
}

static void read_facts(FactList *facts, json_t *object) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        facts_add(facts, json_is_number(value) ? json_number_value(value) : NAN, "%s", name);
    }
}

static bool read_system(const RunResult *result, SystemResult *system, json_t *object) {
    const char *name = NULL;
    json_t *facts, *answers, *predicted, *passages, *probability;
    if (json_unpack(object, "{s:s s:i s:o s:o s:o s:o s:o}", "name", &name, "passages_per_query",
                    &system->P, "facts", &facts, "answers", &answers, "predicted", &predicted,
                    "passages", &passages, "probability", &probability) != 0 ||
        system->P < 1 || system->P > 65536) {
        return false;
    }
    const size_t Q = (size_t)result->Q, places = Q * system->P, values = Q * result->C;
    if (json_array_size(predicted) != places || json_array_size(probability) != values) {
        return false;
    }
    system->name = xstrdup(name);
    system->predicted = xmalloc(places, sizeof(int));
    system->passages = xmalloc(places, sizeof(int32_t));
    system->probability = xmalloc(values, sizeof(double));
    read_facts(&system->facts, facts);
    bool is_good = read_ints(system->predicted, predicted, places, 0, result->C - 1) &&
                   read_ints(system->passages, passages, places, -1, INT32_MAX);
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = xmalloc(Q, sizeof(int));
        is_good = is_good && read_ints(system->answers[a], json_object_get(answers, answer_name((Answer)a)),
                                       Q, 0, result->C - 1);
    }
    for (size_t i = 0; i < values; i++) {
        const json_t *value = json_array_get(probability, i);
        is_good = is_good && json_is_number(value);
        system->probability[i] = json_number_value(value);
    }
    return is_good;
}

static char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return xstrdup(text ? text : "");
}

static void read_picture(Picture *picture, const json_t *object) {
    *picture = (Picture){.query = text_of(object, "query"), .gold = text_of(object, "gold")};
    json_t *systems = json_object_get(object, "systems"), *list, *passage;
    const char *name;
    size_t p;
    picture->systems = xcalloc(json_object_size(systems) + 1, sizeof *picture->systems);
    json_object_foreach(systems, name, list) {
        ShownSystem *shown = &picture->systems[picture->count++];
        *shown = (ShownSystem){.system = xstrdup(name)};
        shown->passages = xcalloc(json_array_size(list) + 1, sizeof *shown->passages);
        json_array_foreach(list, p, passage) {
            shown->passages[shown->count++] = (ShownPassage){
                text_of(passage, "image"), text_of(passage, "caption"), text_of(passage, "answer")};
        }
    }
}

static Error read_root(RunResult *result, json_t *root) {
    int version = 0;
    const char *task = NULL;
    json_t *classes, *gold, *inconsistent, *facts, *systems, *pictures, *item;
    if (json_unpack(root, "{s:i s:s s:i s:i s:o s:o s:o s:o s:o s:o}", "version", &version, "task", &task,
                    "seed", &result->seed, "k", &result->k, "classes", &classes, "gold", &gold,
                    "inconsistent", &inconsistent, "facts", &facts, "systems", &systems, "pictures",
                    &pictures) != 0 ||
        version != VERSION) {
        return bad("not a results.json of version 1");
    }
    result->task = xstrdup(task);
    result->C = (int)json_array_size(classes);
    result->Q = (int)json_array_size(gold);
    result->classes = xcalloc((size_t)result->C + 1, sizeof *result->classes);
    result->gold = xmalloc((size_t)result->Q, sizeof *result->gold);
    result->inconsistent = xmalloc((size_t)result->Q, sizeof *result->inconsistent);
    size_t i;
    json_array_foreach(classes, i, item) {
        result->classes[i] = xstrdup(json_string_value(item) ? json_string_value(item) : "");
    }
    int *flags = xmalloc((size_t)result->Q, sizeof *flags);
    const bool is_good = read_ints(result->gold, gold, (size_t)result->Q, -1, result->C - 1) &&
                         read_ints(flags, inconsistent, (size_t)result->Q, 0, 1);
    for (int q = 0; q < result->Q; q++) {
        result->inconsistent[q] = is_good && flags[q];
    }
    free(flags);
    if (!is_good) {
        return bad("gold or inconsistent does not fit");
    }
    read_facts(&result->facts, facts);
    json_array_foreach(systems, i, item) {
        if (!read_system(result, append_system(result), item)) {
            return error_at(EXIT_BAD_DATA, 0, "system %zu does not fit its queries and classes; run it again", i);
        }
    }
    result->pictures = xcalloc(json_array_size(pictures) + 1, sizeof *result->pictures);
    json_array_foreach(pictures, i, item) {
        read_picture(&result->pictures[result->picture_count++], item);
    }
    return error_none();
}

Error run_result_read_new(RunResult **out, const char *path) {
    *out = NULL;
    json_t *root = NULL;
    Error error = json_read_new(&root, path, FILE_LIMIT);
    if (!error.code) {
        *out = xcalloc(1, sizeof **out);
        error = read_root(*out, root);
        json_decref(root);
    }
    if (error.code && *out) {
        run_result_free(*out);
        *out = NULL;
    }
    return error;
}
