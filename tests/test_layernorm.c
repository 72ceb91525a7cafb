// test_layernorm: forward and backward against loops in double written here; norm_check.h has what
// is expected of them.
#include <math.h>
#include <stdlib.h>

#include "tests/norm_check.h"

#define EPS 1e-5

// ---- reference ----
static void reference_fwd(Precision p, const NormProblem *q, double *out, double *mean,
                          double *rstd) {
    const double *x = q->x.host, *w = q->w.host, *b = q->b.host;
    const int C = q->C;
    for (int n = 0; n < q->N; n++, x += C, out += C) {
        double sum = 0, squares = 0;
        for (int c = 0; c < C; c++) {
            sum = check_step(p, sum + x[c]);
        }
        mean[n] = check_step(p, sum / C);
        for (int c = 0; c < C; c++) {
            const double centred = check_step(p, x[c] - mean[n]);
            squares = check_step(p, squares + check_step(p, centred * centred));
        }
        const double variance = check_step(p, squares / C);
        rstd[n] = check_step(p, 1 / check_step(p, sqrt(check_step(p, variance + (float)EPS))));
        for (int c = 0; c < C; c++) {
            const double normal = check_step(p, check_step(p, x[c] - mean[n]) * rstd[n]);
            const double y = check_step(p, check_step(p, normal * w[c]) + b[c]);
            out[c] = p == IN_F32 ? check_round(q->t, y) : y;
        }
    }
}

static void reference_bwd(Precision p, const NormProblem *q, double *dx, double *dw, double *db,
                          const double *around) {
    const double *dy = q->dy.host, *x = q->x.host, *w = q->w.host;
    const double *mean = q->mean.host, *rstd = q->rstd.host;
    const int C = q->C;
    double *normal = xcalloc((size_t)C, sizeof *normal), *g = xcalloc((size_t)C, sizeof *g);
    for (int n = 0; n < q->N; n++, x += C, dy += C, dx += C) {
        double g_sum = 0, gx_sum = 0;
        for (int c = 0; c < C; c++) {
            normal[c] = check_step(p, check_step(p, x[c] - mean[n]) * rstd[n]);
            g[c] = check_step(p, dy[c] * w[c]);
            g_sum = check_step(p, g_sum + g[c]);
            gx_sum = check_step(p, gx_sum + check_step(p, g[c] * normal[c]));
            dw[c] = check_step(p, dw[c] + check_step(p, dy[c] * normal[c]));
            db[c] = check_step(p, db[c] + dy[c]);
        }
        const double g_mean = check_step(p, g_sum / C), gx_mean = check_step(p, gx_sum / C);
        for (int c = 0; c < C; c++) {
            const double left = check_step(p, g[c] - g_mean);
            const double along = check_step(p, normal[c] * gx_mean);
            const double own = check_step(p, rstd[n] * check_step(p, left - along));
            const double d = around ? check_step(p, around[(size_t)n * C + c] + own) : own;
            dx[c] = p == IN_F32 ? check_round(q->t, d) : d;
        }
    }
    free(normal), free(g);
}

// ---- the op ----
static void fwd(Device *dev, const NormProblem *q, void *out, float *mean, float *rstd,
                const void *inp) {
    device_ops(dev)->layernorm_fwd(dev, q->t, out, mean, rstd, inp, q->w.dev, q->b.dev, q->N, q->C,
                                   (float)EPS);
}

static void bwd(Device *dev, const NormProblem *q, const NormBackwardCall *c) {
    device_ops(dev)->layernorm_bwd(dev, q->t, c->dx, c->dw, c->db, c->around, c->dy, c->x, q->w.dev,
                                   c->mean, c->rstd, c->N, q->C);
}

static const Norm layernorm = {.has_mean = true, .shift = 0.7, .reference_fwd = reference_fwd,
                               .reference_bwd = reference_bwd, .fwd = fwd, .bwd = bwd};

TEST_OP(layernorm_fwd) { norm_test_fwd(&layernorm); }
TEST_OP(layernorm_bwd) { norm_test_bwd(&layernorm); }
