// activation: pointwise non-linearities on CUDA; see activation.h.
//
// The functions of one element are those of the CPU (activation_parts.h), operation by operation,
// so that both give the same bits.
//
//   version  idea                    shape  time                  % of peak bandwidth
//   kernel1  one element per thread  -      not yet run on a GPU  -
#include "activation.h"

#include "activation_parts.h"
#include "cuda_common.cuh"

// Launch: any grid, BLOCK threads. No shared memory.
static const int BLOCK = 256;

// The function is the same for all threads, so the branch costs nothing beside the polynomial.
static __device__ Act act_of(float x, Activation act) {
    switch (act) {
    case ACT_GELU: return act_gelu(x);
    case ACT_GELU_TANH: return act_gelu_tanh(x);
    case ACT_QUICK_GELU: return act_quick_gelu(x);
    default: return act_silu(x);
    }
}

template <typename T>
static __global__ void activation_fwd_kernel1(T *out, const T *inp, size_t n, Activation act) {
    GRID_STRIDE(i, n) { out[i] = from_float<T>(act_of(to_float(inp[i]), act).value); }
}

template <typename T>
static __global__ void activation_bwd_kernel1(T *dinp, const T *dout, const T *inp, size_t n,
                                              Activation act) {
    GRID_STRIDE(i, n) {
        dinp[i] = from_float<T>(to_float(dout[i]) * act_of(to_float(inp[i]), act).slope);
    }
}

template <typename T>
static __global__ void gated_fwd_kernel1(T *out, const T *gate, const T *up, size_t n,
                                         Activation act) {
    GRID_STRIDE(i, n) {
        out[i] = from_float<T>(act_of(to_float(gate[i]), act).value * to_float(up[i]));
    }
}

template <typename T>
static __global__ void gated_bwd_kernel1(T *dgate, T *dup, const T *dout, const T *gate,
                                         const T *up, size_t n, Activation act) {
    GRID_STRIDE(i, n) {
        const float d = to_float(dout[i]); // read before dup, which may be the same place
        const Act a = act_of(to_float(gate[i]), act);
        dgate[i] = from_float<T>(d * to_float(up[i]) * a.slope);
        dup[i] = from_float<T>(d * a.value);
    }
}

CUDA_OP(activation_fwd)(Device *dev, DType t, void *out, const void *inp, size_t n,
                        Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, LAUNCH((activation_fwd_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)out, (const T *)inp, n, act));
}

CUDA_OP(activation_bwd)(Device *dev, DType t, void *dinp, const void *dout, const void *inp,
                        size_t n, Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, LAUNCH((activation_bwd_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)dinp, (const T *)dout, (const T *)inp, n,
                           act));
}

CUDA_OP(gated_fwd)(Device *dev, DType t, void *out, const void *gate, const void *up, size_t n,
                   Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, LAUNCH((gated_fwd_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)out, (const T *)gate, (const T *)up, n, act));
}

CUDA_OP(gated_bwd)(Device *dev, DType t, void *dgate, void *dup, const void *dout,
                   const void *gate, const void *up, size_t n, Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, LAUNCH((gated_bwd_kernel1<T>), grid_for(n, BLOCK), BLOCK, 0,
                           device_stream(dev), (T *)dgate, (T *)dup, (const T *)dout,
                           (const T *)gate, (const T *)up, n, act));
}
