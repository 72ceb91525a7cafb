// infonce: symmetric contrastive loss over a batch of pairs. Source: Radford et al. 2021 (CLIP).
#ifndef JOMED_KERNELS_INFONCE_H
#define JOMED_KERNELS_INFONCE_H

#include "device.h"
#include "dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

//   S = exp(log_scale) a b^T    loss[0] = mean_i CE(S[i,:], i)    loss[1] = mean_j CE(S[:,j], j)
//   and the loss to minimise is (loss[0] + loss[1]) / 2.
// a, b: (B,E) t, unit rows   log_scale: (1) f32 on the device, so that it may be learned
// loss: (2) f32   scores: (B,B) f32, S on return   lse: (2,B) f32, row then column log-sum-exps.
// Products are chains (over e, in the gradients over the batch), scaled after the sum;
// log-sum-exps, losses and dlog_scale are sums over the batch in lane order. Agreement: sum.
typedef void infonce_fwd_fn(Device *dev, DType t, float *loss, float *scores, float *lse,
                            const void *a, const void *b, const float *log_scale, int B, int E);
// da, db = gradients of (loss[0] + loss[1]) / 2, assigned   dlog_scale (1) += sum dS * S, or NULL.
// scores is overwritten by dS.
typedef void infonce_bwd_fn(Device *dev, DType t, void *da, void *db, float *dlog_scale,
                            float *scores, const float *lse, const void *a, const void *b,
                            const float *log_scale, int B, int E);

// Bytes of scratch, more than those of _fwd (ops.h).
typedef size_t infonce_bwd_scratch_fn(const Device *dev, DType t, int B, int E);
infonce_bwd_scratch_fn infonce_bwd_scratch_cuda, infonce_bwd_scratch_emu;

infonce_fwd_fn infonce_fwd_cpu, infonce_fwd_cuda, infonce_fwd_emu;
infonce_bwd_fn infonce_bwd_cpu, infonce_bwd_cuda, infonce_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
