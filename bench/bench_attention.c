// Attention: of ViT-B/16 and of the demo on a CPU, beside PyTorch; of the real models on a GPU,
// beside cuDNN.
//
// q, k and v are packed rows, as the blocks have them. Work counts the products of pairs that see
// each other, two forward and five backward; traffic is each tensor once.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"
#include "bench/sampled.h"
#include "kernels/vendor_cudnn.h"

// ---- the problem ----
typedef struct {
    const char *model;
    int B, T, H, Hkv, D;
    bool is_causal, has_alibi;
} Shape;

#define DECODED 1000 // keys of a row with one query: a decoding step behind 999 tokens
static const Shape small_shapes[] = {
    {"ViT-B/16", 2, 197, 12, 12, 64, false, false},
    {"demo tower", 128, 17, 4, 4, 16, false, false},
    {"demo reader", 64, 30, 4, 4, 16, true, false},
    {"causal 4:1", 1, 512, 8, 2, 128, true, false},
    {"decoding 7:1", 1, 1, 28, 4, 128, true, false},
};

// 102 images: of 100 passages and of the two queries that retrieved them.
static const Shape real_shapes[] = {
    {"ViT", 256, 197, 12, 12, 64, false, false},
    {"ViT", 256, 256, 12, 12, 64, false, false},
    {"Jina", 128, 512, 12, 12, 64, false, true},
    {"Qwen-vision", 102, 324, 16, 16, 80, false, false},
    {"Qwen", 100, 350, 28, 4, 128, true, false},
};

typedef struct {
    DType t;
    void *out, *q, *k, *v, *dout, *dq, *dk, *dv;
    float *lse, *delta, *alibi;
    int32_t *cu_q, *cu_k;
    AttentionShape shape;
    CudnnAttention *vendor; // NULL: it is not there, or does not do this
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

static float *slopes_new(int H) {
    float *slopes = bench_zeros((size_t)H * sizeof *slopes);
    float *host = xmalloc((size_t)H, sizeof *host);
    for (int h = 0; h < H; h++) {
        host[h] = (float)exp2(-8.0 * (h + 1) / H);
    }
    device_copy_in(bench_device(), slopes, host, (size_t)H * sizeof *slopes);
    free(host);
    return slopes;
}

static Problem problem_new(const Shape *s, DType t) {
    const int B = bench_shrunk(s->B), Tk = s->T == 1 ? DECODED : s->T, Nq = B * s->T, Nk = B * Tk;
    const size_t q = (size_t)Nq * s->H * s->D, k = (size_t)Nk * s->Hkv * s->D, size = dtype_size(t);
    const size_t stats = (size_t)Nq * s->H * sizeof(float);
    Problem p = {.t = t, .out = bench_zeros(q * size), .dq = bench_zeros(q * size)};
    p.q = bench_normal(t, q), p.dout = bench_normal(t, q);
    p.k = bench_normal(t, k), p.v = bench_normal(t, k);
    p.dk = bench_zeros(k * size), p.dv = bench_zeros(k * size);
    p.lse = bench_zeros(stats), p.delta = bench_zeros(stats);
    p.cu_q = ends_new(B, s->T), p.cu_k = ends_new(B, Tk);
    p.alibi = s->has_alibi ? slopes_new(s->H) : NULL;
    p.shape = (AttentionShape){.B = B, .H = s->H, .Hkv = s->Hkv, .D = s->D, .cu_q = p.cu_q,
                               .cu_k = p.cu_k, .Nq = Nq, .Nk = Nk, .max_Tq = s->T, .max_Tk = Tk,
                               .q_stride = s->H * s->D, .k_stride = s->Hkv * s->D,
                               .v_stride = s->Hkv * s->D, .out_stride = s->H * s->D,
                               .is_causal = s->is_causal, .scale = (float)(1 / sqrt(s->D)),
                               .alibi = p.alibi};
    return p;
}

static void vendor_forward(void *ctx) {
    const Problem *p = ctx;
    cudnn_attention_fwd(bench_device(), p->vendor, p->out, p->q, p->k, p->v);
}

// Says on stderr why there is no cuDNN beside a shape; the rows then come without it.
static void add_vendor(Problem *p, const char *name) {
    char why[200] = "not in this build";
    if (device_kind(bench_device()) == DEVICE_CUDA) {
        p->vendor = cudnn_attention_new
                        ? cudnn_attention_new(bench_device(), p->t, &p->shape, why, sizeof why)
                        : NULL;
        if (!p->vendor) {
            fprintf(stderr, "bench: no cuDNN beside %s: %s\n", name, why);
        }
    }
}

static void problem_free(Problem *p) {
    if (p->vendor) {
        cudnn_attention_free(bench_device(), p->vendor);
    }
    BENCH_RELEASE(p->out, p->q, p->k, p->v, p->dout, p->dq, p->dk, p->dv, p->lse, p->delta,
                  p->alibi, p->cu_q, p->cu_k);
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

// ---- check ----
static double dot(const float *a, const float *b, int D) {
    double sum = 0;
    for (int d = 0; d < D; d++) {
        sum += (double)a[d] * b[d];
    }
    return sum;
}

// One query's probabilities over the keys of its sequence: of row i and head h, in f64. Returns
// what the magnitudes of a score's products sum to at most.
static double probabilities(double *p, const Problem *problem, const float *q, const float *k,
                            int i, int h) {
    const AttentionShape *s = &problem->shape;
    const int T = s->max_Tk, place = T - s->max_Tq + i, seen = s->is_causal ? place + 1 : T;
    const double slope = s->alibi ? bench_at(DT_F32, s->alibi, (size_t)h) : 0;
    double most = -INFINITY, sum = 0, longest = 0;
    for (int j = 0; j < T; j++) {
        const float *key = k + (size_t)j * (size_t)s->k_stride;
        p[j] = j < seen ? s->scale * dot(q, key, s->D) - slope * abs(place - j) : -INFINITY;
        most = fmax(most, p[j]);
        longest = fmax(longest, dot(key, key, s->D));
    }
    for (int j = 0; j < T; j++) {
        sum += p[j] = exp(p[j] - most);
    }
    for (int j = 0; j < T; j++) {
        p[j] /= sum;
    }
    return s->scale * sqrt(longest * dot(q, q, s->D));
}

// Row i and head h of the last sequence: out and dq. Rounded to the type on the way: probabilities,
// ds, out (which delta = sum dout out takes over), and the results; each once, so the bounds are
// twice the sums of what one rounding of each can do. dk and dv are for the tests.
static void check_row(const Problem *problem, int i, int h) {
    const AttentionShape *s = &problem->shape;
    const int D = s->D, T = s->max_Tk;
    const size_t last = (size_t)(s->B - 1), head = (size_t)h * (size_t)D, n = (size_t)D;
    const size_t row = (last * (size_t)s->max_Tq + (size_t)i) * (size_t)s->q_stride + head;
    const size_t key = last * (size_t)T * (size_t)s->k_stride +
                       (size_t)(h / (s->H / s->Hkv)) * (size_t)D;
    const size_t keys = (size_t)(T - 1) * (size_t)s->k_stride + n;
    float *q = sampled_new(problem->t, problem->q, row, n);
    float *dout = sampled_new(problem->t, problem->dout, row, n);
    float *k = sampled_new(problem->t, problem->k, key, keys);
    float *v = sampled_new(problem->t, problem->v, key, keys);
    float *got = sampled_new(problem->t, problem->out, row, n);
    float *got_dq = sampled_new(problem->t, problem->dq, row, n);
    double *p = xmalloc((size_t)T, sizeof *p);
    const double score_size = probabilities(p, problem, q, k, i, h);
    double delta = 0, delta_size = 0;
    // And what f32 does to the sums over keys and, through the exponential, to the scores.
    const double u = unit_of(problem->t) + (T + D * (1 + score_size)) * 0x1p-24;
    for (int d = 0; d < D; d++) {
        double out = 0, size = 0;
        for (int j = 0; j < T; j++) {
            const double term = p[j] * v[(size_t)j * (size_t)s->v_stride + (size_t)d];
            out += term;
            size += fabs(term);
        }
        expect_near("out", row + (size_t)d, got[d], out, 2 * u * (size + fabs(out)));
        delta += dout[d] * out;
        delta_size += fabs(dout[d]) * size;
    }
    for (int d = 0; d < D; d++) {
        double dq = 0, size = 0;
        for (int j = 0; j < T; j++) {
            const double kd = k[(size_t)j * (size_t)s->k_stride + (size_t)d] * s->scale;
            const double dp = dot(dout, v + (size_t)j * (size_t)s->v_stride, D);
            dq += p[j] * (dp - delta) * kd;
            size += p[j] * (fabs(dp) + fabs(delta) + delta_size) * fabs(kd);
        }
        expect_near("dq", row + (size_t)d, got_dq[d], dq, 2 * u * (size + fabs(dq)));
    }
    void *const all[] = {q, dout, k, v, got, got_dq, p};
    for (size_t a = 0; a < sizeof all / sizeof *all; a++) {
        free(all[a]);
    }
}

// ---- rows ----
// What is timed: `products` of pairs, and tensors of the queries' and of the keys' size.
typedef struct {
    const char *peer; // of peer_torch
    bench_fn *run, *vendor;
    int products, queries, keys;
} Pass;
static const Pass pass_fwd = {"attention_fwd", forward, vendor_forward, 2, 2, 2}; // q, out; k, v
static const Pass pass_bwd = {"attention_bwd", backward, NULL, 5, 4, 4}; // and their gradients

static bench_fn *torch_peer(const Pass *pass, const Shape *s, DType t) {
    const bool has_peer = device_kind(bench_device()) == DEVICE_CPU && !bench_is_shrunk() &&
                          t == DT_F32 && s->T > 1;
    return has_peer ? peer_torch("%s %d %d %d %d %d %d", pass->peer, s->B, s->T, s->H, s->Hkv, s->D,
                                 s->is_causal)
                    : NULL;
}

static void bench_shape(const Pass *pass, const Shape *s, DType t) {
    Problem p[BENCH_COPIES] = {problem_new(s, t)};
    const double Nq = p->shape.Nq, Nk = p->shape.Nk, D = s->D, Tk = p->shape.max_Tk;
    const double pairs = Nq * (s->is_causal && s->T > 1 ? (Tk + 1) / 2 : Tk);
    const double rows = pass->queries * Nq * s->H + pass->keys * Nk * s->Hkv;
    const double bytes = rows * D * (double)dtype_size(t) + 4 * Nq * s->H;
    const int copies = bench_copies(bytes);
    for (int c = 0; c < copies; c++) {
        p[c] = c ? problem_new(s, t) : p[0];
        forward(&p[c]);
        backward(&p[c]);
    }
    check_row(p, 0, 0);
    check_row(p, s->T - 1, s->H - 1);
    check_row(p, s->T / 2, s->H / 2);
    char name[96];
    snprintf(name, sizeof name, "%s B=%d T=%d H=%d Hkv=%d D=%d%s%s %s", s->model, p->shape.B, s->T,
             s->H, s->Hkv, s->D, s->is_causal ? " causal" : "", s->has_alibi ? " alibi" : "",
             dtype_name(t));
    for (int c = 0; c < copies && pass->vendor && (c == 0 || p->vendor); c++) {
        add_vendor(&p[c], name);
    }
    bench_fn *torch = torch_peer(pass, s, t);
    bench_time_turns(name, 2 * pass->products * pairs * s->H * D, bytes, pass->run, p, sizeof *p,
                     copies, torch ? "PyTorch" : "cuDNN", p->vendor ? pass->vendor : torch);
    for (int c = 0; c < copies; c++) {
        problem_free(&p[c]);
    }
}

static void bench_small(const Pass *pass) {
    for (size_t i = 0; i < 2 * sizeof small_shapes / sizeof *small_shapes; i++) {
        bench_shape(pass, &small_shapes[i / 2], i % 2 ? DT_BF16 : DT_F32);
    }
}
BENCH_OP(attention_fwd) { bench_small(&pass_fwd); }
BENCH_OP(attention_bwd) { bench_small(&pass_bwd); }

static void bench_real(const Pass *pass) {
    for (size_t i = 0; i < sizeof real_shapes / sizeof *real_shapes; i++) {
        Shape s = real_shapes[i];
        s.H /= bench_is_shrunk() ? 4 : 1;
        s.Hkv /= bench_is_shrunk() ? 4 : 1;
        bench_shape(pass, &s, bench_dtype());
    }
}
BENCH_REAL(attention_fwd) { bench_real(&pass_fwd); }
BENCH_REAL(attention_bwd) { bench_real(&pass_bwd); }
