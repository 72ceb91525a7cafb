// The method's formulas against vectors of an independent script (tools/vectors_method.py):
// evidence, objectives, optimiser, schedule, fusion, exact switches; then properties of evidence
// and fusion that hold exactly.
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/choice.h"
#include "host/evidence.h"
#include "host/fusion.h"
#include "host/own_words.h"
#include "host/processor.h"
#include "host/prompt.h"
#include "host/python_random.h"
#include "host/sampler.h"
#include "host/schedule.h"
#include "tests/check.h"

// ---- reading vectors ----
static const json_t *member(const json_t *object, const char *key) {
    const json_t *const value = json_object_get(object, key);
    CHECK(value, "no vectors '%s'", key);
    return value;
}

static const json_t *vectors(const char *section) {
    static json_t *root;
    if (!root) {
        json_error_t error;
        root = json_load_file(check_fixture("vectors_method.json"), 0, &error);
        CHECK(root, "vectors_method.json: %s", error.text);
    }
    return member(root, section);
}

static double number(const json_t *object, const char *key) {
    const json_t *const value = member(object, key);
    CHECK(json_is_number(value), "'%s' is no number", key);
    return json_number_value(value);
}

static bool truth(const json_t *object, const char *key) {
    return json_is_true(member(object, key));
}

// Fills up to room numbers and returns how many there were.
static int numbers(double *out, int room, const json_t *object, const char *key) {
    const json_t *const array = member(object, key);
    const int n = (int)json_array_size(array);
    CHECK(n >= 1 && n <= room, "'%s' has %d numbers, room for %d", key, n, room);
    for (int i = 0; i < n; i++) {
        out[i] = json_number_value(json_array_get(array, (size_t)i));
    }
    return n;
}

static int floats(float *out, int room, const json_t *object, const char *key) {
    double values[64];
    CHECK(room <= 64, "room=%d", room);
    const int n = numbers(values, room, object, key);
    for (int i = 0; i < n; i++) {
        out[i] = (float)values[i];
    }
    return n;
}

// Both sides were computed in f64: equal up to a few of its roundings.
static void close_to(const char *what, double got, double want) {
    expect_within(what, &got, &want, 1, 1e-13 * fmax(1, fabs(want)));
}

// The left side was rounded once to f32.
static void close_f32(const char *what, float got, double want) {
    const double x = (double)got;
    expect_ulp(what, &x, &want, 1, DT_F32, 0.51);
}

// ---- evidence ----
TEST(method_evidence) {
    const json_t *const section = vectors("evidence"), *v;
    size_t i;
    float raw[16], logprob[16];
    json_array_foreach(member(section, "cases"), i, v) {
        const int C = (int)number(v, "C"), y = (int)number(v, "y");
        if (CASE("C=%d y=%d, %zu", C, y, i)) {
            floats(raw, 16, v, "raw");
            floats(logprob, 16, v, "logprob");
            const double twice = evidence_double_softmax(raw, C, y);
            close_to("double softmax", twice, number(v, "double_softmax"));
            close_to("log pi", evidence_label(logprob, C, y), number(v, "fixed"));
            const double low = -log(exp(1) + C - 1);
            EXPECT(twice >= low - 1e-12 && twice <= low + 1 + 1e-12, "%g left its window", twice);
        }
    }
    if (CASE("retina6")) {
        v = member(section, "retina6");
        floats(raw, 16, v, "raw");
        const int y = (int)number(v, "y");
        const int five = evidence_label_count(5, false), six = evidence_label_count(5, true);
        close_to("five, double", evidence_double_softmax(raw, five, y), number(v, "five_double"));
        close_to("six, double", evidence_double_softmax(raw, six, y), number(v, "six_double"));
        close_to("five", evidence_label(raw, five, y), number(v, "five_fixed"));
        close_to("six", evidence_label(raw, six, y), number(v, "six_fixed"));
    }
    if (CASE("mean over tokens")) {
        v = member(section, "tokens");
        const int n = floats(logprob, 16, v, "logprob");
        close_to("mean", evidence_mean(logprob, n), number(v, "mean"));
    }
}

TEST(method_evidence_limits) {
    double pi[3];
    if (CASE("pi is normalised and agrees with g")) {
        const float logprob[] = {-1, -2, -3}, far[] = {-700, -900, -800};
        evidence_softmax(pi, logprob, 3);
        close_to("sum", pi[0] + pi[1] + pi[2], 1);
        close_to("log pi", evidence_label(logprob, 3, 1), log(pi[1]));
        // pi(y) is far below the smallest float; its logarithm is not.
        close_to("no underflow", evidence_label(far, 3, 1), -200);
    }
    if (CASE("an impossible gold label")) {
        const float x[] = {-1, -INFINITY, -2};
        EXPECT(evidence_label(x, 3, 1) == -INFINITY, "%g", evidence_label(x, 3, 1));
        EXPECT(isfinite(evidence_double_softmax(x, 3, 1)), "%g", evidence_double_softmax(x, 3, 1));
    }
    if (CASE("nothing but impossible labels")) {
        const float x[] = {-INFINITY, -INFINITY, -INFINITY};
        EXPECT(evidence_label(x, 3, 1) == -INFINITY, "%g", evidence_label(x, 3, 1));
        const double twice = evidence_double_softmax(x, 3, 1);
        EXPECT(twice == -INFINITY, "%g", twice);
        evidence_softmax(pi, x, 3);
        EXPECT(pi[0] == 1.0 / 3 && pi[2] == 1.0 / 3, "%g %g", pi[0], pi[2]);
    }
    if (CASE("NaN is not lost")) {
        const float some[] = {-1, NAN, -2}, all[] = {NAN, NAN, NAN};
        EXPECT(isnan(evidence_label(some, 3, 0)) && isnan(evidence_label(all, 3, 0)), "log pi");
        EXPECT(isnan(evidence_double_softmax(some, 3, 0)) &&
                   isnan(evidence_double_softmax(all, 3, 0)), "double softmax");
    }
}

// ---- objectives ----
static MarginalMode mode_of(const char *name) {
    static const char *const names[] = {"marginal", "jomed",     "pdist",     "emdr2",
                                        "legacy_i", "legacy_ii", "legacy_iii"};
    for (int i = 0; i < 7; i++) {
        if (strcmp(names[i], name) == 0) {
            return (MarginalMode)i;
        }
    }
    CHECK(false, "no mode '%s'", name);
}

static Buf buf_vector(const json_t *object, const char *key) {
    double values[64];
    const int n = numbers(values, 64, object, key);
    return buf_from(DT_F32, values, (size_t)n);
}

static IntBuf ibuf_vector(const json_t *object, const char *key) {
    double values[64];
    int32_t ints[64];
    const int n = numbers(values, 64, object, key);
    for (int i = 0; i < n; i++) {
        ints[i] = (int32_t)values[i];
    }
    return ibuf_from(ints, (size_t)n);
}

static void marginal_case(const json_t *section, const json_t *v, const MarginalConfig *config) {
    const int B = (int)number(section, "B"), K = (int)number(section, "K");
    const bool has_tokens = config->mode == MARGINAL_EMDR2;
    const size_t n = (size_t)B * (size_t)K;
    Buf s = buf_vector(section, "s"), g = buf_vector(section, has_tokens ? "tokens" : "g");
    Buf weight = buf_vector(section, "weight");
    IntBuf lengths = ibuf_vector(section, "lengths"), predicted = ibuf_vector(section, "predicted");
    Buf loss = buf_fill(DT_F32, 2 * (size_t)B, NAN), r = buf_fill(DT_F32, n, NAN);
    Buf ds = buf_fill(DT_F32, n, NAN);
    check_ops()->marginal(check_device(), buf_f32(&loss), buf_f32(&r), buf_f32(&ds), buf_f32(&s),
                          buf_f32(&g), lengths.dev, buf_f32(&weight), predicted.dev, B, K,
                          has_tokens ? (int)number(section, "T") : 1, config);
    static const char *const names[] = {"loss", "r", "ds"};
    Buf *const outputs[] = {&loss, &r, &ds};
    for (int i = 0; i < 3; i++) {
        double want[64], largest = 0;
        const int count = numbers(want, 64, v, names[i]);
        for (int k = 0; k < count; k++) {
            largest = fmax(largest, fabs(want[k]));
        }
        // f64 inside, one rounding to f32; what cancels in f64 loses a few of its units.
        expect_within(names[i], buf_read(outputs[i]), want, (size_t)count,
                      ldexp(largest, -24) + 1e-12);
    }
    Buf *const bufs[] = {&s, &g, &weight, &loss, &r, &ds};
    for (int i = 0; i < 6; i++) {
        buf_free(bufs[i]);
    }
    ibuf_free(&lengths);
    ibuf_free(&predicted);
}

TEST(method_marginal) {
    const json_t *const section = vectors("marginal"), *v;
    size_t i;
    json_array_foreach(member(section, "cases"), i, v) {
        const char *const mode = json_string_value(member(v, "mode"));
        const MarginalConfig config = {mode_of(mode),
                                       (float)number(v, "Ts"),
                                       (float)number(v, "Tg"),
                                       (float)number(v, "F"),
                                       truth(v, "prior_t1"),
                                       truth(v, "kl_mean")};
        if (CASE("%s Ts=%g Tg=%g prior_t1=%d kl_mean=%d", mode, (double)config.Ts,
                 (double)config.Tg, config.is_prior_t1, config.is_element_mean)) {
            marginal_case(section, v, &config);
        }
    }
}

// ---- optimiser and schedule ----
TEST(method_wd1) {
    const json_t *const v = vectors("adamw");
    double w0[5], grads[15], lrs[3], want[15];
    numbers(w0, 5, v, "w0");
    numbers(grads, 15, v, "grads");
    numbers(lrs, 3, v, "lrs");
    numbers(want, 15, v, "w");
    Buf w = buf_from(DT_F32, w0, 5), m = buf_fill(DT_F32, 5, 0), v2 = buf_fill(DT_F32, 5, 0);
    AdamWConfig config = {0, 0.9f, 0.999f, 1e-8f, (float)number(v, "wd")};
    IntBuf count = ibuf_fill(2, 0);
    for (int step = 0; step < 3; step++) {
        Buf grad = buf_from(DT_F32, grads + 5 * step, 5);
        config.lr = (float)lrs[step];
        check_ops()->adamw(check_device(), DT_F32, w.dev, buf_f32(&w), buf_f32(&m), buf_f32(&v2),
                           (AdamWCount *)count.dev, buf_f32(&grad), NULL, NULL, 5, &config);
        // Numbers below 2, a few roundings of the weight per step.
        expect_within("w", buf_read(&w), want + 5 * step, 5, 3 * (step + 1) * ldexp(1, -23));
        buf_free(&grad);
    }
    expect_exact("the first step, at rate 0", want, w0, 5); // of the script: the same fact
    buf_free(&w);
    buf_free(&m);
    buf_free(&v2);
    ibuf_free(&count);
}

TEST(method_clip) {
    const json_t *const v = vectors("clip");
    Buf grad = buf_vector(v, "grad"), norm = buf_fill(DT_F32, 2, NAN);
    const float max_norm = (float)number(v, "max_norm");
    check_ops()->global_norm(check_device(), buf_f32(&norm), buf_f32(&grad), grad.n, max_norm);
    close_f32("norm", (float)buf_read(&norm)[0], number(v, "norm"));
    close_f32("factor", (float)norm.host[1], number(v, "factor"));
    // exact.clip_before_backward: what is clipped is the gradient of the step before, empty then.
    memset(grad.host, 0, grad.n * sizeof *grad.host);
    buf_write(&grad);
    check_ops()->global_norm(check_device(), buf_f32(&norm), buf_f32(&grad), grad.n, max_norm);
    close_to("empty norm", buf_read(&norm)[0], number(v, "empty_norm"));
    close_to("empty factor", norm.host[1], number(v, "empty_factor"));
    buf_free(&grad);
    buf_free(&norm);
}

static double cosine(int step) { return schedule_rate(SCHEDULE_COSINE, 1e-4, 20, 50000, step); }

TEST(method_schedule) {
    const json_t *const v = vectors("schedule");
    double steps[8], want[8];
    if (CASE("cosine of the original")) {
        const int n = numbers(steps, 8, v, "steps");
        numbers(want, 8, v, "lr");
        for (int i = 0; i < n; i++) {
            close_to("lr", cosine((int)steps[i]) * 1e4, want[i] * 1e4);
        }
        EXPECT(cosine(0) == 0 && cosine(50000) == 0 && cosine(60000) == 0, "the ends are not 0");
        EXPECT(cosine(20) == 1e-4, "the top is %g", cosine(20));
    }
    if (CASE("linear of the refit")) {
        const int n = numbers(steps, 8, v, "linear_steps");
        numbers(want, 8, v, "linear");
        for (int i = 0; i < n; i++) {
            const double rate = schedule_rate(SCHEDULE_LINEAR, 5e-4, 15, 100, (int)steps[i]);
            close_to("lr", rate * 1e4, want[i] * 1e4);
        }
    }
    if (CASE("constant, no warm-up, and nothing but warm-up")) {
        EXPECT(schedule_rate(SCHEDULE_CONSTANT, 0.5, 4, 10, 1) == 0.125, "constant, warming up");
        EXPECT(schedule_rate(SCHEDULE_CONSTANT, 0.5, 4, 10, 4) == 0.5, "constant, warm");
        EXPECT(schedule_rate(SCHEDULE_CONSTANT, 0.5, 4, 10, 99) == 0.5, "constant, beyond total");
        EXPECT(schedule_rate(SCHEDULE_COSINE, 0.5, 0, 10, 0) == 0.5, "no warm-up");
        EXPECT(schedule_rate(SCHEDULE_LINEAR, 0.5, 8, 8, 7) == 0.4375, "last of the warm-up");
        EXPECT(schedule_rate(SCHEDULE_LINEAR, 0.5, 8, 8, 8) == 0, "after it");
    }
}

// ---- fusion ----
static int first_largest(const double *x, int C) {
    int best = 0;
    for (int c = 1; c < C; c++) {
        best = x[c] > x[best] ? c : best;
    }
    return best;
}

TEST(method_fusion) {
    const json_t *const section = vectors("fusion"), *v;
    double pi[12], got[3], want[3];
    float logits[12], s[4];
    floats(logits, 12, section, "logits");
    for (int d = 0; d < 4; d++) {
        evidence_softmax(pi + 3 * d, logits + 3 * d, 3);
    }
    size_t i;
    json_array_foreach(member(section, "cases"), i, v) {
        const bool is_max_norm = truth(v, "max_norm");
        if (CASE("%s max_norm=%d", json_string_value(member(v, "name")), is_max_norm)) {
            floats(s, 4, v, "s");
            fusion_logits(got, logits, s, 2, 2, 3, is_max_norm);
            numbers(want, 3, v, "fused");
            expect_within("fused logits", got, want, 3, 1e-14);
            EXPECT(first_largest(got, 3) == (int)number(v, "token"), "token");
            fusion_mixture(got, pi, s, 2, 2, 3, number(section, "temperature"), 0.5);
            numbers(want, 3, v, "mixture");
            expect_within("mixture", got, want, 3, 1e-14);
            EXPECT(first_largest(got, 3) == (int)number(v, "label"), "label");
        }
    }
}

TEST(method_fusion_rules) {
    const float s[] = {1, 2, 3};
    double out[2];
    if (CASE("heads without passages, and heads of unequal weight")) {
        const double pi[] = {1, 0, 0.5, 0.5, 0.5, 0.5};
        fusion_mixture(out, pi, s, 1, 2, 2, 1, 0.25);
        close_to("a quarter of certainty, the rest undecided", out[0], 0.25 + 0.75 / 2);
        close_to("sum", out[0] + out[1], 1);
        fusion_mixture(out, pi + 2, s, 0, 2, 2, 1, 0.25);
        close_to("text head only", out[0], 0.5);
        fusion_mixture(out, pi, s, 1, 0, 2, 1, 0.25);
        close_to("image head only", out[0], 1);
    }
    if (CASE("a passage of weight 0 may be impossible")) {
        const float far[] = {0, 2000}, logits[] = {-INFINITY, 5, 2, 3};
        fusion_logits(out, logits, far, 1, 1, 2, false);
        EXPECT(out[0] == 2 && out[1] == 3, "%g %g", out[0], out[1]);
    }
    if (CASE("votes")) {
        const int majority[] = {0, 1, 1}, even[] = {2, 0, 0, 2}, one[] = {3};
        EXPECT(fusion_vote(majority, 3) == 1, "two against one");
        EXPECT(fusion_vote(even, 4) == 2, "a tie goes to the first vote");
        EXPECT(fusion_vote(one, 1) == 3, "one vote");
    }
}

// ---- exact switches of the fine-tuning ----
static void draws_case(const json_t *v) {
    const json_t *const seed = member(v, "seed");
    double want[6];
    PythonRandom random;
    python_random_seed(&random, (uint64_t)json_integer_value(seed));
    for (int i = 0; i < numbers(want, 6, v, "bits"); i++) {
        EXPECT(python_random_bits(&random, 32) == (uint32_t)want[i], "word %d", i);
    }
    static const uint32_t below[] = {1, 2, 3, 10, 1000, 2147483649u};
    numbers(want, 6, v, "below");
    for (int i = 0; i < 900; i++) { // past the first block of words; the last six are known
        const uint32_t draw = python_random_below(&random, below[i % 6]);
        EXPECT(i < 894 || draw == (uint32_t)want[i - 894], "%u below %u", draw, below[i % 6]);
    }
}

static void reseed_case(const json_t *section, const char *name, bool is_cyclic) {
    int label[64];
    double values[64];
    const int n = numbers(values, 64, section, "labels");
    for (int i = 0; i < n; i++) {
        label[i] = (int)values[i];
    }
    Sampler *const sampler = (is_cyclic ? sampler_min_class_new : sampler_balanced_new)(
        label, n, 3, (uint64_t)number(section, "seed"));
    sampler_reseed(sampler);
    const int size = numbers(values, 64, section, name);
    EXPECT(sampler->epoch_size == size, "epoch of %d", sampler->epoch_size);
    for (int p = 0; p < 3 * size; p++) { // every epoch alike
        EXPECT(sampler_item(sampler, p) == (int)values[p % size], "place %d", p);
    }
    sampler_free(sampler);
}

// ---- answers in the reader's own words ----
enum { PASSAGES = 4, ROWS = 5, WIDTH = 13, LABELS = 4 };

static int ids_of(int32_t *out, int room, const json_t *array) {
    const int n = (int)json_array_size(array);
    CHECK(n <= room, "%d ids, room for %d", n, room);
    for (int i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    }
    return n;
}

static double number_at(const json_t *rows, size_t row, size_t column) {
    return json_number_value(json_array_get(json_array_get(rows, row), column));
}

static void expect_own_scores(const json_t *section, const float *raw) {
    float scores[WIDTH];
    double got[WIDTH], want[WIDTH];
    int32_t seen[8];
    const int n = ids_of(seen, 8, member(section, "seen"));
    memcpy(scores, raw, sizeof scores);
    choice_penalize(scores, WIDTH, seen, n, number(section, "penalty"));
    numbers(want, WIDTH, section, "penalized");
    for (int v = 0; v < WIDTH; v++) {
        got[v] = (double)scores[v];
    }
    expect_exact("penalized", got, want, WIDTH);
    const json_t *const labels = member(section, "labels");
    for (size_t p = 0; p < PASSAGES; p++) {
        const float *own = raw + p * ROWS * WIDTH;
        for (size_t c = 0; c < LABELS; c++) {
            int32_t tokens[ROWS];
            const int count = ids_of(tokens, ROWS, json_array_get(labels, c));
            close_to("label logit", evidence_own_logit(own, ROWS, WIDTH, tokens, count),
                     number_at(member(section, "logits"), p, c));
            close_to("saved logit", evidence_saved_logit(own, ROWS, WIDTH, tokens[0]),
                     number_at(member(section, "saved"), p, c));
        }
    }
}

static void expect_fused_tokens(const json_t *section, const float *raw) {
    const float *rows[PASSAGES];
    float scores[PASSAGES];
    floats(scores, PASSAGES, section, "scores");
    for (int p = 0; p < PASSAGES; p++) {
        rows[p] = raw + (size_t)p * ROWS * WIDTH;
    }
    for (int is_max_norm = 0; is_max_norm < 2; is_max_norm++) {
        int32_t got[ROWS];
        fusion_tokens(got, rows, ROWS, WIDTH, scores, 2, 2, is_max_norm);
        for (size_t t = 0; t < ROWS; t++) {
            const double want = number_at(member(section, "fused"), (size_t)is_max_norm, t);
            EXPECT(got[t] == want, "token %zu is %d, not %g", t, got[t], want);
        }
    }
}

// Of equals comes the first; a passage without weight counts nothing, not even -inf.
static void expect_fusion_ties(void) {
    const float heavy[] = {1, 2, 2, -1, -1, -2}, light[] = {-INFINITY, 9, 9, 9, -INFINITY, 9};
    const float *const rows[] = {heavy, light}, scores[] = {2000, 0};
    int32_t got[2];
    fusion_tokens(got, rows, 2, 3, scores, 1, 1, false);
    EXPECT(got[0] == 1 && got[1] == 0, "%d, %d", got[0], got[1]);
}

static void expect_tail(const json_t *v) {
    int32_t prompt[16], answer[OWN_TOKENS], want[OWN_TOKENS], got[OWN_TOKENS];
    const int T = ids_of(prompt, 16, member(v, "prompt")),
              n = ids_of(answer, OWN_TOKENS, member(v, "answer")),
              count = ids_of(want, OWN_TOKENS, member(v, "want"));
    const int found = own_ids(got, prompt, T, answer, n, true);
    EXPECT(found == count && memcmp(got, want, (size_t)count * sizeof *got) == 0,
           "T=%d n=%d: %d ids, from %d on", T, n, found, got[0]);
    EXPECT(own_ids(got, prompt, T, answer, n, false) == n &&
               memcmp(got, answer, (size_t)n * sizeof *got) == 0, "T=%d n=%d: the answer", T, n);
}

static void expect_parsed(const json_t *v) {
    const char *classes[8], *text = json_string_value(member(v, "text"));
    const json_t *const names = member(v, "classes");
    const int C = (int)json_array_size(names);
    for (int c = 0; c < C && c < 8; c++) {
        classes[c] = json_string_value(json_array_get(names, (size_t)c));
    }
    const int got = own_parse(text, classes, C, true);
    EXPECT(got == (int)number(v, "want"), "'%s' among %d from '%s' is %d", text, C, classes[0],
           got);
}

TEST(method_own_words) {
    const json_t *const section = vectors("own_words"), *v;
    size_t i;
    float raw[PASSAGES * ROWS * WIDTH];
    const json_t *const all = member(section, "raw");
    CHECK(json_array_size(all) == sizeof raw / sizeof *raw, "%zu scores", json_array_size(all));
    json_array_foreach(all, i, v) {
        raw[i] = (float)json_number_value(v);
    }
    if (CASE("scores")) {
        expect_own_scores(section, raw);
    }
    if (CASE("fused tokens")) {
        expect_fused_tokens(section, raw);
        expect_fusion_ties();
    }
    if (CASE("tails")) {
        json_array_foreach(member(section, "tails"), i, v) {
            expect_tail(v);
        }
    }
    if (CASE("the original's parser")) {
        json_array_foreach(member(section, "parsed"), i, v) {
            expect_parsed(v);
        }
    }
    if (CASE("our parser")) {
        static const char *const classes[] = {"no", "yes", "no finding"};
        EXPECT(own_parse(" no finding", classes, 3, false) == 2, "the longest name");
        EXPECT(own_parse("no, yes", classes, 3, false) == 0, "the first word");
        EXPECT(own_parse("not known: yes", classes, 3, false) == 0, "a beginning");
        EXPECT(own_parse("it is yes", classes, 3, false) == -1, "not at the beginning");
    }
}

TEST(method_reseed) {
    const json_t *const section = vectors("reseed"), *v;
    size_t i;
    json_array_foreach(member(section, "draws"), i, v) {
        if (CASE("numbers, %zu", i)) {
            draws_case(v);
        }
    }
    if (CASE("cut to the rarest class")) {
        reseed_case(section, "min_class", true);
    }
    if (CASE("balanced")) {
        reseed_case(section, "balanced", false);
    }
}

TEST(method_sft_caps) {
    static const char *const names[] = {"qwen2vl", "pixtral"};
    for (int k = 0; k < 4; k++) {
        const bool is_after_reader_rule = k / 2; // which gives way
        char *preset = xformat_new("%s%s", names[k % 2], is_after_reader_rule ? "-reader" : "");
        ProcessorConfig config;
        CHECK(processor_preset(preset, &config), "no preset '%s'", preset);
        processor_cap_for_sft(&config);
        const json_t *v;
        size_t i;
        json_array_foreach(member(vectors("sft_caps"), "sizes"), i, v) {
            double size[2], want[2];
            int got[2];
            numbers(size, 2, v, "size");
            numbers(want, 2, v, names[k % 2]);
            if (CASE("%s %g x %g", preset, size[0], size[1])) {
                error_die(preset, processor_size(&config, (int)size[0], (int)size[1], &got[0],
                                                 &got[1]));
                EXPECT(got[0] == want[0] && got[1] == want[1], "%d x %d instead of %g x %g",
                       got[0], got[1], want[0], want[1]);
            }
        }
        free(preset);
    }
}

TEST(method_pixtral_literal) {
    const json_t *v;
    size_t i;
    json_array_foreach(vectors("literal"), i, v) {
        char *got = prompt_literal_new(json_string_value(member(v, "question")));
        EXPECT(strcmp(got, json_string_value(member(v, "want"))) == 0, "'%s'", got);
        free(got);
    }
}
