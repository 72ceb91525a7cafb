// test_reader_real: readers of the published sizes, from mapped files with random weights: time,
// and memory against the plan. Many GB of disk and minutes: only with large=1.
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/hub_reader.h"
#include "host/memory_plan.h"
#include "host/optim.h"
#include "tests/check.h"

enum { BLOCK = 1 << 20, ROWS_WRITTEN = 4096, IDS = 1000 };

// ---- a checkpoint of bf16 ----
// Random values that come again after BLOCK of them: U(-sqrt(3/fan_in), ..) in matrices, U(-1, 1)
// in the embedding, 1 in norms, small in biases.
static void write_values(int fd, off_t at, const Tensor *tensor, size_t count) {
    static float unit[BLOCK];
    bf16 *values = xmalloc(BLOCK, sizeof *values);
    Rng rng = check_rng(1);
    for (int i = 0; i < BLOCK && unit[BLOCK - 1] == 0; i++) {
        unit[i] = (float)(2 * rng_uniform(&rng) - 1);
    }
    const bool is_matrix = tensor->rank >= 2, is_norm = strstr(tensor->name, "norm") != NULL;
    const double row = (double)tensor->count / tensor->shape[0];
    const double spread = strstr(tensor->name, "embed_tokens") ? 1
                          : is_matrix                          ? sqrt(3 / row)
                                                               : 0.1;
    for (int i = 0; i < BLOCK; i++) {
        const double centre = is_norm && !strstr(tensor->name, "bias") ? 1 : 0;
        values[i] = bf16_from_float((float)(centre + spread * unit[i]));
    }
    for (size_t done = 0; done < count; done += BLOCK) {
        const size_t n = (count - done < BLOCK ? count - done : BLOCK) * sizeof *values;
        CHECK(pwrite(fd, values, n, at + (off_t)(done * sizeof *values)) == (ssize_t)n, "n=%zu", n);
    }
    free(values);
}

// How much of a tensor is written; the rest of a sparse file is a hole, which reads as zeros: all
// but the first blocks and rows of tables.
static size_t written_count(const Tensor *tensor, bool is_sparse) {
    const char *block = strstr(tensor->name, "layers.");
    block = block ? block + strlen("layers.") : strstr(tensor->name, "blocks.");
    if (is_sparse && block && atoi(block + (*block == 'b' ? strlen("blocks.") : 0)) >= 2) {
        return 0;
    }
    const bool is_table = strstr(tensor->name, "embed_tokens") || strstr(tensor->name, "lm_head");
    return is_sparse && is_table ? tensor->count / tensor->shape[0] * ROWS_WRITTEN : tensor->count;
}

static void write_checkpoint(const char *path, const ReaderConfig *config, bool is_sparse) {
    Reader reader;
    reader_build(&reader, config);
    json_t *header = json_object();
    size_t used = 0;
    for (int i = 0; i < reader.tensors.count; i++) { // fused tensors by their first slice
        const Tensor *tensor = reader.tensors.tensor[i];
        if (tensor->is_adapter || tensor->file_row > 0) {
            continue;
        }
        json_t *shape = json_array();
        size_t bytes = sizeof(bf16);
        for (int k = 0; k < tensor->rank; k++) {
            const int side = k == 0 ? tensor->file_rows : tensor->shape[k];
            json_array_append_new(shape, json_integer(side));
            bytes *= (size_t)side;
        }
        json_object_set_new(header, tensor->file,
                            json_pack("{s:s s:o s:[I,I]}", "dtype", "BF16", "shape", shape,
                                      "data_offsets", (json_int_t)used,
                                      (json_int_t)(used + bytes)));
        used += bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    const uint64_t length = (strlen(text) + 63) / 64 * 64, start = 8 + length;
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char *padded = xmalloc(length, 1);
    memset(padded, ' ', length);
    memcpy(padded, text, strlen(text));
    CHECK(fd >= 0 && ftruncate(fd, (off_t)(start + used)) == 0 && pwrite(fd, &length, 8, 0) == 8 &&
              pwrite(fd, padded, length, 8) == (ssize_t)length,
          "cannot write '%s'", path);
    for (int i = 0; i < reader.tensors.count; i++) {
        const Tensor *tensor = reader.tensors.tensor[i];
        if (!tensor->is_adapter) {
            const json_t *place = json_object_get(json_object_get(header, tensor->file),
                                                  "data_offsets");
            const size_t row = tensor->count / tensor->shape[0] * sizeof(bf16);
            const size_t at = (size_t)json_integer_value(json_array_get(place, 0)) +
                              (size_t)tensor->file_row * row;
            write_values(fd, (off_t)(start + at), tensor, written_count(tensor, is_sparse));
        }
    }
    CHECK(close(fd) == 0, "cannot write '%s'", path);
    free(padded);
    free(text);
    json_decref(header);
    reader_unbuild(&reader);
}

// ---- prompts and passes ----
// One image of side x side patches and `texts` tokens around it; the last row is wanted.
static ReaderBatch prompt_new(const ReaderConfig *config, const ReaderImage *image, int texts) {
    ReaderBatch batch = reader_batch_new();
    const int tokens = vision_tokens(&config->vision, image), T = tokens + texts;
    int32_t *ids = xmalloc((size_t)T, sizeof *ids);
    for (int t = 0; t < T; t++) {
        const bool is_image = t >= 4 && t < 4 + tokens;
        ids[t] = is_image ? config->image_id : 100 + t * 7 % IDS;
    }
    reader_batch_add(&batch, config, ids, T, image, 1, (const int32_t[]){T - 1}, 1);
    free(ids);
    return batch;
}

static float *pixels_new(const ReaderImage *image, int P) {
    const size_t count = (size_t)3 * image->rows * image->columns * P * P;
    float *pixels = xmalloc(count, sizeof *pixels);
    Rng rng = check_rng(2);
    for (size_t i = 0; i < count; i++) {
        pixels[i] = (float)rng_normal(&rng);
    }
    return pixels;
}

// Processor time of all threads: on a busy machine it tells more than the clock.
static double processor_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

// Logits of the wanted row, by a forward alone; returns the processor time. The arena is kept.
static double forward(Arena *arena, Reader *reader, const ReaderBatch *batch, float *logits) {
    Device *dev = check_device();
    MemoryPlan plan = {0};
    memory_plan_reader(&plan, reader, dev, DT_BF16, batch, false, false);
    *arena = arena_new(dev, "forward", plan.activations);
    Run run = run_new(dev, DT_BF16, arena, false);
    const size_t V = (size_t)reader->config.V;
    void *hidden = run_take(&run, 1, (size_t)reader->config.block.C);
    ReaderState state;
    const double start = processor_seconds();
    reader_hidden_fwd(&run, reader, &state, hidden, batch);
    void *out = run_take(&run, 1, V);
    reader_head_fwd(&run, reader, out, hidden, 1);
    const double seconds = processor_seconds() - start;
    dtype_widen(logits, DT_BF16, out, V);
    EXPECT(arena->peak == plan.activations, "used %zu of %zu", arena->peak, plan.activations);
    return seconds;
}

static void expect_alive(const float *logits, int V, int least) {
    int zeros = 0, wild = 0;
    for (int v = 0; v < V; v++) {
        zeros += logits[v] == 0;
        wild += !isfinite(logits[v]);
    }
    EXPECT(wild == 0 && V - zeros >= least, "%d of %d logits are not finite, %d zero", wild, V,
           zeros);
}

// One LoRA step: forward, cross-entropy's gradient, backward, AdamW. Returns the processor time.
static double train(Arena *arena, Optim *optim, Reader *reader, const ReaderBatch *batch) {
    Device *dev = check_device();
    MemoryPlan plan = {0};
    memory_plan_reader(&plan, reader, dev, DT_BF16, batch, true, false);
    *arena = arena_new(dev, "training", plan.activations);
    Run run = run_new(dev, DT_BF16, arena, true);
    const int V = reader->config.V;
    const size_t C = (size_t)reader->config.block.C;
    void *hidden = run_take(&run, 1, C), *dhidden = run_take(&run, 1, C);
    float loss, lse;
    const float dloss = 1;
    const int32_t target = 7;
    const double start = processor_seconds();
    ReaderState state;
    reader_hidden_fwd(&run, reader, &state, hidden, batch);
    const size_t mark = arena_mark(arena);
    void *logits = run_take(&run, 1, (size_t)V);
    reader_head_fwd(&run, reader, logits, hidden, 1);
    run.op->cross_entropy_fwd(dev, DT_BF16, &loss, &lse, logits, &target, 1, V);
    run.op->cross_entropy_bwd(dev, DT_BF16, logits, &dloss, logits, &lse, &target, 1, V);
    reader_head_bwd(&run, reader, dhidden, logits, hidden, 1);
    arena_release(arena, mark);
    reader_hidden_bwd(&run, reader, &state, dhidden);
    optim_step(optim, 1e-4);
    EXPECT(isfinite(loss) && loss > 0, "loss %g", loss);
    const OptimState after = optim_read(optim);
    EXPECT(after.norm > 0 && after.count.skipped == 0, "gradient norm %g", (double)after.norm);
    return processor_seconds() - start;
}

static MemoryPlan plan_of(const ReaderConfig *config, const char *path, const ReaderBatch *batch) {
    Reader reader;
    MemoryPlan plan = {0};
    size_t mapped;
    reader_build(&reader, config);
    tensors_mark_adapters(&reader.tensors, true, true);
    const WeightNames names = hub_reader_names(config);
    error_die(path, weights_check(&reader.tensors, DT_BF16, path, &names, &mapped));
    memory_plan_tensors(&plan, &reader.tensors, DT_BF16, mapped);
    memory_plan_reader(&plan, &reader, check_device(), DT_BF16, batch, true, false);
    reader_unbuild(&reader);
    return plan;
}

static bool is_refused(void) {
#ifdef IS_SLOW_BUILD
    check_skip("%s", "too slow in this build");
    return true;
#else
    if (!check_is_large()) {
        check_skip("%s", "large=1 not given");
    }
    check_time_limit(1200);
    return !check_is_large();
#endif
}

// Qwen2-VL-2B: a prompt of 350 tokens and a LoRA step, and memory within a tenth of the plan.
TEST(reader_real_2b) {
    if (is_refused()) {
        return;
    }
    ReaderConfig config;
    CHECK(reader_preset(&config, "qwen2-vl-2b"), "no preset '%s'", "2b");
    reader_set_lora(&config, (LoraConfig){.rank = 8, .alpha = 16}, true);
    ReaderImage image = {.rows = 28, .columns = 28};
    float *pixels = pixels_new(&image, config.vision.P);
    image.pixels = pixels;
    ReaderBatch batch = prompt_new(&config, &image, 350 - 196);
    char *path = xformat_new("%s/model.safetensors", check_tmpdir());
    write_checkpoint(path, &config, false);

    const MemoryPlan plan = plan_of(&config, path, &batch);
    memory_plan_print(stderr, &plan);
    const size_t before = memory_anonymous();
    Reader *reader;
    SafeStore store;
    error_die(path, hub_reader_new(&reader, &store, check_device(), DT_BF16, &config, path, false,
                                   false));
    tensors_init_adapters(&reader->tensors, 1);
    float *logits = xmalloc((size_t)config.V, sizeof *logits);
    Arena arena;
    const double first = forward(&arena, reader, &batch, logits); // reads the file, too
    arena_free(&arena);
    const double second = forward(&arena, reader, &batch, logits);
    arena_free(&arena);
    expect_alive(logits, config.V, config.V * 9 / 10);
    free(logits);
    const OptimConfig defaults = optim_default();
    Optim optim = optim_new(&reader->tensors, &defaults);
    const double step = train(&arena, &optim, reader, &batch);
    const double used = (double)(memory_anonymous() - before),
                 planned = (double)memory_plan_total(&plan);
    LOG(INFO, "%d tokens: %.1f s of processor time, again %.1f s; LoRA step %.1f s; %.0f MiB of "
        "%.0f planned",
        batch.N, first, second, step, used / 1048576, planned / 1048576);
    EXPECT(fabs(used - planned) <= 0.1 * planned, "%.0f bytes used, %.0f planned", used, planned);
    EXPECT(planned + (double)plan.mapped < 20.0 * (1 << 30), "%.0f bytes", planned);
    arena_free(&arena);
    optim_free(&optim);
    reader_free(reader);
    safestore_free(&store);
    reader_batch_free(&batch);
    free(pixels);
    free(path);
}

// Anonymous memory that a reader of L layers and a forward take, beside what was there.
static double memory_of(const char *preset, int L) {
    ReaderConfig config;
    CHECK(reader_preset(&config, preset), "no preset '%s'", preset);
    config.L = L ? L : config.L;
    ReaderImage image = {.rows = 4, .columns = 4};
    float *pixels = pixels_new(&image, config.vision.P);
    image.pixels = pixels;
    ReaderBatch batch = prompt_new(&config, &image, 28);
    char *path = xformat_new("%s/model.safetensors", check_tmpdir());
    write_checkpoint(path, &config, true);
    float *logits = xmalloc((size_t)config.V, sizeof *logits);
    memset(logits, 0, (size_t)config.V * sizeof *logits);
    const size_t before = memory_anonymous();
    Reader *reader;
    SafeStore store;
    Arena arena;
    error_die(path, hub_reader_new(&reader, &store, check_device(), DT_BF16, &config, path, false,
                                   false));
    const double seconds = forward(&arena, reader, &batch, logits);
    const double used = (double)memory_anonymous() - (double)before;
    LOG(INFO, "%s, %d layers, %d tokens: %.1f s of processor time, %.1f MiB of anonymous memory",
        preset, config.L, batch.N, seconds, used / 1048576);
    expect_alive(logits, config.V, ROWS_WRITTEN * 9 / 10);
    arena_free(&arena);
    reader_free(reader);
    safestore_free(&store);
    reader_batch_free(&batch);
    free(logits);
    free(pixels);
    remove(path);
    free(path);
    return used;
}

// The large ones, from sparse files: a further layer costs no memory but its part of the lists.
TEST(reader_real_sparse) {
    if (is_refused()) {
        return;
    }
    static const char *const presets[] = {"qwen2-vl-7b", "pixtral-12b"};
    for (int i = 0; i < 2; i++) {
        if (CASE("%s", presets[i])) {
            memory_of(presets[i], 2); // threads get their tiles
            const double few = memory_of(presets[i], 4), all = memory_of(presets[i], 0);
            ReaderConfig config; // 256 KiB a layer: names and shapes, in the header and in the list
            reader_preset(&config, presets[i]);
            EXPECT(all - few < (config.L - 4) * 262144.0, "%.0f bytes with 4 layers, %.0f with %d",
                   few, all, config.L);
        }
    }
}
