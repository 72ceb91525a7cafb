// real_attention: attention at the sizes of the real models; see real_ops.c for what the rows say.
//
// q, k and v are packed rows, as the blocks have them. Work counts the products of pairs that see
// each other, two forward and five backward; traffic is each tensor once.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/real_check.h"
#include "kernels/vendor_cudnn.h"

typedef struct {
    const char *model;
    int B, T, H, Hkv, D;
    bool is_causal, has_alibi;
} Shape;

// 102 images: of 100 passages and of the two queries that retrieved them.
static const Shape shapes[] = {
    {"ViT", 256, 197, 12, 12, 64, false, false}, {"ViT", 256, 256, 12, 12, 64, false, false},
    {"Jina", 128, 512, 12, 12, 64, false, true}, {"Qwen-vision", 102, 324, 16, 16, 80, false, false},
    {"Qwen", 100, 350, 28, 4, 128, true, false},
};

typedef struct {
    DType t;
    void *out, *q, *k, *v, *dout, *dq, *dk, *dv;
    float *lse, *delta, *alibi;
    int32_t *ends;
    AttentionShape shape;
    CudnnAttention *vendor; // NULL: it is not there, or does not do this
} Problem;

static Problem problem_new(const Shape *s, DType t) {
    const int B = bench_shrunk(s->B), N = B * s->T;
    const size_t q = (size_t)N * s->H * s->D, k = (size_t)N * s->Hkv * s->D, size = dtype_size(t);
    const size_t stats = (size_t)N * s->H * sizeof(float);
    Problem p = {.t = t, .out = bench_zeros(q * size), .dq = bench_zeros(q * size)};
    p.q = bench_normal(t, q), p.dout = bench_normal(t, q);
    p.k = bench_normal(t, k), p.v = bench_normal(t, k);
    p.dk = bench_zeros(k * size), p.dv = bench_zeros(k * size);
    p.lse = bench_zeros(stats), p.delta = bench_zeros(stats);
    p.ends = bench_zeros(((size_t)B + 1) * sizeof *p.ends);
    p.alibi = bench_zeros((size_t)s->H * sizeof(float));
    int32_t *ends = xmalloc((size_t)B + 1, sizeof *ends);
    float *slopes = xmalloc((size_t)s->H, sizeof *slopes);
    for (int b = 0; b <= B; b++) {
        ends[b] = b * s->T;
    }
    for (int h = 0; h < s->H; h++) {
        slopes[h] = (float)exp2(-8.0 * (h + 1) / s->H);
    }
    device_copy_in(bench_device(), p.ends, ends, ((size_t)B + 1) * sizeof *ends);
    device_copy_in(bench_device(), p.alibi, slopes, (size_t)s->H * sizeof *slopes);
    free(ends);
    free(slopes);
    p.shape = (AttentionShape){.B = B, .H = s->H, .Hkv = s->Hkv, .D = s->D, .cu_q = p.ends,
                               .cu_k = p.ends, .Nq = N, .Nk = N, .max_Tq = s->T, .max_Tk = s->T,
                               .q_stride = s->H * s->D, .k_stride = s->Hkv * s->D,
                               .v_stride = s->Hkv * s->D, .out_stride = s->H * s->D,
                               .is_causal = s->is_causal, .scale = (float)(1 / sqrt(s->D)),
                               .alibi = s->has_alibi ? p.alibi : NULL};
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
    void *const all[] = {p->out, p->q,  p->k,   p->v,     p->dout,  p->dq,
                         p->dk,  p->dv, p->lse, p->delta, p->alibi, p->ends};
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

// ---- check ----
static double dot(const float *a, const float *b, int D) {
    double sum = 0;
    for (int d = 0; d < D; d++) {
        sum += (double)a[d] * b[d];
    }
    return sum;
}

// One query's probabilities over the keys of its sequence: of row i and head h, in f64.
static void probabilities(double *p, const Problem *problem, const float *q, const float *k, int i,
                          int h) {
    const AttentionShape *s = &problem->shape;
    const int T = s->max_Tk, seen = s->is_causal ? i + 1 : T;
    const double slope = s->alibi ? bench_at(DT_F32, s->alibi, (size_t)h) : 0;
    double most = -INFINITY, sum = 0;
    for (int j = 0; j < T; j++) {
        p[j] = j < seen ? s->scale * dot(q, k + (size_t)j * (size_t)s->k_stride, s->D) -
                              slope * abs(i - j)
                        : -INFINITY;
        most = fmax(most, p[j]);
    }
    for (int j = 0; j < T; j++) {
        sum += p[j] = exp(p[j] - most);
    }
    for (int j = 0; j < T; j++) {
        p[j] /= sum;
    }
}

// Row i and head h of the last sequence: out and dq. Rounded to the type on the way: probabilities,
// ds, out (which delta = sum dout out takes over), and the results; each once, so the bounds are
// twice the sums of what one rounding of each can do. dk and dv are for the tests.
static void check_row(const Problem *problem, int i, int h) {
    const AttentionShape *s = &problem->shape;
    const int D = s->D, T = s->max_Tk;
    const size_t last = (size_t)(s->B - 1) * (size_t)T, head = (size_t)h * (size_t)D;
    const size_t row = (last + (size_t)i) * (size_t)s->q_stride + head, n = (size_t)D;
    const size_t key = last * (size_t)s->k_stride + (size_t)(h / (s->H / s->Hkv)) * (size_t)D;
    const size_t keys = (size_t)(T - 1) * (size_t)s->k_stride + n;
    float *q = read_new(problem->t, problem->q, row, n);
    float *dout = read_new(problem->t, problem->dout, row, n);
    float *k = read_new(problem->t, problem->k, key, keys);
    float *v = read_new(problem->t, problem->v, key, keys);
    float *got = read_new(problem->t, problem->out, row, n);
    float *got_dq = read_new(problem->t, problem->dq, row, n);
    double *p = xmalloc((size_t)T, sizeof *p);
    probabilities(p, problem, q, k, i, h);
    double delta = 0, delta_size = 0;
    const double u = unit_of(problem->t) + D * 0x1p-24; // and what f32 sums do
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
static void bench_shapes(bench_fn *run, bench_fn *vendor, int products, int queries, int keys) {
    const DType t = bench_dtype();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const Shape *s = &shapes[i];
        Problem p[BENCH_COPIES] = {problem_new(s, t)};
        const double N = p->shape.Nq, D = s->D, pairs = N * (s->is_causal ? s->T + 1 : 2 * s->T) / 2;
        const double row = (double)(queries * s->H + keys * s->Hkv) * D * (double)dtype_size(t);
        const double bytes = N * (row + 4 * s->H);
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
        snprintf(name, sizeof name, "%s B=%d T=%d H=%d Hkv=%d D=%d%s%s %s", s->model, p->shape.B,
                 s->T, s->H, s->Hkv, s->D, s->is_causal ? " causal" : "",
                 s->has_alibi ? " alibi" : "", dtype_name(t));
        for (int c = 0; c < copies && vendor && (c == 0 || p->vendor); c++) {
            add_vendor(&p[c], name);
        }
        bench_time_turns(name, 2 * products * pairs * s->H * D, bytes, run, p, sizeof *p, copies,
                         "cuDNN", p->vendor ? vendor : NULL);
        for (int c = 0; c < copies; c++) {
            problem_free(&p[c]);
        }
    }
}

// Tensors of the queries' and of the keys' size: q, out; k, v. And q, out, dout, dq; k, v, dk, dv.
BENCH_REAL(attention_fwd) { bench_shapes(forward, vendor_forward, 2, 2, 2); }
BENCH_REAL(attention_bwd) { bench_shapes(backward, NULL, 5, 4, 4); }
