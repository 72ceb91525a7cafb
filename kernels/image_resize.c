// image_resize on the CPU; the equations are in image_resize.h.
//
// The weights of an axis are tabled once in scratch. Integer sums are exact in any order, so the
// vertical pass runs over whole rows (vectorised) and rows go to threads, without changing a bit.
#include "image_resize.h"

#include <stdbool.h>
#include <string.h>

#include "base.h"
#include "image_resize_parts.h"

#define STRIP 512             // samples of a row summed at a time in the vertical pass
#define PARALLEL_BYTES 100000 // smaller outputs are not worth waking threads

static Axis axis_new(int32_t *words, int m, int n, ResizeFilter filter) {
    const Axis axis = axis_at(words, m, n, filter);
    for (int i = 0; i < n; i++) {
        axis_fill(&axis, i, m, n, filter);
    }
    return axis;
}

// ---- passes ----
// The samples of a pixel as four lanes, of little-endian bytes: GCC makes scalars of a loop over
// channels, and of a conversion of four bytes too.
typedef int32_t Lanes __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));

static inline Lanes load_pixel(const uint8_t *from, size_t bytes) {
    uint32_t word = 0;
    memcpy(&word, from, bytes);
    return (Lanes)(((Words){word, word, word, word} >> (Words){0, 8, 16, 24}) & 255);
}

// One row of n pixels of C = 3 or 4 channels from one of W. Of three channels four bytes are read,
// the last of which is summed for nothing, up to the last pixel of the row.
static inline __attribute__((always_inline)) void pixel_row(uint8_t *out, const uint8_t *inp,
                                                            const Axis *axis, int W, int n, int C) {
    for (int i = 0; i < n; i++) {
        const int32_t *weights = axis->weights + (size_t)i * (size_t)axis->taps;
        const int first = axis->first[i], count = axis->count[i];
        const int whole = C == 3 && first + count == W ? count - 1 : count;
        const uint8_t *from = inp + (size_t)first * (size_t)C;
        Lanes sum = {0, 0, 0, 0};
        for (int k = 0; k < whole; k++, from += C) {
            sum += weights[k] * load_pixel(from, 4);
        }
        if (whole < count) {
            sum += weights[whole] * load_pixel(from, 3);
        }
        for (int c = 0; c < C; c++) {
            out[(size_t)i * (size_t)C + (size_t)c] =
                round_clamp(sum[c] + (1 << (WEIGHT_BITS - 1)));
        }
    }
}

// Channel by channel.
static void sample_row(uint8_t *out, const uint8_t *inp, const Axis *axis, int n, int C) {
    for (int i = 0; i < n * C; i++) {
        const int32_t *weights = axis->weights + (size_t)(i / C) * (size_t)axis->taps;
        const uint8_t *from = inp + (size_t)axis->first[i / C] * (size_t)C + i % C;
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int k = 0; k < axis->count[i / C]; k++) {
            sum += weights[k] * from[(size_t)k * (size_t)C];
        }
        out[i] = round_clamp(sum);
    }
}

static void horizontal(uint8_t *out, const uint8_t *inp, const Axis *axis, int H, int W, int n,
                       int C, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int y = 0; y < H; y++) {
        uint8_t *to = out + (size_t)y * (size_t)n * (size_t)C;
        const uint8_t *from = inp + (size_t)y * (size_t)W * (size_t)C;
        switch (C) {
        case 1: sample_row(to, from, axis, n, 1); break;
        case 3: pixel_row(to, from, axis, W, n, 3); break;
        case 4: pixel_row(to, from, axis, W, n, 4); break;
        default: sample_row(to, from, axis, n, C);
        }
    }
}

static void vertical(uint8_t *out, const uint8_t *inp, const Axis *axis, int n, size_t row,
                     int threads) {
#pragma omp parallel for num_threads(threads)
    for (int y = 0; y < n; y++) {
        const int32_t *weights = axis->weights + (size_t)y * (size_t)axis->taps;
        const uint8_t *from = inp + (size_t)axis->first[y] * row;
        for (size_t x0 = 0; x0 < row; x0 += STRIP) {
            const int width = row - x0 < STRIP ? (int)(row - x0) : STRIP;
            int32_t sum[STRIP];
            for (int x = 0; x < width; x++) {
                sum[x] = 1 << (WEIGHT_BITS - 1);
            }
            for (int k = 0; k < axis->count[y]; k++) {
                const uint8_t *samples = from + (size_t)k * row + x0;
                const int32_t w = weights[k];
                for (int x = 0; x < width; x++) {
                    sum[x] += w * samples[x];
                }
            }
            for (int x = 0; x < width; x++) {
                out[(size_t)y * row + x0 + (size_t)x] = round_clamp(sum[x]);
            }
        }
    }
}

static void nearest(uint8_t *out, const uint8_t *inp, int32_t *columns, int32_t *rows, int H, int W,
                    int C, int outH, int outW) {
    nearest_fill(columns, W, outW);
    nearest_fill(rows, H, outH);
    for (int y = 0; y < outH; y++) {
        const uint8_t *from = inp + (size_t)rows[y] * (size_t)W * (size_t)C;
        for (int x = 0; x < outW; x++, out += C) {
            memcpy(out, from + (size_t)columns[x] * (size_t)C, (size_t)C);
        }
    }
}

// ---- op ----
size_t image_resize_scratch_bytes(int H, int W, int C, int outH, int outW, ResizeFilter filter) {
    const size_t words = axis_words(W, outW, filter) + axis_words(H, outH, filter);
    const bool has_both = filter != RESIZE_NEAREST && W != outW && H != outH;
    return words * sizeof(int32_t) + (has_both ? (size_t)H * (size_t)outW * (size_t)C : 0);
}

void image_resize_cpu(Device *dev, uint8_t *out, const uint8_t *inp, void *scratch, int H, int W,
                      int C, int outH, int outW, ResizeFilter filter) {
    CHECK_POINTERS(image_resize, out, inp, scratch);
    CHECK(H >= 1 && W >= 1 && C >= 1 && outH >= 1 && outW >= 1, "%d x %d x %d to %d x %d", H, W, C,
          outH, outW);
    int32_t *words = scratch;
    if (filter == RESIZE_NEAREST) {
        nearest(out, inp, words, words + outW, H, W, C, outH, outW);
        return;
    }
    const size_t row = (size_t)outW * (size_t)C;
    if (W == outW && H == outH) {
        memcpy(out, inp, row * (size_t)H);
        return;
    }
    const int threads = row * (size_t)(H + outH) < PARALLEL_BYTES ? 1 : device_threads(dev);
    if (W != outW) {
        const Axis axis = axis_new(words, W, outW, filter);
        words += axis_words(W, outW, filter);
        uint8_t *rows = H == outH ? out : (uint8_t *)(words + axis_words(H, outH, filter));
        horizontal(rows, inp, &axis, H, W, outW, C, threads);
        inp = rows;
    }
    if (H != outH) {
        const Axis axis = axis_new(words, H, outH, filter);
        vertical(out, inp, &axis, outH, row, threads);
    }
}
