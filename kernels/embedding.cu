// embedding: rows of a table by id, and the moving of whole rows, on CUDA; see embedding.h.
//
// Forward and moving are one thread per 16 bytes of a row, or per element where rows are not whole
// pieces of 16. The backward adds the rows of an id in order, without atomics: keys id << 32 | n
// are sorted (runs of BLOCK by counting, then merged two by two, where a key's place is its own
// plus the number of smaller keys in the other run; no two keys are equal), and then a block takes
// each id's segment and walks over its rows, n ascending, with the sums in registers. Sorting
// reads and writes 16 bytes per row and pass, log2(N / BLOCK) passes, against 4 C bytes per row of
// the rest. An id that nearly all rows have (a text's token types) has one walker for its columns,
// by the order of the contract: what bounds it is latency, so a thread has four bytes of a row,
// and AHEAD rows under way.
//
// An id outside its table stops the program: assert prints the kernel's line, and the next CUDA
// call dies.
//
//   version      idea                                shape  time                  % of peak
//   *_kernel1    16 bytes per thread, or an element  -      not yet run on a GPU  -
//   add_kernel1  sorted segments, 4 bytes of columns per thread, or one column
//                                                    -      not yet run on a GPU  -
#include "embedding.h"

#include <assert.h>

#include "device_cuda.cuh"

// Launch: any grid, BLOCK threads.
static const int BLOCK = 256;

// HAS_PACKS: n and C count packs.
template <typename T, bool HAS_PACKS>
static __global__ void embedding_fwd_kernel1(T *out, const T *table, const int32_t *ids, size_t n,
                                             int C, int V) {
    GRID_STRIDE(i, n) {
        const int32_t id = ids[i / C];
        assert(id >= 0 && id < V);
        const size_t from = (size_t)id * C + i % C;
        if constexpr (HAS_PACKS) {
            const int E = Pack<T>::N;
            Pack<T> x = pack_load(out + i * E);
            const Pack<T> y = pack_load(table + from * E);
            for (int e = 0; e < E; e++) {
                x.at[e] += y.at[e];
            }
            pack_store(out + i * E, x);
        } else {
            out[i] = from_float<T>(to_float(out[i]) + to_float(table[from]));
        }
    }
}

// Bytes are moved as they are, so one kernel serves all types. n and C count pieces.
template <typename Piece>
static __global__ void rows_gather_kernel1(Piece *out, const Piece *inp, const int32_t *index,
                                           size_t n, int C, int N) {
    GRID_STRIDE(i, n) {
        const int32_t row = index[i / C];
        assert(row >= 0 && row < N);
        out[i] = inp[(size_t)row * C + i % C];
    }
}

template <typename Piece>
static __global__ void rows_scatter_kernel1(Piece *out, const Piece *inp, const int32_t *index,
                                            size_t n, int C, int N) {
    GRID_STRIDE(i, n) {
        const int32_t row = index[i / C];
        assert(row >= 0 && row < N);
        out[(size_t)row * C + i % C] = inp[i];
    }
}

// Runs a statement with Piece what is moved at once: 16 bytes where rows of C elements of t begin
// at multiples of 16 in both tensors, else an element; C becomes the pieces of a row.
#define FOR_PIECES(t, C, a, b, Piece, ...)                                                         \
    do {                                                                                           \
        const size_t row_bytes_ = (size_t)(C)*dtype_size(t);                                       \
        if (row_bytes_ % 16 == 0 && is_packable(a) && is_packable(b)) {                            \
            using Piece = uint4;                                                                   \
            (C) = (int)(row_bytes_ / 16);                                                          \
            __VA_ARGS__;                                                                           \
        } else if ((t) == DT_F32) {                                                                \
            using Piece = uint32_t;                                                                \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            using Piece = uint16_t;                                                                \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

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
// a thread, 1 or those of four bytes. Launch: (N, C / EACH / ADD_BLOCK) blocks of ADD_BLOCK
// threads. 512 bytes of shared memory.
static const int ADD_BLOCK = 128;
static const int AHEAD = 16; // rows whose loads come before the first addition
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
    const auto word_of = [&](int k) -> uint32_t { // this thread's columns of the k-th row
        const T *from = dout + (size_t)row[k] * C + c;
        if constexpr (EACH * sizeof(T) == 4) {
            return *(const uint32_t *)from;
        } else {
            return from->bits;
        }
    };
    const auto add = [&](uint32_t word) {
        UNROLL for (int e = 0; e < EACH; e++) {
            if constexpr (sizeof(T) == 4) {
                sum[e] += __uint_as_float(word);
            } else {
                sum[e] += to_float(T{(uint16_t)(word >> 16 * e)});
            }
        }
    };
    for (int n0 = first, here = ADD_BLOCK; here == ADD_BLOCK; n0 += ADD_BLOCK) {
        const int n = n0 + threadIdx.x;
        const uint64_t key = n < N ? keys[n] : ~(uint64_t)0;
        here = __syncthreads_count(key >> 32 == id); // and everybody is done with the rows before
        row[threadIdx.x] = (int32_t)key;
        __syncthreads(); // the rows are there
        int k = c < C ? 0 : here;
        for (; k + AHEAD <= here; k += AHEAD) {
            uint32_t x[AHEAD];
            UNROLL for (int i = 0; i < AHEAD; i++) { x[i] = word_of(k + i); }
            UNROLL for (int i = 0; i < AHEAD; i++) { add(x[i]); }
        }
        for (; k < here; k++) {
            add(word_of(k));
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
    CHECK_POINTERS(rows_gather, out, inp, index);
    FOR_PIECES(t, C, out, inp, Piece, const size_t n = (size_t)R * C;
               LAUNCH((rows_gather_kernel1<Piece>), grid_for(n, BLOCK), BLOCK, 0,
                      device_stream(dev), (Piece *)out, (const Piece *)inp, index, n, C, N));
}

CUDA_OP(rows_scatter)(Device *dev, DType t, void *out, const void *inp, const int32_t *index,
                      int R, int C, int N) {
    CHECK_POINTERS(rows_scatter, out, inp, index);
    FOR_PIECES(t, C, out, inp, Piece, const size_t n = (size_t)R * C;
               LAUNCH((rows_scatter_kernel1<Piece>), grid_for(n, BLOCK), BLOCK, 0,
                      device_stream(dev), (Piece *)out, (const Piece *)inp, index, n, C, N));
}

template <typename T>
static void launch_fwd(Device *dev, T *out, const T *table, const int32_t *ids, int N, int C,
                       int V) {
    const bool has_packs = C % Pack<T>::N == 0 && is_packable(out) && is_packable(table);
    const int width = has_packs ? C / Pack<T>::N : C;
    const size_t n = (size_t)N * width;
    if (has_packs) {
        LAUNCH((embedding_fwd_kernel1<T, true>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               out, table, ids, n, width, V);
    } else {
        LAUNCH((embedding_fwd_kernel1<T, false>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
               out, table, ids, n, width, V);
    }
}

CUDA_OP(embedding_fwd)(Device *dev, DType t, void *out, const void *table, const int32_t *ids,
                       int N, int C, int V, bool is_accumulated) {
    CHECK_POINTERS(embedding_fwd, out, table, ids);
    if (is_accumulated) {
        FOR_DTYPE(t, T, launch_fwd(dev, (T *)out, (const T *)table, ids, N, C, V));
    } else {
        CUDA_NAME(rows_gather)(dev, t, out, table, ids, N, C, V);
    }
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
    CHECK_POINTERS(embedding_bwd, dtable, dout, ids);
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
    // Four bytes a thread: rows of an even number of 16-bit elements from a multiple of four on.
    if (t != DT_F32 && C % 2 == 0 && (uintptr_t)dout % 4 == 0) {
        FOR_DTYPE(t, T, launch_add<T, 4 / sizeof(T)>(dev, dtable, dout, keys, N, C));
    } else {
        FOR_DTYPE(t, T, launch_add<T, 1>(dev, dtable, dout, keys, N, C));
    }
}
