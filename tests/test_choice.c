// test_choice: the choice of a token against transformers' processors (tools/vectors_choice.py),
// the draw against its probabilities, and generation_config.json, good and bad.
#include "host/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

enum { MOST = 64 };

// ---- scores ----
static int read_row(float *out, const json_t *row) {
    const int n = (int)json_array_size(row);
    CHECK(n >= 1 && n <= MOST, "n=%d", n);
    for (int i = 0; i < n; i++) {
        const json_t *x = json_array_get(row, (size_t)i);
        out[i] = json_is_null(x) ? -INFINITY : (float)json_number_value(x);
    }
    return n;
}

static double number_of(const json_t *object, const char *name) {
    const json_t *x = json_object_get(object, name);
    CHECK(json_is_number(x), "no number '%s'", name);
    return json_number_value(x);
}

static void expect_row(const char *what, const float *got, const json_t *row) {
    float want[MOST];
    const int V = read_row(want, row);
    for (int v = 0; v < V; v++) {
        EXPECT(got[v] == want[v], "%s: score %d is %g, not %g", what, v, got[v], want[v]);
    }
}

static void expect_vector(const json_t *vector) {
    float scores[MOST];
    int32_t seen[MOST];
    const int V = read_row(scores, json_object_get(vector, "logits"));
    const json_t *ids = json_object_get(vector, "seen");
    const int n = (int)json_array_size(ids);
    for (int i = 0; i < n; i++) {
        seen[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    }
    ChoiceConfig config = choice_greedy();
    config.penalty = number_of(vector, "penalty");
    config.temperature = number_of(vector, "temperature");
    config.top_p = number_of(vector, "top_p");
    config.top_k = (int)number_of(vector, "top_k");
    choice_penalize(scores, V, seen, n, config.penalty);
    expect_row("penalized", scores, json_object_get(vector, "penalized"));
    choice_warp(scores, V, &config);
    expect_row("warped", scores, json_object_get(vector, "warped"));
}

// Every id is drawn on an interval of u as long as its probability, in the order of the ids.
static void expect_draws(void) {
    const float scores[] = {-INFINITY, 1, 3, -INFINITY, 2, -1000, -INFINITY};
    enum { V = sizeof scores / sizeof *scores, DRAWS = 100000 };
    double total = 0, p[V];
    for (int v = 0; v < V; v++) {
        total += p[v] = exp(scores[v]);
    }
    int count[V] = {0}, before = -1;
    for (int i = 0; i < DRAWS; i++) {
        const int id = choice_draw(scores, V, (i + 0.5) / DRAWS);
        EXPECT(id >= before && id < V, "%d after %d", id, before);
        count[before = id]++;
    }
    for (int v = 0; v < V; v++) {
        EXPECT(fabs(count[v] - DRAWS * p[v] / total) <= 1, "id %d was drawn %d times", v, count[v]);
    }
    EXPECT(choice_draw(scores, V, 0) == 1 && choice_draw(scores, V, nextafter(1, 0)) == 4,
           "the ends draw %d and %d", choice_draw(scores, V, 0),
           choice_draw(scores, V, nextafter(1, 0)));
}

static void expect_largest(void) {
    const float equal[] = {1, 5, 5}, none[] = {-INFINITY, -INFINITY}, nan[] = {2, NAN, 3};
    EXPECT(choice_largest(equal, 3) == 1, "of equals comes %d", choice_largest(equal, 3));
    EXPECT(choice_largest(none, 2) == -1 && choice_draw(none, 2, 0.5) == -1, "%d out of nothing",
           choice_largest(none, 2));
    EXPECT(choice_largest(nan, 3) == -1 && choice_draw(nan, 3, 0.5) == -1, "%d beside a NaN",
           choice_largest(nan, 3));
}

// ---- generation_config.json ----
static Error read_text(ChoiceConfig *out, const char *text) {
    json_t *json;
    error_die("text", json_parse_new(&json, text, strlen(text)));
    *out = choice_greedy();
    const Error error = choice_config_read(out, json);
    json_decref(json);
    return error;
}

static void expect_published(void) {
    ChoiceConfig config;
    Error error = read_text(&config, "{\"bos_token_id\": 151643, \"pad_token_id\": 151643,"
                            "\"do_sample\": true, \"eos_token_id\": [151645, 151643],"
                            "\"repetition_penalty\": 1.05, \"temperature\": 0.01,"
                            "\"top_p\": 0.001, \"top_k\": 1, \"transformers_version\": \"4.37\"}");
    EXPECT(!error.code, "%s", error.text);
    EXPECT(config.is_sampled && config.end_count == 2 && choice_is_end(&config, 151643) &&
               choice_is_end(&config, 151645) && !choice_is_end(&config, 1) &&
               config.penalty == 1.05 && config.temperature == 0.01 && config.top_p == 0.001 &&
               config.top_k == 1,
           "%d ends, penalty %g", config.end_count, config.penalty);
    error = read_text(&config, "{\"eos_token_id\": 2}");
    EXPECT(!error.code && config.end_count == 1 && config.ends[0] == 2 && !config.is_sampled &&
               config.penalty == 1,
           "%d ends: %s", config.end_count, error.text);
}

static void expect_refused(const char *text, const char *member) {
    ChoiceConfig config;
    const Error error = read_text(&config, text);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, member), "%s gives %d: %s", text,
           error.code, error.text);
}

TEST(choice) {
    if (CASE("against transformers")) {
        const char *path = check_fixture("choice.json");
        json_t *vectors;
        error_die(path, json_read_new(&vectors, path, 1 << 20));
        EXPECT(json_array_size(vectors) == 9, "%zu vectors", json_array_size(vectors));
        for (size_t i = 0; i < json_array_size(vectors); i++) {
            expect_vector(json_array_get(vectors, i));
        }
        json_decref(vectors);
    }
    if (CASE("draws")) {
        expect_draws();
    }
    if (CASE("the largest")) {
        expect_largest();
    }
    if (CASE("generation_config.json")) {
        expect_published();
        expect_refused("{\"num_beams\": 4}", "num_beams");
        expect_refused("{\"top_p\": 0}", "top_p");
        expect_refused("{\"top_p\": 1.5}", "top_p");
        expect_refused("{\"temperature\": -1}", "temperature");
        expect_refused("{\"temperature\": \"hot\"}", "temperature");
        expect_refused("{\"top_k\": -1}", "top_k");
        expect_refused("{\"repetition_penalty\": 0}", "repetition_penalty");
        expect_refused("{\"eos_token_id\": \"end\"}", "eos_token_id");
        expect_refused("{\"eos_token_id\": [1, -2]}", "eos_token_id");
        expect_refused("{\"eos_token_id\": [1,2,3,4,5,6,7,8,9]}", "eos_token_id");
        expect_refused("{\"do_sample\": 1}", "do_sample");
        expect_refused("[]", "object");
    }
}
