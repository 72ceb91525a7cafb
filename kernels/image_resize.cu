// image_resize: Pillow's Image.resize on 8-bit images on CUDA; see image_resize.h.
//
// Tables of weights by the text of the CPU (image_resize_parts.h), one thread per output position
// of an axis, in the caller's scratch; then the passes. The arithmetic of the tables is f64 without
// contraction, that of the passes integer: the bits are Pillow's. Down a picture four neighbours of
// a line have the same weights and are one word; along it they do not, and samples of three colours
// begin at any byte, so that pass stays with version 1.
//
//   version  idea                                  shape  time                  % of peak bandwidth
//   pass1    one sample per thread                 -      not yet run on a GPU  -
//   pass2    four neighbours of a line per thread  -      not yet run on a GPU  -
#include "image_resize.h"

#include "cuda_common.cuh"
#include "image_resize_parts.h"

// Launches: any grid, BLOCK threads; no shared memory.
static const int BLOCK = 256;

static __global__ void resize_axis1(Axis axis, int m, int n, ResizeFilter filter) {
    GRID_STRIDE(i, (size_t)n) { axis_fill(&axis, (int)i, m, n, filter); }
}

// Positions add up one by one, so one thread fills an axis: columns the first block, rows the next.
static __global__ void resize_nearest_axes1(int32_t *columns, int32_t *rows, int H, int W,
                                            int outH, int outW) {
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        nearest_fill(columns, W, outW);
    } else if (threadIdx.x == 0) {
        nearest_fill(rows, H, outH);
    }
}

static __global__ void resize_nearest1(uint8_t *out, const uint8_t *inp, const int32_t *columns,
                                       const int32_t *rows, int W, int C, int outW, size_t n) {
    GRID_STRIDE(i, n) {
        const size_t c = i % C, x = i / C % outW, y = i / C / outW;
        out[i] = inp[((size_t)rows[y] * W + columns[x]) * C + c];
    }
}

// One pass along an axis whose neighbours lie `step` samples apart. A line is m (of the input) or n
// (of the output) positions of the axis, `step` samples each.
static __global__ void resize_pass1(uint8_t *out, const uint8_t *inp, Axis axis, int m, int n,
                                    size_t step, size_t samples) {
    GRID_STRIDE(i, samples) {
        const size_t inside = i % step, at = i / step % n, line = i / step / n;
        const int32_t *weights = axis.weights + at * axis.taps;
        const uint8_t *from = inp + (line * m + axis.first[at]) * step + inside;
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int k = 0; k < axis.count[at]; k++) {
            sum += weights[k] * from[k * step];
        }
        out[i] = round_clamp(sum);
    }
}

// The same where `step` counts words of four neighbours, as does `words`.
static __global__ void resize_pass2(uint32_t *out, const uint32_t *inp, Axis axis, int m, int n,
                                    size_t step, size_t words) {
    GRID_STRIDE(i, words) {
        const size_t inside = i % step, at = i / step % n, picture = i / step / n;
        const int32_t *weights = axis.weights + at * axis.taps;
        const uint32_t *from = inp + (picture * m + axis.first[at]) * step + inside;
        int32_t sum[4];
        UNROLL
        for (int c = 0; c < 4; c++) {
            sum[c] = 1 << (WEIGHT_BITS - 1);
        }
        for (int k = 0; k < axis.count[at]; k++) {
            const uint32_t four = from[k * step];
            UNROLL
            for (int c = 0; c < 4; c++) {
                sum[c] += weights[k] * (int32_t)(four >> 8 * c & 0xff);
            }
        }
        uint32_t four = 0;
        UNROLL
        for (int c = 0; c < 4; c++) {
            four |= (uint32_t)round_clamp(sum[c]) << 8 * c;
        }
        out[i] = four;
    }
}

// Fills the table at words and takes the pass.
static void pass(Device *dev, uint8_t *out, const uint8_t *inp, int32_t *words, int m, int n,
                 size_t step, size_t samples, ResizeFilter filter) {
    const Axis axis = axis_at(words, m, n, filter);
    cudaStream_t stream = device_stream(dev);
    LAUNCH(resize_axis1, grid_for(n, BLOCK), BLOCK, 0, stream, axis, m, n, filter);
    if (step % 4 == 0 && (uintptr_t)out % 4 == 0 && (uintptr_t)inp % 4 == 0) {
        LAUNCH(resize_pass2, grid_for(samples / 4, BLOCK), BLOCK, 0, stream, (uint32_t *)out,
               (const uint32_t *)inp, axis, m, n, step / 4, samples / 4);
        return;
    }
    LAUNCH(resize_pass1, grid_for(samples, BLOCK), BLOCK, 0, stream, out, inp, axis, m, n, step,
           samples);
}

CUDA_OP(image_resize)(Device *dev, uint8_t *out, const uint8_t *inp, void *scratch, int H, int W,
                      int C, int outH, int outW, ResizeFilter filter) {
    CHECK_POINTERS(image_resize, out, inp, scratch);
    CHECK(H >= 1 && W >= 1 && C >= 1 && outH >= 1 && outW >= 1, "%d x %d x %d to %d x %d", H, W, C,
          outH, outW);
    int32_t *words = (int32_t *)scratch;
    const size_t row = (size_t)outW * C;
    cudaStream_t stream = device_stream(dev);
    if (filter == RESIZE_NEAREST) {
        LAUNCH(resize_nearest_axes1, 2, WARP, 0, stream, words, words + outW, H, W, outH, outW);
        LAUNCH(resize_nearest1, grid_for(row * outH, BLOCK), BLOCK, 0, stream, out, inp, words,
               words + outW, W, C, outW, row * outH);
        return;
    }
    if (W == outW && H == outH) {
        device_copy(dev, out, inp, row * H);
        return;
    }
    if (W != outW) {
        int32_t *table = words;
        words += axis_words(W, outW, filter);
        uint8_t *rows = H == outH ? out : (uint8_t *)(words + axis_words(H, outH, filter));
        pass(dev, rows, inp, table, W, outW, C, row * H, filter);
        inp = rows;
    }
    if (H != outH) {
        pass(dev, out, inp, words, H, outH, row, row * outH, filter);
    }
}
