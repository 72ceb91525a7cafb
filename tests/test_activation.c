// test_activation: the four non-linearities, plain and gated, against the C library in double.
//
// The bound is the contract's: 8 ulp of f32 of the exact result (for a slope: of its terms), on a
// GPU 2^-15 of it for 16-bit types, the rounding to t on top, and 4e-36 where results are that
// small.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"
#include "tests/exact_act.h"

static const char *const names[ACT_COUNT] = {"gelu", "gelu_tanh", "quick_gelu", "silu"};
static const size_t sizes[] = {1, 15, 16, 17, 255, 256, 257, 4001};
#define SIZES (int)(sizeof sizes / sizeof *sizes)
#define THREADED 70001 // enough work for more threads than one
#define PI 3.14159265358979323846

// ---- reference ----
static double logistic(double v) { return v < 0 ? exp(v) / (1 + exp(v)) : 1 / (1 + exp(-v)); }

Exact exact_act(Activation act, double x) {
    double gate = 0, change = 0; // G(x) and x G'(x)
    const double k = 2 * sqrt(2 / PI);
    switch (act) {
    case ACT_GELU:
        gate = 0.5 * erfc(-x * sqrt(0.5));
        change = x * exp(-0.5 * x * x) / sqrt(2 * PI);
        break;
    case ACT_GELU_TANH:
        gate = logistic(k * (x + 0.044715 * x * x * x));
        change = x * k * (1 + 3 * 0.044715 * x * x) * gate *
                 logistic(-k * (x + 0.044715 * x * x * x));
        break;
    case ACT_QUICK_GELU:
        gate = logistic(1.702 * x);
        change = x * 1.702 * gate * logistic(-1.702 * x);
        break;
    default:
        gate = logistic(x);
        change = x * gate * logistic(-x);
    }
    return (Exact){x * gate, gate + change, fabs(gate) + fabs(change)};
}

// ---- the bound ----
static double ulp_of(DType t, double x) {
    const int least = t == DT_F16 ? -14 : -126; // exponent of the least normal number
    int exponent;
    frexp(x, &exponent);
    exponent = exponent - 1 < least ? least : exponent - 1;
    return ldexp(1.0, exponent - (t == DT_F32 ? 23 : t == DT_BF16 ? 7 : 10));
}

// want, factor * (an act or slope with the contract's error of `terms`), rounded to t.
static void expect_close(const char *what, DType t, double x, double got, double want,
                         double factor, double terms) {
    const bool is_short = t != DT_F32 && device_kind(check_device()) != DEVICE_CPU;
    const double error = is_short ? ldexp(fabs(terms), -15) : 8 * ulp_of(DT_F32, terms);
    double bound = fabs(factor) * (error + 4e-36);
    bound += ulp_of(DT_F32, want); // of the products with dout and up
    bound += t == DT_F32 ? 0 : 0.5 * ulp_of(t, fabs(want) + bound);
    EXPECT(fabs(got - want) <= bound, "%s at %.9g is %.9g, want %.9g within %.3g", what, x, got,
           want, bound);
}

// Inputs: ordinary ones, wide ones, and the places where something changes.
static Buf inputs_new(DType t, size_t n) {
    const double far = t == DT_F16 ? 1e4 : 3e38; // products with dout and up stay finite
    const double edges[] = {0,     -0.0,  1e-30, -1e-30, 1e-42, 87.5,  -87.2, -88.9, 13.2,   -13.1,
                            -5,    5,     -0.75, -1.28,  14.5,  -14.5, 12.1,  -12.1, far,    -far,
                            -10.0, -9.99, 60.5,  -60.5,  100.5, -101,  -13.9, 0.5,   -51.31, -52};
    Rng rng = check_rng((uint32_t)n);
    Buf buf = buf_normal(t, n, 2, &rng);
    for (size_t i = 0; i < n; i++) {
        if (i % 3 == 0 && i / 3 < sizeof edges / sizeof *edges) {
            buf.host[i] = edges[i / 3];
        } else if (i % 3 == 1) {
            buf.host[i] *= 5;
        }
    }
    buf_write(&buf);
    return buf;
}

typedef struct {
    size_t n;
    DType t;
    Activation act;
    Buf x, up, dy;
} Problem;

static Problem problem_new(size_t n, DType t, Activation act) {
    Rng rng = check_rng((uint32_t)n + 1000000);
    Problem q = {n, t, act, inputs_new(t, n), buf_normal(t, n, 1, &rng), buf_normal(t, n, 1, &rng)};
    return q;
}

static void problem_free(Problem *q) { buf_free(&q->x), buf_free(&q->up), buf_free(&q->dy); }

// The cases all four ops share: every activation, size and type, then thread counts.
static void each_problem(void (*one)(Problem *), void (*threads)(Problem *)) {
    for (int k = 0; k < ACT_COUNT * DT_COUNT; k++) {
        const Activation act = (Activation)(k / DT_COUNT);
        const DType t = (DType)(k % DT_COUNT);
        for (int i = 0; i < SIZES; i++) {
            if (CASE("%s n=%zu t=%s", names[act], sizes[i], dtype_name(t))) {
                Problem q = problem_new(sizes[i], t, act);
                one(&q);
                problem_free(&q);
            }
        }
        if (CASE("%s threads t=%s", names[act], dtype_name(t))) {
            Problem q = problem_new(THREADED, t, act);
            threads(&q);
            problem_free(&q);
        }
    }
}

static Buf outcome_new(const Problem *q, const Buf *place) {
    return place ? buf_from(q->t, place->host, q->n) : buf_fill(q->t, q->n, NAN);
}

// Expects a's contents to be exactly b's, and frees a.
static void expect_same(const char *what, Buf a, const Buf *b) {
    expect_exact(what, a.host, b->host, b->n);
    buf_free(&a);
}

// ---- activation_fwd ----
static Buf forward_new(Device *dev, const Problem *q, bool in_place) {
    Buf out = outcome_new(q, in_place ? &q->x : NULL);
    device_ops(dev)->activation_fwd(dev, q->t, out.dev, in_place ? out.dev : q->x.dev, q->n,
                                    q->act);
    buf_read(&out);
    return out;
}

static void one_forward(Problem *q) {
    Buf out = forward_new(check_device(), q, false);
    for (size_t i = 0; i < q->n; i++) {
        const double want = exact_act(q->act, q->x.host[i]).value;
        expect_close("act", q->t, q->x.host[i], out.host[i], want, 1, want);
    }
    expect_same("out in the place of inp", forward_new(check_device(), q, true), &out);
    buf_free(&out);
}

static void threads_forward(Problem *q) {
    Buf one = forward_new(check_device_threads(1), q, false);
    expect_same("three threads", forward_new(check_device_threads(3), q, false), &one);
    buf_free(&one);
}

TEST_OP(activation_fwd) {
    each_problem(one_forward, threads_forward);
    for (int act = 0; act < ACT_COUNT; act++) {
        if (CASE("%s of what is not a number", names[act])) {
            const double x[] = {NAN, INFINITY, -INFINITY}, want[] = {NAN, INFINITY, NAN};
            Buf inp = buf_from(DT_F32, x, 3), out = buf_fill(DT_F32, 3, 0);
            check_ops()->activation_fwd(check_device(), DT_F32, out.dev, inp.dev, 3,
                                        (Activation)act);
            expect_exact("act", buf_read(&out), want, 3);
            buf_free(&inp), buf_free(&out);
        }
    }
}

// ---- activation_bwd ----
static Buf backward_new(Device *dev, const Problem *q, bool in_place) {
    Buf dx = outcome_new(q, in_place ? &q->dy : NULL);
    device_ops(dev)->activation_bwd(dev, q->t, dx.dev, in_place ? dx.dev : q->dy.dev, q->x.dev,
                                    q->n, q->act);
    buf_read(&dx);
    return dx;
}

static void one_backward(Problem *q) {
    Buf dx = backward_new(check_device(), q, false);
    for (size_t i = 0; i < q->n; i++) {
        const Exact exact = exact_act(q->act, q->x.host[i]);
        const double dy = q->dy.host[i];
        expect_close("slope", q->t, q->x.host[i], dx.host[i], dy * exact.slope, dy, exact.terms);
    }
    expect_same("dinp in the place of dout", backward_new(check_device(), q, true), &dx);
    buf_free(&dx);
}

static void threads_backward(Problem *q) {
    Buf one = backward_new(check_device_threads(1), q, false);
    expect_same("three threads", backward_new(check_device_threads(3), q, false), &one);
    buf_free(&one);
}

typedef struct {
    Activation act;
    double x[31];
} Doubles;

static double loss(void *ctx) {
    const Doubles *d = ctx;
    double sum = 0;
    for (int i = 0; i < 31; i++) {
        sum += exact_act(d->act, d->x[i]).value;
    }
    return sum;
}

TEST_OP(activation_bwd) {
    for (int act = 0; act < ACT_COUNT; act++) {
        if (CASE("%s reference against differences", names[act])) {
            Doubles d = {.act = (Activation)act};
            double slope[31];
            for (int i = 0; i < 31; i++) {
                d.x[i] = (i - 15) * 0.4;
                slope[i] = exact_act(d.act, d.x[i]).slope;
            }
            expect_gradient("slope", slope, d.x, 31, loss, &d, 31);
        }
    }
    each_problem(one_backward, threads_backward);
}

// ---- gated_fwd ----
static Buf gated_new(Device *dev, const Problem *q, const Buf *place) {
    Buf out = outcome_new(q, place);
    device_ops(dev)->gated_fwd(dev, q->t, out.dev, place == &q->x ? out.dev : q->x.dev,
                               place == &q->up ? out.dev : q->up.dev, q->n, q->act);
    buf_read(&out);
    return out;
}

static void one_gated(Problem *q) {
    Buf out = gated_new(check_device(), q, NULL);
    for (size_t i = 0; i < q->n; i++) {
        const double value = exact_act(q->act, q->x.host[i]).value, up = q->up.host[i];
        if (fabs(value * up) < 3e38) { // else the product may overflow
            expect_close("gated", q->t, q->x.host[i], out.host[i], value * up, up, value);
        }
    }
    expect_same("out in the place of gate", gated_new(check_device(), q, &q->x), &out);
    expect_same("out in the place of up", gated_new(check_device(), q, &q->up), &out);
    buf_free(&out);
}

static void threads_gated(Problem *q) {
    Buf one = gated_new(check_device_threads(1), q, NULL);
    expect_same("three threads", gated_new(check_device_threads(3), q, NULL), &one);
    buf_free(&one);
}

TEST_OP(gated_fwd) { each_problem(one_gated, threads_gated); }

// ---- gated_bwd ----
typedef struct {
    Buf dgate, dup;
} Gated;

static Gated gated_backward_new(Device *dev, const Problem *q, bool in_place) {
    Gated g = {buf_fill(q->t, q->n, NAN), outcome_new(q, in_place ? &q->dy : NULL)};
    device_ops(dev)->gated_bwd(dev, q->t, g.dgate.dev, g.dup.dev, in_place ? g.dup.dev : q->dy.dev,
                               q->x.dev, q->up.dev, q->n, q->act);
    buf_read(&g.dgate), buf_read(&g.dup);
    return g;
}

static void expect_same_gated(const char *what, Gated a, const Gated *b) {
    expect_same(what, a.dgate, &b->dgate);
    expect_same(what, a.dup, &b->dup);
}

static void one_gated_backward(Problem *q) {
    Gated g = gated_backward_new(check_device(), q, false);
    for (size_t i = 0; i < q->n; i++) {
        const Exact exact = exact_act(q->act, q->x.host[i]);
        const double x = q->x.host[i], dy = q->dy.host[i], up = q->up.host[i];
        // Two products: a second ulp, given as a part of the factor.
        expect_close("dgate", q->t, x, g.dgate.host[i], dy * up * exact.slope,
                     dy * up * (1 + 1.0 / 8), exact.terms);
        if (fabs(dy * exact.value) < 3e38) {
            expect_close("dup", q->t, x, g.dup.host[i], dy * exact.value, dy, exact.value);
        }
    }
    expect_same_gated("dup in the place of dout", gated_backward_new(check_device(), q, true), &g);
    buf_free(&g.dgate), buf_free(&g.dup);
}

static void threads_gated_backward(Problem *q) {
    Gated one = gated_backward_new(check_device_threads(1), q, false);
    expect_same_gated("three threads", gated_backward_new(check_device_threads(3), q, false), &one);
    buf_free(&one.dgate), buf_free(&one.dup);
}

TEST_OP(gated_bwd) { each_problem(one_gated_backward, threads_gated_backward); }
