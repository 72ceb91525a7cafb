// attention_fwd: softmax attention over packed sequences on CUDA, the forward; see attention.h.
//
// The maximum of a query is carried from tile to tile of keys, and what was summed so far is scaled
// by exp(old - new) (Milakov and Gimelshein 2018). No atomics: each output has one writer.
//
// kernel1: a block has one query of one head. Its threads first take a tile of the keys, one each,
// and form scores; then they share out the head's width and add the tile's rows, ascending. The
// chains are those of the contract; only the sum of exponentials is added in another order.
//
// kernel2 is for bf16 on tensor cores (mma m16n8k16, sm_80), heads up to 128 wide, a multiple of 8,
// rows at multiples of 16 bytes, and cards with shared memory for it. A warp has a strip of 16
// packed rows (attention_parts.cuh) and keeps its scores with 256 keys in registers: a sequence of
// up to 256 keys takes one pass, with the exact maximum and nothing to scale (what the vision tower
// at 197 tokens is bound by is reading Q, K, V once); a longer one takes tiles of 256, scaled in
// between. Groups of 32 keys that a strip does not see are left out, so causal sequences cost half.
// Scores are in units of log 2 (the scale has the factor), for one exp2 each. Which kernel runs,
// and all orders, depend on the card, on the head's layout and on the sequence's own keys, never on
// the rest of the batch. 16 rows per warp ask shared memory for 16 FLOP a byte, which is what an
// A100's tensor cores need at their peak. A Hopper card takes heads of 64, 80 and 128 to kernel3
// (attention_fwd_sm90.cu). Left out: f16, which no model uses, and splitting the keys of a few long
// queries over blocks.
//
//   version  idea                                    shape  time                  % of peak
//   kernel1  one block per query                     -      not yet run on a GPU  -
//   kernel2  strips of 16 rows and 256 keys, mma     -      not yet run on a GPU  -
#include "attention.h"

#include "attention_fwd_sm90.cuh"
#include "device_cuda.cuh"

// ---- kernel 1 ----
// Launch: (max_Tq, H, B) blocks of TILE threads. 1.7 KB of shared memory.
template <typename T>
static __global__ void attention_fwd_kernel1(T *out, float *lse, const T *q, const T *k,
                                             const T *v, AttentionShape s) {
    SMEM_STATIC(query, float, [MAX_D]);
    SMEM_STATIC(weight, float, [TILE]);
    const int i = blockIdx.x, h = blockIdx.y, hkv = h / (s.H / s.Hkv);
    const Span span = span_of(&s, blockIdx.z);
    if (i >= span.Tq) {
        return; // the whole block
    }
    const size_t row = span.q0 + i;
    const int n = visible(&s, span, i);
    widen_row(query, q + row * s.q_stride + h * s.D, s.D);
    __syncthreads(); // every thread reads all of the query
    float max = -INFINITY, total = 0, sum[EACH] = {0};
    for (int j0 = 0; j0 < n; j0 += TILE) {
        const int j = j0 + threadIdx.x, count = n - j0 < TILE ? n - j0 : TILE;
        float x = -INFINITY;
        if (j < n) {
            const T *key = k + (size_t)(span.k0 + j) * s.k_stride + hkv * s.D;
            x = score(dot_row(query, key, s.D), s.scale, slope_of(&s, h),
                      (float)(i + span.Tk - span.Tq), j);
        }
        const float tile_max = block_max(x), new_max = tile_max > max ? tile_max : max;
        const float e = j < n ? exp_f32(x - new_max) : 0.0f;
        const float shrink = j0 ? exp_f32(max - new_max) : 0.0f;
        weight[threadIdx.x] = e; // block_max: everybody is done with the last tile's
        total = fmaf(total, shrink, block_sum(e)); // block_sum: weight is whole
        for (int c = 0; c < EACH; c++) {
            sum[c] *= shrink;
        }
        add_rows(sum, weight, v + (size_t)(span.k0 + j0) * s.v_stride + hkv * s.D, s.v_stride,
                 count, s.D);
        max = new_max;
    }
    for (int c = 0; c < EACH; c++) {
        sum[c] = n ? sum[c] / total : 0.0f;
    }
    store_row(out + row * s.out_stride + h * s.D, sum, s.D);
    if (threadIdx.x == 0) {
        lse[(size_t)h * s.Nq + row] = n ? max + log_f32(total) : -INFINITY;
    }
}

// ---- kernel 2 ----
static const int KEYS = 256;  // of a tile: the scores of a strip with them stay in registers
static const int GROUP = 32;  // keys that are left out together when a strip sees none of them
static_assert(KEYS % GROUP == 0 && GROUP % 16 == 0, "groups of whole fragments");

// Warps of a block. A wide head leaves room for one block per multiprocessor, narrow ones for two.
template <int W> static constexpr __host__ __device__ int warps2() { return W <= 80 ? 4 : 8; }
template <int W> static constexpr size_t smem2() {
    return (size_t)(warps2<W>() * STRIP + 2 * KEYS) * W * sizeof(bf16);
}

// x[t] = products of the strip with keys 8 t .. 8 t + 7 of the tile, for the first `count` keys.
template <int W>
static __device__ void strip_products(float (&x)[KEYS / 8][4], uint32_t q_strip, uint32_t k_tile,
                                      int count) {
    UNROLL for (int t = 0; t < KEYS / 8; t++) {
        UNROLL for (int e = 0; e < 4; e++) {
            x[t][e] = 0;
        }
    }
    UNROLL for (int d = 0; d < W; d += 16) {
        uint32_t a[4];
        load_a<W>(a, q_strip, 0, d);
        UNROLL for (int j = 0; j < KEYS; j += GROUP) {
            if (j < count) {
                UNROLL for (int k = j; k < j + GROUP; k += 16) {
                    uint32_t b[4];
                    load_b<W>(b, k_tile, k, d);
                    mma_pair(x[k / 8], x[k / 8 + 1], a, b);
                }
            }
        }
    }
}

// Products to scores in units of log 2: scaled, with ALiBi's bias. j0: first key of the tile.
static __device__ void strip_scores(float (&x)[KEYS / 8][4], const AttentionShape *s,
                                    const Rows &rows, int first, int j0, int count) {
    const float scale = s->scale * LOG2E;
    float slope[2], position[2];
    UNROLL for (int l = 0; l < 2 && s->alibi; l++) {
        const int r = min(first + (int)threadIdx.x % WARP / 4 + 8 * l, rows.count - 1);
        slope[l] = s->alibi[head_of(rows, r)] * LOG2E;
        position[l] = (float)position_of(rows, r);
    }
    UNROLL for (int t = 0; t < KEYS / 8; t++) {
        if (8 * t / GROUP * GROUP < count) {
            UNROLL for (int e = 0; e < 4; e++) {
                const int key = j0 + 8 * t + threadIdx.x % 4 * 2 + e % 2;
                x[t][e] = s->alibi ? score(x[t][e], scale, slope[e / 2], position[e / 2], key)
                                   : x[t][e] * scale;
            }
        }
    }
}

// Scores to e = 2^(score - max), where the maximum is over all keys so far; masked ones to 0.
// Returns by what to scale what was summed before. least: keys that every row of the strip sees.
static __device__ float2 strip_softmax(float (&x)[KEYS / 8][4], Lines *lines, int j0, int count,
                                       int least) {
    float top[2] = {-INFINITY, -INFINITY};
    UNROLL for (int t = 0; t < KEYS / 8; t++) {
        const int j = 8 * t / GROUP * GROUP;
        if (j < count) {
            const bool is_whole = j0 + j + GROUP <= least;
            UNROLL for (int e = 0; e < 4; e++) {
                const int key = j0 + 8 * t + threadIdx.x % 4 * 2 + e % 2;
                x[t][e] = is_whole || key < lines->seen[e / 2] ? x[t][e] : -INFINITY;
                top[e / 2] = fmaxf(top[e / 2], x[t][e]);
            }
        }
    }
    float base[2];
    const float2 shrink = lines_rebase(lines, top, base);
    UNROLL for (int t = 0; t < KEYS / 8; t++) {
        if (8 * t / GROUP * GROUP < count) {
            UNROLL for (int e = 0; e < 4; e++) {
                x[t][e] = exp2_approx(x[t][e] - base[e / 2]);
                lines->total[e / 2] += x[t][e];
            }
        }
    }
    return shrink;
}

// sum += e v, with e rounded to bf16.
template <int W>
static __device__ void strip_values(float (&sum)[W / 8][4], const float (&x)[KEYS / 8][4],
                                    uint32_t v_tile, int count) {
    UNROLL for (int j = 0; j < KEYS; j += GROUP) {
        if (j < count) {
            UNROLL for (int k = j; k < j + GROUP; k += 16) {
                uint32_t a[4];
                round_to_a(a, x[k / 8], x[k / 8 + 1]);
                UNROLL for (int d = 0; d < W; d += 16) {
                    uint32_t b[4];
                    load_b_trans<W>(b, v_tile, k, d);
                    mma_pair(sum[d / 8], sum[d / 8 + 1], a, b);
                }
            }
        }
    }
}

// Launch: (any, Hkv, B) blocks of warps2 warps, smem2 bytes of dynamic shared memory: the blocks of
// a sequence and key/value head share out its rows, a strip of 16 for each warp and turn. A
// sequence of up to KEYS keys keeps them in shared memory from turn to turn; the tiles of a longer
// one come and go, K while the values are summed, V while the scores are formed.
template <int W>
static __global__ void __launch_bounds__(WARP *warps2<W>(), W <= 80 ? 2 : 1)
    attention_fwd_kernel2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                          AttentionShape s) {
    const int BLOCK = WARP * warps2<W>(), TURN = STRIP * warps2<W>();
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, q_strips, bf16, TURN * W, 128);
    SMEM_TAKE(carver, k_rows, bf16, KEYS * W, 128);
    SMEM_TAKE(carver, v_rows, bf16, KEYS * W, 128);
    const Rows rows = rows_of(&s, blockIdx.z, blockIdx.y);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, Tk = rows.span.Tk;
    const uint32_t q_strip = smem_u32(q_strips) + 2 * warp * STRIP * W;
    const uint32_t k_tile = smem_u32(k_rows), v_tile = smem_u32(v_rows);
    const bool stays = Tk <= KEYS;
    auto load_q = [&](int turn) {
        const bf16 *from = q + (size_t)rows.span.q0 * s.q_stride + rows.head0 * s.D;
        load_tile<W>(q_strip, from, s.q_stride, rows.group, turn + warp * STRIP, STRIP, rows.count,
                     s.D, lane, WARP);
    };
    auto load_keys = [&](uint32_t tile, const bf16 *x, int stride, int j0) {
        const int count = min((Tk - j0 + GROUP - 1) / GROUP * GROUP, KEYS);
        const bf16 *from = x + (size_t)rows.span.k0 * stride + blockIdx.y * s.D;
        load_tile<W>(tile, from, stride, 1, j0, count, Tk, s.D, threadIdx.x, BLOCK);
    };
    const int step = gridDim.x * TURN;
    int turn = blockIdx.x * TURN;
    if (turn >= rows.count) {
        return; // the whole block
    }
    load_q(turn);
    load_keys(k_tile, k, s.k_stride, 0);
    cp_async_commit();
    load_keys(v_tile, v, s.v_stride, 0);
    cp_async_commit();
    for (; turn < rows.count; turn += step) {
        const int first = turn + warp * STRIP, last = min(first + STRIP, rows.count) - 1;
        const int least = first <= last ? seen_by(&s, rows, first) : 0;
        const int most = first <= last ? seen_by(&s, rows, last) : 0;
        const int reach = seen_by(&s, rows, min(turn + TURN, rows.count) - 1); // of the block
        Lines lines = lines_of(&s, rows, first);
        float sum[W / 8][4] = {};
        int j0 = 0;
        do {
            cp_async_wait<1>(); // this thread's parts of Q and K are there
            __syncthreads();    // everybody's are
            float x[KEYS / 8][4];
            strip_products<W>(x, q_strip, k_tile, most - j0);
            strip_scores(x, &s, rows, first, j0, most - j0);
            const float2 shrink = strip_softmax(x, &lines, j0, most - j0, least);
            cp_async_wait<0>();
            __syncthreads(); // V is there, too; everybody is done with K
            const int next = j0 + KEYS < reach ? j0 + KEYS : 0;
            const bool goes_on = next > 0 || turn + step < rows.count;
            if (next == 0 && goes_on) {
                load_q(turn + step);
            }
            if (!stays && goes_on) {
                load_keys(k_tile, k, s.k_stride, next);
            }
            cp_async_commit();
            UNROLL for (int t = 0; t < W / 8 && j0 > 0; t++) {
                UNROLL for (int e = 0; e < 4; e++) {
                    sum[t][e] *= e < 2 ? shrink.x : shrink.y;
                }
            }
            strip_values<W>(sum, x, v_tile, most - j0);
            if (!stays && goes_on) {
                __syncthreads(); // everybody is done with V
                load_keys(v_tile, v, s.v_stride, next);
            }
            cp_async_commit();
            j0 += KEYS;
        } while (j0 < reach);
        lines_store<W>(out, lse, &s, rows, first, rows.count, &sum[0][0], lines);
    }
}

// ---- launcher ----
// False where the card's blocks have too little shared memory.
template <int W>
static bool launch2(Device *dev, bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                    const AttentionShape *s) {
    if (smem2<W>() > device_shared_bytes(dev)) {
        return false;
    }
    const int turn = STRIP * warps2<W>(), rows = s->max_Tq * (s->H / s->Hkv);
    const int turns = (rows + turn - 1) / turn;
    // Where keys stay in shared memory, one block for all rows reads them once; more blocks where
    // these would not fill the card. No result depends on it.
    const int each = 2 * device_processors(dev) / (s->Hkv * s->B) + 1;
    const dim3 grid(s->max_Tk <= KEYS && each < turns ? each : turns, s->Hkv, s->B);
    SMEM_ALLOW((attention_fwd_kernel2<W>), smem2<W>());
    LAUNCH((attention_fwd_kernel2<W>), grid, WARP * warps2<W>(), smem2<W>(), device_stream(dev),
           out, lse, q, k, v, *s);
    return true;
}

CUDA_OP(attention_fwd)(Device *dev, DType t, void *out, float *lse, const void *q, const void *k,
                       const void *v, const AttentionShape *shape) {
    CHECK_POINTERS(attention_fwd, out, lse, q, k, v, shape);
    check_shape(shape);
    if (t == DT_BF16 && has_tiles(shape, q, k, v) && is_tileable(out, shape->out_stride)) {
        const bool is_wide = shape->D == 64 || shape->D == 80 || shape->D == 128;
        if (device_arch(dev) == 90 && is_wide &&
            attention_fwd_sm90(dev, (bf16 *)out, lse, (const bf16 *)q, (const bf16 *)k,
                               (const bf16 *)v, shape)) {
            return;
        }
        FOR_WIDTH(shape->D, W,
                  if (launch2<W>(dev, (bf16 *)out, lse, (const bf16 *)q, (const bf16 *)k,
                                 (const bf16 *)v, shape)) { return; });
    }
    const dim3 grid(shape->max_Tq, shape->H, shape->B);
    FOR_DTYPE(t, T, LAUNCH((attention_fwd_kernel1<T>), grid, TILE, 0, device_stream(dev), (T *)out,
                           lse, (const T *)q, (const T *)k, (const T *)v, *shape));
}
