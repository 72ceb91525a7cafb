// test_rmsnorm: forward and backward against loops in double written here; norm_check.h has what is
// expected of them. With t = bf16 the product before the weight is rounded, which the reference
// does too.
#include <math.h>
#include <stdlib.h>

#include "tests/norm_check.h"

#define EPS 1e-6

// ---- reference ----
static void reference_fwd(Precision p, const NormProblem *q, double *out, double *mean,
                          double *rstd) {
    (void)mean;
    const double *x = q->x.host, *w = q->w.host;
    const int C = q->C;
    for (int n = 0; n < q->N; n++, x += C, out += C) {
        double squares = 0;
        for (int c = 0; c < C; c++) {
            squares = check_step(p, squares + check_step(p, x[c] * x[c]));
        }
        const double square = check_step(p, squares / C);
        rstd[n] = check_step(p, 1 / check_step(p, sqrt(check_step(p, square + (float)EPS))));
        for (int c = 0; c < C; c++) {
            const double normal = check_step(p, x[c] * rstd[n]);
            out[c] = p == IN_F32 ? check_round(q->t, check_round(q->t, normal) * w[c])
                                 : normal * w[c];
        }
    }
}

static void reference_bwd(Precision p, const NormProblem *q, double *dx, double *dw, double *db,
                          const double *around) {
    (void)db;
    const double *dy = q->dy.host, *x = q->x.host, *w = q->w.host, *rstd = q->rstd.host;
    const int C = q->C;
    double *normal = xcalloc((size_t)C, sizeof *normal), *g = xcalloc((size_t)C, sizeof *g);
    for (int n = 0; n < q->N; n++, x += C, dy += C, dx += C) {
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
            dx[c] = p == IN_F32 ? check_round(q->t, d) : d;
        }
    }
    free(normal), free(g);
}

// ---- the op ----
static void fwd(Device *dev, const NormProblem *q, void *out, float *mean, float *rstd,
                const void *inp) {
    (void)mean;
    device_ops(dev)->rmsnorm_fwd(dev, q->t, out, rstd, inp, q->w.dev, q->N, q->C, (float)EPS);
}

static void bwd(Device *dev, const NormProblem *q, const NormBackwardCall *c) {
    device_ops(dev)->rmsnorm_bwd(dev, q->t, c->dx, c->dw, c->around, c->dy, c->x, q->w.dev, c->rstd,
                                 c->N, q->C);
}

// In bf16 the two roundings are pinned bit by bit: with the op's own rstd nothing is left to
// chance.
static void expect_two_roundings(const NormProblem *q, const Buf *out, const Buf *rstd) {
    double *want = xcalloc(out->n, sizeof *want);
    for (size_t i = 0; i < out->n; i++) {
        const double normal = q->x.host[i] * rstd->host[i / (size_t)q->C];
        want[i] = check_round(q->t, check_round(q->t, normal) * q->w.host[i % (size_t)q->C]);
    }
    expect_exact("rounded twice", out->host, want, out->n);
    free(want);
}

static const Norm rmsnorm = {.cancels_alone = true, .reference_fwd = reference_fwd,
                             .reference_bwd = reference_bwd, .fwd = fwd, .bwd = bwd,
                             .expect_own = expect_two_roundings};

TEST_OP(rmsnorm_fwd) { norm_test_fwd(&rmsnorm); }
TEST_OP(rmsnorm_bwd) { norm_test_bwd(&rmsnorm); }
