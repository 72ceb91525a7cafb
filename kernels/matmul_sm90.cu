// matmul_sm90: bf16 products on Hopper: TMA copies, mbarriers, warpgroup products (wgmma).
//
// C[i,j] = start[i,j] + sum_l A[i,l] B[j,l], as in matmul.cu. A block is three warpgroups. One thread
// of the first (the producer) issues TMA copies of 64 l of A and B into a ring of stages; the other
// two (consumers) own 64 of the tile's 128 rows each, COLUMNS wide, in registers, and multiply. Two
// mbarriers per stage: `full` (the copies have arrived) and `empty` (all eight consumer warps are
// done with it). A consumer issues the products of a stage and then waits for those of the stage
// BEFORE, which it hands back: one stage of products is always under way. setmaxnreg moves the
// producer's registers to the consumers.
//
// As many blocks as multiprocessors; a block takes tiles at that distance, and its producer runs
// ahead into the next tile while the consumers store. Tiles go down GROUP rows of tiles before the
// next column, so that those under way share A and B in the second-level cache: of 132 tiles 128x256
// in bands of 16, 16 row strips and 8 column strips.
// Both operands may lie either way in memory (K-major, MN-major): the transposed reads are the
// descriptors', nothing is copied. Edges: TMA fills with zeros, stores are guarded.
//
// Every element is the same chain whatever the tile's width: 16 l at a time, ascending; only which
// rows and columns share a block changes with the sizes. Depth is never split but for weights.
// Stores: the four lanes that hold a row's 32 columns in pairs of two exchange them, so that each
// stores 8 neighbours: whole 32-byte sectors for bf16; f32 pairs of a quad are one sector already.
//
// COLUMNS: 256 reads 85 FLOP per shared byte loaded, 128 reads 64; the narrower is for few columns
// or too few tiles to fill the card. Shared memory: 4 stages of 48 KB or 6 of 32 KB.
// Left out: clusters and multicast; the store of one tile under the products of the next (the
// registers of a second accumulator, or 64 KB of shared memory and a TMA store); f16.
//
//   version  idea                                          shape  time                  % of peak
//   kernel3  TMA, wgmma, 2 consumers, lagged release, 256  -      not yet run on a GPU  -
//            the same, 128 wide                            -      not yet run on a GPU  -
#include "matmul_sm90.cuh"

#include "device_cuda.cuh"
#include "ptx_hopper.cuh"

static const int ROWS3 = 128;      // of a tile of C: 64 per consumer
static const int DEPTH3 = 64;      // of a stage: 128 bytes, the width of the swizzle
static const int GROUP = 16;       // rows of tiles in a band
static const int WARPGROUP = 128;  // threads
static const int BLOCK3 = 3 * WARPGROUP;
static const int HALF = 64 * DEPTH3 * 2; // bytes of 64 rows, or 64 columns, of a stage
static const int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS <= 65536 / WARPGROUP, "they exist");

// Of a tile width: stages and bytes of one, and of the block's shared memory.
template <int COLUMNS> struct Ring {
    enum {
        STAGES = COLUMNS == 256 ? 4 : 6,
        BYTES = (ROWS3 + COLUMNS) * DEPTH3 * 2,
        SHARED = STAGES * (BYTES + 2 * 8),
    };
    static_assert(SHARED <= 227 * 1024, "a block's shared memory");
    uint32_t tiles, bars; // shared addresses
    int stage, phase;
    __device__ uint32_t full() const { return bars + 8 * stage; }
    __device__ uint32_t empty(int which) const { return bars + 8 * (STAGES + which); }
    __device__ uint32_t a() const { return tiles + BYTES * stage; }
    __device__ uint32_t b() const { return a() + 2 * HALF; }
    __device__ void next() {
        stage = stage + 1 < STAGES ? stage + 1 : 0;
        phase ^= stage == 0;
    }
};

struct Maps {
    TensorMap a, b;
};

// A product without epilogue: what the kernel is given.
struct Slim {
    Factors main;
    const void *bias;
    void *c;
    int rows, columns;
    bool is_accumulated;
};

// ---- tiles ----
static __host__ __device__ int ceil_of(int a, int b) { return a / b + (a % b > 0); }

// First row and column of tile `index`: bands of GROUP rows of tiles, column by column.
template <int COLUMNS>
static __device__ void tile_at(const Slim &p, int index, int *row, int *column) {
    const int down = ceil_of(p.rows, ROWS3), across = ceil_of(p.columns, COLUMNS);
    const int first = index / (GROUP * across) * GROUP, inside = index % (GROUP * across);
    const int height = down - first < GROUP ? down - first : GROUP; // of this band
    *row = (first + inside % height) * ROWS3;
    *column = inside / height * COLUMNS;
}

// ---- the producer ----
// Begins to load what a stage holds of one operand: `extent` of the kept index from `outer` on, and
// DEPTH3 of the reduction from `inner` on. K-major: one box of `extent` rows; MN-major: boxes of 64.
template <bool IS_MN>
static __device__ void load_operand(uint32_t to, const TensorMap *map, int extent, int outer,
                                    int inner, uint32_t full) {
    if (IS_MN) {
        for (int chunk = 0; chunk < extent / 64; chunk++) {
            tma_load(to + chunk * HALF, map, outer + 64 * chunk, inner, full);
        }
    } else {
        tma_load(to, map, inner, outer, full);
    }
}

template <int COLUMNS, bool A_MN, bool B_MN>
static __device__ void produce(const Slim &p, const Maps &maps, Ring<COLUMNS> ring, int tiles) {
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int row, column;
        tile_at<COLUMNS>(p, tile, &row, &column);
        for (int inner = 0; inner < p.main.depth; inner += DEPTH3) {
            mbar_wait(ring.empty(ring.stage), ring.phase ^ 1); // the consumers gave it back
            mbar_arrive_expect(ring.full(), Ring<COLUMNS>::BYTES);
            load_operand<A_MN>(ring.a(), &maps.a, ROWS3, row, inner, ring.full());
            load_operand<B_MN>(ring.b(), &maps.b, COLUMNS, column, inner, ring.full());
            ring.next();
        }
    }
}

// ---- the consumers ----
// acc[4j + e] is row g + 8 (e / 2), column 8j + 2i + e % 2 of the warp's 16 rows.
template <typename T, typename Out, int COUNT>
static __device__ void start(float (&acc)[COUNT], const Slim &p, int row, int column) {
    UNROLL for (int k = 0; k < COUNT; k++) {
        const int i = row + k / 2 % 2 * 8, j = column + k / 4 * 8 + k % 2;
        acc[k] = 0;
        if (p.is_accumulated && i < p.rows && j < p.columns) {
            acc[k] = to_float(((const Out *)p.c)[(size_t)i * p.columns + j]);
        } else if (p.bias && j < p.columns) {
            acc[k] = to_float(((const T *)p.bias)[j]);
        }
    }
}

// The products of one tile: the stages in turn. A stage goes back when no warp reads it any more.
template <int COLUMNS, bool A_MN, bool B_MN>
static __device__ void multiply(float (&acc)[COLUMNS / 2], Ring<COLUMNS> &ring, int steps, int half) {
    const int A_NEXT = A_MN ? 16 * 128 / 16 : 16 * 2 / 16; // 16 of l on, in units of descriptors
    const int B_NEXT = B_MN ? 16 * 128 / 16 : 16 * 2 / 16;
    wgmma_hold(acc);
    for (int step = 0; step < steps; step++) {
        mbar_wait(ring.full(), ring.phase); // the copies have arrived
        const uint32_t a = ring.a() + half * HALF;
        const uint64_t a_tile = A_MN ? wgmma_tile_mn(a, HALF) : wgmma_tile(a);
        const uint64_t b_tile = B_MN ? wgmma_tile_mn(ring.b(), HALF) : wgmma_tile(ring.b());
        wgmma_fence();
        UNROLL for (int k = 0; k < DEPTH3 / 16; k++) {
            wgmma_m64k16_bf16<A_MN, B_MN>(acc, a_tile + k * A_NEXT, b_tile + k * B_NEXT);
        }
        wgmma_commit();
        wgmma_wait<1>(); // the stage before
        __syncwarp();
        if (step > 0 && threadIdx.x % WARP == 0) {
            mbar_arrive(ring.empty(ring.stage > 0 ? ring.stage - 1 : Ring<COLUMNS>::STAGES - 1));
        }
        ring.next();
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
        mbar_arrive(ring.empty(ring.stage > 0 ? ring.stage - 1 : Ring<COLUMNS>::STAGES - 1));
    }
}

template <typename Out, int COUNT>
static __device__ void store(const float (&acc)[COUNT], const Slim &p, int row, int column) {
    UNROLL for (int k = 0; k < COUNT; k++) {
        const int i = row + k / 2 % 2 * 8, j = column + k / 4 * 8 + k % 2;
        if (i < p.rows && j < p.columns) {
            ((Out *)p.c)[(size_t)i * p.columns + j] = from_float<Out>(acc[k]);
        }
    }
}

template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static __device__ void consume(const Slim &p, Ring<COLUMNS> ring, int tiles) {
    // By a shuffle, so that the compiler knows a warp's threads agree: descriptors are uniform.
    const int half = __shfl_sync(0xffffffffu, (int)threadIdx.x / WARPGROUP - 1, 0);
    const int warp = threadIdx.x / WARP % 4;
    const int lane = threadIdx.x % WARP;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int row, column;
        tile_at<COLUMNS>(p, tile, &row, &column);
        row += 64 * half + 16 * warp + lane / 4;
        column += lane % 4 * 2;
        float acc[COLUMNS / 2];
        start<bf16, Out>(acc, p, row, column);
        multiply<COLUMNS, A_MN, B_MN>(acc, ring, ceil_of(p.main.depth, DEPTH3), half);
        store<Out>(acc, p, row, column);
    }
}

// ---- the kernel ----
// Launch: as many blocks as multiprocessors, or tiles if fewer; BLOCK3 threads; Ring::SHARED bytes of
// shared memory. One block per multiprocessor; see setmaxnreg for the registers.
template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static __global__ void __launch_bounds__(BLOCK3, 1)
    matmul_kernel3(Slim p, const __grid_constant__ Maps maps) {
    const int STAGES = Ring<COLUMNS>::STAGES;
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, stages, uint8_t, STAGES * Ring<COLUMNS>::BYTES, 1024);
    SMEM_TAKE(carver, bars, uint64_t, 2 * STAGES, 8);
    const Ring<COLUMNS> ring = {smem_u32(stages), smem_u32(bars), 0, 0};
    const int tiles = ceil_of(p.rows, ROWS3) * ceil_of(p.columns, COLUMNS);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            mbar_init(smem_u32(bars) + 8 * stage, 1);            // full: the producer, and its bytes
            mbar_init(smem_u32(bars) + 8 * (STAGES + stage), 8); // empty: the consumers' warps
        }
        mbar_init_fence();
    }
    __syncthreads(); // the barriers are seen by all
    if (threadIdx.x < WARPGROUP) {
        registers_release<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            produce<COLUMNS, A_MN, B_MN>(p, maps, ring, tiles);
        }
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        consume<Out, COLUMNS, A_MN, B_MN>(p, ring, tiles);
    }
}

// ---- launchers ----
// The map of an operand: `outer` of the kept index, `inner` of the reduction; boxes as load_operand
// asks for them.
static void operand_map(TensorMap *map, const void *x, bool is_mn, int outer, int inner,
                        size_t leading, int extent) {
    tensor_map(map, x, (size_t)(is_mn ? inner : outer), (size_t)(is_mn ? outer : inner), leading,
               is_mn ? DEPTH3 : extent);
}

template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static void launch(Device *dev, const Slim &p) {
    Maps maps;
    const Factors &f = p.main;
    operand_map(&maps.a, f.a, A_MN, p.rows, f.depth, A_MN ? f.a_inner : f.a_row, ROWS3);
    operand_map(&maps.b, f.b, B_MN, p.columns, f.depth, B_MN ? f.b_inner : f.b_column, COLUMNS);
    const int tiles = ceil_of(p.rows, ROWS3) * ceil_of(p.columns, COLUMNS);
    const int processors = device_processors(dev);
    SMEM_ALLOW((matmul_kernel3<Out, COLUMNS, A_MN, B_MN>), Ring<COLUMNS>::SHARED);
    LAUNCH((matmul_kernel3<Out, COLUMNS, A_MN, B_MN>), tiles < processors ? tiles : processors,
           BLOCK3, Ring<COLUMNS>::SHARED, device_stream(dev), p, maps);
}

// The width whose rounds of tiles take less time: a tile of 128 columns counts 0.6 of one of 256.
static bool is_wide(const Device *dev, const Slim &p) {
    const int down = ceil_of(p.rows, ROWS3), processors = device_processors(dev);
    const int wide = ceil_of(down * ceil_of(p.columns, 256), processors);
    const int narrow = ceil_of(down * ceil_of(p.columns, 128), processors);
    return 10 * wide <= 6 * narrow;
}

template <typename Out, bool A_MN, bool B_MN> static void launch_width(Device *dev, const Slim &p) {
    (is_wide(dev, p) ? launch<Out, 256, A_MN, B_MN> : launch<Out, 128, A_MN, B_MN>)(dev, p);
}

extern "C" void matmul_sm90(Device *dev, const Product &product, bool a_mn, bool b_mn) {
    const Product &q = product;
    const Slim p = {q.main, q.bias, q.c, q.rows, q.columns, q.is_accumulated};
    CHECK(a_mn <= b_mn, "a_mn=%d b_mn=%d", a_mn, b_mn);
    if (a_mn) {
        launch_width<float, true, true>(dev, p);
    } else if (b_mn) {
        launch_width<bf16, false, true>(dev, p);
    } else {
        launch_width<bf16, false, false>(dev, p);
    }
}
