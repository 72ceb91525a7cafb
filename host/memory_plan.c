// memory_plan: see memory_plan.h.
#include "memory_plan.h"

#include <string.h>

size_t memory_plan_total(const MemoryPlan *plan) {
    size_t total = 0;
#define MEMORY_ADD(field, text) total += plan->field;
    MEMORY_ROWS(MEMORY_ADD)
#undef MEMORY_ADD
    return total - plan->mapped;
}

void memory_plan_print(FILE *out, const MemoryPlan *plan) {
    const double MIB = 1 << 20;
#define MEMORY_PRINT(field, text)                                                                  \
    if (plan->field) {                                                                             \
        fprintf(out, "  %10.1f MiB  %s\n", (double)plan->field / MIB, text);                       \
    }
    MEMORY_ROWS(MEMORY_PRINT)
#undef MEMORY_PRINT
    fprintf(out, "  %10.1f MiB  in memory together\n", (double)memory_plan_total(plan) / MIB);
}

void memory_plan_tensors(MemoryPlan *plan, const TensorList *list, DType t, size_t mapped) {
    size_t frozen = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (!tensor->is_trainable) {
            frozen += tensor->count * dtype_size(t);
            continue;
        }
        plan->trainable += tensor->count * (sizeof(float) + (t == DT_F32 ? 0 : dtype_size(t)));
        plan->gradients += tensor->count * sizeof(float);
        plan->moments += 2 * tensor->count * sizeof(float);
    }
    CHECK(mapped <= frozen, "%zu mapped of %zu bytes", mapped, frozen);
    plan->mapped += mapped;
    plan->weights += frozen - mapped;
}

void memory_plan_reader(MemoryPlan *plan, Reader *reader, Device *dev, DType t,
                        const ReaderBatch *batch, bool is_training, bool recomputes) {
    Arena arena = arena_plan();
    Run run = run_new(dev, t, &arena, is_training), planning = run_planning(&run, &arena);
    planning.recomputes = recomputes;
    ReaderState state;
    const size_t R = (size_t)batch->R, C = (size_t)reader->config.block.C;
    const int rows = reader_head_rows(&planning, reader, batch->R);
    void *hidden = run_take(&planning, R, C);
    void *dhidden = is_training ? run_take(&planning, R, C) : NULL;
    reader_hidden_fwd(&planning, reader, &state, hidden, batch);
    const size_t mark = arena_mark(&arena);
    void *logits = run_take(&planning, (size_t)rows, (size_t)reader->config.V);
    reader_head_fwd(&planning, reader, logits, hidden, rows);
    if (is_training) {
        reader_head_bwd(&planning, reader, dhidden, logits, hidden, rows);
        arena_release(&arena, mark);
        reader_hidden_bwd(&planning, reader, &state, dhidden);
    }
    plan->activations += arena.peak;
    plan->scratch = arena.scratch > plan->scratch ? arena.scratch : plan->scratch;
}

static void keep_largest(MemoryPlan *plan, const Arena *arena) {
    plan->activations = arena->peak > plan->activations ? arena->peak : plan->activations;
    plan->scratch = arena->scratch > plan->scratch ? arena->scratch : plan->scratch;
}

void memory_plan_images(MemoryPlan *plan, ImageTower *tower, Device *dev, DType t, int B,
                        bool is_training) {
    const size_t E = (size_t)tower->config.E, S = (size_t)tower->config.image_size;
    Arena arena = arena_plan();
    Run run = run_new(dev, t, &arena, is_training), planning = run_planning(&run, &arena);
    EmbedImagesState state;
    float *pixels = run_take_f32(&planning, (size_t)B * 3 * S * S);
    void *unit = run_take(&planning, (size_t)B, E), *dout = NULL;
    embed_images_fwd(&planning, tower, &state, unit, pixels, B);
    if (is_training) {
        dout = run_take(&planning, (size_t)B, E);
        embed_images_bwd(&planning, tower, &state, dout);
    }
    keep_largest(plan, &arena);
}

void memory_plan_texts(MemoryPlan *plan, TextTower *tower, Device *dev, DType t,
                       const TextBatch *batch, bool is_training) {
    const size_t E = (size_t)tower->config.E;
    Arena arena = arena_plan();
    Run run = run_new(dev, t, &arena, is_training), planning = run_planning(&run, &arena);
    EmbedTextsState state;
    void *unit = run_take(&planning, (size_t)batch->B, E), *dout = NULL;
    embed_texts_fwd(&planning, tower, &state, unit, batch);
    if (is_training) {
        dout = run_take(&planning, (size_t)batch->B, E);
        embed_texts_bwd(&planning, tower, &state, dout);
    }
    keep_largest(plan, &arena);
}

// ---- before a training ----
void memory_plan_training(Device *dev, const MemoryNeed *need, int count, size_t scratch) {
    const double MIB = 1 << 20;
    const size_t held_scratch = device_bytes_for(dev, "scratch of ops");
    const MemoryNeed ops = {"scratch of ops",
                            scratch > held_scratch ? scratch - held_scratch : 0};
    size_t sum = 0, free_bytes, total;
    const MemoryNeed *largest = &ops;
    char held[300], rest[80] = "";
    device_list_largest(dev, held, sizeof held);
    if (device_memory(dev, &free_bytes, &total)) {
        snprintf(rest, sizeof rest, "; %.1f of %.1f MiB are free", (double)free_bytes / MIB,
                 (double)total / MIB);
    }
    for (int i = 0; i <= count; i++) {
        const MemoryNeed *one = i < count ? &need[i] : &ops;
        if (one->bytes) {
            LOG(INFO, "memory: %.1f MiB to come for %s", (double)one->bytes / MIB, one->what);
        }
        sum += one->bytes;
        largest = one->bytes > largest->bytes ? one : largest;
    }
    LOG(INFO, "memory: %.1f MiB to come, %.1f MiB held (%s)%s", (double)sum / MIB,
        (double)device_bytes_in_use(dev) / MIB, held, rest);
    device_expect(dev, sum, largest->what);
}

const char *memory_advice(const char *what) {
    static const char *const advice[][2] = {
        {"reader training", "lower reader.micro_batch, or set reader.recompute=true"},
        {"retriever training", "lower retriever.batch"},
        {"pretraining", "lower pretrain.batch or retriever.max_tokens"},
        {"scoring", "lower prompt.max_tokens, or set reader.dtype=bf16"},
        {"generating", "lower generate.batch or prompt.max_tokens"},
        {"keys and values", "lower generate.batch or generate.max_tokens"},
        {"scratch of ops", "lower retriever.batch, or train an adapter: reader.all_weights=false"},
        {"frozen parameters", "set reader.dtype=bf16 or retriever.dtype=bf16"},
        {"trainable parameters", "train an adapter: reader.all_weights=false"},
        {"gradients", "train an adapter: reader.all_weights=false, or lower reader.lora_rank"},
        {"optimiser", "train an adapter: reader.all_weights=false, or lower reader.lora_rank"},
        {"index", "build the index with index.dtype=f16"},
    };
    for (size_t i = 0; i < sizeof advice / sizeof *advice; i++) {
        if (strcmp(advice[i][0], what) == 0) {
            return advice[i][1];
        }
    }
    return NULL;
}

size_t memory_anonymous(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kib = 0;
    while (status && fgets(line, sizeof line, status)) {
        if (sscanf(line, "RssAnon: %llu kB", &kib) == 1) {
            break;
        }
    }
    if (status) {
        fclose(status);
    }
    return (size_t)kib * 1024;
}
