// test_generate: tokens with a cache are those without one, bit for bit in what they are chosen
// from: for readers with images, in groups and alone, and for real trained weights, whose greedy
// text is known.
#include "host/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/hub_reader.h"
#include "tests/check.h"
#include "tests/reader_check.h"

enum { VOCABULARY = 61, IMAGE_ID = 7, PROMPTS = 3, STEPS = 9 };

// ---- small readers ----
static ReaderFixture *fixture_new(const char *preset, DType t) {
    // Wide and high: an image advances positions by its longer side, not by its tokens.
    static const int sides[2][2] = {{6, 4}, {4, 6}};
    ReaderConfig config;
    CHECK(reader_preset(&config, preset), "no preset '%s'", preset);
    config.V = VOCABULARY;
    config.image_id = IMAGE_ID;
    return reader_fixture_new(check_device(), &config, t, false, sides);
}

// A prompt of text and images, and behind it `more` further ids; all of those rows are wanted.
static void add_prompt(const ReaderFixture *fixture, ReaderBatch *batch, int which,
                       const int32_t *more, int count) {
    static const char *const layout[PROMPTS] = {"tt0ttt", "t", "0tt1t"};
    LaidPrompt prompt = lay_prompt(fixture, layout[which], which);
    int32_t wanted[64];
    for (int i = 0; i <= count; i++) {
        wanted[i] = prompt.T - 1 + i;
    }
    for (int i = 0; i < count; i++) {
        prompt.ids[prompt.T + i] = more[i];
    }
    reader_batch_add(batch, &fixture->reader->config, prompt.ids, prompt.T + count, prompt.image,
                     prompt.images, wanted, count + 1);
}

static Generated generate_of(ReaderFixture *fixture, int first, int count,
                             const GenerateConfig *config) {
    ReaderBatch batch = reader_batch_new();
    for (int b = first; b < first + count; b++) {
        add_prompt(fixture, &batch, b, NULL, 0);
    }
    const Generated out = generate_new(fixture->reader, &batch, config, NULL, NULL);
    reader_batch_free(&batch);
    return out;
}

// The rows that each token was chosen from, by one pass over the whole sequence, without a cache.
static void expect_rows_of_whole(ReaderFixture *fixture, const Generated *got) {
    for (int b = 0; b < PROMPTS; b++) {
        ReaderBatch whole = reader_batch_new();
        const int rows = got->rows[b];
        add_prompt(fixture, &whole, b, got->ids + (size_t)b * got->max_tokens, rows - 1);
        const size_t count = (size_t)rows * VOCABULARY;
        float *logits = reader_logits_new(fixture->reader, &whole);
        const float *scores = got->scores + (size_t)b * got->max_tokens * VOCABULARY;
        size_t differing = 0;
        for (size_t i = 0; i < count; i++) {
            differing += !(logits[i] == scores[i]);
        }
        EXPECT(rows >= 1 && differing == 0, "prompt %d: %zu of %zu logits differ with the cache", b,
               differing, count);
        free(logits);
        reader_batch_free(&whole);
    }
}

static GenerateConfig greedy(void) {
    return (GenerateConfig){.choice = choice_greedy(), .max_tokens = STEPS, .pad = -1,
                            .keeps_scores = true};
}

static void expect_cache_changes_nothing(const char *preset, DType t) {
    ReaderFixture *fixture = fixture_new(preset, t);
    const GenerateConfig config = greedy();
    Generated got = generate_of(fixture, 0, PROMPTS, &config);
    for (int b = 0; b < PROMPTS; b++) {
        EXPECT(got.counts[b] == STEPS && !got.is_over[b], "prompt %d: %d tokens", b, got.counts[b]);
        for (int i = 0; i < STEPS; i++) {
            float *row = got.scores + ((size_t)b * STEPS + i) * VOCABULARY;
            const float kept = row[IMAGE_ID];
            row[IMAGE_ID] = -INFINITY;
            EXPECT(got.ids[b * STEPS + i] == choice_largest(row, VOCABULARY),
                   "token %d of prompt %d is not the largest", i, b);
            row[IMAGE_ID] = kept;
        }
    }
    expect_rows_of_whole(fixture, &got);
    generated_free(&got);
    reader_fixture_free(fixture);
}

// The same where logits of only one or two rows may exist at once.
static void expect_pieces_change_nothing(void) {
    ReaderFixture *fixture = fixture_new("tiny-qwen2vl", DT_BF16);
    const GenerateConfig config = greedy();
    Generated want = generate_of(fixture, 0, PROMPTS, &config);
    for (size_t rows = 0; rows <= 2; rows++) { // a limit below one row still gives one
        fixture->reader->logits_limit = rows * VOCABULARY * sizeof(bf16);
        Generated got = generate_of(fixture, 0, PROMPTS, &config);
        EXPECT(memcmp(got.scores, want.scores,
                      (size_t)PROMPTS * STEPS * VOCABULARY * sizeof *want.scores) == 0,
               "other scores with logits of %zu rows at once", rows);
        generated_free(&got);
    }
    generated_free(&want);
    reader_fixture_free(fixture);
}

// ---- ends, padding, groups ----
// The prompts end at different steps: by their own third token of prompt 0.
static void expect_ends(bool is_padded) {
    ReaderFixture *fixture = fixture_new("tiny-qwen2vl", DT_F32);
    GenerateConfig config = greedy();
    Generated free_run = generate_of(fixture, 0, PROMPTS, &config);
    config.choice.ends[config.choice.end_count++] = free_run.ids[2];
    config.pad = is_padded ? 3 : -1;
    Generated got = generate_of(fixture, 0, PROMPTS, &config);
    int longest = 0, ended = 0;
    for (int b = 0; b < PROMPTS; b++) {
        const int32_t *ids = free_run.ids + b * STEPS;
        int count = 0;
        while (count < STEPS && ids[count++] != free_run.ids[2]) {
        }
        const bool is_over = ids[count - 1] == free_run.ids[2];
        ended += is_over;
        EXPECT(got.counts[b] == count && got.is_over[b] == is_over, "prompt %d: %d tokens, not %d",
               b, got.counts[b], count);
        EXPECT(memcmp(got.ids + b * STEPS, ids, (size_t)count * sizeof *ids) == 0,
               "prompt %d says something else when it may end", b);
        EXPECT(is_padded || got.rows[b] == got.counts[b], "prompt %d: %d rows", b, got.rows[b]);
        longest = count > longest ? count : longest;
    }
    EXPECT(ended >= 1 && got.counts[0] <= 3, "prompt 0 has %d tokens", got.counts[0]);
    for (int b = 0; is_padded && b < PROMPTS; b++) {
        EXPECT(got.rows[b] == longest, "prompt %d: %d rows of %d", b, got.rows[b], longest);
        for (int i = got.counts[b]; i < got.rows[b]; i++) {
            EXPECT(got.ids[b * STEPS + i] == 3, "padded with %d", got.ids[b * STEPS + i]);
        }
    }
    expect_rows_of_whole(fixture, &got);
    generated_free(&got);
    generated_free(&free_run);
    reader_fixture_free(fixture);
}

static void expect_batch_changes_nothing(void) {
    ReaderFixture *fixture = fixture_new("tiny-pixtral", DT_F32);
    GenerateConfig config = greedy();
    config.choice.is_sampled = true;
    config.choice.temperature = 1.5;
    config.choice.penalty = 1.2;
    config.choice.top_k = 20;
    config.choice.top_p = 0.9;
    config.seed = 4;
    Generated all = generate_of(fixture, 0, PROMPTS, &config);
    int differing = 0;
    for (int b = 0; b < PROMPTS; b++) {
        config.first = (uint32_t)b;
        config.seed = 4;
        Generated alone = generate_of(fixture, b, 1, &config);
        EXPECT(memcmp(alone.ids, all.ids + b * STEPS, STEPS * sizeof *all.ids) == 0,
               "prompt %d says something else in company", b);
        config.seed = 5;
        Generated other = generate_of(fixture, b, 1, &config);
        differing += memcmp(alone.ids, other.ids, STEPS * sizeof *all.ids) != 0;
        generated_free(&alone);
        generated_free(&other);
    }
    EXPECT(differing == PROMPTS, "another seed changes %d of %d answers", differing, PROMPTS);
    generated_free(&all);
    reader_fixture_free(fixture);
}

// ---- real weights ----
typedef struct {
    int calls, stop_at;
} Listener;

static bool listen(void *ctx, int sequence, const int32_t *ids, int count, bool is_over) {
    Listener *listener = ctx;
    EXPECT(sequence == 0 && ids[0] == 403 && count == listener->calls + 1 && !is_over,
           "call %d: sequence %d, %d ids", listener->calls, sequence, count);
    return ++listener->calls < listener->stop_at;
}

static void expect_story(const char *dir, const char *expected) {
    json_t *gold;
    error_die(expected, json_read_new(&gold, expected, 1 << 20));
    const json_t *ids = json_object_get(gold, "greedy_ids");
    HubFolder folder;
    ReaderConfig form;
    SafeStore store;
    Reader *reader;
    error_die(dir, hub_open_new(&folder, dir));
    error_die(dir, hub_reader_config(&form, folder.family, folder.config));
    error_die(dir, hub_reader_new(&reader, &store, check_device(), DT_F32, &form, folder.weights,
                                  false, true));
    GenerateConfig config = {.choice = choice_greedy(), .pad = -1};
    config.max_tokens = (int)json_array_size(ids) - 1;
    ReaderBatch batch = reader_batch_new();
    const int32_t begin = (int32_t)json_integer_value(json_array_get(ids, 0)), last = 0;
    reader_batch_add(&batch, &form, &begin, 1, NULL, 0, &last, 1);
    Generated got = generate_new(reader, &batch, &config, NULL, NULL);
    EXPECT(got.counts[0] == config.max_tokens && config.max_tokens > 200, "%d tokens",
           got.counts[0]);
    for (int i = 0; i < got.counts[0]; i++) {
        const int want = (int)json_integer_value(json_array_get(ids, (size_t)i + 1));
        EXPECT(got.ids[i] == want, "token %d is %d, not %d", i, got.ids[i], want);
    }
    generated_free(&got);
    Listener listener = {.stop_at = 5};
    got = generate_new(reader, &batch, &config, listen, &listener);
    EXPECT(listener.calls == 5 && got.counts[0] == 5 && got.is_over[0], "%d calls, %d tokens",
           listener.calls, got.counts[0]);
    generated_free(&got);
    reader_batch_free(&batch);
    reader_free(reader);
    safestore_free(&store);
    hub_free(&folder);
    json_decref(gold);
}

TEST(generate) {
    static const char *const presets[] = {"tiny-qwen2vl", "tiny-pixtral"};
    for (int n = 0; n < 2 * DT_COUNT; n++) {
        if (CASE("the cache changes nothing %s t=%s", presets[n % 2], dtype_name((DType)(n / 2)))) {
            expect_cache_changes_nothing(presets[n % 2], (DType)(n / 2));
        }
    }
    if (CASE("logits of few rows at once change nothing")) {
        expect_pieces_change_nothing();
    }
    for (int n = 0; n < 2; n++) {
        if (CASE("answers end by themselves%s", n ? ", padded" : "")) {
            expect_ends(n);
        }
    }
    if (CASE("the rest of the batch changes nothing, the seed does")) {
        expect_batch_changes_nothing();
    }
    if (CASE("stories260K tells its known story")) {
        const char *dir = check_data("weights/stories260k"),
                   *expected = check_data("weights/stories260k/gold.json");
        if (dir && expected) {
            expect_story(dir, expected);
        }
    }
}
