// The activations on a tensor that fits the second-level cache and on one that does not.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"

typedef struct {
    DType t;
    size_t n;
    Activation act;
    void *a, *b, *c, *d, *e;
} Job;

static void run_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->activation_fwd(bench_device(), j->t, j->a, j->c, j->n, j->act);
}
static void run_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->activation_bwd(bench_device(), j->t, j->a, j->d, j->c, j->n, j->act);
}
static void run_gated_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->gated_fwd(bench_device(), j->t, j->a, j->c, j->d, j->n, j->act);
}
static void run_gated_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->gated_bwd(bench_device(), j->t, j->a, j->b, j->c, j->d, j->e, j->n, j->act);
}

// act(x) - act(-x) = x, whatever the activation.
static void check_odd_part(Activation act) {
    const float x[2] = {1.25f, -1.25f};
    float y[2];
    Device *dev = bench_device();
    float *inp = bench_zeros(sizeof x), *out = bench_zeros(sizeof y);
    device_copy_in(dev, inp, x, sizeof x);
    bench_ops()->activation_fwd(dev, DT_F32, out, inp, 2, act);
    device_copy_out(dev, y, out, sizeof y);
    CHECK(fabsf(y[0] - y[1] - 1.25f) < 1e-6f && y[0] > 0.9f, "act(1.25)=%g", (double)y[0]);
    device_release(dev, inp), device_release(dev, out);
}

// problem: the peer's name for it, or NULL.
static void bench_all(bench_fn *run, const char *problem, int tensors) {
    static const char *const names[ACT_COUNT] = {"gelu", "gelu_tanh", "quick_gelu", "silu"};
    static const size_t sizes[] = {(size_t)32 * 1024, (size_t)4 * 1024 * 1024};
    for (int k = 0; k < ACT_COUNT * 4; k++) {
        Job job = {.act = (Activation)(k / 4), .n = sizes[k / 2 % 2],
                   .t = k % 2 ? DT_BF16 : DT_F32};
        void **all[] = {&job.a, &job.b, &job.c, &job.d, &job.e};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            *all[i] = bench_normal(job.t, job.n);
        }
        check_odd_part(job.act);
        bench_fn *peer = problem && job.t == DT_F32
                             ? peer_torch("%s %zu %d", problem, job.n, (int)job.act)
                             : NULL;
        char shape[64];
        snprintf(shape, sizeof shape, "%s n=%zu %s", names[job.act], job.n, dtype_name(job.t));
        bench_time(shape, 0, (double)tensors * (double)(job.n * dtype_size(job.t)), run, &job,
                   "PyTorch", peer, NULL);
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            device_release(bench_device(), *all[i]);
        }
    }
}

BENCH_OP(activation_fwd) { bench_all(run_fwd, "activation_fwd", 2); }
BENCH_OP(activation_bwd) { bench_all(run_bwd, "activation_bwd", 3); }
BENCH_OP(gated_fwd) { bench_all(run_gated_fwd, NULL, 3); }
BENCH_OP(gated_bwd) { bench_all(run_gated_bwd, NULL, 5); }
