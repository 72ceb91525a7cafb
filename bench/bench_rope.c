// Rope at the shapes of the towers that use it, and its table.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

typedef struct {
    const char *name;
    int N, H, D;
    RopePairing pairing;
    DType t;
} Shape;

static const Shape shapes[] = {
    {"jina vision", 8 * 197, 12, 64, ROPE_INTERLEAVED, DT_F32},
    {"Qwen2-VL vision", 1024, 16, 80, ROPE_HALF, DT_BF16},
    {"Qwen2-VL language", 1024, 12, 128, ROPE_HALF, DT_F32},
    {"demo reader", 64 * 30, 4, 16, ROPE_HALF, DT_F32},
};

typedef struct {
    Shape s;
    void *x;
    float *cosine, *sine;
    int32_t *positions;
} Problem;

static void table(void *ctx) {
    const Problem *p = ctx;
    bench_ops()->rope_table(bench_device(), p->cosine, p->sine, p->positions, p->s.N, p->s.D,
                            ROPE_1D, 1e6, NULL);
}

static void forward(void *ctx) {
    const Problem *p = ctx;
    bench_ops()->rope_fwd(bench_device(), p->s.t, p->x, p->cosine, p->sine, p->s.N, p->s.H, p->s.D,
                          p->s.H * p->s.D, p->s.pairing);
}

static void backward(void *ctx) {
    const Problem *p = ctx;
    bench_ops()->rope_bwd(bench_device(), p->s.t, p->x, p->cosine, p->sine, p->s.N, p->s.H, p->s.D,
                          p->s.H * p->s.D, p->s.pairing);
}

// There and back again: the rotation and its inverse leave what was there, up to two roundings
// each.
static void check_problem(const Problem *p) {
    const size_t n = (size_t)p->s.N * p->s.H * p->s.D;
    float *before = xmalloc(n, sizeof *before);
    double moved = 0;
    dtype_widen(before, p->s.t, p->x, n);
    forward((void *)p);
    for (size_t i = 0; i < n; i++) {
        moved = fmax(moved, fabs(dtype_load(p->s.t, p->x, i) - before[i]));
    }
    backward((void *)p);
    const double unit = p->s.t == DT_F32 ? 0x1p-23 : 0x1p-7, largest = 6; // of normal deviates
    for (size_t i = 0; i < n; i++) {
        const double off = fabs(dtype_load(p->s.t, p->x, i) - before[i]);
        CHECK(off <= 4 * unit * largest, "x[%zu] is off by %g after a rotation and its inverse", i,
              off);
    }
    CHECK(moved > 0.1, "nothing turned");
    free(before);
}

static void bench_shapes(bench_fn *run) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const Shape s = shapes[i];
        const size_t n = (size_t)s.N * s.H * s.D, pairs = (size_t)s.N * s.D / 2;
        Problem p = {s, bench_normal(s.t, n), bench_zeros(pairs * sizeof(float)),
                     bench_zeros(pairs * sizeof(float)),
                     bench_zeros((size_t)s.N * sizeof(int32_t))};
        int32_t *host = xmalloc((size_t)s.N, sizeof *host);
        for (int m = 0; m < s.N; m++) {
            host[m] = m;
        }
        device_copy_in(bench_device(), p.positions, host, (size_t)s.N * sizeof *host);
        free(host);
        table(&p);
        check_problem(&p);
        char name[96];
        snprintf(name, sizeof name, "%s %d H=%d D=%d %s", s.name, s.N, s.H, s.D, dtype_name(s.t));
        const double bytes = 2.0 * (double)n * (double)dtype_size(s.t) + 8.0 * (double)pairs;
        bench_time(name, 0, run == table ? 8.0 * (double)pairs : bytes, run, &p, NULL, NULL, NULL);
        device_release(bench_device(), p.x);
        device_release(bench_device(), p.cosine);
        device_release(bench_device(), p.sine);
        device_release(bench_device(), p.positions);
    }
}

BENCH_OP(rope_table) { bench_shapes(table); }
BENCH_OP(rope_fwd) { bench_shapes(forward); }
BENCH_OP(rope_bwd) { bench_shapes(backward); }
