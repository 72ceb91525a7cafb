// Tests of global_norm: length and clip factor against double, block order bit for bit, bad input.
#include <math.h>

#include "kernels/lanes.h"
#include "tests/check.h"

static void norm_case(size_t n, float max_norm, Rng *rng) {
    Buf grad = buf_normal(DT_F32, n, 0.01, rng), norm = buf_fill(DT_F32, 2, NAN);
    check_ops()->global_norm(check_device(), buf_f32(&norm), buf_f32(&grad), n, max_norm);
    buf_read(&norm);
    double sum = 0, blocks = 0;
    for (size_t i = 0; i < n; i++) {
        sum += grad.host[i] * grad.host[i];
    }
    const float *x = grad.dev; // the CPU's memory is the host's
    for (size_t i = 0; i < n && device_kind(check_device()) == DEVICE_CPU; i += 4096) {
        const int size = (int)(n - i < 4096 ? n - i : 4096);
        blocks += (double)dot16(x + i, x + i, size);
    }
    // A block sum of 4096 squares in 16 lanes: 256 roundings at most, half of them in the root.
    const double want = sqrt(sum), in_order = (double)(float)sqrt(blocks);
    expect_within("norm", norm.host, &want, 1, 130 * ldexp(want, -24));
    if (device_kind(check_device()) == DEVICE_CPU) {
        expect_exact("block order", norm.host, &in_order, 1);
    }
    const double factor = max_norm <= 0 ? 1 : fmin(1, (double)max_norm / (norm.host[0] + 1e-6));
    expect_ulp("factor", norm.host + 1, &factor, 1, DT_F32, 1);
    buf_free(&grad);
    buf_free(&norm);
}

TEST_OP(global_norm) {
    static const size_t sizes[] = {1, 15, 16, 4095, 4096, 4097, 100003, 4096 * 256 + 5};
    static const float limits[] = {0, 1e-3f, 1e9f};
    Rng rng = check_rng(0);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 3; j++) {
            if (CASE("n=%zu max_norm=%g", sizes[i], (double)limits[j])) {
                norm_case(sizes[i], limits[j], &rng);
            }
        }
    }
    if (CASE("what is not finite is not clipped away")) {
        const double bad[] = {NAN, INFINITY, 1e30}; // the square of 1e30 overflows
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 2; j++) {
                Buf grad = buf_fill(DT_F32, 5000, 0.5), norm = buf_fill(DT_F32, 2, 0);
                grad.host[4500] = bad[i];
                buf_write(&grad);
                check_ops()->global_norm(check_device(), buf_f32(&norm), buf_f32(&grad), 5000,
                                         (float)j);
                buf_read(&norm);
                EXPECT(!isfinite(norm.host[0]) && isnan(norm.host[1]), "%g: norm %g factor %g",
                       bad[i], norm.host[0], norm.host[1]);
                buf_free(&grad);
                buf_free(&norm);
            }
        }
    }
    if (CASE("zero gradient")) {
        Buf grad = buf_fill(DT_F32, 10, 0), norm = buf_fill(DT_F32, 2, NAN);
        const double want[] = {0, 1};
        check_ops()->global_norm(check_device(), buf_f32(&norm), buf_f32(&grad), 10, 1);
        expect_exact("norm and factor", buf_read(&norm), want, 2);
        buf_free(&grad);
        buf_free(&norm);
    }
}
