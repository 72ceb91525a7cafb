// test_cast: every pair of storage types, with the values where rounding turns.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

static const size_t sizes[] = {1, 15, 16, 17, 257, 70001};

TEST_OP(cast) {
    // Ties to both sides, overflow of f16, subnormals of f16, what is not a number.
    const double edges[] = {1 + 0x1p-8,  1 + 3 * 0x1p-8, 1 + 0x1p-11, 1 + 3 * 0x1p-11, 65504,
                            65519.99,    65520,          -65520,      0x1p-24,         0x1p-25,
                            3 * 0x1p-26, 1e-40,          3.4e38,      INFINITY,        -INFINITY,
                            NAN,         -0.0,           0};
    for (int k = 0; k < DT_COUNT * DT_COUNT; k++) {
        const DType to = (DType)(k / DT_COUNT), from = (DType)(k % DT_COUNT);
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            const size_t n = sizes[j];
            if (!CASE("%s to %s n=%zu", dtype_name(from), dtype_name(to), n)) {
                continue;
            }
            Rng rng = check_rng((uint32_t)n);
            Buf inp = buf_normal(from, n, 100, &rng);
            for (size_t i = 0; i < n && n > 1; i++) {
                if (i % 7 == 0 && i / 7 < sizeof edges / sizeof *edges) {
                    inp.host[i] = edges[i / 7];
                }
            }
            buf_write(&inp);
            double *want = xcalloc(n, sizeof(double));
            for (size_t i = 0; i < n; i++) {
                want[i] = check_round(to, inp.host[i]);
            }
            for (int count = 1; count <= 3; count += 2) {
                Device *dev = check_device_threads(count);
                Buf out = buf_fill(to, n, 12345);
                device_ops(dev)->cast(dev, to, out.dev, from, inp.dev, n);
                expect_exact("out", buf_read(&out), want, n);
                buf_free(&out);
            }
            if (to == from) {
                device_ops(check_device())->cast(check_device(), to, inp.dev, from, inp.dev, n);
                expect_exact("onto itself", buf_read(&inp), want, n);
            }
            free(want);
            buf_free(&inp);
        }
    }
}
