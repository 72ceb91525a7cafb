// global_norm: the length of all gradients together, and the factor that clips it.
#ifndef JOMED_KERNELS_GLOBAL_NORM_H
#define JOMED_KERNELS_GLOBAL_NORM_H

#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

//   norm[0] = sqrt(sum_i grad[i]^2)      norm[1] = min(1, max_norm / (norm[0] + 1e-6)), or 1 when
//   max_norm <= 0, as torch.nn.utils.clip_grad_norm_. Not finite: norm[1] is NaN.
// norm: (2) f32   grad: (n) f32. Blocks of 4096 in lane order, block sums in f64 ascending.
// Agreement: sum.
typedef void global_norm_fn(Device *dev, float *norm, const float *grad, size_t n, float max_norm);

global_norm_fn global_norm_cpu, global_norm_cuda, global_norm_emu;

#ifdef __cplusplus
}
#endif
#endif
