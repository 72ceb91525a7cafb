// test_reader_stories: the reader's language model with real trained weights: stories260K, a small
// Llama that tells stories. Under its names and without biases it is the language half of the
// Qwen2-VL form; M-RoPE with three equal axes is plain RoPE. Source: karpathy/llama2.c; the
// expected text is the one in its documentation, the logits were computed in double precision.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/json.h"
#include "host/safetensors.h"
#include "models/reader.h"
#include "tests/check.h"
#include "tests/model_check.h"

enum { VOCABULARY = 512, UNUSED_ID = 511 };

static ReaderConfig stories_config(void) {
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-qwen2vl"), "no preset '%s'", "tiny-qwen2vl");
    config.V = VOCABULARY;
    config.image_id = UNUSED_ID; // a text has no images
    config.is_tied = true;
    config.L = 5;
    config.theta = 10000;
    config.sections[0] = 2;
    config.sections[1] = config.sections[2] = 1;
    config.block.H = 8;
    config.block.Hkv = 4;
    config.block.D = 8;
    config.block.F = 172;
    config.block.eps = 1e-5f;
    config.block.has_q_bias = config.block.has_k_bias = config.block.has_v_bias = false;
    return config;
}

typedef struct {
    Reader *reader;
    ReaderBatch batch;
} Fixture;

static void pass(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    ReaderState state;
    CHECK(!dout, "no backward, dout=%p", dout);
    reader_fwd(run, fixture->reader, &state, out, &fixture->batch);
}

// Every tensor of the file has its place in the reader, with its shape.
static void load(TensorList *list, const char *path) {
    SafeStore store;
    error_die(path, safestore_open_new(&store, path));
    for (int i = 0; i < store.all.count; i++) {
        const SafeTensor *stored = &store.all.tensors[i];
        Tensor *tensor = tensors_find(list, stored->name);
        CHECK(tensor && stored->type == SAFE_F32 && safe_count(stored) == tensor->count,
              "'%s' does not fit", stored->name);
        float *values = xmalloc(tensor->count, sizeof *values); // bytes of a file may be unaligned
        memcpy(values, stored->data, stored->bytes);
        tensor_write(list, tensor, DT_F32, values);
        free(values);
    }
    safestore_free(&store);
}

static int largest_of(const float *row) {
    int best = 0;
    for (int v = 1; v < VOCABULARY; v++) {
        best = row[v] > row[best] ? v : best;
    }
    return best;
}

// With half the smallest gap between the best and the second logit as bound, greedy choices follow.
static void expect_logits(const json_t *gold, const float *logits, double bound) {
    const char *position;
    const json_t *row;
    int rows = 0;
    json_object_foreach((json_t *)json_object_get(gold, "logits"), position, row) {
        const float *ours = logits + (size_t)atoi(position) * VOCABULARY;
        double worst = 0;
        for (int v = 0; v < VOCABULARY; v++) {
            const double gold_v = json_number_value(json_array_get(row, (size_t)v));
            worst = check_worst(worst, fabs(ours[v] - gold_v));
        }
        EXPECT(worst <= bound, "logits at %s are off by %g, allowed %g", position, worst, bound);
        rows++;
    }
    EXPECT(rows >= 9, "%d rows of logits", rows);
}

TEST(reader_stories) {
    const char *weights = check_data("weights/stories260k/model.safetensors"),
               *expected = check_data("weights/stories260k/gold.json");
    if (!weights || !expected) {
        return;
    }
    json_t *gold;
    error_die(expected, json_read_new(&gold, expected, 1 << 20));
    const json_t *greedy = json_object_get(gold, "greedy_ids");
    const int T = (int)json_array_size(greedy) - 1;
    int32_t ids[512], wanted[512];
    CHECK(T >= 1 && T < 512, "T=%d", T);
    for (int t = 0; t <= T; t++) {
        ids[t] = (int32_t)json_integer_value(json_array_get(greedy, (size_t)t));
        wanted[t] = t;
    }
    const ReaderConfig config = stories_config();
    Fixture fixture = {.reader = reader_new(check_device(), DT_F32, &config, false)};
    load(&fixture.reader->tensors, weights);
    tensors_pack(&fixture.reader->tensors);
    fixture.batch = reader_batch_new();
    reader_batch_add(&fixture.batch, &config, ids, T, NULL, 0, wanted, T);
    const ModelUnderTest model = {.list = &fixture.reader->tensors, .pass = pass, .ctx = &fixture,
                                  .count = (size_t)T * VOCABULARY};
    float *logits = xmalloc(model.count, sizeof *logits);
    model_run(&model, logits, NULL, false);
    for (int t = 0; t < T; t++) {
        const int best = largest_of(logits + (size_t)t * VOCABULARY);
        EXPECT(best == ids[t + 1], "after %d tokens comes %d, not %d", t + 1, best, ids[t + 1]);
    }
    const json_t *gap = json_object_get(gold, "smallest_gap_between_best_and_second_logit");
    expect_logits(gold, logits, json_number_value(gap) / 2);
    free(logits);
    reader_batch_free(&fixture.batch);
    reader_free(fixture.reader);
    json_decref(gold);
}
