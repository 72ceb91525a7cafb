// rope: rotary position embeddings on CUDA; see rope.h.
//
// The host takes the frequencies (rope_parts.h), so that both backends have the same; the device's
// cos and sin of f64 differ from the host's in their last bit at most, which the rounding to f32
// hides but for one value in 2^28. Who turns a row must first know whether its whole table is the
// identity, which keeps every bit of the row: so a row belongs to one warp, which reads the table
// first (it needs it anyway) and votes. In place: an element is read and written once, by one lane.
// Both pairings at 16 bytes: with halves a lane takes a pack of first elements and that of their
// partners, else one pack with whole pairs in it.
//
// A forward's queries and keys mostly do not come here: products turn them before they store them
// (EPILOGUE_ROPE in matmul.h), which spares reading and writing them once more. What is left are
// gradients, and heads that straddle the tiles of a product (matmul.cu says which).
//
//   version       idea                        shape  time                  % of peak bandwidth
//   table1        one pair per thread         -      not yet run on a GPU  -
//   rope_kernel1  one row per warp, by pairs  -      not yet run on a GPU  -
//   rope_kernel2  the same, 16 bytes          -      not yet run on a GPU  -
#include "rope.h"

#include "cuda_common.cuh"
#include "rope_parts.h"

static const int BLOCK = 128;
static const int ROWS = BLOCK / WARP; // of a block

// Launch: any grid, BLOCK threads. No shared memory.
static __global__ void rope_table_kernel1(float *cosine, float *sine, const int32_t *positions,
                                          size_t n, int N, int pairs, RopeFrequencies of) {
    GRID_STRIDE(i, n) {
        const int j = (int)(i % pairs);
        const double angle = positions[(size_t)of.axis[j] * N + i / pairs] * of.freq[j];
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
}

// All lanes: whether the row's table is the identity. Then every bit is left alone.
static __device__ inline bool is_identity(const float *c, const float *s, int pairs) {
    bool is_one = true;
    for (int j = threadIdx.x % WARP; j < pairs; j += WARP) {
        is_one = is_one && c[j] == 1.0f && s[j] == 0.0f;
    }
    return __all_sync(0xffffffffu, is_one);
}

// Pair j of a head is (x[j*step], x[j*step + apart]); sign -1 turns backwards.
// Launch: ceil(N/ROWS) blocks of BLOCK threads. No shared memory.
template <typename T>
static __global__ void rope_kernel1(T *x, const float *cosine, const float *sine, int N, int H,
                                    int D, int stride, RopePairing pairing, float sign) {
    const int pairs = D / 2, step = pairing == ROPE_HALF ? 1 : 2;
    const int apart = pairing == ROPE_HALF ? pairs : 1;
    const int n = blockIdx.x * ROWS + threadIdx.x / WARP;
    const float *c = cosine + (size_t)n * pairs, *s = sine + (size_t)n * pairs;
    if (n >= N || is_identity(c, s, pairs)) {
        return; // whole warps; no barrier follows
    }
    for (int i = threadIdx.x % WARP; i < H * pairs; i += WARP) {
        const int j = i % pairs;
        T *first = x + (size_t)n * stride + (size_t)(i / pairs) * D + j * step;
        const float a = to_float(first[0]), b = to_float(first[apart]), by = sign * s[j];
        first[0] = from_float<T>(rope_turned(a, b, c[j], -by));
        first[apart] = from_float<T>(rope_turned(b, a, c[j], by));
    }
}

// E values of a table from place j on: f32 packs, or with one pair per 16 bytes a few numbers.
template <int E> static __device__ inline void table_load(float (&out)[E], const float *from) {
    if constexpr (E % 4 == 0) {
        UNROLL
        for (int q = 0; q < E / 4; q++) {
            const Pack<float> pack = pack_load(from + 4 * q);
            UNROLL
            for (int i = 0; i < 4; i++) {
                out[4 * q + i] = pack.at[i];
            }
        }
    } else {
        UNROLL
        for (int i = 0; i < E; i++) {
            out[i] = from[i];
        }
    }
}

// Every head and every row begins at a multiple of 16 bytes; with halves, the second half too.
// Launch: as version 1.
template <typename T, bool IS_HALF>
static __global__ void rope_kernel2(T *x, const float *cosine, const float *sine, int N, int H,
                                    int D, int stride, float sign) {
    const int E = Pack<T>::N, PAIRS = IS_HALF ? E : E / 2; // pairs of a turn
    const int pairs = D / 2, turns = pairs / PAIRS;        // of a head
    const int n = blockIdx.x * ROWS + threadIdx.x / WARP;
    const float *c = cosine + (size_t)n * pairs, *s = sine + (size_t)n * pairs;
    if (n >= N || is_identity(c, s, pairs)) {
        return; // whole warps; no barrier follows
    }
    for (int i = threadIdx.x % WARP; i < H * turns; i += WARP) {
        const int j = i % turns * PAIRS;
        T *at = x + (size_t)n * stride + (size_t)(i / turns) * D + (IS_HALF ? j : 2 * j);
        float cos_at[PAIRS], sin_at[PAIRS];
        table_load(cos_at, c + j);
        table_load(sin_at, s + j);
        Pack<T> first = pack_load(at), second = first;
        if (IS_HALF) {
            second = pack_load(at + pairs);
        }
        UNROLL
        for (int p = 0; p < PAIRS; p++) {
            float &a = first.at[IS_HALF ? p : 2 * p];
            float &b = IS_HALF ? second.at[p] : first.at[2 * p + 1];
            const float old = a, by = sign * sin_at[p];
            a = rope_turned(old, b, cos_at[p], -by);
            b = rope_turned(b, old, cos_at[p], by);
        }
        pack_store(at, first);
        if (IS_HALF) {
            pack_store(at + pairs, second);
        }
    }
}

template <typename T>
static void launch(Device *dev, T *x, const float *cosine, const float *sine, int N, int H, int D,
                   int stride, RopePairing pairing, float sign) {
    const int E = Pack<T>::N, grid = (N + ROWS - 1) / ROWS;
    const cudaStream_t stream = device_stream(dev);
    // Half a head in whole packs also makes the rows of the tables begin at multiples of 16 bytes.
    const bool has_packs = D / 2 % E == 0 && stride % E == 0 && is_packable(x) &&
                           is_packable(cosine) && is_packable(sine);
    if (has_packs && pairing == ROPE_HALF) {
        LAUNCH((rope_kernel2<T, true>), grid, BLOCK, 0, stream, x, cosine, sine, N, H, D, stride,
               sign);
    } else if (has_packs) {
        LAUNCH((rope_kernel2<T, false>), grid, BLOCK, 0, stream, x, cosine, sine, N, H, D, stride,
               sign);
    } else {
        LAUNCH((rope_kernel1<T>), grid, BLOCK, 0, stream, x, cosine, sine, N, H, D, stride,
               pairing, sign);
    }
}

static void rotate(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                   int H, int D, int stride, RopePairing pairing, float sign) {
    CHECK(N >= 1 && H >= 1 && D >= 2 && D <= ROPE_MAX_D && D % 2 == 0 && stride >= H * D,
          "N=%d H=%d D=%d stride=%d", N, H, D, stride);
    FOR_DTYPE(t, T, launch(dev, (T *)x, cosine, sine, N, H, D, stride, pairing, sign));
}

CUDA_OP(rope_table)(Device *dev, float *cosine, float *sine, const int32_t *positions, int N,
                    int D, RopeLayout layout, double theta, const int *sections) {
    CHECK_POINTERS(rope_table, cosine, sine, positions);
    CHECK(N >= 1, "N=%d", N);
    RopeFrequencies of;
    rope_frequencies(&of, D, layout, theta, sections);
    const size_t n = (size_t)N * (D / 2);
    LAUNCH(rope_table_kernel1, grid_for(n, BLOCK), BLOCK, 0, device_stream(dev), cosine, sine,
           positions, n, N, D / 2, of);
}

CUDA_OP(rope_fwd)(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    CHECK_POINTERS(rope_fwd, x, cosine, sine);
    rotate(dev, t, x, cosine, sine, N, H, D, stride, pairing, 1.0f);
}

CUDA_OP(rope_bwd)(Device *dev, DType t, void *dx, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    CHECK_POINTERS(rope_bwd, dx, cosine, sine);
    rotate(dev, t, dx, cosine, sine, N, H, D, stride, pairing, -1.0f);
}
