// Bench of adamw: memory-bound; 16 bytes read and 12 written per parameter, 14 with a bf16 copy.
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    DType t;
    void *param;
    float *master, *m, *v, *grad;
    AdamWCount *count;
    size_t n;
    AdamWConfig config;
} Args;

static void run(void *ctx) {
    Args *const a = ctx;
    bench_ops()->adamw(bench_device(), a->t, a->param, a->master, a->m, a->v, a->count, a->grad,
                       NULL, NULL, a->n, &a->config);
}

BENCH_OP(adamw) {
    static const size_t sizes[] = {110000, 4000000};
    for (int i = 0; i < 4; i++) {
        const DType t = i % 2 ? DT_BF16 : DT_F32;
        const size_t n = sizes[i / 2];
        Args a = {.t = t, .n = n, .config = {1e-4f, 0.9f, 0.999f, 1e-8f, 0.01f}};
        a.master = bench_normal(DT_F32, n);
        a.param = t == DT_F32 ? a.master : bench_zeros(n * 2);
        a.m = bench_zeros(n * 4);
        a.v = bench_zeros(n * 4);
        a.count = bench_zeros(sizeof *a.count);
        a.grad = bench_normal(DT_F32, n);
        float before, after;
        device_copy_out(bench_device(), &before, a.master, 4);
        run(&a); // the first update moves every weight by about lr against its gradient's sign
        device_copy_out(bench_device(), &after, a.master, 4);
        CHECK((after < before) == (before > 0) && after != before, "%g to %g", (double)before,
              (double)after);
        char shape[64];
        snprintf(shape, sizeof shape, "n=%zu %s", n, dtype_name(t));
        bench_time(shape, 0, (t == DT_F32 ? 28.0 : 30.0) * (double)n, run, &a, NULL, NULL, NULL);
        if (t != DT_F32) {
            device_release(bench_device(), a.param);
        }
        void *const all[] = {a.master, a.m, a.v, a.grad, a.count};
        for (int k = 0; k < 5; k++) {
            device_release(bench_device(), all[k]);
        }
    }
}
