// test_conformance: the wrappers of machine instructions do what ptx.cuh says: small integers,
// exact results, in the emulator (backend=emu, also by default where it is built) or on a GPU
// (backend=cuda).
#include <math.h>
#include <stdlib.h>

#include "kernels/device_backend.h"
#include "tests/check.h"

// Of tests/emu/conformance.cu, by backend.
#define EACH(X)                                                                                    \
    X(mma, (Device *, DType, float *, const void *, const void *, int))                            \
    X(cp_async, (Device *, void *, const void *, int))                                             \
    X(registers, (Device *, float *))                                                              \
    X(wgmma, (Device *, DType, float *, const void *, const void *, int, int, int, int, int, int)) \
    X(wgmma_chain,                                                                                 \
      (Device *, DType, float *, const void *, const void *, const void *, int, int, int))
#define X(name, arguments)                                                                         \
    void conformance_##name##_emu arguments __attribute__((weak));                                 \
    void conformance_##name##_cuda arguments __attribute__((weak));
EACH(X)
#undef X
// The one of the backend under test, or NULL.
#define PICK(name)                                                                                 \
    (device_kind(check_device()) == DEVICE_CUDA  ? conformance_##name##_cuda                       \
     : device_kind(check_device()) == DEVICE_EMU ? conformance_##name##_emu                        \
                                                 : NULL)

static Buf integers(DType t, size_t n, Rng *rng) {
    double *values = xcalloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = (double)rng_below(rng, 9) - 4;
    }
    Buf buf = buf_from(t, values, n);
    free(values);
    return buf;
}

static void one_mma(DType t, bool is_transposed) {
    Rng rng = check_rng(1);
    Buf a = integers(t, 256, &rng), b = integers(t, 128, &rng), out = buf_fill(DT_F32, 128, NAN);
    double want[128] = {0};
    for (int i = 0; i < 128 * 16; i++) {
        const int row = i / 128, column = i / 16 % 8, k = i % 16;
        want[row * 8 + column] +=
            a.host[row * 16 + k] * b.host[is_transposed ? k * 8 + column : column * 16 + k];
    }
    PICK(mma)(check_device(), t, buf_f32(&out), a.dev, b.dev, is_transposed);
    expect_exact("mma", buf_read(&out), want, 128);
    buf_free(&a), buf_free(&b), buf_free(&out);
}

static void one_wgmma(DType t, int width, int a_mn, int b_mn, int rows, int columns, int K) {
    Rng rng = check_rng(2);
    Buf a = integers(t, (size_t)(rows * K), &rng), out = buf_fill(DT_F32, 64 * width, NAN);
    Buf b = integers(t, (size_t)(columns * K), &rng);
    double *want = xcalloc((size_t)(64 * width), sizeof *want);
    for (int i = 0; i < rows * columns * K; i++) {
        const int row = i / K / columns, column = i / K % columns, k = i % K;
        want[row * width + column] += a.host[a_mn ? k * rows + row : row * K + k] *
                                      b.host[b_mn ? k * columns + column : column * K + k];
    }
    PICK(wgmma)(check_device(), t, buf_f32(&out), a.dev, b.dev, width, a_mn, b_mn, rows, columns,
                K);
    expect_exact("wgmma", buf_read(&out), want, out.n);
    free(want);
    buf_free(&a), buf_free(&b), buf_free(&out);
}

// Two products: the sums of the first, below 2^8 and so exact in both types, are factors of the
// second.
static void one_wgmma_chain(DType t, int width, int c_mn) {
    enum { K = 8 };
    Rng rng = check_rng(4);
    Buf a = integers(t, 64 * K, &rng), b = integers(t, 64 * K, &rng);
    Buf c = integers(t, (size_t)(64 * width), &rng), out = buf_fill(DT_F32, 64 * width, NAN);
    double middle[64 * 64] = {0}, *want = xcalloc((size_t)(64 * width), sizeof *want);
    for (int i = 0; i < 64 * 64 * K; i++) {
        const int row = i / K / 64, column = i / K % 64, k = i % K;
        middle[row * 64 + column] += a.host[row * K + k] * b.host[column * K + k];
    }
    for (int i = 0; i < 64 * width * 64; i++) {
        const int row = i / 64 / width, column = i / 64 % width, k = i % 64;
        want[row * width + column] +=
            middle[row * 64 + k] * c.host[c_mn ? k * width + column : column * 64 + k];
    }
    PICK(wgmma_chain)(check_device(), t, buf_f32(&out), a.dev, b.dev, c.dev, width, c_mn, K);
    expect_exact("wgmma", buf_read(&out), want, out.n);
    free(want);
    buf_free(&a), buf_free(&b), buf_free(&c), buf_free(&out);
}

TEST_BODY(conformance, NOT_CPU) { // the CPU has no instructions to test
    if (device_kind(check_device()) == DEVICE_CPU) {
        check_skip("instructions of a GPU: run with backend=emu or backend=cuda");
        return;
    }
    for (int k = 0; k < 4; k++) {
        const DType t = k / 2 ? DT_F16 : DT_BF16;
        if (CASE("mma %s%s", dtype_name(t), k % 2 ? " transposed" : "")) {
            one_mma(t, k % 2);
        }
    }
    for (int bytes = 0; bytes <= 16; bytes += 4) {
        if (CASE("cp.async %d bytes", bytes)) {
            Rng rng = check_rng(3);
            Buf inp = integers(DT_F32, 32, &rng), out = buf_fill(DT_F32, 32, NAN);
            double want[32];
            for (int i = 0; i < 32; i++) {
                want[i] = i % 4 < bytes / 4 ? inp.host[i] : 0;
            }
            PICK(cp_async)(check_device(), out.dev, inp.dev, bytes);
            expect_exact("cp.async", buf_read(&out), want, 32);
            buf_free(&inp), buf_free(&out);
        }
    }
    if (CASE("registers")) {
        Buf out = buf_fill(DT_F32, 384, NAN);
        double want[384];
        for (int i = 0; i < 384; i++) {
            want[i] = i;
        }
        PICK(registers)(check_device(), buf_f32(&out));
        expect_exact("registers", buf_read(&out), want, 384);
        buf_free(&out);
    }
    // Whole tiles, and ragged ones: MN-major operands have rows and columns in multiples of 8.
    const int widths[] = {64, 80, 128, 192, 256};
    for (int w = 0; w < 5; w++) {
        const int width = widths[w];
        for (int n = 0; n < 24; n++) {
            const int k = n % 12;
            const DType t = n < 12 ? DT_BF16 : DT_F16;
            const int a_mn = k / 2 % 2, b_mn = k % 2;
            const int rows = k < 4 ? 64 : k < 8 ? 40 : a_mn ? 8 : 1;
            const int columns = k < 4 ? width : k < 8 ? width - 24 : b_mn ? 8 : 3;
            const int K = k < 4 ? 64 : k < 8 ? 40 : a_mn && b_mn ? 5 : 8;
            if (CASE("wgmma %s %d wide, %s-major x %s-major, rows=%d columns=%d K=%d",
                     dtype_name(t), width, a_mn ? "MN" : "K", b_mn ? "MN" : "K", rows, columns,
                     K)) {
                one_wgmma(t, width, a_mn, b_mn, rows, columns, K);
            }
        }
        for (int n = 0; n < 4; n++) {
            const DType t = n / 2 ? DT_F16 : DT_BF16;
            if (CASE("wgmma %s %d wide, a from registers x %s-major", dtype_name(t), width,
                     n % 2 ? "MN" : "K")) {
                one_wgmma_chain(t, width, n % 2);
            }
        }
    }
}
