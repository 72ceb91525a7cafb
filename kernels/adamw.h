// adamw: Adam with decoupled weight decay, of all tensors at once. Source: Loshchilov and Hutter
// 2019; eps outside the root, bias correction as torch.optim.AdamW.
#ifndef JOMED_KERNELS_ADAMW_H
#define JOMED_KERNELS_ADAMW_H

#include "device.h"
#include "dtype.h"

typedef struct {
    float lr, beta1, beta2, eps, weight_decay;
} AdamWConfig;

// Lives on the device: the host need not hear of a step before it gives the next one.
typedef struct {
    int32_t step;    // updates done
    int32_t skipped; // calls since the last of them
} AdamWCount;

#define DECAY_SPAN 64 // elements that share a flag of `decays`

#ifdef __cplusplus
extern "C" {
#endif

//   step = step + 1;   g = grad * *grad_scale;   w = w (1 - lr weight_decay)
//   m = beta1 m + (1-beta1) g     v = beta2 v + (1-beta2) g^2
//   w = w - lr / (1-beta1^step) * m / (sqrt(v / (1-beta2^step)) + eps);   param = round_t(w)
// A factor *grad_scale that is not finite spoils nothing: skipped grows by one, all else stays. An
// update sets skipped to 0.
// param: (n) t   master: (n) f32; with t = F32 master may equal param   m, v, grad: (n) f32
// count, grad_scale: one each, on the device; grad_scale (the clip factor) may be NULL for 1.
// decays: (ceil(n / DECAY_SPAN)) u8 on the device: element i decays where decays[i / DECAY_SPAN] is
// not 0; NULL: all decay. So tensors that begin at multiples of DECAY_SPAN are one call.
// Agreement: ulp, of the terms of each sum (they may cancel).
typedef void adamw_fn(Device *dev, DType t, void *param, float *master, float *m, float *v,
                      AdamWCount *count, const float *grad, const float *grad_scale,
                      const uint8_t *decays, size_t n, const AdamWConfig *config);

adamw_fn adamw_cpu, adamw_cuda, adamw_emu;

#ifdef __cplusplus
}
#endif
#endif
