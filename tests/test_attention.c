// Attention against the equations in double, in plain f32, and against finite differences; and the
// promises of the contract: what a query cannot see does not reach it, and neither threads nor the
// rest of the batch change a bit.
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_B     4
#define UNTOUCHED 512 // what outputs hold there; exact in every type

typedef struct {
    int B, H, Hkv, D;
    bool is_causal, has_alibi;
    int Tq[MAX_B], Tk[MAX_B];
} Shape;

static const Shape shapes[] = {
    {1, 16, 16, 1, false, false, {1}, {1}},
    {1, 16, 16, 1, true, true, {2}, {2}},
    {3, 4, 4, 16, false, false, {17, 17, 17}, {17, 17, 17}},
    {4, 4, 2, 16, true, false, {30, 1, 7, 26}, {30, 1, 7, 26}},
    {2, 2, 1, 7, false, true, {5, 9}, {8, 16}},       // cross attention
    {3, 3, 1, 24, true, true, {1, 4, 9}, {20, 4, 3}}, // decoding; queries that see nothing
    {3, 2, 2, 5, false, false, {6, 0, 2}, {0, 4, 3}}, // empty sequences
    {1, 2, 1, 33, true, false, {47, 0}, {49, 0}},
    {1, 1, 1, 64, true, false, {100}, {100}}, // more than one block of queries
    {1, 3, 3, 80, false, true, {97}, {65}},
    {1, 1, 1, 255, false, false, {13}, {11}},
    {1, 2, 1, 256, true, false, {12}, {12}},
    {2, 1, 1, 4, false, true, {6, 140}, {150, 5}}, // more keys, more queries than a GPU's tile
    {2, 6, 2, 32, true, true, {47, 21}, {47, 33}},   // three heads share a tile
    {2, 4, 2, 128, false, true, {33, 2}, {33, 130}},
    {2, 2, 1, 40, true, true, {37, 20}, {300, 37}},  // one sequence's keys fit a tile, one's do not
    {1, 4, 4, 128, false, false, {16}, {530}},       // three tiles of keys
    {1, 1, 1, 64, true, false, {280}, {270}},        // causal over two tiles; blind queries
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))
#define TILED  13 // the first of those for the kernels of 16-bit tiles

// ---- one problem: inputs, outputs, and the device's copy of the shape ----
typedef struct {
    DType t;
    AttentionShape shape;
    int host_q[MAX_B + 1], host_k[MAX_B + 1];
    double slopes[16];
    IntBuf cu_q, cu_k;
    Buf q, k, v, dout, out, lse, dq, dk, dv, delta, alibi;
} Problem;

// What stands between rows must not matter.
static void poison_gaps(Buf *buf, int stride, int width) {
    for (size_t i = 0; i < buf->n; i++) {
        buf->host[i] = (int)(i % (size_t)stride) < width ? buf->host[i] : NAN;
    }
    buf_write(buf);
}

static Problem problem_new(const Shape *s, DType t, uint32_t sample) {
    Problem p = {.t = t};
    for (int b = 0; b < s->B; b++) {
        p.host_q[b + 1] = p.host_q[b] + s->Tq[b];
        p.host_k[b + 1] = p.host_k[b] + s->Tk[b];
        p.shape.max_Tq = s->Tq[b] > p.shape.max_Tq ? s->Tq[b] : p.shape.max_Tq;
        p.shape.max_Tk = s->Tk[b] > p.shape.max_Tk ? s->Tk[b] : p.shape.max_Tk;
    }
    AttentionShape *x = &p.shape;
    x->B = s->B, x->H = s->H, x->Hkv = s->Hkv, x->D = s->D;
    x->Nq = p.host_q[s->B], x->Nk = p.host_k[s->B];
    // Between rows, to test the strides; with 3, rows do not begin at multiples of 16 bytes.
    const int gap = s->D % 8 || s->D == 16 ? 3 : 8;
    x->q_stride = x->H * x->D + gap, x->k_stride = x->Hkv * x->D + gap;
    x->v_stride = x->k_stride + gap, x->out_stride = x->q_stride + 2 * gap;
    x->is_causal = s->is_causal;
    x->scale = (float)(1 / sqrt(s->D));
    p.cu_q = ibuf_from(p.host_q, (size_t)s->B + 1);
    p.cu_k = ibuf_from(p.host_k, (size_t)s->B + 1);
    x->cu_q = p.cu_q.dev, x->cu_k = p.cu_k.dev;
    for (int h = 0; h < s->H; h++) {
        p.slopes[h] = s->has_alibi ? pow(2, -(h + 1)) : 0;
    }
    p.alibi = buf_from(DT_F32, p.slopes, (size_t)s->H);
    x->alibi = s->has_alibi ? buf_f32(&p.alibi) : NULL;
    Rng rng = check_rng(sample);
    p.q = buf_normal(t, (size_t)x->Nq * x->q_stride, 1.5, &rng);
    p.k = buf_normal(t, (size_t)x->Nk * x->k_stride, 1.5, &rng);
    p.v = buf_normal(t, (size_t)x->Nk * x->v_stride, 1, &rng);
    p.dout = buf_normal(t, (size_t)x->Nq * x->out_stride, 1, &rng);
    poison_gaps(&p.q, x->q_stride, x->H * x->D);
    poison_gaps(&p.k, x->k_stride, x->Hkv * x->D);
    poison_gaps(&p.v, x->v_stride, x->Hkv * x->D);
    poison_gaps(&p.dout, x->out_stride, x->H * x->D);
    p.out = buf_fill(t, (size_t)x->Nq * x->out_stride, UNTOUCHED);
    p.dq = buf_fill(t, (size_t)x->Nq * x->q_stride, UNTOUCHED);
    p.dk = buf_fill(t, (size_t)x->Nk * x->k_stride, UNTOUCHED);
    p.dv = buf_fill(t, (size_t)x->Nk * x->v_stride, UNTOUCHED);
    p.lse = buf_fill(DT_F32, (size_t)x->Nq * x->H, NAN);
    p.delta = buf_fill(DT_F32, (size_t)x->Nq * x->H, NAN);
    return p;
}

static void problem_free(Problem *p) {
    Buf *all[] = {&p->q,  &p->k,  &p->v,  &p->dout,  &p->out,  &p->lse,
                  &p->dq, &p->dk, &p->dv, &p->delta, &p->alibi};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buf_free(all[i]);
    }
    ibuf_free(&p->cu_q);
    ibuf_free(&p->cu_k);
}

static void run_with(Problem *p, Device *dev, attention_fwd_fn *fwd, attention_bwd_fn *bwd) {
    fwd(dev, p->t, p->out.dev, buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev, &p->shape);
    bwd(dev, p->t, p->dq.dev, p->dk.dev, p->dv.dev, buf_f32(&p->delta), p->dout.dev, p->out.dev,
        buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev, &p->shape);
    Buf *outputs[] = {&p->out, &p->lse, &p->dq, &p->dk, &p->dv, &p->delta};
    for (int i = 0; i < 6; i++) {
        buf_read(outputs[i]);
    }
}

static void run_fwd(Problem *p, attention_fwd_fn *fwd) {
    fwd(check_device(), p->t, p->out.dev, buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev,
        &p->shape);
    buf_read(&p->out);
    buf_read(&p->lse);
}

static void run(Problem *p) {
    run_with(p, check_device(), check_ops()->attention_fwd, check_ops()->attention_bwd);
}

// ---- the reference ----
typedef struct {
    double *out, *lse, *delta, *dq, *dk, *dv; // laid out like the op's
} Result;

static Result result_new(const Problem *p) {
    const AttentionShape *s = &p->shape;
    const size_t stats = (size_t)s->Nq * s->H;
    return (Result){xcalloc(p->out.n + 1, 8), xcalloc(stats + 1, 8),  xcalloc(stats + 1, 8),
                    xcalloc(p->q.n + 1, 8),   xcalloc(p->k.n + 1, 8), xcalloc(p->v.n + 1, 8)};
}

static void result_free(Result *r) {
    double *all[] = {r->out, r->lse, r->delta, r->dq, r->dk, r->dv};
    for (int i = 0; i < 6; i++) {
        free(all[i]);
    }
}

// Every operation of the plain f32 loop passes through here; in the double reference nothing
// happens.
static double keep(double x, bool is_f32) { return is_f32 ? (float)x : x; }

static double rounded(double x, DType t) {
    float cell;
    dtype_store(t, &cell, 0, (float)x);
    return dtype_load(t, &cell, 0);
}

// p or ds as a factor of a product: the contract lets a GPU round it to t for its tensor cores.
static double as_factor(double x, const Problem *p, bool is_f32) {
    const AttentionShape *s = &p->shape;
    const bool is_rounded = is_f32 && device_kind(check_device()) != DEVICE_CPU &&
                            p->t == DT_BF16 && s->D % 8 == 0 && s->D <= 128 &&
                            (s->q_stride | s->k_stride | s->v_stride | s->out_stride) % 8 == 0;
    return is_rounded ? rounded(x, p->t) : x;
}

static double dot(const double *x, const double *y, int n, bool is_f32) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum = keep(sum + keep(x[i] * y[i], is_f32), is_f32);
    }
    return sum;
}

// Scores of one query against all keys of its sequence, -inf where masked; returns the log-sum-exp.
static double scores_of(const Problem *p, double *score, int b, int h, int i, bool is_f32) {
    const AttentionShape *s = &p->shape;
    const int Tq = p->host_q[b + 1] - p->host_q[b], Tk = p->host_k[b + 1] - p->host_k[b];
    const double *q = p->q.host + (size_t)(p->host_q[b] + i) * s->q_stride + h * s->D;
    double max = -INFINITY, sum = 0;
    for (int j = 0; j < Tk; j++) {
        const double *k =
            p->k.host + (size_t)(p->host_k[b] + j) * s->k_stride + h / (s->H / s->Hkv) * s->D;
        const int distance = i + Tk - Tq - j;
        score[j] = keep(dot(q, k, s->D, is_f32) * s->scale, is_f32);
        score[j] = keep(score[j] - p->slopes[h] * abs(distance), is_f32);
        score[j] = s->is_causal && distance < 0 ? -INFINITY : score[j];
        max = fmax(max, score[j]);
    }
    for (int j = 0; j < Tk; j++) {
        sum = keep(sum + (max > -INFINITY ? keep(exp(score[j] - max), is_f32) : 0), is_f32);
    }
    return sum > 0 ? keep(max + keep(log(sum), is_f32), is_f32) : -INFINITY;
}

// *a += x * y
static void add(double *a, double x, double y, bool is_f32) {
    *a = keep(*a + keep(x * y, is_f32), is_f32);
}

static void reference(const Problem *p, Result *r, bool is_f32) {
    const AttentionShape *s = &p->shape;
    double *prob = xmalloc((size_t)s->max_Tk + 1, 8);
    for (int b = 0; b < s->B; b++) {
        for (int h = 0; h < s->H; h++) {
            for (int i = 0; i < p->host_q[b + 1] - p->host_q[b]; i++) {
                const size_t row = (size_t)(p->host_q[b] + i), stat = (size_t)h * s->Nq + row;
                const size_t at_q = row * s->q_stride + h * s->D;
                double *out = r->out + row * s->out_stride + h * s->D;
                const double *dout = p->dout.host + row * s->out_stride + h * s->D;
                const double lse = r->lse[stat] = scores_of(p, prob, b, h, i, is_f32);
                const int Tk = p->host_k[b + 1] - p->host_k[b], hkv = h / (s->H / s->Hkv);
                for (int j = 0; j < Tk; j++) {
                    prob[j] = lse == -INFINITY ? 0 : keep(exp(keep(prob[j] - lse, is_f32)), is_f32);
                    const double *v = p->v.host + (size_t)(p->host_k[b] + j) * s->v_stride;
                    const double p_j = as_factor(prob[j], p, is_f32);
                    for (int d = 0; d < s->D; d++) {
                        add(&out[d], p_j, v[hkv * s->D + d], is_f32);
                    }
                }
                for (int d = 0; d < s->D && is_f32; d++) {
                    out[d] = rounded(out[d], p->t); // the backward reads what the forward stored
                }
                r->delta[stat] = dot(dout, out, s->D, is_f32);
                for (int j = 0; j < Tk; j++) {
                    const size_t key = (size_t)(p->host_k[b] + j);
                    const size_t at_k = key * s->k_stride + hkv * s->D;
                    const size_t at_v = key * s->v_stride + hkv * s->D;
                    const double dp = dot(dout, p->v.host + at_v, s->D, is_f32);
                    const double centred = keep(dp - r->delta[stat], is_f32);
                    double ds = keep(keep(prob[j] * centred, is_f32) * s->scale, is_f32);
                    ds = as_factor(ds, p, is_f32);
                    const double p_j = as_factor(prob[j], p, is_f32);
                    for (int d = 0; d < s->D; d++) {
                        add(&r->dv[at_v + d], p_j, dout[d], is_f32);
                        add(&r->dq[at_q + d], ds, p->k.host[at_k + d], is_f32);
                        add(&r->dk[at_k + d], ds, p->q.host[at_q + d], is_f32);
                    }
                }
            }
        }
    }
    free(prob);
}

// Values of several draws together: the largest error of a handful of numbers is a lottery, and
// class sum compares two of them.
typedef struct {
    double *got, *f64, *plain;
    size_t n;
} Pool;

static void pool_add(Pool *pool, double got, double f64, double plain) {
    if (pool->n % 1024 == 0) {
        pool->got = xrealloc(pool->got, pool->n + 1024, 8);
        pool->f64 = xrealloc(pool->f64, pool->n + 1024, 8);
        pool->plain = xrealloc(pool->plain, pool->n + 1024, 8);
    }
    pool->got[pool->n] = got;
    pool->f64[pool->n] = f64;
    pool->plain[pool->n++] = plain;
}

// Rows of `width` used elements by stride; the gaps must be untouched.
static void pool_rows(const char *what, Pool *pool, const Buf *got, const double *f64,
                      const double *plain, int stride, int width) {
    for (size_t i = 0; i < got->n; i++) {
        if ((int)(i % (size_t)stride) < width) {
            pool_add(pool, got->host[i], f64[i], rounded(plain[i], got->t));
        } else {
            EXPECT(got->host[i] == UNTOUCHED, "%s: element %zu, a gap, was written", what, i);
        }
    }
}

// Statistics; a query that sees nothing has -inf on both sides.
static void pool_stats(const char *what, Pool *pool, const Buf *got, const double *f64,
                       const double *plain) {
    for (size_t i = 0; i < got->n; i++) {
        if (f64[i] == -INFINITY) {
            EXPECT(got->host[i] == -INFINITY, "%s[%zu] = %g, want -inf", what, i, got->host[i]);
        } else {
            pool_add(pool, got->host[i], f64[i], plain[i]);
        }
    }
}

enum { OUT, LSE, DELTA, DQ, DK, DV, OUTPUTS };
static const char *const output_names[OUTPUTS] = {"out", "lse", "delta", "dq", "dk", "dv"};

// Holds outputs from..to of the op on draws of a shape against the two references.
static void expect_equation(const Shape *shape, DType t, uint32_t sample, int from, int to) {
    Pool pools[OUTPUTS] = {0};
    const int rows = shape->Tq[0] * shape->H;
    const int draws = rows >= 256 ? 1 : 256 / rows;
    for (int draw = 0; draw < draws; draw++) {
        Problem p = problem_new(shape, t, sample + 1000 * (uint32_t)draw);
        const AttentionShape *s = &p.shape;
        if (to <= LSE) {
            run_fwd(&p, check_ops()->attention_fwd);
        } else {
            run(&p);
        }
        Result f64 = result_new(&p), plain = result_new(&p);
        reference(&p, &f64, false);
        reference(&p, &plain, true);
        const int q_width = s->H * s->D, k_width = s->Hkv * s->D;
        pool_rows("out", &pools[OUT], &p.out, f64.out, plain.out, s->out_stride, q_width);
        pool_stats("lse", &pools[LSE], &p.lse, f64.lse, plain.lse);
        if (to > LSE) {
            pool_stats("delta", &pools[DELTA], &p.delta, f64.delta, plain.delta);
            pool_rows("dq", &pools[DQ], &p.dq, f64.dq, plain.dq, s->q_stride, q_width);
            pool_rows("dk", &pools[DK], &p.dk, f64.dk, plain.dk, s->k_stride, k_width);
            pool_rows("dv", &pools[DV], &p.dv, f64.dv, plain.dv, s->v_stride, k_width);
        }
        result_free(&f64);
        result_free(&plain);
        problem_free(&p);
    }
    for (int x = 0; x < OUTPUTS; x++) {
        if (x >= from && x <= to) {
            expect_sum(output_names[x], pools[x].got, pools[x].f64, pools[x].plain, pools[x].n);
        }
        free(pools[x].got);
        free(pools[x].f64);
        free(pools[x].plain);
    }
}

// Bits of every output of two problems of one shape.
static void expect_same(const char *what, const Problem *a, const Problem *b) {
    const Buf *x[] = {&a->out, &a->lse, &a->dq, &a->dk, &a->dv, &a->delta};
    const Buf *y[] = {&b->out, &b->lse, &b->dq, &b->dk, &b->dv, &b->delta};
    for (int i = 0; i < 6; i++) {
        expect_exact(what, x[i]->host, y[i]->host, x[i]->n);
    }
}

static bool begin_case(const char *text, int n) {
    const Shape *s = &shapes[n / DT_COUNT];
    return CASE("%s shape %d t=%s B=%d H=%d/%d D=%d Tq=%d Tk=%d%s%s", text, n / DT_COUNT,
                dtype_name((DType)(n % DT_COUNT)), s->B, s->H, s->Hkv, s->D, s->Tq[0], s->Tk[0],
                s->is_causal ? " causal" : "", s->has_alibi ? " alibi" : "");
}

// In the emulator the tiled shapes are for the kernels that have tiles; large=1: for all.
static bool is_afforded(int n) {
    return check_affords(n % DT_COUNT != DT_BF16 && n / DT_COUNT >= TILED ? 1e9 : 0);
}

#define EACH_SHAPE(text)                                                                           \
    for (int n = 0; n < DT_COUNT * SHAPES; n++)                                                    \
        if (is_afforded(n) && begin_case(text, n))

// ---- forward, and what holds for both ----
// Sequence 1 of `both`, alone at the same place in memory: the rows before belong to nobody.
static void expect_batch_invariance(const Shape *both, DType t) {
    Problem a = problem_new(both, t, 101), b = problem_new(both, t, 101);
    run(&a);
    IntBuf alone_q = ibuf_from(a.host_q + 1, 2), alone_k = ibuf_from(a.host_k + 1, 2);
    b.shape.B = 1;
    b.shape.cu_q = alone_q.dev, b.shape.cu_k = alone_k.dev;
    b.shape.max_Tq = both->Tq[1], b.shape.max_Tk = both->Tk[1];
    run(&b);
    const size_t width = (size_t)both->H * both->D, kv_width = (size_t)both->Hkv * both->D;
    for (int i = both->Tq[0]; i < a.host_q[2]; i++) {
        expect_exact("out", b.out.host + i * b.shape.out_stride,
                     a.out.host + i * a.shape.out_stride, width);
        expect_exact("dq", b.dq.host + i * b.shape.q_stride, a.dq.host + i * a.shape.q_stride,
                     width);
    }
    for (int j = both->Tk[0]; j < a.host_k[2]; j++) {
        expect_exact("dk", b.dk.host + j * b.shape.k_stride, a.dk.host + j * a.shape.k_stride,
                     kv_width);
        expect_exact("dv", b.dv.host + j * b.shape.v_stride, a.dv.host + j * a.shape.v_stride,
                     kv_width);
    }
    ibuf_free(&alone_q);
    ibuf_free(&alone_k);
    problem_free(&a);
    problem_free(&b);
}

static void expect_mask_stops_nan(void) {
    const Shape s = {2, 1, 1, 8, true, false, {9, 12}, {9, 12}};
    Problem a = problem_new(&s, DT_F32, 102), b = problem_new(&s, DT_F32, 102);
    run(&a);
    const int bad = 9 + 7; // key 7 of sequence 1: queries 0..6 of it must not notice
    for (int d = 0; d < 8; d++) {
        b.k.host[bad * b.shape.k_stride + d] = b.v.host[bad * b.shape.v_stride + d] = NAN;
    }
    buf_write(&b.k);
    buf_write(&b.v);
    run(&b);
    for (int i = 0; i < 21; i++) {
        const double *x = b.out.host + i * b.shape.out_stride;
        if (i < bad) {
            expect_exact("out", x, a.out.host + i * a.shape.out_stride, 8);
            expect_exact("dq", b.dq.host + i * b.shape.q_stride,
                         a.dq.host + i * a.shape.q_stride, 8);
        } else {
            EXPECT(isnan(x[0]) && isnan(b.lse.host[i]), "query %d hides a NaN: %g", i, x[0]);
        }
    }
    for (int j = 0; j < 9; j++) { // sequence 0
        expect_exact("dk", b.dk.host + j * b.shape.k_stride, a.dk.host + j * a.shape.k_stride,
                     8);
        expect_exact("dv", b.dv.host + j * b.shape.v_stride, a.dv.host + j * a.shape.v_stride,
                     8);
    }
    problem_free(&a);
    problem_free(&b);
}

// The last Tq queries of each sequence over keys in a cache with room for `room` rows, whose unused
// rows are NaN, against the same rows of the whole pass.
static void expect_cache(DType t, bool is_causal) {
    enum { room = 70 };
    const Shape whole = {3, 4, 2, 24, is_causal, true, {61, 1, 40}, {61, 1, 40}};
    const Shape part = {3, 4, 2, 24, is_causal, true, {1, 1, 7}, {room, room, room}};
    Problem a = problem_new(&whole, t, 103), b = problem_new(&part, t, 104);
    Buf *from[] = {&a.k, &a.v, &a.q}, *to[] = {&b.k, &b.v, &b.q};
    const int stride[] = {a.shape.k_stride, a.shape.v_stride, a.shape.q_stride};
    for (int i = 0; i < 3; i++) {
        for (size_t e = 0; e < to[i]->n; e++) {
            to[i]->host[e] = NAN;
        }
        for (int s = 0; s < whole.B; s++) {
            const int rows = i < 2 ? whole.Tk[s] : part.Tq[s];
            const int first = i < 2 ? room * s : b.host_q[s];
            const int source = a.host_k[s] + whole.Tk[s] - rows;
            memcpy(to[i]->host + first * stride[i], from[i]->host + source * stride[i],
                   (size_t)rows * stride[i] * sizeof(double));
        }
        buf_write(to[i]);
    }
    IntBuf used = ibuf_from(whole.Tk, (size_t)whole.B);
    b.shape.used_k = used.dev;
    run_fwd(&a, check_ops()->attention_fwd);
    attention_fwd_fn *fast = check_ops()->attention_fwd;
    attention_fwd_fn *const ways[] = {fast, attention_fwd_naive};
    for (int w = 0; w < (device_kind(check_device()) == DEVICE_CPU ? 2 : 1); w++) {
        run_fwd(&b, ways[w]);
        for (int s = 0; s < whole.B; s++) {
            for (int i = 0; i < part.Tq[s]; i++) {
                const int row = b.host_q[s] + i, n = a.host_q[s] + whole.Tq[s] - part.Tq[s] + i;
                expect_exact("out", b.out.host + row * b.shape.out_stride,
                             a.out.host + n * a.shape.out_stride, 4 * 24);
                for (int h = 0; h < 4; h++) {
                    expect_exact("lse", b.lse.host + h * b.shape.Nq + row,
                                 a.lse.host + h * a.shape.Nq + n, 1);
                }
            }
        }
    }
    ibuf_free(&used);
    problem_free(&a);
    problem_free(&b);
}

// A GPU promises no other kernel's bits, but its own again; an emulated one has no other order.
static void expect_same_bits(void) {
    const DeviceKind kind = device_kind(check_device());
    const char *text = kind == DEVICE_CPU ? "naive and fast have the same bits"
                                          : "a second run has the same bits";
    for (int n = 0; n < DT_COUNT * SHAPES && kind != DEVICE_EMU; n++) {
        if (begin_case(text, n)) {
            Problem a = problem_new(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n);
            Problem b = problem_new(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n);
            run(&a);
            if (kind == DEVICE_CPU) {
                run_with(&b, check_device(), attention_fwd_naive, attention_bwd_naive);
            } else {
                run(&b);
            }
            expect_same("again", &a, &b);
            problem_free(&a);
            problem_free(&b);
        }
    }
}

TEST_OP(attention_fwd) {
    EACH_SHAPE("equation") {
        expect_equation(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n, OUT, LSE);
    }
    expect_same_bits();
    if (CASE("threads change nothing")) {
        const Shape s = {3, 4, 2, 64, true, false, {130, 97, 40}, {130, 97, 40}};
        Problem a = problem_new(&s, DT_F32, 100), b = problem_new(&s, DT_F32, 100);
        Device *many = device_new(device_kind(check_device()), 0, 3);
        run(&a);
        run_with(&b, many, check_ops()->attention_fwd, check_ops()->attention_bwd);
        expect_same("threads", &a, &b);
        device_free(many);
        problem_free(&a);
        problem_free(&b);
    }
    const Shape batches[] = {
        {2, 2, 1, 16, true, true, {19, 35}, {19, 35}},
        {2, 1, 1, 8, false, false, {3, 21}, {300, 40}}, // a long one beside a short one
        {2, 1, 1, 8, true, false, {3, 21}, {40, 300}},
    };
    for (int n = 0; n < 6; n++) {
        const DType type = n % 2 ? DT_BF16 : DT_F32;
        if (CASE("the rest of the batch changes nothing, batch %d t=%s", n / 2, dtype_name(type))) {
            expect_batch_invariance(&batches[n / 2], type);
        }
    }
    if (CASE("what is masked or elsewhere does not reach a query, not even as NaN")) {
        expect_mask_stops_nan();
    }
    for (int n = 0; n < 2 * DT_COUNT; n++) {
        if (CASE("a cache changes nothing t=%s%s", dtype_name((DType)(n / 2)),
                 n % 2 ? " causal" : "")) {
            expect_cache((DType)(n / 2), n % 2);
        }
    }
}

// ---- backward ----
// loss = sum of out * dout in double, as a function of one input.
typedef struct {
    Problem *p;
} Loss;

static double loss_of(void *ctx) {
    const Problem *p = ((Loss *)ctx)->p;
    const AttentionShape *s = &p->shape;
    Result r = result_new(p);
    reference(p, &r, false);
    double loss = 0;
    for (size_t row = 0; row < (size_t)s->Nq; row++) {
        for (int c = 0; c < s->H * s->D; c++) {
            const size_t i = row * (size_t)s->out_stride + (size_t)c;
            loss += r.out[i] * p->dout.host[i];
        }
    }
    result_free(&r);
    return loss;
}

TEST_OP(attention_bwd) {
    EACH_SHAPE("equation") {
        expect_equation(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n, DELTA, DV);
    }
    const Shape small[] = {
        {2, 2, 1, 3, true, true, {3, 4}, {5, 4}},
        {2, 2, 2, 4, false, false, {3, 2}, {4, 1}},
    };
    for (int n = 0; n < 2; n++) {
        if (CASE("differences shape %d", n)) {
            // The double reference against differences; the op was held to the reference above.
            Problem p = problem_new(&small[n], DT_F32, 200);
            Result r = result_new(&p);
            reference(&p, &r, false);
            Loss loss = {&p};
            const struct {
                const char *name;
                Buf *x;
                double *grad;
                int stride, width;
            } inputs[] = {
                {"dq", &p.q, r.dq, p.shape.q_stride, p.shape.H * p.shape.D},
                {"dk", &p.k, r.dk, p.shape.k_stride, p.shape.Hkv * p.shape.D},
                {"dv", &p.v, r.dv, p.shape.v_stride, p.shape.Hkv * p.shape.D},
            };
            for (int x = 0; x < 3; x++) {
                for (size_t at = 0; at < inputs[x].x->n; at += (size_t)inputs[x].stride) {
                    expect_gradient(inputs[x].name, inputs[x].grad + at, inputs[x].x->host + at,
                                    (size_t)inputs[x].width, loss_of, &loss, 100);
                }
            }
            result_free(&r);
            problem_free(&p);
        }
    }
}
