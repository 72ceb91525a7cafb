// norm_check: what the tests of both normalisations share; see norm_check.h.
#include "tests/norm_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

// ---- one problem ----
static NormProblem problem_new(const Norm *norm, Shape s, DType t) {
    Rng rng = check_rng((uint32_t)(s.N * 65536 + s.C));
    const size_t n = (size_t)s.N * s.C, C = (size_t)s.C, N = (size_t)s.N;
    NormProblem q = {.norm = norm, .N = s.N, .C = s.C, .t = t};
    q.x = buf_normal(t, n, 1.5, &rng), q.dy = buf_normal(t, n, 1, &rng);
    q.w = buf_normal(t, C, 1, &rng), q.b = buf_normal(t, norm->has_mean ? C : 0, 1, &rng);
    q.dw = buf_normal(DT_F32, C, 1, &rng);
    q.db = buf_normal(DT_F32, norm->has_mean ? C : 0, 1, &rng);
    q.around = buf_normal(t, n, 1, &rng);
    for (size_t i = 0; i < n; i++) {
        q.x.host[i] += norm->shift;
    }
    buf_write(&q.x);
    q.mean = buf_fill(DT_F32, norm->has_mean ? N : 0, NAN), q.rstd = buf_fill(DT_F32, N, NAN);
    double *out = doubles_new(n);
    norm->reference_fwd(IN_F64, &q, out, q.mean.host, q.rstd.host);
    buf_write(&q.mean), buf_write(&q.rstd);
    free(out);
    return q;
}

static void problem_free(NormProblem *q) {
    buf_free(&q->x), buf_free(&q->w), buf_free(&q->b), buf_free(&q->dy);
    buf_free(&q->mean), buf_free(&q->rstd), buf_free(&q->dw), buf_free(&q->db);
    buf_free(&q->around);
}

// A f32 buffer from element `at` on, or NULL where the norm has none.
static float *floats_at(Buf *buf, size_t at) { return buf->n > 0 ? buf_f32(buf) + at : NULL; }

// ---- forward ----
typedef struct {
    Buf out, mean, rstd;
} Forward;

static Forward forward_new(Device *dev, const NormProblem *q, bool in_place) {
    Forward f = {.mean = buf_fill(DT_F32, q->mean.n, NAN),
                 .rstd = buf_fill(DT_F32, q->rstd.n, NAN)};
    f.out = in_place ? buf_from(q->t, q->x.host, q->x.n) : buf_fill(q->t, q->x.n, NAN);
    q->norm->fwd(dev, q, f.out.dev, floats_at(&f.mean, 0), floats_at(&f.rstd, 0),
                 in_place ? f.out.dev : q->x.dev);
    buf_read(&f.out), buf_read(&f.mean), buf_read(&f.rstd);
    return f;
}

static void forward_free(Forward *f) {
    buf_free(&f->out), buf_free(&f->mean), buf_free(&f->rstd);
}

// Frees a.
static void expect_same_forward(const char *what, Forward *a, const Forward *b) {
    expect_exact(what, a->out.host, b->out.host, b->out.n);
    expect_exact(what, a->mean.host, b->mean.host, b->mean.n);
    expect_exact(what, a->rstd.host, b->rstd.host, b->rstd.n);
    forward_free(a);
}

// Single numbers, where a plain loop may be right by luck: bounded by the roundings on the way
// instead, at most C/16 + 10, each 2^-24 of the mean magnitude (mean) or of the result (rstd). The
// mean's own error enters the variance squared.
static void expect_statistics(const NormProblem *q, const Forward *got, const double *mean,
                              const double *rstd) {
    const int C = q->C;
    const double roundings = (C / 16 + 10) * 0x1p-24;
    for (int n = 0; n < q->N; n++) {
        double magnitude = 0;
        for (int c = 0; c < C; c++) {
            magnitude += fabs(q->x.host[(size_t)n * C + c]) / C;
        }
        if (q->norm->has_mean) {
            expect_within("mean", got->mean.host + n, mean + n, 1, roundings * magnitude);
        }
        expect_within("rstd", got->rstd.host + n, rstd + n, 1, roundings * rstd[n]);
    }
}

static void one_forward(const NormProblem *q) {
    double *want[2], *mean[2], *rstd[2];
    for (int p = IN_F64; p <= IN_F32; p++) {
        want[p] = doubles_new(q->x.n), mean[p] = doubles_new(q->mean.n);
        rstd[p] = doubles_new(q->rstd.n);
        q->norm->reference_fwd((Precision)p, q, want[p], mean[p], rstd[p]);
    }
    Forward got = forward_new(check_device(), q, false);
    expect_sum("out", got.out.host, want[0], want[1], got.out.n);
    expect_statistics(q, &got, mean[0], rstd[0]);
    if (q->norm->expect_own) {
        q->norm->expect_own(q, &got.out, &got.rstd);
    }
    Forward in_place = forward_new(check_device(), q, true);
    expect_same_forward("out in the place of inp", &in_place, &got);
    for (int p = 0; p < 2; p++) {
        free(want[p]), free(mean[p]), free(rstd[p]);
    }
    forward_free(&got);
}

void norm_test_fwd(const Norm *norm) {
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (CASE("N=%d C=%d t=%s", s.N, s.C, dtype_name(t))) {
            NormProblem q = problem_new(norm, s, t);
            one_forward(&q);
            problem_free(&q);
        }
    }
    for (int k = 0; k < DT_COUNT; k++) {
        if (CASE("threads t=%s", dtype_name((DType)k))) {
            NormProblem q = problem_new(norm, threaded, (DType)k);
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
    Buf dx, dw, db;
} Backward;

// Where dinp lies, and whether there is a residual.
typedef struct {
    bool has_residual;
    enum { APART, ON_DOUT, ON_RESIDUAL } place;
} Way;

static void run_backward(Device *dev, const NormProblem *q, Backward *g, Way way, int from,
                         int to) {
    const size_t at = (size_t)from * q->C;
    void *dx = dtype_at(q->t, g->dx.dev, at);
    const void *around = way.place == ON_RESIDUAL ? dx : dtype_at(q->t, q->around.dev, at);
    Buf mean = q->mean, rstd = q->rstd;
    const NormBackwardCall call = {
        .dx = dx, .dw = floats_at(&g->dw, 0), .db = floats_at(&g->db, 0),
        .around = way.has_residual ? around : NULL,
        .dy = way.place == ON_DOUT ? dx : dtype_at(q->t, q->dy.dev, at),
        .x = dtype_at(q->t, q->x.dev, at), .mean = floats_at(&mean, (size_t)from),
        .rstd = floats_at(&rstd, (size_t)from), .N = to - from};
    q->norm->bwd(dev, q, &call);
}

// Rows 0 .. split - 1 in one call and the others in a second one.
static Backward backward_new(Device *dev, const NormProblem *q, Way way, int split) {
    const size_t n = q->x.n;
    Backward g = {.dw = buf_from(DT_F32, q->dw.host, q->dw.n),
                  .db = buf_from(DT_F32, q->db.host, q->db.n)};
    g.dx = way.place == ON_DOUT       ? buf_from(q->t, q->dy.host, n)
           : way.place == ON_RESIDUAL ? buf_from(q->t, q->around.host, n)
                                      : buf_fill(q->t, n, NAN);
    run_backward(dev, q, &g, way, 0, split);
    if (split < q->N) {
        run_backward(dev, q, &g, way, split, q->N);
    }
    buf_read(&g.dx), buf_read(&g.dw), buf_read(&g.db);
    return g;
}

static void backward_free(Backward *g) { buf_free(&g->dx), buf_free(&g->dw), buf_free(&g->db); }

// Frees a.
static void expect_same_backward(const char *what, Backward *a, const Backward *b) {
    expect_exact(what, a->dx.host, b->dx.host, b->dx.n);
    expect_exact(what, a->dw.host, b->dw.host, b->dw.n);
    expect_exact(what, a->db.host, b->db.host, b->db.n);
    backward_free(a);
}

// Where g and x^ mean(g x^) cancel the plain loop's own error says nothing. Each of the four
// roundings on the way is 2^-24 of rstd g; a store in bf16 is one more, at most 2^-8 of the result.
static void expect_cancelled(const NormProblem *q, const double *dx, const double *want) {
    for (int n = 0; n < q->N; n++) {
        const double terms = fabs(q->rstd.host[n] * q->dy.host[n] * q->w.host[0]);
        const double stored = q->t == DT_F32 ? 0 : 0x1p-8 * fabs(want[n]);
        expect_within("dinp, cancelled", dx + n, want + n, 1,
                      1.01 * (4 * 0x1p-24 * terms + stored));
    }
}

// The sums over rows that a call leaves are those of one call over all rows: bit for bit where they
// are chains.
static void expect_micro_batches(Backward *halves, const Backward *whole, double *const dw[2],
                                 double *const db[2]) {
    if (device_kind(check_device()) == DEVICE_CPU) {
        expect_same_backward("two micro-batches", halves, whole);
        return;
    }
    expect_exact("dinp of two micro-batches", halves->dx.host, whole->dx.host, whole->dx.n);
    expect_sum("dweight of two micro-batches", halves->dw.host, dw[0], dw[1], whole->dw.n);
    expect_sum("dbias of two micro-batches", halves->db.host, db[0], db[1], whole->db.n);
    backward_free(halves);
}

// With a residual, wherever dinp lies.
static void expect_residual(const NormProblem *q) {
    Backward whole = backward_new(check_device(), q, (Way){true, APART}, q->N);
    Backward on_dout = backward_new(check_device(), q, (Way){true, ON_DOUT}, q->N);
    Backward on_residual = backward_new(check_device(), q, (Way){true, ON_RESIDUAL}, q->N);
    double *want[2], *sums = doubles_new(2 * (size_t)q->C);
    for (int p = IN_F64; p <= IN_F32; p++) {
        want[p] = doubles_new(q->x.n);
        q->norm->reference_bwd((Precision)p, q, want[p], sums, sums + q->C, q->around.host);
    }
    expect_sum("dinp with a residual", whole.dx.host, want[0], want[1], q->x.n);
    expect_same_backward("dinp with a residual in the place of dout", &on_dout, &whole);
    expect_same_backward("dinp in the place of the residual", &on_residual, &whole);
    free(want[0]), free(want[1]), free(sums);
    backward_free(&whole);
}

static void expect_dinp(const NormProblem *q, const double *got, double *const want[2]) {
    if (q->norm->cancels_alone && q->C == 1) {
        expect_cancelled(q, got, want[0]);
    } else {
        expect_sum("dinp", got, want[0], want[1], q->x.n);
    }
}

// Without parameter gradients (a frozen layer) dinp is the same.
static void expect_frozen(const NormProblem *q, const Backward *whole) {
    Backward alone = {.dx = buf_fill(q->t, q->x.n, NAN)};
    run_backward(check_device(), q, &alone, (Way){false, APART}, 0, q->N);
    expect_exact("dinp of a frozen layer", buf_read(&alone.dx), whole->dx.host, q->x.n);
    buf_free(&alone.dx);
}

static void one_backward(const NormProblem *q) {
    const Way plain = {false, APART};
    double *dx[2], *dw[2], *db[2];
    Backward got = backward_new(check_device(), q, plain, q->N);
    Backward whole = backward_new(check_device(), q, plain, q->N);
    Backward in_place = backward_new(check_device(), q, (Way){false, ON_DOUT}, q->N);
    Backward halves = backward_new(check_device(), q, plain, (q->N + 1) / 2);
    for (int p = IN_F64; p <= IN_F32; p++) {
        dx[p] = doubles_new(q->x.n), dw[p] = doubles_new(q->dw.n), db[p] = doubles_new(q->db.n);
        memcpy(dw[p], q->dw.host, q->dw.n * sizeof(double));
        memcpy(db[p], q->db.host, q->db.n * sizeof(double));
    }
    for (int run = 0; run < 2; run++) { // twice: the parameter gradients accumulate
        if (run == 1) {
            run_backward(check_device(), q, &got, plain, 0, q->N);
            buf_read(&got.dx), buf_read(&got.dw), buf_read(&got.db);
        }
        for (int p = IN_F64; p <= IN_F32; p++) {
            q->norm->reference_bwd((Precision)p, q, dx[p], dw[p], db[p], NULL);
        }
        if (run == 0) {
            expect_micro_batches(&halves, &whole, dw, db);
        }
        expect_dinp(q, got.dx.host, dx);
        expect_sum("dweight", got.dw.host, dw[0], dw[1], got.dw.n);
        expect_sum("dbias", got.db.host, db[0], db[1], got.db.n);
    }
    for (int p = 0; p < 2; p++) {
        free(dx[p]), free(dw[p]), free(db[p]);
    }
    backward_free(&got);
    expect_same_backward("dinp in the place of dout", &in_place, &whole);
    expect_frozen(q, &whole);
    backward_free(&whole);
    if (!q->norm->cancels_alone || q->C > 1) {
        expect_residual(q);
    }
}

// For finite differences, everything in double: sum dy * norm(x). Leaves the statistics in q.
static double loss(void *ctx) {
    NormProblem *q = ctx;
    double *out = doubles_new(q->x.n), sum = 0;
    q->norm->reference_fwd(IN_F64, q, out, q->mean.host, q->rstd.host);
    for (size_t i = 0; i < q->x.n; i++) {
        sum += q->dy.host[i] * out[i];
    }
    free(out);
    return sum;
}

void norm_test_bwd(const Norm *norm) {
    if (CASE("reference against differences")) {
        NormProblem q = problem_new(norm, (Shape){3, 7}, DT_F32);
        double dx[21], dw[7] = {0}, db[7] = {0};
        loss(&q);
        norm->reference_bwd(IN_F64, &q, dx, dw, db, NULL);
        expect_gradient("dinp", dx, q.x.host, q.x.n, loss, &q, 21);
        expect_gradient("dweight", dw, q.w.host, q.w.n, loss, &q, 7);
        expect_gradient("dbias", db, q.b.host, q.b.n, loss, &q, 7);
        problem_free(&q);
    }
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (CASE("N=%d C=%d t=%s", s.N, s.C, dtype_name(t))) {
            NormProblem q = problem_new(norm, s, t);
            one_backward(&q);
            problem_free(&q);
        }
    }
    for (int k = 0; k < DT_COUNT; k++) {
        if (CASE("threads t=%s", dtype_name((DType)k))) {
            NormProblem q = problem_new(norm, threaded, (DType)k);
            const Way plain = {false, APART};
            Backward one = backward_new(check_device_threads(1), &q, plain, threaded.N);
            Backward three = backward_new(check_device_threads(3), &q, plain, threaded.N);
            expect_same_backward("three threads", &three, &one);
            backward_free(&one);
            problem_free(&q);
        }
    }
}
