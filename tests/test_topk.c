// Top-k against a sort of all scores in double. Where sums are exact, ids must be equal, ties
// included; elsewhere the fast search must have the bits of the plain one, whose scores are held to
// double.
#include "kernels/topk_order.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int Q, M, E, K;
} Shape;

static const Shape shapes[] = {
    {1, 1, 1, 1},      {1, 1, 1, 5},       {3, 2, 7, 1},       {7, 15, 16, 15}, {5, 16, 17, 4},
    {6, 17, 255, 50},  {13, 63, 256, 10},  {2, 64, 257, 64},   {4, 65, 33, 66}, {1, 700, 768, 50},
    {257, 130, 24, 9}, {3, 1500, 8, 1024}, {300, 400, 64, 20},
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

// ---- one problem ----
typedef struct {
    Shape s;
    DType t;
    Buf queries, rows, scores;
    IntBuf ids, query_group, row_group;
    bool has_groups;
} Problem;

// is_exact: small integers, many of them equal, whose products and sums no rounding touches.
static Problem problem_new(Shape s, DType t, bool is_exact, uint32_t sample) {
    Problem p = {.s = s, .t = t};
    Rng rng = check_rng(sample);
    p.queries = buf_normal(DT_F32, (size_t)s.Q * s.E, 1, &rng);
    p.rows = buf_normal(t, (size_t)s.M * s.E, 1, &rng);
    if (is_exact) {
        for (size_t i = 0; i < p.queries.n; i++) {
            p.queries.host[i] = (double)rng_below(&rng, 5) - 2;
        }
        for (size_t i = 0; i < p.rows.n; i++) {
            p.rows.host[i] = ldexp((double)rng_below(&rng, 3) - 1, (int)rng_below(&rng, 3) - 1);
        }
        buf_write(&p.queries);
        buf_write(&p.rows);
    }
    p.scores = buf_fill(DT_F32, (size_t)s.Q * s.K, NAN);
    p.ids = ibuf_fill((size_t)s.Q * s.K, 77);
    p.query_group = ibuf_fill((size_t)s.Q, -1);
    p.row_group = ibuf_fill((size_t)s.M, -1);
    return p;
}

static void problem_free(Problem *p) {
    buf_free(&p->queries);
    buf_free(&p->rows);
    buf_free(&p->scores);
    ibuf_free(&p->ids);
    ibuf_free(&p->query_group);
    ibuf_free(&p->row_group);
}

// Searches rows begin .. end-1 of the index, which the caller numbers from `first_row` on.
static void search_with(Problem *p, topk_fn *op, Device *dev, int begin, int end, int first_row,
                        bool is_first) {
    op(dev, p->t, buf_f32(&p->scores), p->ids.dev, buf_f32(&p->queries),
       dtype_at_const(p->t, p->rows.dev, (size_t)begin * p->s.E),
       p->has_groups ? p->query_group.dev : NULL, p->has_groups ? p->row_group.dev + begin : NULL,
       p->s.Q, end - begin, p->s.E, p->s.K, first_row, is_first);
    buf_read(&p->scores);
    ibuf_read(&p->ids);
}

static void search(Problem *p) {
    search_with(p, check_ops()->topk, check_device(), 0, p->s.M, 0, true);
}

// ---- the reference ----
typedef struct {
    double score;
    int id;
} Ranked;

static int by_rank(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

// Query q's element as the search sees it: rounded to the type of the rows.
static double query_at(const Problem *p, int q, int e) {
    float cell;
    dtype_store(p->t, &cell, 0, (float)p->queries.host[(size_t)q * p->s.E + e]);
    return dtype_load(p->t, &cell, 0);
}

static double score_of(const Problem *p, int q, int m, bool is_f32) {
    double sum = 0;
    for (int e = 0; e < p->s.E; e++) {
        const double product = query_at(p, q, e) * p->rows.host[(size_t)m * p->s.E + e];
        sum = is_f32 ? (float)(sum + (float)product) : sum + product;
    }
    return sum;
}

// All candidates of query q in order; returns how many. list: room for M.
static int ranking(const Problem *p, int q, Ranked *list) {
    int n = 0;
    for (int m = 0; m < p->s.M; m++) {
        const int group = p->query_group.host[q];
        if (p->has_groups && group != -1 && group == p->row_group.host[m]) {
            continue;
        }
        list[n] = (Ranked){score_of(p, q, m, false), m};
        n += !isnan(list[n].score);
    }
    qsort(list, (size_t)n, sizeof *list, by_rank);
    return n;
}

// The problem's result is the beginning of the ranking, ids and scores, exactly.
static void expect_ranking(const Problem *p) {
    Ranked *list = xmalloc((size_t)p->s.M, sizeof *list);
    for (int q = 0; q < p->s.Q; q++) {
        const int n = ranking(p, q, list);
        for (int i = 0; i < p->s.K; i++) {
            const Ranked want = i < n ? list[i] : (Ranked){-INFINITY, -1};
            const size_t at = (size_t)q * p->s.K + i;
            EXPECT(p->ids.host[at] == want.id && p->scores.host[at] == want.score,
                   "query %d place %d: row %d (%.9g), want row %d (%.9g)", q, i, p->ids.host[at],
                   p->scores.host[at], want.id, want.score);
            if (p->ids.host[at] != want.id) {
                break;
            }
        }
    }
    free(list);
}

static void expect_same(const char *what, const Problem *a, const Problem *b) {
    expect_exact(what, a->scores.host, b->scores.host, a->scores.n);
    for (size_t i = 0; i < a->ids.n; i++) {
        EXPECT(a->ids.host[i] == b->ids.host[i], "%s: ids[%zu] is %d, not %d", what, i,
               a->ids.host[i], b->ids.host[i]);
    }
}

static bool begin_case(const char *text, int n) {
    const Shape *s = &shapes[n / 3];
    return CASE("%s Q=%d M=%d E=%d K=%d t=%s", text, s->Q, s->M, s->E, s->K,
                dtype_name((DType)(n % 3)));
}
#define EACH_SHAPE(text)                                                                           \
    for (int n = 0; n < 3 * SHAPES; n++)                                                           \
        if (begin_case(text, n))

// ---- cases ----
static void shards(void) {
    // Five shards of one index, in three orders; the lists start as rubbish.
    const Shape s = {9, 500, 12, 40};
    const int ends[] = {0, 1, 130, 131, 300, 500};
    const int orders[3][5] = {{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 4, 0, 3, 1}};
    for (int order = 0; order < 3; order++) {
        if (!CASE("shards in order %d", order)) {
            continue;
        }
        for (int is_exact = 0; is_exact < 2; is_exact++) {
            Problem whole = problem_new(s, DT_F16, is_exact, 3),
                    parts = problem_new(s, DT_F16, is_exact, 3);
            search(&whole);
            for (int i = 0; i < 5; i++) {
                const int begin = ends[orders[order][i]], end = ends[orders[order][i] + 1];
                search_with(&parts, check_ops()->topk, check_device(), begin, end, begin, i == 0);
            }
            expect_same("shards", &parts, &whole);
            problem_free(&whole);
            problem_free(&parts);
        }
    }
}

// The lists that a search goes on from are backwards: nothing says that they are sorted.
static void known_backwards(void) {
    const int middle = 1300;
    Problem whole = problem_new((Shape){2, 2600, 8, 40}, DT_BF16, true, 14);
    Problem parts = problem_new(whole.s, DT_BF16, true, 14);
    search(&whole);
    search_with(&parts, check_ops()->topk, check_device(), 0, middle, 0, true);
    const int K = parts.s.K;
    for (int i = 0; i < parts.s.Q * K; i++) {
        const int other = i / K * K + K - 1 - i % K;
        if (i < other) {
            const double score = parts.scores.host[i];
            const int32_t id = parts.ids.host[i];
            parts.scores.host[i] = parts.scores.host[other], parts.scores.host[other] = score;
            parts.ids.host[i] = parts.ids.host[other], parts.ids.host[other] = id;
        }
    }
    buf_write(&parts.scores);
    IntBuf sorted = parts.ids;
    parts.ids = ibuf_from(sorted.host, sorted.n);
    search_with(&parts, check_ops()->topk, check_device(), middle, whole.s.M, middle, false);
    expect_same("from lists that are backwards", &parts, &whole);
    ibuf_free(&sorted);
    problem_free(&whole);
    problem_free(&parts);
}

static void groups(void) {
    if (CASE("groups are excluded, -1 matches nothing")) {
        Problem p = problem_new((Shape){12, 300, 6, 30}, DT_F32, true, 4);
        Rng rng = check_rng(5);
        for (int q = 0; q < p.s.Q; q++) {
            p.query_group.host[q] = q == 1 ? 1000 : (int)rng_below(&rng, 3) - 1; // 1000: nobody's
        }
        for (int m = 0; m < p.s.M; m++) {
            p.row_group.host[m] = (int)rng_below(&rng, 3) - 1;
        }
        const IntBuf old[2] = {p.query_group, p.row_group};
        p.query_group = ibuf_from(old[0].host, old[0].n);
        p.row_group = ibuf_from(old[1].host, old[1].n);
        p.has_groups = true;
        search(&p);
        expect_ranking(&p);
        for (int i = 0; i < 2; i++) {
            IntBuf done = old[i];
            ibuf_free(&done);
        }
        problem_free(&p);
    }
    if (CASE("a query whose group is the whole index finds nothing")) {
        Problem p = problem_new((Shape){1, 20, 3, 4}, DT_F32, true, 6);
        ibuf_free(&p.query_group);
        ibuf_free(&p.row_group);
        p.query_group = ibuf_fill(1, 7);
        p.row_group = ibuf_fill(20, 7);
        p.has_groups = true;
        search(&p);
        for (int i = 0; i < 4; i++) {
            EXPECT(p.ids.host[i] == -1 && p.scores.host[i] == -INFINITY, "place %d: row %d (%g)", i,
                   p.ids.host[i], p.scores.host[i]);
        }
        problem_free(&p);
    }
}

static void special_values(void) {
    if (CASE("NaN is never a candidate, -inf is one, +inf comes first")) {
        Problem p = problem_new((Shape){2, 40, 1, 40}, DT_F32, true, 7);
        p.queries.host[0] = 1;
        p.queries.host[1] = NAN; // the second query finds nothing
        p.rows.host[3] = p.rows.host[39] = NAN;
        p.rows.host[5] = p.rows.host[17] = -INFINITY;
        p.rows.host[8] = p.rows.host[2] = INFINITY;
        buf_write(&p.queries);
        buf_write(&p.rows);
        search(&p);
        expect_ranking(&p);
        EXPECT(p.ids.host[0] == 2 && p.ids.host[1] == 8 && p.ids.host[36] == 5 &&
                   p.ids.host[37] == 17 && p.ids.host[38] == -1 && p.ids.host[40] == -1,
               "rows %d %d .. %d %d %d; %d", p.ids.host[0], p.ids.host[1], p.ids.host[36],
               p.ids.host[37], p.ids.host[38], p.ids.host[40]);
        problem_free(&p);
    }
    if (CASE("all rows equal: the lower rows")) {
        Problem p = problem_new((Shape){3, 1000, 4, 70}, DT_BF16, true, 8);
        for (size_t i = 0; i < p.rows.n; i++) {
            p.rows.host[i] = 1;
        }
        buf_write(&p.rows);
        search(&p);
        expect_ranking(&p);
        EXPECT(p.ids.host[69] == 69, "place 69: row %d", p.ids.host[69]);
        problem_free(&p);
    }
    if (CASE("scores that rise with the row: every row enters the list")) {
        Problem p = problem_new((Shape){1, 3000, 1, 100}, DT_F32, true, 9);
        p.queries.host[0] = 1;
        for (int m = 0; m < p.s.M; m++) {
            p.rows.host[m] = m / 2;
        }
        buf_write(&p.queries);
        buf_write(&p.rows);
        search(&p);
        expect_ranking(&p);
        EXPECT(p.ids.host[0] == 2998 && p.ids.host[1] == 2999, "rows %d %d", p.ids.host[0],
               p.ids.host[1]);
        problem_free(&p);
    }
}

static void invariance(void) {
    const Shape s = {70, 2000, 96, 33};
    if (CASE("threads change nothing")) {
        Problem a = problem_new(s, DT_F16, false, 10), b = problem_new(s, DT_F16, false, 10);
        Device *many = device_new(device_kind(check_device()), 0, 3);
        search(&a);
        search_with(&b, check_ops()->topk, many, 0, s.M, 0, true);
        expect_same("threads", &a, &b);
        device_free(many);
        problem_free(&a);
        problem_free(&b);
    }
    if (CASE("other queries change nothing")) {
        Problem a = problem_new(s, DT_F16, false, 11), b = problem_new(s, DT_F16, false, 11);
        search(&a);
        b.s.Q = 1;
        search(&b);
        expect_exact("scores", b.scores.host, a.scores.host, (size_t)s.K);
        EXPECT(memcmp(b.ids.host, a.ids.host, (size_t)s.K * sizeof(int32_t)) == 0, "ids differ");
        problem_free(&a);
        problem_free(&b);
    }
}

// ---- hard orders ---- Orders of the rows for which a search that drops rows early, by a bound
// from those before, would go wrong if its bound or its room were. SEARCH_128, SEARCH_64: scores
// rise in the order in which CUDA takes tiles of so many rows, so that every row enters a list.
typedef enum { EQUAL, RISING, FALLING, SEARCH_128, SEARCH_64, MOST_NAN, MOST_OUT, ALL_OUT } Order;
static const char *const order_names[] = {
    "all equal", "rising", "falling", "rising in the order of search", "the same, tiles of 64",
    "most NaN, some -inf", "the best in the query's group", "all in the query's group"};

// scores[m]: whole numbers within 8192, NaN or -inf.
static void order_scores(double *scores, Order order, int M) {
    const int rows = order == SEARCH_128 ? 128 : 64, tiles = (M + rows - 1) / rows;
    for (int m = 0; m < M; m++) {
        scores[m] = order == RISING || order == MOST_OUT ? m
                    : order == FALLING                   ? M - m
                    : order != MOST_NAN                  ? 5
                    : m % 50 == 3                        ? m % 7
                    : m % 50 == 4                        ? -INFINITY
                                                         : NAN;
    }
    for (int j = 0; (order == SEARCH_128 || order == SEARCH_64) && j < tiles; j++) {
        const int first = topk_tile(j, tiles, topk_step(tiles)) * rows;
        for (int i = 0; i < rows && first + i < M; i++) {
            scores[first + i] = j * rows + i;
        }
    }
}

// score = 64 high + low, both exact in every type; the other elements are 0.
static void hard_order(Order order, Shape s, DType t) {
    Problem p = problem_new(s, t, true, 12);
    for (int q = 0; q < s.Q; q++) {
        for (int e = 0; e < s.E; e++) {
            p.queries.host[q * s.E + e] = e == 0 ? 64 : e == 1 ? 1 : 0;
        }
    }
    double *scores = xmalloc((size_t)s.M, sizeof *scores);
    order_scores(scores, order, s.M);
    for (int m = 0; m < s.M; m++) {
        const double score = scores[m], high = floor(score / 64);
        for (int e = 0; e < s.E; e++) {
            p.rows.host[m * s.E + e] = e == 0 ? high : 0;
        }
        if (isfinite(score)) {
            p.rows.host[m * s.E + 1] = score - 64 * high;
        }
    }
    free(scores);
    p.has_groups = order == MOST_OUT || order == ALL_OUT;
    if (p.has_groups) {
        int32_t *group = xmalloc((size_t)s.M, sizeof *group);
        for (int m = 0; m < s.M; m++) {
            group[m] = order == ALL_OUT || m >= s.M / 3 ? 9 : -1;
        }
        ibuf_free(&p.row_group);
        ibuf_free(&p.query_group);
        p.row_group = ibuf_from(group, (size_t)s.M);
        p.query_group = ibuf_fill((size_t)s.Q, 9);
        free(group);
    }
    buf_write(&p.queries);
    buf_write(&p.rows);
    search(&p);
    expect_ranking(&p);
    if (!p.has_groups) { // the same in two shards, the later rows first
        const int half = s.M / 2 + 5;
        search_with(&p, check_ops()->topk, check_device(), half, s.M, half, true);
        search_with(&p, check_ops()->topk, check_device(), 0, half, 0, false);
        expect_ranking(&p);
    }
    problem_free(&p);
}

// A GPU promises no other kernel's bits, but its own again; an emulated one has no other order.
static void same_bits(void) {
    const DeviceKind kind = device_kind(check_device());
    const char *text = kind == DEVICE_CPU ? "naive and fast have the same bits"
                                          : "a second run has the same bits";
    for (int n = 0; n < 3 * SHAPES && kind != DEVICE_EMU; n++) {
        if (begin_case(text, n)) {
            Problem a = problem_new(shapes[n / 3], (DType)(n % 3), false, (uint32_t)n);
            Problem b = problem_new(shapes[n / 3], (DType)(n % 3), false, (uint32_t)n);
            search(&a);
            search_with(&b, kind == DEVICE_CPU ? topk_naive : check_ops()->topk, check_device(), 0,
                        b.s.M, 0, true);
            expect_same("again", &a, &b);
            problem_free(&a);
            problem_free(&b);
        }
    }
}

static void hard_orders(void) {
    static const Shape hard[] = {{3, 6140, 8, 5}, {40, 6140, 8, 70}, {2, 7100, 8, 1024}};
    for (int n = 0; n < 3 * 3 * 8; n++) {
        const Shape s = hard[n / 24];
        const Order order = (Order)(n % 8);
        const DType t = (DType)(n / 8 % 3);
        const bool is_small = s.K == 5 && (t == DT_F16 || order == SEARCH_64);
        if (check_affords(is_small ? 0 : 1e9) &&
            CASE("hard order: %s Q=%d M=%d K=%d t=%s", order_names[order], s.Q, s.M, s.K,
                 dtype_name(t))) {
            hard_order(order, s, t);
        }
    }
}

TEST_OP(topk) {
    EACH_SHAPE("exact data") {
        Problem p = problem_new(shapes[n / 3], (DType)(n % 3), true, (uint32_t)n);
        search(&p);
        expect_ranking(&p);
        problem_free(&p);
    }
    EACH_SHAPE("scores") {
        Problem p = problem_new(shapes[n / 3], (DType)(n % 3), false, (uint32_t)n);
        search(&p);
        double *f64 = xmalloc(p.scores.n, 8), *plain = xmalloc(p.scores.n, 8);
        for (size_t i = 0; i < p.scores.n; i++) {
            const int q = (int)(i / (size_t)p.s.K), m = p.ids.host[i];
            f64[i] = m < 0 ? 0 : score_of(&p, q, m, false);
            plain[i] = m < 0 ? 0 : score_of(&p, q, m, true);
            EXPECT(m >= 0 || (p.scores.host[i] == -INFINITY && (int)i % p.s.K >= p.s.M),
                   "query %d place %zu is empty with %g", q, i % (size_t)p.s.K, p.scores.host[i]);
            p.scores.host[i] = m < 0 ? 0 : p.scores.host[i];
        }
        expect_sum("scores", p.scores.host, f64, plain, p.scores.n);
        free(f64);
        free(plain);
        problem_free(&p);
    }
    same_bits();
    if (check_affords(1e9) && CASE("more queries than CUDA searches for at once")) {
        Problem p = problem_new((Shape){4101, 70, 2, 3}, DT_BF16, true, 13);
        search(&p);
        expect_ranking(&p);
        problem_free(&p);
    }
    shards();
    if (CASE("known hits in any order")) {
        known_backwards();
    }
    groups();
    special_values();
    hard_orders();
    invariance();
}
