// matmul_parts: what the CUDA kernels of matmul share.
#ifndef JOMED_KERNELS_MATMUL_PARTS_CUH
#define JOMED_KERNELS_MATMUL_PARTS_CUH

#include "cuda_common.cuh"

// One product. Strides count elements; one of each operand's two is 1.
typedef struct {
    const void *a, *b, *bias; // bias: (columns) or NULL
    void *c;                  // (rows, columns)
    size_t a_row, a_inner, b_inner, b_column;
    int rows, columns, depth;
    bool is_accumulated;
} Product;
#endif
