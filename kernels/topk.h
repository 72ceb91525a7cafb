// topk: exact inner-product search, the K best rows of an index for every query.
//
// score(q,m) = chain over e ascending of query[q,e] * row[m,e] by fused multiply-adds in f32, the
// query rounded to the row type first: the order of matmul, and its kernels.
// Order of results: computed score descending, then row number ascending. A NaN score is never a
// candidate. Never holds (Q,M) scores: tiles of the index are scored and folded into the running
// lists at once. Agreement: scores sum; ids exact on exactly representable data.
#ifndef JOMED_KERNELS_TOPK_H
#define JOMED_KERNELS_TOPK_H

#include <stdbool.h>

#include "device.h"
#include "dtype.h"

#define TOPK_MAX_K 1024

#ifdef __cplusplus
extern "C" {
#endif

// Searches rows first_row .. first_row + M - 1 (this shard) and merges with what scores/ids hold,
// so that shards may come one after the other in any order. is_first = true ignores what is there.
// Places left over hold score -inf and id -1; a row that truly scores -inf comes before them.
// scores: (Q,K) f32   ids: (Q,K) int32, global row numbers
// queries: (Q,E) f32   rows: (M,E) row_type
// query_group, row_group: (Q), (M) int32 or NULL: a row whose group equals the query's is not a
// candidate, except that group -1 matches nothing. 1 <= K <= TOPK_MAX_K. No aliasing.
typedef void topk_fn(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
                     const void *rows, const int32_t *query_group, const int32_t *row_group, int Q,
                     int M, int E, int K, int32_t first_row, bool is_first);

// Bytes of scratch: candidates (ops.h).
typedef size_t topk_scratch_fn(const Device *dev, DType row_type, int Q, int M, int E, int K);
topk_scratch_fn topk_scratch_cuda, topk_scratch_emu;

topk_fn topk_cpu, topk_cuda, topk_emu;
topk_fn topk_naive; // the definition as plain loops on the CPU: same bits as _cpu

#ifdef __cplusplus
}
#endif
#endif
