// marginal: from retriever scores and reader evidence to loss, posterior and dL/ds on CUDA; see
// marginal.h.
//
// A thread computes a whole row by the text of the CPU (marginal_parts.h): K is some fifty, a batch
// some hundred rows, and everything is in f64, so the op takes microseconds either way.
//
//   version  idea                shape  time                  % of peak
//   kernel1  one row per thread  -      not yet run on a GPU  -
#include "marginal.h"

#include <assert.h>

#include "cuda_common.cuh"
#include "marginal_parts.h"

// Launch: any grid, BLOCK threads. No shared memory; 1 KB of local memory a thread (EMDR2).
static const int BLOCK = 32;

static __global__ void marginal_kernel1(float *loss, float *posterior, float *ds, const float *s,
                                        const float *g, const int32_t *lengths,
                                        const float *weight, const int32_t *predicted, int B,
                                        int K, int T, double reduction, MarginalConfig config) {
    GRID_STRIDE(b, (size_t)B) {
        const size_t at = b * K;
        MarginalRow row = {}; // low and high are of one mode only
        row.config = &config;
        row.s = s + at;
        row.g = g + at * T;
        row.K = K;
        row.T = T;
        row.length = config.mode == MARGINAL_EMDR2 ? lengths[b] : 1;
        assert(row.length >= 1 && row.length <= T);
        row.scale = reduction * (weight ? (double)weight[b] : 1);
        if (config.mode == MARGINAL_LEGACY_III && is_one_class(predicted + at, K)) {
            row.scale = 0;
        }
        marginal_row(&row, loss + 2 * b, posterior + at, ds + at);
    }
}

CUDA_OP(marginal)(Device *dev, float *loss, float *posterior, float *ds, const float *s,
                  const float *g, const int32_t *lengths, const float *weight,
                  const int32_t *predicted, int B, int K, int T, const MarginalConfig *config) {
    CHECK_POINTERS(marginal, loss, posterior, ds, s, g, config);
    check_marginal(B, K, T, lengths, predicted, config);
    LAUNCH(marginal_kernel1, grid_for(B, BLOCK), BLOCK, 0, device_stream(dev), loss, posterior, ds,
           s, g, lengths, weight, predicted, B, K, T, marginal_reduction(B, K, config), *config);
}
