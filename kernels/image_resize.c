// image_resize on the CPU; the equations are in image_resize.h.
//
// The weights of an axis are tabled once in scratch. Integer sums are exact in any order, so the
// vertical pass runs over whole rows (vectorised) and rows go to threads, without changing a bit.
#include "image_resize.h"

#include <stdbool.h>
#include <string.h>

#include "base.h"
#include "image_resize_parts.h"

#define GROUP 4               // channels summed together at most
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
// G neighbouring channels of one row of n pixels from one of m, pixels C samples apart. G is a
// constant where this is inlined, so the sums are registers.
static inline __attribute__((always_inline)) void row_pass(uint8_t *out, const uint8_t *inp,
                                                           const Axis *axis, int n, int C, int G) {
    for (int i = 0; i < n; i++) {
        const int32_t *weights = axis->weights + (size_t)i * (size_t)axis->taps;
        const uint8_t *from = inp + (size_t)axis->first[i] * (size_t)C;
        int32_t sum[GROUP];
        for (int c = 0; c < G; c++) {
            sum[c] = 1 << (WEIGHT_BITS - 1);
        }
        for (int k = 0; k < axis->count[i]; k++, from += C) {
            for (int c = 0; c < G; c++) {
                sum[c] += weights[k] * from[c];
            }
        }
        for (int c = 0; c < G; c++) {
            out[(size_t)i * (size_t)C + (size_t)c] = round_clamp(sum[c]);
        }
    }
}

static void horizontal(uint8_t *out, const uint8_t *inp, const Axis *axis, int H, int W, int n,
                       int C, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int y = 0; y < H; y++) {
        uint8_t *to = out + (size_t)y * (size_t)n * (size_t)C;
        const uint8_t *from = inp + (size_t)y * (size_t)W * (size_t)C;
        switch (C) {
        case 1: row_pass(to, from, axis, n, 1, 1); break;
        case 3: row_pass(to, from, axis, n, 3, 3); break;
        case 4: row_pass(to, from, axis, n, 4, 4); break;
        default:
            for (int c = 0; c < C; c++) {
                row_pass(to + c, from + c, axis, n, C, 1);
            }
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
