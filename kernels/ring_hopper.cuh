// ring_hopper: a block's sums of products on Hopper: stages filled by TMA, multiplied by wgmma.
// Only for *.cu.
//
// A block is three warpgroups. One thread of the first (the producer) issues TMA copies of 64
// elements of the reduction of both operands into a ring of stages; the other two (consumers) own
// 64 of the tile's 128 rows each, COLUMNS wide, in registers, and multiply. Two mbarriers per
// stage: `full` (the copies have arrived) and `empty` (all eight consumer warps are done with it).
// What the producer loads and what the consumers do with the sums is the kernel's.
#ifndef JOMED_KERNELS_RING_HOPPER_CUH
#define JOMED_KERNELS_RING_HOPPER_CUH

#include "ptx_hopper.cuh"

static const int RING_ROWS = 128;  // of a tile: 64 per consumer
static const int RING_DEPTH = 64;  // of a stage: 128 bytes, the width of the swizzle
static const int WARPGROUP = 128;  // threads
static const int RING_BLOCK = 3 * WARPGROUP;
static const int RING_HALF = 64 * RING_DEPTH * 2; // bytes of 64 rows, or 64 columns, of a stage
static const int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static const int ALL_REGISTERS = 65536 / RING_BLOCK / 8 * 8 * 3; // a thread of each warpgroup
static_assert(PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS <= ALL_REGISTERS, "they exist");

// The ring of a tile width, as one thread sees it: stages at a multiple of 1024, and mbarriers.
template <int COLUMNS> struct Ring {
    enum {
        STAGES = COLUMNS == 256 ? 4 : COLUMNS == 128 ? 6 : 8,
        BYTES = (RING_ROWS + COLUMNS) * RING_DEPTH * 2, // of a stage
        SHARED = STAGES * BYTES + 2 * STAGES * 8,       // bytes of shared memory
    };
    uint32_t stages, bars; // shared addresses
    int stage, phase;
    __device__ uint32_t full() const { return bars + 8 * stage; }
    __device__ uint32_t empty() const { return bars + 8 * (STAGES + stage); }
    __device__ uint32_t empty_before() const { // of the stage before
        return stage > 0 ? empty() - 8 : bars + 8 * (2 * STAGES - 1);
    }
    __device__ uint32_t a() const { return stages + BYTES * stage; }
    __device__ uint32_t b() const { return a() + 2 * RING_HALF; }
    __device__ void next() {
        stage = stage + 1 < STAGES ? stage + 1 : 0;
        phase ^= stage == 0;
    }
};

// By all threads, before their ways part.
template <int COLUMNS>
static __device__ inline Ring<COLUMNS> ring_open(uint32_t stages, uint32_t bars) {
    const int STAGES = Ring<COLUMNS>::STAGES;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            mbar_init(bars + 8 * stage, 1);            // full: the producer, and its bytes
            mbar_init(bars + 8 * (STAGES + stage), 8); // empty: the consumers' warps
        }
        mbar_init_fence();
    }
    __syncthreads(); // the barriers are seen by all
    return {stages, bars, 0, 0};
}

// Number of this consumer's warp, 0 to 7. By a shuffle, so that the compiler knows that a warp
// agrees: descriptors are uniform.
static __device__ inline int consumer_warp() {
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / WARP, 0) - WARPGROUP / WARP;
}

// Hands back the stage before, once all lanes of the warp are done with it.
template <int COLUMNS> static __device__ inline void release_before(const Ring<COLUMNS> &ring) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
        mbar_arrive(ring.empty_before());
    }
}

// acc = the sums of `steps` stages, for the consumer's half of the tile's rows: layout in
// ptx_hopper.cuh. It issues the products of a stage and then waits for those of the stage BEFORE,
// which it hands back: one stage of products is always under way. A_MN, B_MN: that operand is
// MN-major.
template <typename T, bool A_MN, bool B_MN, int COLUMNS>
static __device__ inline void multiply(float (&acc)[COLUMNS / 2], Ring<COLUMNS> &ring, int steps,
                                       int half) {
    const int A_NEXT = A_MN ? 16 * 128 / 16 : 16 * 2 / 16; // 16 of l on, in units of descriptors
    const int B_NEXT = B_MN ? 16 * 128 / 16 : 16 * 2 / 16;
    UNROLL for (int k = 0; k < COLUMNS / 2; k++) { acc[k] = 0; }
    wgmma_hold(acc);
    for (int step = 0; step < steps; step++) {
        mbar_wait(ring.full(), ring.phase); // the copies have arrived
        const uint32_t a = ring.a() + half * RING_HALF;
        const uint64_t a_tile = A_MN ? wgmma_tile_mn(a, RING_HALF) : wgmma_tile(a);
        const uint64_t b_tile = B_MN ? wgmma_tile_mn(ring.b(), RING_HALF) : wgmma_tile(ring.b());
        wgmma_fence();
        UNROLL for (int k = 0; k < RING_DEPTH / 16; k++) {
            if constexpr (std::is_same<T, bf16>::value) {
                wgmma_m64k16_bf16<A_MN, B_MN>(acc, a_tile + k * A_NEXT, b_tile + k * B_NEXT);
            } else {
                wgmma_m64k16_f16<A_MN, B_MN>(acc, a_tile + k * A_NEXT, b_tile + k * B_NEXT);
            }
        }
        wgmma_commit();
        wgmma_wait<1>(); // the step before; this one goes on
        if (step > 0) {
            release_before(ring);
        }
        ring.next();
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    release_before(ring);
}
#endif
