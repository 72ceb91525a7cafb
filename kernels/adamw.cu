// adamw: one update of Adam with decoupled weight decay on CUDA; see adamw.h.
//
// One thread counts the step and forms its factors, then all elements are updated by the text of
// the CPU (adamw_parts.h). Whether the step counts, and how far it is clipped, is read on the
// device: the host waits for nothing, and two launches serve all tensors. A parameter costs 28
// bytes (30 with a 16-bit copy) and a few dozen operations: all memory. Version 2 has eight 16-byte
// loads of a thread in flight before the first use.
//
//   version  idea                            shape  time                  % of peak bandwidth
//   kernel1  one element per thread          -      not yet run on a GPU  -
//   kernel2  eight per thread, 16 bytes      -      not yet run on a GPU  -
#include "adamw.h"

#include "adamw_parts.h"
#include "device_cuda.cuh"

static const int BLOCK = 256;
static const int EACH = 8; // elements of a thread and turn: 16 bytes of a 16-bit parameter
static_assert(DECAY_SPAN % EACH == 0, "the elements of a turn share a flag");

// Launch: one thread.
static __global__ void adamw_begin1(AdamWFactors *factors, AdamWCount *count,
                                    const float *grad_scale, AdamWConfig config) {
    *factors = adamw_begin(count, grad_scale, &config);
}

// What the two versions share: the pointers, and element i.
template <typename T> struct Tensors {
    T *param; // NULL where the master is the parameter
    float *master, *m, *v;
    const float *grad;
    const uint8_t *decays;

    __device__ float keep(size_t i, const AdamWFactors &f) const {
        return decays && !decays[i / DECAY_SPAN] ? 1.0f : f.keep;
    }
    __device__ void update(size_t i, const AdamWFactors &f) const {
        const AdamWElement e = {master[i], m[i], v[i]};
        const AdamWElement next = adamw_element(e, grad[i], keep(i, f), f);
        master[i] = next.w;
        m[i] = next.m;
        v[i] = next.v;
        if (param) {
            param[i] = from_float<T>(next.w);
        }
    }
};

// Version 1, of elements first .. n - 1. Launch: any grid, BLOCK threads. No shared memory.
template <typename T>
static __global__ void adamw_kernel1(Tensors<T> all, const AdamWFactors *factors, size_t first,
                                     size_t n) {
    const AdamWFactors f = *factors;
    if (f.is_update) {
        GRID_STRIDE(i, n - first) { all.update(first + i, f); }
    }
}

// Version 2, of `turns` times EACH elements, all tensors at multiples of 16 bytes.
// Launch: any grid, BLOCK threads. No shared memory.
template <typename T>
static __global__ void adamw_kernel2(Tensors<T> all, const AdamWFactors *factors, size_t turns) {
    const AdamWFactors f = *factors;
    if (!f.is_update) {
        return;
    }
    GRID_STRIDE(turn, turns) {
        const size_t at = turn * EACH;
        Pack<float> w[EACH / 4], m[EACH / 4], v[EACH / 4], g[EACH / 4];
        UNROLL
        for (int k = 0; k < EACH / 4; k++) {
            w[k] = pack_load(all.master + at + 4 * k);
            m[k] = pack_load(all.m + at + 4 * k);
            v[k] = pack_load(all.v + at + 4 * k);
            g[k] = pack_load(all.grad + at + 4 * k);
        }
        const float keep = all.keep(at, f);
        UNROLL
        for (int i = 0; i < EACH; i++) {
            const AdamWElement e = {w[i / 4].at[i % 4], m[i / 4].at[i % 4], v[i / 4].at[i % 4]};
            const AdamWElement next = adamw_element(e, g[i / 4].at[i % 4], keep, f);
            w[i / 4].at[i % 4] = next.w;
            m[i / 4].at[i % 4] = next.m;
            v[i / 4].at[i % 4] = next.v;
        }
        UNROLL
        for (int k = 0; k < EACH / 4; k++) {
            pack_store(all.master + at + 4 * k, w[k]);
            pack_store(all.m + at + 4 * k, m[k]);
            pack_store(all.v + at + 4 * k, v[k]);
        }
        if constexpr (sizeof(T) == 2) { // an f32 parameter is its own master, or goes to version 1
            Pack<T> rounded;
            UNROLL
            for (int i = 0; i < EACH; i++) {
                rounded.at[i] = w[i / 4].at[i % 4];
            }
            pack_store(all.param + at, rounded);
        }
    }
}

template <typename T>
static void launch(Device *dev, const Tensors<T> &all, const AdamWFactors *factors, size_t n) {
    const bool has_packs = is_packable(all.master) && is_packable(all.m) && is_packable(all.v) &&
                           is_packable(all.grad) && is_packable(all.param) &&
                           (sizeof(T) == 2) == (all.param != NULL);
    const size_t turns = has_packs ? n / EACH : 0, done = turns * EACH;
    const cudaStream_t stream = device_stream(dev);
    if (turns) {
        LAUNCH((adamw_kernel2<T>), grid_for(turns, BLOCK), BLOCK, 0, stream, all, factors, turns);
    }
    if (done < n) {
        LAUNCH((adamw_kernel1<T>), grid_for(n - done, BLOCK), BLOCK, 0, stream, all, factors, done,
               n);
    }
}

CUDA_OP(adamw)(Device *dev, DType t, void *param, float *master, float *m, float *v,
               AdamWCount *count, const float *grad, const float *grad_scale,
               const uint8_t *decays, size_t n, const AdamWConfig *config) {
    CHECK_POINTERS(adamw, param, master, m, v, count, grad, config);
    CHECK(n >= 1, "n=%zu", n);
    AdamWFactors *factors = (AdamWFactors *)device_scratch(dev, sizeof *factors);
    LAUNCH(adamw_begin1, 1, 1, 0, device_stream(dev), factors, count, grad_scale, *config);
    void *rounded = param == (void *)master ? NULL : param;
    FOR_DTYPE(t, T, launch<T>(dev, {(T *)rounded, master, m, v, grad, decays}, factors, n));
}
