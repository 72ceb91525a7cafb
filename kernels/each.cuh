// each: out[i] = f(a[i], b[i]) over whole tensors. Only for *.cu.
//
// Nothing to compute, all memory: every tensor passes by once. The trick is only to move 16 bytes
// per access where all tensors begin at multiples of 16.
#ifndef JOMED_KERNELS_EACH_CUH
#define JOMED_KERNELS_EACH_CUH

#include "cuda_common.cuh"

#define THREADS 256

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

// out[i] = f(a[i], b[i]), i < n. out may alias either; b is not read where F::INPUTS is 1.
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

#endif
