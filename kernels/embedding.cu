// embedding: rows of a table by id, and the moving of whole rows, on CUDA; see embedding.h.
//
// Forward and moving are one thread per element. The backward adds the rows of an id in order,
// without atomics: keys id << 32 | n are sorted (runs of BLOCK by counting, then merged two by two,
// where a key's place is its own plus the number of smaller keys in the other run; no two keys are
// equal), and then a block takes each id's segment and walks over its rows, n ascending, with the
// sums in registers. Sorting reads and writes 16 bytes per row and pass, log2(N / BLOCK) passes,
// against 4 C bytes per row of the rest. Left out: more than one walker for an id that nearly all
// rows have, which the order of the contract forbids.
//
// An id outside its table stops the program: assert prints the kernel's line, and the next CUDA
// call dies.
//
//   version      idea                               shape  time                  % of peak
//   *_kernel1    one element per thread             -      not yet run on a GPU  -
//   add_kernel1  sorted segments, 16 bytes of columns per thread, or one column
//                                                   -      not yet run on a GPU  -
#include "embedding.h"

#include <assert.h>

#include "device_cuda.cuh"

// Launch: any grid, BLOCK threads.
static const int BLOCK = 256;

template <typename T>
static __global__ void embedding_fwd_kernel1(T *out, const T *table, const int32_t *ids, size_t n,
                                             int C, int V) {
    GRID_STRIDE(i, n) {
        const int32_t id = ids[i / C];
        assert(id >= 0 && id < V);
        out[i] = from_float<T>(to_float(out[i]) + to_float(table[(size_t)id * C + i % C]));
    }
}

// Bytes are moved as they are, so one kernel serves both 16-bit types.
template <typename Bits>
static __global__ void rows_gather_kernel1(Bits *out, const Bits *inp, const int32_t *index,
                                           size_t n, int C, int N) {
    GRID_STRIDE(i, n) {
        const int32_t row = index[i / C];
        assert(row >= 0 && row < N);
        out[i] = inp[(size_t)row * C + i % C];
    }
}

template <typename Bits>
static __global__ void rows_scatter_kernel1(Bits *out, const Bits *inp, const int32_t *index,
                                            size_t n, int C, int N) {
    GRID_STRIDE(i, n) {
        const int32_t row = index[i / C];
        assert(row >= 0 && row < N);
        out[(size_t)row * C + i % C] = inp[i];
    }
}

// ---- segments of equal ids ----
// keys: runs of BLOCK, each sorted. Launch: N / BLOCK blocks of BLOCK threads. 2 KB of shared
// memory.
static __global__ void embedding_sort_kernel1(uint64_t *keys, const int32_t *ids, int N, int V) {
    SMEM_STATIC(run, uint64_t, [BLOCK]);
    const int first = blockIdx.x * BLOCK, n = first + threadIdx.x;
    const int32_t id = n < N ? ids[n] : 0;
    assert(id >= 0 && id < V);
    const uint64_t mine = n < N ? (uint64_t)id << 32 | (uint32_t)n : ~(uint64_t)0;
    run[threadIdx.x] = mine;
    __syncthreads(); // the run is whole
    int rank = 0;
    for (int k = 0; k < BLOCK; k++) {
        rank += run[k] < mine;
    }
    if (n < N) {
        keys[first + rank] = mine;
    }
}

// out: sorted runs of 2 `length` keys from runs of `length`. Launch: N / BLOCK blocks of BLOCK
// threads. No shared memory.
static __global__ void embedding_merge_kernel1(uint64_t *out, const uint64_t *keys, int N,
                                               int length) {
    const int n = blockIdx.x * BLOCK + threadIdx.x;
    if (n >= N) {
        return;
    }
    const int run = n / length, other = (run ^ 1) * length; // where the other run begins
    const uint64_t mine = keys[n];
    int below = 0, end = min(max(N - other, 0), length); // of the other run: keys smaller than mine
    while (below < end) {
        const int middle = (below + end) / 2;
        if (keys[other + middle] < mine) {
            below = middle + 1;
        } else {
            end = middle;
        }
    }
    out[run / 2 * 2 * length + n % length + below] = mine;
}

// dtable[id,:] += its rows of dout, by the block of the first key that has the id. EACH: columns of
// a thread, 1 or a pack. Launch: (N, C / EACH / ADD_BLOCK) blocks of ADD_BLOCK threads. 512 bytes
// of shared memory.
static const int ADD_BLOCK = 128;
template <typename T, int EACH>
static __global__ void embedding_add_kernel1(float *dtable, const T *dout, const uint64_t *keys,
                                            int N, int C) {
    SMEM_STATIC(row, int32_t, [ADD_BLOCK]);
    const int first = blockIdx.x, c = (blockIdx.y * ADD_BLOCK + threadIdx.x) * EACH;
    const uint32_t id = (uint32_t)(keys[first] >> 32);
    if (first > 0 && keys[first - 1] >> 32 == id) {
        return; // all threads agree
    }
    float sum[EACH], *const to = dtable + (size_t)id * C + c;
    UNROLL for (int e = 0; e < EACH; e++) {
        sum[e] = c < C ? to[e] : 0.0f;
    }
    for (int n0 = first, here = ADD_BLOCK; here == ADD_BLOCK; n0 += ADD_BLOCK) {
        const int n = n0 + threadIdx.x;
        const uint64_t key = n < N ? keys[n] : ~(uint64_t)0;
        here = __syncthreads_count(key >> 32 == id); // and everybody is done with the rows before
        row[threadIdx.x] = (int32_t)key;
        __syncthreads(); // the rows are there
        for (int k = 0; k < here && c < C; k++) {
            const T *from = dout + (size_t)row[k] * C + c;
            if constexpr (EACH == 1) {
                sum[0] += to_float(*from);
            } else {
                const Pack<T> pack = pack_load(from);
                UNROLL for (int e = 0; e < EACH; e++) {
                    sum[e] += pack.at[e];
                }
            }
        }
    }
    UNROLL for (int e = 0; e < EACH; e++) {
        if (c < C) {
            to[e] = sum[e];
        }
    }
}

CUDA_OP(rows_gather)(Device *dev, DType t, void *out, const void *inp, const int32_t *index, int R,
                     int C, int N) {
    const size_t n = (size_t)R * C;
    if (t == DT_F32) {
        LAUNCH((rows_gather_kernel1<uint32_t>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               (uint32_t *)out, (const uint32_t *)inp, index, n, C, N);
    } else {
        LAUNCH((rows_gather_kernel1<uint16_t>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               (uint16_t *)out, (const uint16_t *)inp, index, n, C, N);
    }
}

CUDA_OP(rows_scatter)(Device *dev, DType t, void *out, const void *inp, const int32_t *index,
                      int R, int C, int N) {
    const size_t n = (size_t)R * C;
    if (t == DT_F32) {
        LAUNCH((rows_scatter_kernel1<uint32_t>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               (uint32_t *)out, (const uint32_t *)inp, index, n, C, N);
    } else {
        LAUNCH((rows_scatter_kernel1<uint16_t>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               (uint16_t *)out, (const uint16_t *)inp, index, n, C, N);
    }
}

CUDA_OP(embedding_fwd)(Device *dev, DType t, void *out, const void *table, const int32_t *ids,
                       int N, int C, int V, bool is_accumulated) {
    if (!is_accumulated) {
        CUDA_NAME(rows_gather)(dev, t, out, table, ids, N, C, V);
        return;
    }
    const size_t n = (size_t)N * C;
    FOR_DTYPE(t, T, LAUNCH((embedding_fwd_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)out, (const T *)table, ids, n, C, V));
}

template <typename T, int EACH>
static void launch_add(Device *dev, float *dtable, const void *dout, const uint64_t *keys, int N,
                       int C) {
    const dim3 grid(N, (C / EACH + ADD_BLOCK - 1) / ADD_BLOCK);
    LAUNCH((embedding_add_kernel1<T, EACH>), grid, ADD_BLOCK, 0, device_stream(dev), dtable,
           (const T *)dout, keys, N, C);
}

CUDA_OP(embedding_bwd)(Device *dev, DType t, float *dtable, const void *dout, const int32_t *ids,
                       int N, int C, int V) {
    const unsigned grid = (unsigned)((N + BLOCK - 1) / BLOCK);
    uint64_t *keys = (uint64_t *)device_scratch(dev, 2 * (size_t)N * sizeof *keys);
    uint64_t *merged = keys + N;
    LAUNCH(embedding_sort_kernel1, grid, BLOCK, 0, device_stream(dev), keys, ids, N, V);
    for (int length = BLOCK; length < N; length *= 2) {
        LAUNCH(embedding_merge_kernel1, grid, BLOCK, 0, device_stream(dev), merged, keys, N,
               length);
        uint64_t *const sorted = merged;
        merged = keys;
        keys = sorted;
    }
    if (is_packable(dout) && C % (16 / dtype_size(t)) == 0) {
        FOR_DTYPE(t, T, launch_add<T, Pack<T>::N>(dev, dtable, dout, keys, N, C));
    } else {
        FOR_DTYPE(t, T, launch_add<T, 1>(dev, dtable, dout, keys, N, C));
    }
}
