// matmul: the linear layer and its gradients on the CPU; see matmul.h.
#include "matmul.h"

#include <math.h>

#include "base.h"

static void check_sizes(int M, int N, int K) {
    CHECK(M >= 1 && N >= 1 && K >= 1, "M=%d N=%d K=%d", M, N, K);
}

// ---- the definition ----
void matmul_fwd_naive(Device *dev, DType t, void *out, const void *inp, const void *weight,
                      const void *packed, const void *bias, int M, int N, int K,
                      bool is_accumulated) {
    (void)dev;
    (void)packed;
    check_sizes(M, N, K);
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            const size_t at = (size_t)m * N + n;
            float sum = is_accumulated ? dtype_load(t, out, at) : bias ? dtype_load(t, bias, n) : 0;
            for (int k = 0; k < K; k++) {
                sum = fmaf(dtype_load(t, inp, (size_t)m * K + k),
                           dtype_load(t, weight, (size_t)n * K + k), sum);
            }
            dtype_store(t, out, at, sum);
        }
    }
}

void matmul_bwd_input_naive(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                            const void *packed, int M, int N, int K, bool is_accumulated) {
    (void)dev;
    (void)packed;
    check_sizes(M, N, K);
    for (int m = 0; m < M; m++) {
        for (int k = 0; k < K; k++) {
            const size_t at = (size_t)m * K + k;
            float sum = is_accumulated ? dtype_load(t, dinp, at) : 0;
            for (int n = 0; n < N; n++) {
                sum = fmaf(dtype_load(t, dout, (size_t)m * N + n),
                           dtype_load(t, weight, (size_t)n * K + k), sum);
            }
            dtype_store(t, dinp, at, sum);
        }
    }
}

void matmul_bwd_weight_naive(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                             const void *inp, int M, int N, int K) {
    (void)dev;
    check_sizes(M, N, K);
    for (int n = 0; n < N; n++) {
        for (int k = 0; dweight && k < K; k++) {
            float sum = dweight[(size_t)n * K + k];
            for (int m = 0; m < M; m++) {
                sum = fmaf(dtype_load(t, dout, (size_t)m * N + n),
                           dtype_load(t, inp, (size_t)m * K + k), sum);
            }
            dweight[(size_t)n * K + k] = sum;
        }
        for (int m = 0; dbias && m < M; m++) {
            dbias[n] += dtype_load(t, dout, (size_t)m * N + n);
        }
    }
}

// ---- the ops ----
size_t matmul_pack_bytes(const Device *dev, DType t, MatmulPack which, int N, int K) {
    (void)dev;
    (void)t;
    (void)which;
    check_sizes(1, N, K);
    return 0;
}

void matmul_pack_cpu(Device *dev, DType t, void *packed, const void *weight, MatmulPack which, int N,
                     int K) {
    (void)dev;
    (void)t;
    (void)packed;
    (void)weight;
    (void)which;
    check_sizes(1, N, K);
}

void matmul_fwd_cpu(Device *dev, DType t, void *out, const void *inp, const void *weight,
                    const void *packed, const void *bias, int M, int N, int K,
                    bool is_accumulated) {
    matmul_fwd_naive(dev, t, out, inp, weight, packed, bias, M, N, K, is_accumulated);
}

void matmul_bwd_input_cpu(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                          const void *packed, int M, int N, int K, bool is_accumulated) {
    matmul_bwd_input_naive(dev, t, dinp, dout, weight, packed, M, N, K, is_accumulated);
}

void matmul_bwd_weight_cpu(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                           const void *inp, int M, int N, int K) {
    matmul_bwd_weight_naive(dev, t, dweight, dbias, dout, inp, M, N, K);
}
