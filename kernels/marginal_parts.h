// marginal_parts: one row of marginal, one text for the CPU and for CUDA kernels. Private to
// marginal.*.
//
// Every mode but EMDR2 and LEGACY_II is one prior p and one posterior r over the K passages:
//   log p_d = s_d / Ts - lse            log r_d = x_d - lse         x_d by mode:
//   MARGINAL  s_d / Ts + g_d            JOMED, LEGACY_III  (g_d + s_d / prior) / Tg
//   PDIST     g_d / Tg                  LEGACY_I           (s_d - F + minmax_d) / Tg
// The log-softmaxes inside the target only add constants over d, which the outer softmax removes.
// So a row needs two log-sum-exps and no scratch. K is small: everything is in f64 and rounded
// once.
//
// exp and log are the C library's in double. glibc's are not guaranteed to be correctly rounded,
// but their error is below one unit of double, so it survives the rounding to f32 about once in
// 2^28.
// size: one row of all modes is one text
#ifndef JOMED_KERNELS_MARGINAL_PARTS_H
#define JOMED_KERNELS_MARGINAL_PARTS_H

#include <math.h>

#include "base.h"
#include "marginal.h"

#define MARGINAL_CHUNK 128 // passages whose token sums are held at once in EMDR2

// ---- log-sum-exp of a stream ----
// log sum exp(x) = max + log(sum), rescaled whenever a new maximum comes along.
typedef struct {
    double max, sum;
} LogSum;

static inline HOST_DEVICE void log_sum_add(LogSum *acc, double x) {
    if (x == -INFINITY) {
        return; // adds nothing, and -inf - -inf would be NaN
    }
    if (x > acc->max) {
        acc->sum = acc->sum * exp(acc->max - x) + 1;
        acc->max = x;
    } else {
        acc->sum += exp(x - acc->max); // NaN comes here and stays
    }
}

static inline HOST_DEVICE double log_sum_value(const LogSum *acc) {
    return acc->max + log(acc->sum);
}
#define LOG_SUM_EMPTY {-INFINITY, 0} // value: -inf

// ---- one row ----
typedef struct {
    const MarginalConfig *config;
    const float *s, *g;   // (K); (K), or (K,T) for EMDR2
    int K, T, length;     // length: tokens of this query
    double low, high;     // LEGACY_I: smallest and largest finite evidence
    double prior_lse;     // log sum_d exp(s_d / Ts)
    double scale;         // weight and reduction, applied to the gradient
} MarginalRow;

static inline HOST_DEVICE double log_prior(const MarginalRow *row, int d) {
    return (double)row->s[d] / (double)row->config->Ts - row->prior_lse;
}

// Log-likelihood of the answer given passage d.
static inline HOST_DEVICE double evidence(const MarginalRow *row, int d) {
    if (row->config->mode != MARGINAL_EMDR2) {
        return (double)row->g[d];
    }
    double sum = 0;
    for (int t = 0; t < row->length; t++) {
        sum += (double)row->g[(size_t)d * (size_t)row->T + (size_t)t];
    }
    return sum;
}

static inline HOST_DEVICE void find_range(MarginalRow *row) {
    row->low = INFINITY;
    row->high = -INFINITY;
    for (int d = 0; d < row->K; d++) {
        const double g = (double)row->g[d];
        if (g != -INFINITY) {
            row->low = g < row->low ? g : row->low;
            row->high = g > row->high ? g : row->high;
        }
    }
}

// x_d: the logarithm of the posterior up to a constant over d.
static inline HOST_DEVICE double target_logit(const MarginalRow *row, int d) {
    const MarginalConfig *const c = row->config;
    const double s = (double)row->s[d], g = (double)row->g[d];
    const double Ts = (double)c->Ts, Tg = (double)c->Tg, F = (double)c->F;
    switch (c->mode) {
    case MARGINAL_JOMED:
    case MARGINAL_LEGACY_III: return (g + s / (c->is_prior_t1 ? 1 : Ts)) / Tg;
    case MARGINAL_PDIST: return g / Tg;
    case MARGINAL_LEGACY_I: {
        const double span = row->high - row->low;
        const double minmax = span > 0 ? F * (g - row->low) / span : 0 * g; // 0 * g: NaN stays
        return g == -INFINITY ? g : (s - (F - minmax)) / Tg;
    }
    default: return s / Ts + g; // MARGINAL; LEGACY_II reports it and does not use it
    }
}

// Modes with one posterior. Returns KL(r || p), or +inf when no passage has any evidence.
static inline HOST_DEVICE double row_posterior(const MarginalRow *row, float *posterior,
                                               float *ds) {
    LogSum acc = LOG_SUM_EMPTY;
    for (int d = 0; d < row->K; d++) {
        log_sum_add(&acc, target_logit(row, d));
    }
    const double lse = log_sum_value(&acc), Ts = (double)row->config->Ts;
    double kl = 0;
    for (int d = 0; d < row->K; d++) {
        if (lse == -INFINITY) {
            posterior[d] = ds[d] = 0;
            continue;
        }
        const double log_r = target_logit(row, d) - lse, log_p = log_prior(row, d);
        const double r = exp(log_r);
        kl += r == 0 ? 0 : r * (log_r - log_p); // 0 log 0 = 0
        posterior[d] = (float)r;
        ds[d] = (float)(row->scale * (exp(log_p) - r) / Ts);
    }
    return lse == -INFINITY ? INFINITY : kl;
}

// LEGACY_II: mean of s (-g) / stopgrad(s).
static inline HOST_DEVICE double row_ratio(const MarginalRow *row, float *ds) {
    double sum = 0;
    for (int d = 0; d < row->K; d++) {
        const double s = (double)row->s[d], g = (double)row->g[d];
        sum -= g;
        const bool is_defined = g != -INFINITY && s != 0;
        ds[d] = is_defined ? (float)(row->scale * -g / ((double)row->K * s)) : 0.0f;
    }
    return sum / (double)row->K;
}

static inline HOST_DEVICE double token_lse(const MarginalRow *row, int t) {
    LogSum acc = LOG_SUM_EMPTY;
    for (int d = 0; d < row->K; d++) {
        const double l = (double)row->g[(size_t)d * (size_t)row->T + (size_t)t];
        log_sum_add(&acc, log_prior(row, d) + l);
    }
    return log_sum_value(&acc);
}

// EMDR2: a mixture per token. A token that no passage explains makes the loss infinite and gives no
// gradient. Beyond MARGINAL_CHUNK passages the token sums are formed again, instead of stored.
static inline HOST_DEVICE double row_tokens(const MarginalRow *row, float *posterior, float *ds) {
    double loss = 0;
    for (int first = 0; first < row->K; first += MARGINAL_CHUNK) {
        const int count = row->K - first < MARGINAL_CHUNK ? row->K - first : MARGINAL_CHUNK;
        double r[MARGINAL_CHUNK] = {0};
        int live = 0; // tokens with a posterior
        loss = 0;
        for (int t = 0; t < row->length; t++) {
            const double lse = token_lse(row, t);
            loss -= lse;
            live += lse != -INFINITY;
            for (int d = 0; d < count && lse != -INFINITY; d++) {
                const size_t at = (size_t)(first + d) * (size_t)row->T + (size_t)t;
                r[d] += exp(log_prior(row, first + d) + (double)row->g[at] - lse);
            }
        }
        const double n = (double)row->length;
        for (int d = 0; d < count; d++) {
            const double p = exp(log_prior(row, first + d)), Ts = (double)row->config->Ts;
            posterior[first + d] = (float)(r[d] / n);
            ds[first + d] = (float)(row->scale * ((double)live * p - r[d]) / (n * Ts));
        }
    }
    return loss / (double)row->length;
}

// ---- what the ops begin with ----
static inline void check_marginal(int B, int K, int T, const int32_t *lengths,
                                  const int32_t *predicted, const MarginalConfig *config) {
    const bool has_tokens = config->mode == MARGINAL_EMDR2;
    CHECK(B >= 1 && K >= 1 && T >= 1 && (has_tokens || T == 1), "B=%d K=%d T=%d", B, K, T);
    CHECK(config->Ts > 0 && config->Tg > 0, "Ts=%g Tg=%g", (double)config->Ts, (double)config->Tg);
    CHECK(!has_tokens || lengths, "no lengths for %d tokens", T);
    CHECK(config->mode != MARGINAL_LEGACY_III || predicted, "no predicted classes");
}

static inline double marginal_reduction(int B, int K, const MarginalConfig *config) {
    return config->is_element_mean ? 1000.0 / ((double)B * (double)K) : 1.0 / B;
}

// ---- all of a row ----
static inline HOST_DEVICE bool is_one_class(const int32_t *predicted, int K) {
    for (int d = 1; d < K; d++) {
        if (predicted[d] != predicted[0]) {
            return false;
        }
    }
    return true;
}

// Fills one row's outputs; loss: (2).
static inline HOST_DEVICE void marginal_row(MarginalRow *row, float *loss, float *posterior,
                                            float *ds) {
    const MarginalMode mode = row->config->mode;
    LogSum prior = LOG_SUM_EMPTY, joint = LOG_SUM_EMPTY;
    for (int d = 0; d < row->K; d++) {
        const double logit = (double)row->s[d] / (double)row->config->Ts;
        log_sum_add(&prior, logit);
        log_sum_add(&joint, logit + evidence(row, d));
    }
    row->prior_lse = log_sum_value(&prior);
    const double joint_lse = log_sum_value(&joint);
    const double likelihood_loss = joint_lse == -INFINITY ? INFINITY : row->prior_lse - joint_lse;
    double minimised;
    if (mode == MARGINAL_EMDR2) {
        minimised = row_tokens(row, posterior, ds);
    } else {
        if (mode == MARGINAL_LEGACY_I) {
            find_range(row);
        }
        minimised = row_posterior(row, posterior, ds);
    }
    if (mode == MARGINAL_LEGACY_II) {
        minimised = row_ratio(row, ds);
    }
    loss[0] = (float)(mode == MARGINAL_MARGINAL ? likelihood_loss : minimised);
    loss[1] = (float)likelihood_loss;
}

#endif
