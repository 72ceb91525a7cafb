// ptx_hopper: the instructions only sm_90a has: barriers in shared memory, tensor copies by the
// copy engine (TMA), matrix products of a warpgroup. As ptx.cuh; on sm_80 the bodies are empty.
//
// Shared tiles are rows of 128 bytes in atoms of 8 rows, 1024-byte aligned, with the 128-byte
// swizzle: the 16-byte piece p of row r lies at piece p ^ (r % 8). TMA writes and wgmma reads so.
// A row holds 64 neighbours of one operand's memory: along the reduction k (K-major), or along the
// kept index (MN-major); wgmma reads either.
// Left out: clusters, multicast, TMA stores.
// Source: PTX ISA 9.0, sections mbarrier, cp.async.bulk.tensor, wgmma, setmaxnreg; the bits of
// descriptors follow its tables, the offsets of MN-major tiles also CUTLASS's canonical layouts
// (mma_traits_sm90_gmma.hpp). None of it has run on a GPU.
#ifndef JOMED_KERNELS_PTX_HOPPER_CUH
#define JOMED_KERNELS_PTX_HOPPER_CUH

#include "cuda_common.cuh"

#ifdef __CUDACC__
#include <cuda.h>

typedef CUtensorMap TensorMap; // a __grid_constant__ parameter of the kernel
#define PTX static __device__ __forceinline__
// A body in `if (IS_HOPPER)` is not there in the code for sm_80, where it would only spill.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER(...) asm volatile(__VA_ARGS__)
#define IS_HOPPER true
#else
#define HOPPER(...)
#define IS_HOPPER false
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
// The same of a map of heads: its box at (column, head, row); rows of the box lie head after head.
PTX void tma_load_heads(uint32_t to, const TensorMap *map, int column, int head, int row,
                        uint32_t bar) {
    HOPPER("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
           "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
           "l"(map), "r"(bar), "r"(column), "r"(head), "r"(row)
           : "memory");
}

// ---- products of a warpgroup: 128 threads, four warps from a multiple of four on ----
// Descriptors of tiles. Bits 0-13: address, 16-29: leading offset, 32-45: stride offset, all in
// units of 16 bytes; 62-63: 1 is the 128-byte swizzle.
// K-major: rows of 64 elements of k. The stride offset is from 8 rows to the next 8; the leading
// offset is not used. The next 16 along k: 32 bytes further; the next 64 rows: 8192.
PTX uint64_t wgmma_tile(uint32_t at) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}
// MN-major: rows of one k, 64 elements of the kept index; the next 64 of those lie chunk_bytes
// further (leading offset), the next 8 of k 1024 bytes (stride offset). The next 16 along k: 2048.
PTX uint64_t wgmma_tile_mn(uint32_t at, uint32_t chunk_bytes) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(chunk_bytes >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
// Before the first product, and after other code has touched an accumulator.
PTX void wgmma_fence() { HOPPER("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX void wgmma_commit() { HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> PTX void wgmma_wait() {
    HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from moving uses of the accumulators, or of A's registers, across: before
// wgmma_fence, and after the wgmma_wait behind which they are used again.
template <int COUNT> PTX void wgmma_hold(float (&acc)[COUNT]) {
    UNROLL for (int i = 0; i < COUNT; i++) {
        asm volatile("" : "+f"(acc[i])::"memory");
    }
}
template <int COUNT> PTX void wgmma_hold(uint32_t (&a)[COUNT][4]) {
    UNROLL for (int i = 0; i < 4 * COUNT; i++) {
        asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
    }
}
// acc (64xN, f32) += a (64x16) b (Nx16)^T, bf16 or f16; read from shared memory until wgmma_wait.
// N = 64, 80, 128, 192 or 256 is twice the length of acc; A_MN, B_MN: that tile is MN-major. Warp w
// holds rows 16 w ..: acc[4j], acc[4j+1]: row g, columns 8j+2i and the next; acc[4j+2], [4j+3]: row
// g + 8. acc is one local array, untouched between issue and wait.
// The second form has a in registers, as untouched: warp w holds rows 16 w .. as mma's a (ptx.cuh).
// So two neighbouring eights of columns of one product's acc, rounded, are 16 of the next one's k.
#define FOUR(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
#define EIGHT(i) FOUR(i), FOUR(i + 4)
#define THIRTYTWO(i) EIGHT(i), EIGHT(i + 8), EIGHT(i + 16), EIGHT(i + 24)
#define TEN(t)                                                                                     \
    "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, "                                           \
    "%" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define SIXTY TEN() TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
// registers: the names of acc's `count` registers; o0..: the numbers of the operands behind them.
#define WGMMA(type, N, count, registers, o0, o1, o2, o3, o4, o5, ...)                              \
    template <int A_MN, int B_MN>                                                                  \
    PTX void wgmma_m64k16_##type(float (&acc)[count], uint64_t a, uint64_t b) {                    \
        HOPPER("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" registers    \
               "}, %" #o0 ", %" #o1 ", 1, 1, 1, %" #o2 ", %" #o3 ";"                               \
               : __VA_ARGS__                                                                       \
               : "l"(a), "l"(b), "n"(A_MN), "n"(B_MN));                                            \
    }                                                                                              \
    template <int B_MN>                                                                            \
    PTX void wgmma_m64k16_##type(float (&acc)[count], const uint32_t (&a)[4], uint64_t b) {        \
        HOPPER("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #type "." #type " {" registers    \
               "}, {%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", 1, 1, 1, %" #o5 ";"         \
               : __VA_ARGS__                                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_MN));                   \
    }
#define WGMMAS(type)                                                                               \
    WGMMA(type, 64, 32, TEN() TEN(1) TEN(2) "%30, %31", 32, 33, 34, 35, 36, 37, THIRTYTWO(0))      \
    WGMMA(type, 80, 40, TEN() TEN(1) TEN(2) "%30, %31, %32, %33, %34, %35, %36, %37, %38, %39",    \
          40, 41, 42, 43, 44, 45, THIRTYTWO(0), EIGHT(32))                                         \
    WGMMA(type, 128, 64, SIXTY "%60, %61, %62, %63", 64, 65, 66, 67, 68, 69, THIRTYTWO(0),         \
          THIRTYTWO(32))                                                                           \
    WGMMA(type, 192, 96, SIXTY TEN(6) TEN(7) TEN(8) "%90, %91, %92, %93, %94, %95", 96, 97, 98,    \
          99, 100, 101, THIRTYTWO(0), THIRTYTWO(32), THIRTYTWO(64))                                \
    WGMMA(type, 256, 128,                                                                          \
          SIXTY TEN(6) TEN(7) TEN(8) TEN(9) TEN(10) TEN(11)                                        \
          "%120, %121, %122, %123, %124, %125, %126, %127",                                        \
          128, 129, 130, 131, 132, 133, THIRTYTWO(0), THIRTYTWO(32), THIRTYTWO(64), THIRTYTWO(96))
WGMMAS(bf16)
WGMMAS(f16)
#undef WGMMAS
#undef WGMMA
#undef SIXTY
#undef TEN
#undef THIRTYTWO
#undef EIGHT
#undef FOUR

// ---- registers ----
// Registers of each thread of this warpgroup, a multiple of 8 in 24..256: give some back, or ask
// for more and wait until other warpgroups gave them back. All 128 threads; the kernel has
// __launch_bounds__(threads, 1), which sets how many they start with.
template <int N> PTX void registers_release() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 in 24..256");
    HOPPER("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> PTX void registers_claim() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 in 24..256");
    HOPPER("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
#undef HOPPER
#undef PTX

// ---- the map of a tensor, on the host ----
// Of `rank` dimensions of 16-bit elements, the one whose neighbours are neighbours first; strides
// in elements, of all dimensions but that.
static inline void tensor_map_encode(TensorMap *map, const void *base, int rank,
                                     const cuuint64_t *sizes, const size_t *strides,
                                     const cuuint32_t *box) {
    typedef CUresult Encode(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                            const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                            const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static void *encode; // of the driver, which is not linked
    if (!encode) {
        cudaDriverEntryPointQueryResult found;
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                    cudaEnableDefault, &found));
        CHECK(encode, "cuTensorMapEncodeTiled: %d", (int)found);
    }
    const cuuint64_t bytes[2] = {2 * strides[0], rank > 2 ? 2 * strides[1] : 0};
    const cuuint32_t steps[3] = {1, 1, 1};
    const CUresult result = ((Encode *)encode)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)rank, (void *)base, sizes, bytes, box,
        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: %d", (int)result);
}

// (rows, columns), `stride` elements from row to row; boxes of box_rows rows of 64 elements. base
// and 2 stride are multiples of 16.
static inline void tensor_map(TensorMap *map, const void *base, size_t rows, size_t columns,
                              size_t stride, int box_rows) {
    const cuuint64_t sizes[2] = {columns, rows};
    const cuuint32_t box[2] = {64, (cuuint32_t)box_rows};
    tensor_map_encode(map, base, 2, sizes, &stride, box);
}

// (rows, heads, D), `stride` elements from row to row, D from head to head; boxes of box_rows rows
// of box_heads heads of 64 elements. base, 2 stride and 2 D are multiples of 16; stride need not be
// one of D (the manual's example pads so, but FlashAttention-3's maps do not).
static inline void tensor_map_heads(TensorMap *map, const void *base, size_t rows, int heads, int D,
                                    size_t stride, int box_heads, int box_rows) {
    const cuuint64_t sizes[3] = {(cuuint64_t)D, (cuuint64_t)heads, rows};
    const size_t strides[2] = {(size_t)D, stride};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_heads, (cuuint32_t)box_rows};
    tensor_map_encode(map, base, 3, sizes, strides, box);
}
#endif
#endif
