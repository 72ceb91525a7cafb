// embedding: the CPU definition; see embedding.h.
#include "embedding.h"

#include "base.h"
#include "chunk.h"

// Before anything is written: every index points into a table of `rows` rows.
static void check_index(const int32_t *index, int n, int rows) {
    for (int i = 0; i < n; i++) {
        CHECK(index[i] >= 0 && index[i] < rows, "index[%d]=%d of %d rows", i, (int)index[i], rows);
    }
}

void embedding_fwd_cpu(Device *dev, DType t, void *out, const void *table, const int32_t *ids,
                       int N, int C, int V, bool is_accumulated) {
    CHECK_POINTERS(embedding_fwd, out, table, ids);
    if (!is_accumulated) {
        rows_gather_cpu(dev, t, out, table, ids, N, C, V);
        return;
    }
    check_index(ids, N, V);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int n = 0; n < N; n++) {
        for (int c = 0; c < C; c += CHUNK) {
            float e_buffer[CHUNK], y_buffer[CHUNK], sum_buffer[CHUNK];
            const int length = chunk_length((size_t)C, (size_t)c);
            const size_t to = (size_t)n * C + (size_t)c, from = (size_t)ids[n] * C + (size_t)c;
            const float *e = chunk_in(e_buffer, t, table, from, length);
            const float *y = chunk_in(y_buffer, t, out, to, length);
            float *sum = chunk_out(sum_buffer, t, out, to);
#pragma omp simd
            for (int i = 0; i < length; i++) {
                sum[i] = y[i] + e[i];
            }
            chunk_store(t, out, to, sum, length);
        }
    }
}

// Threads share the columns, so that each element's chain runs over n in order.
void embedding_bwd_cpu(Device *dev, DType t, float *dtable, const void *dout, const int32_t *ids,
                       int N, int C, int V) {
    CHECK_POINTERS(embedding_bwd, dtable, dout, ids);
    check_index(ids, N, V);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)N * C))
    for (int c = 0; c < C; c += CHUNK) {
        const int length = chunk_length((size_t)C, (size_t)c);
        for (int n = 0; n < N; n++) {
            float buffer[CHUNK];
            const float *dy = chunk_in(buffer, t, dout, (size_t)n * C + (size_t)c, length);
            float *row = dtable + (size_t)ids[n] * C + c;
#pragma omp simd
            for (int i = 0; i < length; i++) {
                row[i] += dy[i];
            }
        }
    }
}

void rows_gather_cpu(Device *dev, DType t, void *out, const void *inp, const int32_t *index, int R,
                     int C, int N) {
    CHECK_POINTERS(rows_gather, out, inp, index);
    check_index(index, R, N);
    const size_t bytes = (size_t)C * dtype_size(t);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)R * C))
    for (int r = 0; r < R; r++) {
        memcpy((char *)out + (size_t)r * bytes, (const char *)inp + (size_t)index[r] * bytes,
               bytes);
    }
}

void rows_scatter_cpu(Device *dev, DType t, void *out, const void *inp, const int32_t *index, int R,
                      int C, int N) {
    CHECK_POINTERS(rows_scatter, out, inp, index);
    check_index(index, R, N);
    const size_t bytes = (size_t)C * dtype_size(t);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)R * C))
    for (int r = 0; r < R; r++) {
        memcpy((char *)out + (size_t)index[r] * bytes, (const char *)inp + (size_t)r * bytes,
               bytes);
    }
}
