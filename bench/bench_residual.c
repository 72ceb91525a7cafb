// Sums and casts of whole tensors: nothing but memory traffic.
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    DType t, from;
    size_t n;
    void *out, *a, *b;
} Job;

static void run_residual(void *ctx) {
    const Job *j = ctx;
    bench_ops()->residual_fwd(bench_device(), j->t, j->out, j->a, j->b, j->n);
}
static void run_cast(void *ctx) {
    const Job *j = ctx;
    bench_ops()->cast(bench_device(), j->t, j->out, j->from, j->a, j->n);
}

// Exact in every type: 1.5 plus 0.75, and 1.5 as it is.
static void check_exact(bench_fn *run, DType t, DType from, float want) {
    Job job = {.t = t, .from = from, .n = 1, .out = bench_zeros(4), .a = bench_zeros(4),
               .b = bench_zeros(4)};
    float got[2] = {0};
    dtype_store(from, got, 0, 1.5f), device_copy_in(bench_device(), job.a, got, 4);
    dtype_store(from, got, 0, 0.75f), device_copy_in(bench_device(), job.b, got, 4);
    run(&job);
    device_copy_out(bench_device(), got, job.out, 4);
    CHECK(dtype_load(t, got, 0) == want, "%g, want %g", (double)dtype_load(t, got, 0),
          (double)want);
    device_release(bench_device(), job.out), device_release(bench_device(), job.a);
    device_release(bench_device(), job.b);
}

// Each tensor once: `inputs` of type from, one output of type t.
static void bench_pair(bench_fn *run, DType t, DType from, int inputs, float want) {
    static const size_t sizes[] = {(size_t)64 * 1024, (size_t)4 * 1024 * 1024};
    check_exact(run, t, from, want);
    for (int k = 0; k < 2; k++) {
        const size_t n = sizes[k];
        Job job = {t, from, n, bench_zeros(n * dtype_size(t)), bench_normal(from, n),
                   bench_normal(from, n)};
        char shape[64];
        snprintf(shape, sizeof shape, "n=%zu %s%s%s", n, dtype_name(from), t == from ? "" : " to ",
                 t == from ? "" : dtype_name(t));
        bench_time(shape, 0,
                   (double)n * (double)(dtype_size(t) + (size_t)inputs * dtype_size(from)), run,
                   &job, NULL, NULL, NULL);
        device_release(bench_device(), job.out), device_release(bench_device(), job.a);
        device_release(bench_device(), job.b);
    }
}

BENCH_OP(residual_fwd) {
    bench_pair(run_residual, DT_F32, DT_F32, 2, 2.25f);
    bench_pair(run_residual, DT_BF16, DT_BF16, 2, 2.25f);
}
BENCH_OP(cast) {
    for (int to = 0; to < DT_COUNT; to++) {
        for (int from = 0; from < DT_COUNT; from++) {
            if (to != from) {
                bench_pair(run_cast, (DType)to, (DType)from, 1, 1.5f);
            }
        }
    }
}
