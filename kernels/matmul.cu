// matmul: the linear layer and its gradients on CUDA; see matmul.h. Here M, N, K are BLAS's.
//
// All three are C[i,j] = start[i,j] + sum_l A[i,l] B[l,j] with other strides (Product in
// matmul_parts.cuh); an adapter's terms are a second pair of factors, over which the sums go on:
//
//   product      C                 A                B                     reduction l
//   fwd          out (M,N)         inp (M,K)        weight' (K,N)         k
//   bwd_input    dinp (M,K)        dout (M,N)       weight (N,K)          n
//   bwd_weight   dweight (N,K)     dout' (N,M)      inp (M,K)             m
//
// kernel1, for f32, keeps the contract's order: every element is one chain over l ascending, so
// that it gives the bits of the CPU, whatever the shape. A block computes a tile of C; pieces of A
// and B, DEPTH long, lie in shared memory.
//
// kernel2 is for 16-bit types on tensor cores (mma m16n8k16, sm_80): the products of 16 l are added
// in an order the hardware does not tell, the sums ascending in f32, whatever the tile. Tiles of A
// and B come by cp.async into a ring of STAGES stages, as they lie in memory: rows of l or columns
// of it, and ldmatrix transposes where needed. 16-byte chunks are swizzled so that the eight rows
// ldmatrix reads at once lie in different banks. Edges are filled with zeros. Factors whose rows do
// not begin at multiples of 16 bytes are gathered element by element.
// A warp has 64 x 64 of a tile 128 wide: per 64^2 x 16 products it reads 4 KB of shared memory, 32
// of the 64 cycles that an A100's tensor cores take for them; parts of 64 x 32 would take 24 of 32,
// and the copies into the ring a quarter more. Products at most 64 wide (an adapter's low side, a
// head) take tiles of 64. Blocks go through C in groups of GROUP tile rows, so that those that run
// together share rows of A and columns of B in the second cache.
//
// bwd_weight of a small layer has few tiles and a long sum: kernel2 then cuts l into `splits`
// ranges, as many as fill the card; the sizes decide. Their sums wait in scratch memory, and
// join_splits adds them in order. The forward and bwd_input never split.
// On Hopper bf16 products whose rows, of the adapter too, begin at multiples of 16 bytes are those
// of matmul_sm90.cu. Which kernel runs does not depend on the number of rows, so that a row's
// result does not depend on its batch. Left out: packed weights.
//
// EPILOGUE_ROPE. Every kernel finishes C by quads of neighbours, a lane each, so interleaved pairs
// lie in a quad, and pairs of halves in two quads of one row, which lanes of a warp exchange
// (matmul_parts.cuh). That is where half a head is whole quads and the columns of a tile are whole
// heads: 64 columns in f32, 64 or 128 in 16 bits, 256 on Hopper. Other heads, such as halves of 80,
// are turned by rope_fwd in the finished rows.
//
//   version  idea                                    shape  time                  % of peak
//   kernel1  tiles through shared memory, f32 chain  -      not yet run on a GPU  -
//   kernel2  128x128x32, cp.async, ldmatrix, mma     -      not yet run on a GPU  -
//   bias1    256 rows to one, until one is left      -      not yet run on a GPU  -
#include "matmul.h"

#include "device_cuda.cuh"
#include "matmul_epilogue.h"
#include "matmul_parts.cuh"
#include "matmul_sm90.cuh"

// ---- kernel 1 ----
static const int TILE = 64;  // rows and columns of a tile
static const int DEPTH = 16; // of a piece
static const int EACH = QUAD; // rows and columns of a thread
static const int BLOCK = (TILE / EACH) * (TILE / EACH);
static_assert(TILE * DEPTH % BLOCK == 0, "the threads share out a piece evenly");

// piece[l][i] = X[i0 + i, l0 + l] for i < TILE, l < DEPTH; zero outside, but nothing is written
// that only idle threads would read. Neighbouring threads take neighbouring elements in memory.
static __device__ void load_piece(float (*piece)[TILE], const float *x, size_t outer, size_t inner,
                                  int i0, int l0, int rows, int depth) {
    for (int k = threadIdx.x; k < TILE * DEPTH; k += BLOCK) {
        const int i = inner == 1 ? k / DEPTH : k % TILE, l = inner == 1 ? k % DEPTH : k / TILE;
        if (i0 + i < (rows + EACH - 1) / EACH * EACH && l0 + l < depth) {
            piece[l][i] = i0 + i < rows ? x[(i0 + i) * outer + (l0 + l) * inner] : 0.0f;
        }
    }
}

// The chains of this thread's sums go on over the factors' l.
static __device__ void add_products(float (&sum)[EACH][EACH], const Product &p, const Factors &f,
                                    float (*a_piece)[TILE], float (*b_piece)[TILE], int i0, int j0,
                                    bool is_idle) {
    const int row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
    for (int l0 = 0; l0 < f.depth; l0 += DEPTH) {
        load_piece(a_piece, (const float *)f.a, f.a_row, f.a_inner, i0, l0, p.rows, f.depth);
        load_piece(b_piece, (const float *)f.b, f.b_column, f.b_inner, j0, l0, p.columns, f.depth);
        __syncthreads(); // the pieces are whole
        const int depth = is_idle ? 0 : f.depth - l0 < DEPTH ? f.depth - l0 : DEPTH;
        for (int l = 0; l < depth; l++) {
            float a[EACH], b[EACH];
            for (int e = 0; e < EACH; e++) {
                a[e] = a_piece[l][row + e];
                b[e] = b_piece[l][column + e];
            }
            for (int i = 0; i < EACH; i++) {
                for (int j = 0; j < EACH; j++) {
                    sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
                }
            }
        }
        __syncthreads(); // everybody is done with the pieces
    }
}

// Launch: (columns / TILE, rows / TILE) blocks of BLOCK threads. 8 KB of shared memory.
static __global__ void matmul_kernel1(Product p) {
    SMEM_STATIC(a_piece, float, [DEPTH][TILE]);
    SMEM_STATIC(b_piece, float, [DEPTH][TILE]);
    const int i0 = blockIdx.y * TILE, j0 = blockIdx.x * TILE;
    const int i = i0 + threadIdx.x / (TILE / EACH) * EACH;
    const int j = j0 + threadIdx.x % (TILE / EACH) * EACH;
    const bool is_idle = i >= p.rows || j >= p.columns; // but meets the others
    float sum[EACH][EACH] = {};
    UNROLL for (int k = 0; k < EACH; k++) {
        if (!is_idle && i + k < p.rows) {
            start_quad<float>(sum[k], p, i + k, j);
        }
    }
    add_products(sum, p, p.main, a_piece, b_piece, i0, j0, is_idle);
    add_products(sum, p, p.adapter, a_piece, b_piece, i0, j0, is_idle);
    UNROLL for (int k = 0; k < EACH; k++) {
        const bool is_inside = !is_idle && i + k < p.rows;
        if (p.epilogue.kind == EPILOGUE_ROPE) {
            turn_quad<float>(sum[k], p, is_inside ? load_turn(p, i + k, j) : QuadTurn{});
        }
        if (is_inside) {
            finish_quad<float>(p, i + k, j, sum[k], load_end<float>(p, i + k, j));
        }
    }
}

// ---- kernel 2 ----
static const int ROWS2 = 128;   // of a tile of C
static const int DEPTH2 = 32;   // of a stage
static const int STAGES = 4;
static const int BLOCK2 = 128;  // 2 x 2 warps
static const int WARP_ROWS = ROWS2 / 2;
static const int CHUNK = 8;     // elements of 16 bytes
static const int GROUP = 8;     // tile rows that neighbouring blocks go through together
// Bytes of shared memory: the ring, and later all sums of the tile.
static constexpr size_t ring_bytes(int columns) {
    return (size_t)STAGES * (ROWS2 + columns) * DEPTH2 * 2;
}
static_assert(ring_bytes(128) >= ROWS2 * 128 * sizeof(float), "the sums take the ring's place");
static_assert(ring_bytes(64) >= ROWS2 * 64 * sizeof(float), "the sums take the ring's place");

// What kernel2 is told besides.
struct Plan2 {
    bool main_aligned[2], adapter_aligned[2]; // of A and B: rows begin at multiples of 16 bytes
    int splits;                               // ranges of l; above 1, c is their scratch memory
};

// Where a stage holds element (outer, inner) of an operand SIDE outers wide, inner being the
// reduction; the first element of a chunk. Chunks of eight neighbouring rows of the memory land in
// different banks.
template <int SIDE, bool IS_INNER> static __device__ int place_of(int outer, int inner) {
    return IS_INNER ? outer * DEPTH2 + ((inner / CHUNK ^ outer / 2) % 4) * CHUNK
                    : inner * SIDE + (outer / CHUNK ^ inner % 8) * CHUNK;
}

// A chunk of which n elements (0 .. CHUNK) are there, gathered; zeros behind them.
template <typename T> static __device__ uint4 gather_chunk(const T *from, int n) {
    uint32_t word[4] = {};
    UNROLL for (int k = 0; k < CHUNK; k++) {
        if (k < n) {
            word[k / 2] |= (uint32_t)from[k].bits << k % 2 * 16;
        }
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

// Begins to load SIDE x DEPTH2 elements of an operand from (outer0, inner0); zeros past its edges.
// IS_INNER: neighbours in memory are neighbours in the reduction; leading: elements from one row of
// the memory to the next. A thread's chunks lie one below the other.
template <typename T, int SIDE, bool IS_INNER>
static __device__ void load_side(uint16_t *to, const T *x, size_t leading, int outer0, int inner0,
                                 int outers, int inners, bool is_aligned) {
    const int ACROSS = (IS_INNER ? DEPTH2 : SIDE) / CHUNK, ROWS = BLOCK2 / ACROSS; // of a turn
    const int across = threadIdx.x % ACROSS * CHUNK;
    UNROLL for (int turn = 0; turn < SIDE * DEPTH2 / CHUNK / BLOCK2; turn++) {
        const int down = threadIdx.x / ACROSS + turn * ROWS;
        const int outer = IS_INNER ? down : across, inner = IS_INNER ? across : down;
        const bool is_inside = outer0 + outer < outers && inner0 + inner < inners;
        const size_t row = (IS_INNER ? outer0 : inner0) + down;
        const T *from = x + row * leading + (IS_INNER ? inner0 : outer0) + across;
        uint16_t *chunk = to + place_of<SIDE, IS_INNER>(outer, inner);
        if (is_aligned) {
            cp_async16(smem_u32(chunk), is_inside ? from : x, is_inside ? 16 : 0);
        } else {
            const int left = IS_INNER ? inners - inner0 - inner : outers - outer0 - outer;
            st16(chunk, gather_chunk(from, !is_inside ? 0 : left < CHUNK ? left : CHUNK));
        }
    }
}

// The 16 x 16 fragment of A at (outer, inner) of a stage.
template <bool IS_INNER>
static __device__ void load_a(uint32_t (&a)[4], uint32_t stage, int outer, int inner) {
    const int lane = threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
    if (IS_INNER) {
        ldmatrix_x4(a, stage + 2 * place_of<ROWS2, true>(outer + matrix % 2 * 8 + row,
                                                         inner + matrix / 2 * 8));
    } else {
        ldmatrix_x4_trans(a, stage + 2 * place_of<ROWS2, false>(outer + matrix % 2 * 8,
                                                                inner + matrix / 2 * 8 + row));
    }
}

// Two 16 x 8 fragments of B, side by side: b[0], b[1] and b[2], b[3].
template <int COLUMNS, bool IS_INNER>
static __device__ void load_b(uint32_t (&b)[4], uint32_t stage, int outer, int inner) {
    const int lane = threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
    if (IS_INNER) {
        ldmatrix_x4(b, stage + 2 * place_of<COLUMNS, true>(outer + matrix / 2 * 8 + row,
                                                           inner + matrix % 2 * 8));
    } else {
        ldmatrix_x4_trans(b, stage + 2 * place_of<COLUMNS, false>(outer + matrix / 2 * 8,
                                                                  inner + matrix % 2 * 8 + row));
    }
}

static __device__ void mma(bf16, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(acc, a, b);
}
static __device__ void mma(f16, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_f16(acc, a, b);
}

// The products of one stage, for this warp's part of C: acc[i][j] is the fragment of 16 x 8 sums
// (layout in ptx.cuh).
template <typename T, int COLUMNS, bool A_INNER, bool B_INNER>
static __device__ void stage_products(float (&acc)[4][COLUMNS / 16][4], uint32_t a_stage,
                                      uint32_t b_stage, int row, int column) {
    for (int inner = 0; inner < DEPTH2; inner += 16) {
        uint32_t a[4][4], b[COLUMNS / 32][4];
        UNROLL for (int i = 0; i < 4; i++) {
            load_a<A_INNER>(a[i], a_stage, row + 16 * i, inner);
        }
        UNROLL for (int j = 0; j < COLUMNS / 32; j++) {
            load_b<COLUMNS, B_INNER>(b[j], b_stage, column + 16 * j, inner);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            UNROLL for (int j = 0; j < COLUMNS / 16; j++) {
                const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                mma(T(), acc[i][j], a[i], pair);
            }
        }
    }
}

// Begins to load the stage of DEPTH2 elements from l on.
template <typename T, int COLUMNS, bool A_INNER, bool B_INNER>
static __device__ void load_stage(uint16_t *stage, const Product &p, const Factors &f,
                                  const bool (&is_aligned)[2], int i0, int j0, int l) {
    load_side<T, ROWS2, A_INNER>(stage, (const T *)f.a, A_INNER ? f.a_row : f.a_inner, i0, l,
                                 p.rows, f.depth, is_aligned[0]);
    load_side<T, COLUMNS, B_INNER>(stage + ROWS2 * DEPTH2, (const T *)f.b,
                                   B_INNER ? f.b_column : f.b_inner, j0, l, p.columns, f.depth,
                                   is_aligned[1]);
}

static HOST_DEVICE int ceil_div(int a, int b) { return a / b + (a % b > 0); }

// Where the sums of a tile wait for the epilogue: fragments of eight rows go to different banks.
template <int COLUMNS> static __device__ int place_of_sum(int row, int column) {
    return row * COLUMNS + (column ^ row % 8 * 8);
}

// A_INNER, B_INNER: the operand's neighbours in memory are neighbours in the reduction.
// Launch: one block of BLOCK2 threads per tile and split. ring_bytes(COLUMNS) of dynamic shared
// memory: 64 KB for 128. Two blocks per multiprocessor.
template <typename T, typename Out, int COLUMNS, bool A_INNER, bool B_INNER>
static __global__ void __launch_bounds__(BLOCK2, 2) matmul_kernel2(Product p, Plan2 plan) {
    const int STAGE = (ROWS2 + COLUMNS) * DEPTH2; // elements
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, ring, uint16_t, STAGES * STAGE, 128);
    const int tile_rows = ceil_div(p.rows, ROWS2), tile_columns = ceil_div(p.columns, COLUMNS);
    // Blocks of a group go down its rows first.
    const int in_group = blockIdx.x % (GROUP * tile_columns);
    const int group_row = blockIdx.x / (GROUP * tile_columns) * GROUP;
    const int high = tile_rows - group_row < GROUP ? tile_rows - group_row : GROUP;
    const int i0 = (group_row + in_group % high) * ROWS2, j0 = in_group / high * COLUMNS;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int row = warp / 2 * WARP_ROWS, column = warp % 2 * (COLUMNS / 2);
    const int main_steps = ceil_div(p.main.depth, DEPTH2);
    const int all_steps = main_steps + ceil_div(p.adapter.depth, DEPTH2);
    const int share = ceil_div(all_steps, plan.splits), first = blockIdx.y * share;
    const int steps = all_steps - first < share ? all_steps - first : share; // below 0: none
    float acc[4][COLUMNS / 16][4] = {};
    for (int step = 1 - STAGES; step < steps; step++) {
        if (step >= 0) {
            cp_async_wait<STAGES - 2>(); // this thread's part of the stage is there
            __syncthreads(); // everybody's is, and everybody is done with the stage before
        }
        const int next = step + STAGES - 1, at = first + next;
        uint16_t *stage = ring + next % STAGES * STAGE;
        if (next < steps && at < main_steps) {
            load_stage<T, COLUMNS, A_INNER, B_INNER>(stage, p, p.main, plan.main_aligned, i0, j0,
                                                     at * DEPTH2);
        } else if (next < steps) {
            load_stage<T, COLUMNS, A_INNER, B_INNER>(stage, p, p.adapter, plan.adapter_aligned, i0,
                                                     j0, (at - main_steps) * DEPTH2);
        }
        cp_async_commit(); // an empty group keeps the count
        if (step >= 0) {
            const uint32_t a_stage = smem_u32(ring + step % STAGES * STAGE);
            stage_products<T, COLUMNS, A_INNER, B_INNER>(acc, a_stage,
                                                         a_stage + 2 * ROWS2 * DEPTH2, row, column);
        }
    }
    cp_async_wait<0>();
    __syncthreads(); // everybody is done with the ring
    float *sums = (float *)ring;
    UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int j = 0; j < COLUMNS / 16; j++) {
            UNROLL for (int e = 0; e < 4; e += 2) {
                const int place = place_of_sum<COLUMNS>(row + 16 * i + lane / 4 + e * 4,
                                                        column + 8 * j + lane % 4 * 2);
                st8(sums + place, make_uint2(__float_as_uint(acc[i][j][e]),
                                             __float_as_uint(acc[i][j][e + 1])));
            }
        }
    }
    __syncthreads(); // the sums are whole
    p.c = (Out *)p.c + (size_t)blockIdx.y * p.rows * p.columns; // of this split
    for (int k = threadIdx.x; k < ROWS2 * COLUMNS / QUAD; k += BLOCK2) {
        const int i = k / (COLUMNS / QUAD), j = k % (COLUMNS / QUAD) * QUAD;
        const bool is_inside = i0 + i < p.rows && j0 + j < p.columns;
        float z[QUAD] = {};
        if (is_inside) {
            const uint4 sum = ld16(sums + place_of_sum<COLUMNS>(i, j));
            start_quad<Out>(z, p, i0 + i, j0 + j);
            z[0] += __uint_as_float(sum.x), z[1] += __uint_as_float(sum.y);
            z[2] += __uint_as_float(sum.z), z[3] += __uint_as_float(sum.w);
        }
        if (p.epilogue.kind == EPILOGUE_ROPE) {
            turn_quad<Out>(z, p, is_inside ? load_turn(p, i0 + i, j0 + j) : QuadTurn{});
        }
        if (is_inside) {
            finish_quad<Out>(p, i0 + i, j0 + j, z, load_end<Out>(p, i0 + i, j0 + j));
        }
    }
}

// ---- the bias ----
static const int BIAS_ROWS = 256; // that a block adds up
static const int BIAS_COLUMNS = 64;

// out[chunk,n] (+)= sum of x[m,n] over the BIAS_ROWS rows of the chunk: 16 sums of rows 16 apart,
// then those in order. Launch: (N / BIAS_COLUMNS, M / BIAS_ROWS) blocks of BLOCK threads, 4 KB of
// shared memory.
template <typename T>
static __global__ void matmul_bias1(float *out, const T *x, int M, int N, bool is_accumulated) {
    const int STEP = BLOCK * QUAD / BIAS_COLUMNS;
    SMEM_STATIC(part, float, [STEP][BIAS_COLUMNS]);
    const int column = threadIdx.x % (BIAS_COLUMNS / QUAD) * QUAD;
    const int first = threadIdx.x / (BIAS_COLUMNS / QUAD), n = blockIdx.x * BIAS_COLUMNS + column;
    const int m0 = blockIdx.y * BIAS_ROWS, m1 = M - m0 < BIAS_ROWS ? M : m0 + BIAS_ROWS;
    Product like_x = {};
    like_x.has_quads = N % QUAD == 0 && (size_t)x % (QUAD * sizeof(T)) == 0;
    float sum[QUAD] = {};
    for (int m = m0 + first; m < m1 && n < N; m += STEP) {
        float row[QUAD];
        load_quad<T>(row, like_x, x, (size_t)m * N + n, N - n < QUAD ? N - n : QUAD);
        UNROLL for (int k = 0; k < QUAD; k++) { sum[k] += row[k]; }
    }
    UNROLL for (int k = 0; k < QUAD; k++) { part[first][column + k] = sum[k]; }
    __syncthreads(); // the parts are whole
    const int own = blockIdx.x * BIAS_COLUMNS + threadIdx.x;
    if (threadIdx.x < BIAS_COLUMNS && own < N) {
        float *to = out + (size_t)blockIdx.y * N + own;
        float total = 0;
        for (int k = 0; k < STEP; k++) {
            total += part[k][threadIdx.x];
        }
        *to = is_accumulated ? *to + total : total;
    }
}

// Adds up chunks of rows until one is left; the sums in between lie in part.
template <typename T>
static void sum_rows(Device *dev, float *dbias, const T *x, int M, int N, float *part) {
    const int chunks = ceil_div(M, BIAS_ROWS);
    const dim3 grid((unsigned)ceil_div(N, BIAS_COLUMNS), (unsigned)chunks);
    const bool is_last = chunks == 1;
    LAUNCH((matmul_bias1<T>), grid, BLOCK, 0, device_stream(dev), is_last ? dbias : part, x, M, N,
           is_last);
    if (!is_last) {
        sum_rows<float>(dev, dbias, part, chunks, N, part + (size_t)chunks * N);
    }
}

// ---- launchers ----
static const int SPLIT_BLOCKS = 216; // two for each multiprocessor of an A100
static const int SPLIT_STEPS = 16;   // of a split, at least

// Whether rows of the memory begin at multiples of 16 bytes.
static bool is_aligned(const void *x, size_t leading) {
    return is_packable(x) && leading % CHUNK == 0;
}

// Whether TMA can copy factors: all rows begin at multiples of 16 bytes.
static bool are_aligned(const Factors &f, bool a_inner, bool b_inner) {
    return is_aligned(f.a, a_inner ? f.a_row : f.a_inner) &&
           is_aligned(f.b, b_inner ? f.b_column : f.b_inner);
}
// Whether the kernel of matmul_sm90.cu takes a product: not a matter of the number of rows.
template <typename T>
static bool is_for_sm90(const Device *dev, const Product &p, bool a_inner, bool b_inner) {
    return std::is_same<T, bf16>::value && device_arch(dev) == 90 &&
           are_aligned(p.main, a_inner, b_inner) &&
           (p.adapter.depth == 0 || are_aligned(p.adapter, a_inner, b_inner));
}
// Columns of the tile of a product's kernel; the narrower tiles of matmul_sm90.cu keep whole heads.
template <typename T>
static int tile_columns(const Device *dev, const Product &p, bool a_inner, bool b_inner) {
    return sizeof(T) == 4                           ? TILE
           : is_for_sm90<T>(dev, p, a_inner, b_inner) ? 256
           : p.columns <= 64                          ? 64
                                                      : 128;
}

// Parts of the reduction of a bwd_weight by the kernel of sm_80.
static int splits_of(const Product &p, int columns) {
    const int tiles = ceil_div(p.rows, ROWS2) * ceil_div(p.columns, columns);
    const int most = ceil_div(p.main.depth, DEPTH2) / SPLIT_STEPS;
    const int splits = SPLIT_BLOCKS / tiles < most ? SPLIT_BLOCKS / tiles : most;
    return splits < 1 ? 1 : splits;
}

template <typename T, typename Out, int COLUMNS, bool A_INNER, bool B_INNER>
static void launch2(Device *dev, Product p) {
    const Factors &m = p.main, &a = p.adapter;
    const int tiles = ceil_div(p.rows, ROWS2) * ceil_div(p.columns, COLUMNS);
    Plan2 plan = {{is_aligned(m.a, A_INNER ? m.a_row : m.a_inner),
                   is_aligned(m.b, B_INNER ? m.b_column : m.b_inner)},
                  {is_aligned(a.a, A_INNER ? a.a_row : a.a_inner),
                   is_aligned(a.b, B_INNER ? a.b_column : a.b_inner)},
                  1};
    float *const c = (float *)p.c;
    const size_t n = (size_t)p.rows * p.columns;
    if constexpr (sizeof(Out) > sizeof(T)) { // bwd_weight
        plan.splits = splits_of(p, COLUMNS);
        if (plan.splits > 1) {
            p.c = device_scratch(dev, plan.splits * n * sizeof(float));
            p.is_accumulated = false;
        }
    }
    p.has_quads = has_quads(p, sizeof(T), sizeof(Out));
    p.partner = partner_of(p.epilogue, COLUMNS);
    const dim3 grid((unsigned)tiles, (unsigned)plan.splits);
    SMEM_ALLOW((matmul_kernel2<T, Out, COLUMNS, A_INNER, B_INNER>), ring_bytes(COLUMNS));
    LAUNCH((matmul_kernel2<T, Out, COLUMNS, A_INNER, B_INNER>), grid, BLOCK2, ring_bytes(COLUMNS),
           device_stream(dev), p, plan);
    if (plan.splits > 1) {
        join_splits(dev, c, (const float *)p.c, n, plan.splits);
    }
}

template <typename T, typename Out, bool A_INNER, bool B_INNER>
static void launch(Device *dev, Product p) {
    if constexpr (sizeof(T) == 4) {
        p.has_quads = has_quads(p, sizeof(T), sizeof(Out));
        p.partner = partner_of(p.epilogue, TILE);
        const dim3 grid((unsigned)ceil_div(p.columns, TILE), (unsigned)ceil_div(p.rows, TILE));
        LAUNCH(matmul_kernel1, grid, BLOCK, 0, device_stream(dev), p);
    } else if (is_for_sm90<T>(dev, p, A_INNER, B_INNER)) {
        matmul_sm90(dev, p, !A_INNER, !B_INNER);
    } else if (p.columns <= 64) {
        launch2<T, Out, 64, A_INNER, B_INNER>(dev, p);
    } else {
        launch2<T, Out, 128, A_INNER, B_INNER>(dev, p);
    }
}

// Heads of halves that straddle tiles or quads are turned in the finished rows: the same bits.
template <typename T> static void launch_fwd(Device *dev, DType t, Product p) {
    const MatmulEpilogue e = p.epilogue;
    const bool turns_after = e.kind == EPILOGUE_ROPE &&
                             !turns_heads(e, tile_columns<T>(dev, p, true, true));
    if (turns_after) {
        p.epilogue.kind = EPILOGUE_NONE;
    }
    launch<T, T, true, true>(dev, p);
    if (turns_after) {
        CUDA_NAME(rope_fwd)(dev, t, p.c, e.cosine, e.sine, p.rows, p.columns / e.head_width,
                            e.head_width, p.columns, e.pairing);
    }
}

static void check_sizes(int M, int N, int K) {
    CHECK(M >= 1 && N >= 1 && K >= 1, "M=%d N=%d K=%d", M, N, K);
}

// matmul_pack_bytes is 0 on a GPU: there is nothing to do.
CUDA_OP(matmul_pack)(Device *dev, DType t, void *packed, const void *weight, MatmulPack which,
                     int N, int K) {
    CHECK_POINTERS(matmul_pack, packed, weight);
    (void)dev, (void)t, (void)packed, (void)weight, (void)which, (void)N, (void)K;
}

CUDA_OP(matmul_fwd)(Device *dev, DType t, void *out, const void *inp, const void *weight,
                    const void *packed, const void *bias, int M, int N, int K,
                    bool is_accumulated, const MatmulEpilogue *epilogue) {
    check_sizes(M, N, K);
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    const MatmulEpilogue e = matmul_epilogue(epilogue, true, N);
    CHECK(!packed && !e.packed_up, "weights are not packed here");
    CHECK_POINTERS(matmul_fwd, out, inp, weight);
    const size_t rank = e.rank;
    const Product p = {{inp, weight, (size_t)K, 1, 1, (size_t)K, K},
                       {e.low, e.up, rank, 1, 1, rank, e.rank},
                       bias, out, M, N, is_accumulated, false, e, 0};
    FOR_DTYPE(t, T, launch_fwd<T>(dev, t, p));
}

CUDA_OP(matmul_bwd_input)(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                          const void *packed, int M, int N, int K, bool is_accumulated,
                          const MatmulEpilogue *epilogue) {
    check_sizes(M, N, K);
    const MatmulEpilogue e = matmul_epilogue(epilogue, false, K);
    CHECK(!packed && !e.packed_up, "weights are not packed here");
    CHECK_POINTERS(matmul_bwd_input, dinp, dout, weight);
    const Product p = {{dout, weight, (size_t)N, 1, (size_t)K, 1, N},
                       {e.low, e.up, (size_t)e.rank, 1, (size_t)K, 1, e.rank},
                       NULL, dinp, M, K, is_accumulated, false, e, 0};
    FOR_DTYPE(t, T, launch<T, T, true, false>(dev, p));
}

static Product weight_product(float *dweight, const void *dout, const void *inp, int M, int N,
                              int K) {
    return {{dout, inp, 1, (size_t)N, (size_t)K, 1, M}, {}, NULL, dweight, N, K, true, false, {},
            0};
}

template <typename T> static int splits_of_weight(const Device *dev, const Product &p) {
    return sizeof(T) == 4                         ? 1
           : is_for_sm90<T>(dev, p, false, false) ? matmul_sm90_splits(p)
                                                  : splits_of(p, p.columns <= 64 ? 64 : 128);
}

// Of the two sums of bias rows in turn, each over fewer chunks than the one before.
static size_t bias_bytes(int M, int N) {
    return 2 * (size_t)ceil_div(M, BIAS_ROWS) * N * sizeof(float);
}

// Of tensors that TMA can copy, where the sizes allow it; others are split as on sm_80.
extern "C" size_t CUDA_NAME(matmul_bwd_weight_scratch)(const Device *dev, DType t, int M, int N,
                                                       int K) {
    const Product p = weight_product(NULL, NULL, NULL, M, N, K);
    size_t splits = 1;
    FOR_DTYPE(t, T, splits = splits_of_weight<T>(dev, p));
    const size_t sums = splits > 1 ? splits * N * K * sizeof(float) : 0;
    return sums > bias_bytes(M, N) ? sums : bias_bytes(M, N);
}

// In f32 without dbias it takes no scratch memory, on which infonce relies.
CUDA_OP(matmul_bwd_weight)(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                           const void *inp, int M, int N, int K) {
    CHECK_POINTERS(matmul_bwd_weight, dout, inp);
    check_sizes(M, N, K);
    const Product p = weight_product(dweight, dout, inp, M, N, K);
    if (dweight) {
        FOR_DTYPE(t, T, launch<T, float, false, false>(dev, p));
    }
    if (dbias) {
        float *part = (float *)device_scratch(dev, bias_bytes(M, N));
        FOR_DTYPE(t, T, sum_rows<T>(dev, dbias, (const T *)dout, M, N, part));
    }
}
