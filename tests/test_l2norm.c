// test_l2norm: rows of unit length, rows too short to have a direction, and the gradient of both.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

typedef struct {
    int N, C;
} Shape;
static const Shape shapes[] = {{1, 2},   {3, 1},   {1, 15},  {4, 16},  {5, 17},
                               {3, 255}, {4, 257}, {9, 768}, {67, 1031}};
#define SHAPES (int)(sizeof shapes / sizeof *shapes)
static const double EPS = 1e-12f;

// ---- reference ----
static void reference_fwd(Precision p, DType t, double *out, double *norm, const double *x, int N,
                          int C) {
    for (int n = 0; n < N; n++, x += C, out += C) {
        double squares = 0;
        for (int c = 0; c < C; c++) {
            squares = check_step(p, squares + check_step(p, x[c] * x[c]));
        }
        norm[n] = fmax(check_step(p, sqrt(squares)), EPS);
        for (int c = 0; c < C; c++) {
            out[c] = p == IN_F32 ? check_round(t, x[c] / norm[n]) : x[c] / norm[n];
        }
    }
}

static void reference_bwd(Precision p, DType t, double *dx, const double *dy, const double *y,
                          const double *norm, int N, int C) {
    for (int n = 0; n < N; n++, y += C, dy += C, dx += C) {
        double along = 0;
        for (int c = 0; c < C && norm[n] > EPS; c++) {
            along = check_step(p, along + check_step(p, dy[c] * y[c]));
        }
        for (int c = 0; c < C; c++) {
            const double d = check_step(p, dy[c] - check_step(p, along * y[c])) / norm[n];
            dx[c] = p == IN_F32 ? check_round(t, d) : d;
        }
    }
}

// ---- one problem: the last row is shorter than EPS where there are several, but not zero (not in
// f16, where such a row is zero and its gradient infinite) ----
typedef struct {
    Shape s;
    DType t;
    Buf x, dy, y, norm; // y and norm: of x, stored, as the backward is given them
} Problem;

static Problem problem_new(Shape s, DType t) {
    Rng rng = check_rng((uint32_t)(s.N * 65536 + s.C));
    const size_t n = (size_t)s.N * s.C;
    Problem q = {s, t, buf_normal(t, n, 2, &rng), buf_normal(t, n, 1, &rng), buf_fill(t, n, 0),
                 buf_fill(DT_F32, (size_t)s.N, 0)};
    for (int c = 0; c < s.C && s.N > 1 && t != DT_F16; c++) {
        q.x.host[n - 1 - (size_t)c] *= 5e-15;
    }
    buf_write(&q.x);
    reference_fwd(IN_F64, t, q.y.host, q.norm.host, q.x.host, s.N, s.C);
    buf_write(&q.y), buf_write(&q.norm);
    return q;
}

static void problem_free(Problem *q) {
    buf_free(&q->x), buf_free(&q->dy), buf_free(&q->y), buf_free(&q->norm);
}

// Expects a's contents to be exactly b's, and frees a.
static void expect_same(const char *what, Buf a, const Buf *b) {
    expect_exact(what, a.host, b->host, b->n);
    buf_free(&a);
}

// ---- l2norm_fwd ----
static Buf forward_new(Device *dev, const Problem *q, Buf *norm, bool in_place) {
    const size_t n = (size_t)q->s.N * q->s.C;
    Buf out = in_place ? buf_from(q->t, q->x.host, n) : buf_fill(q->t, n, NAN);
    device_ops(dev)->l2norm_fwd(dev, q->t, out.dev, buf_f32(norm), in_place ? out.dev : q->x.dev,
                                q->s.N, q->s.C);
    buf_read(&out), buf_read(norm);
    return out;
}

static void one_fwd(Problem *q) {
    const int N = q->s.N, C = q->s.C;
    const size_t n = (size_t)N * C;
    double *want[2], *size[2];
    for (int p = IN_F64; p <= IN_F32; p++) {
        want[p] = xcalloc(n, sizeof(double)), size[p] = xcalloc((size_t)N, sizeof(double));
        reference_fwd((Precision)p, q->t, want[p], size[p], q->x.host, N, C);
    }
    Buf norm = buf_fill(DT_F32, (size_t)N, NAN), again = buf_fill(DT_F32, (size_t)N, NAN);
    Buf out = forward_new(check_device(), q, &norm, false);
    expect_sum("out", out.host, want[0], want[1], n);
    for (int i = 0; i < N; i++) { // squares cannot cancel: at most C/16 + 6 roundings
        expect_within("norm", norm.host + i, size[0] + i, 1, (C / 16 + 6) * 0x1p-24 * size[0][i]);
    }
    expect_same("out in the place of inp", forward_new(check_device(), q, &again, true), &out);
    expect_exact("norm, in place", again.host, norm.host, (size_t)N);
    expect_same("three threads", forward_new(check_device_threads(3), q, &again, false), &out);
    expect_exact("norm, three threads", again.host, norm.host, (size_t)N);
    for (int p = 0; p < 2; p++) {
        free(want[p]), free(size[p]);
    }
    buf_free(&norm), buf_free(&again), buf_free(&out);
}

static void each_problem(void (*one)(Problem *)) {
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        if (CASE("N=%d C=%d t=%s", s.N, s.C, dtype_name((DType)(k % DT_COUNT)))) {
            Problem q = problem_new(s, (DType)(k % DT_COUNT));
            one(&q);
            problem_free(&q);
        }
    }
}

TEST_OP(l2norm_fwd) { each_problem(one_fwd); }

// ---- l2norm_bwd ----
static Buf backward_new(Device *dev, Problem *q, bool in_place) {
    const size_t n = (size_t)q->s.N * q->s.C;
    Buf dx = in_place ? buf_from(q->t, q->dy.host, n) : buf_fill(q->t, n, NAN);
    device_ops(dev)->l2norm_bwd(dev, q->t, dx.dev, in_place ? dx.dev : q->dy.dev, q->y.dev,
                                buf_f32(&q->norm), q->s.N, q->s.C);
    buf_read(&dx);
    return dx;
}

static void one_bwd(Problem *q) {
    const int N = q->s.N, C = q->s.C;
    const size_t n = (size_t)N * C;
    double *want[2];
    for (int p = IN_F64; p <= IN_F32; p++) {
        want[p] = xcalloc(n, sizeof(double));
        reference_bwd((Precision)p, q->t, want[p], q->dy.host, q->y.host, q->norm.host, N, C);
    }
    Buf dx = backward_new(check_device(), q, false);
    for (int i = 0; i < N; i++) { // row by row: the clamped one is larger by twelve digits
        const size_t row = (size_t)i * C;
        expect_sum("dinp", dx.host + row, want[0] + row, want[1] + row, (size_t)C);
    }
    expect_same("dinp in the place of dout", backward_new(check_device(), q, true), &dx);
    expect_same("three threads", backward_new(check_device_threads(3), q, false), &dx);
    free(want[0]), free(want[1]);
    buf_free(&dx);
}

// loss = sum dy * l2norm(x), in double, for finite differences.
typedef struct {
    double x[21], dy[21], out[21], norm[3];
} Doubles;

static double loss(void *ctx) {
    Doubles *d = ctx;
    reference_fwd(IN_F64, DT_F32, d->out, d->norm, d->x, 3, 7);
    double sum = 0;
    for (int i = 0; i < 21; i++) {
        sum += d->dy[i] * d->out[i];
    }
    return sum;
}

TEST_OP(l2norm_bwd) {
    if (CASE("reference against differences")) {
        Doubles d;
        double dx[21];
        for (int i = 0; i < 21; i++) {
            d.x[i] = sin(i + 1), d.dy[i] = cos(3 * i);
        }
        loss(&d);
        reference_bwd(IN_F64, DT_F32, dx, d.dy, d.out, d.norm, 3, 7);
        expect_gradient("dinp", dx, d.x, 21, loss, &d, 21);
    }
    each_problem(one_bwd);
}
