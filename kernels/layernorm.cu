// layernorm: layer normalisation on CUDA; see layernorm.h. The kernels are those of norm_rows.cuh,
// with its table of versions.
#include "layernorm.h"

#include "norm_rows.cuh"

CUDA_OP(layernorm_fwd)(Device *dev, DType t, void *out, float *mean, float *rstd, const void *inp,
                       const void *weight, const void *bias, int N, int C, float eps) {
    CHECK_POINTERS(layernorm_fwd, out, mean, rstd, inp, weight, bias);
    FOR_DTYPE(t, T, launch_norm_fwd<LayerNorm>(
                        dev, NormFwd<T>{(T *)out, mean, rstd, (const T *)inp, (const T *)weight,
                                        (const T *)bias, N, C, eps}));
}

CUDA_OP(layernorm_bwd)(Device *dev, DType t, void *dinp, float *dweight, float *dbias,
                       const void *residual, const void *dout, const void *inp,
                       const void *weight, const float *mean, const float *rstd, int N, int C) {
    CHECK_POINTERS(layernorm_bwd, dinp, dout, inp, weight, mean, rstd);
    FOR_DTYPE(t, T, launch_norm_bwd<LayerNorm>(
                        dev,
                        NormBwd<T>{(T *)dinp, (const T *)residual, (const T *)dout,
                                   (const T *)inp, (const T *)weight, mean, rstd, NULL, N, C},
                        dweight, dbias));
}
