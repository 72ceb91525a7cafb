// residual: sums and multiples of whole tensors on a GPU; see residual.h.
//
// Nothing to compute, all memory: 3 (sum) or 2 (multiple) tensors pass by once. The trick is only to
// move 16 bytes per access.
//
//   version  idea                                shape      time            % of peak
//   1        one element per thread and turn     -          not yet run on a GPU
//   2        16 bytes per thread and turn        -          not yet run on a GPU
#include "residual.h"

#include "cuda_common.cuh"

#define THREADS 256

// What is done to an element; b is not read by Scale.
struct Add {
    enum { INPUTS = 2 };
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Scale {
    enum { INPUTS = 1 };
    float factor;
    __device__ float operator()(float a, float) const { return factor * a; }
};

// Version 1, for what version 2 leaves. Launch: grid_for(n), 256 threads, no shared memory.
template <typename T, typename F>
static __global__ void each_kernel1(T *out, const T *a, const T *b, F f, size_t n) {
    GRID_STRIDE(i, n) {
        out[i] = from_float<T>(f(to_float(a[i]), F::INPUTS == 2 ? to_float(b[i]) : 0.0f));
    }
}

// Version 2: n packs, all tensors at multiples of 16 bytes. Launch: grid_for(n), 256 threads, no
// shared memory.
template <typename T, typename F>
static __global__ void each_kernel2(T *out, const T *a, const T *b, F f, size_t n) {
    GRID_STRIDE(i, n) {
        const size_t at = i * Pack<T>::N;
        Pack<T> x = pack_load(a + at), y = x;
        if (F::INPUTS == 2) {
            y = pack_load(b + at);
        }
        for (int k = 0; k < Pack<T>::N; k++) {
            x.at[k] = f(x.at[k], y.at[k]);
        }
        pack_store(out + at, x);
    }
}

// ---- launchers ----
template <typename T, typename F>
static void launch_each(Device *dev, void *out, const void *a, const void *b, F f, size_t n) {
    const bool has_packs = is_packable(out) && is_packable(a) && is_packable(b);
    const size_t packs = has_packs ? n / Pack<T>::N : 0, done = packs * Pack<T>::N;
    const cudaStream_t stream = device_stream(dev);
    if (packs) {
        LAUNCH((each_kernel2<T, F>), grid_for(packs, THREADS), THREADS, 0, stream, (T *)out,
               (const T *)a, (const T *)b, f, packs);
    }
    if (done < n) {
        LAUNCH((each_kernel1<T, F>), grid_for(n - done, THREADS), THREADS, 0, stream,
               (T *)out + done, (const T *)a + done, (const T *)b + done, f, n - done);
    }
}

CUDA_OP(residual_fwd)(Device *dev, DType t, void *out, const void *a, const void *b, size_t n) {
    FOR_DTYPE(t, T, launch_each<T>(dev, out, a, b, Add(), n));
}

CUDA_OP(scale_fwd)(Device *dev, DType t, void *out, const void *inp, float factor, size_t n) {
    FOR_DTYPE(t, T, launch_each<T>(dev, out, inp, inp, Scale{factor}, n));
}
