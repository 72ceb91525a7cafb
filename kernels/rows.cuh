// rows: what the kernels share that give one block to each row. Only for *.cu.
//
// HAS_PACKS: rows are read and written 16 bytes at a time. The launcher says so where every row may
// be (row_has_packs), never for some rows of a tensor: the order of a sum must not depend on which
// row it is.
#ifndef JOMED_KERNELS_ROWS_CUH
#define JOMED_KERNELS_ROWS_CUH

#include "cuda_common.cuh"

// Threads of the block of a row of C elements: whole warps, 256 at most. It depends on C alone, so
// that the order of a row's sums does not depend on the rest of the batch.
static inline unsigned row_block(int C) {
    return C >= 256 ? 256 : ((unsigned)C + WARP - 1) / WARP * WARP;
}

// Whether every row of C elements of T begins at a multiple of 16 bytes in all three tensors.
template <typename T>
static inline bool row_has_packs(int C, const void *a, const void *b, const void *c) {
    return C % Pack<T>::N == 0 && is_packable(a) && is_packable(b) && is_packable(c);
}

// This thread's elements of a row of C.
#define ROW_STRIDE(c, C) for (int c = threadIdx.x; c < (C); c += blockDim.x)

// f(a[i], b[i]) for this thread's elements i of a row of n; b may be a.
template <bool HAS_PACKS, typename T, typename F>
static __device__ inline void row_each(const T *a, const T *b, int n, F f) {
    if constexpr (HAS_PACKS) {
        const int E = Pack<T>::N;
        ROW_STRIDE(p, n / E) {
            const Pack<T> x = pack_load(a + p * E), y = b == a ? x : pack_load(b + p * E);
            for (int e = 0; e < E; e++) {
                f(x.at[e], y.at[e]);
            }
        }
    } else {
        ROW_STRIDE(i, n) { f(to_float(a[i]), to_float(b[i])); }
    }
}

// out[i] = f(a[i], b[i]); out may be a or b, b may be a.
template <bool HAS_PACKS, typename T, typename F>
static __device__ inline void row_map(T *out, const T *a, const T *b, int n, F f) {
    if constexpr (HAS_PACKS) {
        const int E = Pack<T>::N;
        ROW_STRIDE(p, n / E) {
            Pack<T> x = pack_load(a + p * E);
            const Pack<T> y = b == a ? x : pack_load(b + p * E);
            for (int e = 0; e < E; e++) {
                x.at[e] = f(x.at[e], y.at[e]);
            }
            pack_store(out + p * E, x);
        }
    } else {
        ROW_STRIDE(i, n) { out[i] = from_float<T>(f(to_float(a[i]), to_float(b[i]))); }
    }
}

#endif
