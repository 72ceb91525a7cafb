// Tests of marginal: every mode against the formulas written out in double, finite differences of
// each loss (the posterior held fixed where it carries no gradient), the identities of the marginal
// likelihood, and the degenerate rows.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static const char *const mode_names[] = {"marginal", "jomed",    "pdist",     "emdr2",
                                         "legacy_i", "legacy_ii", "legacy_iii"};

#define MAX_K 1500

// ---- one problem: inputs, and what the op said ----
typedef struct {
    int B, K, T;
    MarginalConfig config;
    double *s, *g, *weight; // (B,K), (B,K) or (B,K,T), (B)
    int32_t *lengths, *predicted;
    double *loss, *posterior, *ds; // (B,2), (B,K), (B,K): from the op
    double *r;                     // (B,K): posterior held fixed in loss_of
} Problem;

static Problem problem_new(MarginalMode mode, int B, int K, int T, Rng *rng) {
    const size_t n = (size_t)B * (size_t)K, nt = n * (size_t)T;
    double *all = xmalloc(4 * n + nt + 3 * (size_t)B, sizeof *all);
    CHECK(K <= MAX_K, "K=%d", K);
    Problem p = {.B = B, .K = K, .T = T, .config = {mode, 0.5f, 0.8f, 0.5f, false, false},
                 .s = all};
    p.g = p.s + n;
    p.weight = p.g + nt;
    p.loss = p.weight + B;
    p.posterior = p.loss + 2 * B;
    p.ds = p.posterior + n;
    p.r = p.ds + n;
    p.lengths = xmalloc((size_t)B + n, sizeof *p.lengths);
    p.predicted = p.lengths + B;
    for (size_t i = 0; i < n; i++) {
        p.s[i] = (double)(float)rng_normal(rng);
        p.predicted[i] = (int32_t)rng_below(rng, 3);
    }
    for (size_t i = 0; i < nt; i++) {
        p.g[i] = (double)(float)(-3 * rng_uniform(rng));
    }
    for (int b = 0; b < B; b++) {
        p.weight[b] = (double)(float)rng_uniform(rng);
        p.lengths[b] = 1 + (int32_t)rng_below(rng, (uint32_t)T);
    }
    return p;
}

static void problem_free(Problem *p) {
    free(p->s);
    free(p->lengths);
}

static void problem_run(Problem *p) {
    const size_t B = (size_t)p->B, n = B * (size_t)p->K;
    Buf s = buf_from(DT_F32, p->s, n), g = buf_from(DT_F32, p->g, n * (size_t)p->T);
    Buf weight = buf_from(DT_F32, p->weight, B), loss = buf_fill(DT_F32, 2 * B, NAN);
    Buf posterior = buf_fill(DT_F32, n, NAN), ds = buf_fill(DT_F32, n, NAN);
    IntBuf lengths = ibuf_from(p->lengths, B), predicted = ibuf_from(p->predicted, n);
    check_ops()->marginal(check_device(), buf_f32(&loss), buf_f32(&posterior), buf_f32(&ds),
                          buf_f32(&s), buf_f32(&g), lengths.dev, buf_f32(&weight), predicted.dev,
                          p->B, p->K, p->T, &p->config);
    memcpy(p->loss, buf_read(&loss), 2 * B * sizeof(double));
    memcpy(p->posterior, buf_read(&posterior), n * sizeof(double));
    memcpy(p->ds, buf_read(&ds), n * sizeof(double));
    Buf *const bufs[] = {&s, &g, &weight, &loss, &posterior, &ds};
    for (int i = 0; i < 6; i++) {
        buf_free(bufs[i]);
    }
    ibuf_free(&lengths);
    ibuf_free(&predicted);
}

// ---- the formulas, written as in the paper: plain sums of exponentials, no shifts ----
// out: (K). softmax(s / temperature) of row b.
static void prior_row(const Problem *p, int b, double temperature, double *out) {
    double sum = 0;
    for (int d = 0; d < p->K; d++) {
        out[d] = exp(p->s[b * p->K + d] / temperature);
        sum += out[d];
    }
    for (int d = 0; d < p->K; d++) {
        out[d] /= sum;
    }
}

static double token(const Problem *p, int b, int d, int t) {
    return exp(p->g[(b * p->K + d) * p->T + t]);
}

// p(y | x, d): the product over the answer's tokens, or exp(g).
static double answer(const Problem *p, int b, int d) {
    double product = 1;
    for (int t = 0; t < (p->config.mode == MARGINAL_EMDR2 ? p->lengths[b] : 1); t++) {
        product *= token(p, b, d, t);
    }
    return product;
}

static double mixture(const Problem *p, int b) {
    double prior[MAX_K], sum = 0;
    prior_row(p, b, (double)p->config.Ts, prior);
    for (int d = 0; d < p->K; d++) {
        sum += prior[d] * answer(p, b, d);
    }
    return sum;
}

// Numerators of the posterior of row b; the denominator is their sum.
static void target_row(const Problem *p, int b, double *out) {
    const MarginalConfig *const c = &p->config;
    const double Ts = (double)c->Ts, Tg = (double)c->Tg, F = (double)c->F;
    const double *const g = p->g + b * p->K;
    double low = g[0], high = g[0], sum = 0; // range of g, and sum of exp(g) for its softmax
    for (int d = 0; d < p->K; d++) {
        low = fmin(low, g[d]);
        high = fmax(high, g[d]);
        sum += answer(p, b, d);
    }
    const bool is_jomed = c->mode == MARGINAL_JOMED || c->mode == MARGINAL_LEGACY_III;
    const bool is_t1 = c->is_prior_t1 && is_jomed;
    prior_row(p, b, is_t1 ? 1 : Ts, out);
    for (int d = 0; d < p->K; d++) {
        if (c->mode == MARGINAL_JOMED || c->mode == MARGINAL_LEGACY_III) {
            out[d] = pow(answer(p, b, d) / sum * out[d], 1 / Tg);
        } else if (c->mode == MARGINAL_PDIST) {
            out[d] = pow(answer(p, b, d), 1 / Tg);
        } else if (c->mode == MARGINAL_LEGACY_I) {
            const double minmax = high > low ? (g[d] - low) / (high - low) * F : 0;
            out[d] = exp((p->s[b * p->K + d] - F + minmax) / Tg);
        } else {
            out[d] *= answer(p, b, d);
        }
    }
}

// Mean over the tokens of row b of the posterior per token (into out, unless NULL); returns the
// loss.
static double token_rows(const Problem *p, int b, double *out) {
    double prior[MAX_K], loss = 0;
    prior_row(p, b, (double)p->config.Ts, prior);
    for (int d = 0; out && d < p->K; d++) {
        out[d] = 0;
    }
    for (int t = 0; t < p->lengths[b]; t++) {
        double all = 0;
        for (int d = 0; d < p->K; d++) {
            all += prior[d] * token(p, b, d, t);
        }
        for (int d = 0; out && d < p->K; d++) {
            out[d] += prior[d] * token(p, b, d, t) / all / p->lengths[b];
        }
        loss -= log(all) / p->lengths[b];
    }
    return loss;
}

static void posterior_row(const Problem *p, int b, double *out) {
    if (p->config.mode == MARGINAL_EMDR2) {
        token_rows(p, b, out);
        return;
    }
    double sum = 0;
    target_row(p, b, out);
    for (int d = 0; d < p->K; d++) {
        sum += out[d];
    }
    for (int d = 0; d < p->K; d++) {
        out[d] /= sum;
    }
}

// Loss of row b as a function of s, with p->r fixed where the posterior carries no gradient and, in
// LEGACY_II, the scores p->r as the stopped ones.
static double loss_of(const Problem *p, int b) {
    if (p->config.mode == MARGINAL_MARGINAL) {
        return -log(mixture(p, b));
    }
    if (p->config.mode == MARGINAL_EMDR2) {
        return token_rows(p, b, NULL);
    }
    double prior[MAX_K], loss = 0;
    prior_row(p, b, (double)p->config.Ts, prior);
    for (int d = 0; d < p->K; d++) {
        const double r = p->r[b * p->K + d];
        if (p->config.mode == MARGINAL_LEGACY_II) {
            loss += p->s[b * p->K + d] * -p->g[b * p->K + d] / r / p->K;
        } else {
            loss += r > 0 ? r * log(r / prior[d]) : 0;
        }
    }
    return loss;
}

static double reduced_loss(void *ctx) {
    const Problem *const p = ctx;
    double total = 0;
    for (int b = 0; b < p->B; b++) {
        bool is_one = true;
        for (int d = 0; d < p->K; d++) {
            is_one = is_one && p->predicted[b * p->K + d] == p->predicted[b * p->K];
        }
        const bool is_left_out = p->config.mode == MARGINAL_LEGACY_III && is_one;
        total += is_left_out ? 0 : p->weight[b] * loss_of(p, b);
    }
    const double element_mean = 1000.0 / (p->B * p->K);
    return total * (p->config.is_element_mean ? element_mean : 1.0 / p->B);
}

static void freeze(Problem *p) {
    for (int b = 0; b < p->B; b++) {
        posterior_row(p, b, p->r + b * p->K);
    }
    if (p->config.mode == MARGINAL_LEGACY_II) {
        memcpy(p->r, p->s, (size_t)p->B * (size_t)p->K * sizeof(double));
    }
}

// Everything the op says about a problem without degenerate rows.
static void problem_check(Problem *p) {
    const size_t n = (size_t)p->B * (size_t)p->K;
    problem_run(p);
    freeze(p);
    double *want = xmalloc(2 * (size_t)p->B + n, sizeof *want), *const r = want + 2 * p->B;
    double largest = 0;
    for (int b = 0; b < p->B; b++) {
        want[2 * b] = loss_of(p, b);
        want[2 * b + 1] = -log(mixture(p, b));
        largest = fmax(largest, fmax(fabs(want[2 * b]), fabs(want[2 * b + 1])));
    }
    for (int b = 0; b < p->B; b++) {
        posterior_row(p, b, r + b * p->K);
    }
    // Both sides are f64; the op rounds once to f32.
    expect_within("loss", p->loss, want, 2 * (size_t)p->B, ldexp(largest, -24) + 1e-12);
    expect_ulp("posterior", p->posterior, r, n, DT_F32, 0.51);
    expect_gradient("ds", p->ds, p->s, n, reduced_loss, p, 60);
    free(want);
}

// ---- cases ----
static void modes_cases(void) {
    static const int shapes[][3] = {{1, 1, 1}, {3, 2, 4}, {2, 5, 1}, {4, 50, 3}, {1, 1024, 2}};
    for (MarginalMode mode = MARGINAL_MARGINAL; mode <= MARGINAL_LEGACY_III; mode++) {
        for (int i = 0; i < 5; i++) {
            for (int exact = 0; exact < 4; exact++) {
                const int B = shapes[i][0], K = shapes[i][1];
                const int T = mode == MARGINAL_EMDR2 ? shapes[i][2] : 1;
                if (CASE("%s B=%d K=%d T=%d exact=%d", mode_names[mode], B, K, T, exact)) {
                    Rng rng = check_rng((uint32_t)(i * 8 + (int)mode));
                    Problem p = problem_new(mode, B, K, T, &rng);
                    p.config.is_prior_t1 = exact & 1;
                    p.config.is_element_mean = exact & 2;
                    problem_check(&p);
                    problem_free(&p);
                }
            }
        }
    }
}

// Section 1.5 of the method: with Tg = Ts = temperature, the distillation step on evidence l is the
// gradient of the tempered marginal likelihood on evidence l / temperature; losses differ by
// E_r[l/T].
static void identity_case(double temperature, bool is_prior_t1, Rng *rng) {
    enum { B = 3, K = 20 };
    Problem jomed = problem_new(MARGINAL_JOMED, B, K, 1, rng);
    jomed.config.Ts = jomed.config.Tg = (float)temperature;
    jomed.config.is_prior_t1 = is_prior_t1;
    Problem likelihood = problem_new(MARGINAL_MARGINAL, B, K, 1, rng);
    likelihood.config.Ts = (float)temperature;
    const double T = (double)jomed.config.Ts; // a power of two: l / T is exact in f32
    for (int i = 0; i < B * K; i++) {
        likelihood.s[i] = jomed.s[i];
        likelihood.g[i] = jomed.g[i] / T;
    }
    memcpy(likelihood.weight, jomed.weight, B * sizeof(double));
    problem_run(&jomed);
    problem_run(&likelihood);
    expect_ulp("posterior", jomed.posterior, likelihood.posterior, B * K, DT_F32, 1);
    expect_within("gradient", jomed.ds, likelihood.ds, B * K, ldexp(1 / T, -24));
    for (int b = 0; b < B; b++) {
        double gap = 0; // E_r[l / T]
        for (int i = b * K; i < (b + 1) * K; i++) {
            gap += likelihood.posterior[i] * likelihood.g[i];
        }
        const double want = jomed.loss[2 * b] - gap;
        expect_within("free energy", likelihood.loss + 2 * b, &want, 1, K * ldexp(1, -23) * 3 / T);
    }
    problem_free(&jomed);
    problem_free(&likelihood);
}

// A passage without evidence has no posterior; a row without any has loss +inf and gradient 0.
static void infinite_case(MarginalMode mode) {
    Rng rng = check_rng(99);
    const int T = mode == MARGINAL_EMDR2 ? 2 : 1;
    Problem p = problem_new(mode, 2, 4, T, &rng);
    p.lengths[0] = p.lengths[1] = T;
    p.predicted[0] = 0; // row 0 keeps its weight in LEGACY_III
    p.predicted[1] = 1;
    for (int t = 0; t < T; t++) {
        p.g[2 * T + t] = -INFINITY;
    }
    for (int i = 4 * T; i < 8 * T; i++) {
        p.g[i] = -INFINITY;
    }
    problem_run(&p);
    EXPECT(p.posterior[2] == 0, "posterior without evidence %g", p.posterior[2]);
    double sum = 0, slope = 0;
    for (int d = 0; d < 4; d++) {
        sum += p.posterior[d];
        slope += p.ds[d];
        EXPECT(p.posterior[4 + d] == 0 && p.ds[4 + d] == 0, "row 1: r=%g ds=%g", p.posterior[4 + d],
               p.ds[4 + d]);
    }
    EXPECT(fabs(sum - 1) < 1e-6, "posterior sums to %g", sum);
    EXPECT(p.loss[2] == INFINITY && p.loss[3] == INFINITY, "row 1: %g %g", p.loss[2], p.loss[3]);
    EXPECT(isfinite(p.loss[1]), "row 0: likelihood loss %g", p.loss[1]);
    if (mode == MARGINAL_LEGACY_II) {
        EXPECT(p.loss[0] == INFINITY && p.ds[2] == 0, "ratio: %g, %g", p.loss[0], p.ds[2]);
    } else {
        EXPECT(isfinite(p.loss[0]) && p.ds[2] > 0, "row 0: %g, %g", p.loss[0], p.ds[2]);
        EXPECT(fabs(slope) < 1e-6, "gradient sums to %g", slope); // a softmax ignores a shift
    }
    problem_free(&p);
}

// Padding with s = g = -inf, and other rows in the batch, change nothing.
static void padding_case(MarginalMode mode) {
    enum { K = 7, MORE = 11 };
    Rng rng = check_rng(5);
    Problem p = problem_new(mode, 1, K, 1, &rng), padded = problem_new(mode, 2, MORE, 1, &rng);
    padded.lengths[1] = 1;
    for (int d = 0; d < MORE; d++) {
        padded.s[MORE + d] = d < K ? p.s[d] : -INFINITY;
        padded.g[MORE + d] = d < K ? p.g[d] : -INFINITY;
        padded.predicted[MORE + d] = p.predicted[d < K ? d : 0];
    }
    padded.weight[1] = 2 * p.weight[0]; // makes up for the mean over two rows
    problem_run(&p);
    problem_run(&padded);
    expect_exact("loss", padded.loss + 2, p.loss, 2);
    expect_exact("posterior", padded.posterior + MORE, p.posterior, K);
    expect_exact("ds", padded.ds + MORE, p.ds, K);
    for (int d = K; d < MORE; d++) {
        EXPECT(padded.posterior[MORE + d] == 0 && padded.ds[MORE + d] == 0, "padding %d", d);
    }
    problem_free(&p);
    problem_free(&padded);
}

// NaN in one score or one evidence is never lost.
static void nan_case(MarginalMode mode) {
    for (int where = 0; where < 2; where++) {
        Rng rng = check_rng(6);
        Problem p = problem_new(mode, 1, 5, 1, &rng);
        (where ? p.g : p.s)[3] = NAN;
        problem_run(&p);
        const bool is_free_of_s = mode == MARGINAL_LEGACY_II && where == 0; // s cancels
        EXPECT(isnan(p.loss[1]) && (isnan(p.loss[0]) || is_free_of_s), "%s: losses %g %g",
               where ? "g" : "s", p.loss[0], p.loss[1]);
        EXPECT(isnan(p.ds[3]), "%s: ds %g", where ? "g" : "s", p.ds[3]);
        problem_free(&p);
    }
}

TEST_OP(marginal) {
    modes_cases();
    for (int i = 0; i < 4; i++) {
        static const double temperatures[] = {1, 0.5, 2, 0.125};
        if (CASE("identity T=%g", temperatures[i])) {
            Rng rng = check_rng(50);
            identity_case(temperatures[i], true, &rng);
        }
    }
    if (CASE("identity at T=1 needs no switch")) {
        Rng rng = check_rng(51);
        identity_case(1, false, &rng);
    }
    for (MarginalMode mode = MARGINAL_MARGINAL; mode <= MARGINAL_LEGACY_III; mode++) {
        if (CASE("no evidence, %s", mode_names[mode])) {
            infinite_case(mode);
        }
        if (mode != MARGINAL_LEGACY_II && CASE("padding, %s", mode_names[mode])) {
            padding_case(mode);
        }
        if (CASE("NaN, %s", mode_names[mode])) {
            nan_case(mode);
        }
    }
    if (CASE("ties in legacy_i: equal evidence leaves the prior at temperature Tg")) {
        Rng rng = check_rng(7);
        Problem p = problem_new(MARGINAL_LEGACY_I, 1, 6, 1, &rng);
        for (int d = 0; d < 6; d++) {
            p.g[d] = -1.5;
        }
        problem_check(&p);
        double want[6];
        prior_row(&p, 0, (double)p.config.Tg, want);
        expect_ulp("posterior", p.posterior, want, 6, DT_F32, 1);
        problem_free(&p);
    }
    if (CASE("EMDR2 beyond one chunk of passages")) {
        Rng rng = check_rng(8);
        Problem p = problem_new(MARGINAL_EMDR2, 1, 1500, 3, &rng);
        problem_check(&p);
        problem_free(&p);
    }
    if (CASE("scores far apart")) {
        Rng rng = check_rng(9);
        Problem p = problem_new(MARGINAL_MARGINAL, 1, 3, 1, &rng);
        p.config.Ts = 0.001f;
        problem_run(&p);
        int best = 0;
        for (int d = 1; d < 3; d++) {
            best = p.s[d] > p.s[best] ? d : best;
        }
        const double want = -p.g[best]; // all mass on one passage
        expect_within("loss", p.loss, &want, 1, 1e-6);
        EXPECT(p.posterior[best] == 1, "posterior %g", p.posterior[best]);
        problem_free(&p);
    }
}
