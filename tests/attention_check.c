// What the tests of attention share; see attention_check.h.
#include "tests/attention_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- one problem: inputs, outputs, and the device's copy of the shape ----

// What stands between rows must not matter.
static void poison_gaps(Buf *buf, int stride, int width) {
    for (size_t i = 0; i < buf->n; i++) {
        buf->host[i] = (int)(i % (size_t)stride) < width ? buf->host[i] : NAN;
    }
    buf_write(buf);
}

AttentionProblem attention_problem_new(const AttentionCase *s, DType t, uint32_t sample) {
    AttentionProblem p = {.t = t};
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
    p.out = buf_fill(t, (size_t)x->Nq * x->out_stride, ATTENTION_UNTOUCHED);
    p.dq = buf_fill(t, (size_t)x->Nq * x->q_stride, ATTENTION_UNTOUCHED);
    p.dk = buf_fill(t, (size_t)x->Nk * x->k_stride, ATTENTION_UNTOUCHED);
    p.dv = buf_fill(t, (size_t)x->Nk * x->v_stride, ATTENTION_UNTOUCHED);
    p.lse = buf_fill(DT_F32, (size_t)x->Nq * x->H, NAN);
    p.delta = buf_fill(DT_F32, (size_t)x->Nq * x->H, NAN);
    return p;
}

void attention_problem_free(AttentionProblem *p) {
    Buf *all[] = {&p->q,  &p->k,  &p->v,  &p->dout,  &p->out,  &p->lse,
                  &p->dq, &p->dk, &p->dv, &p->delta, &p->alibi};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buf_free(all[i]);
    }
    ibuf_free(&p->cu_q);
    ibuf_free(&p->cu_k);
}

void attention_run_with(AttentionProblem *p, Device *dev, attention_fwd_fn *fwd,
                        attention_bwd_fn *bwd) {
    fwd(dev, p->t, p->out.dev, buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev, &p->shape);
    bwd(dev, p->t, p->dq.dev, p->dk.dev, p->dv.dev, buf_f32(&p->delta), p->dout.dev, p->out.dev,
        buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev, &p->shape);
    Buf *outputs[] = {&p->out, &p->lse, &p->dq, &p->dk, &p->dv, &p->delta};
    for (int i = 0; i < 6; i++) {
        buf_read(outputs[i]);
    }
}

void attention_run_fwd(AttentionProblem *p, attention_fwd_fn *fwd) {
    fwd(check_device(), p->t, p->out.dev, buf_f32(&p->lse), p->q.dev, p->k.dev, p->v.dev,
        &p->shape);
    buf_read(&p->out);
    buf_read(&p->lse);
}

void attention_run(AttentionProblem *p) {
    attention_run_with(p, check_device(), check_ops()->attention_fwd, check_ops()->attention_bwd);
}

// ---- the reference ----

AttentionResult attention_result_new(const AttentionProblem *p) {
    const AttentionShape *s = &p->shape;
    const size_t stats = (size_t)s->Nq * s->H;
    return (AttentionResult){
        xcalloc(p->out.n + 1, 8), xcalloc(stats + 1, 8),  xcalloc(stats + 1, 8),
        xcalloc(p->q.n + 1, 8),   xcalloc(p->k.n + 1, 8), xcalloc(p->v.n + 1, 8),
    };
}

void attention_result_free(AttentionResult *r) {
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
static double as_factor(double x, const AttentionProblem *p, bool is_f32) {
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
static double scores_of(const AttentionProblem *p, double *score, int b, int h, int i,
                        bool is_f32) {
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

void attention_reference(const AttentionProblem *p, AttentionResult *r, bool is_f32) {
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
            EXPECT(got->host[i] == ATTENTION_UNTOUCHED, "%s: element %zu, a gap, was written",
                   what, i);
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

static const char *const output_names[ATTENTION_OUTPUTS] = {"out", "lse", "delta",
                                                            "dq",  "dk",  "dv"};

void expect_attention(const AttentionCase *shape, DType t, uint32_t sample, int from, int to) {
    Pool pools[ATTENTION_OUTPUTS] = {0};
    const int rows = shape->Tq[0] * shape->H;
    const int draws = rows >= 256 ? 1 : 256 / rows;
    for (int draw = 0; draw < draws; draw++) {
        AttentionProblem p = attention_problem_new(shape, t, sample + 1000 * (uint32_t)draw);
        const AttentionShape *s = &p.shape;
        if (to <= ATTENTION_LSE) {
            attention_run_fwd(&p, check_ops()->attention_fwd);
        } else {
            attention_run(&p);
        }
        AttentionResult f64 = attention_result_new(&p), plain = attention_result_new(&p);
        attention_reference(&p, &f64, false);
        attention_reference(&p, &plain, true);
        const int q_width = s->H * s->D, k_width = s->Hkv * s->D;
        pool_rows("out", &pools[ATTENTION_OUT], &p.out, f64.out, plain.out, s->out_stride, q_width);
        pool_stats("lse", &pools[ATTENTION_LSE], &p.lse, f64.lse, plain.lse);
        if (to > ATTENTION_LSE) {
            pool_stats("delta", &pools[ATTENTION_DELTA], &p.delta, f64.delta, plain.delta);
            pool_rows("dq", &pools[ATTENTION_DQ], &p.dq, f64.dq, plain.dq, s->q_stride, q_width);
            pool_rows("dk", &pools[ATTENTION_DK], &p.dk, f64.dk, plain.dk, s->k_stride, k_width);
            pool_rows("dv", &pools[ATTENTION_DV], &p.dv, f64.dv, plain.dv, s->v_stride, k_width);
        }
        attention_result_free(&f64);
        attention_result_free(&plain);
        attention_problem_free(&p);
    }
    for (int x = 0; x < ATTENTION_OUTPUTS; x++) {
        if (x >= from && x <= to) {
            expect_sum(output_names[x], pools[x].got, pools[x].f64, pools[x].plain, pools[x].n);
        }
        free(pools[x].got);
        free(pools[x].f64);
        free(pools[x].plain);
    }
}

void expect_attention_alone(const AttentionCase *both, DType t) {
    AttentionProblem a = attention_problem_new(both, t, 101);
    AttentionProblem b = attention_problem_new(both, t, 101);
    attention_run(&a);
    IntBuf alone_q = ibuf_from(a.host_q + 1, 2), alone_k = ibuf_from(a.host_k + 1, 2);
    b.shape.B = 1;
    b.shape.cu_q = alone_q.dev, b.shape.cu_k = alone_k.dev;
    b.shape.max_Tq = both->Tq[1], b.shape.max_Tk = both->Tk[1];
    attention_run(&b);
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
    attention_problem_free(&a);
    attention_problem_free(&b);
}
