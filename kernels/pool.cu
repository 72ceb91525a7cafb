// pool: the mean of each packed sequence on CUDA; see pool.h.
//
// One thread per column of a sequence walks down its rows, so that neighbours read neighbours and
// the sum is the ascending one; eight rows are loaded before the first is added, for the loads are
// independent and the additions are not. The backward only writes, 16 bytes of a row at a time.
//
//   version      idea                                  shape  time                  % of peak
//   fwd_kernel1  one column of a sequence, thread      -      not yet run on a GPU  -
//   bwd_kernel1  one column of a sequence, thread      -      not yet run on a GPU  -
//   bwd_kernel2  16 bytes of columns, thread           -      not yet run on a GPU  -
#include "pool.h"

#include "cuda_common.cuh"

// Launch: (C / BLOCK, B) blocks of BLOCK threads. No shared memory.
static const int BLOCK = 128;
static const int AHEAD = 8; // rows in flight

template <typename T>
static __global__ void pool_fwd_kernel1(T *out, const T *inp, const int32_t *cu_seqlens, int C) {
    const int b = blockIdx.y, c = blockIdx.x * BLOCK + threadIdx.x;
    const int begin = cu_seqlens[b], end = cu_seqlens[b + 1];
    if (c < C) {
        float sum = 0;
        int n = begin;
        for (; n + AHEAD <= end; n += AHEAD) {
            float x[AHEAD];
            UNROLL
            for (int k = 0; k < AHEAD; k++) {
                x[k] = to_float(inp[(size_t)(n + k) * C + c]);
            }
            UNROLL
            for (int k = 0; k < AHEAD; k++) {
                sum += x[k];
            }
        }
        for (; n < end; n++) {
            sum += to_float(inp[(size_t)n * C + c]);
        }
        out[(size_t)b * C + c] = from_float<T>(sum / (float)(end - begin));
    }
}

template <typename T>
static __global__ void pool_bwd_kernel1(T *dinp, const T *dout, const int32_t *cu_seqlens, int C) {
    const int b = blockIdx.y, c = blockIdx.x * BLOCK + threadIdx.x;
    const int begin = cu_seqlens[b], end = cu_seqlens[b + 1];
    if (c < C) {
        const T share = from_float<T>(to_float(dout[(size_t)b * C + c]) / (float)(end - begin));
        for (int n = begin; n < end; n++) {
            dinp[(size_t)n * C + c] = share;
        }
    }
}

// C counts packs. Launch: as version 1.
template <typename T>
static __global__ void pool_bwd_kernel2(T *dinp, const T *dout, const int32_t *cu_seqlens, int C) {
    const int b = blockIdx.y, c = blockIdx.x * BLOCK + threadIdx.x, E = Pack<T>::N;
    const int begin = cu_seqlens[b], end = cu_seqlens[b + 1];
    if (c < C) {
        Pack<T> share = pack_load(dout + ((size_t)b * C + c) * E);
        UNROLL
        for (int e = 0; e < E; e++) {
            share.at[e] /= (float)(end - begin);
        }
        for (int n = begin; n < end; n++) {
            pack_store(dinp + ((size_t)n * C + c) * E, share);
        }
    }
}

template <typename T>
static void launch_bwd(Device *dev, T *dinp, const T *dout, const int32_t *cu_seqlens, int B,
                       int C) {
    const bool has_packs = C % Pack<T>::N == 0 && is_packable(dinp) && is_packable(dout);
    const int width = has_packs ? C / Pack<T>::N : C;
    const dim3 grid((width + BLOCK - 1) / BLOCK, B);
    if (has_packs) {
        LAUNCH((pool_bwd_kernel2<T>), grid, BLOCK, 0, device_stream(dev), dinp, dout, cu_seqlens,
               width);
    } else {
        LAUNCH((pool_bwd_kernel1<T>), grid, BLOCK, 0, device_stream(dev), dinp, dout, cu_seqlens,
               width);
    }
}

CUDA_OP(pool_fwd)(Device *dev, DType t, void *out, const void *inp, const int32_t *cu_seqlens,
                  int B, int N, int C) {
    CHECK_POINTERS(pool_fwd, out, inp, cu_seqlens);
    CHECK(B >= 1 && B <= 65535 && N >= B && C >= 1, "B=%d N=%d C=%d", B, N, C);
    const dim3 grid((C + BLOCK - 1) / BLOCK, B);
    FOR_DTYPE(t, T, LAUNCH((pool_fwd_kernel1<T>), grid, BLOCK, 0, device_stream(dev), (T *)out,
                           (const T *)inp, cu_seqlens, C));
}

CUDA_OP(pool_bwd)(Device *dev, DType t, void *dinp, const void *dout, const int32_t *cu_seqlens,
                  int B, int N, int C) {
    CHECK_POINTERS(pool_bwd, dinp, dout, cu_seqlens);
    CHECK(B >= 1 && B <= 65535 && N >= B && C >= 1, "B=%d N=%d C=%d", B, N, C);
    FOR_DTYPE(t, T, launch_bwd(dev, (T *)dinp, (const T *)dout, cu_seqlens, B, C));
}
