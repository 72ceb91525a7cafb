// matmul_sm90: the bf16 products of matmul.cu on Hopper's own instructions. Only for matmul.cu.
#ifndef JOMED_KERNELS_MATMUL_SM90_CUH
#define JOMED_KERNELS_MATMUL_SM90_CUH

#include "matmul_parts.cuh"

// One product of bf16 operands, into bf16 or f32. a_mn, b_mn: the operand's neighbours in memory
// are neighbours in the kept index, not in the reduction: (false, false) is fwd, (false, true)
// bwd_input, (true, true) bwd_weight, whose c is f32 and accumulates. Operands begin at multiples
// of 16 bytes, their rows too. Only where device_arch is 90.
#define matmul_sm90 CUDA_NAME(matmul_sm90)
extern "C" void matmul_sm90(Device *dev, const Product &p, bool a_mn, bool b_mn);
// How many parts of the reduction a bwd_weight has sums of in scratch memory, (rows,columns) f32
// each; 1: none.
#define matmul_sm90_splits CUDA_NAME(matmul_sm90_splits)
extern "C" int matmul_sm90_splits(const Product &p);
#endif
