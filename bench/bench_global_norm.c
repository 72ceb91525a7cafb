// Bench of global_norm: one read of all gradients.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    float *norm, *grad;
    size_t n;
} Args;

static void run(void *ctx) {
    Args *const a = ctx;
    bench_ops()->global_norm(bench_device(), a->norm, a->grad, a->n, 1.0f);
}

BENCH_OP(global_norm) {
    static const size_t sizes[] = {110000, 16000000};
    for (int i = 0; i < 2; i++) {
        Args a = {bench_zeros(8), bench_normal(DT_F32, sizes[i]), sizes[i]};
        run(&a);
        float norm[2];
        device_copy_out(bench_device(), norm, a.norm, sizeof norm);
        CHECK(fabs((double)norm[0] / sqrt((double)a.n) - 1) < 0.02, "norm %g", (double)norm[0]);
        char shape[64];
        snprintf(shape, sizeof shape, "n=%zu", a.n);
        bench_time(shape, 2.0 * (double)a.n, 4.0 * (double)a.n, run, &a, NULL, NULL, NULL);
        device_release(bench_device(), a.norm);
        device_release(bench_device(), a.grad);
    }
}
