// reader: see reader.h for the equations.
#include "reader.h"

#include <stdlib.h>
#include <string.h>

// ---- presets ----
// width, heads, MLP, layers of the vision tower; the patch side is 4 for the tiny ones.
static VisionConfig qwen2vl_vision(int P, int C, int H, int F, int L, int C_out) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = F,
        .norm = NORM_LAYER, .eps = 1e-6f, .has_rope = true, .pairing = ROPE_HALF,
        .act = ACT_QUICK_GELU, .has_q_bias = true, .has_k_bias = true, .has_v_bias = true,
        .has_o_bias = true, .has_up_bias = true, .has_down_bias = true, .names = &block_names_timm,
    };
    return (VisionConfig){.family = READER_QWEN2VL, .P = P, .L = L, .merge = 2, .frames = 2,
                          .C_out = C_out, .theta = 10000, .block = block};
}

static VisionConfig pixtral_vision(int P, int C, int H, int F, int L, int C_out) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = F,
        .norm = NORM_RMS, .eps = 1e-5f, .has_rope = true, .pairing = ROPE_HALF, .is_gated = true,
        .act = ACT_SILU, .names = &block_names_pixtral_vision,
    };
    return (VisionConfig){.family = READER_PIXTRAL, .P = P, .L = L, .merge = 1, .frames = 1,
                          .C_out = C_out, .theta = 10000, .block = block};
}

// The language model: pre-norm RMS, gated SiLU, rotary, causal; Qwen2 has biases on q, k, v.
static ReaderConfig language(VisionConfig vision, int C, int H, int Hkv, int D, int F, int L, int V,
                             double theta) {
    const bool is_qwen = vision.family == READER_QWEN2VL;
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = Hkv, .D = D, .F = F,
        .norm = NORM_RMS, .eps = is_qwen ? 1e-6f : 1e-5f, .is_causal = true, .has_rope = true,
        .pairing = ROPE_HALF, .is_gated = true, .act = ACT_SILU, .has_q_bias = is_qwen,
        .has_k_bias = is_qwen, .has_v_bias = is_qwen, .names = &block_names_llama,
    };
    // A quarter of the pairs turns with time, three eighths each with height and width.
    return (ReaderConfig){.family = vision.family, .vision = vision, .block = block, .L = L, .V = V,
                          .theta = theta, .sections = {D / 8, D * 3 / 16, D * 3 / 16},
                          .image_id = -1, .embed_sd = 0.02f};
}

bool reader_preset(ReaderConfig *config, const char *name) {
    if (strcmp(name, "tiny-qwen2vl") == 0) {
        *config = language(qwen2vl_vision(4, 48, 4, 96, 2, 64), 64, 4, 2, 16, 128, 3, 0, 10000);
        config->embed_sd = 0.3f;
    } else if (strcmp(name, "tiny-pixtral") == 0) {
        *config = language(pixtral_vision(4, 48, 4, 96, 2, 64), 64, 4, 2, 16, 128, 3, 0, 10000);
        config->embed_sd = 0.3f;
    } else if (strcmp(name, "qwen2-vl-2b") == 0) {
        *config = language(qwen2vl_vision(14, 1280, 16, 5120, 32, 1536), 1536, 12, 2, 128, 8960, 28,
                           151936, 1e6);
        config->is_tied = true;
        config->image_id = 151655;
    } else if (strcmp(name, "qwen2-vl-7b") == 0) {
        *config = language(qwen2vl_vision(14, 1280, 16, 5120, 32, 3584), 3584, 28, 4, 128, 18944,
                           28, 152064, 1e6);
        config->image_id = 151655;
    } else if (strcmp(name, "pixtral-12b") == 0) {
        *config = language(pixtral_vision(16, 1024, 16, 4096, 24, 5120), 5120, 32, 8, 128, 14336,
                           40, 131072, 1e9);
        config->image_id = 10;
    } else {
        return false;
    }
    return true;
}

void reader_set_lora(ReaderConfig *config, LoraConfig lora, bool has_vision_lora) {
    config->block.lora = config->vision.block.lora = lora;
    if (!has_vision_lora) {
        config->vision.block.lora.rank = 0;
    }
}

// ---- building ----
static void add_language(Reader *reader, TensorList *list) {
    const ReaderConfig *config = &reader->config;
    const BlockConfig *block = &config->block;
    const bool is_inside = config->family == READER_PIXTRAL; // of a Llava model
    reader->embed = tensors_add(
        list, is_inside ? "language_model.model.embed_tokens.weight" : "model.embed_tokens.weight",
        init_normal(config->embed_sd), 2, (int[]){config->V, block->C});
    reader->blocks = stack_new(
        list, block, config->L, is_inside ? "language_model.model.layers." : "model.layers.");
    reader->norm = norm_new(list, is_inside ? "language_model.model.norm" : "model.norm",
                            block->norm, block->C, block->eps);
    if (config->is_tied) {
        reader->head = (Linear){.in = block->C, .out = config->V, .weight = reader->embed};
        reader->embed->is_matrix = true;
    } else {
        reader->head = linear_new(list, is_inside ? "language_model.lm_head" : "lm_head",
                                  config->V, block->C, false);
    }
}

void reader_build(Reader *reader, const ReaderConfig *config) {
    const bool has_eyes = config->vision.L > 0;
    CHECK(config->V >= 1 && config->image_id >= (has_eyes ? 0 : -1) && config->image_id < config->V,
          "V=%d image_id=%d: set them from the tokenizer", config->V, config->image_id);
    CHECK(!has_eyes || config->vision.C_out == config->block.C, "C_out=%d C=%d",
          config->vision.C_out, config->block.C);
    *reader = (Reader){.config = *config, .tensors = tensors_new(), .logits_limit = READER_LOGITS};
    reader->vision = vision_tower_new(&reader->tensors, &config->vision);
    add_language(reader, &reader->tensors);
}

Reader *reader_new(Device *dev, DType t, const ReaderConfig *config, bool is_base_trainable) {
    Reader *reader = xcalloc(1, sizeof *reader);
    reader_build(reader, config);
    tensors_mark_adapters(&reader->tensors, true, true);
    tensors_mark_adapters(&reader->tensors, false, is_base_trainable);
    tensors_allocate(&reader->tensors, dev, t);
    return reader;
}

void reader_unbuild(Reader *reader) {
    vision_tower_free(&reader->vision);
    stack_free(&reader->blocks);
    host_ids_free(&reader->scratch);
    tensors_free(&reader->tensors);
}

void reader_free(Reader *reader) {
    reader_unbuild(reader);
    free(reader);
}

// ---- forward ----
void reader_vision_fwd(Run *run, Reader *reader, void *out, const ReaderImage *image, int images) {
    Run forward = *run;
    forward.is_training = false;
    VisionState state;
    vision_tower_fwd(&forward, &reader->vision, &state, out, image, images);
}

// Sorts the rows of the batch into computed image rows, given image rows, and text rows.
static void take_rows(Run *run, Reader *reader, ReaderState *state, const ReaderBatch *batch) {
    const ReaderConfig *config = &reader->config;
    const size_t N = (size_t)batch->N;
    state->computed = state->given = state->texts = 0;
    int total = 0;
    for (int i = 0; i < batch->images; i++) {
        const int tokens = vision_tokens(&config->vision, &batch->image[i]);
        *(batch->image[i].features ? &state->given : &state->computed) += tokens;
        total += tokens;
    }
    int32_t *images = host_ids(&reader->scratch, 3 * N), *texts = images + N, *ids = images + 2 * N;
    int image = -1, left = 0, computed = 0, given = state->computed, texts_seen = 0;
    for (int n = 0; n < batch->N; n++) {
        if (batch->ids[n] != config->image_id) {
            texts[texts_seen] = n;
            ids[texts_seen++] = batch->ids[n];
            continue;
        }
        if (left == 0) {
            CHECK(image + 1 < batch->images, "row %d wants image %d of %d", n, image + 1,
                  batch->images);
            left = vision_tokens(&config->vision, &batch->image[++image]);
        }
        left--;
        images[batch->image[image].features ? given++ : computed++] = n;
    }
    CHECK(computed + given - state->computed == total, "%d image rows for %d features",
          computed + given - state->computed, total);
    state->texts = texts_seen;
    state->image_rows = run_take_ids(run, images, (size_t)total);
    state->text_rows = run_take_ids(run, texts, (size_t)texts_seen);
    state->text_ids = run_take_ids(run, ids, (size_t)texts_seen);
    state->wanted = run_take_ids(run, batch->wanted, (size_t)batch->R);
}

static BlockBatch take_batch(Run *run, Reader *reader, const ReaderBatch *batch, KvCache *cache) {
    const ReaderConfig *config = &reader->config;
    const size_t N = (size_t)batch->N;
    const int D = config->block.D;
    BlockBatch rows = {.B = batch->B, .N = batch->N, .max_T = batch->max_T};
    rows.cu_seqlens = run_take_ids(run, batch->cu_seqlens, (size_t)batch->B + 1);
    rows.kv = kv_pass(run, &reader->scratch, cache, batch->slot, batch->cu_seqlens, batch->B);
    float *cosine = run_take_f32(run, N * (D / 2)), *sine = run_take_f32(run, N * (D / 2));
    const size_t mark = arena_mark(run->arena);
    int32_t *host = host_ids(&reader->scratch, 3 * N);
    for (int axis = 0; axis < 3; axis++) {
        memcpy(host + (size_t)axis * N, batch->positions + (size_t)axis * batch->capacity_N,
               N * sizeof *host);
    }
    int32_t *positions = run_take_ids(run, host, 3 * N);
    if (!run->is_planning) {
        const bool is_qwen = config->family == READER_QWEN2VL;
        run->op->rope_table(run->dev, cosine, sine, positions, batch->N, D,
                            is_qwen ? ROPE_M : ROPE_1D, config->theta,
                            is_qwen ? config->sections : NULL);
    }
    arena_release(run->arena, mark);
    rows.cosine = cosine;
    rows.sine = sine;
    return rows;
}

// Writes the features of all images over their rows of x.
static void put_images(Run *run, Reader *reader, ReaderState *state, void *x) {
    const ReaderBatch *batch = state->batch;
    const int C = reader->config.block.C, N = batch->N;
    void *features = run_take(run, (size_t)state->computed, (size_t)C);
    vision_tower_fwd(run, &reader->vision, &state->vision, features, batch->image, batch->images);
    if (state->computed) {
        RUN(run, rows_scatter, x, features, state->image_rows, state->computed, C, N);
    }
    for (int i = 0, done = state->computed; i < batch->images; i++) {
        if (batch->image[i].features) {
            const int tokens = vision_tokens(&reader->config.vision, &batch->image[i]);
            const int32_t *rows = run->is_planning ? NULL : state->image_rows + done;
            RUN(run, rows_scatter, x, batch->image[i].features, rows, tokens, C, N);
            done += tokens;
        }
    }
}

static void forward(Run *run, Reader *reader, ReaderState *state, void *hidden,
                    const ReaderBatch *batch, KvCache *cache) {
    const ReaderConfig *config = &reader->config;
    const int N = batch->N, R = batch->R, C = config->block.C;
    CHECK(batch->B >= 1 && R >= 1, "B=%d R=%d", batch->B, R);
    const size_t start = arena_mark(run->arena);
    state->batch = batch;
    take_rows(run, reader, state, batch);
    void *x = run_take(run, (size_t)N, (size_t)C);
    const size_t mark = arena_mark(run->arena);
    int32_t *ids = run_take_ids(run, batch->ids, (size_t)N);
    RUN(run, embedding_fwd, x, reader->embed->data, ids, N, C, config->V, false);
    arena_release(run->arena, mark);
    put_images(run, reader, state, x);

    const BlockBatch rows = take_batch(run, reader, batch, cache);
    x = stack_fwd(run, &reader->blocks, &state->blocks, x, &rows);

    // Only wanted rows reach the norm and the head.
    state->picked = run->is_training ? run_take(run, (size_t)R, (size_t)C) : hidden;
    RUN(run, rows_gather, state->picked, x, state->wanted, R, C, N);
    norm_fwd(run, &reader->norm, &state->norm, hidden, state->picked, R);
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

void reader_hidden_fwd(Run *run, Reader *reader, ReaderState *state, void *hidden,
                       const ReaderBatch *batch) {
    forward(run, reader, state, hidden, batch, NULL);
}

void reader_hidden_fwd_cached(Run *run, Reader *reader, ReaderState *state, void *hidden,
                              const ReaderBatch *batch, KvCache *cache) {
    forward(run, reader, state, hidden, batch, cache);
    if (!run->is_planning) {
        kv_pass_done(cache, batch->slot, batch->cu_seqlens, batch->B, batch->positions,
                     batch->capacity_N);
    }
}

KvCache *reader_cache_new(const Reader *reader, int B, int room) {
    const BlockConfig *block = &reader->config.block;
    return kv_cache_new(reader->tensors.dev, reader->tensors.t, reader->config.L,
                        block->Hkv * block->D, B, room);
}

// ---- head ----
int reader_head_rows(const Run *run, const Reader *reader, int left) {
    const size_t row = (size_t)reader->config.V * dtype_size(run->t);
    const size_t most = reader->logits_limit / row;
    return most >= (size_t)left ? left : most > 1 ? (int)most : 1;
}

void reader_head_fwd(Run *run, const Reader *reader, void *logits, const void *hidden, int rows) {
    void *unused; // the head has no adapter
    linear_fwd(run, &reader->head, logits, &unused, hidden, rows, NULL);
}

void reader_head_bwd(Run *run, const Reader *reader, void *dhidden, const void *dlogits,
                     const void *hidden, int rows) {
    linear_bwd(run, &reader->head, dhidden, dlogits, NULL, hidden, rows, NULL);
}

// ---- backward ----
void reader_hidden_bwd(Run *run, Reader *reader, ReaderState *state, void *dhidden) {
    const ReaderConfig *config = &reader->config;
    const ReaderBatch *batch = state->batch;
    const int N = batch->N, R = batch->R, C = config->block.C;
    CHECK(run->is_training, "the forward of %d rows kept nothing for a backward", N);
    const size_t start = arena_mark(run->arena);
    void *d = run_take(run, (size_t)N, (size_t)C), *dpicked = dhidden;
    norm_bwd(run, &reader->norm, &state->norm, dpicked, NULL, dhidden, state->picked, R);
    run_zero(run, d, (size_t)N, (size_t)C);
    RUN(run, rows_scatter, d, dpicked, state->wanted, R, C, N);

    const bool wants_vision = state->computed && vision_tower_is_trainable(&reader->vision);
    const bool wants_dx = wants_vision || reader->embed->grad;
    if (wants_dx || stack_is_trainable(&reader->blocks)) {
        stack_bwd(run, &reader->blocks, &state->blocks, d, wants_dx);
    }
    if (reader->embed->grad && state->texts) {
        const size_t mark = arena_mark(run->arena);
        void *dtext = run_take(run, (size_t)state->texts, (size_t)C);
        RUN(run, rows_gather, dtext, d, state->text_rows, state->texts, C, N);
        RUN(run, embedding_bwd, reader->embed->grad, dtext, state->text_ids, state->texts, C,
            config->V);
        arena_release(run->arena, mark);
    }
    if (wants_vision) {
        void *dfeatures = run_take(run, (size_t)state->computed, (size_t)C);
        RUN(run, rows_gather, dfeatures, d, state->image_rows, state->computed, C, N);
        vision_tower_bwd(run, &reader->vision, &state->vision, dfeatures);
    }
    arena_release(run->arena, start);
}
