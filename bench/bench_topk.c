// Search at the size of a corpus, on a CPU beside faiss IndexFlatIP. faiss is C++, so the peer is a
// process (peers/search_faiss.py) that holds the same vectors as f32 and searches when told; a byte
// there and the ids back are the whole conversation. Without python3 or faiss there is no ratio.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/peer_process.h"
#include "bench/sampled.h"

#define SCRIPT        "bench/peers/search_faiss.py"
#define LEAST_OVERLAP 0.999 // of our ids and faiss's: sums in another order swap near-ties only

// ---- ours ----
typedef struct {
    DType t;
    int Q, M, E, K;
    float *queries, *scores;
    int32_t *ids;
    void *rows;
} Search;

static void search(void *ctx) {
    const Search *x = ctx;
    bench_ops()->topk(bench_device(), x->t, x->scores, x->ids, x->queries, x->rows, NULL, NULL,
                      x->Q, x->M, x->E, x->K, 0, true);
}

// The last query: no row scores more than the last hit but the hits before it, and each hit scores
// what the op says. Sums of E products in f32, twice.
static void check_search(const Search *x) {
    const size_t E = (size_t)x->E, K = (size_t)x->K, q = (size_t)x->Q - 1, block = 4096;
    float *query = sampled_new(DT_F32, x->queries, q * E, E), *narrow = xmalloc(E, sizeof *narrow);
    float *scores = sampled_new(DT_F32, x->scores, q * K, K);
    int32_t *ids = xmalloc(K, sizeof *ids);
    device_copy_out(bench_device(), ids, x->ids + q * K, K * sizeof *ids);
    dtype_narrow(x->t, narrow, query, E); // the op rounds the query to the rows' type
    dtype_widen(query, x->t, narrow, E);
    const size_t places = (size_t)x->M < K ? (size_t)x->M : K; // a short index fills no more
    size_t better = 0, hits = 0;
    for (size_t first = 0; first < (size_t)x->M; first += block) {
        const size_t count = (size_t)x->M - first < block ? (size_t)x->M - first : block;
        float *rows = sampled_new(x->t, x->rows, first * E, count * E);
        for (size_t m = 0; m < count; m++) {
            double score = 0, size = 0;
            for (size_t e = 0; e < E; e++) {
                score += (double)query[e] * rows[m * E + e];
                size += fabs((double)query[e] * rows[m * E + e]);
            }
            const double bound = 2 * (double)E * 0x1p-24 * size;
            better += score > scores[places - 1] + bound;
            for (size_t k = 0; k < places; k++) {
                if (ids[k] == (int32_t)(first + m)) {
                    expect_near("score", k, scores[k], score, bound);
                    hits++;
                }
            }
        }
        free(rows);
    }
    CHECK(hits == places && better < places,
          "%zu of %zu hits found, %zu rows score more than the last", hits, places, better);
    free(query);
    free(narrow);
    free(scores);
    free(ids);
}

// ---- the peer ----
typedef struct {
    PeerProcess process;
    int32_t *ids; // (Q,K) of its last search
    size_t n;
} Peer;

static void peer_search(void *ctx) {
    Peer *peer = ctx;
    double seconds;
    fputc('s', peer->process.to);
    fflush(peer->process.to);
    CHECK(fread(peer->ids, sizeof *peer->ids, peer->n, peer->process.from) == peer->n &&
              fread(&seconds, sizeof seconds, 1, peer->process.from) == 1,
          "the peer has died");
    bench_took(seconds);
}

static void peer_stop(Peer *peer) {
    peer_process_stop(&peer->process);
    free(peer->ids);
}

// Sends the problem; false when there is no faiss here, which the script says on stderr.
static bool peer_load(Peer *peer, const Search *x) {
    const int32_t head[] = {x->Q, x->M, x->E, x->K, bench_threads()};
    const size_t E = (size_t)x->E;
    float *row = xmalloc(E, sizeof *row), *cells = xmalloc(E, sizeof *cells);
    FILE *to = peer->process.to;
    bool is_fine = fwrite(head, sizeof head, 1, to) == 1;
    for (size_t q = 0; is_fine && q < (size_t)x->Q; q++) {
        // Rounded to the type of the rows, as the op does.
        dtype_narrow(x->t, cells, x->queries + q * E, E);
        dtype_widen(row, x->t, cells, E);
        is_fine = fwrite(row, sizeof *row, E, to) == E;
    }
    for (size_t m = 0; is_fine && m < (size_t)x->M; m++) {
        dtype_widen(row, x->t, dtype_at_const(x->t, x->rows, m * E), E);
        is_fine = fwrite(row, sizeof *row, E, to) == E;
    }
    free(row);
    free(cells);
    fflush(to);
    peer->ids = xmalloc(peer->n, sizeof *peer->ids);
    return is_fine && fgetc(peer->process.from) == 'r';
}

static double overlap(const int32_t *a, const int32_t *b, size_t Q, size_t K) {
    size_t common = 0;
    for (size_t q = 0; q < Q; q++) {
        for (size_t i = 0; i < K; i++) {
            for (size_t j = 0; j < K; j++) {
                common += a[q * K + i] == b[q * K + j];
            }
        }
    }
    return (double)common / (double)(Q * K);
}

// beside faiss: only where the rows lie in the host's memory.
static void bench_search(int Q, int M, int E, int K, DType t, bool beside_faiss) {
    const size_t hits = (size_t)Q * (size_t)K;
    Search x = {.t = t, .Q = Q, .M = M, .E = E, .K = K};
    x.queries = bench_normal(DT_F32, (size_t)Q * (size_t)E);
    x.rows = bench_normal(t, (size_t)M * (size_t)E);
    x.scores = bench_zeros(hits * sizeof(float)), x.ids = bench_zeros(hits * sizeof(int32_t));
    search(&x);
    check_search(&x);
    Peer peer = {.n = hits};
    bool has_peer = false;
    if (beside_faiss) {
        peer.process = peer_process_start(SCRIPT);
        has_peer = peer_load(&peer, &x);
    }
    if (has_peer) {
        peer_search(&peer);
        const double common = overlap(x.ids, peer.ids, (size_t)Q, (size_t)K);
        CHECK(common >= LEAST_OVERLAP, "only %.4f of the ids are those of faiss", common);
    }
    char shape[64];
    snprintf(shape, sizeof shape, "Q=%d M=%d E=%d K=%d %s", Q, M, E, K, dtype_name(t));
    bench_time(shape, 2.0 * Q * M * E, (double)M * E * (double)dtype_size(t), search, &x, "faiss",
               has_peer ? peer_search : NULL, &peer);
    if (beside_faiss) {
        peer_stop(&peer);
    }
    BENCH_RELEASE(x.queries, x.rows, x.scores, x.ids);
}

BENCH_OP(topk) {
    bench_search(256, 200000, 768, 50, DT_F16, true);
    bench_search(256, 200000, 768, 50, DT_F32, true);
    bench_search(1, 200000, 768, 50, DT_F16, true);
    bench_search(64, 2000, 64, 10, DT_F16, true); // the demo
}

BENCH_REAL(topk) {
    static const int queries[] = {256, 64, 1};
    for (int i = 0; i < 3; i++) {
        bench_search(queries[i], bench_shrunk(1600000), 768, 50, DT_F16, false);
    }
}
