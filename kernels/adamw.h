// adamw: Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019; eps outside the
// root, bias correction as torch.optim.AdamW.
#ifndef JOMED_KERNELS_ADAMW_H
#define JOMED_KERNELS_ADAMW_H

#include "device.h"
#include "dtype.h"

typedef struct {
    float lr, beta1, beta2, eps, weight_decay;
    int step; // 1 for the first update
} AdamWConfig;

#ifdef __cplusplus
extern "C" {
#endif

//   g = grad * *grad_scale;   w = w (1 - lr weight_decay)
//   m = beta1 m + (1-beta1) g     v = beta2 v + (1-beta2) g^2
//   w = w - lr / (1-beta1^step) * m / (sqrt(v / (1-beta2^step)) + eps);   param = round_t(w)
// param: (n) t   master: (n) f32; with t = F32 master may equal param   m, v, grad: (n) f32
// grad_scale: (1) f32 on the device (the clip factor) or NULL for 1.
// Agreement: ulp, of the terms of each sum (they may cancel).
typedef void adamw_fn(Device *dev, DType t, void *param, float *master, float *m, float *v,
                      const float *grad, const float *grad_scale, size_t n,
                      const AdamWConfig *config);

adamw_fn adamw_cpu, adamw_cuda, adamw_emu;

#ifdef __cplusplus
}
#endif
#endif
