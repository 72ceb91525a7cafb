// label_logprob: raw logits and log-probabilities of chosen tokens, and each row's greedy token;
// see label_logprob.h.
//
// One pass for the maximum, one for the sum of exponentials, and a search for the first element
// that equals the maximum. Rows are shared out to threads; picks are a gather.
#include "label_logprob.h"

#include "base.h"
#include "logsumexp.h"

// First element equal to max; 0 in a row of NaN, which has no largest element.
static int32_t first_equal(DType t, const void *row, int V, float max) {
    float block[CHUNK];
    for (int i = 0; i < V; i += CHUNK) {
        const int size = chunk_length((size_t)V, (size_t)i);
        const float *const x = chunk_in(block, t, row, (size_t)i, size);
        for (int j = 0; j < size; j++) {
            if (x[j] == max) {
                return i + j;
            }
        }
    }
    return 0;
}

void label_logprob_cpu(Device *dev, DType t, float *raw, float *logprob, int32_t *greedy,
                       float *lse, const void *logits, const int32_t *row, const int32_t *token,
                       int S, int R, int V) {
    CHECK_POINTERS(label_logprob, raw, logprob, greedy, lse, logits, row, token);
    CHECK(S >= 1 && R >= 1 && V >= 1, "S=%d R=%d V=%d", S, R, V);
#pragma omp parallel for num_threads(threads_for(dev, (size_t)R * (size_t)V))
    for (int r = 0; r < R; r++) {
        const void *const x = dtype_at_const(t, logits, (size_t)r * (size_t)V);
        const float max = row_max(t, x, V);
        lse[r] = row_logsumexp(t, x, V, max);
        greedy[r] = first_equal(t, x, V, max);
    }
    for (int s = 0; s < S; s++) {
        CHECK(row[s] >= 0 && row[s] < R && token[s] >= 0 && token[s] < V,
              "pick %d: row %d of %d, token %d of %d", s, row[s], R, token[s], V);
        raw[s] = dtype_load(t, logits, (size_t)row[s] * (size_t)V + (size_t)token[s]);
        logprob[s] = raw[s] - lse[row[s]];
    }
}
