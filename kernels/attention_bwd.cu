// attention_bwd: softmax attention over packed sequences on CUDA, the backward; see attention.h.
//
// kernel1: a block has one query (dq) or one key (dk, dv) of one head. Its threads first take a tile
// of the other side, one row each, and form p and ds; then they share out the head's width and add
// the tile's rows, ascending. No atomics: each output has one writer, whose chains are those of
// the contract; only delta is added in another order.
//
//   version      idea                     shape  time                  % of peak
//   dq_kernel1   one block per query      -      not yet run on a GPU  -
//   dkv_kernel1  one block per key        -      not yet run on a GPU  -
#include "attention.h"

#include "attention_parts.cuh"

// ---- kernel 1 ----
// dq and delta. Launch: (max_Tq, H, B) blocks of TILE threads. 2.7 KB of shared memory.
template <typename T>
static __global__ void attention_dq_kernel1(T *dq, float *delta, const T *dout, const T *out,
                                            const float *lse, const T *q, const T *k, const T *v,
                                            AttentionShape s) {
    SMEM_STATIC(query, float, [MAX_D]);
    SMEM_STATIC(slope_out, float, [MAX_D]);
    SMEM_STATIC(weight, float, [TILE]);
    const int i = blockIdx.x, h = blockIdx.y, hkv = h / (s.H / s.Hkv);
    const Span span = span_of(&s, blockIdx.z);
    if (i >= span.Tq) {
        return; // the whole block
    }
    const size_t row = span.q0 + i, stat = (size_t)h * s.Nq + row;
    const size_t at_out = row * s.out_stride + h * s.D;
    widen_row(query, q + row * s.q_stride + h * s.D, s.D);
    widen_row(slope_out, dout + at_out, s.D);
    float own = 0;
    for (int d = threadIdx.x; d < s.D; d += TILE) {
        own = fmaf(slope_out[d], to_float(out[at_out + d]), own);
    }
    const float along = block_sum(own); // query and slope_out are whole, too
    if (threadIdx.x == 0) {
        delta[stat] = along;
    }
    const int n = visible(&s, span, i);
    float sum[EACH] = {0};
    for (int j0 = 0; j0 < n; j0 += TILE) {
        const int j = j0 + threadIdx.x, count = n - j0 < TILE ? n - j0 : TILE;
        float p, ds = 0;
        if (j < n) {
            const size_t key = span.k0 + j;
            const float dot = dot_row(query, k + key * s.k_stride + hkv * s.D, s.D);
            const float dp = dot_row(slope_out, v + key * s.v_stride + hkv * s.D, s.D);
            const float x = score(dot, s.scale, slope_of(&s, h), (float)(i + span.Tk - span.Tq), j);
            pair_backward(&p, &ds, x, lse[stat], dp, along, s.scale);
        }
        weight[threadIdx.x] = ds;
        __syncthreads(); // weight is whole
        add_rows(sum, weight, k + (size_t)(span.k0 + j0) * s.k_stride + hkv * s.D, s.k_stride,
                 count, s.D);
        __syncthreads(); // everybody is done with weight
    }
    store_row(dq + row * s.q_stride + h * s.D, sum, s.D);
}

// dk and dv; delta comes from the launch before. Launch: (max_Tk, Hkv, B) blocks of TILE threads.
// 3 KB of shared memory.
template <typename T>
static __global__ void attention_dkv_kernel1(T *dk, T *dv, const T *dout, const float *delta,
                                             const float *lse, const T *q, const T *k, const T *v,
                                             AttentionShape s) {
    SMEM_STATIC(key, float, [MAX_D]);
    SMEM_STATIC(value, float, [MAX_D]);
    SMEM_STATIC(weight, float, [TILE]);
    SMEM_STATIC(slope, float, [TILE]);
    const int j = blockIdx.x, hkv = blockIdx.y, group = s.H / s.Hkv;
    const Span span = span_of(&s, blockIdx.z);
    if (j >= span.Tk) {
        return; // the whole block
    }
    const size_t row = span.k0 + j;
    widen_row(key, k + row * s.k_stride + hkv * s.D, s.D);
    widen_row(value, v + row * s.v_stride + hkv * s.D, s.D);
    __syncthreads(); // every thread reads all of both
    const int first = s.is_causal && j > span.Tk - span.Tq ? j - (span.Tk - span.Tq) : 0;
    float dk_sum[EACH] = {0}, dv_sum[EACH] = {0};
    for (int h = hkv * group; h < (hkv + 1) * group; h++) {
        for (int i0 = first; i0 < span.Tq; i0 += TILE) {
            const int i = i0 + threadIdx.x, count = span.Tq - i0 < TILE ? span.Tq - i0 : TILE;
            float p = 0, ds = 0;
            if (i < span.Tq) {
                const size_t query = span.q0 + i, stat = (size_t)h * s.Nq + query;
                const float dot = dot_row(key, q + query * s.q_stride + h * s.D, s.D);
                const float dp = dot_row(value, dout + query * s.out_stride + h * s.D, s.D);
                const float x = score(dot, s.scale, slope_of(&s, h),
                                      (float)(i + span.Tk - span.Tq), j);
                pair_backward(&p, &ds, x, lse[stat], dp, delta[stat], s.scale);
            }
            weight[threadIdx.x] = p;
            slope[threadIdx.x] = ds;
            __syncthreads(); // weight and slope are whole
            const size_t at = span.q0 + i0;
            add_rows(dk_sum, slope, q + at * s.q_stride + h * s.D, s.q_stride, count, s.D);
            add_rows(dv_sum, weight, dout + at * s.out_stride + h * s.D, s.out_stride, count, s.D);
            __syncthreads(); // everybody is done with them
        }
    }
    store_row(dk + row * s.k_stride + hkv * s.D, dk_sum, s.D);
    store_row(dv + row * s.v_stride + hkv * s.D, dv_sum, s.D);
}

// ---- launcher ----
CUDA_OP(attention_bwd)(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                       const void *dout, const void *out, const float *lse, const void *q,
                       const void *k, const void *v, const AttentionShape *shape) {
    check_shape(shape);
    check_all_used(shape);
    const dim3 queries(shape->max_Tq, shape->H, shape->B), keys(shape->max_Tk, shape->Hkv,
                                                                shape->B);
    cudaStream_t stream = device_stream(dev);
    FOR_DTYPE(t, T, LAUNCH((attention_dq_kernel1<T>), queries, TILE, 0, stream, (T *)dq, delta,
                           (const T *)dout, (const T *)out, lse, (const T *)q, (const T *)k,
                           (const T *)v, *shape);
              LAUNCH((attention_dkv_kernel1<T>), keys, TILE, 0, stream, (T *)dk, (T *)dv,
                     (const T *)dout, delta, lse, (const T *)q, (const T *)k, (const T *)v,
                     *shape));
}
