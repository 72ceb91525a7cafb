// vendor_cudnn: attention by NVIDIA's cuDNN, for benches: what our kernels are measured against. No
// op comes from it.
//
// Loaded at run time; without it everything else works. It has the plain forms: sequences of one
// length, not causal, no ALiBi, no cache. Causal and biased attention by cuDNN is timed through
// PyTorch (bench/peers/gpu.py). Needs cuDNN 9.13 for the forward, 9.17 for the backward: each is one
// operation of its graph since then. Not yet run on a GPU.
#ifndef JOMED_KERNELS_VENDOR_CUDNN_H
#define JOMED_KERNELS_VENDOR_CUDNN_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CudnnAttention CudnnAttention;

// All weak: NULL in a build without nvcc.
//
// Plans both passes over tensors laid out as `shape` says; NULL, and why (size bytes), where the
// library is not there or has no kernel for them. Keeps the log-sum-exp of its own forward, which
// its backward reads, and its workspace.
CudnnAttention *cudnn_attention_new(Device *dev, DType t, const AttentionShape *shape, char *why,
                                    size_t size) __attribute__((weak));
void cudnn_attention_free(Device *dev, CudnnAttention *attention) __attribute__((weak));
// Tensors as in attention.h. The backward takes `out` as its own forward gave it.
void cudnn_attention_fwd(Device *dev, CudnnAttention *attention, void *out, const void *q,
                         const void *k, const void *v) __attribute__((weak));
void cudnn_attention_bwd(Device *dev, CudnnAttention *attention, void *dq, void *dk, void *dv,
                         const void *dout, const void *out, const void *q, const void *k,
                         const void *v) __attribute__((weak));

#ifdef __cplusplus
}
#endif
#endif
