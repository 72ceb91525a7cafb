// ptx: every machine instruction the kernels name, one small function each; no asm elsewhere.
//
// Here are the nvcc bodies and the contracts; the emulator (tests/emu) defines functions
// of the same names that do what the PTX manual says. A new wrapper gets both, and a line in the
// conformance test. Shared memory is addressed by 32-bit numbers, which come from smem_u32 only.
// Layouts: g = lane / 4, i = lane % 4. A register pair of bf16 holds the lower column in its lower
// half. Source: PTX ISA 9.0, the sections named.
#ifndef JOMED_KERNELS_PTX_CUH
#define JOMED_KERNELS_PTX_CUH

#ifdef __CUDACC__
#include <stdint.h>

#define PTX static __device__ __forceinline__

// ---- conversions ----
// f16 and bf16 by their bits; to nearest, ties to even.
PTX float float_of_f16(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
PTX uint16_t f16_of_float(float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
PTX uint16_t bf16_of_float(float x) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
// Two at once: low in the lower half.
PTX uint32_t bf16x2_of_floats(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
PTX uint32_t f16x2_of_floats(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
// 2^x, error 2 ulp; results that would be subnormal are 0.
PTX float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1/x, error 1 ulp; what is subnormal, x or the result, is 0.
PTX float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- memory ----
PTX uint32_t smem_u32(const void *shared) { return (uint32_t)__cvta_generic_to_shared(shared); }
// 16 bytes at a multiple of 16, one access; anywhere in memory.
PTX uint4 ld16(const void *from) { return *(const uint4 *)from; }
PTX void st16(void *to, uint4 value) { *(uint4 *)to = value; }
// 8 bytes at a multiple of 8, likewise.
PTX uint2 ld8(const void *from) { return *(const uint2 *)from; }
PTX void st8(void *to, uint2 value) { *(uint2 *)to = value; }
// As ld16, for global data that nobody writes during the launch and that is read once: not kept in
// the first-level cache.
PTX uint4 ld16_stream(const void *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(__cvta_generic_to_global(from)));
    return v;
}

// ---- asynchronous copies (cp.async, sm_80) ----
// 16 bytes global to shared, both at multiples of 16. Of them, `bytes` (0..16) are read and the
// others become 0. Other threads see the data after cp_async_wait and a barrier.
PTX void cp_async16(uint32_t to, const void *from, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
}
// Closes the group of this thread's copies since the last commit.
PTX void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the newest N groups of this thread are there.
template <int N> PTX void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- matrix fragments (sm_80); all 32 lanes take part ----
// ldmatrix: four (two) 8x8 matrices of 16-bit elements. Lane l holds the address of row l % 8 of
// matrix l / 8 (16 bytes, at a multiple of 16). out[m] of lane l: row l / 4, columns 2 (l % 4) and
// the next; with _trans: column l / 4, rows 2 (l % 4) and the next.
PTX void ldmatrix_x4(uint32_t (&out)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}
PTX void ldmatrix_x4_trans(uint32_t (&out)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}
PTX void ldmatrix_x2(uint32_t (&out)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(row)
                 : "memory");
}
PTX void ldmatrix_x2_trans(uint32_t (&out)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(row)
                 : "memory");
}
// acc (16x8, f32) += a (16x16, row-major) b (16x8, column-major), bf16 or f16 operands.
//   a[0]: row g,     columns 2i, 2i+1      a[1]: row g + 8, the same columns
//   a[2]: row g,     columns 2i+8, 2i+9    a[3]: row g + 8, those columns
//   b[0]: rows 2i, 2i+1 of column g        b[1]: rows 2i+8, 2i+9 of column g
//   acc[0], acc[1]: row g, columns 2i, 2i+1    acc[2], acc[3]: row g + 8
// The order of the sum of 16 products is not specified: compare with a tolerance.
PTX void mma_m16n8k16_bf16(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
PTX void mma_m16n8k16_f16(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- barriers of part of a block ----
// Named barrier 1..15 (0 is __syncthreads): `threads` of the block, a multiple of 32, meet.
PTX void bar_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Counts as arrived without waiting; the others are in bar_sync.
PTX void bar_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// In the body of a loop that waits for another thread.
PTX void spin() { __nanosleep(20); }

#undef PTX
#endif
#endif
