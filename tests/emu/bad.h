// bad: kernels with one mistake each, and the message it must produce.
//
// A file bad/NAME.cu opens with "// expects: TEXT", defines its kernel and BAD(NAME) { ... }, host
// code that launches it. The test (tests/test_emu.c) runs each in a process of its own and fails
// when it ends without a message that holds TEXT. "// expects in asan: TEXT" is for that build.
#ifndef JOMED_TESTS_EMU_BAD_H
#define JOMED_TESTS_EMU_BAD_H

#include "tests/emu/wgmma_tile.cuh"

#define BAD(name)                                                                                  \
    static void run();                                                                             \
    static const bool is_listed = emu::bad_list(#name, run);                                       \
    static void run()

namespace emu {
bool bad_list(const char *name, void (*run)());
[[noreturn]] void bad_result(const char *what, int i, float got, float want);
} // namespace emu

// n floats of device memory, 0, 1, 2, ... ; or never written.
static inline float *floats_raw(int n) {
    float *x = nullptr;
    CUDA_CHECK(cudaMalloc(&x, (size_t)n * sizeof *x));
    return x;
}
static inline float *floats_new(int n) {
    float *const x = floats_raw(n);
    for (int i = 0; i < n; i++) {
        const float value = (float)i;
        CUDA_CHECK(cudaMemcpy(x + i, &value, sizeof value, cudaMemcpyHostToDevice));
    }
    return x;
}
// Ends with "wrong result" when element i of x is not `want`.
static inline void want(const float *x, int i, float wanted) {
    float got;
    CUDA_CHECK(cudaMemcpy(&got, x + i, sizeof got, cudaMemcpyDeviceToHost));
    if (!(got == wanted)) {
        emu::bad_result("element", i, got, wanted);
    }
}

// One tile of threes times itself; every element is 64 * 9.
template <TileMistake mistake> static inline void bad_tile() {
    float *const out = floats_raw(64 * 64);
    void *threes;
    CUDA_CHECK(cudaMalloc(&threes, 8192));
    CUDA_CHECK(cudaMemset(threes, 0x40, 8192)); // 0x4040 is 3 as bf16
    TensorMap map;
    tensor_map(&map, threes, 64, 64, 64, 64);
    LAUNCH(wgmma_tile_kernel1<mistake>, 1, 160, wgmma_tile_bytes(64, 0), nullptr, out, map, map);
    want(out, 0, 576);
}
#endif
