// test_matmul_tiles: products of several tiles per block and several rounds of the ring, in the
// kernels of every architecture the device has.
//
// Operands are -1, 0 or 1 and sums stay below 256, so that every result is exact, in bf16 too, and a
// wrong term cannot hide in a tolerance.
#include <math.h>
#include <stdlib.h>

#include "kernels/matmul.h"
#include "tests/check.h"

typedef struct {
    int M, N, K;
} Shape;
// Whole tiles of 128 x 256 x 64, and one row, column and chunk more; deep and flat ones.
static const Shape shapes[] = {{128, 256, 64}, {129, 264, 72}, {264, 264, 136}, {8, 520, 200},
                               {400, 8, 16},   {8, 136, 448},  {200, 64, 8}};

static Buf signs(DType t, size_t n, Rng *rng) {
    double *values = xcalloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = (double)rng_below(rng, 3) - 1;
    }
    Buf buf = buf_from(t, values, n);
    free(values);
    return buf;
}

// want[i,j] += sum_l x[i,l] y[j,l], both operands given by two strides.
static void add_product(double *want, const Buf *x, size_t x_row, size_t x_inner, const Buf *y,
                        size_t y_row, size_t y_inner, int rows, int columns, int depth) {
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) {
            double sum = 0;
            for (int l = 0; l < depth; l++) {
                sum += x->host[i * x_row + l * x_inner] * y->host[j * y_row + l * y_inner];
            }
            want[(size_t)i * columns + j] += sum;
        }
    }
}

static void one_shape(Device *dev, Shape s) {
    const int M = s.M, N = s.N, K = s.K;
    const Ops *ops = device_ops(dev);
    Rng rng = check_rng(0);
    Buf inp = signs(DT_BF16, (size_t)M * K, &rng), weight = signs(DT_BF16, (size_t)N * K, &rng);
    Buf dout = signs(DT_BF16, (size_t)M * N, &rng), bias = signs(DT_BF16, N, &rng);
    Buf out = buf_fill(DT_BF16, (size_t)M * N, NAN), dinp = buf_fill(DT_BF16, (size_t)M * K, NAN);
    Buf dweight = signs(DT_F32, (size_t)N * K, &rng);
    double *want_out = xcalloc(out.n, sizeof(double)), *want_dinp = xcalloc(dinp.n, sizeof(double));
    double *want_dweight = xcalloc(dweight.n, sizeof(double));
    for (size_t i = 0; i < out.n; i++) {
        want_out[i] = bias.host[i % N];
    }
    for (size_t i = 0; i < dweight.n; i++) {
        want_dweight[i] = dweight.host[i];
    }
    add_product(want_out, &inp, K, 1, &weight, K, 1, M, N, K);
    add_product(want_dinp, &dout, N, 1, &weight, 1, K, M, K, N);
    add_product(want_dweight, &dout, 1, N, &inp, 1, K, N, K, M);
    ops->matmul_fwd(dev, DT_BF16, out.dev, inp.dev, weight.dev, NULL, bias.dev, M, N, K, false,
                    NULL);
    expect_exact("out", buf_read(&out), want_out, out.n);
    ops->matmul_bwd_input(dev, DT_BF16, dinp.dev, dout.dev, weight.dev, NULL, M, N, K, false,
                          NULL);
    expect_exact("dinp", buf_read(&dinp), want_dinp, dinp.n);
    ops->matmul_bwd_weight(dev, DT_BF16, buf_f32(&dweight), NULL, dout.dev, inp.dev, M, N, K);
    expect_exact("dweight", buf_read(&dweight), want_dweight, dweight.n);
    free(want_out), free(want_dinp), free(want_dweight);
    buf_free(&inp), buf_free(&weight), buf_free(&dout), buf_free(&bias), buf_free(&out);
    buf_free(&dinp), buf_free(&dweight);
}

TEST_DEVICE(matmul_tiles) {
    Device *older = device_new(device_kind(check_device()), 0, 0);
    device_limit_arch(older, 80);
    const bool is_newer = device_arch(check_device()) > device_arch(older);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int limited = 0; limited <= is_newer; limited++) {
            Device *dev = limited ? older : check_device();
            if (CASE("M=%d N=%d K=%d arch=%d", shapes[i].M, shapes[i].N, shapes[i].K,
                     device_arch(dev))) {
                one_shape(dev, shapes[i]);
            }
        }
    }
    device_free(older);
}
