// layernorm: the CPU definition; see layernorm.h.
//
// A row is read three times (mean, variance, output) in chunks that stay in the first-level cache.
// The backward runs over columns for the parameter gradients, whose chains go down n, and then over
// rows for dinp: in this order, because dinp may lie on dout. One thread does both to a few rows at
// a time, while they are in the second-level cache; several would wait for each other there.
#include "layernorm.h"

#include "base.h"
#include "chunk.h"
#include "lanes.h"

#define BLOCK 16384 // elements of dout, and of inp, that one thread takes at a time

// ---- forward ----
static float row_mean(DType t, const void *inp, size_t row, int C) {
    float lane[LANES] = {0};
    for (int c = 0; c < C; c += CHUNK) {
        float buffer[CHUNK];
        const int length = chunk_length((size_t)C, (size_t)c);
        lanes_sum(lane, chunk_in(buffer, t, inp, row + (size_t)c, length), length);
    }
    return lanes_halve(lane) / (float)C;
}

static float row_variance(DType t, const void *inp, size_t row, int C, float mean) {
    float lane[LANES] = {0};
    for (int c = 0; c < C; c += CHUNK) {
        float buffer[CHUNK], centred[CHUNK];
        const int length = chunk_length((size_t)C, (size_t)c);
        const float *x = chunk_in(buffer, t, inp, row + (size_t)c, length);
        for (int i = 0; i < length; i++) {
            centred[i] = x[i] - mean;
        }
        lanes_dot(lane, centred, centred, length);
    }
    return lanes_halve(lane) / (float)C;
}

void layernorm_fwd_cpu(Device *dev, DType t, void *out, float *mean, float *rstd, const void *inp,
                       const void *weight, const void *bias, int N, int C, float eps) {
    CHECK_POINTERS(layernorm_fwd, out, mean, rstd, inp, weight, bias);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int n = 0; n < N; n++) {
        const size_t row = (size_t)n * C;
        const float m = row_mean(t, inp, row, C);
        const float r = 1.0f / sqrtf(row_variance(t, inp, row, C, m) + eps);
        for (int c = 0; c < C; c += CHUNK) {
            float x_buffer[CHUNK], w_buffer[CHUNK], b_buffer[CHUNK], y_buffer[CHUNK];
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *x = chunk_in(x_buffer, t, inp, row + (size_t)c, length);
            const float *w = chunk_in(w_buffer, t, weight, (size_t)c, length);
            const float *b = chunk_in(b_buffer, t, bias, (size_t)c, length);
            float *y = chunk_out(y_buffer, t, out, row + (size_t)c);
#pragma omp simd
            for (int i = 0; i < length; i++) {
                y[i] = fmaf((x[i] - m) * r, w[i], b[i]);
            }
            chunk_store(t, out, row + (size_t)c, y, length);
        }
        mean[n] = m;
        rstd[n] = r;
    }
}

// ---- backward ----
// Columns c .. c + length - 1 of dweight and dbias (either may be NULL), rows first .. last - 1
// ascending.
static void param_gradients(DType t, float *dweight, float *dbias, const void *dout,
                            const void *inp, const float *mean, const float *rstd, int first,
                            int last, int C, int c, int length) {
    for (int n = first; n < last; n++) {
        float dy_buffer[CHUNK], x_buffer[CHUNK];
        const size_t at = (size_t)n * C + (size_t)c;
        const float *dy = chunk_in(dy_buffer, t, dout, at, length);
        if (dweight) {
            const float *x = chunk_in(x_buffer, t, inp, at, length);
            const float m = mean[n], r = rstd[n];
#pragma omp simd
            for (int i = 0; i < length; i++) {
                dweight[c + i] = fmaf(dy[i], (x[i] - m) * r, dweight[c + i]);
            }
        }
        if (dbias) {
#pragma omp simd
            for (int i = 0; i < length; i++) {
                dbias[c + i] += dy[i];
            }
        }
    }
}

static void input_gradient(DType t, void *dinp, const void *residual, const void *dout,
                           const void *inp, const void *weight, float mean, float rstd, size_t row,
                           int C) {
    float dy_buffer[CHUNK], x_buffer[CHUNK], w_buffer[CHUNK], dx_buffer[CHUNK], other[CHUNK];
    float g[CHUNK], normal[CHUNK]; // dout * weight and x^
    float g_lane[LANES] = {0}, gx_lane[LANES] = {0}, g_mean = 0, gx_mean = 0;
    for (int pass = 0; pass < 2; pass++) { // the two means, then the output
        for (int c = 0; c < C; c += CHUNK) {
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *dy = chunk_in(dy_buffer, t, dout, row + (size_t)c, length);
            const float *x = chunk_in(x_buffer, t, inp, row + (size_t)c, length);
            const float *w = chunk_in(w_buffer, t, weight, (size_t)c, length);
            for (int i = 0; i < length; i++) {
                g[i] = dy[i] * w[i];
                normal[i] = (x[i] - mean) * rstd;
            }
            if (pass == 0) {
                lanes_sum(g_lane, g, length);
                lanes_dot(gx_lane, g, normal, length);
                continue;
            }
            float *dx = chunk_out(dx_buffer, t, dinp, row + (size_t)c);
            const float *around = residual ? chunk_in(other, t, residual, row + (size_t)c, length)
                                           : NULL;
#pragma omp simd
            for (int i = 0; i < length; i++) {
                const float d = rstd * fmaf(-normal[i], gx_mean, g[i] - g_mean);
                dx[i] = around ? around[i] + d : d;
            }
            chunk_store(t, dinp, row + (size_t)c, dx, length);
        }
        if (pass == 0) {
            g_mean = lanes_halve(g_lane) / (float)C;
            gx_mean = lanes_halve(gx_lane) / (float)C;
        }
    }
}

void layernorm_bwd_cpu(Device *dev, DType t, void *dinp, float *dweight, float *dbias,
                       const void *residual, const void *dout, const void *inp,
                       const void *weight, const float *mean, const float *rstd, int N, int C) {
    CHECK_POINTERS(layernorm_bwd, dinp, dout, inp, weight, mean, rstd);
    const int threads = threads_for(dev, (size_t)N * C);
    const int columns = dweight || dbias ? C : 0; // to sum over
    const int block = threads > 1 ? N : (BLOCK + C - 1) / C;
    for (int first = 0; first < N; first += block) {
        const int last = N - first < block ? N : first + block;
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#pragma omp for schedule(static)
            for (int c = 0; c < columns; c += CHUNK) {
                param_gradients(t, dweight, dbias, dout, inp, mean, rstd, first, last, C, c,
                                chunk_length((size_t)C, (size_t)c));
            }
#pragma omp for schedule(static)
            for (int n = first; n < last; n++) {
                input_gradient(t, dinp, residual, dout, inp, weight, mean[n], rstd[n],
                               (size_t)n * C, C);
            }
        }
    }
}
