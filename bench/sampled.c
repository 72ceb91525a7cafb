// sampled: see sampled.h.
#include "bench/sampled.h"

#include <math.h>
#include <stdlib.h>

#include "models/model.h"

double unit_of(DType t) { return t == DT_F32 ? 0x1p-24 : t == DT_BF16 ? 0x1p-8 : 0x1p-11; }

float *sampled_new(DType t, const void *tensor, size_t first, size_t n) {
    float *wide = xmalloc(n, sizeof *wide);
    values_read(bench_device(), wide, t, dtype_at_const(t, tensor, first), n);
    return wide;
}

static double difference, largest;

void expect_near(const char *what, size_t i, double got, double want, double bound) {
    CHECK(fabs(got - want) <= bound, "%s[%zu] is %g, want %g within %g", what, i, got, want, bound);
    difference = fmax(difference, fabs(got - want));
    largest = fmax(largest, fabs(want));
}

double sampled_error(void) {
    const double error = largest > 0 ? difference / largest : -1;
    difference = largest = 0;
    return error;
}
