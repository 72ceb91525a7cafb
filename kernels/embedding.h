// embedding: rows of a table by id, and the moving of whole rows.
// An id outside its table is a CHECK failure on the CPU.
#ifndef JOMED_KERNELS_EMBEDDING_H
#define JOMED_KERNELS_EMBEDDING_H

#include <stdbool.h>

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[n,:] = (is_accumulated ? out[n,:] : 0) + table[ids[n],:]
// out: (N,C) t   table: (V,C) t   ids: (N). Agreement: exact after one rounding.
// Word, position and token-type tables, and the CLS row, are all this op.
typedef void embedding_fwd_fn(Device *dev, DType t, void *out, const void *table,
                              const int32_t *ids, int N, int C, int V, bool is_accumulated);
// dtable[ids[n],:] += dout[n,:], n ascending, starting from the stored value. dtable: (V,C) f32.
typedef void embedding_bwd_fn(Device *dev, DType t, float *dtable, const void *dout,
                              const int32_t *ids, int N, int C, int V);
// out[r,:] = inp[index[r],:]. out: (R,C) t   inp: (N,C) t   index: (R). Exact.
typedef void rows_gather_fn(Device *dev, DType t, void *out, const void *inp, const int32_t *index,
                            int R, int C, int N);
// out[index[r],:] = inp[r,:]; other rows of out (N,C) stay. The index has no repeats. Exact.
// Each is the other's backward (after zeroing the target where rows are left out).
typedef void rows_scatter_fn(Device *dev, DType t, void *out, const void *inp, const int32_t *index,
                             int R, int C, int N);

embedding_fwd_fn embedding_fwd_cpu, embedding_fwd_cuda, embedding_fwd_emu;
embedding_bwd_fn embedding_bwd_cpu, embedding_bwd_cuda, embedding_bwd_emu;
rows_gather_fn rows_gather_cpu, rows_gather_cuda, rows_gather_emu;
rows_scatter_fn rows_scatter_cpu, rows_scatter_cuda, rows_scatter_emu;

#ifdef __cplusplus
}
#endif
#endif
