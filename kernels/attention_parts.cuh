// attention_parts: what the attention kernels share. Private to attention*.cu.
//
// Kernels 1 have a row for each block, and read the rows of the other side one by one. Kernels 2
// are for bf16 on tensor cores; of theirs are the tiles in shared memory and the fragments. Kernels
// 3, on Hopper (*_sm90), have their rows and what the forward keeps for each.
//
// The query rows of one (sequence, key/value head) are those of all heads of its group, packed:
// row r is query r / group of head r % group. So the heads that read the same keys share a tile,
// and a sequence of few queries still fills one.
//
// A tile holds rows of W bf16 elements, W >= D a multiple of 16; what lies beyond D or beyond the
// last row is zero. Its 16-byte chunks are swizzled so that the eight rows that ldmatrix reads at
// once, at one column, lie in different banks.
#ifndef JOMED_KERNELS_ATTENTION_PARTS_CUH
#define JOMED_KERNELS_ATTENTION_PARTS_CUH

#include "attention_parts.h"
#include "cuda_common.cuh"

// ---- kernels 1 ----
static const int TILE = 128;          // threads of a block, rows of a tile
static const int EACH = MAX_D / TILE; // columns of the head a thread has

// chain_d x[d] row[d]; x in shared memory.
template <typename T> static __device__ inline float dot_row(const float *x, const T *row, int D) {
    float dot = 0;
    for (int d = 0; d < D; d++) {
        dot = fmaf(x[d], to_float(row[d]), dot);
    }
    return dot;
}

template <typename T> static __device__ inline void widen_row(float *to, const T *row, int D) {
    for (int d = threadIdx.x; d < D; d += TILE) {
        to[d] = to_float(row[d]);
    }
}

// sum[e] += chain_k factor[k] rows[k * stride + d] for this thread's columns d.
template <typename T>
static __device__ inline void add_rows(float (&sum)[EACH], const float *factor, const T *rows,
                                size_t stride, int count, int D) {
    for (int e = 0; e < EACH; e++) {
        const int d = threadIdx.x + e * TILE;
        for (int k = 0; k < count && d < D; k++) {
            sum[e] = fmaf(factor[k], to_float(rows[k * stride + d]), sum[e]);
        }
    }
}

template <typename T>
static __device__ inline void store_row(T *row, const float (&sum)[EACH], int D) {
    for (int e = 0; e < EACH; e++) {
        const int d = threadIdx.x + e * TILE;
        if (d < D) {
            row[d] = from_float<T>(sum[e]);
        }
    }
}

// ---- kernels 2: rows ----
static const int CHUNK = 8;  // elements of 16 bytes
static const int STRIP = 16; // rows of a fragment
static const float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

typedef struct {
    Span span;
    int group, head0; // query heads of the key/value head, and the first of them
    int count;
} Rows;

static __device__ inline Rows rows_of(const AttentionShape *s, int b, int hkv) {
    const int group = s->H / s->Hkv;
    const Span span = span_of(s, b);
    const Rows rows = {span, group, hkv * group, span.Tq * group};
    return rows;
}

static __device__ inline int head_of(const Rows &rows, int r) {
    return rows.head0 + r % rows.group;
}

// First element of row r in a tensor of the queries' layout.
static __device__ inline size_t row_at(const Rows &rows, int r, int stride, int D) {
    return (size_t)(rows.span.q0 + r / rows.group) * stride + head_of(rows, r) * D;
}

// Its place in lse and delta.
static __device__ inline size_t stat_at(const AttentionShape *s, const Rows &rows, int r) {
    return (size_t)head_of(rows, r) * s->Nq + rows.span.q0 + r / rows.group;
}

// Its place among the keys, and how many of them it sees.
static __device__ inline int position_of(const Rows &rows, int r) {
    return r / rows.group + rows.span.Tk - rows.span.Tq;
}
static __device__ inline int seen_by(const AttentionShape *s, const Rows &rows, int r) {
    return visible(s, rows.span, r / rows.group);
}

// ---- kernels 2: tiles ----
// Where a tile holds the chunk that starts with column d of a row, in elements. The first
// 8 / period rows begin in different banks; so do the next ones, whose chunks are exchanged.
template <int W> static __device__ inline int place_of(int row, int d) {
    const int chunks = W / CHUNK;
    const int period = chunks % 8 == 0 ? 8 : chunks % 4 == 0 ? 4 : chunks % 2 == 0 ? 2 : 1;
    return row * W + (d / CHUNK ^ row / (8 / period) % period) * CHUNK;
}

// Begins to load rows first .. first + count - 1 into a tile. Row r lies at x + r / group * stride
// + r % group * D; zeros for r >= rows. thread: of `threads` that share the work.
template <int W>
static __device__ inline void load_tile(uint32_t tile, const bf16 *x, int stride, int group,
                                        int first, int count, int rows, int D, int thread,
                                        int threads) {
    const int chunks = W / CHUNK;
    ROLLED for (int c = thread; c < count * chunks; c += threads) {
        const int n = c / chunks, r = first + n, d = c % chunks * CHUNK;
        const bool is_inside = r < rows && d < D;
        const bf16 *from = x + (size_t)(r / group) * stride + r % group * D + d;
        cp_async16(tile + 2 * place_of<W>(n, d), is_inside ? from : x, is_inside ? 16 : 0);
    }
}

// ---- kernels 2: fragments; layouts in ptx.cuh; all lanes of a warp ----
// A, 16 x 16, from rows of the tile; _trans: from its columns (the tile holds A transposed).
template <int W>
static __device__ inline void load_a(uint32_t (&a)[4], uint32_t tile, int row, int d) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4(a, tile + 2 * place_of<W>(row + lane % 16, d + lane / 16 * 8));
}
template <int W>
static __device__ inline void load_a_trans(uint32_t (&a)[4], uint32_t tile, int inner,
                                           int outer) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4_trans(a, tile + 2 * place_of<W>(inner + lane / 16 * 8 + lane % 8,
                                                outer + lane / 8 % 2 * 8));
}
// Two neighbouring B, 16 x 8 each (b[0], b[1] and b[2], b[3]). The tile holds a column of B in each
// of its rows; _trans: a row of B.
template <int W>
static __device__ inline void load_b(uint32_t (&b)[4], uint32_t tile, int column, int d) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4(b, tile + 2 * place_of<W>(column + lane / 16 * 8 + lane % 8,
                                          d + lane / 8 % 2 * 8));
}
template <int W>
static __device__ inline void load_b_trans(uint32_t (&b)[4], uint32_t tile, int inner,
                                           int column) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4_trans(b, tile + 2 * place_of<W>(inner + lane % 16,
                                                column + lane / 16 * 8));
}

// acc (16 x 16, two fragments) += a times the pair of load_b.
static __device__ inline void mma_pair(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[4]) {
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mma_m16n8k16_bf16(left, a, b0);
    mma_m16n8k16_bf16(right, a, b1);
}

// Two neighbouring accumulators, rounded, as A.
static __device__ inline void round_to_a(uint32_t (&a)[4], const float (&left)[4],
                                         const float (&right)[4]) {
    a[0] = bf16x2_of_floats(left[0], left[1]);
    a[1] = bf16x2_of_floats(left[2], left[3]);
    a[2] = bf16x2_of_floats(right[0], right[1]);
    a[3] = bf16x2_of_floats(right[2], right[3]);
}

// Over the four lanes that share a row of an accumulator.
template <typename F> static __device__ inline float quad_reduce(float x, F join) {
    x = join(x, __shfl_xor_sync(0xffffffffu, x, 1, WARP));
    return join(x, __shfl_xor_sync(0xffffffffu, x, 2, WARP));
}

// Stores columns d .. d+15 of a row from two neighbouring accumulators: (left[0], left[1]) and
// (right[0], right[1]) of the four lanes that share it, times factor. Lanes exchange, so that each
// stores eight bytes. All lanes come; nothing is stored where `is_inside` is false or beyond D.
static __device__ inline void store_pair(bf16 *row, bool is_inside, int d, int D, const float *left,
                                         const float *right, float factor) {
    const int i = threadIdx.x % 4;
    const uint32_t l = bf16x2_of_floats(left[0] * factor, left[1] * factor);
    const uint32_t r = bf16x2_of_floats(right[0] * factor, right[1] * factor);
    const uint32_t got = __shfl_xor_sync(0xffffffffu, i % 2 ? l : r, 1, WARP);
    const int column = d + i % 2 * 8 + i / 2 * 4;
    if (is_inside && column < D) {
        *(uint2 *)(row + column) = i % 2 ? make_uint2(got, r) : make_uint2(l, got);
    }
}

// ---- the two rows of a fragment whose scores this thread has, in the forward ----
typedef struct {
    int seen[2]; // keys
    float max[2], total[2];
} Lines;

// first: of the warp's 16 rows.
static __device__ inline Lines lines_of(const AttentionShape *s, const Rows &rows, int first) {
    Lines lines;
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = min(first + (int)threadIdx.x % WARP / 4 + 8 * l, rows.count - 1);
        lines.seen[l] = seen_by(s, rows, r);
        lines.max[l] = -INFINITY;
        lines.total[l] = 0;
    }
    return lines;
}

// top: of this thread's further scores, in units of log 2. Takes them into the maxima; base: what
// to subtract from scores before exp2. Returns by what to scale what was summed before; total is.
static __device__ inline float2 lines_rebase(Lines *lines, const float (&top)[2],
                                             float (&base)[2]) {
    float shrink[2];
    UNROLL for (int l = 0; l < 2; l++) {
        const float max = fmaxf(lines->max[l], quad_reduce(top[l], Max()));
        base[l] = max == -INFINITY ? 0.0f : max; // sees nothing so far: no inf - inf
        shrink[l] = exp2_approx(lines->max[l] - base[l]);
        lines->max[l] = max;
        lines->total[l] *= shrink[l];
    }
    return make_float2(shrink[0], shrink[1]);
}

// Stores out and lse of the warp's rows first .. first + 15 below `end`. sum[4t + e]: row
// g + 8 (e / 2), column 8t + 2i + e % 2 of the sums over keys, not yet divided by the totals.
template <int W>
static __device__ inline void lines_store(bf16 *out, float *lse, const AttentionShape *s,
                                          const Rows &rows, int first, int end, const float *sum,
                                          const Lines &lines) {
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = first + threadIdx.x % WARP / 4 + 8 * l;
        const bool is_inside = r < end;
        const int known = is_inside ? r : 0;
        const float total = quad_reduce(lines.total[l], Sum());
        const float factor = lines.seen[l] > 0 ? 1 / total : 0.0f;
        bf16 *to = out + row_at(rows, known, s->out_stride, s->D);
        UNROLL for (int d = 0; d < W; d += 16) {
            const float *left = &sum[d / 2 + 2 * l];
            store_pair(to, is_inside, d, s->D, left, left + 4, factor);
        }
        if (is_inside && threadIdx.x % 4 == 0) {
            lse[stat_at(s, rows, r)] =
                lines.seen[l] > 0 ? fmaf(lines.max[l], LN2, logf(total)) : -INFINITY;
        }
    }
}

// ---- kernels 2: who gets them ----
static inline bool is_tileable(const void *x, int stride) {
    return is_packable(x) && stride % CHUNK == 0;
}
static inline bool has_tiles(const AttentionShape *s, const void *q, const void *k, const void *v) {
    return s->D <= 128 && s->D % CHUNK == 0 && is_tileable(q, s->q_stride) &&
           is_tileable(k, s->k_stride) && is_tileable(v, s->v_stride);
}

// Runs a statement with W the width of the tiles for heads of width D: FOR_WIDTH(D, W, f<W>(...));
#define FOR_WIDTH(D, W, ...)                                                                       \
    do {                                                                                           \
        if ((D) <= 32) {                                                                           \
            constexpr int W = 32;                                                                  \
            __VA_ARGS__;                                                                           \
        } else if ((D) <= 64) {                                                                    \
            constexpr int W = 64;                                                                  \
            __VA_ARGS__;                                                                           \
        } else if ((D) <= 80) {                                                                    \
            constexpr int W = 80;                                                                  \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            constexpr int W = 128;                                                                 \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)
#endif
