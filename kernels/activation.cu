// activation: pointwise non-linearities on CUDA; see activation.h.
//
// The functions of one element are those of the CPU (activation_parts.h), operation by operation,
// so that both give the same bits.
//
//   version            idea                          shape  time                  % of peak
//   each.cuh           16 bytes per thread and turn  -      not yet run on a GPU  -
//   gated_bwd_kernel1  one element per thread        -      not yet run on a GPU  -
//   gated_bwd_kernel2  16 bytes per thread and turn  -      not yet run on a GPU  -
#include "activation.h"

#include "activation_parts.h"
#include "each.cuh"

// The element-wise functions, as each.cuh takes them. act is the same for all threads, so that the
// branch of act_of costs nothing beside the polynomial.
struct ActValue { // inp
    enum { INPUTS = 1 };
    Activation act;
    __device__ float operator()(float x, float) const { return act_of(x, act).value; }
};
struct ActGradient { // dout, inp
    enum { INPUTS = 2 };
    Activation act;
    __device__ float operator()(float dy, float x) const { return dy * act_of(x, act).slope; }
};
struct GatedValue { // gate, up
    enum { INPUTS = 2 };
    Activation act;
    __device__ float operator()(float gate, float up) const {
        return act_of(gate, act).value * up;
    }
};

// Two outputs, so a kernel of its own. Launch: grid_for(n), THREADS threads. No shared memory.
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

// n packs, all tensors at multiples of 16 bytes. Launch: as version 1.
template <typename T>
static __global__ void gated_bwd_kernel2(T *dgate, T *dup, const T *dout, const T *gate,
                                         const T *up, size_t n, Activation act) {
    GRID_STRIDE(i, n) {
        const size_t at = i * Pack<T>::N;
        Pack<T> d = pack_load(dout + at), g = pack_load(gate + at);
        const Pack<T> u = pack_load(up + at);
        UNROLL
        for (int e = 0; e < Pack<T>::N; e++) {
            const Act a = act_of(g.at[e], act);
            g.at[e] = d.at[e] * u.at[e] * a.slope;
            d.at[e] = d.at[e] * a.value;
        }
        pack_store(dgate + at, g);
        pack_store(dup + at, d);
    }
}

template <typename T>
static void launch_gated_bwd(Device *dev, T *dgate, T *dup, const T *dout, const T *gate,
                             const T *up, size_t n, Activation act) {
    const bool has_packs = is_packable(dgate) && is_packable(dup) && is_packable(dout) &&
                           is_packable(gate) && is_packable(up);
    const size_t packs = has_packs ? n / Pack<T>::N : 0, done = packs * Pack<T>::N;
    const cudaStream_t stream = device_stream(dev);
    if (packs) {
        LAUNCH((gated_bwd_kernel2<T>), grid_for(packs, THREADS), THREADS, 0, stream, dgate, dup,
               dout, gate, up, packs, act);
    }
    if (done < n) {
        LAUNCH((gated_bwd_kernel1<T>), grid_for(n - done, THREADS), THREADS, 0, stream,
               dgate + done, dup + done, dout + done, gate + done, up + done, n - done, act);
    }
}

CUDA_OP(activation_fwd)(Device *dev, DType t, void *out, const void *inp, size_t n,
                        Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, launch_each<T>(dev, out, inp, inp, ActValue{act}, n));
}

CUDA_OP(activation_bwd)(Device *dev, DType t, void *dinp, const void *dout, const void *inp,
                        size_t n, Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, launch_each<T>(dev, dinp, dout, inp, ActGradient{act}, n));
}

CUDA_OP(gated_fwd)(Device *dev, DType t, void *out, const void *gate, const void *up, size_t n,
                   Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, launch_each<T>(dev, out, gate, up, GatedValue{act}, n));
}

CUDA_OP(gated_bwd)(Device *dev, DType t, void *dgate, void *dup, const void *dout,
                   const void *gate, const void *up, size_t n, Activation act) {
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, launch_gated_bwd(dev, (T *)dgate, (T *)dup, (const T *)dout, (const T *)gate,
                                     (const T *)up, n, act));
}
