// matmul: the linear layer and its gradients on CUDA; see matmul.h. Here M, N, K are BLAS's.
//
// All three are C[i,j] = start[i,j] + sum_l A[i,l] B[l,j] with other strides (Product below):
//
//   product      C                 A                B                     reduction l
//   fwd          out (M,N)         inp (M,K)        weight' (K,N)         k
//   bwd_input    dinp (M,K)        dout (M,N)       weight (N,K)          n
//   bwd_weight   dweight (N,K)     dout' (N,M)      inp (M,K)             m
//
// kernel1 keeps the contract's order: every element is one chain over l ascending in f32, so that
// it gives the bits of the CPU, whatever the shape. A block computes a tile of C; pieces of A and
// B, DEPTH long, are widened into shared memory.
//
// kernel2 is for 16-bit types on tensor cores (mma m16n8k16, sm_80): the products of 16 l are added
// in an order the hardware does not tell, the sums ascending in f32. Tiles of A and B come by
// cp.async into a ring of STAGES stages, as they lie in memory: rows of l or columns of it, and
// ldmatrix transposes where needed. 16-byte chunks are swizzled so that the eight rows ldmatrix
// reads at once lie in different banks. Edges are filled with zeros. It needs the leading
// dimensions to be multiples of 8 and aligned pointers. Which kernel runs does not depend on the
// number of rows, so that a row's result does not depend on its batch.
// Left out: packed weights; split l; wgmma and TMA (sm_90a), without which a Hopper card gives half
// of what it can.
//
//   version  idea                                    shape  time                  % of peak
//   kernel1  tiles through shared memory, f32 chain  -      not yet run on a GPU  -
//   kernel2  128x128x32, cp.async, ldmatrix, mma     -      not yet run on a GPU  -
#include "matmul.h"

#include "cuda_common.cuh"
#include "matmul_parts.cuh"
#include "matmul_sm90.cuh"

// ---- kernel 1 ----
static const int TILE = 64;  // rows and columns of a tile
static const int DEPTH = 16; // of a piece
static const int EACH = 4;   // rows and columns of a thread
static const int BLOCK = (TILE / EACH) * (TILE / EACH);
static_assert(TILE * DEPTH % BLOCK == 0, "the threads share out a piece evenly");

// piece[l][i] = X[i0 + i, l0 + l] for i < TILE, l < DEPTH; zero outside, but nothing is written that
// only idle threads would read. Neighbouring threads take neighbouring elements in memory.
template <typename T>
static __device__ void load_piece(float (*piece)[TILE], const T *x, size_t outer, size_t inner,
                                  int i0, int l0, int rows, int depth) {
    for (int k = threadIdx.x; k < TILE * DEPTH; k += BLOCK) {
        const int i = inner == 1 ? k / DEPTH : k % TILE, l = inner == 1 ? k % DEPTH : k / TILE;
        if (i0 + i < (rows + EACH - 1) / EACH * EACH && l0 + l < depth) {
            piece[l][i] = i0 + i < rows ? to_float(x[(i0 + i) * outer + (l0 + l) * inner]) : 0.0f;
        }
    }
}

// T: type of a, b and bias; Out: of c. Launch: (columns / TILE, rows / TILE) blocks of BLOCK
// threads. 8 KB of shared memory.
template <typename T, typename Out> static __global__ void matmul_kernel1(Product p) {
    SMEM_STATIC(a_piece, float, [DEPTH][TILE]);
    SMEM_STATIC(b_piece, float, [DEPTH][TILE]);
    const int i0 = blockIdx.y * TILE, j0 = blockIdx.x * TILE;
    const int row = threadIdx.x / (TILE / EACH) * EACH, column = threadIdx.x % (TILE / EACH) * EACH;
    const bool is_idle = i0 + row >= p.rows || j0 + column >= p.columns; // but meets the others
    Out *c = (Out *)p.c;
    float sum[EACH][EACH];
    for (int i = 0; i < EACH; i++) {
        for (int j = 0; j < EACH; j++) {
            const int ci = i0 + row + i, cj = j0 + column + j;
            const bool is_inside = ci < p.rows && cj < p.columns;
            sum[i][j] = is_inside && p.is_accumulated ? to_float(c[(size_t)ci * p.columns + cj])
                        : is_inside && p.bias         ? to_float(((const T *)p.bias)[cj])
                                                      : 0.0f;
        }
    }
    for (int l0 = 0; l0 < p.depth; l0 += DEPTH) {
        load_piece(a_piece, (const T *)p.a, p.a_row, p.a_inner, i0, l0, p.rows, p.depth);
        load_piece(b_piece, (const T *)p.b, p.b_column, p.b_inner, j0, l0, p.columns, p.depth);
        __syncthreads(); // the pieces are whole
        const int depth = is_idle ? 0 : p.depth - l0 < DEPTH ? p.depth - l0 : DEPTH;
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
    for (int i = 0; i < EACH; i++) {
        for (int j = 0; j < EACH; j++) {
            const int ci = i0 + row + i, cj = j0 + column + j;
            if (ci < p.rows && cj < p.columns) {
                c[(size_t)ci * p.columns + cj] = from_float<Out>(sum[i][j]);
            }
        }
    }
}

// ---- kernel 2 ----
static const int ROWS2 = 128;   // of a tile of C
static const int COLUMNS2 = 128;
static const int DEPTH2 = 32;   // of a stage
static const int STAGES = 4;
static const int BLOCK2 = 256;  // 2 x 4 warps
static const int WARP_ROWS = ROWS2 / 2, WARP_COLUMNS = COLUMNS2 / 4; // of a warp's part of C
static const int CHUNK = 8;     // elements of 16 bytes
static const int SIDE = 128 * DEPTH2; // elements of one operand in a stage
static_assert(ROWS2 == 128 && COLUMNS2 == 128, "both operands have one loader");
static_assert(SIDE % (CHUNK * BLOCK2) == 0, "the threads share out a stage evenly");
static const size_t SMEM2 = (size_t)STAGES * 2 * SIDE * 2; // bytes

// Where a stage holds element (outer, inner) of an operand, inner being the reduction; the first
// element of a chunk. Chunks of eight neighbouring rows of the memory land in different banks.
template <bool IS_INNER> static __device__ int place_of(int outer, int inner) {
    return IS_INNER ? outer * DEPTH2 + ((inner / CHUNK ^ outer / 2) % 4) * CHUNK
                    : inner * 128 + (outer / CHUNK ^ inner % 8) * CHUNK;
}

// Begins to load 128 x DEPTH2 elements of an operand from (outer0, inner0); zeros beyond its edges.
// IS_INNER: neighbours in memory are neighbours in the reduction; leading: elements from one row of
// the memory to the next. A thread's chunks lie one below the other.
template <typename T, bool IS_INNER>
static __device__ void load_side(uint32_t to, const T *x, size_t leading, int outer0, int inner0,
                                 int outers, int inners) {
    const int ACROSS = (IS_INNER ? DEPTH2 : 128) / CHUNK, ROWS = BLOCK2 / ACROSS; // of a turn
    const int across = threadIdx.x % ACROSS * CHUNK;
    UNROLL for (int turn = 0; turn < SIDE / CHUNK / BLOCK2; turn++) {
        const int down = threadIdx.x / ACROSS + turn * ROWS;
        const int outer = IS_INNER ? down : across, inner = IS_INNER ? across : down;
        const bool is_inside = outer0 + outer < outers && inner0 + inner < inners;
        const size_t row = IS_INNER ? outer0 + down : inner0 + down;
        const T *from = x + row * leading + (IS_INNER ? inner0 : outer0) + across;
        cp_async16(to + 2 * place_of<IS_INNER>(outer, inner), is_inside ? from : x,
                   is_inside ? 16 : 0);
    }
}

// The 16 x 16 fragment of A at (outer, inner) of a stage.
template <bool IS_INNER>
static __device__ void load_a(uint32_t (&a)[4], uint32_t stage, int outer, int inner) {
    const int lane = threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
    if (IS_INNER) {
        ldmatrix_x4(a, stage + 2 * place_of<true>(outer + matrix % 2 * 8 + row,
                                                  inner + matrix / 2 * 8));
    } else {
        ldmatrix_x4_trans(a, stage + 2 * place_of<false>(outer + matrix % 2 * 8,
                                                         inner + matrix / 2 * 8 + row));
    }
}

// Two 16 x 8 fragments of B, side by side: b[0], b[1] and b[2], b[3].
template <bool IS_INNER>
static __device__ void load_b(uint32_t (&b)[4], uint32_t stage, int outer, int inner) {
    const int lane = threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
    if (IS_INNER) {
        ldmatrix_x4(b, stage + 2 * place_of<true>(outer + matrix / 2 * 8 + row,
                                                  inner + matrix % 2 * 8));
    } else {
        ldmatrix_x4_trans(b, stage + 2 * place_of<false>(outer + matrix / 2 * 8,
                                                         inner + matrix % 2 * 8 + row));
    }
}

static __device__ void mma(bf16, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(acc, a, b);
}
static __device__ void mma(f16, float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_f16(acc, a, b);
}

// What a sum starts from.
template <typename T, typename Out>
static __device__ float start_of(const Product &p, int i, int j) {
    if (i >= p.rows || j >= p.columns) {
        return 0;
    }
    return p.is_accumulated ? to_float(((const Out *)p.c)[(size_t)i * p.columns + j])
           : p.bias         ? to_float(((const T *)p.bias)[j])
                            : 0.0f;
}

// The products of one stage, for this warp's part of C.
template <typename T, bool A_INNER, bool B_INNER>
static __device__ void stage_products(float (&acc)[4][4][4], uint32_t a_stage, uint32_t b_stage,
                                      int row, int column) {
    for (int inner = 0; inner < DEPTH2; inner += 16) {
        uint32_t a[4][4], b[2][4];
        UNROLL for (int i = 0; i < 4; i++) {
            load_a<A_INNER>(a[i], a_stage, row + 16 * i, inner);
        }
        UNROLL for (int j = 0; j < 2; j++) {
            load_b<B_INNER>(b[j], b_stage, column + 16 * j, inner);
        }
        UNROLL for (int i = 0; i < 4; i++) {
            UNROLL for (int j = 0; j < 4; j++) {
                const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                mma(T(), acc[i][j], a[i], pair);
            }
        }
    }
}

// A_INNER, B_INNER: the operand's neighbours in memory are neighbours in the reduction.
// Launch: (columns / COLUMNS2, rows / ROWS2) blocks of BLOCK2 threads. SMEM2 = 64 KB of dynamic
// shared memory. Two blocks per multiprocessor: at most 128 registers.
template <typename T, typename Out, bool A_INNER, bool B_INNER>
static __global__ void __launch_bounds__(BLOCK2, 2) matmul_kernel2(Product p) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, ring, uint16_t, STAGES * 2 * SIDE, 128);
    const uint32_t a_ring = smem_u32(ring), b_ring = a_ring + 2 * STAGES * SIDE;
    const T *a = (const T *)p.a, *b = (const T *)p.b;
    const size_t a_leading = A_INNER ? p.a_row : p.a_inner;
    const size_t b_leading = B_INNER ? p.b_column : p.b_inner;
    const int i0 = blockIdx.y * ROWS2, j0 = blockIdx.x * COLUMNS2;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int row = warp / 4 * WARP_ROWS, column = warp % 4 * WARP_COLUMNS;
    const int steps = (p.depth + DEPTH2 - 1) / DEPTH2;
    float acc[4][4][4]; // fragment (i, j) of 16 x 8: layout in ptx.cuh
    UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int e = 0; e < 4; e++) {
                acc[i][j][e] = start_of<T, Out>(p, i0 + row + 16 * i + lane / 4 + e / 2 * 8,
                                                j0 + column + 8 * j + lane % 4 * 2 + e % 2);
            }
        }
    }
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) {
            load_side<T, A_INNER>(a_ring + 2 * step * SIDE, a, a_leading, i0, step * DEPTH2,
                                  p.rows, p.depth);
            load_side<T, B_INNER>(b_ring + 2 * step * SIDE, b, b_leading, j0, step * DEPTH2,
                                  p.columns, p.depth);
        }
        cp_async_commit(); // an empty group keeps the count
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>(); // this thread's part of the stage is there
        __syncthreads(); // everybody's is, and everybody is done with the stage before
        const int next = step + STAGES - 1;
        if (next < steps) {
            load_side<T, A_INNER>(a_ring + 2 * (next % STAGES) * SIDE, a, a_leading, i0,
                                  next * DEPTH2, p.rows, p.depth);
            load_side<T, B_INNER>(b_ring + 2 * (next % STAGES) * SIDE, b, b_leading, j0,
                                  next * DEPTH2, p.columns, p.depth);
        }
        cp_async_commit();
        const uint32_t at = 2 * (step % STAGES) * SIDE;
        stage_products<T, A_INNER, B_INNER>(acc, a_ring + at, b_ring + at, row, column);
    }
    Out *c = (Out *)p.c;
    UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int e = 0; e < 4; e++) {
                const int ci = i0 + row + 16 * i + lane / 4 + e / 2 * 8;
                const int cj = j0 + column + 8 * j + lane % 4 * 2 + e % 2;
                if (ci < p.rows && cj < p.columns) {
                    c[(size_t)ci * p.columns + cj] = from_float<Out>(acc[i][j][e]);
                }
            }
        }
    }
}

// ---- the bias ----
// dbias[n] += sum_m dout[m,n], ascending. Launch: N / BLOCK blocks of BLOCK threads.
template <typename T>
static __global__ void matmul_bias1(float *dbias, const T *dout, int M, int N) {
    const int n = blockIdx.x * BLOCK + threadIdx.x;
    if (n < N) {
        float sum = dbias[n];
        for (int m = 0; m < M; m++) {
            sum += to_float(dout[(size_t)m * N + n]);
        }
        dbias[n] = sum;
    }
}

// ---- launchers ----
static unsigned ceil_div(int a, int b) { return (unsigned)(a / b + (a % b > 0)); }

template <typename T, typename Out> static void launch1(Device *dev, const Product &p) {
    const dim3 grid(ceil_div(p.columns, TILE), ceil_div(p.rows, TILE));
    LAUNCH((matmul_kernel1<T, Out>), grid, BLOCK, 0, device_stream(dev), p);
}

// Whether rows of the memory begin at multiples of 16 bytes.
static bool is_aligned(const void *x, size_t leading) {
    return is_packable(x) && leading % CHUNK == 0;
}

template <typename T, typename Out, bool A_INNER, bool B_INNER>
static void launch(Device *dev, const Product &p) {
    if constexpr (sizeof(T) == 2) {
        if (is_aligned(p.a, A_INNER ? p.a_row : p.a_inner) &&
            is_aligned(p.b, B_INNER ? p.b_column : p.b_inner)) {
            if (std::is_same<T, bf16>::value && device_arch(dev) == 90) {
                matmul_sm90(dev, p, !A_INNER, !B_INNER);
                return;
            }
            const dim3 grid(ceil_div(p.columns, COLUMNS2), ceil_div(p.rows, ROWS2));
            SMEM_ALLOW((matmul_kernel2<T, Out, A_INNER, B_INNER>), SMEM2);
            LAUNCH((matmul_kernel2<T, Out, A_INNER, B_INNER>), grid, BLOCK2, SMEM2,
                   device_stream(dev), p);
            return;
        }
    }
    launch1<T, Out>(dev, p);
}

static void check_sizes(int M, int N, int K) {
    CHECK(M >= 1 && N >= 1 && K >= 1, "M=%d N=%d K=%d", M, N, K);
}

// matmul_pack_bytes is 0 on a GPU: there is nothing to do.
CUDA_OP(matmul_pack)(Device *dev, DType t, void *packed, const void *weight, MatmulPack which,
                     int N, int K) {
    (void)dev, (void)t, (void)packed, (void)weight, (void)which, (void)N, (void)K;
}

CUDA_OP(matmul_fwd)(Device *dev, DType t, void *out, const void *inp, const void *weight,
                    const void *packed, const void *bias, int M, int N, int K,
                    bool is_accumulated) {
    check_sizes(M, N, K);
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    CHECK(!packed, "weights are not packed here");
    const Product p = {inp, weight, bias, out, (size_t)K, 1, 1, (size_t)K, M, N, K, is_accumulated};
    FOR_DTYPE(t, T, launch<T, T, true, true>(dev, p));
}

CUDA_OP(matmul_bwd_input)(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                          const void *packed, int M, int N, int K, bool is_accumulated) {
    check_sizes(M, N, K);
    CHECK(!packed, "weights are not packed here");
    const Product p = {dout, weight, NULL, dinp, (size_t)N, 1, (size_t)K, 1, M, K, N,
                       is_accumulated};
    FOR_DTYPE(t, T, launch<T, T, true, false>(dev, p));
}

CUDA_OP(matmul_bwd_weight)(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                           const void *inp, int M, int N, int K) {
    check_sizes(M, N, K);
    const Product p = {dout, inp, NULL, dweight, 1, (size_t)N, (size_t)K, 1, N, K, M, true};
    if (dweight) {
        FOR_DTYPE(t, T, launch<T, float, false, false>(dev, p));
    }
    if (dbias) {
        FOR_DTYPE(t, T, LAUNCH((matmul_bias1<T>), ceil_div(N, BLOCK), BLOCK, 0, device_stream(dev),
                               dbias, (const T *)dout, M, N));
    }
}
