// matmul_epilogue: the end of a product on the CPU; see MatmulEpilogue in matmul.h. Private to
// matmul.*.
#ifndef JOMED_KERNELS_MATMUL_EPILOGUE_H
#define JOMED_KERNELS_MATMUL_EPILOGUE_H

#include "matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

// The epilogue of a forward or a bwd_input into so many columns; NULL becomes one that does
// nothing. What is missing or belongs to the other product is a CHECK failure. For every backend.
MatmulEpilogue matmul_epilogue(const MatmulEpilogue *epilogue, bool is_fwd, int columns);
// Whether the output is also read, so that no partial sum may lie there.
bool matmul_epilogue_reads(const MatmulEpilogue *e, const void *out);
// Finishes and stores the sum of element `at`, and those of n elements of `row` from `at` on: the
// same bits. z is spoiled; it may be the place in out. Heads of ROPE are turned by the second, then
// n is whole heads; after the first by matmul_turn_row, when all of the row is stored.
void matmul_finish_one(const MatmulEpilogue *e, DType t, void *out, size_t at, float z);
void matmul_turn_row(const MatmulEpilogue *e, DType t, void *out, int row, int columns);
void matmul_finish(const MatmulEpilogue *e, DType t, void *out, size_t at, int row, float *z,
                   int n);

#ifdef __cplusplus
}
#endif
#endif
