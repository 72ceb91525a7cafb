// vision_tower: see vision_tower.h for the equations.
#include "vision_tower.h"

#include <stdio.h>

int vision_tokens(const VisionConfig *config, const ReaderImage *image) {
    const int m = config->merge;
    CHECK(image->rows >= 1 && image->columns >= 1 && image->rows % m == 0 &&
              image->columns % m == 0,
          "rows=%d columns=%d merge=%d", image->rows, image->columns, m);
    return image->rows / m * (image->columns / m);
}

// ---- building ----
VisionTower vision_tower_new(TensorList *list, const VisionConfig *config) {
    const BlockConfig *block = &config->block;
    const int C = block->C, P = config->P, cell = config->merge * config->merge;
    VisionTower tower = {.config = *config};
    if (config->L == 0) {
        return tower;
    }
    tower.patch = (Linear){.in = 3 * config->frames * P * P, .out = C};
    const Init init = init_fan_in(tower.patch.in);
    if (config->family == READER_QWEN2VL) {
        tower.patch.weight = tensors_add(list, "visual.patch_embed.proj.weight", init, 5,
                                         (int[]){C, 3, config->frames, P, P});
        tower.blocks = stack_new(list, block, config->L, "visual.blocks.");
        tower.ln_q = norm_new(list, "visual.merger.ln_q", block->norm, C, block->eps);
        tower.merge1 = linear_new(list, "visual.merger.mlp.0", C * cell, C * cell, true);
        tower.merge2 = linear_new(list, "visual.merger.mlp.2", config->C_out, C * cell, true);
    } else {
        CHECK(cell == 1 && config->frames == 1, "merge=%d frames=%d", config->merge,
              config->frames);
        tower.patch.weight =
            tensors_add(list, "vision_tower.patch_conv.weight", init, 4, (int[]){C, 3, P, P});
        tower.ln_pre = norm_new(list, "vision_tower.ln_pre", block->norm, C, block->eps);
        tower.blocks = stack_new(list, block, config->L, "vision_tower.transformer.layers.");
        const int width = config->C_out;
        tower.merge1 = linear_new(list, "multi_modal_projector.linear_1", width, C, true);
        tower.merge2 = linear_new(list, "multi_modal_projector.linear_2", width, width, true);
    }
    tower.patch.weight->is_matrix = true;
    return tower;
}

void vision_tower_free(VisionTower *tower) {
    stack_free(&tower->blocks);
    host_ids_free(&tower->scratch);
}

static bool is_below_trainable(const VisionTower *tower) {
    return linear_is_trainable(&tower->patch) || norm_is_trainable(&tower->ln_pre);
}

bool vision_tower_is_trainable(const VisionTower *tower) {
    return is_below_trainable(tower) || stack_is_trainable(&tower->blocks) ||
           norm_is_trainable(&tower->ln_q) || linear_is_trainable(&tower->merge1) ||
           linear_is_trainable(&tower->merge2);
}

// ---- forward ----
static bool is_computed(const ReaderImage *image) { return !image->features; }

static bool has_same_size(const ReaderImage *a, const ReaderImage *b) {
    return a->rows == b->rows && a->columns == b->columns;
}

// Unfolds the pixels of the computed images into patches (N, 3*frames*P*P), equal sizes in one
// call.
static void unfold(Run *run, const VisionConfig *config, void *patches, const ReaderImage *image,
                   int count) {
    const int P = config->P, width = 3 * config->frames * P * P;
    size_t done = 0;
    for (int i = 0, next; i < count; i = next) {
        const size_t mark = arena_mark(run->arena);
        const size_t n = (size_t)image[i].rows * image[i].columns, pixels = n * 3 * P * P;
        int B = 0;
        for (next = i; next < count && has_same_size(&image[next], &image[i]); next++) {
            B += is_computed(&image[next]);
        }
        if (B == 0) {
            continue;
        }
        float *staged = run_take_f32(run, (size_t)B * pixels);
        for (int k = i, b = 0; k < next && !run->is_planning; k++) {
            if (is_computed(&image[k])) {
                device_copy_in(run->dev, staged + (size_t)b++ * pixels, image[k].pixels,
                               pixels * sizeof *staged);
            }
        }
        RUN(run, patch_unfold, run_at(run, patches, done * (size_t)width), staged, B, 3,
            image[i].rows, image[i].columns, P, config->frames, config->merge);
        done += (size_t)B * n;
        arena_release(run->arena, mark);
    }
}

// Row and column of each patch, in the order of patch_unfold: cells of merge x merge patches.
static void put_positions(int32_t *row, int32_t *column, const ReaderImage *image, int merge) {
    int n = 0;
    for (int r = 0; r < image->rows; r += merge) {
        for (int c = 0; c < image->columns; c += merge) {
            for (int inside = 0; inside < merge * merge; inside++) {
                row[n] = r + inside / merge;
                column[n++] = c + inside % merge;
            }
        }
    }
}

// Sequences and rotary tables of the computed images.
static BlockBatch take_batch(Run *run, VisionTower *tower, const ReaderImage *image, int count) {
    const VisionConfig *config = &tower->config;
    const int D = config->block.D;
    BlockBatch batch = {0};
    for (int i = 0; i < count; i++) {
        if (is_computed(&image[i])) {
            const int n = image[i].rows * image[i].columns;
            batch.N += n;
            batch.max_T = n > batch.max_T ? n : batch.max_T;
            batch.B++;
        }
    }
    if (batch.B == 0) {
        return batch;
    }
    const size_t N = (size_t)batch.N;
    int32_t *host = host_ids(&tower->scratch, 2 * N + (size_t)batch.B + 1), *cu = host + 2 * N;
    cu[0] = 0;
    for (int i = 0, b = 0; i < count; i++) {
        if (is_computed(&image[i])) {
            put_positions(host + cu[b], host + N + cu[b], &image[i], config->merge);
            cu[b + 1] = cu[b] + image[i].rows * image[i].columns;
            b++;
        }
    }
    batch.cu_seqlens = run_take_ids(run, cu, (size_t)batch.B + 1);
    float *cosine = run_take_f32(run, N * (D / 2)), *sine = run_take_f32(run, N * (D / 2));
    const size_t mark = arena_mark(run->arena);
    int32_t *positions = run_take_ids(run, host, 2 * N);
    if (!run->is_planning) {
        run->op->rope_table(run->dev, cosine, sine, positions, batch.N, D,
                            config->family == READER_QWEN2VL ? ROPE_2D_HALVES : ROPE_2D_ALTERNATE,
                            config->theta, NULL);
    }
    arena_release(run->arena, mark);
    batch.cosine = cosine;
    batch.sine = sine;
    return batch;
}

void vision_tower_fwd(Run *run, VisionTower *tower, VisionState *state, void *out,
                      const ReaderImage *image, int count) {
    const VisionConfig *config = &tower->config;
    const int C = config->block.C, cell = config->merge * config->merge;
    const size_t start = arena_mark(run->arena);
    const BlockBatch batch = take_batch(run, tower, image, count);
    const int N = state->N = batch.N;
    if (N == 0) { // perhaps because there is no tower, whose cells have no side
        return;
    }
    const int merged = N / cell;
    void *unused; // patch embedding and merger have no adapters
    state->patches = run_take(run, (size_t)N, (size_t)tower->patch.in);
    unfold(run, config, state->patches, image, count);
    void *x = run_take(run, (size_t)N, (size_t)C);
    linear_fwd(run, &tower->patch, x, &unused, state->patches, N, NULL);
    if (tower->ln_pre.weight) {
        state->embedded = x;
        x = run->is_training ? run_take(run, (size_t)N, (size_t)C) : x;
        norm_fwd(run, &tower->ln_pre, &state->ln_pre, x, state->embedded, N);
    }
    x = stack_fwd(run, &tower->blocks, &state->blocks, x, &batch);

    // The rows of a cell are neighbours, so (N,C) is (merged, cell*C) as it lies.
    state->merged = x;
    if (tower->ln_q.weight) {
        state->merged = run->is_training ? run_take(run, (size_t)N, (size_t)C) : x;
        norm_fwd(run, &tower->ln_q, &state->ln_q, state->merged, x, N);
    }
    const size_t width = (size_t)tower->merge1.out;
    state->hidden = run->is_training ? run_take(run, (size_t)merged, width) : NULL;
    state->activated = run_take(run, (size_t)merged, width);
    const MatmulEpilogue gelu = {.kind = EPILOGUE_ACT, .act = ACT_GELU, .pre = state->hidden};
    linear_fwd(run, &tower->merge1, state->activated, &unused, state->merged, merged, &gelu);
    linear_fwd(run, &tower->merge2, out, &unused, state->activated, merged, NULL);
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

// ---- backward ----
void vision_tower_bwd(Run *run, VisionTower *tower, VisionState *state, const void *dout) {
    const VisionConfig *config = &tower->config;
    const int C = config->block.C, N = state->N;
    CHECK(run->is_training, "the forward of %d patches kept nothing for a backward", N);
    if (N == 0) {
        return;
    }
    const int merged = N / (config->merge * config->merge);
    const size_t start = arena_mark(run->arena), width = (size_t)tower->merge1.out;
    void *dhidden = run_take(run, (size_t)merged, width), *d = run_take(run, (size_t)N, (size_t)C);
    const MatmulEpilogue gelu = {.kind = EPILOGUE_ACT_BWD, .act = ACT_GELU, .pre = state->hidden};
    linear_bwd(run, &tower->merge2, dhidden, dout, NULL, state->activated, merged, &gelu);
    linear_bwd(run, &tower->merge1, d, dhidden, NULL, state->merged, merged, NULL);
    if (tower->ln_q.weight) {
        norm_bwd(run, &tower->ln_q, &state->ln_q, d, NULL, d, state->blocks.x[tower->blocks.L], N);
    }
    const bool wants_dx = is_below_trainable(tower);
    if (wants_dx || stack_is_trainable(&tower->blocks)) {
        stack_bwd(run, &tower->blocks, &state->blocks, d, wants_dx);
    }
    if (wants_dx) {
        if (tower->ln_pre.weight) {
            norm_bwd(run, &tower->ln_pre, &state->ln_pre, d, NULL, d, state->embedded, N);
        }
        linear_bwd(run, &tower->patch, NULL, d, NULL, state->patches, N, NULL);
    }
    arena_release(run->arena, start);
}
