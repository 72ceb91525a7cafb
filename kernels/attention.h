// attention: softmax(scale q k^T + bias + mask) v over packed sequences, forward and backward.
//
// Sequence b owns query rows cu_q[b] .. cu_q[b+1]-1 and key rows cu_k[b] .. cu_k[b+1]-1; rows of
// different sequences never see each other (so block-diagonal attention, over the images of a
// batch, is only a matter of cu_seqlens). Query head h reads key/value head h / (H/Hkv).
// Causal: with Tq queries and Tk keys, query i sees keys j <= i + Tk - Tq (aligned at the end).
// A query that sees no key gives zeros and lse = -inf. ALiBi: bias = -slope[h] * |i + Tk - Tq - j|.
//
// The forward keeps only the log-sum-exp. In f32, with chains over d, keys and queries ascending:
//   s_ij = fma(scale, chain_d q k, bias)   e_ij = exp_f32(s_ij - max_j s)   l_i = lanes_j e_ij
//   out_id = (chain_j e_ij v_jd) / l_i     lse_i = max + log_f32(l_i)
//   p_ij = exp_f32(s_ij - lse_i)   delta_i = lanes_d dout out   dp_ij = chain_d dout v
//   ds_ij = p_ij (dp_ij - delta_i) scale   dq_id = chain_j ds k
//   dk_jd = chain_hi ds q   dv_jd = chain_hi p dout, over the heads h of the group, then queries i
// A GPU takes bf16 to its tensor cores where D is a multiple of 8 up to 128 and all rows begin at
// multiples of 16 bytes. There e (forward), p and ds / scale (backward) are rounded to t as factors
// of the sums over j and i, but not in l; no sum is a chain; dk, dv add in an order that depends on
// the sequence alone. A masked key has the factor 0, not no product: its NaN or infinity reaches
// the other rows of its sequence.
// Agreement: sum, where the plain loop rounds e, p and ds as well: of a dv that adds some twenty
// terms, rounding p to bf16 moves as much as rounding dv itself does.
// Source: Vaswani et al. 2017; Dao 2023 for the backward from (out, lse).
#ifndef JOMED_KERNELS_ATTENTION_H
#define JOMED_KERNELS_ATTENTION_H

#include <stdbool.h>

#include "device.h"
#include "dtype.h"

typedef struct {
    int B;                        // sequences
    int H, Hkv, D;                // query heads, key/value heads (H % Hkv == 0), head width 1..256
    const int32_t *cu_q, *cu_k;   // (B+1) on the device; cu_k may equal cu_q
    const int32_t *used_k;        // NULL, or (B) on the device, forward only: keys lie in a cache,
                                  // those of b in rows cu_k[b] .. cu_k[b] + used_k[b] - 1, in any
                                  // order of b; max_Tk bounds used_k, other rows are not read
    int Nq, Nk;                   // total rows, cu_q[B] and cu_k[B]
    int max_Tq, max_Tk;           // longest sequence of each
    int q_stride, k_stride, v_stride, out_stride; // elements from row to row; head h starts at h*D
    bool is_causal;
    float scale;
    const float *alibi;           // (H) slopes on the device, or NULL
} AttentionShape;

#ifdef __cplusplus
extern "C" {
#endif

// out: (Nq, H*D) t by out_stride   lse: (H,Nq) f32   q: (Nq, H*D) t   k, v: (Nk, Hkv*D) t
// lse[h,i] = log sum_j exp(score_ij).
typedef void attention_fwd_fn(Device *dev, DType t, void *out, float *lse, const void *q,
                              const void *k, const void *v, const AttentionShape *shape);

// dq, dk, dv = gradients, same layout and strides as q, k, v; all three assigned.
// dout has the layout and stride of out. delta: (H,Nq) f32 scratch, rowsum(dout * out) on return.
typedef void attention_bwd_fn(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                              const void *dout, const void *out, const float *lse, const void *q,
                              const void *k, const void *v, const AttentionShape *shape);

attention_fwd_fn attention_fwd_cpu, attention_fwd_cuda, attention_fwd_emu;
attention_bwd_fn attention_bwd_cpu, attention_bwd_cuda, attention_bwd_emu;
// The equations as plain loops on the CPU: same bits as _cpu, for reading and for tests.
attention_fwd_fn attention_fwd_naive;
attention_bwd_fn attention_bwd_naive;

#ifdef __cplusplus
}
#endif
#endif
