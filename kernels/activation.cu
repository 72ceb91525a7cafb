// activation: pointwise non-linearities on CUDA; see activation.h.
//
// All memory: 4 to 10 bytes an element of a 16-bit type, whose functions are short enough for it
// (activation_parts.cuh).
//
//   version            idea                          shape  time                  % of peak
//   each.cuh           16 bytes per thread and turn  -      not yet run on a GPU  -
//   gated_bwd_kernel1  one element per thread        -      not yet run on a GPU  -
//   gated_bwd_kernel2  16 bytes per thread and turn  -      not yet run on a GPU  -
#include "activation.h"

#include "activation_parts.cuh"
#include "each.cuh"

// The element-wise functions, as each.cuh takes them.
template <typename T, Activation A> struct ActValue { // inp
    enum { INPUTS = 1 };
    __device__ float operator()(float x, float) const { return act_as<T, A>(x).value; }
};
template <typename T, Activation A> struct ActGradient { // dout, inp
    enum { INPUTS = 2 };
    __device__ float operator()(float dy, float x) const { return dy * act_as<T, A>(x).slope; }
};
template <typename T, Activation A> struct GatedValue { // gate, up
    enum { INPUTS = 2 };
    __device__ float operator()(float gate, float up) const {
        return act_as<T, A>(gate).value * up;
    }
};

// Two outputs, so a kernel of its own. Launch: grid_for(n), THREADS threads. No shared memory.
template <typename T, Activation A>
static __global__ void gated_bwd_kernel1(T *dgate, T *dup, const T *dout, const T *gate,
                                         const T *up, size_t n) {
    GRID_STRIDE(i, n) {
        const float d = to_float(dout[i]); // read before dup, which may be the same place
        const Act a = act_as<T, A>(to_float(gate[i]));
        dgate[i] = from_float<T>(d * to_float(up[i]) * a.slope);
        dup[i] = from_float<T>(d * a.value);
    }
}

// n packs, all tensors at multiples of 16 bytes. Launch: as version 1.
template <typename T, Activation A>
static __global__ void gated_bwd_kernel2(T *dgate, T *dup, const T *dout, const T *gate,
                                         const T *up, size_t n) {
    GRID_STRIDE(i, n) {
        const size_t at = i * Pack<T>::N;
        Pack<T> d = pack_load(dout + at), g = pack_load(gate + at);
        const Pack<T> u = pack_load(up + at);
        UNROLL
        for (int e = 0; e < Pack<T>::N; e++) {
            const Act a = act_as<T, A>(g.at[e]);
            g.at[e] = d.at[e] * u.at[e] * a.slope;
            d.at[e] = d.at[e] * a.value;
        }
        pack_store(dgate + at, g);
        pack_store(dup + at, d);
    }
}

template <typename T, Activation A>
static void launch_gated_bwd(Device *dev, T *dgate, T *dup, const T *dout, const T *gate,
                             const T *up, size_t n) {
    const bool has_packs = is_packable(dgate) && is_packable(dup) && is_packable(dout) &&
                           is_packable(gate) && is_packable(up);
    const size_t packs = has_packs ? n / Pack<T>::N : 0, done = packs * Pack<T>::N;
    const cudaStream_t stream = device_stream(dev);
    if (packs) {
        LAUNCH((gated_bwd_kernel2<T, A>), grid_for(packs, THREADS), THREADS, 0, stream, dgate, dup,
               dout, gate, up, packs);
    }
    if (done < n) {
        LAUNCH((gated_bwd_kernel1<T, A>), grid_for(n - done, THREADS), THREADS, 0, stream,
               dgate + done, dup + done, dout + done, gate + done, up + done, n - done);
    }
}

CUDA_OP(activation_fwd)(Device *dev, DType t, void *out, const void *inp, size_t n,
                        Activation act) {
    CHECK_POINTERS(activation_fwd, out, inp);
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, FOR_ACT(act, A, launch_each<T>(dev, out, inp, inp, ActValue<T, A>(), n)));
}

CUDA_OP(activation_bwd)(Device *dev, DType t, void *dinp, const void *dout, const void *inp,
                        size_t n, Activation act) {
    CHECK_POINTERS(activation_bwd, dinp, dout, inp);
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, FOR_ACT(act, A, launch_each<T>(dev, dinp, dout, inp, ActGradient<T, A>(), n)));
}

CUDA_OP(gated_fwd)(Device *dev, DType t, void *out, const void *gate, const void *up, size_t n,
                   Activation act) {
    CHECK_POINTERS(gated_fwd, out, gate, up);
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, FOR_ACT(act, A, launch_each<T>(dev, out, gate, up, GatedValue<T, A>(), n)));
}

CUDA_OP(gated_bwd)(Device *dev, DType t, void *dgate, void *dup, const void *dout,
                   const void *gate, const void *up, size_t n, Activation act) {
    CHECK_POINTERS(gated_bwd, dgate, dup, dout, gate, up);
    CHECK(act < ACT_COUNT, "act=%d", (int)act);
    FOR_DTYPE(t, T, FOR_ACT(act, A, (launch_gated_bwd<T, A>(
                                        dev, (T *)dgate, (T *)dup, (const T *)dout,
                                        (const T *)gate, (const T *)up, n))));
}
