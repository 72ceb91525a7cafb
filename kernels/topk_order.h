// topk_order: the order in which topk on CUDA takes the tiles of an index.
//
// Steps of about the golden section of the number of tiles, and prime to it: every beginning of the
// order is spread evenly over the index, wherever rows of one kind lie together in it. Tile 0 comes
// first, which settles ties among rows that are all equal. Beside the kernels so that a test can
// make the index on which this order is the worst.
#ifndef JOMED_KERNELS_TOPK_ORDER_H
#define JOMED_KERNELS_TOPK_ORDER_H

#include <stdint.h>

#include "base.h"

static inline int topk_step(int tiles) {
    for (int step = (int)(0.6180339887498949 * tiles) + 1;; step++) {
        int a = step, b = tiles; // their greatest common divisor, by Euclid
        while (b > 0) {
            const int rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) {
            return step;
        }
    }
}

// The j-th tile, 0 <= j < tiles; step = topk_step(tiles).
static inline HOST_DEVICE int topk_tile(int j, int tiles, int step) {
    return (int)((int64_t)j * step % tiles);
}

#endif
