// marginal: from retriever scores and reader evidence to loss, posterior and dL/ds.
// Source: JOMED (arXiv 2508.17394); Izacard et al. 2022 (Atlas) for emdr2 and pdist.
//
// Per query, over its K passages: p = softmax(s / Ts); g = gold score of the passage.
//   MARGINAL  loss = -log sum_d p_d exp(g_d),           r prop. to p_d exp(g_d)
//             (the evidence at weight 1, only the prior tempered; with Ts = Tg = T and g/T for g
//             this is the tempered form). Gradient (p - r) / Ts.
//   JOMED     m = log_softmax(g) + log_softmax(s / prior), r = softmax(m / Tg), prior = Ts or 1
//             (prior_t1). loss = KL(r || p), r without gradient. Gradient (p - r) / Ts.
//   PDIST     r = softmax(g / Tg), no prior. loss = KL(r || p). Gradient (p - r) / Ts.
//   EMDR2     tokens: loss = -(1/n) sum_t log sum_d p_d exp(l_dt), n = tokens of this query.
//             Gradient (1/(n Ts)) sum_t (p_d - r_td), r_td prop. to p_d exp(l_dt).
//   LEGACY_I  no prior: m = s - (F - minmax(g; 0..F)), r = softmax(m / Tg), KL as above;
//             minmax maps the row's smallest g to 0 and its largest to F (all equal: 0).
//   LEGACY_II loss = mean_d s_d (-g_d) / stopgrad(s_d). Gradient -g_d / (K s_d).
//   LEGACY_III JOMED, but weight 0 where all passages predict the same class.
// A passage with g = -inf has r = 0. If every g is -inf the loss is +inf and the gradient zero
// (EMDR2: token by token). LEGACY_I takes minmax over the finite g. LEGACY_II has no posterior of
// its own (that of MARGINAL is reported) and gives gradient 0 where the formula has none (g = -inf
// or s = 0). A passage that is not there (a query with fewer than K) has s = g = -inf: nothing but
// K changes (not in LEGACY_II, whose plain mean it makes infinite).
#ifndef JOMED_KERNELS_MARGINAL_H
#define JOMED_KERNELS_MARGINAL_H

#include <stdbool.h>

#include "device.h"

typedef enum {
    MARGINAL_MARGINAL,
    MARGINAL_JOMED,
    MARGINAL_PDIST,
    MARGINAL_EMDR2,
    MARGINAL_LEGACY_I,
    MARGINAL_LEGACY_II,
    MARGINAL_LEGACY_III,
} MarginalMode;

typedef struct {
    MarginalMode mode;
    float Ts, Tg;         // temperatures of scores and of evidence
    float F;              // range of LEGACY_I
    bool is_prior_t1;     // exact.prior_t1: the prior inside the target at temperature 1
    bool is_element_mean; // exact.kl_mean: 1000 / (B K) instead of 1 / B
} MarginalConfig;

#ifdef __cplusplus
extern "C" {
#endif

// loss: (B,2) f32: [0] what is minimised, before weights and reduction,
//   [1] -log sum_d p_d exp(g_d),
//   in every mode, so that runs can be compared (for EMDR2 g_d = sum_t l_dt)
// posterior: (B,K) f32, r (mean over tokens for EMDR2)   ds: (B,K) f32, = the gradient of the
// reduced
//   loss sum_b weight_b loss_b[0] * (is_element_mean ? 1000 / (B K) : 1 / B)
// s: (B,K) f32   g: (B,K) f32, or (B,K,T) token log-likelihoods for EMDR2 with lengths (B) int32
// weight: (B) f32 or NULL for ones (balancing, and LEGACY_III)
// predicted: (B,K) int32 classes, only read by LEGACY_III, else NULL. T = 1 except for EMDR2.
// Sums over d ascending in f64 (K is small). Agreement: sum.
typedef void marginal_fn(Device *dev, float *loss, float *posterior, float *ds, const float *s,
                         const float *g, const int32_t *lengths, const float *weight,
                         const int32_t *predicted, int B, int K, int T,
                         const MarginalConfig *config);

marginal_fn marginal_cpu, marginal_cuda, marginal_emu;

#ifdef __cplusplus
}
#endif
#endif
