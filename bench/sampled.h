// sampled: what a bench of a GPU's sizes looks at before it times: sampled elements, in f64 on
// the host.
#ifndef JOMED_BENCH_SAMPLED_H
#define JOMED_BENCH_SAMPLED_H

#include "bench/bench.h"

double unit_of(DType t); // the most that rounding to t changes, relative
// Elements first .. first + n - 1 of a device's tensor, widened; the caller frees.
float *sampled_new(DType t, const void *tensor, size_t first, size_t n);
// CHECK-fails unless |got - want| <= bound; NaN fails.
void expect_near(const char *what, size_t i, double got, double want, double bound);
// The largest difference that expect_near has seen since the last call, over the largest value;
// less than 0 if it saw none.
double sampled_error(void);

#endif
