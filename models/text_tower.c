// text_tower: see text_tower.h for the equations.
#include "text_tower.h"

#include <stdio.h>
#include <string.h>

// ---- names and presets ----
typedef struct {
    const char *word, *type, *pos, *embed_norm, *blocks, *norm; // below the tower's prefix
    const char *projection, *head1, *head2;                     // whole names
} TextNames;

static const TextNames text_names[] = {
    [TEXT_JINA] = {"embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight",
                   NULL, "emb_ln", "encoder.layers.", NULL, NULL, NULL, NULL},
    [TEXT_BERT] = {"embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight",
                   "embeddings.position_embeddings.weight", "embeddings.LayerNorm",
                   "encoder.layer.", NULL, NULL, "text.proj.0", "text.proj.2"},
    [TEXT_CLIP] = {"embeddings.token_embedding.weight", NULL,
                   "embeddings.position_embedding.weight", NULL, "encoder.layers.",
                   "final_layer_norm", "text_projection", NULL, NULL},
    [TEXT_OPEN_CLIP] = {"token_embedding.weight", NULL, "positional_embedding", NULL,
                        "transformer.resblocks.", "ln_final", "text_projection", NULL, NULL},
};

// JinaBERT: post-norm, ALiBi, a bias-free fused GLU, mean over all tokens.
static TextTowerConfig jina(int V, int C, int H, int L, int F, float embed_sd) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = F,
        .norm = NORM_LAYER, .eps = 1e-12f, .is_post_norm = true, .has_alibi = true,
        .is_gated = true, .act = ACT_GELU,
        .has_q_bias = true, .has_k_bias = true, .has_v_bias = true, .has_o_bias = true,
        .has_down_bias = true, .names = &block_names_jina_text,
    };
    return (TextTowerConfig){.form = TEXT_JINA, .prefix = "text_model.transformer.", .V = V,
                             .L = L, .E = C, .types = 2, .block = block, .has_embed_norm = true,
                             .pool = POOL_MEAN, .embed_sd = embed_sd};
}

static TextTowerConfig bert(const char *prefix, int C, int H, int L, int E, int head_hidden,
                            TextPool pool) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = 4 * C,
        .norm = NORM_LAYER, .eps = 1e-12f, .is_post_norm = true, .act = ACT_GELU,
        .has_q_bias = true, .has_k_bias = true, .has_v_bias = true, .has_o_bias = true,
        .has_up_bias = true, .has_down_bias = true, .names = &block_names_bert,
    };
    return (TextTowerConfig){.form = TEXT_BERT, .prefix = prefix, .V = 30522, .L = L, .E = E,
                             .max_T = 512, .types = 2, .block = block, .has_positions = true,
                             .has_embed_norm = true, .head_hidden = head_hidden, .pool = pool,
                             .embed_sd = 0.02f};
}

static TextTowerConfig clip(int C, int H, int E) {
    const BlockConfig block = {
        .C = C, .H = H, .Hkv = H, .D = C / H, .F = 4 * C,
        .norm = NORM_LAYER, .eps = 1e-5f, .is_causal = true, .act = ACT_QUICK_GELU,
        .has_q_bias = true, .has_k_bias = true, .has_v_bias = true, .has_o_bias = true,
        .has_up_bias = true, .has_down_bias = true, .names = &block_names_clip,
    };
    return (TextTowerConfig){.form = TEXT_CLIP, .prefix = "text_model.", .V = 49408, .L = 12,
                             .E = E, .max_T = 77, .block = block, .has_positions = true,
                             .has_final_norm = true, .has_projection = true,
                             .pool = POOL_LARGEST_ID, .embed_sd = 0.02f};
}

bool text_tower_preset(TextTowerConfig *config, const char *name) {
    const struct {
        const char *name;
        TextTowerConfig config;
    } presets[] = {
        {"tiny", jina(0, 64, 4, 2, 128, 0.3f)},
        {"jina-clip-v1", jina(30528, 768, 12, 12, 3072, 0.02f)},
        {"clip-vit-b-32", clip(512, 8, 512)},
        {"clip-vit-b-16", clip(512, 8, 512)},
        {"clip-vit-l-14", clip(768, 12, 768)},
        {"biomedclip", bert("text.transformer.", 768, 12, 12, 512, 640, POOL_FIRST)},
        {"minilm-l6", bert("", 384, 12, 6, 384, 0, POOL_MEAN)},
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
static Tensor *add_table(TensorList *list, const char *prefix, const char *name, float sd, int rows,
                         int C) {
    char full[TENSOR_NAME];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return tensors_add(list, full, init_normal(sd), 2, (int[]){rows, C});
}

TextTower text_tower_new(TensorList *list, const TextTowerConfig *config) {
    const TextNames *names = &text_names[config->form];
    const BlockConfig *block = &config->block;
    const int C = block->C;
    CHECK(config->V >= 1, "V=%d: set it from the tokenizer", config->V);
    CHECK(config->has_projection || config->head_hidden || config->E == C, "E=%d C=%d", config->E,
          C);
    CHECK(!config->has_final_norm || config->pool != POOL_MEAN, "pool=%d", (int)config->pool);
    TextTower tower = {.config = *config};
    char name[TENSOR_NAME];
    tower.word = add_table(list, config->prefix, names->word, config->embed_sd, config->V, C);
    if (config->types) {
        tower.type = add_table(list, config->prefix, names->type, 0.02f, config->types, C);
    }
    if (config->has_positions) {
        tower.pos = add_table(list, config->prefix, names->pos, 0.02f, config->max_T, C);
    }
    if (config->has_embed_norm) {
        snprintf(name, sizeof name, "%s%s", config->prefix, names->embed_norm);
        tower.embed_norm = norm_new(list, name, block->norm, C, block->eps);
    }
    snprintf(name, sizeof name, "%s%s", config->prefix, names->blocks);
    tower.blocks = stack_new(list, block, config->L, name);
    if (config->has_final_norm) {
        snprintf(name, sizeof name, "%s%s", config->prefix, names->norm);
        tower.norm = norm_new(list, name, block->norm, C, block->eps);
    }
    if (config->has_projection) {
        tower.projection = config->form == TEXT_OPEN_CLIP
                               ? linear_transposed_new(list, names->projection, config->E, C)
                               : linear_new(list, names->projection, config->E, C, false);
    }
    if (config->head_hidden) {
        tower.head1 = linear_new(list, names->head1, config->head_hidden, C, false);
        tower.head2 = linear_new(list, names->head2, config->E, config->head_hidden, false);
    }
    return tower;
}

void text_tower_free(TextTower *tower) {
    stack_free(&tower->blocks);
    host_ids_free(&tower->scratch);
}

// ---- forward ----
// The row of text b that stands for it.
static int pooled_row(const TextTowerConfig *config, const TextBatch *batch, int b) {
    const int first = batch->cu_seqlens[b], end = batch->cu_seqlens[b + 1];
    int best = first;
    for (int n = first; config->pool == POOL_LARGEST_ID && n < end; n++) {
        best = batch->ids[n] > batch->ids[best] ? n : best;
    }
    for (int n = end - 1; config->pool == POOL_EOS && n >= first; n--) {
        best = batch->ids[n] == config->eos ? n : best;
    }
    return best;
}

// Device copies of what the batch says, and of the row numbers that follow from it.
static void take_rows(Run *run, TextTower *tower, TextTowerState *state, const TextBatch *batch) {
    const TextTowerConfig *config = &tower->config;
    state->ids = run_take_ids(run, batch->ids, (size_t)batch->N);
    state->cu_seqlens = run_take_ids(run, batch->cu_seqlens, (size_t)batch->B + 1);
    int32_t *host = host_ids(&tower->scratch, (size_t)batch->N);
    if (config->types) {
        memset(host, 0, (size_t)batch->N * sizeof *host);
        state->types = run_take_ids(run, host, (size_t)batch->N);
    }
    if (config->has_positions) {
        for (int b = 0; b < batch->B; b++) {
            for (int n = batch->cu_seqlens[b]; n < batch->cu_seqlens[b + 1]; n++) {
                host[n] = n - batch->cu_seqlens[b];
            }
        }
        state->pos_ids = run_take_ids(run, host, (size_t)batch->N);
    }
    if (config->pool != POOL_MEAN) {
        for (int b = 0; b < batch->B; b++) {
            host[b] = pooled_row(config, batch, b);
        }
        state->rows = run_take_ids(run, host, (size_t)batch->B);
    }
}

// From pooled rows (B,C) to out (B,E).
static void head_fwd(Run *run, TextTower *tower, TextTowerState *state, void *out) {
    const TextTowerConfig *config = &tower->config;
    const int B = state->B;
    void *unused; // heads have no adapters
    if (config->head_hidden) {
        state->hidden = run_take(run, (size_t)B, (size_t)config->head_hidden);
        state->activated = run_take(run, (size_t)B, (size_t)config->head_hidden);
        const MatmulEpilogue gelu = {.kind = EPILOGUE_ACT, .act = ACT_GELU, .pre = state->hidden};
        linear_fwd(run, &tower->head1, state->activated, &unused, state->head_in, B, &gelu);
        linear_fwd(run, &tower->head2, out, &unused, state->activated, B, NULL);
    } else {
        linear_fwd(run, &tower->projection, out, &unused, state->head_in, B, NULL);
    }
}

void text_tower_fwd(Run *run, TextTower *tower, TextTowerState *state, void *out,
                    const TextBatch *batch) {
    const TextTowerConfig *config = &tower->config;
    const int B = batch->B, N = batch->N, C = config->block.C;
    CHECK(B >= 1 && N >= B, "B=%d N=%d", B, N);
    CHECK(!config->has_positions || batch->max_T <= config->max_T, "max_T=%d beyond the table's %d",
          batch->max_T, config->max_T);
    const size_t start = arena_mark(run->arena);
    state->B = B;
    state->N = N;
    take_rows(run, tower, state, batch);

    void *x = run_take(run, (size_t)N, (size_t)C);
    RUN(run, embedding_fwd, x, tower->word->data, state->ids, N, C, config->V, false);
    if (config->types) {
        RUN(run, embedding_fwd, x, tower->type->data, state->types, N, C, config->types, true);
    }
    if (config->has_positions) {
        RUN(run, embedding_fwd, x, tower->pos->data, state->pos_ids, N, C, config->max_T, true);
    }
    if (config->has_embed_norm) {
        state->embedded = x;
        x = run->is_training ? run_take(run, (size_t)N, (size_t)C) : x;
        norm_fwd(run, &tower->embed_norm, &state->embed_norm, x, state->embedded, N);
    }

    const BlockBatch rows = {
        .B = B, .N = N, .max_T = batch->max_T, .cu_seqlens = state->cu_seqlens};
    x = stack_fwd(run, &tower->blocks, &state->blocks, x, &rows);

    // A stage writes to out itself when it is the last one.
    const bool has_head = config->has_projection || config->head_hidden;
    const bool is_pool_last = !has_head && !config->has_final_norm;
    state->pooled = is_pool_last ? out : run_take(run, (size_t)B, (size_t)C);
    if (config->pool == POOL_MEAN) {
        RUN(run, pool_fwd, state->pooled, x, state->cu_seqlens, B, N, C);
    } else {
        RUN(run, rows_gather, state->pooled, x, state->rows, B, C, N);
    }
    state->head_in = state->pooled;
    if (config->has_final_norm) {
        state->head_in = has_head ? run_take(run, (size_t)B, (size_t)C) : out;
        norm_fwd(run, &tower->norm, &state->norm, state->head_in, state->pooled, B);
    }
    if (has_head) {
        head_fwd(run, tower, state, out);
    }
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

// ---- backward ----
// dpooled (B,C) from dout (B,E).
static void head_bwd(Run *run, TextTower *tower, TextTowerState *state, void *dpooled,
                     const void *dout) {
    const TextTowerConfig *config = &tower->config;
    const int B = state->B;
    if (config->head_hidden) {
        const size_t width = (size_t)config->head_hidden;
        void *dhidden = run_take(run, (size_t)B, width);
        const MatmulEpilogue gelu = {
            .kind = EPILOGUE_ACT_BWD, .act = ACT_GELU, .pre = state->hidden};
        linear_bwd(run, &tower->head2, dhidden, dout, NULL, state->activated, B, &gelu);
        linear_bwd(run, &tower->head1, dpooled, dhidden, NULL, state->head_in, B, NULL);
        dout = dpooled;
    } else if (config->has_projection) {
        linear_bwd(run, &tower->projection, dpooled, dout, NULL, state->head_in, B, NULL);
        dout = dpooled;
    }
    if (config->has_final_norm) {
        norm_bwd(run, &tower->norm, &state->norm, dpooled, NULL, dout, state->pooled, B);
    }
}

void text_tower_bwd(Run *run, TextTower *tower, TextTowerState *state, const void *dout) {
    const TextTowerConfig *config = &tower->config;
    const int B = state->B, N = state->N, C = config->block.C;
    CHECK(run->is_training, "the forward of %d texts kept nothing for a backward", B);
    const size_t start = arena_mark(run->arena);
    void *d = run_take(run, (size_t)N, (size_t)C), *dpooled = run_take(run, (size_t)B, (size_t)C);
    if (config->has_projection || config->head_hidden || config->has_final_norm) {
        head_bwd(run, tower, state, dpooled, dout);
        dout = dpooled;
    }
    if (config->pool == POOL_MEAN) {
        RUN(run, pool_bwd, d, dout, state->cu_seqlens, B, N, C);
    } else {
        run_zero(run, d, (size_t)N, (size_t)C);
        RUN(run, rows_scatter, d, dout, state->rows, B, C, N);
    }

    const bool wants_dx = tower->word->grad || (tower->type && tower->type->grad) ||
                          (tower->pos && tower->pos->grad) || norm_is_trainable(&tower->embed_norm);
    stack_bwd(run, &tower->blocks, &state->blocks, d, wants_dx);

    if (wants_dx) {
        if (config->has_embed_norm) {
            norm_bwd(run, &tower->embed_norm, &state->embed_norm, d, NULL, d, state->embedded, N);
        }
        if (tower->pos && tower->pos->grad) {
            RUN(run, embedding_bwd, tower->pos->grad, d, state->pos_ids, N, C, config->max_T);
        }
        if (tower->type && tower->type->grad) {
            RUN(run, embedding_bwd, tower->type->grad, d, state->types, N, C, config->types);
        }
        if (tower->word->grad) {
            RUN(run, embedding_bwd, tower->word->grad, d, state->ids, N, C, config->V);
        }
    }
    arena_release(run->arena, start);
}
