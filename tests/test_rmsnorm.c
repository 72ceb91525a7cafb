// test_rmsnorm: forward and backward against loops in double written here. With t = bf16 the
// product before the weight is rounded, which the reference does too.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

#define EPS 1e-6

typedef struct {
    int N, C;
} Shape;
static const Shape shapes[] = {{1, 1},   {3, 1},   {1, 15},  {4, 16},  {5, 17},   {2, 31},
                               {3, 255}, {2, 256}, {4, 257}, {9, 768}, {1, 1031}, {2, 18944},
                               // rows of several warps; more rows than a GPU has parts to sum
                               {5, 2056}, {266, 520}, {2200, 8}};
#define SHAPES (int)(sizeof shapes / sizeof *shapes)
static const Shape threaded = {67, 1031}; // enough work for more threads than one

static double *doubles_new(size_t n) { return xcalloc(n, sizeof(double)); }

// ---- reference ----
static void reference_fwd(Precision p, DType t, double *out, double *rstd, const double *x,
                          const double *w, int N, int C) {
    for (int n = 0; n < N; n++, x += C, out += C) {
        double squares = 0;
        for (int c = 0; c < C; c++) {
            squares = check_step(p, squares + check_step(p, x[c] * x[c]));
        }
        const double mean = check_step(p, squares / C);
        rstd[n] = check_step(p, 1 / check_step(p, sqrt(check_step(p, mean + (float)EPS))));
        for (int c = 0; c < C; c++) {
            const double normal = check_step(p, x[c] * rstd[n]);
            out[c] = p == IN_F32 ? check_round(t, check_round(t, normal) * w[c]) : normal * w[c];
        }
    }
}

// around: the residual, or NULL.
static void reference_bwd(Precision p, DType t, double *dx, double *dw, const double *around,
                          const double *dy, const double *x, const double *w, const double *rstd,
                          int N, int C) {
    double *normal = doubles_new((size_t)C), *g = doubles_new((size_t)C);
    for (int n = 0; n < N; n++, x += C, dy += C, dx += C) {
        double gx_sum = 0;
        for (int c = 0; c < C; c++) {
            normal[c] = check_step(p, x[c] * rstd[n]);
            g[c] = check_step(p, dy[c] * w[c]);
            gx_sum = check_step(p, gx_sum + check_step(p, g[c] * normal[c]));
            dw[c] = check_step(p, dw[c] + check_step(p, dy[c] * normal[c]));
        }
        const double gx_mean = check_step(p, gx_sum / C);
        for (int c = 0; c < C; c++) {
            const double along = check_step(p, normal[c] * gx_mean);
            const double own = check_step(p, rstd[n] * check_step(p, g[c] - along));
            const double d = around ? check_step(p, around[(size_t)n * C + c] + own) : own;
            dx[c] = p == IN_F32 ? check_round(t, d) : d;
        }
    }
    free(normal), free(g);
}

// ---- one problem ----
typedef struct {
    Shape s;
    DType t;
    Buf x, w, dy, rstd; // rstd: of x, in f32, as the backward is given it
    Buf dw;             // what the weight gradient holds before
    Buf around;         // the residual
} Problem;

static Problem problem_new(Shape s, DType t) {
    Rng rng = check_rng((uint32_t)(s.N * 65536 + s.C));
    const size_t n = (size_t)s.N * s.C;
    Problem q = {.s = s, .t = t};
    q.x = buf_normal(t, n, 1.5, &rng), q.dy = buf_normal(t, n, 1, &rng);
    q.w = buf_normal(t, (size_t)s.C, 1, &rng), q.dw = buf_normal(DT_F32, (size_t)s.C, 1, &rng);
    q.around = buf_normal(t, n, 1, &rng);
    q.rstd = buf_fill(DT_F32, (size_t)s.N, NAN);
    double *out = doubles_new(n);
    reference_fwd(IN_F64, t, out, q.rstd.host, q.x.host, q.w.host, s.N, s.C);
    buf_write(&q.rstd);
    free(out);
    return q;
}

static void problem_free(Problem *q) {
    buf_free(&q->x), buf_free(&q->w), buf_free(&q->dy), buf_free(&q->rstd), buf_free(&q->dw);
    buf_free(&q->around);
}

// ---- forward ----
typedef struct {
    Buf out, rstd;
} Forward;

static Forward forward_new(Device *dev, const Problem *q, bool in_place) {
    const size_t n = (size_t)q->s.N * q->s.C;
    Forward f = {.rstd = buf_fill(DT_F32, (size_t)q->s.N, NAN)};
    f.out = in_place ? buf_from(q->t, q->x.host, n) : buf_fill(q->t, n, NAN);
    device_ops(dev)->rmsnorm_fwd(dev, q->t, f.out.dev, buf_f32(&f.rstd),
                                 in_place ? f.out.dev : q->x.dev, q->w.dev, q->s.N, q->s.C,
                                 (float)EPS);
    buf_read(&f.out), buf_read(&f.rstd);
    return f;
}

static void forward_free(Forward *f) { buf_free(&f->out), buf_free(&f->rstd); }

// Frees a.
static void expect_same_forward(const char *what, Forward *a, const Forward *b) {
    expect_exact(what, a->out.host, b->out.host, b->out.n);
    expect_exact(what, a->rstd.host, b->rstd.host, b->rstd.n);
    forward_free(a);
}

// In bf16 the two roundings are pinned bit by bit: with the op's own rstd nothing is left to
// chance.
static void expect_two_roundings(const Problem *q, const Forward *got) {
    const size_t n = (size_t)q->s.N * q->s.C;
    double *want = doubles_new(n);
    for (size_t i = 0; i < n; i++) {
        const double normal = q->x.host[i] * got->rstd.host[i / (size_t)q->s.C];
        want[i] = check_round(q->t, check_round(q->t, normal) * q->w.host[i % (size_t)q->s.C]);
    }
    expect_exact("rounded twice", got->out.host, want, n);
    free(want);
}

TEST_OP(rmsnorm_fwd) {
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (!CASE("N=%d C=%d t=%s", s.N, s.C, dtype_name(t))) {
            continue;
        }
        Problem q = problem_new(s, t);
        const size_t n = (size_t)s.N * s.C;
        double *want[2], *rstd[2];
        for (int p = IN_F64; p <= IN_F32; p++) {
            want[p] = doubles_new(n), rstd[p] = doubles_new((size_t)s.N);
            reference_fwd((Precision)p, t, want[p], rstd[p], q.x.host, q.w.host, s.N, s.C);
        }
        Forward got = forward_new(check_device(), &q, false);
        expect_sum("out", got.out.host, want[0], want[1], n);
        for (int i = 0; i < s.N; i++) { // C/16 + 10 roundings, no cancellation
            expect_within("rstd", got.rstd.host + i, rstd[0] + i, 1,
                          (s.C / 16 + 10) * 0x1p-24 * rstd[0][i]);
        }
        expect_two_roundings(&q, &got);
        Forward in_place = forward_new(check_device(), &q, true);
        expect_same_forward("out in the place of inp", &in_place, &got);
        for (int p = 0; p < 2; p++) {
            free(want[p]), free(rstd[p]);
        }
        forward_free(&got);
        problem_free(&q);
    }
    for (int k = 0; k < DT_COUNT; k++) {
        if (CASE("threads t=%s", dtype_name((DType)k))) {
            Problem q = problem_new(threaded, (DType)k);
            Forward one = forward_new(check_device_threads(1), &q, false);
            Forward three = forward_new(check_device_threads(3), &q, false);
            expect_same_forward("three threads", &three, &one);
            forward_free(&one);
            problem_free(&q);
        }
    }
}

// ---- backward ----
typedef struct {
    Buf dx, dw;
} Backward;

// Where dinp lies, and whether there is a residual.
typedef struct {
    bool has_residual;
    enum { APART, ON_DOUT, ON_RESIDUAL } place;
} Way;

static void run_backward(Device *dev, const Problem *q, Backward *g, Way way, int from, int to) {
    const size_t at = (size_t)from * q->s.C;
    void *dx = dtype_at(q->t, g->dx.dev, at);
    const void *around = way.place == ON_RESIDUAL ? dx : dtype_at(q->t, q->around.dev, at);
    device_ops(dev)->rmsnorm_bwd(dev, q->t, dx, buf_f32(&g->dw), way.has_residual ? around : NULL,
                                 way.place == ON_DOUT ? dx : dtype_at(q->t, q->dy.dev, at),
                                 dtype_at(q->t, q->x.dev, at), q->w.dev,
                                 (float *)q->rstd.dev + from, to - from, q->s.C);
}

// Rows 0 .. split - 1 in one call and the others in a second one.
static Backward backward_new(Device *dev, const Problem *q, Way way, int split) {
    const size_t n = (size_t)q->s.N * q->s.C;
    Backward g = {.dw = buf_from(DT_F32, q->dw.host, q->dw.n)};
    g.dx = way.place == ON_DOUT       ? buf_from(q->t, q->dy.host, n)
           : way.place == ON_RESIDUAL ? buf_from(q->t, q->around.host, n)
                                      : buf_fill(q->t, n, NAN);
    run_backward(dev, q, &g, way, 0, split);
    if (split < q->s.N) {
        run_backward(dev, q, &g, way, split, q->s.N);
    }
    buf_read(&g.dx), buf_read(&g.dw);
    return g;
}

static void backward_free(Backward *g) { buf_free(&g->dx), buf_free(&g->dw); }

// Frees a.
static void expect_same_backward(const char *what, Backward *a, const Backward *b) {
    expect_exact(what, a->dx.host, b->dx.host, b->dx.n);
    expect_exact(what, a->dw.host, b->dw.host, b->dw.n);
    backward_free(a);
}

// One column alone: g and x^ mean(g x^) are equal but for eps and cancel, so that the plain loop's
// own error says nothing. Each of the four roundings on the way is 2^-24 of rstd g; a store in bf16
// is one more, at most 2^-8 of the result.
static void expect_cancelled(const Problem *q, const double *dx, const double *want) {
    for (int n = 0; n < q->s.N; n++) {
        const double terms = fabs(q->rstd.host[n] * q->dy.host[n] * q->w.host[0]);
        const double stored = q->t == DT_F32 ? 0 : 0x1p-8 * fabs(want[n]);
        expect_within("dinp, cancelled", dx + n, want + n, 1,
                      1.01 * (4 * 0x1p-24 * terms + stored));
    }
}

// The sums over rows that a call leaves are those of one call over all rows: bit for bit where they
// are chains.
static void expect_micro_batches(Backward *halves, const Backward *whole, double *const dw[2]) {
    const size_t C = whole->dw.n;
    if (device_kind(check_device()) == DEVICE_CPU) {
        expect_same_backward("two micro-batches", halves, whole);
        return;
    }
    expect_exact("dinp of two micro-batches", halves->dx.host, whole->dx.host, whole->dx.n);
    expect_sum("dweight of two micro-batches", halves->dw.host, dw[0], dw[1], C);
    backward_free(halves);
}

// With a residual, wherever dinp lies.
static void expect_residual(const Problem *q) {
    const int N = q->s.N, C = q->s.C;
    const size_t n = (size_t)N * C;
    Backward whole = backward_new(check_device(), q, (Way){true, APART}, N);
    Backward on_dout = backward_new(check_device(), q, (Way){true, ON_DOUT}, N);
    Backward on_residual = backward_new(check_device(), q, (Way){true, ON_RESIDUAL}, N);
    double *want[2], *sums = doubles_new(2 * (size_t)C);
    for (int p = IN_F64; p <= IN_F32; p++) {
        want[p] = doubles_new(n);
        reference_bwd((Precision)p, q->t, want[p], sums, q->around.host, q->dy.host,
                      q->x.host, q->w.host, q->rstd.host, N, C);
    }
    expect_sum("dinp with a residual", whole.dx.host, want[0], want[1], n);
    expect_same_backward("dinp with a residual in the place of dout", &on_dout, &whole);
    expect_same_backward("dinp in the place of the residual", &on_residual, &whole);
    free(want[0]), free(want[1]), free(sums);
    backward_free(&whole);
}

static void one_backward(Problem *q) {
    const int N = q->s.N, C = q->s.C;
    const size_t n = (size_t)N * C;
    double *dx[2], *dw[2];
    Backward got = backward_new(check_device(), q, (Way){false, APART}, N);
    Backward whole = backward_new(check_device(), q, (Way){false, APART}, N);
    Backward in_place = backward_new(check_device(), q, (Way){false, ON_DOUT}, N);
    Backward halves = backward_new(check_device(), q, (Way){false, APART}, (N + 1) / 2);
    for (int p = IN_F64; p <= IN_F32; p++) {
        dx[p] = doubles_new(n), dw[p] = doubles_new((size_t)C);
        memcpy(dw[p], q->dw.host, (size_t)C * sizeof(double));
    }
    for (int run = 0; run < 2; run++) { // twice: the weight gradient accumulates
        if (run == 1) {
            run_backward(check_device(), q, &got, (Way){false, APART}, 0, N);
            buf_read(&got.dx), buf_read(&got.dw);
        }
        for (int p = IN_F64; p <= IN_F32; p++) {
            reference_bwd((Precision)p, q->t, dx[p], dw[p], NULL, q->dy.host, q->x.host, q->w.host,
                          q->rstd.host, N, C);
        }
        if (run == 0) {
            expect_micro_batches(&halves, &whole, dw);
        }
        if (C == 1) {
            expect_cancelled(q, got.dx.host, dx[0]);
        } else {
            expect_sum("dinp", got.dx.host, dx[0], dx[1], n);
        }
        expect_sum("dweight", got.dw.host, dw[0], dw[1], (size_t)C);
    }
    for (int p = 0; p < 2; p++) {
        free(dx[p]), free(dw[p]);
    }
    backward_free(&got);
    expect_same_backward("dinp in the place of dout", &in_place, &whole);
    // Without a weight gradient (a frozen layer) dinp is the same.
    Buf alone = buf_fill(q->t, n, NAN);
    check_ops()->rmsnorm_bwd(check_device(), q->t, alone.dev, NULL, NULL, q->dy.dev, q->x.dev,
                             q->w.dev, buf_f32(&q->rstd), N, C);
    expect_exact("dinp of a frozen layer", buf_read(&alone), whole.dx.host, n);
    buf_free(&alone);
    backward_free(&whole);
    if (C > 1) {
        expect_residual(q);
    }
}

// Everything in double, for finite differences: loss = sum dy * rmsnorm(x).
typedef struct {
    int N, C;
    double *x, *w, *dy, *out, *rstd;
} Doubles;

static double loss(void *ctx) {
    Doubles *d = ctx;
    reference_fwd(IN_F64, DT_F32, d->out, d->rstd, d->x, d->w, d->N, d->C);
    double sum = 0;
    for (int i = 0; i < d->N * d->C; i++) {
        sum += d->dy[i] * d->out[i];
    }
    return sum;
}

TEST_OP(rmsnorm_bwd) {
    if (CASE("reference against differences")) {
        Problem q = problem_new((Shape){3, 7}, DT_F32);
        double out[21], rstd[3], dx[21], dw[7] = {0};
        Doubles d = {3, 7, q.x.host, q.w.host, q.dy.host, out, rstd};
        loss(&d);
        reference_bwd(IN_F64, DT_F32, dx, dw, NULL, d.dy, d.x, d.w, rstd, 3, 7);
        expect_gradient("dinp", dx, d.x, 21, loss, &d, 21);
        expect_gradient("dweight", dw, d.w, 7, loss, &d, 7);
        problem_free(&q);
    }
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (CASE("N=%d C=%d t=%s", s.N, s.C, dtype_name(t))) {
            Problem q = problem_new(s, t);
            one_backward(&q);
            problem_free(&q);
        }
    }
    for (int k = 0; k < DT_COUNT; k++) {
        if (CASE("threads t=%s", dtype_name((DType)k))) {
            Problem q = problem_new(threaded, (DType)k);
            const Way way = {false, APART};
            Backward one = backward_new(check_device_threads(1), &q, way, threaded.N);
            Backward three = backward_new(check_device_threads(3), &q, way, threaded.N);
            expect_same_backward("three threads", &three, &one);
            backward_free(&one);
            problem_free(&q);
        }
    }
}
