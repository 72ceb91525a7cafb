// matmul_sm90: bf16 products on Hopper: TMA copies, mbarriers, warpgroup products (wgmma).
//
// C[i,j] = end(start[i,j] + sum_l A[i,l] B[l,j]), as in matmul.cu. A block has a producer of stages
// and two consumers, each with 64 of the tile's 128 rows: ring_hopper.cuh. setmaxnreg moves the
// producer's registers to the consumers.
//
// As many blocks as multiprocessors; a block takes tiles at that distance, and its producer runs
// ahead into the next tile while the consumers store. Tiles go down GROUP3 rows of tiles before the
// next column, so that those under way share A and B in the second-level cache: 132 tiles of 256
// columns in bands of 16 read 16 strips of A and 8 of B.
// Both operands may lie either way in memory (K-major, MN-major): the transposed reads are the
// descriptors', nothing is copied. Edges: TMA fills with zeros, stores are guarded. An adapter's
// factors are steps behind those of the weight, through maps of their own.
//
// Every element is the same sum whatever the tile's width: 16 l at a time, ascending, its start
// added last; only which rows and columns share a block changes with the sizes. A warp stores its
// 16 rows through a piece of shared memory of its own, so that its lanes store neighbours; quads
// are placed so that neither side meets bank conflicts. Where heads of 128 or 256 turn by halves, a
// piece is 32 columns of the first half and their partners of the second, so that pairs meet in it.
// A tile of queries of Qwen2-VL (256 columns, K = 3584) reads 2.75 MB of operands and 128 KB of
// cosines and sines; rope_fwd would read and write its 64 KB once more, and read those too.
//
// bwd_weight with few tiles and a long sum cuts l into ranges (weight_product, by the sizes alone);
// their sums wait in scratch memory and are added in order.
//
// Tiles of 256 columns read 85 FLOP per byte copied into shared memory, of 128 64, of 64 43: the
// narrower ones are for few columns, or too few tiles to fill the card. Shared memory: 4, 6 or 8
// stages in 192 KB, and 32 KB for the stores. No spills; 168 registers at the launch.
// Left out: clusters and multicast; the store of one tile under the products of the next (a second
// set of sums does not fit the registers; two consumers on different tiles could); f16.
//
//   version  idea                                            shape  time                  % of peak
//   kernel3  TMA, wgmma, 2 consumers, release behind by one  -      not yet run on a GPU  -
#include "matmul_sm90.cuh"

#include "device_cuda.cuh"
#include "ring_hopper.cuh"

static const int ROWS3 = RING_ROWS;   // of a tile of C: 64 per consumer
static const int DEPTH3 = RING_DEPTH; // of a stage
static const int GROUP3 = 16;         // rows of tiles in a band
static const int PIECE_ROWS = 16, PIECE_COLUMNS = 64; // that a warp stores at once
static const int PART = PIECE_COLUMNS / 2; // columns: a piece is two parts of the tile

// The block's shared memory: stages, pieces of the eight consumer warps, mbarriers.
static const int SUMS = 8 * PIECE_ROWS * PIECE_COLUMNS;
template <int COLUMNS> static constexpr int SHARED = Ring<COLUMNS>::SHARED + SUMS * 4;
static_assert(SHARED<256> <= 227 * 1024 && SHARED<64> <= 227 * 1024, "a block's shared memory");

struct Maps {
    TensorMap a, b;
};
// What the kernel is told besides the product. splits: ranges of l; above 1, c is their scratch
// memory, (splits,rows,columns).
struct Plan3 {
    Maps main, adapter;
    int splits;
};

// ---- tiles ----
static __host__ __device__ int ceil_of(int a, int b) { return a / b + (a % b > 0); }
static __host__ __device__ int steps_of(const Product &p) {
    return ceil_of(p.main.depth, DEPTH3) + ceil_of(p.adapter.depth, DEPTH3);
}

// One tile of one split: its first row and column, its steps.
struct Work {
    int row, column, split, step, end;
};

// Number `index` of all: split by split, in bands of GROUP3 rows of tiles, column by column.
template <int COLUMNS>
static __device__ Work work_at(const Product &p, int splits, int index) {
    const int down = ceil_of(p.rows, ROWS3), across = ceil_of(p.columns, COLUMNS);
    const int tile = index % (down * across), split = index / (down * across);
    const int first = tile / (GROUP3 * across) * GROUP3, inside = tile % (GROUP3 * across);
    const int height = down - first < GROUP3 ? down - first : GROUP3; // of this band
    const int steps = steps_of(p);
    return {(first + inside % height) * ROWS3, inside / height * COLUMNS, split,
            (int)((long long)split * steps / splits),
            (int)((long long)(split + 1) * steps / splits)};
}
template <int COLUMNS> static __host__ __device__ int work_count(const Product &p, int splits) {
    return ceil_of(p.rows, ROWS3) * ceil_of(p.columns, COLUMNS) * splits;
}

// ---- the producer ----
// Begins to load what a stage holds of one operand: `extent` of the kept index from `outer` on, and
// DEPTH3 of the reduction from `inner` on. K-major: one box of `extent` rows; MN-major: boxes of
// 64.
template <bool IS_MN>
static __device__ void load_operand(uint32_t to, const TensorMap *map, int extent, int outer,
                                    int inner, uint32_t full) {
    if (IS_MN) {
        for (int chunk = 0; chunk < extent / 64; chunk++) {
            tma_load(to + chunk * RING_HALF, map, outer + 64 * chunk, inner, full);
        }
    } else {
        tma_load(to, map, inner, outer, full);
    }
}

template <int COLUMNS, bool A_MN, bool B_MN>
static __device__ void produce(const Product &p, const Plan3 &plan, Ring<COLUMNS> ring) {
    const int count = work_count<COLUMNS>(p, plan.splits), steps = ceil_of(p.main.depth, DEPTH3);
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        const Work work = work_at<COLUMNS>(p, plan.splits, index);
        for (int step = work.step; step < work.end; step++) {
            const Maps *maps = step < steps ? &plan.main : &plan.adapter;
            const int inner = (step < steps ? step : step - steps) * DEPTH3;
            mbar_wait(ring.empty(), ring.phase ^ 1); // the consumers gave it back
            mbar_arrive_expect(ring.full(), Ring<COLUMNS>::BYTES);
            load_operand<A_MN>(ring.a(), &maps->a, ROWS3, work.row, inner, ring.full());
            load_operand<B_MN>(ring.b(), &maps->b, COLUMNS, work.column, inner, ring.full());
            ring.next();
        }
    }
}

// ---- the consumers ----
// Where a warp's piece holds quad j of row i. A write touches quads 2x and 2x + 1 of four rows at
// once, a read eight neighbouring quads of a row: both all 32 banks.
static __device__ int place_of_quad(int i, int j) {
    return i * PIECE_COLUMNS + (j ^ (i % 4 * 2)) * QUAD;
}

static __device__ void add_sums(float (&z)[QUAD], const float *sums) {
    const uint4 bits = ld16(sums);
    z[0] += __uint_as_float(bits.x), z[1] += __uint_as_float(bits.y);
    z[2] += __uint_as_float(bits.z), z[3] += __uint_as_float(bits.w);
}

// Finishes and stores what the warp's piece holds: 16 rows from `row` on, PART columns from `low`
// on and as many from `high` on; row_of_c: where `row` lies in c. A lane has BATCH quads at a time,
// two rows apart: all they need is loaded before the first is finished.
template <typename Out>
static __device__ void finish_piece(const Product &p, const float *piece, int row, int low,
                                    int high, int row_of_c) {
    const int ACROSS = PIECE_COLUMNS / QUAD, DOWN = WARP / ACROSS, BATCH = 4;
    const int lane = threadIdx.x % WARP, quad = lane % ACROSS;
    const int j = (quad < ACROSS / 2 ? low : high) + quad % (ACROSS / 2) * QUAD;
    const int left = j < p.columns ? p.rows - row : 0; // rows from `row` on
    const bool turns = sizeof(Out) == sizeof(bf16) && p.epilogue.kind == EPILOGUE_ROPE;
    const bool is_short = sizeof(Out) > sizeof(bf16) || turns || p.epilogue.kind == EPILOGUE_NONE;
    for (int i0 = lane / ACROSS; i0 < PIECE_ROWS; i0 += BATCH * DOWN) {
        QuadBits<Out> start[BATCH] = {};
        QuadEnd<Out> end[BATCH] = {};
        QuadTurn turn[BATCH] = {};
        UNROLL for (int b = 0; b < BATCH; b++) {
            const int i = i0 + b * DOWN;
            if (i < left) {
                start[b] = start_bits<Out>(p, row_of_c + i, j);
                if (turns) {
                    turn[b] = load_turn(p, row + i, j);
                } else if (!is_short) {
                    end[b] = load_end<Out>(p, row_of_c + i, j);
                }
            }
        }
        if (is_short) {
            UNROLL for (int b = 0; b < BATCH; b++) {
                const int i = i0 + b * DOWN;
                float z[QUAD];
                widen_quad<Out>(z, start[b]);
                add_sums(z, piece + place_of_quad(i, quad)); // those of rows beyond C are zeros
                if (turns) {
                    turn_quad<Out>(z, p, turn[b]);
                }
                if (i < left) {
                    store_quad<Out>(p, p.c, (size_t)(row_of_c + i) * p.columns + j, z,
                                    quad_length(p, j));
                }
            }
        } else if constexpr (sizeof(Out) == sizeof(bf16)) {
            for (int k = 0; k < BATCH && i0 + k * DOWN < left; k++) { // the long text only once
                QuadBits<Out> start_k = start[0];
                QuadEnd<Out> end_k = end[0];
                UNROLL for (int b = 1; b < BATCH; b++) { // registers have no index but constants
                    start_k = k == b ? start[b] : start_k;
                    end_k = k == b ? end[b] : end_k;
                }
                const int i = i0 + k * DOWN;
                float z[QUAD];
                widen_quad<Out>(z, start_k);
                add_sums(z, piece + place_of_quad(i, quad));
                finish_quad<Out>(p, row_of_c + i, j, z, end_k);
            }
        }
    }
}

// Stores the warp's 16 rows of a tile, two parts at a time: neighbours, or where heads wider than a
// piece turn, parts of their halves. acc[4x + e] is row g + 8 (e / 2), column 8x + 2i + e % 2 of
// them (g = lane / 4, i = lane % 4).
template <typename Out, int COUNT>
static __device__ void store(const float (&acc)[COUNT], const Product &p, float *piece, int row,
                             int column, int row_of_c) {
    const int lane = threadIdx.x % WARP, EACH = PART / 2; // sums of a lane in a part
    const int apart = p.partner && p.epilogue.head_width > PIECE_COLUMNS
                          ? p.epilogue.head_width / PIECE_COLUMNS
                          : 1; // parts from one to that beside it in the piece
    for (int turn = 0; turn < COUNT / EACH / 2; turn++) {
        const int low = turn / apart * 2 * apart + turn % apart, high = low + apart;
        if (column + low * PART >= p.columns) {
            break;
        }
        UNROLL for (int part = 0; part < COUNT / EACH; part++) {
            if (part == low || part == high) { // no index of registers but constants
                float *half = piece + (part == high ? PART : 0);
                UNROLL for (int k = 0; k < EACH; k += 2) {
                    const int i = lane / 4 + k / 2 % 2 * 8, quad = k / 4 * 2 + lane % 4 / 2;
                    st8(half + place_of_quad(i, quad) + lane % 2 * 2,
                        make_uint2(__float_as_uint(acc[part * EACH + k]),
                                   __float_as_uint(acc[part * EACH + k + 1])));
                }
            }
        }
        __syncwarp(); // the piece is whole
        finish_piece<Out>(p, piece, row, column + low * PART, column + high * PART, row_of_c);
        __syncwarp(); // it has been read
    }
}

template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static __device__ void consume(const Product &p, int splits, Ring<COLUMNS> ring, float *pieces) {
    const int warp = consumer_warp();
    const int half = warp / 4, count = work_count<COLUMNS>(p, splits);
    for (int index = blockIdx.x; index < count; index += gridDim.x) {
        const Work work = work_at<COLUMNS>(p, splits, index);
        float acc[COLUMNS / 2];
        multiply<bf16, A_MN, B_MN>(acc, ring, work.end - work.step, half);
        const int row = work.row + PIECE_ROWS * warp;
        store<Out>(acc, p, pieces + warp * PIECE_ROWS * PIECE_COLUMNS, row, work.column,
                   work.split * p.rows + row);
    }
}

// ---- the kernel ----
// Launch: as many blocks as multiprocessors, or tiles if fewer; RING_BLOCK threads; Ring::SHARED
// bytes of shared memory. One block per multiprocessor; see setmaxnreg for the registers.
template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static __global__ void __launch_bounds__(RING_BLOCK, 1)
    matmul_kernel3(const __grid_constant__ Product p, const __grid_constant__ Plan3 plan) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, stages, uint8_t, Ring<COLUMNS>::STAGES * Ring<COLUMNS>::BYTES, 1024);
    SMEM_TAKE(carver, pieces, float, SUMS, 16);
    SMEM_TAKE(carver, bars, uint64_t, 2 * Ring<COLUMNS>::STAGES, 8);
    const Ring<COLUMNS> ring = ring_open<COLUMNS>(smem_u32(stages), smem_u32(bars));
    if (threadIdx.x < WARPGROUP) {
        registers_release<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            produce<COLUMNS, A_MN, B_MN>(p, plan, ring);
        }
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        consume<Out, COLUMNS, A_MN, B_MN>(p, plan.splits, ring, pieces);
    }
}

// ---- launchers ----
// The maps of two factors, with the boxes that load_operand asks for.
template <bool A_MN, bool B_MN>
static void factor_maps(Maps *maps, const Product &p, const Factors &f, int width) {
    const size_t rows = p.rows, columns = p.columns, depth = f.depth;
    tensor_map(&maps->a, f.a, A_MN ? depth : rows, A_MN ? rows : depth, A_MN ? f.a_inner : f.a_row,
               A_MN ? DEPTH3 : ROWS3);
    tensor_map(&maps->b, f.b, B_MN ? depth : columns, B_MN ? columns : depth,
               B_MN ? f.b_inner : f.b_column, B_MN ? DEPTH3 : width);
}

template <typename Out, int COLUMNS, bool A_MN, bool B_MN>
static void launch(Device *dev, Product p, int splits) {
    Plan3 plan = {};
    plan.splits = splits;
    factor_maps<A_MN, B_MN>(&plan.main, p, p.main, COLUMNS);
    if (p.adapter.depth > 0) {
        factor_maps<A_MN, B_MN>(&plan.adapter, p, p.adapter, COLUMNS);
    }
    p.has_quads = has_quads(p, sizeof(bf16), sizeof(Out));
    p.partner = partner_of(p.epilogue, PIECE_COLUMNS);
    const int count = work_count<COLUMNS>(p, splits), processors = device_processors(dev);
    SMEM_ALLOW((matmul_kernel3<Out, COLUMNS, A_MN, B_MN>), SHARED<COLUMNS>);
    LAUNCH((matmul_kernel3<Out, COLUMNS, A_MN, B_MN>), count < processors ? count : processors,
           RING_BLOCK, SHARED<COLUMNS>, device_stream(dev), p, plan);
}

// How long C takes in tiles of a width, in steps of a tile 256 wide: rounds of the card's
// multiprocessors. A narrower step takes more than its share: it copies more for what it
// multiplies.
static double time_of(const Product &p, int width, int splits, int processors) {
    const int tiles = ceil_of(p.rows, ROWS3) * ceil_of(p.columns, width);
    const double step = width == 256 ? 1 : width == 128 ? 0.6 : 0.4;
    return (double)ceil_of(tiles * splits, processors) * ceil_of(steps_of(p), splits) * step;
}

// Tiles hold whole heads that turn by halves, which are at most 256 wide.
static int width_of(const Product &p, int splits, int processors) {
    const int least = partner_of(p.epilogue, 256) > 0 ? p.epilogue.head_width : 0;
    int best = 256;
    for (int width = 128; width >= 64 && width >= least; width /= 2) {
        if (time_of(p, width, splits, processors) < time_of(p, best, splits, processors)) {
            best = width;
        }
    }
    return best;
}

template <typename Out, bool A_MN, bool B_MN>
static void launch_width(Device *dev, const Product &p, int width, int splits) {
    (width == 256   ? launch<Out, 256, A_MN, B_MN>
     : width == 128 ? launch<Out, 128, A_MN, B_MN>
                    : launch<Out, 64, A_MN, B_MN>)(dev, p, splits);
}

// bwd_weight: width and number of splits of least time on the 132 multiprocessors of an H100 or
// H200, whatever the card has, so that results depend on the sizes alone. Sums in between are
// written and read once more, 8 bytes at 4.3 TB/s, by a second launch; a step takes 0.70 us at the
// practical peak of 790 TFLOP/s.
static const int H100_PROCESSORS = 132, SPLITS_MOST = 16;
static const double STEP_SUMS = 375000; // f32 written and read in the time of a step
static const double JOIN_STEPS = 4;     // of the second launch

extern "C" int matmul_sm90_splits(const Product &p) {
    int best_splits = 1;
    double best = time_of(p, width_of(p, 1, H100_PROCESSORS), 1, H100_PROCESSORS);
    for (int splits = 2; splits <= SPLITS_MOST && splits <= steps_of(p); splits++) {
        const int width = width_of(p, splits, H100_PROCESSORS);
        const double time = time_of(p, width, splits, H100_PROCESSORS) + JOIN_STEPS +
                            (splits + 1) * ((double)p.rows * p.columns / STEP_SUMS);
        if (time < best) {
            best = time, best_splits = splits;
        }
    }
    return best_splits;
}

static void weight_product(Device *dev, Product p) {
    const int splits = matmul_sm90_splits(p), width = width_of(p, splits, H100_PROCESSORS);
    if (splits == 1) {
        launch_width<float, true, true>(dev, p, width, 1);
        return;
    }
    float *const c = (float *)p.c;
    const size_t n = (size_t)p.rows * p.columns;
    p.c = device_scratch(dev, splits * n * sizeof(float));
    p.is_accumulated = false;
    launch_width<float, true, true>(dev, p, width, splits);
    join_splits(dev, c, (const float *)p.c, n, splits);
}

extern "C" void matmul_sm90(Device *dev, const Product &p, bool a_mn, bool b_mn) {
    CHECK(a_mn <= b_mn, "a_mn=%d b_mn=%d", a_mn, b_mn);
    const int width = width_of(p, 1, device_processors(dev));
    if (a_mn) {
        weight_product(dev, p);
    } else if (b_mn) {
        launch_width<bf16, false, true>(dev, p, width, 1);
    } else {
        launch_width<bf16, false, false>(dev, p, width, 1);
    }
}
