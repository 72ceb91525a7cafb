// cuda_common: what every .cu file starts from: launching, shared memory, types, reductions.
//
// One source, two compilers: nvcc, and g++ with the emulator of tests/emu, which puts its own
// runtime in front of the file. Only this file and ptx.cuh tell them apart (__CUDACC__). Kernels
// keep to these rules:
//   * LAUNCH(...), never <<<>>>; a template instance goes in parentheses.
//   * Shared memory through SMEM_STATIC or SMEM_CARVER and SMEM_TAKE, never __shared__.
//   * PTX only in ptx.cuh. Exchange between lanes only by the _sync forms.
//   * Everything but the launchers (CUDA_OP) is static: one binary links both compilations.
//   * Float arithmetic is not contracted: a fused multiply-add is where the source says fmaf.
// Left out: cooperative groups, dynamic parallelism, textures, clusters.
#ifndef JOMED_KERNELS_CUDA_COMMON_CUH
#define JOMED_KERNELS_CUDA_COMMON_CUH

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

#include "base.h"
#include "device.h"
#include "dtype.h"
#include "ptx.cuh"

// ---- two builds of one source ----
// CUDA_OP(layernorm_fwd)(Device *dev, ...) { ... } defines layernorm_fwd_cuda, or layernorm_fwd_emu
// under the emulator. extern "C" makes a signature that differs from the header's an error.
#ifdef __CUDACC__
#define CUDA_NAME(name) name##_cuda
#define CUDA_KIND DEVICE_CUDA
#define UNROLL _Pragma("unroll") // before a loop over an array that must stay in registers
#define ROLLED _Pragma("unroll 1") // before a loop whose copies would cost registers
#define CALLER          // last parameter of a helper that synchronises: who called it
#define CALLER_PASS     // last argument, in a helper that calls another such helper
#define CALLER_ONLY     // the only argument
#else
#define CUDA_NAME(name) name##_emu
#define CUDA_KIND DEVICE_EMU
#define UNROLL
#define ROLLED
#define CALLER , Place caller = Place::here()
#define CALLER_PASS , caller
#define CALLER_ONLY caller
#endif
#define CUDA_OP(name) extern "C" void CUDA_NAME(name)

// Stream that is current on the device: where launchers put their kernels.
#define device_stream CUDA_NAME(device_stream)
extern "C" cudaStream_t device_stream(Device *dev);

// Dies with EXIT_RESOURCE, the call, its place and what CUDA says.
#define CUDA_CHECK(call) cuda_check(call, #call, __FILE__, __LINE__)
static inline void cuda_check(cudaError_t error, const char *call, const char *file, int line) {
    if (error != cudaSuccess) {
        die(EXIT_RESOURCE, "%s:%d: %s: %s", file, line, call, cudaGetErrorString(error));
    }
}

// ---- launching ----
// LAUNCH((kernel<float, 64>), grid, block, dynamic shared bytes, stream, arguments...);
// More than 48 KB of dynamic shared memory must be allowed first: SMEM_ALLOW((kernel<...>), bytes).
#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, smem, stream, ...)                                             \
    do {                                                                                           \
        kernel<<<grid, block, smem, stream>>>(__VA_ARGS__);                                        \
        cuda_check(cudaGetLastError(), #kernel, __FILE__, __LINE__);                               \
    } while (0)
#endif
#define SMEM_ALLOW(kernel, bytes)                                                                  \
    CUDA_CHECK(cudaFuncSetAttribute((const void *)kernel,                                          \
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

// Runs a statement with T the element type of t:
// FOR_DTYPE(t, T, LAUNCH((kernel<T>), grid, block, 0, stream, ...));
#define FOR_DTYPE(t, T, ...)                                                                       \
    do {                                                                                           \
        if ((t) == DT_F32) {                                                                       \
            using T = float;                                                                       \
            __VA_ARGS__;                                                                           \
        } else if ((t) == DT_BF16) {                                                               \
            using T = bf16;                                                                        \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            using T = f16;                                                                         \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

#define WARP 32          // lanes
#define GRID_MOST 65535u // blocks; enough for every card, and the stride loop takes the rest

// Blocks for one thread per element; what lies behind GRID_MOST is the business of GRID_STRIDE.
static inline unsigned grid_for(size_t n, unsigned block) {
    const size_t blocks = (n + block - 1) / block;
    return blocks < GRID_MOST ? (unsigned)blocks : GRID_MOST;
}
// for each i < n of this thread, whatever the size of the grid.
#define GRID_STRIDE(i, n)                                                                          \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                        \
         i += (size_t)gridDim.x * blockDim.x)

// ---- shared memory ----
// SMEM_STATIC(tile, float, [32][33]); declares float tile[32][33], one per block.
// SMEM_CARVER(carver); SMEM_TAKE(carver, rows, float, count, 16); declares float *rows: the next
// count elements of the dynamic shared memory, at a multiple of that many bytes (a power of two).
// All threads take the same parts in the same order. The launch gives the sum of the parts, each
// rounded up to its alignment.
#ifdef __CUDACC__
#define SMEM_STATIC(name, T, dims) __shared__ T name dims
#define SMEM_CARVER(carver)                                                                        \
    extern __shared__ __align__(1024) unsigned char smem_dynamic[];                                \
    unsigned char *carver = smem_dynamic
#define SMEM_TAKE(carver, name, T, count, align)                                                   \
    T *name = (T *)smem_take(&carver, sizeof(T) * (count), align)
static __device__ inline void *smem_take(unsigned char **carver, size_t bytes, unsigned align) {
    unsigned char *part = *carver + (0u - smem_u32(*carver)) % align;
    *carver = part + bytes;
    return part;
}
#endif

// ---- elements ----
// Widening is exact; narrowing rounds to nearest, ties to even.
static __device__ inline float to_float(float x) { return x; }
static __device__ inline float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
static __device__ inline float to_float(f16 x) { return float_of_f16(x.bits); }
template <typename T> static __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return {bf16_of_float(x)}; }
template <> __device__ inline f16 from_float<f16>(float x) { return {f16_of_float(x)}; }
// Two elements of 16 bits in one register, low first; rounded by one instruction.
template <typename T> static __device__ inline uint32_t pair_of(float low, float high);
template <> __device__ inline uint32_t pair_of<bf16>(float low, float high) {
    return bf16x2_of_floats(low, high);
}
template <> __device__ inline uint32_t pair_of<f16>(float low, float high) {
    return f16x2_of_floats(low, high);
}

// 16 bytes of elements, widened. Memory is touched by one access, at a multiple of 16 bytes.
template <typename T> struct Pack {
    enum { N = 16 / sizeof(T) };
    float at[N];
};
template <typename T> static __device__ inline Pack<T> pack_of(uint4 bits) {
    const uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
    Pack<T> pack;
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) {
            pack.at[i] = __uint_as_float(word[i]);
        } else {
            pack.at[2 * i] = to_float(T{(uint16_t)word[i]});
            pack.at[2 * i + 1] = to_float(T{(uint16_t)(word[i] >> 16)});
        }
    }
    return pack;
}
template <typename T> static __device__ inline Pack<T> pack_load(const T *from) {
    return pack_of<T>(ld16(from));
}
template <typename T> static __device__ inline void pack_store(T *to, const Pack<T> &pack) {
    uint32_t word[4];
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) {
            word[i] = __float_as_uint(pack.at[i]);
        } else {
            word[i] = pair_of<T>(pack.at[2 * i], pack.at[2 * i + 1]);
        }
    }
    st16(to, make_uint4(word[0], word[1], word[2], word[3]));
}
// Whether packs may be used on a tensor from its first element on.
static inline bool is_packable(const void *tensor) { return (uintptr_t)tensor % 16 == 0; }

// ---- reductions ----
// Butterflies over the lane's number, 16 first: a fixed order, and every lane gets the result.
// All 32 lanes of the warp take part.
template <typename F> static __device__ inline float warp_reduce(float x, F join CALLER) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int step = WARP / 2; step > 0; step /= 2) {
        x = join(x, __shfl_xor_sync(0xffffffffu, x, step, WARP CALLER_PASS));
    }
    return x;
}
struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
static __device__ inline float warp_sum(float x CALLER) {
    return warp_reduce(x, Sum() CALLER_PASS);
}
static __device__ inline float warp_max(float x CALLER) {
    return warp_reduce(x, Max() CALLER_PASS);
}

// Over all threads of a block whose blockDim.x is a multiple of 32 (and y, z 1): lanes, then warps,
// in butterflies; every thread gets the result. Contains two barriers. `empty` changes no result
// (0, or -inf).
template <typename F>
static __device__ inline float block_reduce(float x, F join, float empty CALLER) {
    SMEM_STATIC(part, float, [WARP]);
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_reduce(x, join CALLER_PASS);
    __syncthreads(CALLER_ONLY); // the readers of the last call are done with part
    if (lane == 0) {
        part[warp] = x;
    }
    __syncthreads(CALLER_ONLY); // part is whole
    return warp_reduce(lane < blockDim.x / WARP ? part[lane] : empty, join CALLER_PASS);
}
static __device__ inline float block_sum(float x CALLER) {
    return block_reduce(x, Sum(), 0.0f CALLER_PASS);
}
static __device__ inline float block_max(float x CALLER) {
    return block_reduce(x, Max(), -INFINITY CALLER_PASS);
}
#endif
