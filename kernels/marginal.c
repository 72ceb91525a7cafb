// marginal: the CPU definition; see marginal.h. A row is computed by marginal_parts.h.
#include "marginal.h"

#include "base.h"
#include "marginal_parts.h"

void marginal_cpu(Device *dev, float *loss, float *posterior, float *ds, const float *s,
                  const float *g, const int32_t *lengths, const float *weight,
                  const int32_t *predicted, int B, int K, int T, const MarginalConfig *config) {
    CHECK_POINTERS(marginal, loss, posterior, ds, s, g, config);
    check_marginal(B, K, T, lengths, predicted, config);
    const double reduction = marginal_reduction(B, K, config);
    const size_t work = (size_t)B * (size_t)K * (size_t)T; // exponentials, about
#pragma omp parallel for num_threads(device_threads(dev)) if (work > 4096)
    for (int b = 0; b < B; b++) {
        const size_t at = (size_t)b * (size_t)K;
        MarginalRow row = {.config = config, .s = s + at, .g = g + at * (size_t)T, .K = K, .T = T};
        row.length = config->mode == MARGINAL_EMDR2 ? lengths[b] : 1;
        CHECK(row.length >= 1 && row.length <= T, "lengths[%d]=%d T=%d", b, row.length, T);
        row.scale = reduction * (weight ? (double)weight[b] : 1);
        if (config->mode == MARGINAL_LEGACY_III && is_one_class(predicted + at, K)) {
            row.scale = 0;
        }
        marginal_row(&row, loss + 2 * b, posterior + at, ds + at);
    }
}
