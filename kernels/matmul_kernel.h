// matmul_kernel: the innermost loops of matmul, one set per instruction set, and the choice among
// them.
//
// A tile of C, at most `rows` x `columns`, stays in registers while the reduction runs; every
// element is one chain of fused multiply-adds over l ascending, so all sets give the same bits and
// a chain may be cut anywhere and taken up again from the f32 stored. Vectors lie across columns,
// never across l.
#ifndef JOMED_KERNELS_MATMUL_KERNEL_H
#define JOMED_KERNELS_MATMUL_KERNEL_H

#include <stddef.h>

#define MATMUL_MAX_ROWS 14
#define MATMUL_MAX_COLUMNS 32

// c[i,j] = start[i,j] + sum_l a[i,l] b[l,j]    for i < rows and every column j of the tile
//   a[i,l] at a[i*a_row + l*a_inner]; b[l,j] at b[l*b_inner + j]; start and c by their row strides,
//   columns adjacent. start may be c; nothing else aliases. 1 <= rows <= kernel's, depth >= 1.
typedef void matmul_tile_fn(int rows, int depth, const float *a, size_t a_row, size_t a_inner,
                            const float *b, size_t b_inner, const float *start, size_t start_row,
                            float *c, size_t c_row);

// out[l*columns + j] = b[j*b_row + l]    for l < depth, j < columns: a panel from `columns` rows.
typedef void matmul_panel_fn(float *out, const float *b, size_t b_row, int depth);

// out[l*rows + i] = a[l*a_inner + i]    for l < depth, i < rows: rows of A side by side, a tile
// high.
typedef void matmul_slab_fn(float *out, const float *a, size_t a_inner, int depth);

typedef struct {
    const char *name;
    int rows, columns; // of a whole tile
    matmul_tile_fn *tile;
    matmul_panel_fn *panel;
    matmul_slab_fn *slab;
} MatmulKernel;

// The kernels this CPU can run, best first; the array ends with a NULL. matmul_kernels()[0] is
// used.
const MatmulKernel *const *matmul_kernels(void);

#endif
