// test_residual: sums of whole tensors are exact after one rounding.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

static const size_t sizes[] = {1, 15, 16, 17, 255, 256, 257, 70001};
#define SIZES (int)(sizeof sizes / sizeof *sizes)

// Expects a's contents to be exactly b's, and frees a.
static void expect_same(const char *what, Buf a, const Buf *b) {
    expect_exact(what, a.host, b->host, b->n);
    buf_free(&a);
}

typedef enum { APART, ON_A, ON_B } Place;

static Buf residual_new(Device *dev, const Buf *a, const Buf *b, Place place) {
    Buf out = place == APART  ? buf_fill(a->t, a->n, NAN)
              : place == ON_A ? buf_from(a->t, a->host, a->n)
                              : buf_from(b->t, b->host, b->n);
    device_ops(dev)->residual_fwd(dev, a->t, out.dev, place == ON_A ? out.dev : a->dev,
                                  place == ON_B ? out.dev : b->dev, a->n);
    buf_read(&out);
    return out;
}

TEST_OP(residual_fwd) {
    for (int k = 0; k < SIZES * DT_COUNT; k++) {
        const size_t n = sizes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (CASE("n=%zu t=%s", n, dtype_name(t))) {
            Rng rng = check_rng((uint32_t)n);
            Buf a = buf_normal(t, n, 1, &rng), b = buf_normal(t, n, 3, &rng);
            double *want = xcalloc(n, sizeof(double));
            for (size_t i = 0; i < n; i++) {
                want[i] = check_round(t, a.host[i] + b.host[i]);
            }
            Buf out = residual_new(check_device(), &a, &b, APART);
            expect_exact("out", out.host, want, n);
            expect_same("out in the place of a", residual_new(check_device(), &a, &b, ON_A), &out);
            expect_same("out in the place of b", residual_new(check_device(), &a, &b, ON_B), &out);
            expect_same("three threads", residual_new(check_device_threads(3), &a, &b, APART),
                        &out);
            free(want);
            buf_free(&a), buf_free(&b), buf_free(&out);
        }
    }
}
