// emu_ptx: the wrappers of kernels/ptx.cuh under the emulator; their contracts stand there.
#ifndef JOMED_TESTS_EMU_EMU_PTX_H
#define JOMED_TESTS_EMU_EMU_PTX_H

#include "kernels/dtype.h"

namespace emu {
uint32_t smem_address(const void *shared);
void cp_async(uint32_t to, const void *from, int bytes);
void cp_async_commit();
void cp_async_wait(int newest);
void ldmatrix(uint32_t *out, int count, bool is_transposed, uint32_t row, Place place);
void mma_m16n8k16(float *acc, const uint32_t *a, const uint32_t *b, DType t, Place place);
void bar(int id, int threads, bool waits, Place place);
void spin(Place place);
} // namespace emu

// ---- conversions ----
static inline float float_of_f16(uint16_t bits) { return f16_to_float(f16{bits}); }
static inline uint16_t f16_of_float(float x) { return f16_from_float(x).bits; }
static inline uint16_t bf16_of_float(float x) { return bf16_from_float(x).bits; }
static inline uint32_t bf16x2_of_floats(float low, float high) {
    return bf16_of_float(low) | (uint32_t)bf16_of_float(high) << 16;
}
static inline uint32_t f16x2_of_floats(float low, float high) {
    return f16_of_float(low) | (uint32_t)f16_of_float(high) << 16;
}
static inline float exp2_approx(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}
static inline float rcp_approx(float x) {
    const float y = fabsf(x) < 0x1p-126f ? copysignf(INFINITY, x) : 1 / x;
    return fabsf(y) < 0x1p-126f ? copysignf(0, y) : y;
}

// ---- memory ----
static inline uint32_t smem_u32(const void *shared) { return emu::smem_address(shared); }
static inline uint4 ld16(const void *from) { return *(const uint4 *)from; }
static inline uint4 ld16_stream(const void *from) { return *(const uint4 *)from; }
static inline void st16(void *to, uint4 value) { *(uint4 *)to = value; }
static inline uint2 ld8(const void *from) { return *(const uint2 *)from; }
static inline void st8(void *to, uint2 value) { *(uint2 *)to = value; }

// ---- asynchronous copies ----
static inline void cp_async16(uint32_t to, const void *from, int bytes = 16) {
    emu::cp_async(to, from, bytes);
}
static inline void cp_async_commit() { emu::cp_async_commit(); }
template <int N> static inline void cp_async_wait() { emu::cp_async_wait(N); }

// ---- matrix fragments ----
static inline void ldmatrix_x4(uint32_t (&out)[4], uint32_t row, PLACE) {
    emu::ldmatrix(out, 4, false, row, place);
}
static inline void ldmatrix_x4_trans(uint32_t (&out)[4], uint32_t row, PLACE) {
    emu::ldmatrix(out, 4, true, row, place);
}
static inline void ldmatrix_x2(uint32_t (&out)[2], uint32_t row, PLACE) {
    emu::ldmatrix(out, 2, false, row, place);
}
static inline void ldmatrix_x2_trans(uint32_t (&out)[2], uint32_t row, PLACE) {
    emu::ldmatrix(out, 2, true, row, place);
}
static inline void mma_m16n8k16_bf16(float (&acc)[4], const uint32_t (&a)[4],
                                     const uint32_t (&b)[2], PLACE) {
    emu::mma_m16n8k16(acc, a, b, DT_BF16, place);
}
static inline void mma_m16n8k16_f16(float (&acc)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[2], PLACE) {
    emu::mma_m16n8k16(acc, a, b, DT_F16, place);
}

// ---- barriers of part of a block ----
static inline void bar_sync(int id, int threads, PLACE) { emu::bar(id, threads, true, place); }
static inline void bar_arrive(int id, int threads, PLACE) { emu::bar(id, threads, false, place); }
static inline void spin(PLACE) { emu::spin(place); }
#endif
