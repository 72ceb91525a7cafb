// image_tower: see image_tower.h for the equations.
#include "image_tower.h"

#include <stdio.h>
#include <string.h>

// ---- names and presets ----
typedef struct {
    const char *cls, *pos, *patch, *ln_pre, *blocks, *norm, *projection;
    int table_rank; // of cls and pos in the file: 3 is [1,1,C] and [1,T,C], 2 is [C] and [T,C]
} ImageNames;

static const ImageNames image_names[] = {
    [IMAGE_JINA] = {"vision_model.cls_token", "vision_model.pos_embed",
                    "vision_model.patch_embed.proj", NULL, "vision_model.blocks.",
                    "vision_model.norm", NULL, 3},
    [IMAGE_CLIP] = {"vision_model.embeddings.class_embedding",
                    "vision_model.embeddings.position_embedding.weight",
                    "vision_model.embeddings.patch_embedding", "vision_model.pre_layrnorm",
                    "vision_model.encoder.layers.", "vision_model.post_layernorm",
                    "visual_projection", 2},
    [IMAGE_OPEN_CLIP] = {"visual.class_embedding", "visual.positional_embedding", "visual.conv1",
                         "visual.ln_pre", "visual.transformer.resblocks.", "visual.ln_post",
                         "visual.proj", 2},
    [IMAGE_TIMM] = {"visual.trunk.cls_token", "visual.trunk.pos_embed",
                    "visual.trunk.patch_embed.proj", NULL, "visual.trunk.blocks.",
                    "visual.trunk.norm", "visual.head.proj", 3},
};

// EVA02 as jina-clip-v1 has it: no key bias, two sub-norms, a SwiGLU, RoPE beside the position
// table.
static ImageTowerConfig jina(int image_size, int P, int C, int H, int L, int F) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = F,
        .norm = NORM_LAYER, .eps = 1e-6f, .has_inner_norm = true, .has_mlp_norm = true,
        .has_rope = true, .pairing = ROPE_INTERLEAVED, .is_gated = true, .act = ACT_SILU,
        .has_q_bias = true, .has_v_bias = true, .has_o_bias = true, .has_gate_bias = true,
        .has_up_bias = true, .has_down_bias = true, .names = &block_names_jina_image,
    };
    return (ImageTowerConfig){.form = IMAGE_JINA, .image_size = image_size, .P = P, .L = L, .E = C,
                              .block = block, .has_patch_bias = true, .theta = 10000};
}

// A plain ViT with fused or separate q, k, v and biases everywhere.
static ImageTowerConfig vit(ImageForm form, int P, int C, int H, int L, int E) {
    const bool is_clip = form == IMAGE_CLIP;
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = 4 * C,
        .norm = NORM_LAYER, .eps = is_clip ? 1e-5f : 1e-6f,
        .act = is_clip ? ACT_QUICK_GELU : ACT_GELU,
        .has_q_bias = true, .has_k_bias = true, .has_v_bias = true, .has_o_bias = true,
        .has_up_bias = true, .has_down_bias = true,
        .names = is_clip ? &block_names_clip : &block_names_timm,
    };
    return (ImageTowerConfig){.form = form, .image_size = 224, .P = P, .L = L, .E = E,
                              .block = block, .has_patch_bias = !is_clip, .has_ln_pre = is_clip,
                              .has_projection = true,
                              .unfrozen = form == IMAGE_TIMM ? 4 : 0};
}

bool image_tower_preset(ImageTowerConfig *config, const char *name) {
    const struct {
        const char *name;
        ImageTowerConfig config;
    } presets[] = {
        {"tiny", jina(32, 8, 64, 4, 3, 96)},
        {"jina-clip-v1", jina(224, 16, 768, 12, 12, 2048)},
        {"clip-vit-b-32", vit(IMAGE_CLIP, 32, 768, 12, 12, 512)},
        {"clip-vit-b-16", vit(IMAGE_CLIP, 16, 768, 12, 12, 512)},
        {"clip-vit-l-14", vit(IMAGE_CLIP, 14, 1024, 16, 24, 768)},
        {"biomedclip", vit(IMAGE_TIMM, 16, 768, 12, 12, 512)},
    };
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            *config = presets[i].config;
            return true;
        }
    }
    return false;
}

// ---- building ----
ImageTower image_tower_new(TensorList *list, const ImageTowerConfig *config) {
    const ImageNames *names = &image_names[config->form];
    const BlockConfig *block = &config->block;
    const int C = block->C, P = config->P, side = config->image_size / P, T = 1 + side * side;
    CHECK(side * P == config->image_size, "image_size=%d P=%d", config->image_size, P);
    CHECK(config->has_projection || config->E == C, "E=%d C=%d", config->E, C);
    ImageTower tower = {.config = *config, .T = T};
    const int drop = 3 - names->table_rank; // leading ones that this file's tables lack
    tower.cls = tensors_add(list, names->cls, init_normal(0.02f), drop ? 1 : 3,
                            (int[]){1, 1, C} + 2 * drop);
    tower.pos = tensors_add(list, names->pos, init_normal(0.02f), names->table_rank,
                            (int[]){1, T, C} + drop);
    char name[TENSOR_NAME];
    snprintf(name, sizeof name, "%s.weight", names->patch);
    tower.patch = (Linear){.in = 3 * P * P, .out = C};
    tower.patch.weight =
        tensors_add(list, name, init_fan_in(tower.patch.in), 4, (int[]){C, 3, P, P});
    tower.patch.weight->is_matrix = true;
    if (config->has_patch_bias) {
        snprintf(name, sizeof name, "%s.bias", names->patch);
        tower.patch.bias = tensors_add(list, name, init_fan_in(tower.patch.in), 1, &C);
    }
    if (config->has_ln_pre) {
        tower.ln_pre = norm_new(list, names->ln_pre, block->norm, C, block->eps);
    }
    tower.blocks = stack_new(list, block, config->L, names->blocks);
    tower.norm = norm_new(list, names->norm, block->norm, C, block->eps);
    if (config->has_projection) {
        tower.projection = config->form == IMAGE_OPEN_CLIP
                               ? linear_transposed_new(list, names->projection, config->E, C)
                               : linear_new(list, names->projection, config->E, C, false);
    }
    return tower;
}

void image_tower_free(ImageTower *tower) {
    stack_free(&tower->blocks);
    host_ids_free(&tower->scratch);
}

void image_tower_unfreeze(TensorList *list, const ImageTower *tower) {
    const ImageNames *names = &image_names[tower->config.form];
    const int L = tower->config.L, n = tower->config.unfrozen;
    if (n == 0 || n > L) {
        tensors_mark(list, "", true);
        return;
    }
    char prefix[TENSOR_NAME];
    for (int l = L - n; l < L; l++) {
        snprintf(prefix, sizeof prefix, "%s%d.", names->blocks, l);
        tensors_mark(list, prefix, true);
    }
    snprintf(prefix, sizeof prefix, "%s.", names->norm);
    tensors_mark(list, prefix, true);
    if (names->projection) {
        tensors_mark(list, names->projection, true);
    }
}

// ---- forward ----
// Row numbers of B images of T rows each: the CLS row first, then the patches.
static void take_rows(Run *run, ImageTower *tower, ImageTowerState *state, int32_t **cu_seqlens) {
    const int B = state->B, T = tower->T;
    int32_t *host = host_ids(&tower->scratch, (size_t)B * T + 1);
    for (int b = 0; b <= B; b++) {
        host[b] = b * T;
    }
    state->cls_rows = *cu_seqlens = run_take_ids(run, host, (size_t)B + 1);
    for (int b = 0; b < B; b++) {
        for (int p = 0; p < T - 1; p++) {
            host[b * (T - 1) + p] = b * T + 1 + p;
        }
    }
    state->patch_rows = run_take_ids(run, host, (size_t)B * (T - 1));
    for (int n = 0; n < B * T; n++) {
        host[n] = n % T;
    }
    state->pos_ids = run_take_ids(run, host, (size_t)B * T);
    memset(host, 0, (size_t)B * sizeof *host);
    state->zeros = run_take_ids(run, host, (size_t)B);
}

// The tables of one image, repeated B times. A CLS row has position (0,0), which does not turn it.
static void take_tables(Run *run, ImageTower *tower, const ImageTowerState *state,
                        BlockBatch *batch) {
    const ImageTowerConfig *config = &tower->config;
    const int T = tower->T, D = config->block.D, side = config->image_size / config->P;
    float *cosine = run_take_f32(run, (size_t)batch->N * (D / 2)),
          *sine = run_take_f32(run, (size_t)batch->N * (D / 2));
    const size_t mark = arena_mark(run->arena);
    float *one_cosine = run_take_f32(run, (size_t)T * (D / 2)),
          *one_sine = run_take_f32(run, (size_t)T * (D / 2));
    int32_t *host = host_ids(&tower->scratch, 2 * (size_t)T);
    host[0] = host[T] = 0;
    for (int p = 0; p < T - 1; p++) {
        host[1 + p] = p / side;
        host[T + 1 + p] = p % side;
    }
    int32_t *positions = run_take_ids(run, host, 2 * (size_t)T);
    if (!run->is_planning) {
        run->op->rope_table(run->dev, one_cosine, one_sine, positions, T, D, ROPE_2D_HALVES,
                            config->theta, NULL);
        run->op->rows_gather(run->dev, DT_F32, cosine, one_cosine, state->pos_ids, batch->N, D / 2,
                             T);
        run->op->rows_gather(run->dev, DT_F32, sine, one_sine, state->pos_ids, batch->N, D / 2, T);
    }
    arena_release(run->arena, mark);
    batch->cosine = cosine;
    batch->sine = sine;
}

void image_tower_fwd(Run *run, ImageTower *tower, ImageTowerState *state, void *out,
                     const float *pixels, int B) {
    const ImageTowerConfig *config = &tower->config;
    const int C = config->block.C, P = config->P, T = tower->T, side = config->image_size / P;
    const int patches = B * (T - 1), N = B * T;
    CHECK(B >= 1, "B=%d", B);
    const size_t start = arena_mark(run->arena);
    state->B = B;
    BlockBatch batch = {.B = B, .N = N, .max_T = T};
    int32_t *cu_seqlens;
    take_rows(run, tower, state, &cu_seqlens);
    batch.cu_seqlens = cu_seqlens;
    if (config->block.has_rope) {
        take_tables(run, tower, state, &batch);
    }

    state->patches = run_take(run, (size_t)patches, (size_t)tower->patch.in);
    RUN(run, patch_unfold, state->patches, pixels, B, 3, side, side, P, 1, 1);
    void *x = run_take(run, (size_t)N, (size_t)C);
    const size_t mark = arena_mark(run->arena);
    void *rows = run_take(run, (size_t)patches, (size_t)C);
    linear_fwd(run, &tower->patch, rows, &state->patch_lora, state->patches, patches, NULL);
    RUN(run, rows_scatter, x, rows, state->patch_rows, patches, C, N);
    RUN(run, embedding_fwd, rows, tower->cls->data, state->zeros, B, C, 1, false);
    RUN(run, rows_scatter, x, rows, state->cls_rows, B, C, N);
    RUN(run, embedding_fwd, x, tower->pos->data, state->pos_ids, N, C, T, true);
    arena_release(run->arena, mark);
    if (config->has_ln_pre) {
        state->embedded = x;
        x = run->is_training ? run_take(run, (size_t)N, (size_t)C) : x;
        norm_fwd(run, &tower->ln_pre, &state->ln_pre, x, state->embedded, N);
    }

    x = stack_fwd(run, &tower->blocks, &state->blocks, x, &batch);

    state->cls = run_take(run, (size_t)B, (size_t)C);
    RUN(run, rows_gather, state->cls, x, state->cls_rows, B, C, N);
    if (config->has_projection) {
        state->normed = run_take(run, (size_t)B, (size_t)C);
        norm_fwd(run, &tower->norm, &state->norm, state->normed, state->cls, B);
        linear_fwd(run, &tower->projection, out, &state->projection_lora, state->normed, B, NULL);
    } else {
        norm_fwd(run, &tower->norm, &state->norm, out, state->cls, B);
    }
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

// ---- backward ----
void image_tower_bwd(Run *run, ImageTower *tower, ImageTowerState *state, const void *dout) {
    const ImageTowerConfig *config = &tower->config;
    const int C = config->block.C, T = tower->T, B = state->B, N = B * T, patches = B * (T - 1);
    CHECK(run->is_training, "the forward of %d images kept nothing for a backward", B);
    const size_t start = arena_mark(run->arena);
    void *dcls = run_take(run, (size_t)B, (size_t)C), *d = run_take(run, (size_t)N, (size_t)C);
    if (config->has_projection) {
        linear_bwd(run, &tower->projection, dcls, dout, state->projection_lora, state->normed, B,
                   NULL);
        dout = dcls;
    }
    norm_bwd(run, &tower->norm, &state->norm, dcls, NULL, dout, state->cls, B);
    run_zero(run, d, (size_t)N, (size_t)C);
    RUN(run, rows_scatter, d, dcls, state->cls_rows, B, C, N);

    const bool wants_dx = tower->cls->grad || tower->pos->grad ||
                          linear_is_trainable(&tower->patch) || norm_is_trainable(&tower->ln_pre);
    stack_bwd(run, &tower->blocks, &state->blocks, d, wants_dx);

    if (wants_dx) {
        if (config->has_ln_pre) {
            norm_bwd(run, &tower->ln_pre, &state->ln_pre, d, NULL, d, state->embedded, N);
        }
        if (tower->pos->grad) {
            RUN(run, embedding_bwd, tower->pos->grad, d, state->pos_ids, N, C, T);
        }
        if (tower->cls->grad) {
            RUN(run, rows_gather, dcls, d, state->cls_rows, B, C, N);
            RUN(run, embedding_bwd, tower->cls->grad, dcls, state->zeros, B, C, 1);
        }
        void *dpatch = run_take(run, (size_t)patches, (size_t)C);
        RUN(run, rows_gather, dpatch, d, state->patch_rows, patches, C, N);
        linear_bwd(run, &tower->patch, NULL, dpatch, state->patch_lora, state->patches, patches,
                   NULL);
    }
    arena_release(run->arena, start);
}
