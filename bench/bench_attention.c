// Attention at the shapes of ViT-B/16 and of the demo. Every row is first held to the plain loops.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"

typedef struct {
    const char *name;
    int B, T, H, Hkv, D;
    bool is_causal;
} Shape;

static const Shape shapes[] = {
    {"ViT-B/16", 2, 197, 12, 12, 64, false},  {"demo tower", 128, 17, 4, 4, 16, false},
    {"demo reader", 64, 30, 4, 4, 16, true},  {"causal 4:1", 1, 512, 8, 2, 128, true},
    {"decoding 7:1", 1, 1, 28, 4, 128, true},
};

typedef struct {
    DType t;
    void *out, *q, *k, *v, *dout, *dq, *dk, *dv;
    float *lse, *delta;
    int32_t *cu_q, *cu_k;
    AttentionShape shape;
} Problem;

static int32_t *ends_new(int B, int T) {
    int32_t *ends = bench_zeros(((size_t)B + 1) * sizeof *ends);
    int32_t *host = xmalloc((size_t)B + 1, sizeof *host);
    for (int b = 0; b <= B; b++) {
        host[b] = b * T;
    }
    device_copy_in(bench_device(), ends, host, ((size_t)B + 1) * sizeof *ends);
    free(host);
    return ends;
}

static Problem problem_new(const Shape *s, DType t) {
    const int Tk = s->T == 1 ? 1000 : s->T; // one query is a decoding step behind 999 tokens
    const size_t q = (size_t)s->B * s->T * s->H * s->D, k = (size_t)s->B * Tk * s->Hkv * s->D;
    const size_t stats = (size_t)s->B * s->T * s->H * sizeof(float), size = dtype_size(t);
    Problem p = {.t = t, .out = bench_zeros(q * size), .dq = bench_zeros(q * size)};
    p.q = bench_normal(t, q), p.dout = bench_normal(t, q);
    p.k = bench_normal(t, k), p.v = bench_normal(t, k);
    p.dk = bench_zeros(k * size), p.dv = bench_zeros(k * size);
    p.lse = bench_zeros(stats), p.delta = bench_zeros(stats);
    p.cu_q = ends_new(s->B, s->T), p.cu_k = ends_new(s->B, Tk);
    const int q_width = s->H * s->D, k_width = s->Hkv * s->D;
    p.shape = (AttentionShape){.B = s->B, .H = s->H, .Hkv = s->Hkv, .D = s->D,
                               .cu_q = p.cu_q, .cu_k = p.cu_k,
                               .Nq = s->B * s->T, .Nk = s->B * Tk, .max_Tq = s->T, .max_Tk = Tk,
                               .q_stride = q_width, .k_stride = k_width,
                               .v_stride = k_width, .out_stride = q_width,
                               .is_causal = s->is_causal, .scale = (float)(1 / sqrt(s->D))};
    return p;
}

static void problem_free(Problem *p) {
    void *all[] = {p->out, p->q,  p->k,   p->v,     p->dout, p->dq,
                   p->dk,  p->dv, p->lse, p->delta, p->cu_q, p->cu_k};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void forward(void *ctx) {
    const Problem *p = ctx;
    bench_ops()->attention_fwd(bench_device(), p->t, p->out, p->lse, p->q, p->k, p->v, &p->shape);
}

static void backward(void *ctx) {
    const Problem *p = ctx;
    bench_ops()->attention_bwd(bench_device(), p->t, p->dq, p->dk, p->dv, p->delta, p->dout, p->out,
                               p->lse, p->q, p->k, p->v, &p->shape);
}

// n elements of a equal b's; the plain loops are the definition, so the bits must be the same.
static void check_same(const char *what, DType t, const void *a, const void *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float x = dtype_load(t, a, i), y = dtype_load(t, b, i);
        CHECK(x == y, "%s[%zu] is %.9g, the plain loop says %.9g", what, i, x, y);
    }
}

static void check_problem(const Problem *p, const Shape *s, DType t) {
    Problem plain = problem_new(s, t);
    const size_t q = (size_t)p->shape.Nq * s->H * s->D, k = (size_t)p->shape.Nk * s->Hkv * s->D;
    attention_fwd_naive(bench_device(), t, plain.out, plain.lse, p->q, p->k, p->v, &p->shape);
    attention_bwd_naive(bench_device(), t, plain.dq, plain.dk, plain.dv, plain.delta, p->dout,
                        plain.out, plain.lse, p->q, p->k, p->v, &p->shape);
    check_same("out", t, p->out, plain.out, q);
    check_same("dq", t, p->dq, plain.dq, q);
    check_same("dk", t, p->dk, plain.dk, k);
    check_same("dv", t, p->dv, plain.dv, k);
    problem_free(&plain);
}

// products: matrix products of (T,T,D) that the pass needs, 2 forward and 5 backward.
static void bench_shapes(bench_fn *run, const char *pass, int products) {
    for (int i = 0; i < 2 * (int)(sizeof shapes / sizeof *shapes); i++) {
        const Shape *s = &shapes[i / 2];
        const DType t = (DType)(i % 2);
        Problem p = problem_new(s, t);
        forward(&p);
        backward(&p);
        check_problem(&p, s, t);
        const double pairs =
            (double)p.shape.Nq * p.shape.max_Tk * s->H * (s->is_causal && s->T > 1 ? 0.5 : 1);
        const bool has_peer = t == DT_F32 && s->T > 1;
        bench_fn *peer = has_peer ? peer_torch("attention_%s %d %d %d %d %d %d", pass, s->B, s->T,
                                               s->H, s->Hkv, s->D, s->is_causal)
                                  : NULL;
        char name[96];
        snprintf(name, sizeof name, "%s %dx%d H=%d D=%d %s", s->name, s->B, s->T, s->H, s->D,
                 dtype_name(t));
        bench_time(name, 2 * products * pairs * s->D, 0, run, &p, "PyTorch", peer, NULL);
        problem_free(&p);
    }
}

BENCH_OP(attention_fwd) { bench_shapes(forward, "fwd", 2); }
BENCH_OP(attention_bwd) { bench_shapes(backward, "bwd", 5); }
