// Tests of infonce: against double and plain float loops, finite differences of the loss with
// respect to embeddings and temperature, and the chains of the products bit for bit.
#include <math.h>
#include <stdlib.h>

#include "kernels/lanes.h"
#include "tests/check.h"

static const int shapes[][2] = {{1, 1}, {2, 3}, {5, 16}, {17, 33}, {64, 64}, {70, 300}, {130, 24}};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

// ---- reference ----
typedef struct {
    int B, E;
    double *a, *b, log_scale; // (B,E)
    double *S;                // (B,B)
    double loss[2];
} Pairs;

static double pair_lse(const double *x, int n, int step) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        max = fmax(max, x[i * step]);
    }
    for (int i = 0; i < n; i++) {
        sum += exp(x[i * step] - max);
    }
    return max + log(sum);
}

static double pairs_loss(void *ctx) {
    Pairs *const p = ctx;
    const int B = p->B, E = p->E;
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            double dot = 0;
            for (int e = 0; e < E; e++) {
                dot += p->a[i * E + e] * p->b[j * E + e];
            }
            p->S[i * B + j] = exp(p->log_scale) * dot;
        }
    }
    p->loss[0] = p->loss[1] = 0;
    for (int i = 0; i < B; i++) {
        p->loss[0] += (pair_lse(p->S + i * B, B, 1) - p->S[i * B + i]) / B;
        p->loss[1] += (pair_lse(p->S + i, B, B) - p->S[i * B + i]) / B;
    }
    return (p->loss[0] + p->loss[1]) / 2;
}

// Gradients in double, by the chain rule through S. da, db: (B,E); returns dlog_scale.
static double pairs_gradient(Pairs *p, double *da, double *db) {
    const int B = p->B, E = p->E;
    double dlog_scale = 0, *const lse = xmalloc(2 * (size_t)B, sizeof *lse);
    pairs_loss(p);
    for (int i = 0; i < B; i++) {
        lse[i] = pair_lse(p->S + i * B, B, 1);
        lse[B + i] = pair_lse(p->S + i, B, B);
    }
    for (int i = 0; i < B * E; i++) {
        da[i] = db[i] = 0;
    }
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            const double s = p->S[i * B + j];
            const double dS = (exp(s - lse[i]) + exp(s - lse[B + j]) - 2 * (i == j)) / (2 * B);
            dlog_scale += dS * s;
            for (int e = 0; e < E; e++) {
                da[i * E + e] += exp(p->log_scale) * dS * p->b[j * E + e];
                db[j * E + e] += exp(p->log_scale) * dS * p->a[i * E + e];
            }
        }
    }
    free(lse);
    return dlog_scale;
}

// The same in plain float loops, for the size of rounding: losses[2], then da and db, rounded to t.
static float plain_lse(const float *x, int n, int step) {
    float max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        max = fmaxf(max, x[i * step]);
    }
    for (int i = 0; i < n; i++) {
        sum += expf(x[i * step] - max);
    }
    return max + logf(sum);
}

static float plain_all(const Pairs *p, DType t, float loss[2], double *da, double *db) {
    const int B = p->B, E = p->E;
    const float scale = expf((float)p->log_scale);
    float *S = xmalloc((size_t)(B * B + 2 * B * E + 2 * B), sizeof *S), *const fa = S + B * B;
    float *const fb = fa + B * E, *const lse = fb + B * E, dlog_scale = 0;
    for (int i = 0; i < B * E; i++) {
        fa[i] = fb[i] = 0;
    }
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            float dot = 0;
            for (int e = 0; e < E; e++) {
                dot += (float)p->a[i * E + e] * (float)p->b[j * E + e];
            }
            S[i * B + j] = scale * dot;
        }
    }
    loss[0] = loss[1] = 0;
    for (int i = 0; i < B; i++) {
        lse[i] = plain_lse(S + i * B, B, 1);
        lse[B + i] = plain_lse(S + i, B, B);
        loss[0] += (lse[i] - S[i * B + i]) / (float)B;
        loss[1] += (lse[B + i] - S[i * B + i]) / (float)B;
    }
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < B; j++) {
            const float s = S[i * B + j];
            const float dS =
                (expf(s - lse[i]) + expf(s - lse[B + j]) - 2 * (float)(i == j)) / (2 * (float)B);
            dlog_scale += dS * s;
            for (int e = 0; e < E; e++) {
                fa[i * E + e] += scale * dS * (float)p->b[j * E + e];
                fb[j * E + e] += scale * dS * (float)p->a[i * E + e];
            }
        }
    }
    for (int i = 0; i < B * E; i++) {
        dtype_store(t, S, 0, fa[i]);
        da[i] = (double)dtype_load(t, S, 0);
        dtype_store(t, S, 0, fb[i]);
        db[i] = (double)dtype_load(t, S, 0);
    }
    free(S);
    return dlog_scale;
}

// ---- the op on one problem ----
typedef struct {
    int B, E;
    DType t;
    Buf a, b, log_scale, loss, scores, lse, da, db, dlog_scale;
} Run;

static Run run_new(DType t, int B, int E, double log_scale, Rng *rng) {
    const size_t n = (size_t)B * (size_t)E, nn = (size_t)B * (size_t)B;
    const double sd = 1 / sqrt(E); // rows about of unit length
    Run run = {B, E, t, .a = buf_normal(t, n, sd, rng), .b = buf_normal(t, n, sd, rng)};
    run.log_scale = buf_from(DT_F32, &log_scale, 1);
    run.loss = buf_fill(DT_F32, 2, NAN);
    run.scores = buf_fill(DT_F32, nn, NAN);
    run.lse = buf_fill(DT_F32, 2 * (size_t)B, NAN);
    run.da = buf_fill(t, n, NAN);
    run.db = buf_fill(t, n, NAN);
    run.dlog_scale = buf_fill(DT_F32, 1, 0.5);
    return run;
}

static void run_free(Run *run) {
    Buf *const all[] = {&run->a,   &run->b,  &run->log_scale, &run->loss,      &run->scores,
                        &run->lse, &run->da, &run->db,        &run->dlog_scale};
    for (int i = 0; i < 9; i++) {
        buf_free(all[i]);
    }
}

static void run_fwd(Run *run) {
    check_ops()->infonce_fwd(check_device(), run->t, buf_f32(&run->loss), buf_f32(&run->scores),
                             buf_f32(&run->lse), run->a.dev, run->b.dev, buf_f32(&run->log_scale),
                             run->B, run->E);
}

static void run_bwd(Run *run, bool has_scale_gradient) {
    check_ops()->infonce_bwd(check_device(), run->t, run->da.dev, run->db.dev,
                             has_scale_gradient ? buf_f32(&run->dlog_scale) : NULL,
                             buf_f32(&run->scores), buf_f32(&run->lse), run->a.dev, run->b.dev,
                             buf_f32(&run->log_scale), run->B, run->E);
}

static Pairs pairs_of(const Run *run) {
    const size_t nn = (size_t)run->B * (size_t)run->B;
    return (Pairs){run->B,      run->E, run->a.host, run->b.host, run->log_scale.host[0],
                   .S = xmalloc(nn, sizeof(double))};
}

// ---- cases ----
static void forward_case(DType t, int B, int E, Rng *rng) {
    Run run = run_new(t, B, E, log(1 / 0.07), rng);
    run_fwd(&run);
    Pairs pairs = pairs_of(&run);
    // Scores are one chain over e, then the scale: the same bits as the plain fused loop.
    const float scale = exp_f32((float)run.log_scale.host[0]);
    double *S = pairs.S;
    for (int i = 0; i < B * B; i++) {
        float chain = 0;
        for (int e = 0; e < E; e++) {
            chain = fmaf((float)run.a.host[i / B * E + e], (float)run.b.host[i % B * E + e], chain);
        }
        S[i] = (double)(scale * chain);
    }
    if (device_kind(check_device()) == DEVICE_CPU) {
        expect_exact("scores", buf_read(&run.scores), S, (size_t)B * (size_t)B);
    }
    buf_read(&run.lse);
    for (int i = 0; i < B; i++) {
        const double want[] = {pair_lse(S + i * B, B, 1), pair_lse(S + i, B, B)};
        const double got[] = {run.lse.host[i], run.lse.host[B + i]};
        // log amplifies nothing here: B roundings of the sum, one of the exponent, one of the
        // result.
        expect_within("lse of row and column", got, want, 2, (4 + B / 16.0 + 20) * ldexp(1, -22));
    }
    free(pairs.S);
    run_free(&run);
}

// Losses and temperature gradient are single numbers. How large the error of a plain loop is shows
// only over many problems: one of them may be right by luck.
static void scalars_case(DType t, int B, int E, bool is_backward, Rng *rng) {
    enum { PROBLEMS = 16 };
    double got[2 * PROBLEMS], want[2 * PROBLEMS], plain[2 * PROBLEMS];
    double *const unused = xmalloc(2 * (size_t)B * (size_t)E, sizeof *unused);
    for (int i = 0; i < PROBLEMS; i++) {
        Run run = run_new(t, B, E, log(1 / 0.07), rng);
        Pairs pairs = pairs_of(&run);
        float loss[2];
        run_fwd(&run);
        if (is_backward) {
            run.dlog_scale.host[0] = 0;
            buf_write(&run.dlog_scale);
            run_bwd(&run, true);
            got[i] = buf_read(&run.dlog_scale)[0];
            want[i] = pairs_gradient(&pairs, unused, unused + B * E);
            plain[i] = (double)plain_all(&pairs, t, loss, unused, unused + B * E);
        } else {
            pairs_loss(&pairs);
            plain_all(&pairs, t, loss, unused, unused + B * E);
            buf_read(&run.loss);
            for (int k = 0; k < 2; k++) {
                got[2 * i + k] = run.loss.host[k];
                want[2 * i + k] = pairs.loss[k];
                plain[2 * i + k] = (double)loss[k];
            }
        }
        free(pairs.S);
        run_free(&run);
    }
    expect_sum(is_backward ? "dlog_scale" : "loss", got, want, plain,
               is_backward ? PROBLEMS : 2 * PROBLEMS);
    free(unused);
}

TEST_OP(infonce_fwd) {
    Rng rng = check_rng(0);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < SHAPES; i++) {
            const int B = shapes[i][0], E = shapes[i][1];
            if (check_affords((double)B * B * E) && CASE("B=%d E=%d t=%s", B, E, dtype_name(t))) {
                forward_case(t, B, E, &rng);
                scalars_case(t, B, E, false, &rng);
            }
        }
    }
}

static void backward_case(DType t, int B, int E, Rng *rng) {
    const size_t n = (size_t)B * (size_t)E;
    Run run = run_new(t, B, E, log(1 / 0.07), rng);
    Pairs pairs = pairs_of(&run);
    double *da = xmalloc(4 * n, sizeof *da), *const db = da + n, *const plain_a = db + n;
    double *const plain_b = plain_a + n;
    const double dlog_scale = pairs_gradient(&pairs, da, db);
    expect_gradient("reference a", da, pairs.a, n, pairs_loss, &pairs, 12);
    expect_gradient("reference b", db, pairs.b, n, pairs_loss, &pairs, 12);
    expect_gradient("reference log_scale", &dlog_scale, &pairs.log_scale, 1, pairs_loss, &pairs, 1);
    float loss[2];
    plain_all(&pairs, t, loss, plain_a, plain_b);
    float scale_gradient[3]; // from 0, from 0.5, and from there again
    for (int pass = 0; pass < 3; pass++) { // only the scale's gradient is added to
        if (pass < 2) {
            run.dlog_scale.host[0] = 0.5 * pass;
            buf_write(&run.dlog_scale);
        }
        run_fwd(&run);
        run_bwd(&run, true);
        scale_gradient[pass] = (float)buf_read(&run.dlog_scale)[0];
    }
    expect_sum("da", buf_read(&run.da), da, plain_a, n);
    expect_sum("db", buf_read(&run.db), db, plain_b, n);
    const float once = 0.5f + scale_gradient[0];
    EXPECT(scale_gradient[1] == once && scale_gradient[2] == once + scale_gradient[0],
           "dlog_scale does not accumulate: %g %g %g", (double)scale_gradient[0],
           (double)scale_gradient[1], (double)scale_gradient[2]);
    const double before = run.dlog_scale.host[0];
    run_fwd(&run);
    run_bwd(&run, false);
    expect_exact("log_scale without a gradient", buf_read(&run.dlog_scale), &before, 1);
    free(da);
    free(pairs.S);
    run_free(&run);
}

TEST_OP(infonce_bwd) {
    Rng rng = check_rng(1);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < SHAPES; i++) {
            const int B = shapes[i][0], E = shapes[i][1];
            if (check_affords((double)B * B * E) && CASE("B=%d E=%d t=%s", B, E, dtype_name(t))) {
                backward_case(t, B, E, &rng);
                scalars_case(t, B, E, true, &rng);
            }
        }
    }
}
