// test_pool: means of packed sequences of unequal lengths, and their gradient.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

typedef struct {
    int C, B;
    int lengths[8];
} Shape;
static const Shape shapes[] = {
    {1, 1, {1}},         {15, 1, {3}},          {16, 3, {1, 2, 5}},   {17, 2, {9, 1}},
    {257, 3, {4, 1, 6}}, {768, 4, {50, 1, 7, 40}}, {31, 1, {1000}},
};
#define SHAPES (int)(sizeof shapes / sizeof *shapes)

static IntBuf cu_seqlens_new(Shape s) {
    int32_t ends[9] = {0};
    for (int b = 0; b < s.B; b++) {
        ends[b + 1] = ends[b] + s.lengths[b];
    }
    return ibuf_from(ends, (size_t)s.B + 1);
}

static void reference_fwd(Precision p, DType t, double *out, const double *inp, Shape s) {
    for (int b = 0; b < s.B; b++) {
        for (int c = 0; c < s.C; c++) {
            double sum = 0;
            for (int n = 0; n < s.lengths[b]; n++) {
                sum = check_step(p, sum + inp[(size_t)n * s.C + c]);
            }
            const double mean = sum / s.lengths[b];
            out[b * s.C + c] = p == IN_F32 ? check_round(t, mean) : mean;
        }
        inp += (size_t)s.lengths[b] * s.C;
    }
}

static void reference_bwd(double *dinp, const double *dout, Shape s) {
    for (int b = 0; b < s.B; b++) {
        for (int n = 0; n < s.lengths[b]; n++) {
            for (int c = 0; c < s.C; c++) {
                *dinp++ = dout[b * s.C + c] / s.lengths[b];
            }
        }
    }
}

// ---- pool_fwd ----
TEST_OP(pool_fwd) {
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (!CASE("B=%d C=%d t=%s", s.B, s.C, dtype_name(t))) {
            continue;
        }
        Rng rng = check_rng((uint32_t)k);
        IntBuf ends = cu_seqlens_new(s);
        const int N = ends.host[s.B];
        const size_t n = (size_t)s.B * s.C;
        Buf inp = buf_normal(t, (size_t)N * s.C, 1, &rng);
        double *want = xcalloc(n, sizeof(double)), *plain = xcalloc(n, sizeof(double));
        reference_fwd(IN_F64, t, want, inp.host, s);
        reference_fwd(IN_F32, t, plain, inp.host, s);
        for (int count = 1; count <= 3; count += 2) {
            Device *dev = check_device_threads(count);
            Buf out = buf_fill(t, n, NAN);
            device_ops(dev)->pool_fwd(dev, t, out.dev, inp.dev, ends.dev, s.B, N, s.C);
            expect_sum("out", buf_read(&out), want, plain, n);
            expect_exact("the ascending sum of the contract", out.host, plain, n);
            buf_free(&out);
        }
        free(want), free(plain);
        buf_free(&inp), ibuf_free(&ends);
    }
}

// ---- pool_bwd ----
typedef struct {
    Shape s;
    double inp[64], dout[64], out[64];
} Doubles;

static double loss(void *ctx) {
    Doubles *d = ctx;
    reference_fwd(IN_F64, DT_F32, d->out, d->inp, d->s);
    double sum = 0;
    for (int i = 0; i < d->s.B * d->s.C; i++) {
        sum += d->dout[i] * d->out[i];
    }
    return sum;
}

TEST_OP(pool_bwd) {
    if (CASE("reference against differences")) {
        Doubles d = {.s = {5, 2, {3, 4}}};
        double dinp[35];
        for (int i = 0; i < 64; i++) {
            d.inp[i] = sin(i), d.dout[i] = cos(3 * i);
        }
        reference_bwd(dinp, d.dout, d.s);
        expect_gradient("dinp", dinp, d.inp, 35, loss, &d, 35);
    }
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (!CASE("B=%d C=%d t=%s", s.B, s.C, dtype_name(t))) {
            continue;
        }
        Rng rng = check_rng((uint32_t)k);
        IntBuf ends = cu_seqlens_new(s);
        const int N = ends.host[s.B];
        const size_t n = (size_t)N * s.C;
        Buf dout = buf_normal(t, (size_t)s.B * s.C, 1, &rng);
        double *want = xcalloc(n, sizeof(double));
        reference_bwd(want, dout.host, s);
        for (size_t i = 0; i < n; i++) {
            want[i] = check_round(t, want[i]); // one division, one rounding
        }
        for (int count = 1; count <= 3; count += 2) {
            Device *dev = check_device_threads(count);
            Buf dinp = buf_fill(t, n, NAN);
            device_ops(dev)->pool_bwd(dev, t, dinp.dev, dout.dev, ends.dev, s.B, N, s.C);
            expect_exact("dinp", buf_read(&dinp), want, n);
            buf_free(&dinp);
        }
        free(want);
        buf_free(&dout), ibuf_free(&ends);
    }
}
