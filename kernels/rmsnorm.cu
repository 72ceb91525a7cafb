// rmsnorm: root-mean-square normalisation on CUDA; see rmsnorm.h. The kernels are those of
// norm_rows.cuh, with its table of versions.
#include "rmsnorm.h"

#include "norm_rows.cuh"

CUDA_OP(rmsnorm_fwd)(Device *dev, DType t, void *out, float *rstd, const void *inp,
                     const void *weight, int N, int C, float eps) {
    CHECK_POINTERS(rmsnorm_fwd, out, rstd, inp, weight);
    FOR_DTYPE(t, T, launch_norm_fwd<RmsNorm>(dev, NormFwd<T>{(T *)out, NULL, rstd, (const T *)inp,
                                                             (const T *)weight, NULL, N, C, eps}));
}

CUDA_OP(rmsnorm_bwd)(Device *dev, DType t, void *dinp, float *dweight, const void *residual,
                     const void *dout, const void *inp, const void *weight, const float *rstd,
                     int N, int C) {
    CHECK_POINTERS(rmsnorm_bwd, dinp, dout, inp, weight, rstd);
    FOR_DTYPE(t, T, launch_norm_bwd<RmsNorm>(
                        dev,
                        NormBwd<T>{(T *)dinp, (const T *)residual, (const T *)dout,
                                   (const T *)inp, (const T *)weight, NULL, rstd, NULL, N, C},
                        dweight, NULL));
}
