// infonce: symmetric contrastive loss and its gradient; see infonce.h.
//
//   dS = (softmax over rows + softmax over columns - 2 I) / (2B)
//   da = exp(log_scale) dS b      db = exp(log_scale) dS^T a      dlog_scale += sum dS * S
//
// All three products are one routine, which differs only in strides. It computes 64 x 64 tiles of the
// result: both operands are packed to f32 in depth-major order, 256 deep at a time, and 4 x 16
// accumulators stay in registers. Every element is still one chain over the depth, so tiles and
// threads do not show in the result. (matmul wants one storage type for all three matrices; here the
// scores are f32 whatever the embeddings are.)
#include "infonce.h"

#include <string.h>

#include "base.h"
#include "logsumexp.h"

// ---- products ----
#define TILE 64   // rows and columns of a tile
#define DEPTH 256 // depth packed at once
#define ROWS 4    // micro-tile: 4 x 16 accumulators are 8 AVX registers
#define COLS 16

// Element (i, k) of an operand is at data[i * step + k * depth_step]; one of the two steps is 1.
typedef struct {
    DType t;
    const void *data;
    size_t step, depth_step;
} Operand;

// packed[k][i] = operand(first + i, k0 + k), zero beyond the count of rows.
static void pack(float packed[DEPTH][TILE], const Operand *x, int first, int count, int k0,
                 int depth) {
    if (count < TILE) {
        memset(packed, 0, sizeof(float) * (size_t)depth * TILE);
    }
    const void *const start = dtype_at_const(
        x->t, x->data, (size_t)first * x->step + (size_t)k0 * x->depth_step);
    if (x->step == 1) {
        for (int k = 0; k < depth; k++) {
            dtype_widen(packed[k], x->t, dtype_at_const(x->t, start, (size_t)k * x->depth_step),
                        (size_t)count);
        }
        return;
    }
    for (int i = 0; i < count; i++) {
        float row[DEPTH];
        dtype_widen(row, x->t, dtype_at_const(x->t, start, (size_t)i * x->step), (size_t)depth);
        for (int k = 0; k < depth; k++) {
            packed[k][i] = row[k];
        }
    }
}

// sums[i][j] += sum_k a[k][i] b[k][j] for one micro-tile, k ascending.
static void micro_tile(float sums[ROWS][TILE], const float a[][TILE], const float b[][TILE],
                       int depth) {
    float acc[ROWS][COLS];
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLS; j++) {
            acc[i][j] = sums[i][j];
        }
    }
    for (int k = 0; k < depth; k++) {
        for (int i = 0; i < ROWS; i++) {
#pragma omp simd // without it gcc unrolls first and leaves the accumulators in memory
            for (int j = 0; j < COLS; j++) {
                acc[i][j] = fmaf(a[k][i], b[k][j], acc[i][j]);
            }
        }
    }
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLS; j++) {
            sums[i][j] = acc[i][j];
        }
    }
}

// out[m,n] = scale * sum_k a(m,k) b(n,k). out: (M,N) t.
static void product(Device *dev, DType t, void *out, Operand a, Operand b, int M, int N, int K,
                    float scale) {
    const int across = (N + TILE - 1) / TILE, tiles = (M + TILE - 1) / TILE * across;
#pragma omp parallel for num_threads(device_threads(dev)) if (tiles > 1)
    for (int tile = 0; tile < tiles; tile++) {
        const int m0 = tile / across * TILE, n0 = tile % across * TILE;
        const int rows = M - m0 < TILE ? M - m0 : TILE, cols = N - n0 < TILE ? N - n0 : TILE;
        float packed_a[DEPTH][TILE], packed_b[DEPTH][TILE], sums[TILE][TILE] = {{0}};
        for (int k0 = 0; k0 < K; k0 += DEPTH) {
            const int depth = K - k0 < DEPTH ? K - k0 : DEPTH;
            pack(packed_a, &a, m0, rows, k0, depth);
            pack(packed_b, &b, n0, cols, k0, depth);
            for (int i = 0; i < rows; i += ROWS) {
                for (int j = 0; j < cols; j += COLS) {
                    micro_tile((float(*)[TILE])&sums[i][j], (const float(*)[TILE])&packed_a[0][i],
                               (const float(*)[TILE])&packed_b[0][j], depth);
                }
            }
        }
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < cols; j++) {
                sums[i][j] *= scale;
            }
            const size_t at = (size_t)(m0 + i) * (size_t)N + (size_t)n0;
            dtype_narrow(t, dtype_at(t, out, at), sums[i], (size_t)cols);
        }
    }
}

// ---- forward ----
// Log-sum-exps of columns [j0, j0 + cols): the lanes of TILE columns side by side.
static void column_lse(float *lse, const float *scores, int B, int j0, int cols) {
    float max[TILE], lane[LANES][TILE] = {{0}};
    for (int j = 0; j < cols; j++) {
        max[j] = -INFINITY;
    }
    for (int i = 0; i < B; i++) {
        const float *const row = scores + (size_t)i * (size_t)B + j0;
        for (int j = 0; j < cols; j++) {
            max[j] = row[j] > max[j] ? row[j] : max[j];
        }
    }
    for (int i = 0; i < B; i++) {
        const float *const row = scores + (size_t)i * (size_t)B + j0;
        for (int j = 0; j < cols; j++) {
            lane[i % LANES][j] += exp_f32(row[j] - max[j]);
        }
    }
    for (int j = 0; j < cols; j++) {
        float column[LANES];
        for (int l = 0; l < LANES; l++) {
            column[l] = lane[l][j];
        }
        lse[j0 + j] = (float)((double)max[j] + log((double)lanes_halve(column)));
    }
}

void infonce_fwd_cpu(Device *dev, DType t, float *loss, float *scores, float *lse, const void *a,
                     const void *b, const float *log_scale, int B, int E) {
    CHECK(B >= 1 && E >= 1, "B=%d E=%d", B, E);
    const Operand oa = {t, a, (size_t)E, 1}, ob = {t, b, (size_t)E, 1};
    product(dev, DT_F32, scores, oa, ob, B, B, E, exp_f32(*log_scale));
#pragma omp parallel num_threads(device_threads(dev)) if (B > 64)
    {
#pragma omp for nowait
        for (int i = 0; i < B; i++) {
            const float *const row = scores + (size_t)i * (size_t)B;
            lse[i] = row_logsumexp(DT_F32, row, B, row_max(DT_F32, row, B));
        }
#pragma omp for
        for (int j = 0; j < B; j += TILE) {
            column_lse(lse + B, scores, B, j, B - j < TILE ? B - j : TILE);
        }
    }
    float lane[2][LANES] = {{0}};
    for (int i = 0; i < B; i++) {
        const float match = scores[(size_t)i * (size_t)B + (size_t)i];
        lane[0][i % LANES] += lse[i] - match;
        lane[1][i % LANES] += lse[B + i] - match;
    }
    loss[0] = lanes_halve(lane[0]) / (float)B;
    loss[1] = lanes_halve(lane[1]) / (float)B;
}

// ---- backward ----
// Replaces row i of S by dS and returns sum_j dS[i,j] S[i,j] in lane order.
static float score_gradient(float *row, const float *lse, int i, int B) {
    const float row_lse = lse[i], half = 0.5f / (float)B;
    const float *const col_lse = lse + B;
    float lane[LANES] = {0};
    for (int j0 = 0; j0 < B; j0 += CHUNK) {
        const int size = chunk_length((size_t)B, (size_t)j0);
        float *const s = row + j0, d[CHUNK];
        for (int j = 0; j < size; j++) {
            d[j] = exp_f32(s[j] - row_lse) + exp_f32(s[j] - col_lse[j0 + j]);
        }
        if (i >= j0 && i < j0 + size) {
            d[i - j0] -= 2.0f;
        }
        for (int j = 0; j < size; j++) {
            d[j] *= half;
            lane[j % LANES] = fmaf(d[j], s[j], lane[j % LANES]);
            s[j] = d[j];
        }
    }
    return lanes_halve(lane);
}

void infonce_bwd_cpu(Device *dev, DType t, void *da, void *db, float *dlog_scale, float *scores,
                     const float *lse, const void *a, const void *b, const float *log_scale, int B,
                     int E) {
    CHECK(B >= 1 && E >= 1, "B=%d E=%d", B, E);
    float lane[LANES] = {0};
    for (int i0 = 0; i0 < B; i0 += CHUNK) {
        const int rows = chunk_length((size_t)B, (size_t)i0);
        float sums[CHUNK];
#pragma omp parallel for num_threads(device_threads(dev)) if (B > 64)
        for (int i = 0; i < rows; i++) {
            sums[i] = score_gradient(scores + (size_t)(i0 + i) * (size_t)B, lse, i0 + i, B);
        }
        for (int i = 0; i < rows; i++) {
            lane[i % LANES] += sums[i];
        }
    }
    if (dlog_scale) {
        *dlog_scale += lanes_halve(lane);
    }
    const float scale = exp_f32(*log_scale);
    const Operand rows = {DT_F32, scores, (size_t)B, 1}, cols = {DT_F32, scores, 1, (size_t)B};
    const Operand oa = {t, a, 1, (size_t)E}, ob = {t, b, 1, (size_t)E};
    product(dev, t, da, rows, ob, B, E, B, scale);
    product(dev, t, db, cols, oa, B, E, B, scale);
}
