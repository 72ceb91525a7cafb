// test_memory_plan: what is counted before anything of a large model is allocated.
#include "host/memory_plan.h"

#include <stdlib.h>

#include "tests/check.h"

// ---- logits ----
// Activations of a pass over one prompt of 700 tokens whose last R rows are wanted.
static size_t activations(Reader *reader, int R, bool is_training) {
    enum { T = 700 };
    int32_t ids[T] = {0}, wanted[T];
    for (int r = 0; r < R; r++) {
        wanted[r] = T - R + r;
    }
    ReaderBatch batch = reader_batch_new();
    reader_batch_add(&batch, &reader->config, ids, T, NULL, 0, wanted, R);
    MemoryPlan plan = {0};
    memory_plan_reader(&plan, reader, check_device(), DT_BF16, &batch, is_training, true);
    reader_batch_free(&batch);
    return plan.activations;
}

// Qwen2-VL-7B: logits of 220 rows at most exist at once, of which a row takes 304 KB; what else
// grows with the wanted rows are a few rows of the model's width.
TEST(memory_plan_logits) {
    Reader reader;
    ReaderConfig config;
    CHECK(reader_preset(&config, "qwen2-vl-7b"), "no preset");
    reader_build(&reader, &config);
    const size_t row = (size_t)config.V * sizeof(bf16);
    const size_t width = (size_t)config.block.C * sizeof(bf16);
    for (int is_training = 0; is_training < 2; is_training++) {
        if (!CASE("%s", is_training ? "training" : "inference")) {
            continue;
        }
        const size_t few = activations(&reader, 300, is_training),
                     many = activations(&reader, 600, is_training);
        EXPECT(many >= few && many - few <= 300 * (4 * width), "%zu bytes more for 300 rows more",
               many - few);
        reader.logits_limit = 600 * row; // all of them in one piece
        const size_t whole = activations(&reader, 600, is_training);
        EXPECT(whole >= many + 100 * row, "%zu bytes in one piece, %zu in pieces", whole, many);
        reader.logits_limit = READER_LOGITS;
    }
    reader_unbuild(&reader);
}
