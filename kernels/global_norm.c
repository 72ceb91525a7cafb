// global_norm: sqrt(sum grad^2) and the clip factor; see global_norm.h.
//
// Blocks of 4096 are summed in lane order in f32; block sums are added in f64, ascending. Threads
// fill a fixed table of block sums, so their number does not change the order.
#include "global_norm.h"

#include "base.h"
#include "lanes.h"

#define BLOCK 4096
#define TABLE 256 // block sums held at once

void global_norm_cpu(Device *dev, float *norm, const float *grad, size_t n, float max_norm) {
    CHECK_POINTERS(global_norm, norm, grad);
    CHECK(n >= 1, "n=%zu", n);
    const size_t blocks = (n + BLOCK - 1) / BLOCK;
    double total = 0;
    for (size_t first = 0; first < blocks; first += TABLE) {
        const int count = (int)(blocks - first < TABLE ? blocks - first : TABLE);
        float sums[TABLE];
#pragma omp parallel for num_threads(device_threads(dev)) if (count > 4)
        for (int b = 0; b < count; b++) {
            const size_t i = (first + (size_t)b) * BLOCK;
            sums[b] = dot16(grad + i, grad + i, (int)(n - i < BLOCK ? n - i : BLOCK));
        }
        for (int b = 0; b < count; b++) {
            total += (double)sums[b];
        }
    }
    norm[0] = (float)sqrt(total);
    const double factor = max_norm <= 0 ? 1 : (double)max_norm / ((double)norm[0] + 1e-6);
    norm[1] = !isfinite(norm[0]) ? NAN : factor < 1 ? (float)factor : 1.0f;
}
