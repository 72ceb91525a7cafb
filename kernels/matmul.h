// matmul: the linear layer, its two gradients, and the packing of weights. Here M, N, K are BLAS's.
//
// Every output element is ONE chain of fused multiply-adds over its reduction index, ascending, in
// f32, rounded once to t. Blocking, packing, vector width and threads do not change it: the fast
// kernel is bit-equal to the plain loop for every shape. bf16 and f16 are widened exactly first.
// Agreement: sum (and exact between our own CPU versions).
#ifndef JOMED_KERNELS_MATMUL_H
#define JOMED_KERNELS_MATMUL_H

#include <stdbool.h>

#include "activation.h"
#include "device.h"
#include "dtype.h"
#include "rope.h"

#ifdef __cplusplus
extern "C" {
#endif

// Which product a packed weight serves.
typedef enum { MATMUL_PACK_FWD, MATMUL_PACK_BWD } MatmulPack;
// Bytes of the packed form of a (N,K) weight of type t; 0 where the backend does not pack.
size_t matmul_pack_bytes(const Device *dev, DType t, MatmulPack which, int N, int K);

// Rearranges a weight once so that the products need not do it on every call.
//   packed: matmul_pack_bytes(...) bytes   weight: (N,K) t. Agreement: exact (a copy).
typedef void matmul_pack_fn(Device *dev, DType t, void *packed, const void *weight,
                            MatmulPack which, int N, int K);

// ---- the end of a product ----
// What becomes of a sum z before it is stored, so that nobody reads the output again only to finish
// it. z is the f32 chain; z' is z rounded to t, as a product of its own would have stored it:
// RESIDUAL, ACT, GATED and ROPE give the bits of two ops, so that a forward has the same bits with
// and without them. The others round once.
typedef enum {
    EPILOGUE_NONE,      // out = z
    EPILOGUE_SCALE,     // out = scale z
    EPILOGUE_RESIDUAL,  // out = residual + z'
    EPILOGUE_ACT,       // pre = z'   out = act(z')                          forward only
    EPILOGUE_GATED,     // pre = z'   out = act(gate) z'                     forward only
    EPILOGUE_ROPE,      // out = z' with its heads turned, as by rope_fwd    forward only
    EPILOGUE_ACT_BWD,   // out = z act'(pre)                                 bwd_input only
    EPILOGUE_GATED_BWD, // dgate = z pre act'(gate)   out = z act(gate)      bwd_input only
    EPILOGUE_COUNT
} EpilogueKind;

// Tensors are of the output's shape and type, but for low and up.
// A LoRA adapter is the product itself going on: the chain takes rank more terms (0: none),
//   fwd        sum_r low[m,r] up[n,r]     up: (N,rank)  with low = scale inp A^T, up = B
//   bwd_input  sum_r low[m,r] up[r,k]     up: (rank,K)  with low = scale dout B,  up = A
// low: (M,rank) t   packed_up: up by matmul_pack(FWD or BWD), or NULL; then up may be NULL
// out may alias residual, gate, and the pre of ACT_BWD and GATED_BWD; nothing else aliases.
// Left out: both products of a gated layer at once. The gate's product comes first and is read back
// here: 3 passes over (M,N) instead of the 5 of three ops, where 1 is possible; 4 with a pre and a
// gate that a backward wants, where 3 are. By 790 TFLOP/s and 4.3 TB/s of an H200, of Qwen2-VL 7B:
//   M      N      K     products  a pass    gained at most, of both products
//   35000  18944  3584  12.0 ms   0.31 ms   0.62 ms (5 %), in training 0.31 ms (2 %)
//   1050   18944  3584  0.47 ms   0.01 ms   0.06 ms (12 %), 0.04 of it one round of tiles in 12
// A tile could hold 128 columns of either product, at the FLOP per byte it has now. But a second
// weight, bias and adapter would go through every product of every backend: not worth it yet.
typedef struct {
    EpilogueKind kind;
    Activation act;
    float scale;
    const void *residual;
    const void *gate; // the gate's z'
    void *pre;        // ACT, GATED: written, or NULL; ACT_BWD, GATED_BWD: what they wrote
    void *dgate;
    const float *cosine, *sine; // ROPE: (M, head_width / 2), by rope_table
    int head_width;             // ROPE: even, at most ROPE_MAX_D, a divisor of N
    RopePairing pairing;
    const void *low, *up, *packed_up;
    int rank;
} MatmulEpilogue;

// z[m,n] = (is_accumulated ? out[m,n] : bias ? bias[n] : 0) + sum_k inp[m,k] weight[n,k]
//   the chain starts from the first term. is_accumulated with a bias is a CHECK failure.
// out: (M,N) t, z or what the epilogue makes of it; epilogue: or NULL
// inp: (M,K) t   weight: (N,K) t, row-major as in the files   bias: (N) t or NULL
// packed: the weight by matmul_pack(MATMUL_PACK_FWD), or NULL; with packed the weight is not read
//   and may be NULL, so that the files' form of a frozen weight need not be kept.
typedef void matmul_fwd_fn(Device *dev, DType t, void *out, const void *inp, const void *weight,
                           const void *packed, const void *bias, int M, int N, int K,
                           bool is_accumulated, const MatmulEpilogue *epilogue);

// z[m,k] = (is_accumulated ? dinp[m,k] : 0) + sum_n dout[m,n] weight[n,k]
// dinp: (M,K) t, z or what the epilogue makes of it   dout: (M,N) t   weight: (N,K) t
// packed: by matmul_pack(MATMUL_PACK_BWD), or NULL; with packed weight may be NULL.
typedef void matmul_bwd_input_fn(Device *dev, DType t, void *dinp, const void *dout,
                                 const void *weight, const void *packed, int M, int N, int K,
                                 bool is_accumulated, const MatmulEpilogue *epilogue);

// dweight[n,k] += sum_m dout[m,n] inp[m,k]      dbias[n] += sum_m dout[m,n]
//   chains over m ascending that START FROM the stored value, so that two micro-batches one after
//   the other give the bits of one batch. (A GPU adds in orders of its own; the sizes decide.)
// dweight: (N,K) f32 or NULL   dbias: (N) f32 or NULL   dout: (M,N) t   inp: (M,K) t
typedef void matmul_bwd_weight_fn(Device *dev, DType t, float *dweight, float *dbias,
                                  const void *dout, const void *inp, int M, int N, int K);

// Bytes of scratch: sums of parts of the rows (ops.h).
typedef size_t matmul_bwd_weight_scratch_fn(const Device *dev, DType t, int M, int N, int K);
matmul_bwd_weight_scratch_fn matmul_bwd_weight_scratch_cuda, matmul_bwd_weight_scratch_emu;

matmul_pack_fn matmul_pack_cpu, matmul_pack_cuda, matmul_pack_emu;
matmul_fwd_fn matmul_fwd_cpu, matmul_fwd_cuda, matmul_fwd_emu;
matmul_bwd_input_fn matmul_bwd_input_cpu, matmul_bwd_input_cuda, matmul_bwd_input_emu;
matmul_bwd_weight_fn matmul_bwd_weight_cpu, matmul_bwd_weight_cuda, matmul_bwd_weight_emu;

// The contracts above written as the plain loops they state: what the fast ones must equal bit for
// bit. packed is ignored. Host memory, one thread; for tests.
matmul_fwd_fn matmul_fwd_naive;
matmul_bwd_input_fn matmul_bwd_input_naive;
matmul_bwd_weight_fn matmul_bwd_weight_naive;

#ifdef __cplusplus
}
#endif
#endif
