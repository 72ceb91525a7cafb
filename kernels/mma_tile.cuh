// mma_tile: a tile of scores of two sets of rows on the tensor cores of sm_80. Only for *.cu.
//
//   acc[r,c] += sum_e a[r,e] b[c,e]    r < MMA_ROWS, c < COLUMNS; a, b 16-bit, sums in f32
//
// For kernels that do something else with a product than to store it. Both operands lie in memory
// with their rows along the reduction. A block of MMA_BLOCK threads reads MMA_DEPTH elements of
// each row into a stage of a ring by cp.async; what is beyond the operands' edges becomes zero.
// 16-byte chunks are swizzled so that the eight rows that ldmatrix reads at once lie in different
// banks. mma m16n8k16 adds 16 e in an order the hardware does not tell, the sums of 16 ascending:
// an element's order does not depend on COLUMNS, on its place in the tile or on the rest of the
// tile.
#ifndef JOMED_KERNELS_MMA_TILE_CUH
#define JOMED_KERNELS_MMA_TILE_CUH

#include "cuda_common.cuh"

#define MMA_BLOCK 256 // threads: eight warps
#define MMA_ROWS  128 // of a tile
#define MMA_DEPTH 32  // elements of a row in a stage
#define MMA_CHUNK 8   // elements of 16 bytes

// What depends on the width. A warp has F x F fragments of 16 x 8. The narrow tile is for what
// memory bounds: more of its stages are under way.
template <int COLUMNS> struct MmaTile {
    static_assert(COLUMNS == 128 || COLUMNS == 32, "eight warps share out the tile evenly");
    enum { F = COLUMNS == 128 ? 4 : 2, ACROSS = COLUMNS / (8 * F) }; // ACROSS: warps side by side
    enum { STAGES = COLUMNS == 128 ? 4 : 6, STAGE = (MMA_ROWS + COLUMNS) * MMA_DEPTH };
    enum { RING = STAGES * STAGE }; // elements of 2 bytes: 64 KB, 60 KB
    static_assert(F * 16 * (MMA_BLOCK / WARP / ACROSS) == MMA_ROWS, "and its rows");
};

// Where a thread's acc[i][j][k] is in the tile.
template <int COLUMNS> static __device__ inline int mma_row(int i, int k) {
    using Tile = MmaTile<COLUMNS>;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    return warp / Tile::ACROSS * 16 * Tile::F + 16 * i + lane / 4 + k / 2 * 8;
}
template <int COLUMNS> static __device__ inline int mma_column(int j, int k) {
    using Tile = MmaTile<COLUMNS>;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    return warp % Tile::ACROSS * 8 * Tile::F + 8 * j + lane % 4 * 2 + k % 2;
}

// Element of a stage where the chunk of element e of a row begins.
static __device__ inline int mma_place(int row, int e) {
    return row * MMA_DEPTH + (e / MMA_CHUNK ^ row / 2) % 4 * MMA_CHUNK;
}

// Begins to load MMA_DEPTH elements from e0 of ROWS rows from row0 of x (rows,E), whose rows begin
// at multiples of 16 bytes.
template <int ROWS, typename T>
static __device__ inline void mma_load_side(uint32_t to, const T *x, int row0, int e0, int rows,
                                            int E) {
    const int CHUNKS = MMA_DEPTH / MMA_CHUNK;
    UNROLL for (int turn = 0; turn < (ROWS * CHUNKS + MMA_BLOCK - 1) / MMA_BLOCK; turn++) {
        const int k = threadIdx.x + turn * MMA_BLOCK, row = k / CHUNKS, e = k % CHUNKS * MMA_CHUNK;
        if (ROWS * CHUNKS % MMA_BLOCK && row >= ROWS) {
            continue; // a narrow side has fewer chunks than the block has threads
        }
        const bool is_inside = row0 + row < rows && e0 + e < E;
        cp_async16(to + 2 * mma_place(row, e),
                   is_inside ? x + (size_t)(row0 + row) * E + e0 + e : x, is_inside ? 16 : 0);
    }
}

// Begins to load stage `stage`: elements from e0 of the tile's rows of a and of b.
template <int COLUMNS, typename T>
static __device__ inline void mma_load(uint32_t ring, int stage, const T *a, const T *b, int a0,
                                       int b0, int e0, int a_rows, int b_rows, int E) {
    const uint32_t to = ring + 2 * stage * MmaTile<COLUMNS>::STAGE;
    mma_load_side<MMA_ROWS>(to, a, a0, e0, a_rows, E);
    mma_load_side<COLUMNS>(to + 2 * MMA_ROWS * MMA_DEPTH, b, b0, e0, b_rows, E);
}

static __device__ inline void mma_m16n8k16(bf16, float (&acc)[4], const uint32_t (&a)[4],
                                           const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(acc, a, b);
}
static __device__ inline void mma_m16n8k16(f16, float (&acc)[4], const uint32_t (&a)[4],
                                           const uint32_t (&b)[2]) {
    mma_m16n8k16_f16(acc, a, b);
}

// Adds the products of a stage to this thread's part of the tile. All threads take part.
template <int COLUMNS, typename T, int F>
static __device__ inline void mma_stage(float (&acc)[F][F][4], uint32_t ring, int stage) {
    using Tile = MmaTile<COLUMNS>;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int matrix = lane / 8, row = warp / Tile::ACROSS * 16 * F + lane % 8;
    const int column = warp % Tile::ACROSS * 8 * F + lane % 8;
    const uint32_t a_side = ring + 2 * stage * Tile::STAGE;
    const uint32_t b_side = a_side + 2 * MMA_ROWS * MMA_DEPTH;
    for (int e = 0; e < MMA_DEPTH; e += 16) {
        uint32_t b[F / 2][4]; // two fragments side by side
        UNROLL for (int j = 0; j < F / 2; j++) {
            ldmatrix_x4(b[j], b_side + 2 * mma_place(column + 16 * j + matrix / 2 * 8,
                                                     e + matrix % 2 * 8));
        }
        UNROLL for (int i = 0; i < F; i++) {
            uint32_t a[4];
            ldmatrix_x4(a, a_side + 2 * mma_place(row + 16 * i + matrix % 2 * 8,
                                                  e + matrix / 2 * 8));
            UNROLL for (int j = 0; j < F; j++) {
                const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                mma_m16n8k16(T(), acc[i][j], a, pair);
            }
        }
    }
}
#endif
