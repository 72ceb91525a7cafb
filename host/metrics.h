// metrics: how good predictions are. A metric that is not defined (no rows, a class absent) is NaN
// and is shown as n/a, never as 0.
#ifndef JOMED_HOST_METRICS_H
#define JOMED_HOST_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Single-label classification of n rows, classes 0..C-1; a prediction of -1 is never right.
// Macro averages run over the union of true and predicted classes, 0/0 counts as 0 (scikit-learn's
// zero_division=0); -1 is not a class of that union.
typedef struct {
    int n;
    double accuracy, macro_precision, macro_recall, macro_f1;
} ClassMetrics;
ClassMetrics metrics_classify(const int *predicted, const int *gold, int n, int C);

// counts[gold * C + predicted]; rows predicted -1 are left out.
void metrics_confusion(int *counts, const int *predicted, const int *gold, int n, int C);

// Area under the ROC curve of one score: P(score of a positive > score of a negative), ties one
// half; NaN when a class is absent. Source: Mann and Whitney 1947.
double metrics_auc(const double *score, const bool *is_positive, int n);

// AUC and ACC as the MedMNIST evaluator defines them (Yang et al. 2023). probability: (n,C).
//   binary (C = 2):  AUC of the last column; ACC with the last column > 0.5
//   multi-class:     mean over classes of the one-vs-rest AUC; ACC of the arg max (first maximum)
typedef struct {
    double auc, acc;
} MedmnistMetrics;
MedmnistMetrics metrics_medmnist(const double *probability, const int *gold, int n, int C);
// The multi-label form: mean over labels of AUC, and of accuracy at threshold 0.5. gold: bit c of a
// row is label c.
MedmnistMetrics metrics_medmnist_multilabel(const double *probability, const uint32_t *gold, int n,
                                            int C);

// Share of rows whose whole label set is right (multi-label).
double metrics_subset_accuracy(const uint32_t *predicted, const uint32_t *gold, int n);

// Closed VQA: accuracy over the rows whose gold answer is yes or no, but for case and blanks
// around; *closed: how many these are. An answer counts when it equals the gold the same way.
double metrics_vqa_closed(const char *const *answer, const char *const *gold, int n, int *closed);

#endif
