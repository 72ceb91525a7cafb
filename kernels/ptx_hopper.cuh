// ptx_hopper: the instructions only sm_90a has: barriers in shared memory, tensor copies by the copy
// engine (TMA), matrix products of a warpgroup. As ptx.cuh; on sm_80 the bodies are empty.
//
// Shared tiles are rows of 128 bytes in atoms of 8 rows, 1024-byte aligned, with the 128-byte
// swizzle: the 16-byte piece p of row r lies at piece p ^ (r % 8). TMA writes and wgmma reads so.
// Left out: clusters, multicast, TMA stores, operands that are not K-major, A from registers.
// Source: PTX ISA 9.0, sections mbarrier, cp.async.bulk.tensor, wgmma; the bits of descriptors
// follow its tables. None of it has run on a GPU.
#ifndef JOMED_KERNELS_PTX_HOPPER_CUH
#define JOMED_KERNELS_PTX_HOPPER_CUH

#include "cuda_common.cuh"

#ifdef __CUDACC__
#include <cuda.h>

typedef CUtensorMap TensorMap; // a __grid_constant__ parameter of the kernel
#define PTX static __device__ __forceinline__
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define HOPPER(...)
#endif

// ---- mbarriers: 8 bytes of shared memory at a multiple of 8 ----
// One thread initialises it for `count` arrivals per phase; a fence and a block barrier follow.
PTX void mbar_init(uint32_t bar, int count) {
    HOPPER("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
PTX void mbar_init_fence() { HOPPER("fence.mbarrier_init.release.cluster;" ::: "memory"); }
PTX void mbar_arrive(uint32_t bar) {
    HOPPER("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
// Arrives, and lets the phase wait for `bytes` more of tensor copies.
PTX void mbar_arrive_expect(uint32_t bar, int bytes) {
    HOPPER("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
           : "memory");
}
// Waits until the phase of that parity is over: 0 the first, 1 the second. Parity 1 of a fresh
// barrier counts as over.
PTX void mbar_wait(uint32_t bar, int parity) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    uint32_t is_over = 0;
    while (!is_over) {
        HOPPER("{\n.reg .pred p;\n"
               "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
               "selp.u32 %0, 1, 0, p;\n}"
               : "=r"(is_over)
               : "r"(bar), "r"(parity)
               : "memory");
    }
#endif
}
// What this thread stored to shared memory becomes visible to wgmma and TMA (a barrier follows).
PTX void fence_proxy_async() { HOPPER("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- tensor copies ----
// The box of the map at (column, row) to `to` (at a multiple of 1024), swizzled; zeros outside the
// tensor. One thread issues; the bytes of the whole box are counted on bar.
PTX void tma_load(uint32_t to, const TensorMap *map, int column, int row, uint32_t bar) {
    HOPPER("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
           "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
           "l"(map), "r"(bar), "r"(column), "r"(row)
           : "memory");
}

// ---- products of a warpgroup: 128 threads, four warps from a multiple of four on ----
// A tile's descriptor: K-major rows of 64 elements. The next 16 along K: 32 bytes further.
PTX uint64_t wgmma_tile(uint32_t at) {
    const uint64_t ATOM = 1024 >> 4, SWIZZLE_128 = (uint64_t)1 << 62;
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)1 << 16 | ATOM << 32 | SWIZZLE_128;
}
// Before the first product, and after other code has touched an accumulator.
PTX void wgmma_fence() { HOPPER("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX void wgmma_commit() { HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> PTX void wgmma_wait() {
    HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// acc (64x64, f32) += a (64x16) b (64x16)^T, bf16; read from shared memory until wgmma_wait. Warp w
// holds rows 16 w ..: acc[4j], acc[4j+1]: row g, columns 8j+2i and the next; acc[4j+2], [4j+3]: row
// g + 8. acc is one local array, untouched between issue and wait.
PTX void wgmma_m64n64k16_bf16(float (&acc)[32], uint64_t a, uint64_t b) {
#define FOUR(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
    HOPPER("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
           "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
           "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
           "%32, %33, 1, 1, 1, 0, 0;"
           : FOUR(0), FOUR(4), FOUR(8), FOUR(12), FOUR(16), FOUR(20), FOUR(24), FOUR(28)
           : "l"(a), "l"(b));
#undef FOUR
}
#undef HOPPER
#undef PTX

// ---- the map of a tensor, on the host ----
// (rows, columns) of 16-bit elements, `stride` elements from row to row; boxes of box_rows rows of
// 64 elements. base and 2 stride are multiples of 16.
static inline void tensor_map(TensorMap *map, const void *base, size_t rows, size_t columns,
                              size_t stride, int box_rows) {
    typedef CUresult Encode(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                            const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                            const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    void *encode = nullptr; // of the driver, which is not linked
    cudaDriverEntryPointQueryResult found;
    CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                cudaEnableDefault, &found));
    CHECK(encode, "cuTensorMapEncodeTiled: %d", (int)found);
    const cuuint64_t sizes[2] = {columns, rows}, strides[1] = {2 * stride};
    const cuuint32_t box[2] = {64, (cuuint32_t)box_rows}, steps[2] = {1, 1};
    const CUresult result = ((Encode *)encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)base, sizes, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: %d", (int)result);
}
#endif
#endif
