// attention_bwd: softmax attention over packed sequences on CUDA, the backward; see attention.h.
//
// kernel1: a block has one query (dq) or one key (dk, dv) of one head. Its threads first take a
// tile of the other side, one row each, and form p and ds; then they share out the head's width and
// add the tile's rows, ascending. No atomics: each output has one writer, whose chains are those of
// the contract; only delta is added in another order.
//
// kernel2 is for bf16 on tensor cores (mma m16n8k16, sm_80), where the forward has its kernel 2. A
// block has 256 keys (128 of wide heads) of one key/value head: K, V stay in shared memory, dk and
// dv in the registers of eight warps with 32 (16) keys each. It goes over tiles of 32 packed rows
// of the group's heads (attention_parts.cuh), ascending:
//   1. q, dout, out of the tile arrive, while the last one is worked on; delta = rowsum(dout out)
//   2. p' = 2^(k q' - lse) and ds' = p' (v dout' - delta), a row for each key: a warp has its own
//   3. dv += p' dout and dk += ds' q: p', ds' go from accumulators to factors without leaving
//   4. dq of the tile = ds k over all keys of the block: ds comes from all warps by shared memory
// So a sequence of up to 256 (128) keys is read once and needs no atomics, no sums in memory, and
// no other launch. The blocks of a longer one leave step 4 out, and dq_kernel2 forms p and ds anew,
// by queries: 7 products in place of 5, against writing and reading f32 dq of each block of keys.
// The scale is applied to the sums. Each is in one thread, in an order that depends on the sequence
// alone. Hopper has these for what attention_bwd_sm90.cu leaves. Left out: f16, f32.
//
//   version      idea                                    shape  time                  % of peak
//   dq_kernel1   one block per query                     -      not yet run on a GPU  -
//   dkv_kernel1  one block per key                       -      not yet run on a GPU  -
//   bwd_kernel2  256 keys per block, 5 products          -      not yet run on a GPU  -
//   dq_kernel2   128 rows per block, tiles of 64 keys    -      not yet run on a GPU  -
#include "attention.h"

#include "attention_bwd_sm90.cuh"
#include "device_cuda.cuh"

// ---- kernel 1 ----
// dq and delta. Launch: (max_Tq, H, B) blocks of TILE threads. 2.7 KB of shared memory.
template <typename T>
static __global__ void attention_dq_kernel1(T *dq, float *delta, const T *dout, const T *out,
                                            const float *lse, const T *q, const T *k, const T *v,
                                            AttentionShape s) {
    SMEM_STATIC(query, float, [MAX_D]);
    SMEM_STATIC(slope_out, float, [MAX_D]);
    SMEM_STATIC(weight, float, [TILE]);
    const int i = blockIdx.x, h = blockIdx.y, hkv = h / (s.H / s.Hkv);
    const Span span = span_of(&s, blockIdx.z);
    if (i >= span.Tq) {
        return; // the whole block
    }
    const size_t row = span.q0 + i, stat = (size_t)h * s.Nq + row;
    const size_t at_out = row * s.out_stride + h * s.D;
    widen_row(query, q + row * s.q_stride + h * s.D, s.D);
    widen_row(slope_out, dout + at_out, s.D);
    float own = 0;
    for (int d = threadIdx.x; d < s.D; d += TILE) {
        own = fmaf(slope_out[d], to_float(out[at_out + d]), own);
    }
    const float along = block_sum(own); // query and slope_out are whole, too
    if (threadIdx.x == 0) {
        delta[stat] = along;
    }
    const int n = visible(&s, span, i);
    float sum[EACH] = {0};
    for (int j0 = 0; j0 < n; j0 += TILE) {
        const int j = j0 + threadIdx.x, count = n - j0 < TILE ? n - j0 : TILE;
        float p, ds = 0;
        if (j < n) {
            const size_t key = span.k0 + j;
            const float dot = dot_row(query, k + key * s.k_stride + hkv * s.D, s.D);
            const float dp = dot_row(slope_out, v + key * s.v_stride + hkv * s.D, s.D);
            const float x = score(dot, s.scale, slope_of(&s, h), (float)(i + span.Tk - span.Tq), j);
            pair_backward(&p, &ds, x, lse[stat], dp, along, s.scale);
        }
        weight[threadIdx.x] = ds;
        __syncthreads(); // weight is whole
        add_rows(sum, weight, k + (size_t)(span.k0 + j0) * s.k_stride + hkv * s.D, s.k_stride,
                 count, s.D);
        __syncthreads(); // everybody is done with weight
    }
    store_row(dq + row * s.q_stride + h * s.D, sum, s.D);
}

// dk and dv; delta comes from the launch before. Launch: (max_Tk, Hkv, B) blocks of TILE threads.
// 3 KB of shared memory.
template <typename T>
static __global__ void attention_dkv_kernel1(T *dk, T *dv, const T *dout, const float *delta,
                                             const float *lse, const T *q, const T *k, const T *v,
                                             AttentionShape s) {
    SMEM_STATIC(key, float, [MAX_D]);
    SMEM_STATIC(value, float, [MAX_D]);
    SMEM_STATIC(weight, float, [TILE]);
    SMEM_STATIC(slope, float, [TILE]);
    const int j = blockIdx.x, hkv = blockIdx.y, group = s.H / s.Hkv;
    const Span span = span_of(&s, blockIdx.z);
    if (j >= span.Tk) {
        return; // the whole block
    }
    const size_t row = span.k0 + j;
    widen_row(key, k + row * s.k_stride + hkv * s.D, s.D);
    widen_row(value, v + row * s.v_stride + hkv * s.D, s.D);
    __syncthreads(); // every thread reads all of both
    const int first = s.is_causal && j > span.Tk - span.Tq ? j - (span.Tk - span.Tq) : 0;
    float dk_sum[EACH] = {0}, dv_sum[EACH] = {0};
    for (int h = hkv * group; h < (hkv + 1) * group; h++) {
        for (int i0 = first; i0 < span.Tq; i0 += TILE) {
            const int i = i0 + threadIdx.x, count = span.Tq - i0 < TILE ? span.Tq - i0 : TILE;
            float p = 0, ds = 0;
            if (i < span.Tq) {
                const size_t query = span.q0 + i, stat = (size_t)h * s.Nq + query;
                const float dot = dot_row(key, q + query * s.q_stride + h * s.D, s.D);
                const float dp = dot_row(value, dout + query * s.out_stride + h * s.D, s.D);
                const float x = score(dot, s.scale, slope_of(&s, h),
                                      (float)(i + span.Tk - span.Tq), j);
                pair_backward(&p, &ds, x, lse[stat], dp, delta[stat], s.scale);
            }
            weight[threadIdx.x] = p;
            slope[threadIdx.x] = ds;
            __syncthreads(); // weight and slope are whole
            const size_t at = span.q0 + i0;
            add_rows(dk_sum, slope, q + at * s.q_stride + h * s.D, s.q_stride, count, s.D);
            add_rows(dv_sum, weight, dout + at * s.out_stride + h * s.D, s.out_stride, count, s.D);
            __syncthreads(); // everybody is done with them
        }
    }
    store_row(dk + row * s.k_stride + hkv * s.D, dk_sum, s.D);
    store_row(dv + row * s.v_stride + hkv * s.D, dv_sum, s.D);
}

// ---- kernel 2 ----
static const int ROWS = 32;  // of a tile of queries
static const int WARPS = 8;  // of a block
static const int BLOCK = WARPS * WARP;
static const int EACH_ROW = BLOCK / ROWS; // threads that share a row's delta
static_assert(EACH_ROW == 8, "delta is added up by the eight neighbours of a row");

// Strips of 16 keys of a warp, as many as its registers hold dk and dv for; keys of a block.
template <int W> static constexpr __host__ __device__ int strips2() { return W <= 64 ? 2 : 1; }
template <int W> static constexpr __host__ __device__ int keys2() {
    return WARPS * STRIP * strips2<W>();
}
template <int W> static constexpr size_t smem2() {
    return ((size_t)(2 * keys2<W>() + 6 * ROWS) * W + keys2<W>() * ROWS) * sizeof(bf16);
}

// What the pairs of a query need of it; scores are in units of log 2.
typedef struct __align__(16) {
    float lse, delta, slope, position;
} Line;

static __device__ Line line_of(const AttentionShape *s, const Rows &rows, int r, const float *lse,
                               float delta) {
    Line line = {INFINITY, 0, 0, 0}; // 2^(x - inf) is 0: not a row, or one that sees nothing
    if (r < rows.count) {
        const float own = lse[stat_at(s, rows, r)];
        line.lse = own == -INFINITY ? INFINITY : own * LOG2E;
        line.delta = delta;
        line.slope = slope_of(s, head_of(rows, r)) * LOG2E;
        line.position = (float)position_of(rows, r);
    }
    return line;
}

// The products of a pair, q k and dout v, become p and ds / scale. last: key a query sees.
static __device__ void pair2(float *p, float *ds, const Line &line, float scale, int key,
                             float last) {
    const float x = score(*p, scale, line.slope, line.position, key) - line.lse;
    *p = (float)key <= last ? exp2_approx(x) : 0.0f;
    *ds = *p * (*ds - line.delta);
}

static __device__ float last_of(const AttentionShape *s, const Rows &rows, const Line &line) {
    return s->is_causal ? line.position : (float)(rows.span.Tk - 1);
}

// rowsum(dout * out) of this thread's row of the tile, from its eight threads.
template <int W> static __device__ float row_delta(const bf16 *dout, const bf16 *out) {
    const int row = threadIdx.x / EACH_ROW;
    float sum = 0;
    for (int d = threadIdx.x % EACH_ROW * CHUNK; d < W; d += EACH_ROW * CHUNK) {
        const Pack<bf16> x = pack_load(dout + place_of<W>(row, d));
        const Pack<bf16> y = pack_load(out + place_of<W>(row, d));
        for (int e = 0; e < CHUNK; e++) {
            sum = fmaf(x.at[e], y.at[e], sum);
        }
    }
    for (int step = EACH_ROW / 2; step > 0; step /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, step, WARP);
    }
    return sum;
}

// x (keys of the warp, queries of the tile) += keys or values times queries or dout, columns d to
// d + 15. S: strips of the warp.
template <int W, int S>
static __device__ void add_products(float (&x)[S][ROWS / 8][4], uint32_t strip, uint32_t tile,
                                    int d) {
    uint32_t b[ROWS / 16][4];
    UNROLL for (int n = 0; n < ROWS / 16; n++) {
        load_b<W>(b[n], tile, 16 * n, d);
    }
    UNROLL for (int m = 0; m < S; m++) {
        uint32_t a[4];
        load_a<W>(a, strip, STRIP * m, d);
        UNROLL for (int n = 0; n < ROWS / 16; n++) {
            mma_pair(x[m][2 * n], x[m][2 * n + 1], a, b[n]);
        }
    }
}

// p and ds of this warp's keys with the tile's queries, transposed: a row for each key.
template <int W, int S>
static __device__ void key_pairs(float (&p)[S][ROWS / 8][4], float (&ds)[S][ROWS / 8][4],
                                 uint32_t k_strip, uint32_t v_strip, uint32_t q_tile,
                                 uint32_t dout_tile, const Line *lines, const AttentionShape *s,
                                 const Rows &rows, int first_key) {
    ROLLED for (int d = 0; d < W; d += 16) {
        add_products<W, S>(p, k_strip, q_tile, d);
        add_products<W, S>(ds, v_strip, dout_tile, d);
    }
    const float scale = s->scale * LOG2E;
    UNROLL for (int t = 0; t < ROWS / 8; t++) {
        UNROLL for (int half = 0; half < 2; half++) {
            const Line line = lines[8 * t + threadIdx.x % 4 * 2 + half];
            const float last = last_of(s, rows, line);
            UNROLL for (int m = 0; m < S; m++) {
                UNROLL for (int e = half; e < 4; e += 2) {
                    const int key = first_key + STRIP * m + threadIdx.x % WARP / 4 + 8 * (e / 2);
                    pair2(&p[m][t][e], &ds[m][t][e], line, scale, key, last);
                }
            }
        }
    }
}

// sum (keys of the warp, W) += x (keys, queries of the tile), rounded to bf16, times the tile; what
// was rounded also goes to `keep`, rows of keys, unless that is NULL.
template <int W, int S>
static __device__ void add_queries(float (&sum)[S][W / 8][4], const float (&x)[S][ROWS / 8][4],
                                   uint32_t tile, bf16 *keep) {
    const int row = threadIdx.x % WARP / 4, column = threadIdx.x % 4 * 2;
    UNROLL for (int n = 0; n < ROWS / 16; n++) {
        uint32_t a[S][4];
        UNROLL for (int m = 0; m < S; m++) {
            round_to_a(a[m], x[m][2 * n], x[m][2 * n + 1]);
            UNROLL for (int e = 0; e < 4 && keep; e++) {
                const int key = STRIP * m + row + e % 2 * 8;
                *(uint32_t *)(keep + place_of<ROWS>(key, 16 * n + e / 2 * 8) + column) = a[m][e];
            }
        }
        UNROLL for (int d = 0; d < W; d += 16) {
            uint32_t b[4];
            load_b_trans<W>(b, tile, 16 * n, d);
            UNROLL for (int m = 0; m < S; m++) {
                mma_pair(sum[m][d / 8], sum[m][d / 8 + 1], a[m], b);
            }
        }
    }
}

// dq of the tile's queries: ds, of which the block has rows of keys, times the first `count` keys.
// The warps share out strips and columns.
template <int W>
static __device__ void tile_dq(bf16 *dq, const AttentionShape *s, const Rows &rows, int first,
                               uint32_t ds_tile, uint32_t k_tile, int count) {
    const int warp = threadIdx.x / WARP, strip = warp % 2 * STRIP, column = warp / 2 * 16;
    const int TURN = WARPS / 2 * 16, TURNS = (W + TURN - 1) / TURN; // columns
    float sum[TURNS][2][4] = {};
    for (int key = 0; key < count; key += 16) {
        uint32_t a[4];
        load_a_trans<ROWS>(a, ds_tile, key, strip);
        UNROLL for (int n = 0; n < TURNS; n++) {
            if (column + n * TURN < W) {
                uint32_t b[4];
                load_b_trans<W>(b, k_tile, key, column + n * TURN);
                mma_pair(sum[n][0], sum[n][1], a, b);
            }
        }
    }
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = first + strip + threadIdx.x % WARP / 4 + 8 * l;
        bf16 *to = dq + row_at(rows, r < rows.count ? r : 0, s->q_stride, s->D);
        UNROLL for (int n = 0; n < TURNS; n++) {
            store_pair(to, r < rows.count, column + n * TURN, s->D, &sum[n][0][2 * l],
                       &sum[n][1][2 * l], s->scale);
        }
    }
}

// Rows of dk or dv from this warp's sums, key/value head blockIdx.y.
template <int W, int S>
static __device__ void store_keys(bf16 *to, int stride, const AttentionShape *s, const Span &span,
                                  int first_key, const float (&sum)[S][W / 8][4], float factor) {
    UNROLL for (int m = 0; m < S; m++) {
        UNROLL for (int l = 0; l < 2; l++) {
            const int key = first_key + STRIP * m + threadIdx.x % WARP / 4 + 8 * l;
            bf16 *row = to + (size_t)(span.k0 + key) * stride + blockIdx.y * s->D;
            UNROLL for (int d = 0; d < W; d += 16) {
                store_pair(row, key < span.Tk, d, s->D, &sum[m][d / 8][2 * l],
                           &sum[m][d / 8 + 1][2 * l], factor);
            }
        }
    }
}

// dk and dv of keys2 keys, delta, and dq where these are all keys of the sequence. Sequences of at
// most done_Tk keys (-1: none) are another kernel's.
// Launch: (max_Tk / keys2, Hkv, B) blocks of BLOCK threads, smem2 bytes of dynamic shared memory.
template <int W>
static __global__ void __launch_bounds__(BLOCK, 1)
    attention_bwd_kernel2(bf16 *dq, bf16 *dk, bf16 *dv, float *delta, const bf16 *dout,
                          const bf16 *out, const float *lse, const bf16 *q, const bf16 *k,
                          const bf16 *v, AttentionShape s, int done_Tk) {
    constexpr int STRIPS = strips2<W>(), KEYS = keys2<W>(), SIDE = ROWS * W; // elements of a tile
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, k_rows, bf16, KEYS * W, 128);
    SMEM_TAKE(carver, v_rows, bf16, KEYS * W, 128);
    SMEM_TAKE(carver, tiles, bf16, 6 * SIDE, 128); // two stages of q, dout, out
    SMEM_TAKE(carver, ds_rows, bf16, KEYS * ROWS, 128);
    SMEM_STATIC(lines, Line, [ROWS]);
    const Rows rows = rows_of(&s, blockIdx.z, blockIdx.y);
    const Span span = rows.span;
    const int key0 = blockIdx.x * KEYS, thread = threadIdx.x;
    if ((key0 > 0 && key0 >= span.Tk) || span.Tk <= done_Tk) {
        return; // the whole block; the first one has delta to do, even without keys
    }
    const bool has_dq = span.Tk <= KEYS;
    const int strip = thread / WARP * STRIP * STRIPS; // of this warp's keys
    const uint32_t k_tile = smem_u32(k_rows), v_tile = smem_u32(v_rows);
    auto load_rows = [&](int stage, int first) {
        const uint32_t to = smem_u32(tiles + stage * 3 * SIDE);
        const size_t at_q = (size_t)span.q0 * s.q_stride + rows.head0 * s.D;
        const size_t at_out = (size_t)span.q0 * s.out_stride + rows.head0 * s.D;
        load_tile<W>(to, q + at_q, s.q_stride, rows.group, first, ROWS, rows.count, s.D, thread,
                     BLOCK);
        load_tile<W>(to + 2 * SIDE, dout + at_out, s.out_stride, rows.group, first, ROWS,
                     rows.count, s.D, thread, BLOCK);
        load_tile<W>(to + 4 * SIDE, out + at_out, s.out_stride, rows.group, first, ROWS,
                     rows.count, s.D, thread, BLOCK);
    };
    // The first tile with a query that sees the block's first key; delta is for all.
    const int unseeing = s.is_causal ? max(key0 - (span.Tk - span.Tq), 0) * rows.group : 0;
    int first = key0 == 0 ? 0 : unseeing / ROWS * ROWS;
    if (first < rows.count) {
        const int turn = STRIP * STRIPS, left = span.Tk - key0;
        const int count = min((left + turn - 1) / turn * turn, KEYS); // of warps that have some
        load_tile<W>(k_tile, k + (size_t)span.k0 * s.k_stride + blockIdx.y * s.D, s.k_stride, 1,
                     key0, count, span.Tk, s.D, thread, BLOCK);
        load_tile<W>(v_tile, v + (size_t)span.k0 * s.v_stride + blockIdx.y * s.D, s.v_stride, 1,
                     key0, count, span.Tk, s.D, thread, BLOCK);
        load_rows(0, first);
        cp_async_commit();
    }
    float dk_sum[STRIPS][W / 8][4] = {}, dv_sum[STRIPS][W / 8][4] = {};
    for (int stage = 0; first < rows.count; first += ROWS, stage ^= 1) {
        cp_async_wait<0>(); // this thread's part of the tile
        __syncthreads();    // the tile is there; everybody is done with the last one and with ds
        if (first + ROWS < rows.count) {
            load_rows(stage ^ 1, first + ROWS);
        }
        cp_async_commit();
        const bf16 *tile = tiles + stage * 3 * SIDE;
        const uint32_t q_tile = smem_u32(tile), dout_tile = q_tile + 2 * SIDE;
        const int r = first + thread / EACH_ROW;
        const float own = row_delta<W>(tile + SIDE, tile + 2 * SIDE);
        if (thread % EACH_ROW == 0) {
            lines[thread / EACH_ROW] = line_of(&s, rows, r, lse, own);
            if (key0 == 0 && r < rows.count) {
                delta[stat_at(&s, rows, r)] = own;
            }
        }
        __syncthreads(); // lines are there
        const int reach = seen_by(&s, rows, min(first + ROWS, rows.count) - 1);
        if (key0 + strip < reach) {
            float p[STRIPS][ROWS / 8][4] = {}, ds[STRIPS][ROWS / 8][4] = {};
            key_pairs<W, STRIPS>(p, ds, k_tile + 2 * strip * W, v_tile + 2 * strip * W, q_tile,
                                 dout_tile, lines, &s, rows, key0 + strip);
            add_queries<W, STRIPS>(dv_sum, p, dout_tile, NULL);
            add_queries<W, STRIPS>(dk_sum, ds, q_tile, has_dq ? ds_rows + strip * ROWS : NULL);
        }
        if (has_dq) {
            __syncthreads(); // ds is there
            tile_dq<W>(dq, &s, rows, first, smem_u32(ds_rows), k_tile, reach);
        }
    }
    store_keys<W, STRIPS>(dk, s.k_stride, &s, span, key0 + strip, dk_sum, s.scale);
    store_keys<W, STRIPS>(dv, s.v_stride, &s, span, key0 + strip, dv_sum, 1);
}

// ---- dq of sequences with more keys ----
static const int DQ_KEYS = 64; // of a tile
static const int DQ_ROWS = WARPS * STRIP;
template <int W> static constexpr size_t dq_smem2() {
    return (size_t)(2 * DQ_ROWS + 4 * DQ_KEYS) * W * sizeof(bf16);
}

// A warp has a strip of 16 packed rows. delta comes from the launch before.
// Launch: (max rows / DQ_ROWS, Hkv, B) blocks of BLOCK threads, dq_smem2 bytes of shared memory.
template <int W>
static __global__ void __launch_bounds__(BLOCK, 1)
    attention_dq_kernel2(bf16 *dq, const float *delta, const bf16 *dout, const float *lse,
                         const bf16 *q, const bf16 *k, const bf16 *v, AttentionShape s) {
    const int SIDE = DQ_KEYS * W; // elements of a tile
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, q_rows, bf16, DQ_ROWS * W, 128);
    SMEM_TAKE(carver, dout_rows, bf16, DQ_ROWS * W, 128);
    SMEM_TAKE(carver, tiles, bf16, 4 * SIDE, 128); // two stages of k and v
    const Rows rows = rows_of(&s, blockIdx.z, blockIdx.y);
    const Span span = rows.span;
    const int turn = blockIdx.x * DQ_ROWS, thread = threadIdx.x;
    if (turn >= rows.count || span.Tk <= keys2<W>()) {
        return; // the whole block; the other kernel has the short ones
    }
    auto load_keys = [&](int stage, int j0) {
        const uint32_t to = smem_u32(tiles + stage * 2 * SIDE);
        load_tile<W>(to, k + (size_t)span.k0 * s.k_stride + blockIdx.y * s.D, s.k_stride, 1, j0,
                     DQ_KEYS, span.Tk, s.D, thread, BLOCK);
        load_tile<W>(to + 2 * SIDE, v + (size_t)span.k0 * s.v_stride + blockIdx.y * s.D, s.v_stride,
                     1, j0, DQ_KEYS, span.Tk, s.D, thread, BLOCK);
    };
    load_tile<W>(smem_u32(q_rows), q + (size_t)span.q0 * s.q_stride + rows.head0 * s.D, s.q_stride,
                 rows.group, turn, DQ_ROWS, rows.count, s.D, thread, BLOCK);
    load_tile<W>(smem_u32(dout_rows), dout + (size_t)span.q0 * s.out_stride + rows.head0 * s.D,
                 s.out_stride, rows.group, turn, DQ_ROWS, rows.count, s.D, thread, BLOCK);
    load_keys(0, 0);
    cp_async_commit();
    const int strip = thread / WARP * STRIP, first = turn + strip;
    const int last_row = min(first + STRIP, rows.count) - 1;
    const int most = first <= last_row ? seen_by(&s, rows, last_row) : 0;
    const int reach = seen_by(&s, rows, min(turn + DQ_ROWS, rows.count) - 1); // of the block
    const float scale = s.scale * LOG2E;
    Line line[2];
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = first + thread % WARP / 4 + 8 * l;
        line[l] = line_of(&s, rows, r, lse, r < rows.count ? delta[stat_at(&s, rows, r)] : 0.0f);
    }
    float sum[W / 8][4] = {};
    for (int j0 = 0, stage = 0; j0 < reach; j0 += DQ_KEYS, stage ^= 1) {
        cp_async_wait<0>(); // this thread's part of the tile
        __syncthreads();    // the tile is there; everybody is done with the last one
        if (j0 + DQ_KEYS < reach) {
            load_keys(stage ^ 1, j0 + DQ_KEYS);
        }
        cp_async_commit();
        if (j0 >= most) {
            continue; // this warp sees none of it
        }
        const uint32_t k_tile = smem_u32(tiles + stage * 2 * SIDE), v_tile = k_tile + 2 * SIDE;
        float p[DQ_KEYS / 8][4] = {}, ds[DQ_KEYS / 8][4] = {};
        UNROLL for (int d = 0; d < W; d += 16) {
            uint32_t query[4], slope[4];
            load_a<W>(query, smem_u32(q_rows), strip, d);
            load_a<W>(slope, smem_u32(dout_rows), strip, d);
            UNROLL for (int n = 0; n < DQ_KEYS / 16; n++) {
                uint32_t key[4], value[4];
                load_b<W>(key, k_tile, 16 * n, d);
                load_b<W>(value, v_tile, 16 * n, d);
                mma_pair(p[2 * n], p[2 * n + 1], query, key);
                mma_pair(ds[2 * n], ds[2 * n + 1], slope, value);
            }
        }
        UNROLL for (int t = 0; t < DQ_KEYS / 8; t++) {
            UNROLL for (int e = 0; e < 4; e++) {
                const Line &own = line[e / 2];
                pair2(&p[t][e], &ds[t][e], own, scale, j0 + 8 * t + thread % 4 * 2 + e % 2,
                      last_of(&s, rows, own));
            }
        }
        UNROLL for (int n = 0; n < DQ_KEYS / 16; n++) {
            uint32_t a[4];
            round_to_a(a, ds[2 * n], ds[2 * n + 1]);
            UNROLL for (int d = 0; d < W; d += 16) {
                uint32_t b[4];
                load_b_trans<W>(b, k_tile, 16 * n, d);
                mma_pair(sum[d / 8], sum[d / 8 + 1], a, b);
            }
        }
    }
    cp_async_wait<0>(); // tiles that nobody sees
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = first + thread % WARP / 4 + 8 * l;
        bf16 *to = dq + row_at(rows, r < rows.count ? r : 0, s.q_stride, s.D);
        UNROLL for (int d = 0; d < W; d += 16) {
            store_pair(to, r < rows.count, d, s.D, &sum[d / 8][2 * l], &sum[d / 8 + 1][2 * l],
                       s.scale);
        }
    }
}

// ---- launchers ----
// done_Tk: as of the kernel. False where the card's blocks have too little shared memory.
template <int W>
static bool launch2(Device *dev, const BwdTensors &x, const AttentionShape *s, int done_Tk) {
    const int KEYS = keys2<W>(), rows = s->max_Tq * (s->H / s->Hkv);
    const int parts = max((s->max_Tk + KEYS - 1) / KEYS, 1);
    const size_t most = device_shared_bytes(dev);
    if (smem2<W>() + sizeof(Line) * ROWS > most || (parts > 1 && dq_smem2<W>() > most)) {
        return false;
    }
    SMEM_ALLOW((attention_bwd_kernel2<W>), smem2<W>());
    LAUNCH((attention_bwd_kernel2<W>), dim3(parts, s->Hkv, s->B), BLOCK, smem2<W>(),
           device_stream(dev), x.dq, x.dk, x.dv, x.delta, x.dout, x.out, x.lse, x.q, x.k, x.v, *s,
           done_Tk);
    if (parts > 1) {
        SMEM_ALLOW((attention_dq_kernel2<W>), dq_smem2<W>());
        LAUNCH((attention_dq_kernel2<W>), dim3((rows + DQ_ROWS - 1) / DQ_ROWS, s->Hkv, s->B), BLOCK,
               dq_smem2<W>(), device_stream(dev), x.dq, x.delta, x.dout, x.lse, x.q, x.k, x.v, *s);
    }
    return true;
}

CUDA_OP(attention_bwd)(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                       const void *dout, const void *out, const float *lse, const void *q,
                       const void *k, const void *v, const AttentionShape *shape) {
    CHECK_POINTERS(attention_bwd, dq, dk, dv, delta, dout, out, lse, q, k, v, shape);
    check_shape(shape);
    check_all_used(shape);
    if (t == DT_BF16 && has_tiles(shape, q, k, v) && is_tileable(dq, shape->q_stride) &&
        is_tileable(dk, shape->k_stride) && is_tileable(dv, shape->v_stride) &&
        is_tileable(out, shape->out_stride) && is_tileable(dout, shape->out_stride)) {
        const BwdTensors x = {(bf16 *)dq,          (bf16 *)dk,  (bf16 *)dv,      delta,
                              (const bf16 *)dout,  (const bf16 *)out, lse,       (const bf16 *)q,
                              (const bf16 *)k,     (const bf16 *)v};
        const int done_Tk = device_arch(dev) == 90 ? attention_bwd_sm90(dev, x, *shape) : -1;
        if (done_Tk >= shape->max_Tk) {
            return;
        }
        FOR_WIDTH(shape->D, W, if (launch2<W>(dev, x, shape, done_Tk)) { return; });
    }
    const dim3 queries(shape->max_Tq, shape->H, shape->B), keys(shape->max_Tk, shape->Hkv,
                                                                shape->B);
    cudaStream_t stream = device_stream(dev);
    FOR_DTYPE(t, T, LAUNCH((attention_dq_kernel1<T>), queries, TILE, 0, stream, (T *)dq, delta,
                           (const T *)dout, (const T *)out, lse, (const T *)q, (const T *)k,
                           (const T *)v, *shape);
              LAUNCH((attention_dkv_kernel1<T>), keys, TILE, 0, stream, (T *)dk, (T *)dv,
                     (const T *)dout, delta, lse, (const T *)q, (const T *)k, (const T *)v,
                     *shape));
}
