// results_file: results.json out and in; see results.h for its layout.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "results.h"

#define VERSION 1
#define FILE_LIMIT ((size_t)1 << 30)

// ---- writing ----
// Six significant digits, so that files stay small.
static json_t *json_rounded(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    return json_real(strtod(text, NULL));
}

static json_t *json_ints(const int *values, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(array, json_integer(values[i]));
    }
    return array;
}

// n numbers with six significant digits.
static json_t *json_rounded_floats(const float *values, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(array, json_rounded((double)values[i]));
    }
    return array;
}

static json_t *json_doubles(const double *values, size_t n, bool is_rounded) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(array, is_rounded ? json_rounded(values[i]) : json_real(values[i]));
    }
    return array;
}

static json_t *json_facts(const FactList *facts) {
    json_t *object = json_object();
    for (int i = 0; i < facts->count; i++) {
        const double value = facts->items[i].value;
        json_object_set_new(object, facts->items[i].name,
                            isfinite(value) ? json_real(value) : json_null());
    }
    return object;
}

static json_t *json_utility(const UtilityModel *utility) {
    return json_pack(
        "{s:o s:o s:o s:f}", "mean", json_doubles(utility->mean, UTILITY_FEATURES, false), "scale",
        json_doubles(utility->scale, UTILITY_FEATURES, false), "weight",
        json_doubles(utility->weight, UTILITY_FEATURES, false), "intercept", utility->intercept);
}

static json_t *json_system(const RunResult *result, const SystemResult *system) {
    const size_t Q = (size_t)result->Q, places = Q * system->P;
    json_t *answers = json_object();
    for (int a = 0; a < ANSWER_COUNT; a++) {
        json_object_set_new(answers, answer_name((Answer)a), json_ints(system->answers[a], Q));
    }
    json_t *object = json_pack(
        "{s:s s:i s:o s:o s:o s:o s:o}", "name", system->name, "passages_per_query", system->P,
        "facts", json_facts(&system->facts), "answers", answers, "predicted",
        json_ints(system->predicted, places), "passages", json_ints(system->passages, places),
        "probability", json_doubles(system->probability, Q * result->C, false));
    if (system->passage_probability) {
        json_object_set_new(object, "passage_probability",
                            json_doubles(system->passage_probability, places * result->C, true));
    }
    if (system->scores) {
        json_object_set_new(object, "scores",
                            json_rounded_floats(system->scores, INDEX_SIDES * places));
    }
    if (system->caption_length) {
        json_object_set_new(object, "caption_length", json_ints(system->caption_length, places));
    }
    if (system->utility) {
        json_object_set_new(object, "utility", json_utility(system->utility));
    }
    return object;
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
    return json_pack("{s:s s:s s:o}", "query", picture->query, "gold", picture->gold, "systems",
                     systems);
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
    json_t *root = json_pack(
        "{s:i s:s s:s s:i s:i s:o s:o s:o s:o s:o s:o}", "version", VERSION, "task", result->task,
        "commit", result->commit, "seed", result->seed, "k", result->k, "classes", classes, "gold",
        json_ints(result->gold, (size_t)result->Q), "inconsistent", inconsistent, "facts",
        json_facts(&result->facts), "systems", systems, "pictures", pictures);
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
        if (!json_is_integer(value) || json_integer_value(value) < low ||
            json_integer_value(value) > high) {
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

// Exactly n finite numbers; *out is NULL when the array is absent or does not fit.
static bool read_doubles_new(double **out, const json_t *array, size_t n) {
    *out = NULL;
    if (!json_is_array(array) || json_array_size(array) != n) {
        return false;
    }
    *out = xmalloc(n, sizeof **out);
    bool is_good = true;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        (*out)[i] = json_number_value(value);
        is_good = is_good && json_is_number(value) && isfinite((*out)[i]);
    }
    return is_good;
}

static bool read_features(double out[UTILITY_FEATURES], const json_t *array) {
    double *values;
    const bool is_good = read_doubles_new(&values, array, UTILITY_FEATURES);
    if (is_good) {
        memcpy(out, values, UTILITY_FEATURES * sizeof *out);
    }
    free(values);
    return is_good;
}

static bool read_utility(SystemResult *system, const json_t *object) {
    UtilityModel *utility = xcalloc(1, sizeof *utility);
    const json_t *intercept = json_object_get(object, "intercept");
    bool is_good = read_features(utility->mean, json_object_get(object, "mean")) &&
                   read_features(utility->scale, json_object_get(object, "scale")) &&
                   read_features(utility->weight, json_object_get(object, "weight")) &&
                   json_is_number(intercept);
    utility->intercept = json_number_value(intercept);
    for (int i = 0; i < UTILITY_FEATURES; i++) {
        is_good = is_good && utility->scale[i] > 0;
    }
    system->utility = utility;
    return is_good;
}

// What only newer results have. Absent is fine, wrong is not.
static bool read_reranking(const RunResult *result, SystemResult *system, const json_t *object) {
    const size_t places = (size_t)result->Q * system->P;
    const json_t *probability = json_object_get(object, "passage_probability");
    const json_t *scores = json_object_get(object, "scores");
    const json_t *lengths = json_object_get(object, "caption_length");
    const json_t *utility = json_object_get(object, "utility");
    bool is_good = true;
    if (probability) {
        is_good = read_doubles_new(&system->passage_probability, probability, places * result->C);
    }
    if (scores) {
        double *values;
        is_good = read_doubles_new(&values, scores, INDEX_SIDES * places) && is_good;
        system->scores = xcalloc(INDEX_SIDES * places, sizeof *system->scores);
        for (size_t i = 0; values && i < INDEX_SIDES * places; i++) {
            system->scores[i] = (float)values[i];
        }
        free(values);
    }
    if (lengths) {
        system->caption_length = xcalloc(places, sizeof(int));
        is_good = read_ints(system->caption_length, lengths, places, 0, INT32_MAX) && is_good;
    }
    return (!utility || read_utility(system, utility)) && is_good;
}

static bool read_system(RunResult *result, json_t *object) {
    const char *name = NULL;
    int P = 0;
    json_t *facts, *answers, *predicted, *passages, *probability;
    if (json_unpack(object, "{s:s s:i s:o s:o s:o s:o s:o}", "name", &name, "passages_per_query",
                    &P, "facts", &facts, "answers", &answers, "predicted", &predicted, "passages",
                    &passages, "probability", &probability) != 0 ||
        P < 1 || (P != 1 && P != 2 * result->k) || run_result_find(result, name)) {
        return false;
    }
    // Sizes are compared before memory is taken for them.
    const size_t Q = (size_t)result->Q, places = Q * P;
    if (json_array_size(predicted) != places || json_array_size(passages) != places) {
        return false;
    }
    SystemResult *system = run_result_append(result);
    system->name = xstrdup(name);
    system->P = P;
    system->predicted = xmalloc(places, sizeof(int));
    system->passages = xmalloc(places, sizeof(int32_t));
    read_facts(&system->facts, facts);
    bool is_good = read_ints(system->predicted, predicted, places, 0, result->C - 1) &&
                   read_ints(system->passages, passages, places, -1, INT32_MAX) &&
                   read_doubles_new(&system->probability, probability, Q * result->C);
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = xmalloc(Q, sizeof(int));
        is_good = is_good &&
                  read_ints(system->answers[a], json_object_get(answers, answer_name((Answer)a)), Q,
                            0, result->C - 1);
    }
    return is_good && read_reranking(result, system, object);
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
    if (json_unpack(root, "{s:i s:s s:i s:i s:o s:o s:o s:o s:o s:o}", "version", &version, "task",
                    &task, "seed", &result->seed, "k", &result->k, "classes", &classes, "gold",
                    &gold, "inconsistent", &inconsistent, "facts", &facts, "systems", &systems,
                    "pictures", &pictures) != 0 ||
        version != VERSION) {
        return bad("not a results.json of version 1");
    }
    result->task = xstrdup(task);
    result->commit = text_of(root, "commit");
    if (json_array_size(classes) < 1 || json_array_size(classes) > 65536 ||
        json_array_size(gold) < 1 || json_array_size(gold) > INT32_MAX / 2 || result->k < 0 ||
        result->k > 32768) {
        return bad("no classes, no queries, or k out of range");
    }
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
        if (!read_system(result, item)) {
            return error_at(EXIT_BAD_DATA, 0,
                            "system %zu does not fit its queries and classes; run it again", i);
        }
    }
    result->pictures = xcalloc(json_array_size(pictures) + 1, sizeof *result->pictures);
    json_array_foreach(pictures, i, item) {
        read_picture(&result->pictures[result->picture_count++], item);
    }
    return error_none();
}

// Takes over root, which may be NULL beside an error.
static Error take_root(RunResult **out, json_t *root, Error error) {
    *out = NULL;
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

Error run_result_parse_new(RunResult **out, const void *text, size_t size) {
    json_t *root = NULL;
    const Error error = json_parse_new(&root, text, size);
    return take_root(out, root, error);
}

Error run_result_read_new(RunResult **out, const char *path) {
    json_t *root = NULL;
    const Error error = json_read_new(&root, path, FILE_LIMIT);
    return take_root(out, root, error);
}
