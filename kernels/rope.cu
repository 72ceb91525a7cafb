// rope: rotary position embeddings on CUDA; see rope.h.
//
// The host takes the frequencies (rope_parts.h), so that both backends have the same; the device's
// cos and sin of f64 differ from the host's in their last bit at most, which the rounding to f32
// hides but for one value in 2^28. A row turns in one block: it must first know whether its whole
// table is the identity, which keeps every bit of the row.
//
//   version       idea                 shape  time                  % of peak bandwidth
//   table1        one pair per thread  -      not yet run on a GPU  -
//   rope_kernel1  one row per block    -      not yet run on a GPU  -
#include "rope.h"

#include "cuda_common.cuh"
#include "rope_parts.h"

static const int BLOCK = 128;

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

// Pair j of a head is (x[j*step], x[j*step + apart]); sign -1 turns backwards.
// Launch: N blocks of BLOCK threads. No shared memory.
template <typename T>
static __global__ void rope_kernel1(T *x, const float *cosine, const float *sine, int H, int D,
                                    int stride, RopePairing pairing, float sign) {
    const int pairs = D / 2, step = pairing == ROPE_HALF ? 1 : 2;
    const int apart = pairing == ROPE_HALF ? pairs : 1;
    const float *c = cosine + (size_t)blockIdx.x * pairs, *s = sine + (size_t)blockIdx.x * pairs;
    bool is_identity = true;
    for (int j = threadIdx.x; j < pairs; j += BLOCK) {
        is_identity = is_identity && c[j] == 1.0f && s[j] == 0.0f;
    }
    if (__syncthreads_and(is_identity)) {
        return; // position 0 leaves every bit alone: -0 * 1 + 0 would become +0
    }
    for (int i = threadIdx.x; i < H * pairs; i += BLOCK) {
        const int j = i % pairs;
        T *first = x + (size_t)blockIdx.x * stride + (size_t)(i / pairs) * D + j * step;
        const float a = to_float(first[0]), b = to_float(first[apart]), by = sign * s[j];
        first[0] = from_float<T>(fmaf(a, c[j], -(b * by)));
        first[apart] = from_float<T>(fmaf(b, c[j], a * by));
    }
}

static void rotate(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                   int H, int D, int stride, RopePairing pairing, float sign) {
    CHECK(N >= 1 && H >= 1 && D >= 2 && D <= ROPE_MAX_D && D % 2 == 0 && stride >= H * D,
          "N=%d H=%d D=%d stride=%d", N, H, D, stride);
    FOR_DTYPE(t, T, LAUNCH((rope_kernel1<T>), N, BLOCK, 0, device_stream(dev), (T *)x, cosine,
                           sine, H, D, stride, pairing, sign));
}

CUDA_OP(rope_table)(Device *dev, float *cosine, float *sine, const int32_t *positions, int N,
                    int D, RopeLayout layout, double theta, const int *sections) {
    CHECK(N >= 1, "N=%d", N);
    RopeFrequencies of;
    rope_frequencies(&of, D, layout, theta, sections);
    const size_t n = (size_t)N * (D / 2);
    LAUNCH(rope_table_kernel1, grid_for(n, BLOCK), BLOCK, 0, device_stream(dev), cosine, sine,
           positions, n, N, D / 2, of);
}

CUDA_OP(rope_fwd)(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    rotate(dev, t, x, cosine, sine, N, H, D, stride, pairing, 1.0f);
}

CUDA_OP(rope_bwd)(Device *dev, DType t, void *dx, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    rotate(dev, t, dx, cosine, sine, N, H, D, stride, pairing, -1.0f);
}
