// Search at the size of a corpus, beside faiss IndexFlatIP. faiss is C++, so the peer is a process
// (peers/search_faiss.py) that holds the same vectors as f32 and searches when told; a byte there
// and the ids back are the whole conversation. Without python3 or faiss there is no ratio.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/peer_process.h"

#define SCRIPT        "bench/peers/search_faiss.py"
#define LEAST_OVERLAP 0.999 // of our ids and faiss's: sums in another order swap near-ties only

typedef struct {
    int Q, M, E, K;
    DType t;
} Shape;

typedef struct {
    Shape s;
    float *queries, *scores;
    int32_t *ids;
    void *rows;
} Search;

// ---- ours ----
static void search(void *ctx) {
    const Search *x = ctx;
    bench_ops()->topk(bench_device(), x->s.t, x->scores, x->ids, x->queries, x->rows, NULL, NULL,
                      x->s.Q, x->s.M, x->s.E, x->s.K, 0, true);
}

// The first and last query against the plain loops, on a prefix of the index that they can manage.
static void check_search(const Search *x) {
    const int M = x->s.M < 3000 ? x->s.M : 3000, K = x->s.K;
    const size_t n = (size_t)x->s.Q * K;
    float *scores = xmalloc(n, sizeof *scores);
    int32_t *ids = xmalloc(n, sizeof *ids);
    bench_ops()->topk(bench_device(), x->s.t, x->scores, x->ids, x->queries, x->rows, NULL, NULL,
                      x->s.Q, M, x->s.E, K, 0, true);
    for (int q = 0; q < x->s.Q; q += x->s.Q > 1 ? x->s.Q - 1 : 1) {
        topk_naive(bench_device(), x->s.t, scores, ids, x->queries + (size_t)q * x->s.E, x->rows,
                   NULL, NULL, 1, M, x->s.E, K, 0, true);
        CHECK(memcmp(ids, x->ids + (size_t)q * K, (size_t)K * sizeof *ids) == 0 &&
                  memcmp(scores, x->scores + (size_t)q * K, (size_t)K * sizeof *scores) == 0,
              "query %d differs from the plain loops", q);
    }
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
    const int32_t head[] = {x->s.Q, x->s.M, x->s.E, x->s.K, bench_threads()};
    const size_t E = (size_t)x->s.E;
    float *row = xmalloc(E, sizeof *row), *cells = xmalloc(E, sizeof *cells);
    FILE *to = peer->process.to;
    bool is_fine = fwrite(head, sizeof head, 1, to) == 1;
    for (size_t q = 0; is_fine && q < (size_t)x->s.Q; q++) {
        // Rounded to the type of the rows, as the op does.
        dtype_narrow(x->s.t, cells, x->queries + q * E, E);
        dtype_widen(row, x->s.t, cells, E);
        is_fine = fwrite(row, sizeof *row, E, to) == E;
    }
    for (size_t m = 0; is_fine && m < (size_t)x->s.M; m++) {
        dtype_widen(row, x->s.t, dtype_at_const(x->s.t, x->rows, m * E), E);
        is_fine = fwrite(row, sizeof *row, E, to) == E;
    }
    free(row);
    free(cells);
    fflush(to);
    peer->n = (size_t)x->s.Q * x->s.K;
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

BENCH_OP(topk) {
    static const Shape shapes[] = {
        {256, 200000, 768, 50, DT_F16},
        {256, 200000, 768, 50, DT_F32},
        {1, 200000, 768, 50, DT_F16},
        {64, 2000, 64, 10, DT_F16}, // the demo
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const Shape s = shapes[i];
        const size_t hits = (size_t)s.Q * s.K;
        Search x = {s, bench_normal(DT_F32, (size_t)s.Q * s.E), bench_zeros(hits * sizeof(float)),
                    bench_zeros(hits * sizeof(int32_t)), bench_normal(s.t, (size_t)s.M * s.E)};
        check_search(&x);
        Peer peer = {.process = peer_process_start(SCRIPT)};
        const bool has_peer = peer_load(&peer, &x);
        if (has_peer) {
            search(&x);
            peer_search(&peer);
            const double common = overlap(x.ids, peer.ids, (size_t)s.Q, (size_t)s.K);
            CHECK(common >= LEAST_OVERLAP, "only %.4f of the ids are those of faiss", common);
        }
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%dx%d K=%d %s", s.Q, s.M, s.E, s.K, dtype_name(s.t));
        bench_time(shape, 2.0 * s.Q * s.M * s.E, (double)s.M * s.E * (double)dtype_size(s.t),
                   search, &x, "faiss", has_peer ? peer_search : NULL, &peer);
        peer_stop(&peer);
        device_release(bench_device(), x.queries);
        device_release(bench_device(), x.scores);
        device_release(bench_device(), x.ids);
        device_release(bench_device(), x.rows);
    }
}
