// adamw: one update of Adam with decoupled weight decay on CUDA; see adamw.h.
//
// The update of one element is that of the CPU (adamw_parts.h). The factor that clips the gradient
// is read on the device: the host does not wait for it.
//
//   version  idea                    shape  time                  % of peak bandwidth
//   kernel1  one element per thread  -      not yet run on a GPU  -
#include "adamw.h"

#include "adamw_parts.h"
#include "cuda_common.cuh"

// Launch: any grid, BLOCK threads. No shared memory.
static const int BLOCK = 256;

// param is NULL where the master is the parameter.
template <typename T>
static __global__ void adamw_kernel1(T *param, float *master, float *m, float *v,
                                     const float *grad, const float *grad_scale, size_t n,
                                     AdamWFactors factors) {
    const float scale = grad_scale ? *grad_scale : 1.0f;
    GRID_STRIDE(i, n) {
        const AdamWElement e = {master[i], m[i], v[i]};
        const AdamWElement next = adamw_element(e, grad[i] * scale, factors);
        master[i] = next.w;
        m[i] = next.m;
        v[i] = next.v;
        if (param) {
            param[i] = from_float<T>(next.w);
        }
    }
}

CUDA_OP(adamw)(Device *dev, DType t, void *param, float *master, float *m, float *v,
               const float *grad, const float *grad_scale, size_t n, const AdamWConfig *config) {
    CHECK(n >= 1 && config->step >= 1, "n=%zu step=%d", n, config->step);
    void *rounded = param == (void *)master ? NULL : param;
    FOR_DTYPE(t, T, LAUNCH((adamw_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0, device_stream(dev),
                           (T *)rounded, master, m, v, grad, grad_scale, n,
                           adamw_factors(config)));
}
