// pool: the CPU definition; see pool.h. A task of a thread is one chunk of columns of one sequence.
#include "pool.h"

#include "base.h"
#include "chunk.h"

static void check_lengths(const int32_t *cu_seqlens, int B, int N) {
    CHECK(cu_seqlens[0] == 0 && cu_seqlens[B] == N, "cu_seqlens[0]=%d cu_seqlens[B]=%d N=%d",
          (int)cu_seqlens[0], (int)cu_seqlens[B], N);
    for (int b = 0; b < B; b++) {
        CHECK(cu_seqlens[b] < cu_seqlens[b + 1], "sequence %d of %d is empty", b, B);
    }
}

void pool_fwd_cpu(Device *dev, DType t, void *out, const void *inp, const int32_t *cu_seqlens,
                  int B, int N, int C) {
    CHECK_POINTERS(pool_fwd, out, inp, cu_seqlens);
    check_lengths(cu_seqlens, B, N);
    const size_t chunks = chunk_count((size_t)C);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (size_t task = 0; task < (size_t)B * chunks; task++) {
        const size_t b = task / chunks, c = task % chunks * CHUNK;
        const int length = chunk_length((size_t)C, c);
        float sum[CHUNK] = {0};
        for (int n = cu_seqlens[b]; n < cu_seqlens[b + 1]; n++) {
            float buffer[CHUNK];
            const float *x = chunk_in(buffer, t, inp, (size_t)n * C + c, length);
            for (int i = 0; i < length; i++) {
                sum[i] += x[i];
            }
        }
        const float count = (float)(cu_seqlens[b + 1] - cu_seqlens[b]);
        for (int i = 0; i < length; i++) {
            sum[i] /= count;
        }
        dtype_narrow(t, dtype_at(t, out, b * C + c), sum, (size_t)length);
    }
}

void pool_bwd_cpu(Device *dev, DType t, void *dinp, const void *dout, const int32_t *cu_seqlens,
                  int B, int N, int C) {
    CHECK_POINTERS(pool_bwd, dinp, dout, cu_seqlens);
    check_lengths(cu_seqlens, B, N);
    const size_t chunks = chunk_count((size_t)C);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (size_t task = 0; task < (size_t)B * chunks; task++) {
        const size_t b = task / chunks, c = task % chunks * CHUNK;
        const int length = chunk_length((size_t)C, c);
        const float count = (float)(cu_seqlens[b + 1] - cu_seqlens[b]);
        float buffer[CHUNK], share[CHUNK];
        const float *dy = chunk_in(buffer, t, dout, b * C + c, length);
        for (int i = 0; i < length; i++) {
            share[i] = dy[i] / count;
        }
        for (int n = cu_seqlens[b]; n < cu_seqlens[b + 1]; n++) {
            dtype_narrow(t, dtype_at(t, dinp, (size_t)n * C + c), share, (size_t)length);
        }
    }
}
