// topk: exact inner-product search on CUDA; see topk.h.
//
// A block has one query and walks over the rows, a row per thread. Scores are chains over e
// ascending, as on the CPU, so that both find the same rows in the same order. The K best so far
// lie sorted in shared memory; a tile in which some row beats the last of them is put behind them
// and all are sorted again (Batcher's bitonic network). The best K under a total order do not
// depend on how candidates were grouped.
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

// Sorts places hits, a power of two, best first. Ends with a barrier; before, all must be written.
static __device__ void sort_hits(Hit *hits, int places CALLER) {
    for (int run = 2; run <= places; run *= 2) {
        for (int apart = run / 2; apart > 0; apart /= 2) {
            for (int i = threadIdx.x; i < places / 2; i += TILE) {
                // Pair i of this stage; runs alternate between falling and rising.
                const int low = i / apart * 2 * apart + i % apart, high = low + apart;
                const Hit a = hits[low], b = hits[high];
                if (is_better(low & run ? a : b, low & run ? b : a)) {
                    hits[low] = b;
                    hits[high] = a;
                }
            }
            __syncthreads(CALLER_ONLY); // the next stage pairs them otherwise
        }
    }
}

typedef struct {
    const float *queries;
    const void *rows;
    const int32_t *query_group, *row_group;
    int M, E, K, places; // places: of the sorted list, a power of two, K + TILE at least
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

// Launch: Q blocks of TILE threads. 8 * places bytes of dynamic shared memory, 16 KB at most.
template <typename T>
static __global__ void topk_kernel1(float *scores, int32_t *ids, Search s) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, hits, Hit, s.places, 16);
    const int q = blockIdx.x;
    scores += (size_t)q * s.K;
    ids += (size_t)q * s.K;
    for (int i = threadIdx.x; i < s.places; i += TILE) {
        hits[i] = nothing();
        if (i < s.K && !s.is_first && ids[i] >= 0) {
            hits[i] = {scores[i], ids[i]};
        }
    }
    __syncthreads(); // what the caller brought along lies there
    sort_hits(hits, s.places);
    for (int m0 = 0; m0 < s.M; m0 += TILE) {
        const int m = m0 + threadIdx.x;
        const Hit hit = m < s.M ? score_row<T>(s, q, m) : nothing();
        if (!__syncthreads_or(is_better(hit, hits[s.K - 1]))) {
            continue;
        }
        hits[s.K + threadIdx.x] = hit; // whatever was there has lost
        __syncthreads(); // the tile lies behind the list
        sort_hits(hits, s.places);
    }
    for (int i = threadIdx.x; i < s.K; i += TILE) {
        scores[i] = hits[i].score;
        ids[i] = hits[i].id == INT32_MAX ? -1 : hits[i].id;
    }
}

CUDA_OP(topk)(Device *dev, DType row_type, float *scores, int32_t *ids, const float *queries,
              const void *rows, const int32_t *query_group, const int32_t *row_group, int Q, int M,
              int E, int K, int32_t first_row, bool is_first) {
    CHECK(Q >= 1 && M >= 1 && E >= 1 && K >= 1 && K <= TOPK_MAX_K, "Q=%d M=%d E=%d K=%d", Q, M, E,
          K);
    CHECK(first_row >= 0 && first_row < INT32_MAX - M, "first_row=%d M=%d", first_row, M);
    int places = 2 * TILE;
    while (places < K + TILE) {
        places *= 2;
    }
    const Search s = {queries, rows, query_group, row_group, M, E, K, places, first_row, is_first};
    FOR_DTYPE(row_type, T, LAUNCH((topk_kernel1<T>), Q, TILE, places * sizeof(Hit),
                                  device_stream(dev), scores, ids, s));
}
