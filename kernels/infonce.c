// infonce: symmetric contrastive loss and its gradient; see infonce.h.
//
//   dS = (softmax over rows + softmax over columns - 2 I) / (2B)
//   da = exp(log_scale) dS b      db = exp(log_scale) dS^T a      dlog_scale += sum dS * S
//
// The three products are matmul's, in f32 whatever the embeddings are: bf16 and f16 rows are
// widened first, and gradients rounded last.
#include "infonce.h"

#include "base.h"
#include "cast.h"
#include "logsumexp.h"
#include "matmul.h"
#include "scratch.h"

#define COLUMNS 64 // whose log-sum-exps are taken side by side

// n elements as f32: where they are, or widened into buffer.
static const float *widened(float *buffer, DType t, const void *x, size_t n) {
    if (t == DT_F32) {
        return x;
    }
    dtype_widen(buffer, t, x, n);
    return buffer;
}

// x *= factor.
static void multiply(Device *dev, float *x, float factor, size_t n) {
#pragma omp parallel for simd schedule(static) num_threads(threads_for(dev, n))
    for (size_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

// ---- forward ----
// Log-sum-exps of columns [j0, j0 + cols): the lanes of all of them side by side.
static void column_lse(float *lse, const float *scores, int B, int j0, int cols) {
    float max[COLUMNS], lane[LANES][COLUMNS] = {{0}};
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
        lse[j0 + j] = (float)((double)max[j] + log_wide(lanes_halve(column)));
    }
}

void infonce_fwd_cpu(Device *dev, DType t, float *loss, float *scores, float *lse, const void *a,
                     const void *b, const float *log_scale, int B, int E) {
    CHECK_POINTERS(infonce_fwd, loss, scores, lse, a, b, log_scale);
    CHECK(B >= 1 && E >= 1, "B=%d E=%d", B, E);
    const size_t n = (size_t)B * E;
    float *wide = scratch_floats(2 * n);
    const float *fa = widened(wide, t, a, n), *fb = widened(wide + n, t, b, n);
    matmul_fwd_cpu(dev, DT_F32, scores, fa, fb, NULL, NULL, B, B, E, false, NULL);
    multiply(dev, scores, exp_f32(*log_scale), (size_t)B * B);
#pragma omp parallel num_threads(device_threads(dev)) if (B > 64)
    {
#pragma omp for nowait
        for (int i = 0; i < B; i++) {
            const float *const row = scores + (size_t)i * (size_t)B;
            lse[i] = row_logsumexp(DT_F32, row, B, row_max(DT_F32, row, B));
        }
#pragma omp for
        for (int j = 0; j < B; j += COLUMNS) {
            column_lse(lse + B, scores, B, j, B - j < COLUMNS ? B - j : COLUMNS);
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
    CHECK_POINTERS(infonce_bwd, da, db, scores, lse, a, b, log_scale);
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
    const size_t n = (size_t)B * E;
    float *wide = scratch_floats(4 * n);
    const float *fa = widened(wide, t, a, n), *fb = widened(wide + n, t, b, n);
    float *fda = t == DT_F32 ? da : wide + 2 * n, *fdb = t == DT_F32 ? db : wide + 3 * n;
    matmul_bwd_input_cpu(dev, DT_F32, fda, scores, fb, NULL, B, B, E, false, NULL);
    device_zero(dev, fdb, n * sizeof *fdb); // this product adds
    matmul_bwd_weight_cpu(dev, DT_F32, fdb, NULL, scores, fa, B, B, E);
    const float scale = exp_f32(*log_scale);
    multiply(dev, fda, scale, n), multiply(dev, fdb, scale, n);
    if (t != DT_F32) {
        cast_cpu(dev, t, da, DT_F32, fda, n);
        cast_cpu(dev, t, db, DT_F32, fdb, n);
    }
}
