// emu_hopper: the wrappers of kernels/ptx_hopper.cuh under the emulator; contracts stand there.
#ifndef JOMED_TESTS_EMU_EMU_HOPPER_H
#define JOMED_TESTS_EMU_EMU_HOPPER_H

struct alignas(64) TensorMap {
    const char *base;
    size_t rows, columns, stride; // elements of 2 bytes
    int box_rows;
};
void tensor_map(TensorMap *map, const void *base, size_t rows, size_t columns, size_t stride,
                int box_rows);

void mbar_init(uint32_t bar, int count);
static inline void mbar_init_fence() {}
void mbar_arrive(uint32_t bar);
void mbar_arrive_expect(uint32_t bar, int bytes);
void mbar_wait(uint32_t bar, int parity, PLACE);
void fence_proxy_async();
void tma_load(uint32_t to, const TensorMap *map, int column, int row, uint32_t bar);

namespace emu {
void wgmma(float *acc, int columns, uint64_t a, uint64_t b);
void wgmma_wait(int newest);
} // namespace emu
uint64_t wgmma_tile(uint32_t at);
void wgmma_fence();
void wgmma_commit();
template <int N> static inline void wgmma_wait() { emu::wgmma_wait(N); }
static inline void wgmma_m64n64k16_bf16(float (&acc)[32], uint64_t a, uint64_t b) {
    emu::wgmma(acc, 64, a, b);
}
#endif
