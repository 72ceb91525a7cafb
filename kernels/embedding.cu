// embedding: rows of a table by id, and the moving of whole rows, on CUDA; see embedding.h.
//
// Forward and moving are one thread per element. The backward is deterministic without atomics and
// without sorting: block n is at work only if no earlier row has the id of row n; it then walks
// over all rows from n on and adds those of the same id, ascending, into the row of the table. The
// walk reads only ids, a block's width of them at a time.
//
// An id outside its table stops the program: assert prints the kernel's line, and the next CUDA
// call dies.
//
//   version      idea                       shape  time                  % of peak bandwidth
//   *_kernel1    one element per thread     -      not yet run on a GPU  -
//   bwd_kernel1  one block per distinct id  -      not yet run on a GPU  -
#include "embedding.h"

#include <assert.h>

#include "cuda_common.cuh"

// Launch: any grid, BLOCK threads; the backward (N, columns / BLOCK) blocks.
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

template <typename T>
static __global__ void embedding_bwd_kernel1(float *dtable, const T *dout, const int32_t *ids,
                                             int N, int C, int V) {
    SMEM_STATIC(near_ids, int32_t, [BLOCK]);
    const int first = blockIdx.x, c = blockIdx.y * BLOCK + threadIdx.x;
    const int32_t id = ids[first];
    assert(id >= 0 && id < V);
    for (int n0 = 0; n0 < first; n0 += BLOCK) {
        const int n = n0 + threadIdx.x;
        if (__syncthreads_or(n < first && ids[n] == id)) {
            return; // an earlier block has this id; all threads agree
        }
    }
    float sum = c < C ? dtable[(size_t)id * C + c] : 0.0f;
    for (int n0 = first; n0 < N; n0 += BLOCK) {
        const int here = N - n0 < BLOCK ? N - n0 : BLOCK;
        if ((int)threadIdx.x < here) {
            near_ids[threadIdx.x] = ids[n0 + threadIdx.x];
        }
        __syncthreads(); // near_ids is whole
        for (int k = 0; k < here; k++) {
            if (near_ids[k] == id && c < C) {
                sum += to_float(dout[(size_t)(n0 + k) * C + c]);
            }
        }
        __syncthreads(); // everybody is done with near_ids
    }
    if (c < C) {
        dtable[(size_t)id * C + c] = sum;
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

CUDA_OP(embedding_bwd)(Device *dev, DType t, float *dtable, const void *dout, const int32_t *ids,
                       int N, int C, int V) {
    const dim3 grid(N, (C + BLOCK - 1) / BLOCK);
    FOR_DTYPE(t, T, LAUNCH((embedding_bwd_kernel1<T>), grid, BLOCK, 0, device_stream(dev), dtable,
                           (const T *)dout, ids, N, C, V));
}
