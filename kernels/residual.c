// residual: the CPU definition; see residual.h.
#include "residual.h"

#include "base.h"
#include "chunk.h"

void residual_fwd_cpu(Device *dev, DType t, void *out, const void *a, const void *b, size_t n) {
    CHECK_POINTERS(residual_fwd, out, a, b);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        float a_buffer[CHUNK], b_buffer[CHUNK], y_buffer[CHUNK];
        const int length = chunk_length(n, at);
        const float *x = chunk_in(a_buffer, t, a, at, length);
        const float *z = chunk_in(b_buffer, t, b, at, length);
        float *y = chunk_out(y_buffer, t, out, at);
#pragma omp simd
        for (int i = 0; i < length; i++) {
            y[i] = x[i] + z[i];
        }
        chunk_store(t, out, at, y, length);
    }
}
