// rope: rotary position embeddings on the CPU; the contract is in rope.h.
//
// The table is made once per batch and shared by all layers, so its sines may be slow; the rotation
// is bound by memory. Heads of 16-bit rows are widened into a small buffer, turned, and rounded
// once.
#include "rope.h"

#include <math.h>
#include <stdbool.h>

#include "base.h"
#include "rope_parts.h"

// Elements turned, or sines taken; below, waking the threads costs more than it gains.
#define PARALLEL_FROM       ((size_t)1 << 17)
#define PARALLEL_SINES_FROM ((size_t)1 << 13)

// ---- the table ----
// Frequency of pair j, and in *axis which position it takes.
static double frequency(int j, int D, RopeLayout layout, double theta, const int *sections,
                        int *axis) {
    const int quarter = D / 4;
    const bool is_column = j >= quarter;
    switch (layout) {
    case ROPE_1D:
        *axis = 0;
        return pow(theta, -2.0 * j / D);
    case ROPE_2D_HALVES:
        *axis = is_column;
        return pow(theta, -2.0 * (j - (is_column ? quarter : 0)) / (D / 2));
    case ROPE_2D_ALTERNATE:
        *axis = is_column;
        return pow(theta, -(is_column ? 4.0 * (j - quarter) + 2.0 : 4.0 * j) / D);
    case ROPE_M:
        *axis = (j >= sections[0]) + (j >= sections[0] + sections[1]);
        return pow(theta, -2.0 * j / D);
    default: CHECK(false, "layout=%d", (int)layout);
    }
}

void rope_frequencies(RopeFrequencies *out, int D, RopeLayout layout, double theta,
                      const int *sections) {
    CHECK(D >= 2 && D <= ROPE_MAX_D && D % 2 == 0, "D=%d", D);
    CHECK((layout != ROPE_2D_HALVES && layout != ROPE_2D_ALTERNATE) || D % 4 == 0, "D=%d", D);
    if (layout == ROPE_M) {
        CHECK_POINTERS(rope_table, sections);
        CHECK(sections[0] + sections[1] + sections[2] == D / 2, "sections %d %d %d, D=%d",
              sections[0], sections[1], sections[2], D);
    }
    for (int j = 0; j < D / 2; j++) {
        out->freq[j] = frequency(j, D, layout, theta, sections, &out->axis[j]);
    }
}

void rope_table_cpu(Device *dev, float *cosine, float *sine, const int32_t *positions, int N, int D,
                    RopeLayout layout, double theta, const int *sections) {
    CHECK_POINTERS(rope_table, cosine, sine, positions);
    CHECK(N >= 1, "N=%d", N);
    RopeFrequencies of;
    rope_frequencies(&of, D, layout, theta, sections);
    const int pairs = D / 2;
    const int threads = (size_t)N * pairs < PARALLEL_SINES_FROM ? 1 : device_threads(dev);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int n = 0; n < N; n++) {
        for (int j = 0; j < pairs; j++) {
            const double angle = positions[(size_t)of.axis[j] * N + n] * of.freq[j];
            cosine[(size_t)n * pairs + j] = (float)cos(angle);
            sine[(size_t)n * pairs + j] = (float)sin(angle);
        }
    }
}

// ---- the rotation ----
// Rows of position 0 are passed over.
static bool is_identity(const float *cosine, const float *sine, int pairs) {
    for (int j = 0; j < pairs; j++) {
        if (cosine[j] != 1.0f || sine[j] != 0.0f) {
            return false;
        }
    }
    return true;
}

static void rotate_head(float *__restrict__ x, const float *__restrict__ cosine,
                        const float *__restrict__ sine, int pairs, RopePairing pairing,
                        float sign) {
    if (pairing == ROPE_HALF) {
        float *__restrict__ y = x + pairs;
        for (int j = 0; j < pairs; j++) {
            const float a = x[j], b = y[j], c = cosine[j], s = sign * sine[j];
            x[j] = rope_turned(a, b, c, -s);
            y[j] = rope_turned(b, a, c, s);
        }
    } else {
        for (int j = 0; j < pairs; j++) {
            const float a = x[2 * j], b = x[2 * j + 1], c = cosine[j], s = sign * sine[j];
            x[2 * j] = rope_turned(a, b, c, -s);
            x[2 * j + 1] = rope_turned(b, a, c, s);
        }
    }
}

void rope_turn_heads(float *x, const float *cosine, const float *sine, int H, int D,
                     RopePairing pairing, float sign) {
    for (int h = 0; h < H; h++) {
        rotate_head(x + h * D, cosine, sine, D / 2, pairing, sign);
    }
}

static void rotate(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                   int H, int D, int stride, RopePairing pairing, float sign) {
    CHECK(N >= 1 && H >= 1 && D >= 2 && D <= ROPE_MAX_D && D % 2 == 0 && stride >= H * D,
          "N=%d H=%d D=%d stride=%d", N, H, D, stride);
    const int pairs = D / 2;
    const int threads = (size_t)N * H * D < PARALLEL_FROM ? 1 : device_threads(dev);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int n = 0; n < N; n++) {
        const float *c = cosine + (size_t)n * pairs, *s = sine + (size_t)n * pairs;
        if (is_identity(c, s, pairs)) {
            continue;
        }
        for (int h = 0; h < H; h++) {
            void *head = dtype_at(t, x, (size_t)n * stride + (size_t)h * D);
            if (t == DT_F32) {
                rotate_head(head, c, s, pairs, pairing, sign);
            } else {
                float wide[ROPE_MAX_D];
                dtype_widen(wide, t, head, (size_t)D);
                rotate_head(wide, c, s, pairs, pairing, sign);
                dtype_narrow(t, head, wide, (size_t)D);
            }
        }
    }
}

void rope_fwd_cpu(Device *dev, DType t, void *x, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    CHECK_POINTERS(rope_fwd, x, cosine, sine);
    rotate(dev, t, x, cosine, sine, N, H, D, stride, pairing, 1.0f);
}

void rope_bwd_cpu(Device *dev, DType t, void *dx, const float *cosine, const float *sine, int N,
                  int H, int D, int stride, RopePairing pairing) {
    CHECK_POINTERS(rope_bwd, dx, cosine, sine);
    rotate(dev, t, dx, cosine, sine, N, H, D, stride, pairing, -1.0f);
}
