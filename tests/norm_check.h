// norm_check: what the tests of both normalisations share: problems, ways to call, expectations.
// Each brings its reference loops and its calls (Norm).
#ifndef JOMED_TESTS_NORM_CHECK_H
#define JOMED_TESTS_NORM_CHECK_H

#include "tests/check.h"

typedef struct Norm Norm;
// Without a mean (Norm.has_mean) the buffers b, mean, db are empty.
typedef struct {
    const Norm *norm;
    int N, C;
    DType t;
    Buf x, w, b, dy, mean, rstd; // mean and rstd: of x, in f32, as the backward is given them
    Buf dw, db;                  // what the parameter gradients hold before
    Buf around;                  // the residual
} NormProblem;

// One call of the backward; buffers that a norm without a mean does not have are NULL.
typedef struct {
    void *dx;
    float *dw, *db;
    const void *around, *dy, *x;
    const float *mean, *rstd;
    int N;
} NormBackwardCall;

struct Norm {
    bool has_mean;      // and a bias
    double shift;       // added to x, so that the mean is not nearly zero
    bool cancels_alone; // with one column g and x^ mean(g x^) are equal but for eps
    // In double or f32 (check_step), rounded to t where the op does it, from the problem's host
    // values. around: the residual or NULL. dw, db: +=.
    void (*reference_fwd)(Precision p, const NormProblem *q, double *out, double *mean,
                          double *rstd);
    void (*reference_bwd)(Precision p, const NormProblem *q, double *dx, double *dw, double *db,
                          const double *around);
    void (*fwd)(Device *dev, const NormProblem *q, void *out, float *mean, float *rstd,
                const void *inp);
    void (*bwd)(Device *dev, const NormProblem *q, const NormBackwardCall *call);
    // What else must hold of an output and its rstd, or NULL.
    void (*expect_own)(const NormProblem *q, const Buf *out, const Buf *rstd);
};

// All cases of the op's test.
void norm_test_fwd(const Norm *norm);
void norm_test_bwd(const Norm *norm);

#endif
