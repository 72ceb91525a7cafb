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
// Left out: packed weights; nothing is packed here.
//
//   version  idea                                    shape  time                  % of peak
//   kernel1  tiles through shared memory, f32 chain  -      not yet run on a GPU  -
#include "matmul.h"

#include "cuda_common.cuh"

// One product. Strides count elements; one of each operand's two is 1.
typedef struct {
    const void *a, *b, *bias; // bias: (columns) or NULL
    void *c;                  // (rows, columns)
    size_t a_row, a_inner, b_inner, b_column;
    int rows, columns, depth;
    bool is_accumulated;
} Product;

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

template <typename T, typename Out> static void launch(Device *dev, const Product &p) {
    const dim3 grid(ceil_div(p.columns, TILE), ceil_div(p.rows, TILE));
    LAUNCH((matmul_kernel1<T, Out>), grid, BLOCK, 0, device_stream(dev), p);
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
    FOR_DTYPE(t, T, launch<T, T>(dev, p));
}

CUDA_OP(matmul_bwd_input)(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                          const void *packed, int M, int N, int K, bool is_accumulated) {
    check_sizes(M, N, K);
    CHECK(!packed, "weights are not packed here");
    const Product p = {dout, weight, NULL, dinp, (size_t)N, 1, (size_t)K, 1, M, K, N,
                       is_accumulated};
    FOR_DTYPE(t, T, launch<T, T>(dev, p));
}

CUDA_OP(matmul_bwd_weight)(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                           const void *inp, int M, int N, int K) {
    check_sizes(M, N, K);
    const Product p = {dout, inp, NULL, dweight, 1, (size_t)N, (size_t)K, 1, N, K, M, true};
    if (dweight) {
        FOR_DTYPE(t, T, launch<T, float>(dev, p));
    }
    if (dbias) {
        FOR_DTYPE(t, T, LAUNCH((matmul_bias1<T>), ceil_div(N, BLOCK), BLOCK, 0, device_stream(dev),
                               dbias, (const T *)dout, M, N));
    }
}
