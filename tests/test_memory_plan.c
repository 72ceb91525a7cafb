// test_memory_plan: what is counted before anything of a large model is allocated.
#include "host/memory_plan.h"

#include <stdlib.h>

#include "tests/check.h"

// ---- one pass ----
// Of a pass over one prompt of 700 tokens whose last R rows are wanted.
static MemoryPlan plan_of(Reader *reader, Device *dev, int R, bool is_training) {
    enum { T = 700 };
    int32_t ids[T] = {0}, wanted[T];
    for (int r = 0; r < R; r++) {
        wanted[r] = T - R + r;
    }
    ReaderBatch batch = reader_batch_new();
    reader_batch_add(&batch, &reader->config, ids, T, NULL, 0, wanted, R);
    MemoryPlan plan = {0};
    memory_plan_reader(&plan, reader, dev, DT_BF16, &batch, is_training, true);
    reader_batch_free(&batch);
    return plan;
}
static size_t activations(Reader *reader, int R, bool is_training) {
    return plan_of(reader, check_device(), R, is_training).activations;
}

// ---- logits ----
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

// ---- scratch of ops ----
// What an op took of a fresh device, against what it said before.
static void expect_scratch(const char *what, const Device *dev, size_t said) {
    const size_t held = device_bytes_for(dev, "scratch of ops");
    EXPECT(held == said && said > 0, "%s holds %zu bytes and said %zu", what, held, said);
}

static void expect_weight_scratch(Device *dev, DType t, int M, int N, int K, size_t least) {
    void *dout = device_alloc(dev, (size_t)M * N * dtype_size(t), "dout");
    void *inp = device_alloc(dev, (size_t)M * K * dtype_size(t), "inp");
    float *dweight = device_alloc(dev, (size_t)N * K * sizeof *dweight, "dweight");
    float *dbias = device_alloc(dev, (size_t)N * sizeof *dbias, "dbias");
    device_zero(dev, dout, (size_t)M * N * dtype_size(t));
    device_zero(dev, inp, (size_t)M * K * dtype_size(t));
    device_zero(dev, dweight, (size_t)N * K * sizeof *dweight);
    device_zero(dev, dbias, (size_t)N * sizeof *dbias);
    const Ops *ops = device_ops(dev);
    ops->matmul_bwd_weight(dev, t, dweight, dbias, dout, inp, M, N, K);
    const size_t said = ops->matmul_bwd_weight_scratch(dev, t, M, N, K);
    expect_scratch("matmul_bwd_weight", dev, said);
    EXPECT(said >= least, "%zu bytes, not even %zu", said, least);
    device_release(dev, dout), device_release(dev, inp);
    device_release(dev, dweight), device_release(dev, dbias);
}

static void expect_topk_scratch(Device *dev, DType t, int Q, int M, int E, int K) {
    float *queries = device_alloc(dev, (size_t)Q * E * sizeof *queries, "queries");
    void *rows = device_alloc(dev, (size_t)M * E * dtype_size(t), "rows");
    float *scores = device_alloc(dev, (size_t)Q * K * sizeof *scores, "scores");
    int32_t *ids = device_alloc(dev, (size_t)Q * K * sizeof *ids, "ids");
    device_zero(dev, queries, (size_t)Q * E * sizeof *queries);
    device_zero(dev, rows, (size_t)M * E * dtype_size(t));
    const Ops *ops = device_ops(dev);
    ops->topk(dev, t, scores, ids, queries, rows, NULL, NULL, Q, M, E, K, 0, true);
    expect_scratch("topk", dev, ops->topk_scratch(dev, t, Q, M, E, K));
    device_release(dev, queries), device_release(dev, rows);
    device_release(dev, scores), device_release(dev, ids);
}

// A plan finds the largest of a pass: here that of the head, trained over 300 rows.
static void expect_planned_scratch(Device *dev) {
    Reader reader;
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-pixtral"), "no preset");
    config.V = 4096;
    config.image_id = 7;
    reader_build(&reader, &config);
    tensors_mark(&reader.tensors, "language_model.lm_head", true);
    const Ops *ops = device_ops(dev);
    const size_t want = ops->matmul_bwd_weight_scratch
                            ? ops->matmul_bwd_weight_scratch(dev, DT_BF16, 300, config.V,
                                                             config.block.C)
                            : 0;
    const MemoryPlan training = plan_of(&reader, dev, 300, true),
                     inference = plan_of(&reader, dev, 300, false);
    EXPECT(training.scratch == want && inference.scratch == 0, "%zu and %zu bytes, not %zu and 0",
           training.scratch, inference.scratch, want);
    reader_unbuild(&reader);
}

TEST_DEVICE(memory_plan_scratch) {
    static const DType types[] = {DT_F32, DT_BF16};
    const DeviceKind kind = device_kind(check_device());
    for (int i = 0; i < 2; i++) {
        if (CASE("an op takes what it says, t=%s", dtype_name(types[i]))) {
            Device *dev = device_new(kind, 0, 1), *other = device_new(kind, 0, 1);
            if (kind == DEVICE_CPU) {
                EXPECT(!device_ops(dev)->topk_scratch, "the CPU takes none");
            } else { // two parts of the rows at least, where there are tensor cores
                expect_weight_scratch(dev, types[i], 1536, 64, 64, i ? 2 * 64 * 64 * 4 : 0);
                expect_topk_scratch(other, types[i], 3, 200, 64, 5);
            }
            device_free(dev), device_free(other);
        }
    }
    if (CASE("a plan finds the largest")) {
        expect_planned_scratch(check_device());
    }
}
