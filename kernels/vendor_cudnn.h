// vendor_cudnn: attention's forward by NVIDIA's cuDNN, for benches: what our kernel is measured
// against. No op comes from it.
//
// Loaded at run time; without it everything else works. It has the plain form: sequences of one
// length, not causal, no ALiBi, no cache. Needs cuDNN 9.13, whose graphs know attention as one
// operation. Left out: the backward, which is one operation on Blackwell alone; it, and causal and
// biased attention, are timed through PyTorch (bench/peers/gpu.py). Not yet run on a GPU; with the
// properties of an H200 the library (9.26) takes the graph and proposes kernels for it.
#ifndef JOMED_KERNELS_VENDOR_CUDNN_H
#define JOMED_KERNELS_VENDOR_CUDNN_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CudnnAttention CudnnAttention;

// All weak: NULL in a build without nvcc.
//
// Plans a forward over tensors laid out as `shape` says; NULL, and why (size bytes), where the
// library is not there or has no kernel for them. It has memory of its own for the log-sum-exp,
// which it computes as ours does, and for its workspace.
CudnnAttention *cudnn_attention_new(Device *dev, DType t, const AttentionShape *shape, char *why,
                                    size_t size) __attribute__((weak));
void cudnn_attention_free(Device *dev, CudnnAttention *attention) __attribute__((weak));
// Tensors as in attention.h.
void cudnn_attention_fwd(Device *dev, CudnnAttention *attention, void *out, const void *q,
                         const void *k, const void *v) __attribute__((weak));

#ifdef __cplusplus
}
#endif
#endif
