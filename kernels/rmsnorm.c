// rmsnorm: the CPU definition; see rmsnorm.h. Built like layernorm.c, without the mean.
#include "rmsnorm.h"

#include "base.h"
#include "chunk.h"
#include "lanes.h"

#define BLOCK 16384 // elements of dout, and of inp, that one thread takes at a time

// ---- forward ----
static float row_mean_square(DType t, const void *inp, size_t row, int C) {
    float lane[LANES] = {0};
    for (int c = 0; c < C; c += CHUNK) {
        float buffer[CHUNK];
        const int length = chunk_length((size_t)C, (size_t)c);
        const float *x = chunk_in(buffer, t, inp, row + (size_t)c, length);
        lanes_dot(lane, x, x, length);
    }
    return lanes_halve(lane) / (float)C;
}

void rmsnorm_fwd_cpu(Device *dev, DType t, void *out, float *rstd, const void *inp,
                     const void *weight, int N, int C, float eps) {
    CHECK_POINTERS(rmsnorm_fwd, out, rstd, inp, weight);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int n = 0; n < N; n++) {
        const size_t row = (size_t)n * C;
        const float r = 1.0f / sqrtf(row_mean_square(t, inp, row, C) + eps);
        for (int c = 0; c < C; c += CHUNK) {
            float x_buffer[CHUNK], w_buffer[CHUNK], y_buffer[CHUNK];
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *x = chunk_in(x_buffer, t, inp, row + (size_t)c, length);
            const float *w = chunk_in(w_buffer, t, weight, (size_t)c, length);
            float *y = chunk_out(y_buffer, t, out, row + (size_t)c);
#pragma omp simd
            for (int i = 0; i < length; i++) {
                y[i] = x[i] * r;
            }
            if (t != DT_F32) { // the rounding between the two products, through out itself
                chunk_store(t, out, row + (size_t)c, y, length);
                y = y_buffer;
                dtype_widen(y, t, dtype_at_const(t, out, row + (size_t)c), (size_t)length);
            }
#pragma omp simd
            for (int i = 0; i < length; i++) {
                y[i] *= w[i];
            }
            chunk_store(t, out, row + (size_t)c, y, length);
        }
        rstd[n] = r;
    }
}

// ---- backward ----
// Columns c .. c + length - 1 of dweight, rows first .. last - 1 ascending.
static void weight_gradient(DType t, float *dweight, const void *dout, const void *inp,
                            const float *rstd, int first, int last, int C, int c, int length) {
    for (int n = first; n < last; n++) {
        float dy_buffer[CHUNK], x_buffer[CHUNK];
        const size_t at = (size_t)n * C + (size_t)c;
        const float *dy = chunk_in(dy_buffer, t, dout, at, length);
        const float *x = chunk_in(x_buffer, t, inp, at, length);
        const float r = rstd[n];
#pragma omp simd
        for (int i = 0; i < length; i++) {
            dweight[c + i] = fmaf(dy[i], x[i] * r, dweight[c + i]);
        }
    }
}

static void input_gradient(DType t, void *dinp, const void *residual, const void *dout,
                           const void *inp, const void *weight, float rstd, size_t row, int C) {
    float dy_buffer[CHUNK], x_buffer[CHUNK], w_buffer[CHUNK], dx_buffer[CHUNK], other[CHUNK];
    float g[CHUNK], normal[CHUNK]; // dout * weight and x^
    float lane[LANES] = {0}, gx_mean = 0;
    for (int pass = 0; pass < 2; pass++) { // the mean, then the output
        for (int c = 0; c < C; c += CHUNK) {
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *dy = chunk_in(dy_buffer, t, dout, row + (size_t)c, length);
            const float *x = chunk_in(x_buffer, t, inp, row + (size_t)c, length);
            const float *w = chunk_in(w_buffer, t, weight, (size_t)c, length);
            for (int i = 0; i < length; i++) {
                g[i] = dy[i] * w[i];
                normal[i] = x[i] * rstd;
            }
            if (pass == 0) {
                lanes_dot(lane, g, normal, length);
                continue;
            }
            float *dx = chunk_out(dx_buffer, t, dinp, row + (size_t)c);
            const float *around = residual ? chunk_in(other, t, residual, row + (size_t)c, length)
                                           : NULL;
#pragma omp simd
            for (int i = 0; i < length; i++) {
                const float d = rstd * fmaf(-normal[i], gx_mean, g[i]);
                dx[i] = around ? around[i] + d : d;
            }
            chunk_store(t, dinp, row + (size_t)c, dx, length);
        }
        if (pass == 0) {
            gx_mean = lanes_halve(lane) / (float)C;
        }
    }
}

void rmsnorm_bwd_cpu(Device *dev, DType t, void *dinp, float *dweight, const void *residual,
                     const void *dout, const void *inp, const void *weight, const float *rstd,
                     int N, int C) {
    CHECK_POINTERS(rmsnorm_bwd, dinp, dout, inp, weight, rstd);
    const int threads = threads_for(dev, (size_t)N * C);
    const int columns = dweight ? C : 0; // to sum over
    const int block = threads > 1 ? N : (BLOCK + C - 1) / C;
    for (int first = 0; first < N; first += block) {
        const int last = N - first < block ? N : first + block;
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#pragma omp for schedule(static)
            for (int c = 0; c < columns; c += CHUNK) {
                weight_gradient(t, dweight, dout, inp, rstd, first, last, C, c,
                                chunk_length((size_t)C, (size_t)c));
            }
#pragma omp for schedule(static)
            for (int n = first; n < last; n++) {
                input_gradient(t, dinp, residual, dout, inp, weight, rstd[n], (size_t)n * C, C);
            }
        }
    }
}
