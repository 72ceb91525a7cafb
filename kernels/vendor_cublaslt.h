// vendor_cublaslt: NVIDIA's cuBLASLt behind the contracts of matmul.h: the choice matmul=cublaslt,
// and what our kernels are measured against.
//
// Loaded at run time; without it everything else works. What differs from matmul.h: the library
// picks its kernel by the whole shape, number of rows included, so that a row's result may depend
// on its batch, and the order of its sums is not told. Sums are f32, partial sums too; f32 is not
// cut to TF32. The addition to what is stored, bias, residual, scale and the one rounding are as in
// matmul.h. Our own kernels do what the library has no form for: activations at the end of a
// product, adapters in it, a scale of a bias, and the gradient of a bias. Left out: emulated
// devices. Not yet run on a GPU.
#ifndef JOMED_KERNELS_VENDOR_CUBLASLT_H
#define JOMED_KERNELS_VENDOR_CUBLASLT_H

#include "matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

// Weak: NULL in a build without nvcc.
//
// Loads the library for a CUDA device; false, and why (size bytes), when it cannot be. Repeatable.
bool cublaslt_open(Device *dev, char *why, size_t size) __attribute__((weak));
// From now on the device's products are the library's. After cublaslt_open.
void cublaslt_take_over(Device *dev) __attribute__((weak));
// For benches: with is_tuned the first call of a shape times every algorithm that the library
// proposes and keeps the fastest; its outputs are spoilt by that. Else the first proposal is taken.
void cublaslt_tune(bool is_tuned) __attribute__((weak));
matmul_fwd_fn matmul_fwd_cublaslt __attribute__((weak));
matmul_bwd_input_fn matmul_bwd_input_cublaslt __attribute__((weak));
matmul_bwd_weight_fn matmul_bwd_weight_cublaslt __attribute__((weak));

#ifdef __cplusplus
}
#endif
#endif
