// Bench of marginal: one training step of the method and of the demo, and a long list.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

typedef struct {
    int B, K;
    float *loss, *posterior, *ds, *s, *g;
    MarginalConfig config;
} Args;

static void run(void *ctx) {
    Args *const a = ctx;
    bench_ops()->marginal(bench_device(), a->loss, a->posterior, a->ds, a->s, a->g, NULL, NULL,
                          NULL, a->B, a->K, 1, &a->config);
}

BENCH_OP(marginal) {
    static const int shapes[][2] = {{2, 50}, {8, 32}, {64, 1024}};
    static const MarginalMode modes[] = {MARGINAL_MARGINAL, MARGINAL_JOMED};
    for (int i = 0; i < 6; i++) {
        const int B = shapes[i / 2][0], K = shapes[i / 2][1];
        const size_t n = (size_t)B * (size_t)K;
        Args a = {B,
                  K,
                  bench_zeros((size_t)B * 8),
                  bench_zeros(n * 4),
                  bench_zeros(n * 4),
                  bench_normal(DT_F32, n),
                  bench_normal(DT_F32, n),
                  {.mode = modes[i % 2], .Ts = 1, .Tg = 1}};
        run(&a);
        float *posterior = xmalloc((size_t)K, sizeof *posterior), sum = 0;
        device_copy_out(bench_device(), posterior, a.posterior, (size_t)K * 4);
        for (int d = 0; d < K; d++) {
            sum += posterior[d];
        }
        free(posterior);
        CHECK(fabsf(sum - 1) < 1e-4f, "posterior sums to %g", (double)sum);
        char shape[64];
        snprintf(shape, sizeof shape, "B=%d K=%d %s", B, K, i % 2 ? "jomed" : "marginal");
        bench_time(shape, 0, 4.0 * 4 * (double)n, run, &a, NULL, NULL, NULL);
        void *const all[] = {a.loss, a.posterior, a.ds, a.s, a.g};
        for (int k = 0; k < 5; k++) {
            device_release(bench_device(), all[k]);
        }
    }
}
