// topk: exact inner-product search on the CPU; the contract is in topk.h.
//
// The index is cut into ranges of rows, the queries into blocks; a task scores one range for one
// block, a tile of rows at a time, with the register tiles of matmul: rows are widened and turned
// into panels once and serve all queries of the block. A score that does not beat the query's worst
// hit so far is dropped by a vector comparison, so selection costs next to nothing. The best K
// under a total order do not depend on how candidates were grouped: ranges, threads and shards
// cannot change the result.
#include "topk.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base.h"
#include "matmul_kernel.h"
#include "scratch.h"

#define DEPTH 768 // elements of a row scored at once: long runs for the prefetcher, panels in L2
#define TILE_ROWS        32  // rows of a tile
#define QUERY_BLOCK      256 // queries of a task, which share the packing of a tile
#define TASKS_PER_THREAD 2   // some slack for threads that are held up
#define PARALLEL_FROM    1e6 // multiply-adds; below, waking the threads costs more than it gains

_Static_assert(TILE_ROWS % MATMUL_MAX_COLUMNS == 0, "a tile is whole panels of every kernel");

// ---- hits ----
typedef struct {
    float score;
    int32_t id; // INT32_MAX in an empty place, which therefore loses against every row
} Hit;

static const Hit nothing = {-INFINITY, INT32_MAX};

static bool is_better(Hit a, Hit b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// A list of K hits is a heap with the worst on top: heap[i] is no better than heap[2i+1],
// heap[2i+2]. Puts hit in place of the top of heap[0..K).
static void heap_replace(Hit *heap, int K, Hit hit) {
    int i = 0;
    for (int child = 1; child < K; child = 2 * i + 1) {
        if (child + 1 < K && is_better(heap[child], heap[child + 1])) {
            child++;
        }
        if (!is_better(hit, heap[child])) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = hit;
}

static void heap_offer(Hit *heap, int K, Hit hit) {
    if (is_better(hit, heap[0])) {
        heap_replace(heap, K, hit);
    }
}

// The heap as a list, best first. Destroys the heap.
static void heap_drain(Hit *heap, int K, float *scores, int32_t *ids) {
    for (int last = K - 1; last >= 0; last--) {
        scores[last] = heap[0].score;
        ids[last] = heap[0].id == INT32_MAX ? -1 : heap[0].id;
        heap_replace(heap, last, heap[last]);
    }
}

// ---- the search ----
typedef struct {
    DType t; // of rows
    const void *rows;
    const int32_t *query_group, *row_group;
    int Q, M, E, K;
    int32_t first_row;
} Search;

static bool is_excluded(const Search *s, int q, int m) {
    return s->query_group && s->row_group && s->query_group[q] != -1 &&
           s->query_group[q] == s->row_group[m];
}

static void check_sizes(const Search *s) {
    CHECK(s->Q >= 1 && s->M >= 1 && s->E >= 1 && s->K >= 1 && s->K <= TOPK_MAX_K,
          "Q=%d M=%d E=%d K=%d", s->Q, s->M, s->E, s->K);
    CHECK(s->first_row >= 0 && s->first_row < INT32_MAX - s->M, "first_row=%d M=%d", s->first_row,
          s->M);
}

static float rounded(DType t, float x) {
    float cell;
    dtype_store(t, &cell, 0, x);
    return dtype_load(t, &cell, 0);
}

// The hits that the caller brought along from other shards.
static void offer_known(Hit *heap, int K, const float *scores, const int32_t *ids) {
    for (int i = 0; i < K; i++) {
        if (ids[i] >= 0) {
            heap_offer(heap, K, (Hit){scores[i], ids[i]});
        }
    }
}

void topk_naive(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
                const void *rows, const int32_t *query_group, const int32_t *row_group, int Q,
                int M, int E, int K, int32_t first_row, bool is_first) {
    (void)dev;
    const Search s = {row_type, rows, query_group, row_group, Q, M, E, K, first_row};
    check_sizes(&s);
    for (int q = 0; q < Q; q++) {
        Hit heap[TOPK_MAX_K];
        for (int i = 0; i < K; i++) {
            heap[i] = nothing;
        }
        for (int m = 0; m < M; m++) {
            float score = 0;
            for (int e = 0; e < E; e++) {
                score = fmaf(rounded(row_type, queries[(size_t)q * E + e]),
                             dtype_load(row_type, rows, (size_t)m * E + e), score);
            }
            if (!is_excluded(&s, q, m)) {
                heap_offer(heap, K, (Hit){score, first_row + m});
            }
        }
        if (!is_first) {
            offer_known(heap, K, scores + (size_t)q * K, ids + (size_t)q * K);
        }
        heap_drain(heap, K, scores + (size_t)q * K, ids + (size_t)q * K);
    }
}

// ---- tiles ----
// What one thread needs besides the lists.
typedef struct {
    float panels[TILE_ROWS * DEPTH];        // the tile's rows, DEPTH elements of them, by panels
    float wide[MATMUL_MAX_COLUMNS * DEPTH]; // the rows of one panel, widened
    float scores[QUERY_BLOCK * TILE_ROWS];
} Tile;

static int min_int(int a, int b) { return a < b ? a : b; }

// Elements e0 .. e0+depth-1 of rows m .. m+count-1 as a panel; columns behind count become zero.
static void pack_panel(const Search *s, const MatmulKernel *kernel, Tile *tile, float *panel, int m,
                       int count, int e0, int depth) {
    const size_t first = (size_t)m * s->E + e0;
    if (s->t == DT_F32 && count == kernel->columns) {
        kernel->panel(panel, (const float *)s->rows + first, (size_t)s->E, depth);
        return;
    }
    for (int r = 0; r < kernel->columns; r++) {
        float *row = tile->wide + r * DEPTH;
        if (r < count) {
            dtype_widen(row, s->t, dtype_at_const(s->t, s->rows, first + (size_t)r * s->E),
                        (size_t)depth);
        } else {
            memset(row, 0, (size_t)depth * sizeof *row);
        }
    }
    kernel->panel(panel, tile->wide, DEPTH, depth);
}

// tile->scores[q,m] for `count` rows from m0 and the queries of a block. queries: the rounded
// queries in pieces of DEPTH elements, (E/DEPTH, Q, DEPTH), the last piece narrower.
static void score_tile(const Search *s, const MatmulKernel *kernel, Tile *tile,
                       const float *queries, int q0, int block, int m0, int count) {
    static const float zeros[MATMUL_MAX_COLUMNS];
    for (int e0 = 0; e0 < s->E; e0 += DEPTH) {
        const int depth = min_int(DEPTH, s->E - e0);
        const float *piece = queries + (size_t)s->Q * e0 + (size_t)q0 * depth;
        for (int m = 0; m < count; m += kernel->columns) {
            float *panel = tile->panels + m * DEPTH;
            pack_panel(s, kernel, tile, panel, m0 + m, min_int(kernel->columns, count - m), e0,
                       depth);
            for (int q = 0; q < block; q += kernel->rows) {
                float *scores = tile->scores + q * TILE_ROWS + m;
                kernel->tile(min_int(kernel->rows, block - q), depth, piece + (size_t)q * depth,
                             (size_t)depth, 1, panel, (size_t)kernel->columns, e0 ? scores : zeros,
                             e0 ? TILE_ROWS : 0, scores, TILE_ROWS);
            }
        }
    }
}

// Offers one query's scores of a tile to its list.
static void offer_tile(const Search *s, Hit *heap, const float *scores, int q, int m0, int count) {
    const float worst = heap[0].score;
    int any = 0;
    for (int m = 0; m < count; m++) {
        any |= scores[m] >= worst; // false for NaN
    }
    for (int m = 0; any && m < count; m++) {
        if (scores[m] >= heap[0].score && !is_excluded(s, q, m0 + m)) {
            heap_offer(heap, s->K, (Hit){scores[m], s->first_row + m0 + m});
        }
    }
}

// Searches rows begin .. end-1 for queries q0 .. q0+block-1; lists: (block,K).
static void search_range(const Search *s, Tile *tile, Hit *lists, const float *queries, int q0,
                         int block, int begin, int end) {
    const MatmulKernel *kernel = matmul_kernels()[0];
    for (size_t i = 0; i < (size_t)block * s->K; i++) {
        lists[i] = nothing;
    }
    for (int m = begin; m < end; m += TILE_ROWS) {
        const int count = min_int(TILE_ROWS, end - m);
        score_tile(s, kernel, tile, queries, q0, block, m, count);
        for (int q = 0; q < block; q++) {
            offer_tile(s, lists + (size_t)q * s->K, tile->scores + q * TILE_ROWS, q0 + q, m, count);
        }
    }
}

// ---- the op ----
// Queries rounded to the row type, in pieces of DEPTH elements as score_tile reads them.
static void pack_queries(const Search *s, float *packed, const float *queries) {
    for (int e0 = 0; e0 < s->E; e0 += DEPTH) {
        const int depth = min_int(DEPTH, s->E - e0);
        for (int q = 0; q < s->Q; q++) {
            float cells[DEPTH];
            dtype_narrow(s->t, cells, queries + (size_t)q * s->E + e0, (size_t)depth);
            dtype_widen(packed + (size_t)s->Q * e0 + (size_t)q * depth, s->t, cells, (size_t)depth);
        }
    }
}

void topk_cpu(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
              const void *rows, const int32_t *query_group, const int32_t *row_group, int Q, int M,
              int E, int K, int32_t first_row, bool is_first) {
    CHECK_POINTERS(topk, scores, ids, queries, rows);
    const Search s = {row_type, rows, query_group, row_group, Q, M, E, K, first_row};
    check_sizes(&s);
    const int threads = (double)Q * M * E < PARALLEL_FROM ? 1 : device_threads(dev);
    const int blocks = (Q + QUERY_BLOCK - 1) / QUERY_BLOCK, tiles = (M + TILE_ROWS - 1) / TILE_ROWS;
    const int wanted = threads == 1 ? 1 : (TASKS_PER_THREAD * threads + blocks - 1) / blocks;
    const int ranges = min_int(wanted, tiles);
    // One piece of scratch for all threads: the queries, the lists (ranges,Q,K), a tile each.
    const size_t query_floats = (size_t)Q * E, list_floats = (size_t)ranges * Q * K * 2;
    const size_t tile_floats = sizeof(Tile) / sizeof(float);
    float *packed = scratch_floats(threads * tile_floats + query_floats + list_floats);
    Tile *all = (Tile *)packed;
    packed += threads * tile_floats;
    Hit *lists = (Hit *)(packed + query_floats);
    pack_queries(&s, packed, queries);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int range = 0; range < ranges; range++) {
        for (int b = 0; b < blocks; b++) {
            const int q0 = b * QUERY_BLOCK, block = min_int(QUERY_BLOCK, Q - q0);
            const int begin = (int)((int64_t)tiles * range / ranges) * TILE_ROWS;
            const int end = min_int((int)((int64_t)tiles * (range + 1) / ranges) * TILE_ROWS, M);
            search_range(&s, &all[omp_get_thread_num()], lists + ((size_t)range * Q + q0) * K,
                         packed, q0, block, begin, end);
        }
    }
    for (int q = 0; q < Q; q++) {
        Hit *heap = lists + (size_t)q * K;
        for (int range = 1; range < ranges; range++) {
            const Hit *list = heap + (size_t)range * Q * K;
            for (int i = 0; i < K; i++) {
                heap_offer(heap, K, list[i]);
            }
        }
        if (!is_first) {
            offer_known(heap, K, scores + (size_t)q * K, ids + (size_t)q * K);
        }
        heap_drain(heap, K, scores + (size_t)q * K, ids + (size_t)q * K);
    }
}
