// image_resize_parts: filters and tables of weights, one text for the CPU and for CUDA kernels.
// Private to image_resize.*.
#ifndef JOMED_KERNELS_IMAGE_RESIZE_PARTS_H
#define JOMED_KERNELS_IMAGE_RESIZE_PARTS_H

#include <math.h>

#include "base.h"
#include "image_resize.h"

#define WEIGHT_BITS 22 // 32 - 8 bits of a sample - 2 bits of headroom for overshoot

// ---- filters ----
static inline HOST_DEVICE double radius_of(ResizeFilter filter) {
    return filter == RESIZE_BICUBIC ? 2.0 : 1.0;
}

// The forms of the polynomials are Pillow's: another grouping rounds differently.
static inline HOST_DEVICE double filter_value(ResizeFilter filter, double x) {
    const double A = -0.5;
    x = fabs(x);
    if (filter == RESIZE_BILINEAR) {
        return x < 1.0 ? 1.0 - x : 0.0;
    }
    if (x < 1.0) {
        return ((A + 2.0) * x - (A + 3.0)) * x * x + 1;
    }
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * A : 0.0;
}

// ---- table of weights of one axis ----
typedef struct {
    int taps;         // most inputs one output may take
    int32_t *first;   // (n) first input of each output
    int32_t *count;   // (n) how many
    int32_t *weights; // (n,taps)
} Axis;

static inline HOST_DEVICE int axis_taps(int m, int n, ResizeFilter filter) {
    const double scale = (double)m / n;
    return 2 * (int)ceil(radius_of(filter) * (scale > 1.0 ? scale : 1.0)) + 1;
}

static inline HOST_DEVICE size_t axis_words(int m, int n, ResizeFilter filter) {
    return filter == RESIZE_NEAREST ? (size_t)n
           : m == n                 ? 0
                                    : (size_t)n * ((size_t)axis_taps(m, n, filter) + 2);
}

static inline HOST_DEVICE Axis axis_at(int32_t *words, int m, int n, ResizeFilter filter) {
    Axis axis;
    axis.taps = axis_taps(m, n, filter);
    axis.first = words;
    axis.count = words + n;
    axis.weights = words + 2 * (size_t)n;
    return axis;
}

// Fills the entry of output i.
static inline HOST_DEVICE void axis_fill(const Axis *axis, int i, int m, int n,
                                         ResizeFilter filter) {
    const double scale = (double)m / n, widen = scale > 1.0 ? scale : 1.0;
    const double radius = radius_of(filter) * widen, narrow = 1.0 / widen;
    const double centre = (i + 0.5) * scale;
    const int low = (int)(centre - radius + 0.5), high = (int)(centre + radius + 0.5);
    const int first = low > 0 ? low : 0, last = high < m ? high : m;
    double sum = 0;
    for (int k = 0; k < last - first; k++) {
        sum += filter_value(filter, (k + first - centre + 0.5) * narrow);
    }
    int32_t *weights = axis->weights + (size_t)i * (size_t)axis->taps;
    for (int k = 0; k < last - first; k++) {
        double w = filter_value(filter, (k + first - centre + 0.5) * narrow);
        w = sum != 0.0 ? w / sum : w;
        const double scaled = w * (1 << WEIGHT_BITS);
        weights[k] = (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    axis->first[i] = first;
    axis->count[i] = last - first;
}

static inline HOST_DEVICE void nearest_fill(int32_t *index, int m, int n) {
    const double scale = (double)m / n;
    double at = 0.5 * scale;
    for (int i = 0; i < n; i++, at += scale) {
        index[i] = (int32_t)at;
    }
}

static inline HOST_DEVICE uint8_t round_clamp(int32_t sum) {
    const int32_t v = sum >> WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

#endif
