// topk: exact inner-product search on CUDA; see topk.h.
//
// A block has one query and walks over the rows, a row per thread. Scores are chains over e
// ascending, as on the CPU, so that both find the same rows in the same order. The K best so far
// lie sorted in shared memory; a tile in which some row beats the last of them is merged into them
// by rank, into a second list. The best K under a total order do not depend on how candidates were
// grouped.
//
//   version  idea                 shape  time                  % of peak
//   kernel1  one block per query  -      not yet run on a GPU  -
#include "topk.h"

#include <limits.h>

#include "cuda_common.cuh"

static const int TILE = 128; // rows of a tile, threads of a block

typedef struct {
    float score;
    int32_t id; // INT32_MAX in an empty place, which therefore loses against every row
} Hit;

static __device__ bool is_better(Hit a, Hit b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

static __device__ Hit nothing() { return {-INFINITY, INT32_MAX}; }

// merged[0..K) = the K best of list[0..K), which is sorted, and of tile[0..TILE), which is not. A hit
// goes where its rank says: how many are better. Only empty places are equal, and those of the tile
// beat nothing: they rank K and are dropped.
// Before: a barrier after list and tile were written; after: one before merged is read.
static __device__ void merge_tile(Hit *merged, const Hit *list, const Hit *tile, int K) {
    for (int i = threadIdx.x; i < K; i += TILE) {
        const Hit mine = list[i];
        int rank = i;
        for (int k = 0; k < TILE; k++) {
            rank += is_better(tile[k], mine);
        }
        if (rank < K) {
            merged[rank] = mine;
        }
    }
    const Hit mine = tile[threadIdx.x];
    int rank = 0, end = K; // binary search: the first of the list that mine beats
    while (rank < end) {
        const int middle = (rank + end) / 2;
        if (is_better(mine, list[middle])) {
            end = middle;
        } else {
            rank = middle + 1;
        }
    }
    for (int k = 0; k < TILE && rank < K; k++) {
        rank += is_better(tile[k], mine);
    }
    if (rank < K) {
        merged[rank] = mine;
    }
}

typedef struct {
    const float *queries;
    const void *rows;
    const int32_t *query_group, *row_group;
    int M, E, K;
    int32_t first_row;
    bool is_first;
} Search;

// The hit of row m, or nothing.
template <typename T> static __device__ Hit score_row(const Search &s, int q, int m) {
    const float *query = s.queries + (size_t)q * s.E;
    const T *row = (const T *)s.rows + (size_t)m * s.E;
    float sum = 0;
    for (int e = 0; e < s.E; e++) {
        sum = fmaf(to_float(from_float<T>(query[e])), to_float(row[e]), sum);
    }
    const bool is_excluded = s.query_group && s.row_group && s.query_group[q] != -1 &&
                             s.query_group[q] == s.row_group[m];
    const Hit hit = {sum, s.first_row + m};
    return is_excluded || sum != sum ? nothing() : hit;
}

// Launch: Q blocks of TILE threads. 16 K + 1024 bytes of dynamic shared memory, 17 KB at most.
template <typename T>
static __global__ void topk_kernel1(float *scores, int32_t *ids, Search s) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, lists, Hit, 2 * s.K, 16);
    SMEM_TAKE(carver, tile, Hit, TILE, 16);
    const int q = blockIdx.x, known = s.is_first ? 0 : s.K;
    Hit *list = lists, *spare = lists + s.K;
    scores += (size_t)q * s.K;
    ids += (size_t)q * s.K;
    for (int i = threadIdx.x; i < s.K; i += TILE) {
        list[i] = nothing();
    }
    __syncthreads(); // the list is there
    // First the hits that the caller brought along from other shards, then the rows.
    for (int m0 = -(known + TILE - 1) / TILE * TILE; m0 < s.M; m0 += TILE) {
        const int m = m0 + threadIdx.x, at = -m - 1;
        Hit hit = nothing();
        if (m >= 0 && m < s.M) {
            hit = score_row<T>(s, q, m);
        } else if (m < 0 && at < known && ids[at] >= 0) {
            hit = {scores[at], ids[at]};
        }
        if (!__syncthreads_or(is_better(hit, list[s.K - 1]))) {
            continue;
        }
        tile[threadIdx.x] = hit;
        __syncthreads(); // the tile is whole
        merge_tile(spare, list, tile, s.K);
        __syncthreads(); // the merged list is whole, tile and old list are free
        Hit *old = list;
        list = spare;
        spare = old;
    }
    for (int i = threadIdx.x; i < s.K; i += TILE) {
        scores[i] = list[i].score;
        ids[i] = list[i].id == INT32_MAX ? -1 : list[i].id;
    }
}

CUDA_OP(topk)(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
              const void *rows, const int32_t *query_group, const int32_t *row_group, int Q, int M,
              int E, int K, int32_t first_row, bool is_first) {
    CHECK(Q >= 1 && M >= 1 && E >= 1 && K >= 1 && K <= TOPK_MAX_K, "Q=%d M=%d E=%d K=%d", Q, M, E,
          K);
    CHECK(first_row >= 0 && first_row < INT32_MAX - M, "first_row=%d M=%d", first_row, M);
    const Search s = {queries, rows, query_group, row_group, M, E, K, first_row, is_first};
    const size_t bytes = (2 * (size_t)K + TILE) * sizeof(Hit);
    FOR_DTYPE(row_type, T, LAUNCH((topk_kernel1<T>), Q, TILE, bytes, device_stream(dev), scores,
                                  ids, s));
}
