// ops: the one list of operations, and the table of functions every backend fills from it.
//
// Model code says  device_ops(dev)->layernorm_fwd(dev, DT_F32, ...).  The typedef <op>_fn in the
// op's header is its contract; <op>_cpu, <op>_cuda and <op>_emu are its implementations. The list
// also declares test_<op> and bench_<op> (tests/, bench/): an op without both does not link.
//
// Conventions (every contract relies on them):
//   * op(dev, t, outputs, inputs, sizes, scalars). `void *` tensors are of storage type t;
//     statistics, losses, parameter gradients and optimiser state are float; ids are int32_t.
//   * Row-major. Activations are packed rows (N,C); cu_seqlens (B+1) int32 delimits sequences.
//   * Parameter gradients accumulate (+=), activation gradients are assigned (=).
//   * f32 arithmetic, one rounding per output. Every size >= 1 is accepted.
//   * Buffers do not overlap, unless the contract says that one may alias another (equal pointers).
//   * The summation order is part of the contract. "Chain" means one chain of fused multiply-adds,
//     ascending. "Lanes" means sum16/dot16 of lanes.h: 16 interleaved chains, then halving. Results
//     never depend on threads, on the rest of the batch, or on the instruction set. (marginal and
//     rope_table call f64 functions of the C library, which may differ in their last bit between
//     CPUs: that survives the one rounding to f32 about once in 2^28.)
//   * Where a contract says lanes, a GPU has an order of its own: a row's, fixed by its length.
//     Chains are chains there too, but for the tensor cores' products of 16-bit types.
//   * Agreement with f64: exact (copies, ids, rounding), ulp (element-wise), sum (reductions: error
//     at most twice that of the plain f32 loop).
//   * Scratch is the caller's (an argument named scratch, its size given by <op>_scratch_bytes) or,
//     for tiles, the thread's own, which grows to the largest ever needed (scratch.h).
#ifndef JOMED_KERNELS_OPS_H
#define JOMED_KERNELS_OPS_H

#include "activation.h"
#include "adamw.h"
#include "attention.h"
#include "cast.h"
#include "cross_entropy.h"
#include "device.h"
#include "dtype.h"
#include "embedding.h"
#include "global_norm.h"
#include "image_resize.h"
#include "infonce.h"
#include "l2norm.h"
#include "label_logprob.h"
#include "layernorm.h"
#include "marginal.h"
#include "matmul.h"
#include "patch_embed.h"
#include "pool.h"
#include "residual.h"
#include "rmsnorm.h"
#include "rope.h"
#include "topk.h"

#define OPS(X)                                                                                     \
    X(matmul_pack)                                                                                 \
    X(matmul_fwd)                                                                                  \
    X(matmul_bwd_input)                                                                            \
    X(matmul_bwd_weight)                                                                           \
    X(attention_fwd)                                                                               \
    X(attention_bwd)                                                                               \
    X(layernorm_fwd)                                                                               \
    X(layernorm_bwd)                                                                               \
    X(rmsnorm_fwd)                                                                                 \
    X(rmsnorm_bwd)                                                                                 \
    X(activation_fwd)                                                                              \
    X(activation_bwd)                                                                              \
    X(gated_fwd)                                                                                   \
    X(gated_bwd)                                                                                   \
    X(residual_fwd)                                                                                \
    X(embedding_fwd)                                                                               \
    X(embedding_bwd)                                                                               \
    X(rows_gather)                                                                                 \
    X(rows_scatter)                                                                                \
    X(patch_unfold)                                                                                \
    X(rope_table)                                                                                  \
    X(rope_fwd)                                                                                    \
    X(rope_bwd)                                                                                    \
    X(pool_fwd)                                                                                    \
    X(pool_bwd)                                                                                    \
    X(l2norm_fwd)                                                                                  \
    X(l2norm_bwd)                                                                                  \
    X(cross_entropy_fwd)                                                                           \
    X(cross_entropy_bwd)                                                                           \
    X(label_logprob)                                                                               \
    X(infonce_fwd)                                                                                 \
    X(infonce_bwd)                                                                                 \
    X(marginal)                                                                                    \
    X(topk)                                                                                        \
    X(adamw)                                                                                       \
    X(global_norm)                                                                                 \
    X(image_resize)                                                                                \
    X(cast)

// <op>_scratch says how many bytes an op takes on its device besides its arguments, as "scratch of
// ops", which grows to the largest ever needed: what its launcher asks itself. NULL on a CPU. Left
// out: what no size makes more than a few MB (partial sums of norms and clipping, sorted ids).
//
// The list is one line, so that scripts which look for the rows of OPS do not take it for more
// of them.
#define OPS_SCRATCH(X) X(matmul_bwd_weight) X(infonce_bwd) X(topk)

typedef struct Ops {
#define X(op) op##_fn *op;
    OPS(X)
#undef X
#define X(op) op##_scratch_fn *op##_scratch;
    OPS_SCRATCH(X)
#undef X
} Ops;

extern const Ops ops_cpu;
#endif
