// bench_matmul: the linear layer beside OpenBLAS's cblas_sgemm and oneDNN's matmul, and, at the
// sizes of the real models, beside cuBLASLt.
//
// On a CPU: the forward of a ViT-B/16 on one image of 197 tokens, a square, few rows, and the small
// products of the tiny models. oneDNN always has its weights packed in advance; OpenBLAS packs on
// every call, because it cannot do otherwise. On a GPU: ViT-B/16 and JinaBERT on 256 images or
// texts, Qwen2-VL-7B on 3, 24 and 100 prompts of 350 tokens, and the square of the published
// tables.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/peer_onednn.h"
#include "bench/peer_openblas.h"
#include "bench/sampled.h"
#include "kernels/vendor_cublaslt.h"

static const struct {
    int M, N, K;
} shapes[] = {{197, 768, 768},    {197, 2304, 768}, {197, 3072, 768}, {197, 768, 3072},
              {1024, 1024, 1024}, {1, 768, 768},    {16, 768, 768},   {2176, 64, 64},
              {2176, 128, 64},    {2176, 64, 128},  {2176, 192, 48},  {500, 64, 64},
              {1000, 64, 64},     {17, 64, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// ---- the problem ----
typedef enum { FWD, BWD_INPUT, BWD_WEIGHT } Pass;

// One product with everything either side may need.
typedef struct {
    DType t;
    int M, N, K;
    void *inp, *weight, *out; // (M,K) (N,K) (M,N): as operands of each product, or its result
    float *dweight;           // (N,K) in BWD_WEIGHT, which has no weight
    void *packed;
    float *peer_out; // of the CPU's peers
} Linear;

static Linear linear_new(DType t, Pass pass, int M, int N, int K) {
    Linear l = {.t = t, .M = M, .N = N, .K = K};
    l.inp = bench_normal(t, (size_t)M * K);
    l.out = bench_normal(t, (size_t)M * N);
    if (pass == BWD_WEIGHT) {
        l.dweight = bench_zeros((size_t)N * K * sizeof(float));
    } else {
        l.weight = bench_normal(t, (size_t)N * K);
    }
    if (device_kind(bench_device()) == DEVICE_CPU) {
        const size_t most = fmax(fmax((double)M * N, (double)M * K), (double)N * K);
        l.peer_out = xcalloc(most, sizeof(float));
    }
    return l;
}

static void linear_free(Linear *l) {
    BENCH_RELEASE(l->inp, l->weight, l->out, l->dweight, l->packed);
    free(l->peer_out);
}

static void pack(Linear *l, MatmulPack which) {
    const size_t bytes = matmul_pack_bytes(bench_device(), l->t, which, l->N, l->K);
    if (bytes > 0) {
        l->packed = bench_zeros(bytes);
        bench_ops()->matmul_pack(bench_device(), l->t, l->packed, l->weight, which, l->N, l->K);
    }
}

// ---- what is timed ----
static void run_pack(void *ctx) {
    Linear *l = ctx;
    bench_ops()->matmul_pack(bench_device(), l->t, l->packed, l->weight, MATMUL_PACK_FWD, l->N,
                             l->K);
}

static void run_fwd(void *ctx) {
    Linear *l = ctx;
    bench_ops()->matmul_fwd(bench_device(), l->t, l->out, l->inp, l->weight, l->packed, NULL, l->M,
                            l->N, l->K, false, NULL);
}

static void openblas_fwd(void *ctx) {
    Linear *l = ctx;
    peer_openblas_product(false, true, l->M, l->N, l->K, l->inp, l->weight, 0, l->peer_out);
}

static void run_bwd_input(void *ctx) {
    Linear *l = ctx;
    bench_ops()->matmul_bwd_input(bench_device(), l->t, l->inp, l->out, l->weight, l->packed, l->M,
                                  l->N, l->K, false, NULL);
}

static void openblas_bwd_input(void *ctx) {
    Linear *l = ctx;
    peer_openblas_product(false, false, l->M, l->K, l->N, l->out, l->weight, 0, l->peer_out);
}

static void run_bwd_weight(void *ctx) {
    Linear *l = ctx;
    bench_ops()->matmul_bwd_weight(bench_device(), l->t, l->dweight, NULL, l->out, l->inp, l->M,
                                   l->N, l->K);
}

static void openblas_bwd_weight(void *ctx) {
    Linear *l = ctx;
    peer_openblas_product(true, false, l->N, l->K, l->M, l->out, l->inp, 1, l->peer_out);
}

// ---- rows of the table ----
// The op must give the peer's numbers before it is timed. Two sums of `depth` products of normal
// deviates, each in some order of f32: both are within depth * 2^-24 of the sum of magnitudes,
// which stays below 2 depth (the mean magnitude of a product is 0.64).
static void expect_peer(const char *what, const float *got, const float *want, size_t n,
                        int depth) {
    const double bound = 2 * (2.0 * depth) * (depth * 0x1p-24);
    for (size_t i = 0; i < n; i++) {
        CHECK(fabs((double)got[i] - want[i]) <= bound, "%s: [%zu] is %g, OpenBLAS says %g", what, i,
              got[i], want[i]);
    }
}

static void report(Linear *l, const char *note, bench_fn *run, bench_fn *openblas,
                   PeerOnednn *onednn) {
    char shape[64];
    snprintf(shape, sizeof shape, "M=%d N=%d K=%d %s%s", l->M, l->N, l->K, dtype_name(l->t), note);
    const double flops = 2.0 * l->M * l->N * l->K;
    const bool has_openblas = openblas && l->t == DT_F32 && peer_openblas_open();
    if (has_openblas || !onednn) {
        bench_time(shape, flops, 0, run, l, has_openblas ? peer_openblas_name() : NULL,
                   has_openblas ? openblas : NULL, l);
    }
    if (onednn) {
        bench_time(shape, flops, 0, run, l, "oneDNN, packed", peer_onednn_run, onednn);
    }
}

BENCH_OP(matmul_pack) {
    for (int i = 0; i < 5; i++) {
        for (int t = DT_F32; t <= DT_BF16; t++) {
            Linear l = linear_new((DType)t, FWD, 1, shapes[i].N, shapes[i].K);
            pack(&l, MATMUL_PACK_FWD);
            char shape[64];
            snprintf(shape, sizeof shape, "N=%d K=%d %s", l.N, l.K, dtype_name(l.t));
            const double n = (double)l.N * l.K; // read once, written once as f32
            if (l.packed) {
                bench_time(shape, 0, n * (dtype_size(l.t) + sizeof(float)), run_pack, &l, NULL,
                           NULL, NULL);
            }
            linear_free(&l);
        }
    }
}

// ---- epilogues, beside the ops that they stand for ----
typedef struct {
    Linear linear;
    MatmulEpilogue epilogue;
} Ended;

static void run_ended(void *ctx) {
    Ended *x = ctx;
    Linear *l = &x->linear;
    bench_ops()->matmul_fwd(bench_device(), l->t, l->out, l->inp, l->weight, l->packed, NULL, l->M,
                            l->N, l->K, false, &x->epilogue);
}

static void run_apart(void *ctx) {
    Ended *x = ctx;
    const Linear *l = &x->linear;
    const MatmulEpilogue *e = &x->epilogue;
    const size_t n = (size_t)l->M * l->N;
    run_fwd(&x->linear);
    if (e->rank) {
        bench_ops()->matmul_fwd(bench_device(), l->t, l->out, e->low, e->up, NULL, NULL, l->M, l->N,
                                e->rank, true, NULL);
    } else if (e->kind == EPILOGUE_RESIDUAL) {
        bench_ops()->residual_fwd(bench_device(), l->t, l->out, e->residual, l->out, n);
    } else if (e->kind == EPILOGUE_ACT) {
        bench_ops()->activation_fwd(bench_device(), l->t, l->out, l->out, n, e->act);
    } else {
        bench_ops()->gated_fwd(bench_device(), l->t, l->out, e->gate, l->out, n, e->act);
    }
}

// The MLP of a ViT-B/16, in both types; the two ways give the same bits (tests).
static void bench_epilogues(void) {
    enum { RANK = 8 };
    static const char *const names[] = {" +adapter 8", " +residual", " +gelu", " +gated silu"};
    for (int i = 0; i < 8; i++) {
        const DType t = i < 4 ? DT_F32 : DT_BF16;
        Ended x = {.linear = linear_new(t, FWD, 197, 3072, 768)};
        void *const other = bench_normal(t, (size_t)197 * 3072);
        void *const low = bench_normal(t, 197 * RANK), *const up = bench_normal(t, 3072 * RANK);
        const MatmulEpilogue epilogues[] = {
            {.low = low, .up = up, .rank = RANK},
            {.kind = EPILOGUE_RESIDUAL, .residual = other},
            {.kind = EPILOGUE_ACT, .act = ACT_GELU},
            {.kind = EPILOGUE_GATED, .act = ACT_SILU, .gate = other},
        };
        x.epilogue = epilogues[i % 4];
        pack(&x.linear, MATMUL_PACK_FWD);
        char shape[64];
        snprintf(shape, sizeof shape, "M=197 N=3072 K=768 %s%s", dtype_name(t), names[i % 4]);
        bench_time(shape, 2.0 * 197 * 3072 * 768, 0, run_ended, &x, "two ops", run_apart, &x);
        BENCH_RELEASE(other, low, up);
        linear_free(&x.linear);
    }
}

BENCH_OP(matmul_fwd) {
    for (int t = DT_F32; t <= DT_BF16; t++) {
        for (int i = 0; i < SHAPES; i++) {
            Linear l = linear_new((DType)t, FWD, shapes[i].M, shapes[i].N, shapes[i].K);
            if (t == DT_F32 && peer_openblas_open()) {
                run_fwd(&l);
                openblas_fwd(&l);
                expect_peer("matmul_fwd", l.out, l.peer_out, (size_t)l.M * l.N, l.K);
            }
            report(&l, "", run_fwd, openblas_fwd, NULL);
            pack(&l, MATMUL_PACK_FWD);
            PeerOnednn *onednn =
                peer_onednn_open()
                    ? peer_onednn_product_new(l.t, l.M, l.N, l.K, l.inp, l.weight, l.peer_out)
                    : NULL;
            report(&l, " packed", run_fwd, openblas_fwd, onednn);
            peer_onednn_free(onednn);
            linear_free(&l);
        }
    }
    bench_epilogues();
}

BENCH_OP(matmul_bwd_input) {
    for (int i = 0; i < SHAPES; i++) {
        Linear l = linear_new(DT_F32, BWD_INPUT, shapes[i].M, shapes[i].N, shapes[i].K);
        if (peer_openblas_open()) {
            run_bwd_input(&l);
            openblas_bwd_input(&l);
            expect_peer("matmul_bwd_input", l.inp, l.peer_out, (size_t)l.M * l.K, l.N);
        }
        report(&l, "", run_bwd_input, openblas_bwd_input, NULL);
        linear_free(&l);
    }
}

BENCH_OP(matmul_bwd_weight) {
    for (int i = 0; i < SHAPES; i++) {
        Linear l = linear_new(DT_F32, BWD_WEIGHT, shapes[i].M, shapes[i].N, shapes[i].K);
        if (peer_openblas_open()) {
            run_bwd_weight(&l);
            openblas_bwd_weight(&l);
            expect_peer("matmul_bwd_weight", l.dweight, l.peer_out, (size_t)l.N * l.K, l.M);
        }
        report(&l, "", run_bwd_weight, openblas_bwd_weight, NULL);
        linear_free(&l);
    }
}

// ---- the real models ----
#define SAMPLES 64 // elements of a product that are checked

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

static Linear layer_new(const Layer *layer, DType t, Pass pass) {
    const int narrow = bench_is_shrunk() ? 16 : 1;
    return linear_new(t, pass, bench_shrunk(layer->M), layer->N / narrow, layer->K / narrow);
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

// One operand of a product c[i,j] = sum_l a[i,l] b[l,j]: `lines` of `depth`, one per i (or j).
typedef struct {
    const void *tensor;
    size_t lines, depth;
    float *columns; // (depth, lines) on the host, where a line is a column of the tensor
} Operand;

static Operand operand(DType t, const void *tensor, size_t lines, size_t depth, bool is_row) {
    return (Operand){tensor, lines, depth,
                     is_row ? NULL : sampled_new(t, tensor, 0, lines * depth)};
}

static float *line_new(DType t, const Operand *x, size_t i) {
    if (!x->columns) {
        return sampled_new(t, x->tensor, i * x->depth, x->depth);
    }
    float *line = xmalloc(x->depth, sizeof *line);
    for (size_t d = 0; d < x->depth; d++) {
        line[d] = x->columns[i + d * x->lines];
    }
    return line;
}

// Sampled elements of what one run gave from the operands before it, against f64. The bound is of
// the roundings on the way: of the type once, and 2^-24 per addition in f32, twice, because tensor
// cores add in an order of their own.
static void check_product(const Linear *l, Pass pass, bench_fn *run) {
    const size_t M = (size_t)l->M, N = (size_t)l->N, K = (size_t)l->K;
    const size_t rows = pass == BWD_WEIGHT ? N : M, columns = pass == FWD ? N : K;
    const size_t depth = pass == FWD ? K : pass == BWD_INPUT ? N : M;
    const void *const result[] = {l->out, l->inp, l->dweight};
    Operand a = operand(l->t, pass == FWD ? l->inp : l->out, rows, depth, pass != BWD_WEIGHT);
    Operand b = operand(l->t, pass == BWD_WEIGHT ? l->inp : l->weight, columns, depth, pass == FWD);
    const DType t = pass == BWD_WEIGHT ? DT_F32 : l->t;
    Linear copy = *l;
    run(&copy);
    for (size_t s = 0; s < SAMPLES; s++) {
        const size_t i = s * 7919 % rows, j = s * 104729 % columns, at = i * columns + j;
        float *x = line_new(l->t, &a, i), *y = line_new(l->t, &b, j);
        double sum = 0, size = 0;
        for (size_t d = 0; d < depth; d++) {
            sum += (double)x[d] * y[d];
            size += fabs((double)x[d] * y[d]);
        }
        expect_near("product", at, bench_at(t, result[pass], at), sum,
                    unit_of(t) * fabs(sum) + 2 * (double)depth * 0x1p-24 * size);
        free(x);
        free(y);
    }
    free(a.columns);
    free(b.columns);
}

static void bench_products(Pass pass, bench_fn *run, bench_fn *vendor) {
    const DType t = bench_dtype();
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (pass == BWD_WEIGHT && !layers[i].is_trained) {
            continue;
        }
        Linear l[BENCH_COPIES] = {layer_new(&layers[i], t, pass)};
        const double M = l->M, N = l->N, K = l->K, size = (double)dtype_size(t);
        const double weight = pass == BWD_WEIGHT ? 2 * sizeof(float) : size; // += reads and writes
        const double bytes = size * (M * N + M * K) + weight * N * K;
        const int copies = bench_copies(bytes);
        for (int c = 1; c < copies; c++) {
            l[c] = layer_new(&layers[i], t, pass);
        }
        check_product(l, pass, run);
        char shape[96];
        snprintf(shape, sizeof shape, "%s M=%d N=%d K=%d %s", layers[i].model, l->M, l->N, l->K,
                 dtype_name(t));
        if (bench_has_cublaslt()) {
            cublaslt_tune(true);
        }
        bench_time_turns(shape, 2 * M * N * K, bytes, run, l, sizeof *l, copies, "cuBLASLt",
                         bench_has_cublaslt() ? vendor : NULL);
        for (int c = 0; c < copies; c++) {
            linear_free(&l[c]);
        }
    }
}

BENCH_REAL(matmul_fwd) { bench_products(FWD, run_fwd, vendor_fwd); }
BENCH_REAL(matmul_bwd_input) { bench_products(BWD_INPUT, run_bwd_input, vendor_bwd_input); }
BENCH_REAL(matmul_bwd_weight) { bench_products(BWD_WEIGHT, run_bwd_weight, vendor_bwd_weight); }
