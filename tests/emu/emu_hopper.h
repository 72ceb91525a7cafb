// emu_hopper: the wrappers of kernels/ptx_hopper.cuh under the emulator; contracts stand there.
#ifndef JOMED_TESTS_EMU_EMU_HOPPER_H
#define JOMED_TESTS_EMU_EMU_HOPPER_H

#include "kernels/dtype.h"

#define IS_HOPPER true
struct alignas(64) TensorMap {
    const char *base;
    size_t rows, columns, stride; // elements of 2 bytes
    int box_rows;
    int heads, box_heads; // 0 in a map without; a head is `columns` wide
};
void tensor_map(TensorMap *map, const void *base, size_t rows, size_t columns, size_t stride,
                int box_rows);
void tensor_map_heads(TensorMap *map, const void *base, size_t rows, int heads, int D,
                      size_t stride, int box_heads, int box_rows);

void mbar_init(uint32_t bar, int count);
static inline void mbar_init_fence() {}
void mbar_arrive(uint32_t bar);
void mbar_arrive_expect(uint32_t bar, int bytes);
void mbar_wait(uint32_t bar, int parity, PLACE);
void fence_proxy_async();
void tma_load(uint32_t to, const TensorMap *map, int column, int row, uint32_t bar);
void tma_load_heads(uint32_t to, const TensorMap *map, int column, int head, int row, uint32_t bar);

namespace emu {
void wgmma(float *acc, int columns, DType t, uint64_t a, bool a_mn, uint64_t b, bool b_mn);
void wgmma(float *acc, int columns, DType t, const uint32_t *a, uint64_t b, bool b_mn, Place place);
void wgmma_wait(int newest);
void registers_release(int count, Place place);
void registers_claim(int count, Place place);
} // namespace emu
uint64_t wgmma_tile(uint32_t at);
uint64_t wgmma_tile_mn(uint32_t at, uint32_t chunk_bytes);
void wgmma_fence();
void wgmma_commit();
template <int N> static inline void wgmma_wait() { emu::wgmma_wait(N); }
template <int COUNT> static inline void wgmma_hold(float (&)[COUNT]) {}
template <int COUNT> static inline void wgmma_hold(uint32_t (&)[COUNT][4]) {}
#define WGMMA(type, t)                                                                             \
    template <int A_MN, int B_MN, int COUNT>                                                       \
    static inline void wgmma_m64k16_##type(float (&acc)[COUNT], uint64_t a, uint64_t b) {          \
        static_assert(COUNT % 4 == 0 && COUNT <= 128, "8 to 256 columns");                         \
        emu::wgmma(acc, 2 * COUNT, t, a, A_MN, b, B_MN);                                           \
    }                                                                                              \
    template <int B_MN, int COUNT>                                                                 \
    static inline void wgmma_m64k16_##type(float (&acc)[COUNT], const uint32_t (&a)[4],            \
                                           uint64_t b, PLACE) {                                    \
        static_assert(COUNT % 4 == 0 && COUNT <= 128, "8 to 256 columns");                         \
        emu::wgmma(acc, 2 * COUNT, t, a, b, B_MN, place);                                          \
    }
WGMMA(bf16, DT_BF16)
WGMMA(f16, DT_F16)
#undef WGMMA
template <int N> static inline void registers_release(PLACE) { emu::registers_release(N, place); }
template <int N> static inline void registers_claim(PLACE) { emu::registers_claim(N, place); }
#endif
