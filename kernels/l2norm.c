// l2norm: the CPU definition; see l2norm.h.
#include "l2norm.h"

#include "base.h"
#include "chunk.h"
#include "lanes.h"

static const float EPS = 1e-12f; // the least norm, as torch.nn.functional.normalize

// Dot product of row `row` of a and of b, in lane order.
static float row_dot(DType t, const void *a, const void *b, size_t row, int C) {
    float lane[LANES] = {0};
    for (int c = 0; c < C; c += CHUNK) {
        float a_buffer[CHUNK], b_buffer[CHUNK];
        const int length = chunk_length((size_t)C, (size_t)c);
        lanes_dot(lane, chunk_in(a_buffer, t, a, row + (size_t)c, length),
                  chunk_in(b_buffer, t, b, row + (size_t)c, length), length);
    }
    return lanes_halve(lane);
}

void l2norm_fwd_cpu(Device *dev, DType t, void *out, float *norm, const void *inp, int N, int C) {
    CHECK_POINTERS(l2norm_fwd, out, norm, inp);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int n = 0; n < N; n++) {
        const size_t row = (size_t)n * C;
        const float root = sqrtf(row_dot(t, inp, inp, row, C));
        const float length_of_row = root < EPS ? EPS : root; // NaN stays NaN
        for (int c = 0; c < C; c += CHUNK) {
            float x_buffer[CHUNK], y_buffer[CHUNK];
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *x = chunk_in(x_buffer, t, inp, row + (size_t)c, length);
            float *y = chunk_out(y_buffer, t, out, row + (size_t)c);
#pragma omp simd
            for (int i = 0; i < length; i++) {
                y[i] = x[i] / length_of_row;
            }
            chunk_store(t, out, row + (size_t)c, y, length);
        }
        norm[n] = length_of_row;
    }
}

void l2norm_bwd_cpu(Device *dev, DType t, void *dinp, const void *dout, const void *out,
                    const float *norm, int N, int C) {
    CHECK_POINTERS(l2norm_bwd, dinp, dout, out, norm);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int n = 0; n < N; n++) {
        const size_t row = (size_t)n * C;
        const float size = norm[n];
        // A clamped norm is a constant: no part of dout is along a radius that does not count.
        const float along = size == EPS ? 0.0f : row_dot(t, dout, out, row, C);
        for (int c = 0; c < C; c += CHUNK) {
            float dy_buffer[CHUNK], y_buffer[CHUNK], dx_buffer[CHUNK];
            const int length = chunk_length((size_t)C, (size_t)c);
            const float *dy = chunk_in(dy_buffer, t, dout, row + (size_t)c, length);
            const float *y = chunk_in(y_buffer, t, out, row + (size_t)c, length);
            float *dx = chunk_out(dx_buffer, t, dinp, row + (size_t)c);
#pragma omp simd
            for (int i = 0; i < length; i++) {
                dx[i] = fmaf(-along, y[i], dy[i]) / size;
            }
            chunk_store(t, dinp, row + (size_t)c, dx, length);
        }
    }
}
