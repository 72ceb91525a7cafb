// Bench of adamw, bound by memory: 16 bytes read and 12 written per parameter, 14 with a copy of 16
// bits. On a GPU all parameters of ViT-B/16 and of JinaBERT.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "bench/sampled.h"

typedef struct {
    DType t;
    void *param;
    float *master, *m, *v, *grad;
    AdamWCount *count;
    size_t n;
} Params;

static void adamw(void *ctx) {
    static const AdamWConfig config = {1e-4f, 0.9f, 0.999f, 1e-8f, 0.01f};
    Params *p = ctx;
    bench_ops()->adamw(bench_device(), p->t, p->param, p->master, p->m, p->v, p->count, p->grad,
                       NULL, NULL, p->n, &config);
}

static void bench_params(size_t n, DType t) {
    Params p = {.t = t, .n = n, .master = bench_normal(DT_F32, n), .grad = bench_normal(DT_F32, n)};
    p.m = bench_zeros(n * sizeof(float)), p.v = bench_zeros(n * sizeof(float));
    p.count = bench_zeros(sizeof *p.count);
    void *const narrow = t == DT_F32 ? NULL : bench_zeros(n * dtype_size(t));
    p.param = narrow ? narrow : p.master;
    const double before = bench_at(DT_F32, p.master, n - 1);
    const double grad = bench_at(DT_F32, p.grad, n - 1);
    adamw(&p); // the first update: m / sqrt(v) after correction is the gradient's sign
    const double want = before * (1 - 1e-4 * 0.01) - 1e-4 * grad / (fabs(grad) + 1e-8);
    expect_near("master", n - 1, bench_at(DT_F32, p.master, n - 1), want,
                8 * 0x1p-24 * fabs(before) + 1e-7);
    char shape[64];
    snprintf(shape, sizeof shape, "n=%zu %s", n, dtype_name(t));
    bench_time(shape, 0, (narrow ? 30.0 : 28.0) * (double)n, adamw, &p, NULL, NULL, NULL);
    BENCH_RELEASE(p.master, p.m, p.v, p.grad, p.count, narrow);
}

BENCH_OP(adamw) {
    for (int i = 0; i < 4; i++) {
        bench_params(i < 2 ? 110000 : 4000000, i % 2 ? DT_BF16 : DT_F32);
    }
}

BENCH_REAL(adamw) {
    bench_params((size_t)bench_shrunk(86567656), bench_dtype());
    bench_params((size_t)bench_shrunk(137368320), bench_dtype());
}
