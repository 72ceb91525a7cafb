// rope: rotary position embeddings. Source: Su et al. 2021; Qwen2-VL 2024 for M-RoPE.
//
// Row n rotates pair j of every head by angle[n,j] = position[axis(j)][n] * freq(j), j < D/2.
//   layout             axis(j)                          freq(j) = theta^-x with x =
//   ROPE_1D            0                                2j/D
//   ROPE_2D_HALVES     j < D/4 ? row : column           2(j mod D/4)/(D/2)
//   ROPE_2D_ALTERNATE  j < D/4 ? row : column           row: 4j/D, column: (4(j-D/4)+2)/D
//   ROPE_M             t, h or w by the three sections  2j/D
// HALVES: jina, Qwen2-VL vision. ALTERNATE: Pixtral. M: Qwen2-VL language.
// 2-D layouts have positions[0] = row and [1] = column and need D % 4 == 0; M has t, h, w.
// Pairing: interleaved = (2j, 2j+1), half = (j, j + D/2).   x' = x cos + rot(x) sin.
// The rotation is taken in f32 and rounded once.
// The forward of a model turns queries and keys where their product ends (EPILOGUE_ROPE of
// matmul.h), by the same text; rope_fwd is for products that cannot, and for what is no product.
#ifndef JOMED_KERNELS_ROPE_H
#define JOMED_KERNELS_ROPE_H

#include "device.h"
#include "dtype.h"

typedef enum { ROPE_NONE, ROPE_1D, ROPE_2D_HALVES, ROPE_2D_ALTERNATE, ROPE_M } RopeLayout;
typedef enum { ROPE_INTERLEAVED, ROPE_HALF } RopePairing;
#define ROPE_MAX_D 256

#ifdef __cplusplus
extern "C" {
#endif

// Fills the tables. cosine, sine: (N,D/2) f32   positions: (A,N) int32, A = 1, 2 or 3 by layout
// sections: 3 ints with sum D/2 for ROPE_M, else NULL (host memory). Angles are taken in f64 and
// the cosines rounded to f32. Agreement: ulp.
typedef void rope_table_fn(Device *dev, float *cosine, float *sine, const int32_t *positions, int N,
                           int D, RopeLayout layout, double theta, const int *sections);

// Rotates the H heads of every row in place. x: (N, H*D) t by stride elements; D <= ROPE_MAX_D.
// A pair whose table says cos = 1, sin = 0 keeps its values, -0 and infinities too; a row of such
// pairs (position 0, such as a CLS row) keeps every bit. Agreement: sum (of two products).
typedef void rope_fwd_fn(Device *dev, DType t, void *x, const float *cosine, const float *sine,
                         int N, int H, int D, int stride, RopePairing pairing);
// The backward, also in place: the same rotation with -sin.
typedef void rope_bwd_fn(Device *dev, DType t, void *dx, const float *cosine, const float *sine,
                         int N, int H, int D, int stride, RopePairing pairing);

rope_table_fn rope_table_cpu, rope_table_cuda, rope_table_emu;
rope_fwd_fn rope_fwd_cpu, rope_fwd_cuda, rope_fwd_emu;
rope_bwd_fn rope_bwd_cpu, rope_bwd_cuda, rope_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
