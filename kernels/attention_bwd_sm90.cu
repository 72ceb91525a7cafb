// attention_bwd_sm90: the attention backward of short sequences on Hopper: TMA copies, mbarriers,
// warpgroup products (wgmma). bf16, heads of 64, 80 or 128; see attention.h and attention_bwd.cu.
//
// A block takes one (sequence, key/value head) after another, those of at most KEYS keys. K and V
// stay in shared memory, dk and dv in the registers of two consumer warpgroups, which have strips
// of 64 keys in turn. It goes over tiles of 64 queries, head after head of the group. Scores are
// formed with a row for each key, so that what a product leaves in registers is the first factor of
// the next:
//   1. p' = 2^(k q' - lse) and ds' = p' (v dout' - delta): 64 keys, 64 queries
//   2. dv += p' dout and dk += ds' q, with p' and ds' from registers
//   3. ds' goes to shared memory, rows of keys; of every second tile each consumer forms dq = ds k
//      over all keys, while the other is with the next tile
// Every sum is in one thread: no atomics, no sums in memory, nothing to join. dk and dv go over the
// heads, of each over its queries, dq over the keys, 16 at a time; that and which kernel it is
// depends on the sequence and the layout alone. The scale is applied to the sums.
//
// The first warpgroup feeds them. One thread issues the copies: K and V of the next head while this
// one is worked on, q and dout a tile ahead. Three warps take dout and out of each tile and leave
// lse and delta = rowsum(dout out) of its queries. A box that runs past the end of the sequence
// brings rows of the next one: they set these to zero, for 0 times NaN would be NaN.
//
// Shared memory is the same for all widths, for heads of 80 and 128 have two boxes of 64 columns,
// and half as many keys: 2 x 64 KB of K and V, 96 KB of q, dout and ds in two stages each, 1 KB of
// lines: 225 KB, one block per multiprocessor. Registers of a consumer: dk and dv 128, p and ds 32
// each, one of them as factors 16: it is given 224. (So 128 < Tk <= 256 is left out for wider
// heads: dk and dv alone, 128 columns of 256 keys, would be all registers of a multiprocessor.)
// Bytes: q, k, v, dout, out are read once, dq, dk, dv written once. A head of 197 queries, 64 wide:
// 202 KB, at 4.3 TB/s over 132 multiprocessors 6.2 us; 25 MFLOP, in full tiles 42, at 790 TFLOP/s
// 7.0. The copies of the next head hide behind the products of this one, one consumer's
// exponentials behind the other's products.
// Left out: last tiles narrower than 64; heads of a group that share tiles where queries are few;
// longest sequences first; `out` brought to the second-level cache ahead of its use. (The helpers'
// registers have room for 32 bytes of it a lane, so that they wait for memory three times a tile,
// wide heads six times: a card will tell whether that holds the consumers up.)
//
//   version      idea                                  shape  time                  % of peak
//   bwd_kernel3  TMA, wgmma, K and V stay, 5 products  -      not yet run on a GPU  -
#include "attention_bwd_sm90.cuh"

#include "device_cuda.cuh"
#include "ring_hopper.cuh"

static const int SIDE = 64;        // keys of a strip, queries of a tile
static const int HALF = RING_HALF; // bytes of SIDE rows of 64 columns
static const int ROW_BYTES = 128;  // of a row of a half
static const int PIECE = 16;       // bytes that the swizzle leaves together
static const int STAGES = 2;       // of everything that waits in shared memory
static const int FEEDER_REGISTERS = 56, MULTIPLIER_REGISTERS = 224;
static_assert(FEEDER_REGISTERS + 2 * MULTIPLIER_REGISTERS <= ALL_REGISTERS, "they exist");
// Helpers: the warps beside the producer's. Eight lanes share a row's delta.
static const int HELPERS = 3, HELPER_THREADS = HELPERS * WARP, EACH_ROW = 8;
static const int HELPER_ROWS = HELPER_THREADS / EACH_ROW; // that they take at once
static const int HELPER_TURNS = (SIDE + HELPER_ROWS - 1) / HELPER_ROWS;

// Of a head width: boxes of 64 columns, strips of a consumer, keys; bytes of a tile, of K, of ds.
template <int D> struct Sizes {
    enum {
        HALVES = (D + 63) / 64,
        STRIPS = HALVES == 1 ? 2 : 1,
        KEYS = 2 * STRIPS * SIDE,
        TILE = HALVES * HALF,
        ALL_KEYS = 2 * STRIPS * TILE,
        DS = 2 * STRIPS * HALF,
    };
};

// ---- the block's shared memory ----
struct Line { // what the pairs of a tile's queries need of them; scores are in units of log 2
    float lse[SIDE], delta[SIDE];
};
// mbarriers, STAGES of each.
enum Bar {
    KEYS_FULL = 0 * STAGES,  // K and V have arrived
    KEYS_EMPTY = 1 * STAGES, // the consumers are done with them
    TILE_FULL = 2 * STAGES,  // q and dout have arrived
    TILE_READY = 3 * STAGES, // the helpers have left lines, and zeros where rows are not its own
    TILE_EMPTY = 4 * STAGES, // the consumers are done with it
    DS_FULL = 5 * STAGES,    // both consumers have left theirs
    DS_EMPTY = 6 * STAGES,   // the one that forms dq is done with it
    BARS = 7 * STAGES
};

struct Room {
    uint8_t *keys, *tiles, *ds;
    Line *lines;
    uint64_t *bars;
};
template <int D> static constexpr size_t smem3() {
    typedef Sizes<D> Of;
    return STAGES * (2 * Of::ALL_KEYS + 2 * Of::TILE + Of::DS + sizeof(Line)) +
           BARS * sizeof(uint64_t);
}
static_assert(smem3<64>() <= 227 * 1024 && smem3<80>() <= 227 * 1024 && smem3<128>() <= 227 * 1024,
              "a block's shared memory");

// Turn n of a kind uses place n % 2, whose phases are counted by n / 2.
static __device__ uint32_t bar_at(const Room &room, Bar kind, int turn) {
    return smem_u32(room.bars + kind + turn % STAGES);
}
static __device__ void await(const Room &room, Bar kind, int turn) {
    mbar_wait(bar_at(room, kind, turn), turn / STAGES % 2);
}
// Waits until the turn before in that place is over; the first one has none.
static __device__ void await_empty(const Room &room, Bar kind, int turn) {
    mbar_wait(bar_at(room, kind, turn), turn / STAGES % 2 ^ 1);
}
// By all lanes of a warp, once they are done.
static __device__ void arrive(const Room &room, Bar kind, int turn) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
        mbar_arrive(bar_at(room, kind, turn));
    }
}

// K and V, q and dout of a turn.
template <int D> static __device__ uint8_t *keys_at(const Room &room, int turn) {
    return room.keys + turn % STAGES * 2 * Sizes<D>::ALL_KEYS;
}
template <int D> static __device__ uint8_t *tile_at(const Room &room, int turn) {
    return room.tiles + turn % STAGES * 2 * Sizes<D>::TILE;
}

// ---- the work ----
// What the kernel is told besides the contract's arguments.
struct Plan3 {
    TensorMap q, dout, k, v; // boxes of SIDE rows
    int group;               // query heads of a key/value head
};
// One (sequence, key/value head). Heads of a sequence are neighbours: so are their rows in memory.
struct Work {
    Span span;
    int hkv, head0, heads_end; // key/value head, the query heads that read it
};
static __device__ Work work_at(const AttentionShape &s, int group, int index) {
    const int b = index / s.Hkv, hkv = index - b * s.Hkv;
    return {span_of(&s, b), hkv, hkv * group, (hkv + 1) * group};
}
// for each one of this block, in every role.
#define EACH_WORK(D, s, plan, work)                                                                \
    for (int index = blockIdx.x; index < (s).B * (s).Hkv; index += gridDim.x)                      \
        if (const Work work = work_at(s, (plan).group, index); work.span.Tk <= Sizes<D>::KEYS)
// The work's tiles: head after head, of each from the first query on.
#define EACH_TILE(work, h, i0)                                                                     \
    for (int h = (work).head0; h < (work).heads_end; h++)                                          \
        for (int i0 = 0; i0 < (work).span.Tq; i0 += SIDE)

// ---- the producer ----
// Begins to load SIDE rows of a head. What a box holds beyond the head's columns is not used.
template <int D>
static __device__ void load_rows(uint8_t *to, const TensorMap *map, int head, int row,
                                 uint32_t full) {
    for (int half = 0; half < Sizes<D>::HALVES; half++) {
        tma_load(smem_u32(to + half * HALF), map, head * D + 64 * half, row, full);
    }
}

template <int D>
static __device__ void produce(const Plan3 &plan, const AttentionShape &s, const Room &room) {
    const int TILE = Sizes<D>::TILE;
    int keys_turn = 0, turn = 0;
    EACH_WORK(D, s, plan, work) {
        const uint32_t keys_full = bar_at(room, KEYS_FULL, keys_turn);
        const int strips = (work.span.Tk + SIDE - 1) / SIDE;
        await_empty(room, KEYS_EMPTY, keys_turn);
        mbar_arrive_expect(keys_full, 2 * strips * TILE);
        uint8_t *const k = keys_at<D>(room, keys_turn++), *const v = k + Sizes<D>::ALL_KEYS;
        for (int strip = 0; strip < strips; strip++) {
            const int row = work.span.k0 + strip * SIDE;
            load_rows<D>(k + strip * TILE, &plan.k, work.hkv, row, keys_full);
            load_rows<D>(v + strip * TILE, &plan.v, work.hkv, row, keys_full);
        }
        EACH_TILE(work, h, i0) {
            const uint32_t full = bar_at(room, TILE_FULL, turn);
            await_empty(room, TILE_EMPTY, turn);
            mbar_arrive_expect(full, 2 * TILE);
            uint8_t *const q = tile_at<D>(room, turn++);
            load_rows<D>(q, &plan.q, h, work.span.q0 + i0, full);
            load_rows<D>(q + TILE, &plan.dout, h, work.span.q0 + i0, full);
        }
    }
}

// ---- the helpers ----
// Where a tile has 16 bytes of a row: those that start with column d.
static __device__ int place_in_tile(int row, int d) {
    return d / 64 * HALF + row * ROW_BYTES + (d % 64 / CHUNK ^ row % 8) * PIECE;
}

// Rows first .. SIDE - 1 of a tile become 0, for products.
template <int D> static __device__ void clear_rows(uint8_t *tile, int first, int helper) {
    ROLLED for (int half = 0; half < Sizes<D>::HALVES; half++) {
        ROLLED for (int at = first * ROW_BYTES + helper * PIECE; at < HALF;
                    at += HELPER_THREADS * PIECE) {
            st16(tile + half * HALF + at, make_uint4(0, 0, 0, 0));
        }
    }
}

// The lines and delta of the tile's queries, of which `count` are there; row_q: the first of them.
// Eight lanes have a row. All that a lane needs of `out` is under way before dout is waited for.
template <int D>
static __device__ void form_lines(const BwdTensors &x, const AttentionShape &s, const Room &room,
                                  int turn, int h, int row_q, int count, int helper) {
    const int EACH = (D / CHUNK + EACH_ROW - 1) / EACH_ROW; // chunks of a lane
    const int BATCH = EACH > 1 ? 1 : 2;                     // rows of it at once
    const int lane = helper % EACH_ROW;
    const uint8_t *const dout = tile_at<D>(room, turn) + Sizes<D>::TILE;
    Line *const line = room.lines + turn % STAGES;
    // 2^(x - inf) is 0: not a query, or one that sees nothing.
    const float own_lse = helper < count ? x.lse[(size_t)h * s.Nq + row_q + helper] : -INFINITY;
    ROLLED for (int n = 0; n < HELPER_TURNS; n += BATCH) {
        const int first = helper / EACH_ROW + n * HELPER_ROWS;
        uint4 own[BATCH][EACH];
        UNROLL for (int k = 0; k < BATCH * EACH; k++) {
            const int row = first + k / EACH * HELPER_ROWS;
            const int d = (lane + k % EACH * EACH_ROW) * CHUNK;
            own[k / EACH][k % EACH] = make_uint4(0, 0, 0, 0);
            if (row < count && d < D) {
                const bf16 *const from = x.out + (size_t)(row_q + row) * s.out_stride + h * D;
                own[k / EACH][k % EACH] = ld16(from + d);
            }
        }
        await(room, TILE_FULL, turn);
        UNROLL for (int b = 0; b < BATCH; b++) {
            const int row = first + b * HELPER_ROWS;
            float sum = 0;
            UNROLL for (int e = 0; e < EACH; e++) {
                const int d = (lane + e * EACH_ROW) * CHUNK;
                if (row < count && d < D) {
                    const Pack<bf16> x_out = pack_of<bf16>(own[b][e]);
                    const Pack<bf16> x_dout = pack_of<bf16>(ld16(dout + place_in_tile(row, d)));
                    UNROLL for (int c = 0; c < CHUNK; c++) {
                        sum = fmaf(x_dout.at[c], x_out.at[c], sum);
                    }
                }
            }
            UNROLL for (int step = EACH_ROW / 2; step > 0; step /= 2) {
                sum += __shfl_xor_sync(0xffffffffu, sum, step, WARP);
            }
            if (lane == 0 && row < SIDE) {
                line->delta[row] = sum;
            }
            if (lane == 0 && row < count) {
                x.delta[(size_t)h * s.Nq + row_q + row] = sum;
            }
        }
    }
    if (helper < SIDE) {
        line->lse[helper] = own_lse == -INFINITY ? INFINITY : own_lse * LOG2E;
    }
}

template <int D>
static __device__ void help(const BwdTensors &x, const AttentionShape &s, const Plan3 &plan,
                            const Room &room) {
    const int TILE = Sizes<D>::TILE, helper = threadIdx.x - WARP;
    int keys_turn = 0, turn = 0;
    EACH_WORK(D, s, plan, work) {
        uint8_t *const k = keys_at<D>(room, keys_turn);
        if (work.span.Tq > 0 && work.span.Tk % SIDE > 0) { // before the consumers see a tile
            await(room, KEYS_FULL, keys_turn);
            const int last = work.span.Tk / SIDE * TILE;
            clear_rows<D>(k + last, work.span.Tk % SIDE, helper);
            clear_rows<D>(k + Sizes<D>::ALL_KEYS + last, work.span.Tk % SIDE, helper);
        }
        keys_turn++;
        EACH_TILE(work, h, i0) {
            const int count = min(work.span.Tq - i0, SIDE);
            form_lines<D>(x, s, room, turn, h, work.span.q0 + i0, count, helper);
            if (count < SIDE) {
                clear_rows<D>(tile_at<D>(room, turn), count, helper);
                clear_rows<D>(tile_at<D>(room, turn) + TILE, count, helper);
            }
            fence_proxy_async(); // the zeros, for wgmma
            arrive(room, TILE_READY, turn++);
        }
    }
}

// ---- the consumers ----
// What the pairs of a tile with a strip have in common.
struct Pairs {
    const Line *line;
    const float *slope; // of ALiBi, or NULL
    float scale;        // in units of log 2
    int offset;         // of the tile's first query among the keys, from the strip's first key on
    int keys;           // that are there
    bool is_causal;
};

// Of a thread: acc[4t + e] is key key_row() + 8 (e / 2), query 8t + query_column() + e % 2.
static __device__ int key_row() {
    return threadIdx.x % WARPGROUP / WARP * 16 + threadIdx.x % WARP / 4;
}
static __device__ int query_column() { return threadIdx.x % 4 * 2; }
// What two neighbouring queries have in a Line.
static __device__ float2 two_of(const float *of, int t) {
    const uint2 bits = ld8(of + 8 * t + query_column());
    return make_float2(__uint_as_float(bits.x), __uint_as_float(bits.y));
}

// The products q k become p. Every key is seen, and there is no ALiBi:
static __device__ void form_plain_p(float (&p)[SIDE / 2], const Pairs &pairs) {
    UNROLL for (int t = 0; t < SIDE / 8; t++) {
        const float2 lse = two_of(pairs.line->lse, t);
        UNROLL for (int e = 0; e < 4; e++) {
            p[4 * t + e] = exp2_approx(fmaf(p[4 * t + e], pairs.scale, -(e % 2 ? lse.y : lse.x)));
        }
    }
}
// In general. The queries that see one of the thread's two keys are those from first[] on, counted
// from query_column(). Those that are not there have lse = inf; a key that is not has zeros, whose
// p could still be infinite.
static __device__ void form_p(float (&p)[SIDE / 2], const Pairs &pairs) {
    const float slope = pairs.slope ? *pairs.slope * LOG2E : 0;
    int first[2];
    float ahead[2]; // of the key, the thread's first query
    UNROLL for (int l = 0; l < 2; l++) {
        const int key = key_row() + 8 * l, distance = pairs.offset + query_column() - key;
        first[l] = key >= pairs.keys ? SIDE : pairs.is_causal ? -distance : -SIDE;
        ahead[l] = (float)distance;
    }
    UNROLL for (int t = 0; t < SIDE / 8; t++) {
        const float2 lse = two_of(pairs.line->lse, t);
        UNROLL for (int e = 0; e < 4; e++) {
            const int i = 8 * t + e % 2;
            const float start = fmaf(-slope, fabsf(ahead[e / 2] + (float)i),
                                     -(e % 2 ? lse.y : lse.x));
            const float x = exp2_approx(fmaf(p[4 * t + e], pairs.scale, start));
            p[4 * t + e] = first[e / 2] <= i ? x : 0.0f;
        }
    }
}
// The products dout v become ds / scale.
static __device__ void form_ds(float (&ds)[SIDE / 2], const float (&p)[SIDE / 2],
                               const Pairs &pairs) {
    UNROLL for (int t = 0; t < SIDE / 8; t++) {
        const float2 delta = two_of(pairs.line->delta, t);
        UNROLL for (int e = 0; e < 4; e++) {
            ds[4 * t + e] = p[4 * t + e] * (ds[4 * t + e] - (e % 2 ? delta.y : delta.x));
        }
    }
}

// Rounded, as the first factors of four products: 16 queries each.
static __device__ void round_to_factors(uint32_t (&a)[SIDE / 16][4], const float (&x)[SIDE / 2]) {
    UNROLL for (int k = 0; k < SIDE / 4; k++) {
        a[k / 4][k % 4] = bf16x2_of_floats(x[2 * k], x[2 * k + 1]);
    }
}

// ds of this warp's 16 keys to its rows of the strip.
static __device__ void store_ds(uint8_t *strip, const uint32_t (&a)[SIDE / 16][4]) {
    UNROLL for (int k = 0; k < SIDE / 4; k++) {
        const int at = place_in_tile(key_row() + k % 2 * 8, k / 2 * CHUNK);
        *(uint32_t *)(strip + at + 2 * query_column()) = a[k / 4][k % 4];
    }
}

// acc (keys of the strip, queries of the tile) = rows of both, multiplied along the head.
template <int D>
static __device__ void begin_scores(float (&acc)[SIDE / 2], uint32_t strip, uint32_t tile) {
    UNROLL for (int k = 0; k < D / 16; k++) { // 16 columns: 32 bytes
        const int at = k / 4 * HALF + k % 4 * 32;
        wgmma_m64k16_bf16<0, 0>(acc, wgmma_tile(strip + at), wgmma_tile(tile + at));
    }
    wgmma_commit();
}
// acc (keys of the strip, D) += factors times the tile's rows.
template <int D>
static __device__ void begin_gradient(float (&acc)[D / 2], const uint32_t (&a)[SIDE / 16][4],
                                      uint32_t tile) {
    UNROLL for (int k = 0; k < SIDE / 16; k++) {
        wgmma_m64k16_bf16<1>(acc, a[k], wgmma_tile_mn(tile + k * 16 * ROW_BYTES, HALF));
    }
    wgmma_commit();
}

template <int COUNT> static __device__ void set_zero(float (&acc)[COUNT]) {
    UNROLL for (int k = 0; k < COUNT; k++) { acc[k] = 0; }
    wgmma_hold(acc);
}

// What a strip of keys and a tile of queries have to do with one another: steps 1 and 2 above.
template <int D>
static __device__ void add_strip(float (&dk)[D / 2], float (&dv)[D / 2], uint8_t *ds_strip,
                                 uint32_t k_strip, uint32_t v_strip, uint32_t q_tile,
                                 uint32_t dout_tile, const Pairs &pairs) {
    const bool is_plain = !pairs.slope && pairs.keys >= SIDE &&
                          (!pairs.is_causal || pairs.offset >= SIDE - 1);
    float p[SIDE / 2], ds[SIDE / 2];
    set_zero(p);
    set_zero(ds);
    wgmma_fence();
    begin_scores<D>(p, k_strip, q_tile);
    begin_scores<D>(ds, v_strip, dout_tile);
    wgmma_wait<1>();
    wgmma_hold(p);
    if (is_plain) {
        form_plain_p(p, pairs);
    } else {
        form_p(p, pairs);
    }
    uint32_t a[SIDE / 16][4], b[SIDE / 16][4];
    round_to_factors(a, p);
    wgmma_fence();
    begin_gradient<D>(dv, a, dout_tile);
    wgmma_wait<1>();
    wgmma_hold(ds);
    form_ds(ds, p, pairs);
    round_to_factors(b, ds);
    store_ds(ds_strip, b);
    wgmma_fence();
    begin_gradient<D>(dk, b, q_tile);
    wgmma_wait<0>();
    wgmma_hold(dv);
    wgmma_hold(dk);
    wgmma_hold(a);
    wgmma_hold(b);
}

// dq of the tile's queries, times the scale: ds, of which there are rows of keys, times the keys
// that one of them sees.
template <int D>
static __device__ void tile_dq(bf16 *dq, const AttentionShape &s, uint32_t ds, uint32_t k,
                               int reach, int count, const Room &room, int turn) {
    float acc[D / 2];
    set_zero(acc);
    ROLLED for (int key = 0; key < reach; key += 16) {
        const int strip = key / SIDE, inside = key % SIDE * ROW_BYTES;
        wgmma_fence();
        wgmma_m64k16_bf16<1, 1>(acc, wgmma_tile_mn(ds + key * ROW_BYTES, HALF),
                                wgmma_tile_mn(k + strip * Sizes<D>::TILE + inside, HALF));
        wgmma_commit();
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    arrive(room, DS_EMPTY, turn);
    UNROLL for (int l = 0; l < 2; l++) {
        const int row = key_row() + 8 * l;
        UNROLL for (int d = 0; d < D; d += 16) {
            store_pair(dq + (size_t)row * s.q_stride, row < count, d, D, &acc[d / 2 + 2 * l],
                       &acc[d / 2 + 4 + 2 * l], s.scale);
        }
    }
}

// Rows of dk or dv: `to` is the strip's first.
template <int D>
static __device__ void store_strip(bf16 *to, int stride, int count, const float (&acc)[D / 2],
                                   float factor) {
    UNROLL for (int l = 0; l < 2; l++) {
        const int row = key_row() + 8 * l;
        UNROLL for (int d = 0; d < D; d += 16) {
            store_pair(to + (size_t)row * stride, row < count, d, D, &acc[d / 2 + 2 * l],
                       &acc[d / 2 + 4 + 2 * l], factor);
        }
    }
}

template <int D>
static __device__ void consume(const BwdTensors &x, const AttentionShape &s, const Plan3 &plan,
                               const Room &room) {
    constexpr int STRIPS = Sizes<D>::STRIPS, TILE = Sizes<D>::TILE;
    const int own = consumer_warp() / 4; // which of the two
    int keys_turn = 0, turn = 0;
    EACH_WORK(D, s, plan, work) {
        const Span span = work.span;
        const uint32_t k = smem_u32(keys_at<D>(room, keys_turn)), v = k + Sizes<D>::ALL_KEYS;
        float dk[STRIPS][D / 2], dv[STRIPS][D / 2];
        UNROLL for (int n = 0; n < STRIPS; n++) {
            set_zero(dk[n]);
            set_zero(dv[n]);
        }
        await(room, KEYS_FULL, keys_turn);
        EACH_TILE(work, h, i0) {
            const int count = min(span.Tq - i0, SIDE);
            const int reach = min(max(visible(&s, span, i0 + count - 1), 0), span.Tk);
            const uint32_t q = smem_u32(tile_at<D>(room, turn)), dout = q + TILE;
            uint8_t *const ds = room.ds + turn % STAGES * Sizes<D>::DS;
            await(room, TILE_FULL, turn);
            await(room, TILE_READY, turn);
            await_empty(room, DS_EMPTY, turn);
            UNROLL for (int n = 0; n < STRIPS; n++) {
                const int strip = 2 * n + own;
                if (strip * SIDE < reach) {
                    const Pairs pairs = {room.lines + turn % STAGES,
                                         s.alibi ? s.alibi + h : NULL,
                                         s.scale * LOG2E,
                                         i0 + span.Tk - span.Tq - strip * SIDE,
                                         span.Tk - strip * SIDE,
                                         s.is_causal};
                    add_strip<D>(dk[n], dv[n], ds + strip * HALF, k + strip * TILE,
                                 v + strip * TILE, q, dout, pairs);
                }
            }
            arrive(room, TILE_EMPTY, turn);
            fence_proxy_async(); // ds, for wgmma
            arrive(room, DS_FULL, turn);
            if (turn % STAGES == own) {
                await(room, DS_FULL, turn);
                tile_dq<D>(x.dq + (size_t)(span.q0 + i0) * s.q_stride + h * D, s, smem_u32(ds), k,
                           reach, count, room, turn);
            }
            turn++;
        }
        arrive(room, KEYS_EMPTY, keys_turn++);
        UNROLL for (int n = 0; n < STRIPS; n++) {
            const int key0 = (2 * n + own) * SIDE;
            store_strip<D>(x.dk + (size_t)(span.k0 + key0) * s.k_stride + work.hkv * D, s.k_stride,
                           span.Tk - key0, dk[n], s.scale);
            store_strip<D>(x.dv + (size_t)(span.k0 + key0) * s.v_stride + work.hkv * D, s.v_stride,
                           span.Tk - key0, dv[n], 1);
        }
    }
}

// ---- the kernel ----
template <int D>
static __device__ void block(const BwdTensors &x, const AttentionShape &s, const Plan3 &plan) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, keys, uint8_t, STAGES * 2 * Sizes<D>::ALL_KEYS, 1024);
    SMEM_TAKE(carver, tiles, uint8_t, STAGES * 2 * Sizes<D>::TILE, 1024);
    SMEM_TAKE(carver, ds, uint8_t, STAGES * Sizes<D>::DS, 1024);
    SMEM_TAKE(carver, lines, Line, STAGES, 16);
    SMEM_TAKE(carver, bars, uint64_t, BARS, 8);
    const Room room = {keys, tiles, ds, lines, bars};
    if (threadIdx.x == 0) {
        const int consumer = WARPGROUP / WARP; // its warps
        for (int turn = 0; turn < STAGES; turn++) {
            mbar_init(bar_at(room, KEYS_FULL, turn), 1); // the producer, and its bytes
            mbar_init(bar_at(room, KEYS_EMPTY, turn), 2 * consumer);
            mbar_init(bar_at(room, TILE_FULL, turn), 1);
            mbar_init(bar_at(room, TILE_READY, turn), HELPERS);
            mbar_init(bar_at(room, TILE_EMPTY, turn), 2 * consumer);
            mbar_init(bar_at(room, DS_FULL, turn), 2 * consumer);
            mbar_init(bar_at(room, DS_EMPTY, turn), consumer);
        }
        mbar_init_fence();
    }
    __syncthreads(); // the barriers are seen by all
    if (threadIdx.x < WARPGROUP) {
        registers_release<FEEDER_REGISTERS>();
        if (threadIdx.x == 0) {
            produce<D>(plan, s, room);
        } else if (threadIdx.x >= WARP) {
            help<D>(x, s, plan, room);
        }
    } else {
        registers_claim<MULTIPLIER_REGISTERS>();
        consume<D>(x, s, plan, room);
    }
}

// Launch: as many blocks as multiprocessors, or heads (sequence, key/value head) if fewer;
// RING_BLOCK threads; smem3 bytes of dynamic shared memory. One block per multiprocessor.
template <int D>
static __global__ void __launch_bounds__(RING_BLOCK, 1)
    attention_bwd_kernel3(const __grid_constant__ BwdTensors x,
                          const __grid_constant__ AttentionShape s,
                          const __grid_constant__ Plan3 plan) {
    if (IS_HOPPER) {
        block<D>(x, s, plan);
    }
}

// ---- launchers ----
template <int D>
static int launch3(Device *dev, const BwdTensors &x, const AttentionShape &s) {
    Plan3 plan = {};
    plan.group = s.H / s.Hkv;
    tensor_map(&plan.q, x.q, s.Nq, (size_t)s.H * D, s.q_stride, SIDE);
    tensor_map(&plan.dout, x.dout, s.Nq, (size_t)s.H * D, s.out_stride, SIDE);
    tensor_map(&plan.k, x.k, s.Nk, (size_t)s.Hkv * D, s.k_stride, SIDE);
    tensor_map(&plan.v, x.v, s.Nk, (size_t)s.Hkv * D, s.v_stride, SIDE);
    const int count = s.B * s.Hkv, processors = device_processors(dev);
    SMEM_ALLOW((attention_bwd_kernel3<D>), smem3<D>());
    LAUNCH((attention_bwd_kernel3<D>), count < processors ? count : processors, RING_BLOCK,
           smem3<D>(), device_stream(dev), x, s, plan);
    return Sizes<D>::KEYS;
}

extern "C" int attention_bwd_sm90(Device *dev, const BwdTensors &x, const AttentionShape &s) {
    if (s.Nq == 0 || s.Nk == 0) { // a map has rows
        return -1;
    }
    return s.D == 64    ? launch3<64>(dev, x, s)
           : s.D == 80  ? launch3<80>(dev, x, s)
           : s.D == 128 ? launch3<128>(dev, x, s)
                        : -1;
}
