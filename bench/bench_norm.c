// Norms at the widths of towers and readers; on a GPU over all rows of 256 images (ViT-B/16) and of
// 100 prompts (Qwen2-VL-7B). Least traffic: each (N,C) tensor once.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"
#include "bench/sampled.h"

#define EPS 1e-6f

// ---- the problem ----
typedef struct {
    DType t;
    int N, C;
    void *out, *inp, *dout, *weight, *bias;
    float *mean, *rstd, *dweight, *dbias;
} Norm;

static Norm norm_new(DType t, int N, int C) {
    const size_t n = (size_t)N * C;
    Norm x = {.t = t, .N = N, .C = C, .out = bench_zeros(n * dtype_size(t))};
    x.inp = bench_normal(t, n), x.dout = bench_normal(t, n);
    x.weight = bench_normal(t, (size_t)C), x.bias = bench_normal(t, (size_t)C);
    x.mean = bench_zeros((size_t)N * sizeof(float));
    x.rstd = bench_zeros((size_t)N * sizeof(float));
    x.dweight = bench_zeros((size_t)C * sizeof(float));
    x.dbias = bench_zeros((size_t)C * sizeof(float));
    return x;
}

static void norm_free(Norm *x) {
    BENCH_RELEASE(x->out, x->inp, x->dout, x->weight, x->bias, x->mean, x->rstd, x->dweight,
                  x->dbias);
}

static void layernorm(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->layernorm_fwd(bench_device(), x->t, x->out, x->mean, x->rstd, x->inp, x->weight,
                               x->bias, x->N, x->C, EPS);
}
static void layernorm_backward(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->layernorm_bwd(bench_device(), x->t, x->out, x->dweight, x->dbias, NULL, x->dout,
                               x->inp, x->weight, x->mean, x->rstd, x->N, x->C);
}
static void rmsnorm(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->rmsnorm_fwd(bench_device(), x->t, x->out, x->rstd, x->inp, x->weight, x->N, x->C,
                             EPS);
}
static void rmsnorm_backward(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->rmsnorm_bwd(bench_device(), x->t, x->out, x->dweight, NULL, x->dout, x->inp,
                             x->weight, x->rstd, x->N, x->C);
}

// What is timed: a forward, or (bwd) the backward behind it.
typedef struct {
    const char *peer; // of peer_torch
    bench_fn *fwd, *bwd;
    bool has_mean;
} Pass;
static const Pass layernorm_pass[] = {{"layernorm_fwd", layernorm, NULL, true},
                                      {"layernorm_bwd", layernorm, layernorm_backward, true}};
static const Pass rmsnorm_pass[] = {{"rmsnorm_fwd", rmsnorm, NULL, false},
                                    {"rmsnorm_bwd", rmsnorm, rmsnorm_backward, false}};

// The last row of a forward. Two roundings to the type at most, and sums of C terms in f32.
static void check_norm(const Norm *x, bool has_mean) {
    const size_t C = (size_t)x->C, first = (size_t)(x->N - 1) * C;
    float *inp = sampled_new(x->t, x->inp, first, C), *out = sampled_new(x->t, x->out, first, C);
    float *weight = sampled_new(x->t, x->weight, 0, C), *bias = sampled_new(x->t, x->bias, 0, C);
    double mean = 0, size = 0, square = 0;
    for (size_t c = 0; c < C; c++) {
        mean += has_mean ? inp[c] / (double)C : 0;
        size += fabs(inp[c]) / (double)C;
    }
    for (size_t c = 0; c < C; c++) {
        square += (inp[c] - mean) * (inp[c] - mean) / (double)C;
    }
    for (size_t c = 0; c < C; c++) {
        const double rstd = 1 / sqrt(square + EPS);
        const double want = (inp[c] - mean) * rstd * weight[c] + (has_mean ? bias[c] : 0);
        const double terms = (fabs(inp[c]) + size) * rstd * fabs(weight[c]);
        expect_near("norm", c, out[c], want,
                    2 * unit_of(x->t) * fabs(want) + 2 * x->C * 0x1p-24 * terms);
    }
    free(inp);
    free(out);
    free(weight);
    free(bias);
}

static void bench_norm(const Pass *pass, DType t, int N, int C) {
    const double bytes = (pass->bwd ? 3.0 : 2.0) * N * C * (double)dtype_size(t);
    const int copies = bench_copies(bytes);
    Norm x[BENCH_COPIES];
    for (int c = 0; c < copies; c++) {
        x[c] = norm_new(t, N, C);
        pass->fwd(&x[c]);
    }
    check_norm(x, pass->has_mean);
    const bool has_peer = t == DT_F32 && device_kind(bench_device()) == DEVICE_CPU;
    char shape[64];
    snprintf(shape, sizeof shape, "N=%d C=%d %s", N, C, dtype_name(t));
    bench_time_turns(shape, 0, bytes, pass->bwd ? pass->bwd : pass->fwd, x, sizeof *x, copies,
                     "PyTorch", has_peer ? peer_torch("%s %d %d", pass->peer, N, C) : NULL);
    for (int c = 0; c < copies; c++) {
        norm_free(&x[c]);
    }
}

// ---- rows ----
static void bench_towers(const Pass *pass) {
    static const int shapes[][2] = {{2176, 64}, {197, 768}, {4096, 768}, {577, 1024}, {1024, 3584}};
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
        bench_norm(pass, k % 2 ? DT_BF16 : DT_F32, shapes[k / 2][0], shapes[k / 2][1]);
    }
}

static void bench_readers(const Pass *pass) {
    static const int shapes[][2] = {{256, 1536}, {1024, 1536}, {1024, 3584}, {1024, 5120}};
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
        bench_norm(pass, k % 2 ? DT_BF16 : DT_F32, shapes[k / 2][0], shapes[k / 2][1]);
    }
}

BENCH_OP(layernorm_fwd) { bench_towers(&layernorm_pass[0]); }
BENCH_OP(layernorm_bwd) { bench_towers(&layernorm_pass[1]); }
BENCH_OP(rmsnorm_fwd) { bench_readers(&rmsnorm_pass[0]); }
BENCH_OP(rmsnorm_bwd) { bench_readers(&rmsnorm_pass[1]); }

static void bench_real(const Pass *pass, int N, int C) {
    bench_norm(pass, bench_dtype(), bench_shrunk(N), C);
}
BENCH_REAL(layernorm_fwd) { bench_real(&layernorm_pass[0], 50432, 768); }
BENCH_REAL(layernorm_bwd) { bench_real(&layernorm_pass[1], 50432, 768); }
BENCH_REAL(rmsnorm_fwd) { bench_real(&rmsnorm_pass[0], 35000, 3584); }
BENCH_REAL(rmsnorm_bwd) { bench_real(&rmsnorm_pass[1], 35000, 3584); }
