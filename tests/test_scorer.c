// test_scorer: scores against the reader run directly, and what may not change a bit of them.
#define _POSIX_C_SOURCE 200809L
#include "host/scorer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/png.h"
#include "tests/reader_check.h"
#include "tests/world.h"

enum { QUERIES = 3, CORPUS = 4, PAIRS = 9, MOST_LABELS = 3 };
static const Pair pairs[PAIRS] = {{0, 1}, {0, 3},  {1, -1}, {1, 0}, {2, 2},
                                  {0, 1}, {2, -1}, {1, 3},  {0, 3}};
enum { DISTINCT = 7 }; // of these pairs

static World *world_of(bool has_long_labels) {
    return world_new(
        &(WorldConfig){.queries = QUERIES, .corpus = CORPUS, .has_long_labels = has_long_labels});
}

// Logits (rows,V) of one prompt with pixels instead of kept features, alone in its batch. Caller
// frees.
static float *direct_logits_new(World *w, Pair pair, const int32_t *answer, int count) {
    const VisionConfig *vision = &w->reader->config.vision;
    PromptInput input = {.question = w->queries->records[pair.query].question, .caption = ""};
    input.query_image = reader_image_of_row(&w->reader_processor, vision, w->queries,
                                            pair.query);
    if (pair.passage >= 0) {
        input.passage_image = reader_image_of_row(&w->reader_processor, vision, w->corpus,
                                                  pair.passage);
        input.caption = w->corpus->records[pair.passage].text;
    }
    ReaderBatch batch = reader_batch_new();
    prompt_add(&w->prompts, &batch, &input, answer, count);
    float *out = reader_logits_new(w->reader, &batch);
    reader_batch_free(&batch);
    free((void *)input.query_image.pixels);
    free((void *)input.passage_image.pixels);
    return out;
}

static double log_sum_exp(const float *x, int n) {
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        largest = fmax(largest, x[i]);
    }
    for (int i = 0; i < n; i++) {
        sum += exp(x[i] - largest);
    }
    return largest + log(sum);
}

TEST(scorer_direct) {
    for (int is_long = 0; is_long < 2; is_long++) {
        if (!CASE("%s labels", is_long ? "long" : "short")) {
            continue;
        }
        World *w = world_of(is_long);
        Scorer scorer = world_scorer(w);
        const int C = w->labels.C, V = w->reader->config.V;
        float raw[PAIRS * MOST_LABELS], logprob[PAIRS * MOST_LABELS];
        EXPECT((w->labels.max_tokens > 1) == is_long, "%d tokens", w->labels.max_tokens);
        scorer_scores(&scorer, raw, logprob, w->queries, w->corpus, pairs, PAIRS);
        size_t features; // the plan is of a full pass, and this was one of fewer pairs
        const size_t planned = scorer_plan(&scorer, w->queries, w->corpus, &features);
        EXPECT(planned >= scorer.arena.size && features >= scorer.features.used &&
                   planned <= (size_t)scorer.pairs_per_pass * scorer.arena.size,
               "planned %zu and %zu bytes, taken %zu and %zu", planned, features,
               scorer.arena.size, scorer.features.used);
        for (int i = 0; i < PAIRS; i++) {
            for (int c = 0; c < C; c++) {
                const int32_t *tokens = w->labels.tokens + c * w->labels.max_tokens;
                const int count = w->labels.counts[c];
                float *logits = direct_logits_new(w, pairs[i], tokens, count);
                double want = 0, scale = 0;
                for (int t = 0; t < count; t++) {
                    const double lse = log_sum_exp(logits + (size_t)t * V, V);
                    want += logits[(size_t)t * V + tokens[t]] - lse;
                    scale += fabs(lse) + fabs(logits[(size_t)t * V + tokens[t]]) + 1;
                }
                EXPECT(raw[i * C + c] == logits[tokens[0]], "pair %d label %d: raw %.9g, not %.9g",
                       i, c, (double)raw[i * C + c], (double)logits[tokens[0]]);
                // A few f32 roundings of numbers of this size.
                EXPECT(fabs(logprob[i * C + c] - want) <= 8 * 0x1p-24 * scale,
                       "pair %d label %d: %.9g, not %.9g", i, c, (double)logprob[i * C + c], want);
                free(logits);
            }
        }
        scorer_free(&scorer);
        world_free(w);
    }
}

// Store, cache, size of a pass, company in the batch: none of them shows in a score.
TEST(scorer_same_bits) {
    for (int is_long = 0; is_long < 2; is_long++) {
        World *w = world_of(is_long);
        const size_t bytes = (size_t)PAIRS * w->labels.C * sizeof(float);
        float raw[PAIRS * MOST_LABELS], logprob[PAIRS * MOST_LABELS], again[2][PAIRS * MOST_LABELS];
        Scorer scorer = world_scorer(w);
        scorer_scores(&scorer, raw, logprob, w->queries, w->corpus, pairs, PAIRS);
        const uint64_t each = is_long ? 3 : 1, forwards = scorer.forwards;
        EXPECT(forwards == DISTINCT * each && scorer.pairs == PAIRS, "%d forwards", (int)forwards);
        if (CASE("long=%d store", is_long)) {
            scorer_scores(&scorer, again[0], again[1], w->queries, w->corpus, pairs, PAIRS);
            EXPECT(memcmp(raw, again[0], bytes) == 0 && memcmp(logprob, again[1], bytes) == 0,
                   "other bits");
            EXPECT(scorer.forwards == forwards, "computed again");
            float only[PAIRS * MOST_LABELS];
            scorer_scores(&scorer, NULL, only, w->queries, w->corpus, pairs, PAIRS);
            EXPECT(memcmp(logprob, only, bytes) == 0, "without raw");
        }
        scorer_free(&scorer);
        for (size_t rows = 1; rows <= 2; rows++) {
            if (CASE("long=%d logits of %zu rows at once", is_long, rows)) {
                w->store->is_enabled = false;
                Scorer other = world_scorer(w);
                const size_t limit = w->reader->logits_limit;
                w->reader->logits_limit = rows * w->reader->config.V * sizeof(float) + 1;
                scorer_scores(&other, again[0], again[1], w->queries, w->corpus, pairs, PAIRS);
                EXPECT(memcmp(raw, again[0], bytes) == 0 && memcmp(logprob, again[1], bytes) == 0,
                       "other bits");
                w->reader->logits_limit = limit;
                w->store->is_enabled = true;
                scorer_free(&other);
            }
        }
        for (int per_pass = 1; per_pass <= 4; per_pass += 3) {
            for (int has_cache = 0; has_cache < 2; has_cache++) {
                if (!CASE("long=%d pairs per pass %d, cache %d, no store", is_long, per_pass,
                          has_cache)) {
                    continue;
                }
                w->store->is_enabled = false;
                Scorer other = world_scorer(w);
                other.pairs_per_pass = per_pass;
                other.features.limit = has_cache ? other.features.limit : 0;
                scorer_scores(&other, again[0], again[1], w->queries, w->corpus, pairs, PAIRS);
                EXPECT(memcmp(raw, again[0], bytes) == 0 && memcmp(logprob, again[1], bytes) == 0,
                       "other bits");
                EXPECT(other.forwards >= DISTINCT * each, "%d forwards without a store",
                       (int)other.forwards);
                w->store->is_enabled = true;
                scorer_free(&other);
            }
        }
        world_free(w);
    }
}

// What may change a score is part of the context; what may not is not.
TEST(scorer_context) {
    const WorldConfig config = {.queries = 1, .corpus = 1, .lora_rank = 2};
    World *w = world_new(&config), *twin = world_new(&config);
    Scorer scorer = world_scorer(w), same = world_scorer(twin);
    EXPECT(scorer.context == same.context, "equal readers differ");
    scorer_free(&same);
    Tensor *tensor = twin->reader->tensors.tensor[3];
    float *values = xmalloc(tensor->count, sizeof *values);
    tensor_read(&twin->reader->tensors, tensor, values);
    values[0] += 1e-3f;
    tensor_write(&twin->reader->tensors, tensor, DT_F32, values);
    Scorer other = world_scorer(twin);
    EXPECT(scorer.context != other.context, "one weight");
    scorer_free(&other);
    // Numbers of the equations that no tensor shows.
    ReaderConfig *reader = &w->reader->config;
    struct {
        const char *name;
        void *field;
        size_t size;
    } fields[] = {{"alpha", &reader->block.lora.alpha, sizeof(float)},
                  {"alpha of the vision tower", &reader->vision.block.lora.alpha, sizeof(float)},
                  {"rslora", &reader->block.lora.is_rslora, 2}, // its one byte
                  {"flat positions", &reader->has_flat_positions, 2}, // its one byte
                  {"theta", &reader->theta, sizeof(double)},
                  {"eps", &reader->block.eps, sizeof(float)},
                  {"processor", &w->reader_processor.mean[1], sizeof(float)},
                  {"max_tokens", &w->prompts.max_tokens, sizeof(int)}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        unsigned char *byte = fields[i].field;
        byte[fields[i].size - 2] ^= 1; // a bit that is not lost in a conversion
        other = world_scorer(w);
        EXPECT(scorer.context != other.context, "%s is not part of the context", fields[i].name);
        scorer_free(&other);
        byte[fields[i].size - 2] ^= 1;
    }
    free(values);
    scorer_free(&scorer);
    world_free(w);
    world_free(twin);
}

// A picture that a policy turns into a grey square is another picture: scores of the one are never
// handed out for the other, in either order.
TEST(scorer_blank_picture) {
    World *w = world_of(false);
    const char *dir = check_tmpdir();
    Image image = image_new(48, 48, 1);
    for (size_t i = 0; i < image_bytes(&image); i++) {
        image.data[i] = (uint8_t)(i * 7);
    }
    size_t size;
    uint8_t *png = png_encode_new(&image, &size);
    char *path = file_join_new(dir, "p.png");
    error_die(path, file_replace(path, png, size));
    Dataset *sets[2]; // the picture; too large, so blank
    for (int k = 0; k < 2; k++) {
        sets[k] = dataset_new();
        dataset_set_root(sets[k], dir, false);
        sets[k]->policy.on_bad_image = BAD_IMAGE_BLANK;
        sets[k]->policy.max_bad = 1;
        sets[k]->policy.limits.max_side = k ? 40 : 48;
        Record record = record_empty();
        record.path = "p.png";
        record.text = "view";
        dataset_add(sets[k], &record);
    }
    const Pair pair = {0, 0};
    float want[2][2], got[2];
    w->store->is_enabled = false;
    for (int k = 0; k < 2; k++) {
        Scorer scorer = world_scorer(w);
        scorer_scores(&scorer, NULL, want[k], w->queries, sets[k], &pair, 1);
        scorer_free(&scorer);
    }
    EXPECT(sets[1]->is_bad[0] && !sets[0]->is_bad[0], "the limit does not work");
    EXPECT(memcmp(want[0], want[1], sizeof got) != 0,
           "grey gives the same scores: nothing is tested");
    w->store->is_enabled = true;
    for (int k = 0; k < 4; k++) {
        sets[k % 2]->is_bad[0] = sets[k % 2]->bad_images = 0; // a new process does not know yet
        Scorer scorer = world_scorer(w);
        scorer_scores(&scorer, NULL, got, w->queries, sets[k % 2], &pair, 1);
        EXPECT(memcmp(got, want[k % 2], sizeof got) == 0, "round %d: scores of the other picture",
               k);
        scorer_free(&scorer);
    }
    for (int k = 0; k < 2; k++) {
        dataset_free(sets[k]);
    }
    image_free(&image);
    free(png);
    free(path);
    world_free(w);
}

static void score_with_wrong_processor(void *ctx) {
    World *w = ctx;
    CHECK(processor_preset("jina", &w->reader_processor), "no preset");
    w->reader_processor.steps[0].size = w->reader_processor.steps[1].size = 225;
    Scorer scorer = world_scorer(w);
    float out[2];
    scorer_scores(&scorer, NULL, out, w->queries, w->corpus, &(Pair){0, 0}, 1);
}

static void embed_with_wrong_processor(void *ctx) {
    World *w = ctx;
    CHECK(processor_preset("jina", &w->tower_processor), "no preset");
    encode_images(w->fixed, w->dev, DT_F32, &w->retriever->image, &w->tower_processor, w->queries,
                  NULL, 1);
}

// A processor of another size is the user's mistake, not a write past a buffer.
TEST(scorer_wrong_processor) {
    World *w = world_of(false);
    EXPECT(world_exit_code(score_with_wrong_processor, w) == EXIT_CONFIG, "reader.processor");
    EXPECT(world_exit_code(embed_with_wrong_processor, w) == EXIT_CONFIG, "retriever.processor");
    world_free(w);
}

TEST(scorer_labels) {
    World *w = world_of(true);
    static const char *const names[] = {"device", "ab", "device view"};
    LabelSet plain = label_set_new(w->tokenizer, names, 3, false),
             spaced = label_set_new(w->tokenizer, names, 3, true);
    EXPECT(plain.counts[0] == 1 && plain.counts[1] == 2 && plain.counts[2] == 2 &&
               plain.max_tokens == 2,
           "counts");
    EXPECT(plain.tokens[1] == -1, "behind the end stands %d", plain.tokens[1]);
    EXPECT(plain.hash != spaced.hash && spaced.counts[0] == 2, "the space is lost");
    label_set_free(&plain);
    label_set_free(&spaced);
    world_free(w);
}
