// chunk: how an op is written once for every storage type: f32 arithmetic on pieces of a row.
//
//     for (int c = 0; c < C; c += CHUNK) {
//         float x_buffer[CHUNK], y_buffer[CHUNK];
//         const int length = chunk_length((size_t)C, (size_t)c);
//         const float *x = chunk_in(x_buffer, t, inp, row + c, length);   // f32: the tensor itself
//         float *y = chunk_out(y_buffer, t, out, row + c);                // f32: the tensor itself
//         ... y[i] from x[i] ...
//         chunk_store(t, out, row + c, y, length);                        // f32: nothing to do
//     }
//
// y may be x (an op in place), so loops over both are marked `#pragma omp simd`: element i depends
// on element i only, but the compiler cannot know.
#ifndef JOMED_KERNELS_CHUNK_H
#define JOMED_KERNELS_CHUNK_H

#include "device.h"
#include "dtype.h"

#define CHUNK 256               // elements; a multiple of LANES, and a kilobyte of stack per buffer
#define PARALLEL_MIN (1 << 16)  // elements; less work is done before a second thread wakes up

// Length of the chunk that begins at element i of n.
static inline int chunk_length(size_t n, size_t i) { return (int)(n - i < CHUNK ? n - i : CHUNK); }
static inline size_t chunk_count(size_t n) { return (n + CHUNK - 1) / CHUNK; }

// Elements i .. i + n - 1 of a tensor as f32: in place, or widened into buffer.
static inline const float *chunk_in(float buffer[CHUNK], DType t, const void *tensor, size_t i,
                                    int n) {
    if (t == DT_F32) {
        return (const float *)tensor + i;
    }
    dtype_widen(buffer, t, dtype_at_const(t, tensor, i), (size_t)n);
    return buffer;
}

// Where to put the f32 results for elements from i on; chunk_store then rounds them to the tensor.
static inline float *chunk_out(float buffer[CHUNK], DType t, void *tensor, size_t i) {
    return t == DT_F32 ? (float *)tensor + i : buffer;
}
static inline void chunk_store(DType t, void *tensor, size_t i, const float *values, int n) {
    if (t != DT_F32) {
        dtype_narrow(t, dtype_at(t, tensor, i), values, (size_t)n);
    }
}

// Threads worth waking for an op on this many elements.
static inline int threads_for(const Device *dev, size_t elements) {
    return elements < PARALLEL_MIN ? 1 : device_threads(dev);
}

#endif
