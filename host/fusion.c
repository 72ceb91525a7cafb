// fusion: see fusion.h.
#include "fusion.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base.h"

// weight[i] = softmax(scores / T)[i] over n passages.
static void weights(double *weight, const double *scores, int n, double T) {
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        largest = fmax(largest, scores[i] / T);
    }
    for (int i = 0; i < n; i++) {
        weight[i] = exp(scores[i] / T - largest);
        sum += weight[i];
    }
    for (int i = 0; i < n; i++) {
        weight[i] /= sum;
    }
}

void fusion_mixture(double *out, const double *probability, const float *scores, int kI, int kT,
                    int C, double T, double image_weight) {
    const int P = kI + kT;
    CHECK(P >= 1, "kI=%d kT=%d", kI, kT);
    double *weight = xmalloc(2 * (size_t)P, sizeof *weight), *s = weight + P;
    for (int d = 0; d < P; d++) {
        s[d] = scores[d];
    }
    weights(weight, s, kI, T);
    weights(weight + kI, s + kI, kT, T);
    const double image = kT == 0 ? 1 : kI == 0 ? 0 : image_weight;
    for (int c = 0; c < C; c++) {
        out[c] = 0;
        for (int d = 0; d < P; d++) {
            out[c] += (d < kI ? image : 1 - image) * weight[d] * probability[d * C + c];
        }
    }
    free(weight);
}

// Divides n scores by their maximum.
static void divide_by_maximum(double *s, int n) {
    double largest = -INFINITY;
    for (int i = 0; i < n; i++) {
        largest = fmax(largest, s[i]);
    }
    for (int i = 0; i < n && largest != 0; i++) {
        s[i] /= largest;
    }
}

// weight[d] over all passages, as the original does; caller frees.
static double *weights_of_all_new(const float *scores, int kI, int kT, bool is_max_norm) {
    const int P = kI + kT;
    CHECK(P >= 1, "kI=%d kT=%d", kI, kT);
    double *weight = xmalloc(2 * (size_t)P, sizeof *weight), *s = weight + P;
    for (int d = 0; d < P; d++) {
        s[d] = scores[d];
    }
    if (is_max_norm) {
        divide_by_maximum(s, kI);
        divide_by_maximum(s + kI, kT);
    }
    weights(weight, s, P, 1);
    return weight;
}

// 0 * -inf would be NaN.
static double weighted(double weight, float x) { return weight == 0 ? 0 : weight * x; }

void fusion_logits(double *out, const float *logits, const float *scores, int kI, int kT, int C,
                   bool is_max_norm) {
    double *weight = weights_of_all_new(scores, kI, kT, is_max_norm);
    for (int c = 0; c < C; c++) {
        out[c] = 0;
        for (int d = 0; d < kI + kT; d++) {
            out[c] += weighted(weight[d], logits[d * C + c]);
        }
    }
    free(weight);
}

void fusion_tokens(int32_t *out, const float *const *rows_of_passage, int rows, int V,
                   const float *scores, int kI, int kT, bool is_max_norm) {
    double *weight = weights_of_all_new(scores, kI, kT, is_max_norm);
    for (int t = 0; t < rows; t++) {
        double largest = -INFINITY;
        out[t] = 0;
        for (int v = 0; v < V; v++) {
            double fused = 0;
            for (int d = 0; d < kI + kT; d++) {
                fused += weighted(weight[d], rows_of_passage[d][(size_t)t * V + v]);
            }
            if (fused > largest) {
                largest = fused;
                out[t] = v;
            }
        }
    }
    free(weight);
}

int fusion_vote(const int *predicted, int P) {
    int best = predicted[0], most = 0;
    for (int i = 0; i < P; i++) {
        int votes = 0;
        for (int j = 0; j < P; j++) {
            votes += predicted[j] == predicted[i];
        }
        if (votes > most) {
            most = votes;
            best = predicted[i];
        }
    }
    return best;
}
