// real_ops: the ops at the sizes of the real models: ViT-B/16 and JinaBERT encode 256 images or
// texts, Qwen2-VL-7B reads 100 prompts of 350 tokens, an index of 1.6 million rows is searched.
//
// Shapes are named in full, so that peers can be run on them by what a row says (bench/peers/gpu.py
// does). Each op's first problem is checked before it is timed: sampled elements against f64, with
// bounds from the roundings on the way: u of the type per rounded value, 2^-24 per f32 addition,
// twice, because tensor cores add in an order of their own. Work is the least that is needed:
// attention that is causal counts half its pairs, no tensor is read twice.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/real_check.h"
#include "kernels/vendor_cublaslt.h"

#define SAMPLES 64 // elements of a product that are checked

// ---- products ----
typedef enum { FWD, BWD_INPUT, BWD_WEIGHT } Pass;
typedef struct {
    const char *model;
    int M, N, K;
    bool is_trained; // the weight has a gradient
} Layer;

// N = 2304 are q, k, v as one product, as published peers have them; ours are three of 768.
static const Layer layers[] = {
    {"ViT", 50432, 768, 768, true},       {"ViT", 50432, 2304, 768, true},
    {"ViT", 50432, 3072, 768, true},      {"ViT", 50432, 768, 3072, true},
    {"Jina", 65536, 768, 768, true},      {"Jina", 65536, 2304, 768, true},
    {"Jina", 65536, 6144, 768, true},     {"Jina", 65536, 768, 3072, true},
    {"Qwen", 1050, 3584, 3584, false},    {"Qwen", 1050, 4608, 3584, false},
    {"Qwen", 1050, 37888, 3584, false},   {"Qwen", 1050, 3584, 18944, false},
    {"Qwen", 8400, 3584, 3584, false},    {"Qwen", 8400, 4608, 3584, false},
    {"Qwen", 8400, 37888, 3584, false},   {"Qwen", 8400, 3584, 18944, false},
    {"Qwen", 35000, 3584, 3584, false},   {"Qwen", 35000, 4608, 3584, false},
    {"Qwen", 35000, 37888, 3584, false},  {"Qwen", 35000, 3584, 18944, false},
    {"square", 8192, 8192, 8192, false},
};

typedef struct {
    DType t;
    int M, N, K;
    void *inp, *weight, *out; // (M,K) (N,K) (M,N)
    float *dweight;           // (N,K), for BWD_WEIGHT
} Linear;

static Linear linear_new(const Layer *layer, DType t, Pass pass) {
    Linear l = {.t = t, .M = bench_shrunk(layer->M)};
    l.N = bench_is_shrunk() ? layer->N / 16 : layer->N;
    l.K = bench_is_shrunk() ? layer->K / 16 : layer->K;
    l.inp = bench_normal(t, (size_t)l.M * l.K);
    l.out = bench_normal(t, (size_t)l.M * l.N);
    if (pass == BWD_WEIGHT) {
        l.dweight = bench_zeros((size_t)l.N * l.K * sizeof(float));
    } else {
        l.weight = bench_normal(t, (size_t)l.N * l.K);
    }
    return l;
}

static void linear_free(Linear *l) {
    void *const all[] = {l->inp, l->weight, l->out, l->dweight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void run_fwd(void *ctx) {
    const Linear *l = ctx;
    bench_ops()->matmul_fwd(bench_device(), l->t, l->out, l->inp, l->weight, NULL, NULL, l->M,
                            l->N, l->K, false, NULL);
}
static void run_bwd_input(void *ctx) {
    const Linear *l = ctx;
    bench_ops()->matmul_bwd_input(bench_device(), l->t, l->inp, l->out, l->weight, NULL, l->M,
                                  l->N, l->K, false, NULL);
}
static void run_bwd_weight(void *ctx) {
    const Linear *l = ctx;
    bench_ops()->matmul_bwd_weight(bench_device(), l->t, l->dweight, NULL, l->out, l->inp, l->M,
                                   l->N, l->K);
}
static void vendor_fwd(void *ctx) {
    const Linear *l = ctx;
    matmul_fwd_cublaslt(bench_device(), l->t, l->out, l->inp, l->weight, NULL, NULL, l->M, l->N,
                        l->K, false, NULL);
}
static void vendor_bwd_input(void *ctx) {
    const Linear *l = ctx;
    matmul_bwd_input_cublaslt(bench_device(), l->t, l->inp, l->out, l->weight, NULL, l->M, l->N,
                              l->K, false, NULL);
}
static void vendor_bwd_weight(void *ctx) {
    const Linear *l = ctx;
    matmul_bwd_weight_cublaslt(bench_device(), l->t, l->dweight, NULL, l->out, l->inp, l->M, l->N,
                               l->K);
}

// One matrix of a product c[i,j] = sum_l a[i,l] b[l,j], on the host.
typedef struct {
    float *x;
    size_t outer, inner; // elements from one i (or j) to the next, and from one l to the next
} Side;

// Sampled elements of what one run gave from the operands before it.
static void check_product(const Linear *l, Pass pass, bench_fn *run) {
    const size_t MK = (size_t)l->M * l->K, MN = (size_t)l->M * l->N, NK = (size_t)l->N * l->K;
    float *const inp = pass == BWD_INPUT ? NULL : read_new(l->t, l->inp, 0, MK);
    float *const out = pass == FWD ? NULL : read_new(l->t, l->out, 0, MN);
    float *const weight = pass == BWD_WEIGHT ? NULL : read_new(l->t, l->weight, 0, NK);
    const size_t K = (size_t)l->K, N = (size_t)l->N;
    const Side a[] = {{inp, K, 1}, {out, N, 1}, {out, 1, N}};
    const Side b[] = {{weight, K, 1}, {weight, 1, K}, {inp, 1, K}};
    const int rows[] = {l->M, l->M, l->N}, columns[] = {l->N, l->K, l->K};
    const int depth[] = {l->K, l->N, l->M};
    const void *const result[] = {l->out, l->inp, l->dweight};
    const DType t = pass == BWD_WEIGHT ? DT_F32 : l->t;
    Linear copy = *l;
    run(&copy);
    for (int s = 0; s < SAMPLES; s++) {
        const size_t i = (size_t)s * 7919 % (size_t)rows[pass];
        const size_t j = (size_t)s * 104729 % (size_t)columns[pass];
        double sum = 0, size = 0;
        for (size_t d = 0; d < (size_t)depth[pass]; d++) {
            const double term = (double)a[pass].x[i * a[pass].outer + d * a[pass].inner] *
                                b[pass].x[j * b[pass].outer + d * b[pass].inner];
            sum += term;
            size += fabs(term);
        }
        const size_t at = i * (size_t)columns[pass] + j;
        expect_near("product", at, bench_at(t, result[pass], at), sum,
                    unit_of(t) * fabs(sum) + 2 * depth[pass] * 0x1p-24 * size);
    }
    free(inp);
    free(out);
    free(weight);
}

static bool has_vendor(void) {
    char why[200];
    static bool was_tried, is_there;
    if (!was_tried && device_kind(bench_device()) == DEVICE_CUDA) {
        was_tried = true;
        is_there = cublaslt_open && cublaslt_open(bench_device(), why, sizeof why);
        if (!is_there) {
            fprintf(stderr, "bench: no cuBLASLt beside our products: %s\n",
                    cublaslt_open ? why : "not in this build");
        }
    }
    return is_there;
}

static void bench_products(Pass pass, bench_fn *run, bench_fn *vendor) {
    const DType t = bench_dtype();
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (pass == BWD_WEIGHT && !layers[i].is_trained) {
            continue;
        }
        Linear l[BENCH_COPIES] = {linear_new(&layers[i], t, pass)};
        const double M = l->M, N = l->N, K = l->K, size = (double)dtype_size(t);
        const double bytes =
            pass == BWD_WEIGHT ? size * (M * N + M * K) + 8 * N * K : size * (M * N + M * K + N * K);
        const int copies = bench_copies(bytes);
        for (int c = 1; c < copies; c++) {
            l[c] = linear_new(&layers[i], t, pass);
        }
        check_product(l, pass, run);
        char shape[96];
        snprintf(shape, sizeof shape, "%s M=%d N=%d K=%d %s", layers[i].model, l->M, l->N, l->K,
                 dtype_name(t));
        if (has_vendor()) {
            cublaslt_tune(true);
        }
        bench_time_turns(shape, 2 * M * N * K, bytes, run, l, sizeof *l, copies, "cuBLASLt",
                         has_vendor() ? vendor : NULL);
        for (int c = 0; c < copies; c++) {
            linear_free(&l[c]);
        }
    }
}

BENCH_REAL(matmul_fwd) { bench_products(FWD, run_fwd, vendor_fwd); }
BENCH_REAL(matmul_bwd_input) { bench_products(BWD_INPUT, run_bwd_input, vendor_bwd_input); }
BENCH_REAL(matmul_bwd_weight) { bench_products(BWD_WEIGHT, run_bwd_weight, vendor_bwd_weight); }

// ---- norms ----
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
    void *const all[] = {x->out,  x->inp,  x->dout,    x->weight, x->bias,
                         x->mean, x->rstd, x->dweight, x->dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void layernorm(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->layernorm_fwd(bench_device(), x->t, x->out, x->mean, x->rstd, x->inp, x->weight,
                               x->bias, x->N, x->C, 1e-6f);
}
static void layernorm_backward(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->layernorm_bwd(bench_device(), x->t, x->out, x->dweight, x->dbias, NULL, x->dout,
                               x->inp, x->weight, x->mean, x->rstd, x->N, x->C);
}
static void rmsnorm(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->rmsnorm_fwd(bench_device(), x->t, x->out, x->rstd, x->inp, x->weight, x->N, x->C,
                             1e-6f);
}
static void rmsnorm_backward(void *ctx) {
    const Norm *x = ctx;
    bench_ops()->rmsnorm_bwd(bench_device(), x->t, x->out, x->dweight, NULL, x->dout, x->inp,
                             x->weight, x->rstd, x->N, x->C);
}

// The last row of a forward. Two roundings to the type at most, and f32 on the way.
static void check_norm(const Norm *x, bool has_mean) {
    const size_t C = (size_t)x->C, first = (size_t)(x->N - 1) * C;
    float *inp = read_new(x->t, x->inp, first, C), *out = read_new(x->t, x->out, first, C);
    float *weight = read_new(x->t, x->weight, 0, C), *bias = read_new(x->t, x->bias, 0, C);
    double mean = 0, square = 0;
    for (size_t c = 0; c < C; c++) {
        mean += has_mean ? inp[c] / (double)C : 0;
    }
    for (size_t c = 0; c < C; c++) {
        square += (inp[c] - mean) * (inp[c] - mean) / (double)C;
    }
    for (size_t c = 0; c < C; c++) {
        const double scaled = (inp[c] - mean) / sqrt(square + 1e-6) * weight[c];
        const double want = has_mean ? scaled + bias[c] : scaled;
        expect_near("norm", c, out[c], want,
                    2 * unit_of(x->t) * fabs(want) + 8 * 0x1p-24 * (fabs(scaled) + fabs(want)));
    }
    free(inp);
    free(out);
    free(weight);
    free(bias);
}

static void bench_norm(int N, int C, bench_fn *fwd, bench_fn *bwd, bool is_layernorm) {
    const DType t = bench_dtype();
    const int tensors = bwd ? 3 : 2; // of (N,C), read or written
    const double bytes = (double)tensors * bench_shrunk(N) * C * (double)dtype_size(t);
    const int copies = bench_copies(bytes);
    Norm x[BENCH_COPIES];
    for (int c = 0; c < copies; c++) {
        x[c] = norm_new(t, bench_shrunk(N), C);
        fwd(&x[c]);
    }
    check_norm(x, is_layernorm);
    char shape[64];
    snprintf(shape, sizeof shape, "N=%d C=%d %s", x->N, x->C, dtype_name(t));
    bench_time_turns(shape, 0, bytes, bwd ? bwd : fwd, x, sizeof *x, copies, NULL, NULL);
    for (int c = 0; c < copies; c++) {
        norm_free(&x[c]);
    }
}

BENCH_REAL(layernorm_fwd) { bench_norm(50432, 768, layernorm, NULL, true); }
BENCH_REAL(layernorm_bwd) { bench_norm(50432, 768, layernorm, layernorm_backward, true); }
BENCH_REAL(rmsnorm_fwd) { bench_norm(35000, 3584, rmsnorm, NULL, false); }
BENCH_REAL(rmsnorm_bwd) { bench_norm(35000, 3584, rmsnorm, rmsnorm_backward, false); }

// ---- optimiser ----
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

// ViT-B/16 and JinaBERT. Master, both moments: read and written; the gradient read; the type written.
BENCH_REAL(adamw) {
    static const int sizes[] = {86567656, 137368320};
    for (int i = 0; i < 2; i++) {
        const DType t = bench_dtype();
        Params p = {.t = t, .n = (size_t)bench_shrunk(sizes[i])};
        p.master = bench_normal(DT_F32, p.n), p.grad = bench_normal(DT_F32, p.n);
        p.m = bench_zeros(p.n * sizeof(float)), p.v = bench_zeros(p.n * sizeof(float));
        p.count = bench_zeros(sizeof *p.count);
        p.param = t == DT_F32 ? p.master : bench_zeros(p.n * dtype_size(t));
        const double before = bench_at(DT_F32, p.master, p.n - 1);
        const double grad = bench_at(DT_F32, p.grad, p.n - 1);
        adamw(&p); // the first update: m / sqrt(v) after correction is the gradient's sign
        const double want = before * (1 - 1e-4 * 0.01) - 1e-4 * grad / (fabs(grad) + 1e-8);
        expect_near("master", p.n - 1, bench_at(DT_F32, p.master, p.n - 1), want,
                    8 * 0x1p-24 * fabs(before) + 1e-7);
        char shape[64];
        snprintf(shape, sizeof shape, "n=%zu %s", p.n, dtype_name(t));
        bench_time(shape, 0, (28.0 + (t == DT_F32 ? 0 : 2)) * (double)p.n, adamw, &p, NULL, NULL,
                   NULL);
        if (t != DT_F32) {
            device_release(bench_device(), p.param);
        }
        void *const all[] = {p.master, p.m, p.v, p.grad, p.count};
        for (int k = 0; k < 5; k++) {
            device_release(bench_device(), all[k]);
        }
    }
}

// ---- search ----
typedef struct {
    DType t;
    int Q, M, E, K;
    float *queries, *scores;
    int32_t *ids;
    void *rows;
} Search;

static void search(void *ctx) {
    const Search *x = ctx;
    bench_ops()->topk(bench_device(), x->t, x->scores, x->ids, x->queries, x->rows, NULL, NULL,
                      x->Q, x->M, x->E, x->K, 0, true);
}

// The last query: no row scores more than the last hit but the hits before it, and each hit scores
// what the op says. Sums of E products in f32, twice.
static void check_search(const Search *x) {
    const size_t E = (size_t)x->E, K = (size_t)x->K, q = (size_t)x->Q - 1, block = 4096;
    float *query = read_new(DT_F32, x->queries, q * E, E), *narrow = xmalloc(E, sizeof *narrow);
    float *scores = read_new(DT_F32, x->scores, q * K, K);
    int32_t *ids = xmalloc(K, sizeof *ids);
    device_copy_out(bench_device(), ids, x->ids + q * K, K * sizeof *ids);
    dtype_narrow(x->t, narrow, query, E); // the op rounds the query to the rows' type
    dtype_widen(query, x->t, narrow, E);
    size_t better = 0, hits = 0;
    for (size_t first = 0; first < (size_t)x->M; first += block) {
        const size_t count = (size_t)x->M - first < block ? (size_t)x->M - first : block;
        float *rows = read_new(x->t, x->rows, first * E, count * E);
        for (size_t m = 0; m < count; m++) {
            double score = 0, size = 0;
            for (size_t e = 0; e < E; e++) {
                score += (double)query[e] * rows[m * E + e];
                size += fabs((double)query[e] * rows[m * E + e]);
            }
            const double bound = 2 * (double)E * 0x1p-24 * size;
            better += score > scores[K - 1] + bound;
            for (size_t k = 0; k < K; k++) {
                if (ids[k] == (int32_t)(first + m)) {
                    expect_near("score", k, scores[k], score, bound);
                    hits++;
                }
            }
        }
        free(rows);
    }
    CHECK(hits == K && better < K, "%zu of %zu hits found, %zu rows score more than the last",
          hits, K, better);
    free(query);
    free(narrow);
    free(scores);
    free(ids);
}

BENCH_REAL(topk) {
    static const int queries[] = {256, 64, 1};
    const int M = bench_shrunk(1600000), E = 768, K = 50;
    for (int i = 0; i < 3; i++) {
        const size_t hits = (size_t)queries[i] * (size_t)K;
        Search x = {.t = DT_F16, .Q = queries[i], .M = M, .E = E, .K = K};
        x.queries = bench_normal(DT_F32, (size_t)x.Q * (size_t)E);
        x.rows = bench_normal(x.t, (size_t)M * (size_t)E);
        x.scores = bench_zeros(hits * sizeof(float)), x.ids = bench_zeros(hits * sizeof(int32_t));
        search(&x);
        check_search(&x);
        char shape[64];
        snprintf(shape, sizeof shape, "Q=%d M=%d E=%d K=%d %s", x.Q, M, E, K, dtype_name(x.t));
        bench_time(shape, 2.0 * x.Q * M * E, (double)M * E * (double)dtype_size(x.t), search, &x,
                   NULL, NULL, NULL);
        void *const all[] = {x.queries, x.rows, x.scores, x.ids};
        for (int k = 0; k < 4; k++) {
            device_release(bench_device(), all[k]);
        }
    }
}
