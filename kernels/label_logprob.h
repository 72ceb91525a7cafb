// label_logprob: what the score store keeps of a row of logits.
#ifndef JOMED_KERNELS_LABEL_LOGPROB_H
#define JOMED_KERNELS_LABEL_LOGPROB_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

// For each of S picks s = (row[s], token[s]):
//   raw[s] = logits[row, token]      logprob[s] = raw[s] - log sum_v exp(logits[row, v])
// and for each of R rows: greedy[r] = the token of the largest logit, the lowest one on a tie (NaN
// is passed over; 0 where nothing else is there).
// The sum over the tokens of a label is the caller's. lse: (R) f32 on return.
// raw, logprob: (S) f32   greedy: (R)   logits: (R,V) t   row, token: (S). Lane order. Agreement:
// sum; greedy exact.
typedef void label_logprob_fn(Device *dev, DType t, float *raw, float *logprob, int32_t *greedy,
                              float *lse, const void *logits, const int32_t *row,
                              const int32_t *token, int S, int R, int V);

label_logprob_fn label_logprob_cpu, label_logprob_cuda, label_logprob_emu;

#ifdef __cplusplus
}
#endif
#endif
