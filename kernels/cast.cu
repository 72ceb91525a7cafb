// cast: CUDA; see cast.h.
//
// Every bf16 and every f16 is an f32, so that going through f32 rounds once. Equal types are a copy
// of bytes: a signalling NaN stays one.
//
//   version  idea                          shape  time                  % of peak bandwidth
//   kernel1  one element per thread        -      not yet run on a GPU  -
//   kernel2  eight per thread, 16 bytes    -      not yet run on a GPU  -
#include "cast.h"

#include "cuda_common.cuh"

// Launches: any grid, BLOCK threads. No shared memory.
static const int BLOCK = 256;
static const int EACH = 8; // elements of a thread and turn: one or two packs of either type

template <typename To, typename From>
static __global__ void cast_kernel1(To *out, const From *inp, size_t n) {
    GRID_STRIDE(i, n) { out[i] = from_float<To>(to_float(inp[i])); }
}

// n turns; both tensors at multiples of 16 bytes.
template <typename To, typename From>
static __global__ void cast_kernel2(To *out, const From *inp, size_t n) {
    const int E_IN = Pack<From>::N, E_OUT = Pack<To>::N;
    GRID_STRIDE(turn, n) {
        const size_t at = turn * EACH;
        float x[EACH];
        UNROLL
        for (int k = 0; k < EACH / E_IN; k++) {
            const Pack<From> pack = pack_load(inp + at + k * E_IN);
            UNROLL
            for (int e = 0; e < E_IN; e++) {
                x[k * E_IN + e] = pack.at[e];
            }
        }
        UNROLL
        for (int k = 0; k < EACH / E_OUT; k++) {
            Pack<To> pack;
            UNROLL
            for (int e = 0; e < E_OUT; e++) {
                pack.at[e] = x[k * E_OUT + e];
            }
            pack_store(out + at + k * E_OUT, pack);
        }
    }
}

template <typename To, typename From>
static void launch(Device *dev, To *out, const From *inp, size_t n) {
    const size_t turns = is_packable(out) && is_packable(inp) ? n / EACH : 0, done = turns * EACH;
    const cudaStream_t stream = device_stream(dev);
    if (turns) {
        LAUNCH((cast_kernel2<To, From>), grid_for(turns, BLOCK), BLOCK, 0, stream, out, inp, turns);
    }
    if (done < n) {
        LAUNCH((cast_kernel1<To, From>), grid_for(n - done, BLOCK), BLOCK, 0, stream, out + done,
               inp + done, n - done);
    }
}

CUDA_OP(cast)(Device *dev, DType to, void *out, DType from, const void *inp, size_t n) {
    CHECK_POINTERS(cast, out, inp);
    if (to == from) {
        if (out != inp) {
            device_copy(dev, out, inp, n * dtype_size(to));
        }
        return;
    }
    FOR_DTYPE(to, To, FOR_DTYPE(from, From, launch(dev, (To *)out, (const From *)inp, n)));
}
