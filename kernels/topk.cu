// topk: exact inner-product search on CUDA; see topk.h.
//
// No score is stored unless it may be among the K best. A hit is one 64-bit key: the score's bits
// so turned that unsigned numbers sort as floats do, above the complement of the row number, so
// that a greater key is a better hit and ties are settled; 0 is no hit. The K-th best of any part
// of the candidates is a bound: what does not beat it cannot be among the K best of all. So
//   1. begin: queries rounded to the row type; the caller's hits become the list so far, sorted;
//   2. filter: blocks score tiles of rows and append what beats the list's last hit to a list of
//      their own, one per query;
//   3. select: per query the K best of the list so far and of all blocks' lists, sorted.
// 2 and 3 run over parts of the index that grow: of the first, two tiles per block, every row
// passes, and behind n rows only K / n of the next ones, if their order has nothing to do with
// their scores. Tiles are taken in steps spread over the index and dealt out in turn
// (topk_order.h), so that rows that lie together, as of one patient, neither miss the first parts
// nor fill one block's lists. No order is bad enough to lose a hit: a block whose list lacks the
// room for one more tile cuts it to its K best, whose last is its bound from then on. That costs
// time, at most one cut per list and tile, and nothing else: the host waits for nothing, and the
// result does not depend on any of it; the K best under a total order are what they are. Memory:
// lists of K + ROOM keys, 8 bytes each, for every query of every block; 83 MB for 256 queries and K
// = 50 on 132 multiprocessors.
//
// Scores: kernel1 takes chains over e ascending, bit for bit the CPU's; for 16-bit rows of whole
// 16-byte chunks kernel2 takes the tensor cores of sm_80 (mma_tile.cuh) and kernel3 those of sm_90a
// (ring_hopper.cuh). Which one runs depends on type, E, alignment and card alone, and the order of
// a score's sum on nothing else, so neither do the other queries matter. Few queries take a narrow
// tile: a search that memory bounds does not compute for 256. Neighbouring blocks have the same
// rows and other queries, so that the second finds the rows in the second-level cache. Left out:
// clusters and multicast; the offers of one tile under the products of the next.
//
//   version  idea                                            shape  time                  % of peak
//   kernel1  64x64 tiles through shared memory, chains       -      not yet run on a GPU  -
//   kernel2  128x128x32 or 128x32x32, cp.async, mma          -      not yet run on a GPU  -
//   kernel3  128x256x64, x128, x64: TMA, wgmma, 2 consumers  -      not yet run on a GPU  -
//   select   radix select of the keys, rank by counting      -      not yet run on a GPU  -
#include "topk.h"

#include <limits.h>
#include <math.h>

#include "device_cuda.cuh"
#include "mma_tile.cuh"
#include "ring_hopper.cuh"
#include "topk_order.h"

static const int BLOCK = 256;                 // threads of every kernel here
static const int BINS = 256;                  // values of a digit of a key
static const int FIRST = 2;                   // tiles of a block in the first part
static const int TILE_MOST = MMA_ROWS;        // rows that a tile can add to a list
static const int ROOM = FIRST * TILE_MOST;    // places of a list beyond K
static const int GROWTH = 4;                  // least factor from part to part
static const int QUERIES_AT_ONCE = 4096;      // more are searched for one after the other
static const size_t LISTS_MOST = 384 << 20;   // bytes of all lists, where each block may have one
static_assert(BLOCK == MMA_BLOCK && BLOCK == BINS, "a thread per bin");

typedef struct {
    const void *queries, *rows; // (Q,E), (M,E) row type
    const int32_t *query_group, *row_group; // both or neither
    uint64_t *keys;             // (ranges + 1, Q, room): the list so far, then those of the blocks
    int32_t *count;             // (ranges + 1, Q)
    int Q, M, E, K, room, ranges;
    int32_t first_row;
    int tiles, step; // of the index, and of their order
    int begin, end;  // of this part, in that order
} Search;

// ---- teams ----
// The 256 threads that keep lists: a whole block, or the two consumer warpgroups of kernel3.
struct WholeBlock {
    static __device__ int rank() { return threadIdx.x; }
    static __device__ void sync() { __syncthreads(); }
};
struct Consumers {
    static __device__ int rank() { return threadIdx.x - WARPGROUP; }
    static __device__ void sync() { bar_sync(1, 2 * WARPGROUP); }
};
static_assert(BLOCK == 2 * WARPGROUP, "both are as many");

// ---- keys ----
// Of a score that is not NaN. Adding 0 makes -0 equal to 0.
static __device__ uint64_t key_of(float score, int32_t row) {
    const uint32_t bits = __float_as_uint(score + 0.0f);
    const uint32_t sorted = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)sorted << 32 | ~(uint32_t)row;
}
static __device__ float score_of(uint64_t key) {
    const uint32_t sorted = (uint32_t)(key >> 32);
    return key == 0 ? -INFINITY
                    : __uint_as_float(sorted & 0x80000000u ? sorted & 0x7fffffffu : ~sorted);
}
static __device__ int32_t row_of(uint64_t key) { return key ? (int32_t)~(uint32_t)key : -1; }

// ---- the best of several lists ----
// Slot n < slots is key n % 2^shift of list n >> shift, if that list is so long; count in shared
// memory. Lists lie `stride` keys apart.
typedef struct {
    const uint64_t *keys;
    size_t stride;
    const int *count;
    int slots, shift;
} Source;
// for each key of this thread's share of a source; the loads do not wait for each other.
#define EACH_KEY(key, s)                                                                           \
    for (int n_ = Team::rank(); n_ < (s).slots; n_ += BLOCK)                                       \
        if (const int i_ = n_ & ((1 << (s).shift) - 1), at_ = n_ >> (s).shift;                     \
            i_ < (s).count[at_])                                                                   \
            if (const uint64_t key = (s).keys[at_ * (s).stride + i_]; key)

typedef struct {
    int histogram[BINS];
    int digit, wanted, there; // that holds the wanted-th largest key; how many keys have it
    int found, shift;
} Work;

// By the team's first warp: the digit of the need-th largest key, -1 if there are fewer keys.
static __device__ void choose_digit(Work &w, int lane, int need) {
    const int EACH = BINS / WARP, top = BINS - 1 - lane * EACH;
    int mine = 0;
    for (int k = 0; k < EACH; k++) {
        mine += w.histogram[top - k];
    }
    int above = mine; // keys with greater digits than this lane's
    for (int step = 1; step < WARP; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, above, step);
        above += lane >= step ? other : 0;
    }
    if (lane == WARP - 1 && above < need) {
        w.digit = -1;
    }
    above -= mine;
    for (int k = 0; k < EACH; k++) {
        const int here = w.histogram[top - k];
        if (above < need && need <= above + here) {
            w.digit = top - k;
            w.wanted = need - above;
            w.there = here;
        }
        above += here;
    }
}

// found[0..K) = the K best keys of a source, in no order, 0 where there are fewer. A radix search
// for the K-th, eight bits at a time from the top; it ends early when all keys that share the bits
// so far are wanted. Before: a barrier after the source was written; after: found is whole.
template <typename Team>
static __device__ void find_best(uint64_t *found, Work &w, const Source &s, int K) {
    uint64_t prefix = 0, bound = 0; // all above bound are wanted, and bound itself to fill up
    int need = K;
    for (int shift = 56; shift >= 0; shift -= 8) {
        w.histogram[Team::rank()] = 0;
        Team::sync(); // the bins are empty
        EACH_KEY(key, s) {
            if (shift == 56 || key >> (shift + 8) == prefix) {
                atomicAdd(&w.histogram[key >> shift & (BINS - 1)], 1);
            }
        }
        Team::sync(); // the bins are full
        if (Team::rank() < WARP) {
            choose_digit(w, Team::rank(), need);
        }
        Team::sync(); // the digit is chosen
        if (w.digit < 0) {
            break; // fewer than K
        }
        prefix = prefix << 8 | (uint64_t)w.digit;
        need = w.wanted;
        bound = prefix << shift;
        if (need == w.there) {
            break; // all from bound on, which itself may or may not be a key
        }
    }
    for (int i = Team::rank(); i < K; i += BLOCK) {
        found[i] = bound; // stays where fewer than K keys are above it
    }
    if (Team::rank() == 0) {
        w.found = 0;
    }
    Team::sync();
    EACH_KEY(key, s) {
        if (key > bound) {
            found[atomicAdd(&w.found, 1)] = key;
        }
    }
    Team::sync();
}

// Place of found[i] among K keys, best first.
static __device__ int rank_of(const uint64_t *found, int K, int i) {
    const uint64_t mine = found[i];
    int rank = 0;
    for (int k = 0; k < K; k++) {
        rank += found[k] > mine || (found[k] == mine && k < i);
    }
    return rank;
}

// The list so far = the K best of it and of the next segments - 1 lists of the query, sorted; into
// scores and ids too, unless they are NULL.
// Launch: Q blocks of BLOCK threads. 8 K + 4 segments bytes of dynamic shared memory, 1 KB static.
static __global__ void topk_select_kernel1(float *scores, int32_t *ids, Search s, int segments) {
    SMEM_STATIC(work, Work, [1]);
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, found, uint64_t, s.K, 16);
    SMEM_TAKE(carver, count, int, segments, 16);
    const size_t q = blockIdx.x;
    int most = 0, shift = 0;
    for (int i = threadIdx.x; i < segments; i += BLOCK) {
        count[i] = s.count[(size_t)i * s.Q + q];
        most = max(most, count[i]);
    }
    while (1 << shift < most) {
        shift++;
    }
    if (threadIdx.x == 0) {
        work->shift = 0;
    }
    __syncthreads(); // shift is 0
    atomicMax(&work->shift, shift);
    __syncthreads(); // count is whole, no list is longer than 2^shift
    shift = work->shift;
    uint64_t *list = s.keys + q * s.room;
    const Source source = {list, (size_t)s.Q * s.room, count, segments << shift, shift};
    find_best<WholeBlock>(found, *work, source, s.K);
    for (int i = threadIdx.x; i < s.K; i += BLOCK) {
        const size_t rank = (size_t)rank_of(found, s.K, i);
        list[rank] = found[i];
        if (scores) {
            scores[q * s.K + rank] = score_of(found[i]);
            ids[q * s.K + rank] = row_of(found[i]);
        }
    }
}

// packed (Q,E) = the queries, rounded; the lists so far = what the caller brought, or nothing.
// Launch: Q blocks of BLOCK threads. No shared memory.
template <typename T>
static __global__ void topk_begin_kernel1(T *packed, const float *queries, const float *scores,
                                          const int32_t *ids, Search s, bool is_first) {
    const size_t q = blockIdx.x;
    for (int e = threadIdx.x; e < s.E; e += BLOCK) {
        packed[q * s.E + e] = from_float<T>(queries[q * s.E + e]);
    }
    for (int i = threadIdx.x; i < s.K; i += BLOCK) {
        uint64_t key = 0;
        if (!is_first && ids[q * s.K + i] >= 0) {
            const float score = scores[q * s.K + i];
            key = score == score ? key_of(score, ids[q * s.K + i]) : 0;
        }
        s.keys[q * s.room + i] = key;
    }
    if (threadIdx.x == 0) {
        s.count[q] = s.K;
    }
}

// ---- lists of a block ----
// What a block knows of its N queries; shared.
template <int N> struct Lists {
    uint64_t bound[N]; // keys that do not beat it are not wanted
    float least[N];    // its score: a quick look before the key is made
    int32_t group[N];  // -1 matches nothing
    int count[N];
    int is_full[2]; // of even and odd tiles: some list lacks room for another
    Work work;
};

// The block's lists: of range blockIdx.y, from query q0 on. A query behind the last wants nothing.
template <int N>
static __device__ uint64_t *lists_open(Lists<N> &l, const Search &s, int q0) {
    for (int q = threadIdx.x; q < N; q += BLOCK) {
        const bool is_query = q0 + q < s.Q;
        l.bound[q] = is_query ? s.keys[(size_t)(q0 + q) * s.room + s.K - 1] : ~(uint64_t)0;
        l.least[q] = is_query ? score_of(l.bound[q]) : INFINITY;
        l.group[q] = is_query && s.query_group ? s.query_group[q0 + q] : -1;
        l.count[q] = 0;
    }
    if (threadIdx.x < 2) {
        l.is_full[threadIdx.x] = 0;
    }
    __syncthreads(); // the lists are open
    return s.keys + ((size_t)(1 + blockIdx.y) * s.Q + q0) * s.room;
}

// Appends row m to the list of query q if it is wanted. turn: of the tile, among the block's.
template <int N>
static __device__ void offer(Lists<N> &l, uint64_t *lists, const Search &s, int turn, int q, int m,
                             float score) {
    if (!(score >= l.least[q]) || m >= s.M) { // NaN is not wanted
        return;
    }
    const uint64_t key = key_of(score, s.first_row + m);
    if (key <= l.bound[q] || (l.group[q] != -1 && l.group[q] == s.row_group[m])) {
        return;
    }
    const int at = atomicAdd(&l.count[q], 1);
    lists[(size_t)q * s.room + at] = key;
    if (at >= s.room - TILE_MOST) {
        atomicOr(&l.is_full[turn % 2], 1);
    }
}

// After a tile, before another: cuts the lists that lack room for it to their K best.
template <typename Team, int N>
static __device__ void make_room(Lists<N> &l, uint64_t *lists, uint64_t *found, const Search &s,
                                 int turn) {
    Team::sync(); // all offers are made; a thread that reads late meets the next tile's other flag
    if (!l.is_full[turn % 2]) {
        return;
    }
    for (int q = 0; q < N; q++) {
        if (l.count[q] <= s.room - TILE_MOST) {
            continue;
        }
        uint64_t *list = lists + (size_t)q * s.room;
        find_best<Team>(found, l.work, {list, 0, &l.count[q], l.count[q], 30}, s.K);
        for (int i = Team::rank(); i < s.K; i += BLOCK) {
            const int rank = rank_of(found, s.K, i);
            list[rank] = found[i];
            if (rank == s.K - 1) {
                l.bound[q] = found[i];
                l.least[q] = score_of(found[i]);
            }
        }
        if (Team::rank() == 0) {
            l.count[q] = s.K;
            l.is_full[turn % 2] = 0;
        }
        Team::sync(); // the list and its bound are there, found is free
    }
}

// After the last tile.
template <typename Team, int N>
static __device__ void lists_close(const Lists<N> &l, const Search &s, int q0) {
    Team::sync(); // all offers are made
    for (int q = Team::rank(); q < N && q0 + q < s.Q; q += BLOCK) {
        s.count[(size_t)(1 + blockIdx.y) * s.Q + q0 + q] = l.count[q];
    }
}

// ---- kernel 1 ----
static const int TILE = 64;  // rows, and queries
static const int DEPTH = 16; // elements at a time
static const int EACH = 4;   // rows and queries of a thread
static_assert((TILE / EACH) * (TILE / EACH) == BLOCK, "every thread has a part of the tile");

// piece[e][i] = x[i0 + i, e0 + e], zero behind the last row; what only idle threads would read is
// not written.
template <typename T>
static __device__ void load_piece(float (*piece)[TILE], const T *x, int i0, int e0, int rows,
                                  int E) {
    for (int k = threadIdx.x; k < TILE * DEPTH; k += BLOCK) {
        const int i = k / DEPTH, e = k % DEPTH;
        if (i0 + i < (rows + EACH - 1) / EACH * EACH && e0 + e < E) {
            piece[e][i] = i0 + i < rows ? to_float(x[(size_t)(i0 + i) * E + e0 + e]) : 0.0f;
        }
    }
}

// Launch: (Q / TILE, ranges) blocks of BLOCK threads. 8 K bytes of dynamic shared memory, 10.5 KB
// static.
template <typename T> static __global__ void topk_kernel1(Search s) {
    SMEM_STATIC(row_piece, float, [DEPTH][TILE]);
    SMEM_STATIC(query_piece, float, [DEPTH][TILE]);
    SMEM_STATIC(l, Lists<TILE>, [1]);
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, found, uint64_t, s.K, 16);
    const int q0 = blockIdx.x * TILE;
    const int row = threadIdx.x / (TILE / EACH) * EACH, query = threadIdx.x % (TILE / EACH) * EACH;
    uint64_t *lists = lists_open(*l, s, q0);
    for (int j = s.begin + blockIdx.y, turn = 0; j < s.end; j += s.ranges, turn++) {
        const int m0 = topk_tile(j, s.tiles, s.step) * TILE;
        const bool is_idle = m0 + row >= s.M || q0 + query >= s.Q; // but meets the others
        float sum[EACH][EACH] = {};
        for (int e0 = 0; e0 < s.E; e0 += DEPTH) {
            load_piece(row_piece, (const T *)s.rows, m0, e0, s.M, s.E);
            load_piece(query_piece, (const T *)s.queries, q0, e0, s.Q, s.E);
            __syncthreads(); // the pieces are whole
            const int depth = is_idle ? 0 : s.E - e0 < DEPTH ? s.E - e0 : DEPTH;
            for (int e = 0; e < depth; e++) {
                UNROLL for (int a = 0; a < EACH; a++) {
                    UNROLL for (int b = 0; b < EACH; b++) {
                        sum[a][b] = fmaf(query_piece[e][query + b], row_piece[e][row + a],
                                         sum[a][b]);
                    }
                }
            }
            __syncthreads(); // everybody is done with the pieces
        }
        UNROLL for (int a = 0; a < EACH; a++) {
            UNROLL for (int b = 0; b < EACH; b++) {
                offer(*l, lists, s, turn, query + b, m0 + row + a, sum[a][b]);
            }
        }
        if (j + s.ranges < s.end) {
            make_room<WholeBlock>(*l, lists, found, s, turn);
        }
    }
    lists_close<WholeBlock>(*l, s, q0);
}

// ---- kernel 2 ----
// Offers this thread's scores of fragment column b. Few are wanted: they are marked, and then taken
// one by one, in one piece of code.
template <int COLUMNS, int F>
static __device__ void offer_fragments(Lists<COLUMNS> &l, uint64_t *lists, const Search &s,
                                       int turn, int m0, int b, const float (&acc)[F][F][4]) {
    const float least[2] = {l.least[mma_column<COLUMNS>(b, 0)], l.least[mma_column<COLUMNS>(b, 1)]};
    uint32_t marks = 0;
    UNROLL for (int n = 0; n < 4 * F; n++) {
        marks |= (uint32_t)(acc[n / 4][b][n % 4] >= least[n % 2]) << n;
    }
    for (; marks; marks &= marks - 1) {
        const int n = __ffs((int)marks) - 1;
        float score = 0;
        UNROLL for (int k = 0; k < 4 * F; k++) {
            score = k == n ? acc[k / 4][b][k % 4] : score; // no register has a variable number
        }
        offer(l, lists, s, turn, mma_column<COLUMNS>(b, n % 4),
              m0 + mma_row<COLUMNS>(n / 4, n % 4), score);
    }
}

// One ring runs through all tiles of a block, so that the next tile's first stages come while this
// tile's scores are offered.
// Launch: (Q / COLUMNS, ranges) blocks of MMA_BLOCK threads. 64 KB (COLUMNS 32: 60 KB) + 8 K bytes
// of dynamic shared memory, 3.7 KB static. Two blocks per multiprocessor: at most 128 registers.
template <typename T, int COLUMNS>
static __global__ void __launch_bounds__(MMA_BLOCK, 2) topk_kernel2(Search s) {
    using Tile = MmaTile<COLUMNS>;
    SMEM_STATIC(l, Lists<COLUMNS>, [1]);
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, ring_memory, uint16_t, Tile::RING, 128);
    SMEM_TAKE(carver, found, uint64_t, s.K, 16);
    const uint32_t ring = smem_u32(ring_memory);
    const int q0 = blockIdx.x * COLUMNS;
    uint64_t *lists = lists_open(*l, s, q0);
    int ahead = s.begin + blockIdx.y, ahead_e = 0; // what is loaded next
    int ahead_m = topk_tile(ahead, s.tiles, s.step) * MMA_ROWS;
    const auto load_next = [&](int stage) {
        if (ahead < s.end) {
            mma_load<COLUMNS>(ring, stage, (const T *)s.rows, (const T *)s.queries, ahead_m, q0,
                              ahead_e, s.M, s.Q, s.E);
            ahead_e += MMA_DEPTH;
            if (ahead_e >= s.E) {
                ahead_e = 0;
                ahead += s.ranges;
                ahead_m = topk_tile(ahead, s.tiles, s.step) * MMA_ROWS;
            }
        }
        cp_async_commit(); // an empty group keeps the count
    };
    for (int i = 0; i < Tile::STAGES - 1; i++) {
        load_next(i);
    }
    int stage = 0;
    for (int j = s.begin + blockIdx.y, turn = 0; j < s.end; j += s.ranges, turn++) {
        float acc[Tile::F][Tile::F][4] = {};
        for (int e = 0; e < s.E; e += MMA_DEPTH) {
            cp_async_wait<Tile::STAGES - 2>(); // this thread's part of the stage is there
            __syncthreads(); // everybody's is, and everybody is done with the stage before
            load_next(stage ? stage - 1 : Tile::STAGES - 1);
            mma_stage<COLUMNS, T>(acc, ring, stage);
            stage = stage + 1 < Tile::STAGES ? stage + 1 : 0;
        }
        const int m0 = topk_tile(j, s.tiles, s.step) * MMA_ROWS;
        UNROLL for (int b = 0; b < Tile::F; b++) {
            offer_fragments<COLUMNS>(*l, lists, s, turn, m0, b, acc);
        }
        if (j + s.ranges < s.end) {
            make_room<WholeBlock>(*l, lists, found, s, turn);
        }
    }
    lists_close<WholeBlock>(*l, s, q0);
}

// ---- kernel 3 ----
static const int PART = 32; // sums of a thread that are marked at once

// Offers a consumer's sums of a tile: acc[4x + e] is row g + 8 (e / 2), column 8x + 2i + e % 2 of
// the warp's 16 (g = lane / 4, i = lane % 4). Otherwise as offer_fragments.
template <int COLUMNS>
static __device__ void offer_sums(Lists<COLUMNS> &l, uint64_t *lists, const Search &s, int turn,
                                  int m0, const float (&acc)[COLUMNS / 2]) {
    const int row = m0 + threadIdx.x % WARP / 4, column = threadIdx.x % 4 * 2;
    UNROLL for (int part = 0; part < COLUMNS / 2; part += PART) {
        uint32_t marks = 0;
        UNROLL for (int n = 0; n < PART; n++) {
            const int k = part + n;
            marks |= (uint32_t)(acc[k] >= l.least[k / 4 * 8 + column + k % 2]) << n;
        }
        for (; marks; marks &= marks - 1) {
            const int n = __ffs((int)marks) - 1, k = part + n;
            float score = 0;
            UNROLL for (int i = 0; i < PART; i++) {
                score = i == n ? acc[part + i] : score; // no register has a variable number
            }
            offer(l, lists, s, turn, k / 4 * 8 + column + k % 2, row + k / 2 % 2 * 8, score);
        }
    }
}

struct Maps {
    TensorMap rows, queries;
};

// The ring of ring_hopper.cuh: a tile is RING_ROWS rows of the index by COLUMNS queries.
// Launch: (Q / COLUMNS, ranges) blocks of RING_BLOCK threads; smem3(COLUMNS, K) bytes of dynamic
// shared memory, 217 KB at most. One block per multiprocessor.
template <typename T, int COLUMNS>
static __global__ void __launch_bounds__(RING_BLOCK, 1)
    topk_kernel3(const __grid_constant__ Search s, const __grid_constant__ Maps maps) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, stages, uint8_t, Ring<COLUMNS>::STAGES * Ring<COLUMNS>::BYTES, 1024);
    SMEM_TAKE(carver, l, Lists<COLUMNS>, 1, 16);
    SMEM_TAKE(carver, found, uint64_t, s.K, 16);
    SMEM_TAKE(carver, bars, uint64_t, 2 * Ring<COLUMNS>::STAGES, 8);
    const int q0 = blockIdx.x * COLUMNS;
    uint64_t *lists = lists_open(*l, s, q0);
    Ring<COLUMNS> ring = ring_open<COLUMNS>(smem_u32(stages), smem_u32(bars));
    if (threadIdx.x < WARPGROUP) {
        registers_release<PRODUCER_REGISTERS>();
        for (int j = s.begin + blockIdx.y; threadIdx.x == 0 && j < s.end; j += s.ranges) {
            const int m0 = topk_tile(j, s.tiles, s.step) * RING_ROWS;
            for (int e = 0; e < s.E; e += RING_DEPTH) {
                mbar_wait(ring.empty(), ring.phase ^ 1); // the consumers gave it back
                mbar_arrive_expect(ring.full(), Ring<COLUMNS>::BYTES);
                tma_load(ring.a(), &maps.rows, e, m0, ring.full());
                tma_load(ring.b(), &maps.queries, e, q0, ring.full());
                ring.next();
            }
        }
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        const int warp = consumer_warp(), steps = (s.E + RING_DEPTH - 1) / RING_DEPTH;
        for (int j = s.begin + blockIdx.y, turn = 0; j < s.end; j += s.ranges, turn++) {
            float acc[COLUMNS / 2];
            multiply<T, false, false>(acc, ring, steps, warp / 4);
            const int m0 = topk_tile(j, s.tiles, s.step) * RING_ROWS + 16 * warp;
            offer_sums(*l, lists, s, turn, m0, acc);
            if (j + s.ranges < s.end) {
                make_room<Consumers>(*l, lists, found, s, turn);
            }
        }
        lists_close<Consumers>(*l, s, q0);
    }
}
template <int COLUMNS> static size_t smem3(int K) {
    return Ring<COLUMNS>::SHARED + (sizeof(Lists<COLUMNS>) + 15) / 16 * 16 +
           ((size_t)K * sizeof(uint64_t) + 15) / 16 * 16;
}

// ---- launchers ----
static int ceil_div(int a, int b) { return a / b + (a % b > 0); }

// How a search of these sizes is done: rows and queries of a tile.
typedef struct {
    int kernel, rows, queries;
} Shape;

static Shape shape_of(const Device *dev, DType t, const Search &s) {
    if (t == DT_F32 || s.E % MMA_CHUNK || !is_packable(s.rows)) {
        return {1, TILE, TILE};
    }
    if (device_arch(dev) == 90) {
        return {3, RING_ROWS, s.Q <= 64 ? 64 : s.Q <= 128 ? 128 : 256};
    }
    return {2, MMA_ROWS, s.Q <= 32 ? 32 : 128};
}

template <typename T, int COLUMNS>
static void launch2(Device *dev, const Search &s, dim3 grid) {
    const size_t bytes = 2 * MmaTile<COLUMNS>::RING + (size_t)s.K * sizeof(uint64_t);
    SMEM_ALLOW((topk_kernel2<T, COLUMNS>), bytes);
    LAUNCH((topk_kernel2<T, COLUMNS>), grid, MMA_BLOCK, bytes, device_stream(dev), s);
}

template <typename T, int COLUMNS>
static void launch3(Device *dev, const Search &s, dim3 grid) {
    Maps maps;
    tensor_map(&maps.rows, s.rows, (size_t)s.M, (size_t)s.E, (size_t)s.E, RING_ROWS);
    tensor_map(&maps.queries, s.queries, (size_t)s.Q, (size_t)s.E, (size_t)s.E, COLUMNS);
    SMEM_ALLOW((topk_kernel3<T, COLUMNS>), smem3<COLUMNS>(s.K));
    LAUNCH((topk_kernel3<T, COLUMNS>), grid, RING_BLOCK, smem3<COLUMNS>(s.K), device_stream(dev), s,
           maps);
}

static void launch_select(Device *dev, float *scores, int32_t *ids, const Search &s,
                          int segments) {
    const size_t bytes = ((size_t)s.K * sizeof(uint64_t) + 15) / 16 * 16 + 4 * (size_t)segments;
    LAUNCH(topk_select_kernel1, s.Q, BLOCK, bytes, device_stream(dev), scores, ids, s, segments);
}

// One part of the index, and the best of what it found.
template <typename T>
static void search_part(Device *dev, float *scores, int32_t *ids, const Search &s,
                        const Shape &shape) {
    const dim3 grid((unsigned)ceil_div(s.Q, shape.queries), (unsigned)s.ranges);
    if constexpr (sizeof(T) == 2) {
        if (shape.kernel == 2) {
            (shape.queries == 32 ? launch2<T, 32> : launch2<T, 128>)(dev, s, grid);
        } else if (shape.kernel == 3) {
            (shape.queries == 64    ? launch3<T, 64>
             : shape.queries == 128 ? launch3<T, 128>
                                    : launch3<T, 256>)(dev, s, grid);
        }
    }
    if (shape.kernel == 1) {
        LAUNCH((topk_kernel1<T>), grid, BLOCK, (size_t)s.K * sizeof(uint64_t), device_stream(dev),
               s);
    }
    launch_select(dev, scores, ids, s, s.ranges + 1);
}

// Ranges of tiles and parts of the scratch memory, for a search whose sizes are set; elements of
// `size` bytes.
typedef struct {
    int tiles, ranges;
    size_t lists, counts, bytes;
} Layout;
static Layout layout_of(const Device *dev, const Search &s, const Shape &shape, size_t size) {
    const int query_blocks = ceil_div(s.Q, shape.queries);
    const int blocks = (shape.kernel == 3 ? 1 : 2) * device_processors(dev); // all at work at once
    const size_t list = (size_t)s.Q * s.room;
    const int wanted = blocks / query_blocks, affordable = (int)(LISTS_MOST / (list * 8));
    Layout l = {};
    l.tiles = ceil_div(s.M, shape.rows);
    l.ranges = max(min(min(wanted, affordable), l.tiles), 1);
    l.lists = (size_t)(l.ranges + 1) * list;
    l.counts = ((size_t)(l.ranges + 1) * s.Q + 1) / 2 * 2;
    l.bytes = l.lists * sizeof(uint64_t) + l.counts * sizeof(int32_t) +
              (size_t)s.Q * s.E * size + 16; // to begin the queries at a multiple of 16
    return l;
}

// At most QUERIES_AT_ONCE queries.
template <typename T>
static void search(Device *dev, float *scores, int32_t *ids, const float *queries, Search s,
                   const Shape &shape, bool is_first) {
    const Layout l = layout_of(dev, s, shape, sizeof(T));
    s.tiles = l.tiles;
    s.ranges = l.ranges;
    s.keys = (uint64_t *)device_scratch(dev, l.bytes);
    s.count = (int32_t *)(s.keys + l.lists);
    T *packed = (T *)(((uintptr_t)(s.count + l.counts) + 15) / 16 * 16);
    s.queries = packed;
    LAUNCH((topk_begin_kernel1<T>), s.Q, BLOCK, 0, device_stream(dev), packed, queries, scores, ids,
           s, is_first);
    if (!is_first) {
        launch_select(dev, NULL, NULL, s, 1);
    }
    s.step = topk_step(s.tiles);
    // Of a part's rows K per row so far are wanted, which the blocks' lists shall just hold.
    const double growth = (double)TILE_MOST * s.ranges / s.K;
    while (s.end < s.tiles) {
        const double most = s.end == 0 ? FIRST * s.ranges : s.end * (1 + fmax(growth, GROWTH - 1));
        s.begin = s.end;
        s.end = most < s.tiles ? (int)most : s.tiles;
        const bool is_last = s.end == s.tiles;
        search_part<T>(dev, is_last ? scores : NULL, is_last ? ids : NULL, s, shape);
    }
}

static Search sizes_of(int Q, int M, int E, int K) {
    Search s = {};
    s.Q = min(QUERIES_AT_ONCE, Q);
    s.M = M;
    s.E = E;
    s.K = K;
    s.room = K + ROOM;
    return s;
}

static size_t search_bytes(const Device *dev, DType t, const Search &s) {
    return layout_of(dev, s, shape_of(dev, t, s), dtype_size(t)).bytes;
}

// The last of several searches has fewer queries, and perhaps more ranges.
extern "C" size_t CUDA_NAME(topk_scratch)(const Device *dev, DType row_type, int Q, int M, int E,
                                          int K) {
    const size_t first = search_bytes(dev, row_type, sizes_of(Q, M, E, K));
    const int left = Q > QUERIES_AT_ONCE ? Q % QUERIES_AT_ONCE : 0;
    const size_t last = left ? search_bytes(dev, row_type, sizes_of(left, M, E, K)) : 0;
    return first > last ? first : last;
}

CUDA_OP(topk)(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
              const void *rows, const int32_t *query_group, const int32_t *row_group, int Q, int M,
              int E, int K, int32_t first_row, bool is_first) {
    CHECK_POINTERS(topk, scores, ids, queries, rows);
    CHECK(Q >= 1 && M >= 1 && E >= 1 && K >= 1 && K <= TOPK_MAX_K, "Q=%d M=%d E=%d K=%d", Q, M, E,
          K);
    CHECK(first_row >= 0 && first_row < INT32_MAX - M, "first_row=%d M=%d", first_row, M);
    const bool has_groups = query_group && row_group;
    for (int q = 0; q < Q; q += QUERIES_AT_ONCE) {
        Search s = sizes_of(Q - q, M, E, K);
        s.rows = rows;
        s.query_group = has_groups ? query_group + q : NULL;
        s.row_group = row_group;
        s.first_row = first_row;
        const Shape shape = shape_of(dev, row_type, s);
        FOR_DTYPE(row_type, T, search<T>(dev, scores + (size_t)q * K, ids + (size_t)q * K,
                                         queries + (size_t)q * E, s, shape, is_first));
    }
}
