// block: the transformer block and the stack; see block.h for the equations.
#include "block.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- names ----
const BlockNames block_names_jina_image = {
    .norm1 = {.module = "norm1"},
    .q = {.module = "attn.q_proj", .bias = "attn.q_bias"},
    .k = {.module = "attn.k_proj"},
    .v = {.module = "attn.v_proj", .bias = "attn.v_bias"},
    .inner_norm = {.module = "attn.inner_attn_ln"},
    .o = {.module = "attn.proj"},
    .norm2 = {.module = "norm2"},
    .gate = {.module = "mlp.w1"},
    .up = {.module = "mlp.w2"},
    .mlp_norm = {.module = "mlp.ffn_ln"},
    .down = {.module = "mlp.w3"},
};
const BlockNames block_names_jina_text = {
    .norm1 = {.module = "norm1"},
    .q = {.module = "mixer.Wqkv", .slice = 0, .slices = 3},
    .k = {.module = "mixer.Wqkv", .slice = 1, .slices = 3},
    .v = {.module = "mixer.Wqkv", .slice = 2, .slices = 3},
    .o = {.module = "mixer.out_proj"},
    .norm2 = {.module = "norm2"},
    .gate = {.module = "mlp.gated_layers", .slice = 0, .slices = 2},
    .up = {.module = "mlp.gated_layers", .slice = 1, .slices = 2},
    .down = {.module = "mlp.wo"},
};
const BlockNames block_names_clip = {
    .norm1 = {.module = "layer_norm1"},
    .q = {.module = "self_attn.q_proj"},
    .k = {.module = "self_attn.k_proj"},
    .v = {.module = "self_attn.v_proj"},
    .o = {.module = "self_attn.out_proj"},
    .norm2 = {.module = "layer_norm2"},
    .up = {.module = "mlp.fc1"},
    .down = {.module = "mlp.fc2"},
};
#define IN_PROJ(i)                                                                                 \
    {.module = "attn.in_proj", .weight = "attn.in_proj_weight", .bias = "attn.in_proj_bias",       \
     .slice = i, .slices = 3}
const BlockNames block_names_open_clip = {
    .norm1 = {.module = "ln_1"},
    .q = IN_PROJ(0),
    .k = IN_PROJ(1),
    .v = IN_PROJ(2),
    .o = {.module = "attn.out_proj"},
    .norm2 = {.module = "ln_2"},
    .up = {.module = "mlp.c_fc"},
    .down = {.module = "mlp.c_proj"},
};
#undef IN_PROJ
const BlockNames block_names_timm = {
    .norm1 = {.module = "norm1"},
    .q = {.module = "attn.qkv", .slice = 0, .slices = 3},
    .k = {.module = "attn.qkv", .slice = 1, .slices = 3},
    .v = {.module = "attn.qkv", .slice = 2, .slices = 3},
    .o = {.module = "attn.proj"},
    .norm2 = {.module = "norm2"},
    .up = {.module = "mlp.fc1"},
    .down = {.module = "mlp.fc2"},
};
const BlockNames block_names_bert = {
    .norm1 = {.module = "attention.output.LayerNorm"},
    .q = {.module = "attention.self.query"},
    .k = {.module = "attention.self.key"},
    .v = {.module = "attention.self.value"},
    .o = {.module = "attention.output.dense"},
    .norm2 = {.module = "output.LayerNorm"},
    .up = {.module = "intermediate.dense"},
    .down = {.module = "output.dense"},
};
const BlockNames block_names_pixtral_vision = {
    .norm1 = {.module = "attention_norm"},
    .q = {.module = "attention.q_proj"},
    .k = {.module = "attention.k_proj"},
    .v = {.module = "attention.v_proj"},
    .o = {.module = "attention.o_proj"},
    .norm2 = {.module = "ffn_norm"},
    .gate = {.module = "feed_forward.gate_proj"},
    .up = {.module = "feed_forward.up_proj"},
    .down = {.module = "feed_forward.down_proj"},
};
const BlockNames block_names_llama = {
    .norm1 = {.module = "input_layernorm"},
    .q = {.module = "self_attn.q_proj"},
    .k = {.module = "self_attn.k_proj"},
    .v = {.module = "self_attn.v_proj"},
    .o = {.module = "self_attn.o_proj"},
    .norm2 = {.module = "post_attention_layernorm"},
    .gate = {.module = "mlp.gate_proj"},
    .up = {.module = "mlp.up_proj"},
    .down = {.module = "mlp.down_proj"},
};

// ---- building ----
typedef char Name[TENSOR_NAME];

static void join(Name out, const char *prefix, const char *middle, const char *suffix) {
    const int length = snprintf(out, TENSOR_NAME, "%s%s%s", prefix, middle, suffix);
    CHECK(length < TENSOR_NAME, "name '%s%s%s' is too long", prefix, middle, suffix);
}

// Adds one tensor of a linear layer: a whole tensor of the file, or rows of a fused one.
static Tensor *add_rows(TensorList *list, const char *file, const PartName *names, const char *part,
                        int rank, int out, int in) {
    Name name;
    join(name, file, names->slices ? "/" : "", names->slices ? part : "");
    Tensor *tensor = tensors_add(list, name, init_fan_in(in), rank, (int[]){out, in});
    if (names->slices) {
        tensor_set_slice(tensor, file, names->slice * out, names->slices * out);
    }
    return tensor;
}

static Linear part_linear(TensorList *list, const char *prefix, const PartName *names,
                          const char *part, int out, int in, bool has_bias, LoraConfig lora) {
    CHECK(names->module, "these names have no part '%s'", part);
    Linear linear = {.in = in, .out = out};
    Name module, file;
    join(module, prefix, names->module, "");
    if (names->weight) {
        join(file, prefix, names->weight, "");
    } else {
        join(file, module, ".weight", "");
    }
    linear.weight = add_rows(list, file, names, part, 2, out, in);
    linear.weight->is_matrix = true;
    if (has_bias) {
        if (names->bias) {
            join(file, prefix, names->bias, "");
        } else {
            join(file, module, ".bias", "");
        }
        linear.bias = add_rows(list, file, names, part, 1, out, in);
    }
    if (names->slices) {
        lora_add_slice(list, &linear, module, part, names->slice * out, names->slices * out, lora);
    } else {
        lora_add(list, &linear, module, lora);
    }
    return linear;
}

static Norm part_norm(TensorList *list, const char *prefix, const PartName *names, const char *part,
                      const BlockConfig *config, int C) {
    CHECK(names->module, "these names have no part '%s'", part);
    Name module;
    join(module, prefix, names->module, "");
    return norm_new(list, module, config->norm, C, config->eps);
}

static Block block_new(TensorList *list, const BlockConfig *config, const char *prefix) {
    const int C = config->C, F = config->F, HD = config->H * config->D,
              HkvD = config->Hkv * config->D;
    Block block = {.config = *config};
#define NORM(part, width)                                                                          \
    block.part = part_norm(list, prefix, &config->names->part, #part, config, width)
#define LINEAR(part, out, in)                                                                      \
    block.part = part_linear(list, prefix, &config->names->part, #part, out, in,                   \
                             config->has_##part##_bias, config->lora)
    NORM(norm1, C);
    LINEAR(q, HD, C);
    LINEAR(k, HkvD, C);
    LINEAR(v, HkvD, C);
    if (config->has_inner_norm) {
        NORM(inner_norm, HD);
    }
    LINEAR(o, C, HD);
    NORM(norm2, C);
    if (config->is_gated) {
        LINEAR(gate, F, C);
    }
    LINEAR(up, F, C);
    if (config->has_mlp_norm) {
        NORM(mlp_norm, F);
    }
    LINEAR(down, C, F);
#undef NORM
#undef LINEAR
    return block;
}

void alibi_slopes(float *slopes, int H) {
    int n = 1;
    while (2 * n <= H) {
        n *= 2;
    }
    for (int h = 0; h < H; h++) {
        const double k = h < n ? h + 1 : 0.5 + (h - n);
        slopes[h] = (float)exp2(-8.0 * k / n);
    }
}

BlockStack stack_new(TensorList *list, const BlockConfig *config, int L, const char *prefix) {
    CHECK(L >= 1 && L <= MAX_LAYERS, "L=%d", L);
    CHECK(config->H % config->Hkv == 0, "H=%d Hkv=%d", config->H, config->Hkv);
    BlockStack stack = {.block = xcalloc((size_t)L, sizeof *stack.block), .L = L};
    for (int l = 0; l < L; l++) {
        Name name;
        snprintf(name, sizeof name, "%s%d.", prefix, l);
        stack.block[l] = block_new(list, config, name);
    }
    if (config->has_alibi) {
        stack.slopes = xmalloc((size_t)config->H, sizeof *stack.slopes);
        alibi_slopes(stack.slopes, config->H);
    }
    return stack;
}

void stack_free(BlockStack *stack) {
    free(stack->block);
    free(stack->slopes);
    *stack = (BlockStack){0};
}

static bool block_is_trainable(const Block *block) {
#define X(part)                                                                                    \
    if (norm_is_trainable(&block->part)) {                                                         \
        return true;                                                                               \
    }
    BLOCK_NORMS(X)
#undef X
#define X(part)                                                                                    \
    if (linear_is_trainable(&block->part)) {                                                       \
        return true;                                                                               \
    }
    BLOCK_LINEARS(X)
#undef X
    return false;
}

bool stack_is_trainable(const BlockStack *stack) {
    for (int l = 0; l < stack->L; l++) {
        if (block_is_trainable(&stack->block[l])) {
            return true;
        }
    }
    return false;
}

// ---- forward ----
// The end of a product that adds the residual.
#define PLUS(x) ((MatmulEpilogue){.kind = EPILOGUE_RESIDUAL, .residual = (x)})

static AttentionShape attention_shape(const BlockConfig *config, const BlockBatch *batch) {
    const int HD = config->H * config->D, HkvD = config->Hkv * config->D;
    return (AttentionShape){
        .B = batch->B,
        .H = config->H,
        .Hkv = config->Hkv,
        .D = config->D,
        .cu_q = batch->cu_seqlens,
        .cu_k = batch->cu_seqlens,
        .Nq = batch->N,
        .Nk = batch->N,
        .max_Tq = batch->max_T,
        .max_Tk = batch->max_T,
        .q_stride = HD,
        .k_stride = HkvD,
        .v_stride = HkvD,
        .out_stride = HD,
        .is_causal = config->is_causal,
        .scale = (float)(1.0 / sqrt((double)config->D)),
        .alibi = batch->alibi,
    };
}

// Keys and values of the pass join the cache, and the queries see all that the cache has.
static void use_cache(Run *run, BlockState *state, AttentionShape *shape, const BlockBatch *batch) {
    const KvPass *kv = &batch->kv;
    state->k = kv_keep(run, kv, kv->cache->k[batch->layer], state->k, batch->N);
    state->v = kv_keep(run, kv, kv->cache->v[batch->layer], state->v, batch->N);
    shape->cu_k = kv->first;
    shape->used_k = kv->used;
    shape->Nk = kv->cache->B * kv->cache->room;
    shape->max_Tk = kv->max_T;
}

// out = x + attn(state->attn_in).
static void attn_fwd(Run *run, const Block *block, BlockState *state, void *out, const void *x,
                     const BlockBatch *batch) {
    const BlockConfig *config = &block->config;
    const int N = batch->N, HD = config->H * config->D, HkvD = config->Hkv * config->D;
    // Queries and keys are turned where their products end.
    const MatmulEpilogue turn = {.kind = config->has_rope ? EPILOGUE_ROPE : EPILOGUE_NONE,
                                 .cosine = batch->cosine,
                                 .sine = batch->sine,
                                 .head_width = config->D,
                                 .pairing = config->pairing};
    state->q = run_take(run, (size_t)N, (size_t)HD);
    state->k = run_take(run, (size_t)N, (size_t)HkvD);
    state->v = run_take(run, (size_t)N, (size_t)HkvD);
    void *lora[3];
    linears_fwd(run, (const Linear *[]){&block->q, &block->k, &block->v}, 3,
                (void *[]){state->q, state->k, state->v}, lora, state->attn_in, N,
                (MatmulEpilogue[]){turn, turn, {0}});
    state->q_lora = lora[0];
    state->k_lora = lora[1];
    state->v_lora = lora[2];
    AttentionShape shape = attention_shape(config, batch);
    if (batch->kv.cache) {
        use_cache(run, state, &shape, batch);
    }
    state->attn = run_take(run, (size_t)N, (size_t)HD);
    state->lse = run_take_f32(run, (size_t)config->H * N);
    RUN(run, attention_fwd, state->attn, state->lse, state->q, state->k, state->v, &shape);
    state->inner = state->attn;
    if (config->has_inner_norm) {
        state->inner = run_take(run, (size_t)N, (size_t)HD);
        norm_fwd(run, &block->inner_norm, &state->inner_norm, state->inner, state->attn, N);
    }
    linear_fwd(run, &block->o, out, &state->o_lora, state->inner, N, &PLUS(x));
}

// out = x + mlp(state->mlp_in).
static void mlp_fwd(Run *run, const Block *block, BlockState *state, void *out, const void *x,
                    int N) {
    const BlockConfig *config = &block->config;
    const size_t F = (size_t)config->F;
    // The product of `up` ends in the activation; what it had before is kept for a backward alone.
    // Without one the activation overwrites the gate, which nobody reads again.
    const bool is_training = run->is_training;
    state->up = is_training ? run_take(run, (size_t)N, F) : NULL;
    state->gate = config->is_gated ? run_take(run, (size_t)N, F) : NULL;
    state->act = is_training || !config->is_gated ? run_take(run, (size_t)N, F) : state->gate;
    const MatmulEpilogue end = {.kind = config->is_gated ? EPILOGUE_GATED : EPILOGUE_ACT,
                                .act = config->act,
                                .gate = state->gate,
                                .pre = state->up};
    if (config->is_gated) {
        void *lora[2];
        linears_fwd(run, (const Linear *[]){&block->gate, &block->up}, 2,
                    (void *[]){state->gate, state->act}, lora, state->mlp_in, N,
                    (MatmulEpilogue[]){{0}, end});
        state->gate_lora = lora[0];
        state->up_lora = lora[1];
    } else {
        linear_fwd(run, &block->up, state->act, &state->up_lora, state->mlp_in, N, &end);
    }
    state->down_in = state->act;
    if (config->has_mlp_norm) {
        state->down_in = run_take(run, (size_t)N, F);
        norm_fwd(run, &block->mlp_norm, &state->mlp_norm, state->down_in, state->act, N);
    }
    linear_fwd(run, &block->down, out, &state->down_lora, state->down_in, N, &PLUS(x));
}

// out may alias x where the run does not train.
static void block_fwd(Run *run, const Block *block, BlockState *state, void *out, const void *x,
                      const BlockBatch *batch) {
    const BlockConfig *config = &block->config;
    const int N = batch->N;
    const size_t C = (size_t)config->C;
    state->mid = run_take(run, (size_t)N, C);
    if (config->is_post_norm) {
        state->attn_in = x;
        state->sum1 = run_take(run, (size_t)N, C);
        attn_fwd(run, block, state, state->sum1, x, batch);
        norm_fwd(run, &block->norm1, &state->norm1, state->mid, state->sum1, N);
        state->mlp_in = state->mid;
        state->sum2 = run_take(run, (size_t)N, C);
        mlp_fwd(run, block, state, state->sum2, state->mid, N);
        norm_fwd(run, &block->norm2, &state->norm2, out, state->sum2, N);
    } else {
        void *normed1 = run_take(run, (size_t)N, C), *normed2 = run_take(run, (size_t)N, C);
        norm_fwd(run, &block->norm1, &state->norm1, normed1, x, N);
        state->attn_in = normed1;
        attn_fwd(run, block, state, state->mid, x, batch);
        norm_fwd(run, &block->norm2, &state->norm2, normed2, state->mid, N);
        state->mlp_in = normed2;
        mlp_fwd(run, block, state, out, state->mid, N);
    }
}

void *stack_fwd(Run *run, const BlockStack *stack, StackState *state, void *x,
                const BlockBatch *batch) {
    const BlockConfig *config = &stack->block[0].config;
    state->batch = *batch;
    if (stack->slopes) {
        float *slopes = run_take_f32(run, (size_t)config->H);
        if (!run->is_planning) {
            device_copy_in(run->dev, slopes, stack->slopes, (size_t)config->H * sizeof *slopes);
        }
        state->batch.alibi = slopes;
    }
    state->x[0] = x;
    for (int l = 0; l < stack->L; l++) {
        void *out = run->is_training ? run_take(run, (size_t)batch->N, (size_t)config->C)
                                     : state->x[l];
        const size_t mark = arena_mark(run->arena);
        state->batch.layer = l;
        block_fwd(run, &stack->block[l], &state->block[l], out, state->x[l], &state->batch);
        if (!run->is_training || run->recomputes) {
            arena_release(run->arena, mark);
        }
        state->x[l + 1] = out;
    }
    return state->x[stack->L];
}

// ---- backward ----
// dx (or NULL) = gradient of state->attn_in, from d, that of attn's output.
static void attn_bwd(Run *run, const Block *block, const BlockState *state, void *dx, const void *d,
                     const BlockBatch *batch) {
    const BlockConfig *config = &block->config;
    const int N = batch->N, HD = config->H * config->D, HkvD = config->Hkv * config->D;
    void *dinner = run_take(run, (size_t)N, (size_t)HD);
    linear_bwd(run, &block->o, dinner, d, state->o_lora, state->inner, N, NULL);
    if (config->has_inner_norm) {
        norm_bwd(run, &block->inner_norm, &state->inner_norm, dinner, NULL, dinner, state->attn, N);
    }
    void *dq = run_take(run, (size_t)N, (size_t)HD), *dk = run_take(run, (size_t)N, (size_t)HkvD),
         *dv = run_take(run, (size_t)N, (size_t)HkvD);
    float *delta = run_take_f32(run, (size_t)config->H * N);
    const AttentionShape shape = attention_shape(config, batch);
    RUN(run, attention_bwd, dq, dk, dv, delta, dinner, state->attn, state->lse, state->q, state->k,
        state->v, &shape);
    if (config->has_rope) {
        RUN(run, rope_bwd, dq, batch->cosine, batch->sine, N, config->H, config->D, HD,
            config->pairing);
        RUN(run, rope_bwd, dk, batch->cosine, batch->sine, N, config->Hkv, config->D, HkvD,
            config->pairing);
    }
    linears_bwd(run, (const Linear *[]){&block->q, &block->k, &block->v}, 3, dx,
                (const void *[]){dq, dk, dv},
                (void *[]){state->q_lora, state->k_lora, state->v_lora}, state->attn_in, N, NULL);
}

// dup, and dgate where there is a gate: gradients of what `up` and `gate` put out. They are where
// the product of `down` ends, unless a norm stands between.
static void act_bwd(Run *run, const Block *block, const BlockState *state, void *dup, void *dgate,
                    const void *d, int N) {
    const BlockConfig *config = &block->config;
    const size_t NF = (size_t)N * config->F;
    const MatmulEpilogue end = {.kind = config->is_gated ? EPILOGUE_GATED_BWD : EPILOGUE_ACT_BWD,
                                .act = config->act,
                                .gate = state->gate,
                                .pre = state->up,
                                .dgate = dgate};
    linear_bwd(run, &block->down, dup, d, state->down_lora, state->down_in, N,
               config->has_mlp_norm ? NULL : &end);
    if (config->has_mlp_norm) {
        norm_bwd(run, &block->mlp_norm, &state->mlp_norm, dup, NULL, dup, state->act, N);
        if (config->is_gated) {
            RUN(run, gated_bwd, dgate, dup, dup, state->gate, state->up, NF, config->act);
        } else {
            RUN(run, activation_bwd, dup, dup, state->up, NF, config->act);
        }
    }
}

// dx = gradient of state->mlp_in, from d, that of mlp's output; end as for linears_bwd.
static void mlp_bwd(Run *run, const Block *block, const BlockState *state, void *dx, const void *d,
                    int N, const MatmulEpilogue *end) {
    const size_t F = (size_t)block->config.F;
    void *dup = run_take(run, (size_t)N, F);
    if (block->config.is_gated) {
        void *dgate = run_take(run, (size_t)N, F);
        act_bwd(run, block, state, dup, dgate, d, N);
        linears_bwd(run, (const Linear *[]){&block->gate, &block->up}, 2, dx,
                    (const void *[]){dgate, dup}, (void *[]){state->gate_lora, state->up_lora},
                    state->mlp_in, N, end);
    } else {
        act_bwd(run, block, state, dup, NULL, d, N);
        linear_bwd(run, &block->up, dx, dup, state->up_lora, state->mlp_in, N, end);
    }
}

// d (N,C): gradient of the output, then of x (spoiled if nobody wants it).
static void block_bwd(Run *run, const Block *block, const BlockState *state, void *d, const void *x,
                      const BlockBatch *batch, bool wants_dx) {
    const int N = batch->N;
    const size_t C = (size_t)block->config.C, NC = (size_t)N * C;
    void *branch = run_take(run, (size_t)N, C);
    const size_t mark = arena_mark(run->arena);
    if (block->config.is_post_norm) {
        norm_bwd(run, &block->norm2, &state->norm2, d, NULL, d, state->sum2, N);
        mlp_bwd(run, block, state, branch, d, N, &PLUS(d));
        arena_release(run->arena, mark);
        norm_bwd(run, &block->norm1, &state->norm1, d, NULL, branch, state->sum1, N);
        attn_bwd(run, block, state, wants_dx ? branch : NULL, d, batch);
        if (wants_dx) {
            RUN(run, residual_fwd, d, d, branch, NC);
        }
    } else {
        mlp_bwd(run, block, state, branch, d, N, NULL);
        arena_release(run->arena, mark);
        norm_bwd(run, &block->norm2, &state->norm2, d, d, branch, state->mid, N);
        const bool wants_branch = wants_dx || norm_is_trainable(&block->norm1);
        attn_bwd(run, block, state, wants_branch ? branch : NULL, d, batch);
        if (wants_dx) {
            norm_bwd(run, &block->norm1, &state->norm1, d, d, branch, x, N);
        } else if (wants_branch) { // for the norm's parameters alone
            norm_bwd(run, &block->norm1, &state->norm1, branch, NULL, branch, x, N);
        }
    }
}

void stack_bwd(Run *run, const BlockStack *stack, const StackState *state, void *d, bool wants_dx) {
    CHECK(run->is_training, "the forward of %d blocks kept nothing for a backward", stack->L);
    const BlockBatch *batch = &state->batch;
    int lowest = 0; // below it nobody wants a gradient
    while (!wants_dx && lowest < stack->L && !block_is_trainable(&stack->block[lowest])) {
        lowest++;
    }
    for (int l = stack->L - 1; l >= lowest; l--) {
        const Block *block = &stack->block[l];
        const size_t mark = arena_mark(run->arena);
        BlockState again = state->block[l];
        if (run->recomputes) {
            void *out = run_take(run, (size_t)batch->N, (size_t)block->config.C);
            block_fwd(run, block, &again, out, state->x[l], batch);
        }
        block_bwd(run, block, &again, d, state->x[l], batch, wants_dx || l > lowest);
        arena_release(run->arena, mark);
    }
}
