// test_matmul_rope: products that end in turning their heads (EPILOGUE_ROPE).
//
// Four witnesses: the equations in double, written here; the plain loop of matmul.h, whose bits the
// CPU's are; a product and then rope_fwd, whose bits those of every backend and architecture are;
// and the row alone, whose bits are those it has among others.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "tests/check.h"

typedef struct {
    int M, H, D, K;
} Shape;
// Heads that lie across quads, in them, and in a kernel's tile or piece once, often or not at all;
// two wide tiles and a ragged one; heads of 66, which the CPU's blocks of 512 columns cannot hold;
// more columns than such a block.
static const Shape shapes[] = {{1, 1, 2, 1},     {5, 3, 2, 7},     {7, 3, 6, 9},    {3, 5, 8, 16},
                               {9, 2, 16, 8},    {20, 3, 32, 24},  {33, 1, 64, 40}, {18, 5, 64, 72},
                               {130, 4, 64, 8},  {17, 3, 80, 64},  {5, 1, 128, 8},
                               {18, 3, 128, 72}, {130, 2, 128, 8}, {5, 2, 256, 64},
                               {4, 2, 66, 8},    {14, 9, 80, 8},   {6, 8, 80, 16}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
// How a product starts and goes on; whether rows of the tables begin anywhere.
typedef enum { START_ZERO, START_BIAS, START_OUT } Start;
static const struct {
    Start start;
    int rank;
    bool is_shifted;
} variants[] = {{START_BIAS, 0, false}, {START_ZERO, 8, false}, {START_OUT, 3, false},
                {START_BIAS, 40, true}, {START_OUT, 16, false}};
enum { VARIANTS = sizeof variants / sizeof *variants };

// ---- one product ----
typedef enum { INP, WEIGHT, BIAS, LOW, UP, OUT, TENSORS } Tensor;
typedef struct {
    Shape s;
    int N, variant;
    RopePairing pairing;
    DType t;
    Buf buf[TENSORS], cosine, sine; // tables: behind one element where they are shifted
} Problem;

// Of M > 1 rows the last is at position 0, and the odd ones before it are so by one of two axes.
static void fill_tables(Problem *p, Rng *rng) {
    const int pairs = p->s.D / 2, first = variants[p->variant].is_shifted;
    const size_t n = (size_t)p->s.M * pairs;
    p->cosine = buf_fill(DT_F32, n + first, 1);
    p->sine = buf_fill(DT_F32, n + first, 0);
    for (size_t i = 0; i < n; i++) {
        const int row = (int)(i / pairs), pair = (int)(i % pairs);
        const double angle = 100 * rng_uniform(rng);
        if ((row == 0 || row < p->s.M - 1) && !(row % 2 == 1 && pair < pairs / 2)) {
            p->cosine.host[first + i] = cos(angle);
            p->sine.host[first + i] = sin(angle);
        }
    }
    buf_write(&p->cosine);
    buf_write(&p->sine);
}

static Problem problem_new(Shape s, RopePairing pairing, DType t, int variant) {
    Problem p = {.s = s, .N = s.H * s.D, .variant = variant, .pairing = pairing, .t = t};
    const int rank = variants[variant].rank;
    const size_t counts[TENSORS] = {[INP] = (size_t)s.M * s.K,  [WEIGHT] = (size_t)p.N * s.K,
                                    [BIAS] = (size_t)p.N,       [LOW] = (size_t)s.M * rank,
                                    [UP] = (size_t)p.N * rank,  [OUT] = (size_t)s.M * p.N};
    Rng rng = check_rng((uint32_t)variant);
    for (int i = 0; i < TENSORS; i++) {
        p.buf[i] = i == OUT && variants[variant].start != START_OUT
                       ? buf_fill(t, counts[i], NAN)
                       : buf_normal(t, counts[i], 1, &rng);
    }
    fill_tables(&p, &rng);
    return p;
}

static void problem_free(Problem *p) {
    for (int i = 0; i < TENSORS; i++) {
        buf_free(&p->buf[i]);
    }
    buf_free(&p->cosine);
    buf_free(&p->sine);
}

// The first M rows by some device's op or the plain loop, of tensors at these addresses.
static void run(const Problem *p, Device *dev, matmul_fwd_fn *fwd, EpilogueKind kind,
                void *const *at, const float *cosine, const float *sine, const void *packed,
               int M) {
    const int first = variants[p->variant].is_shifted;
    const MatmulEpilogue e = {.kind = kind,
                              .cosine = cosine + first,
                              .sine = sine + first,
                              .head_width = p->s.D,
                              .pairing = p->pairing,
                              .low = at[LOW],
                              .up = at[UP],
                              .rank = variants[p->variant].rank};
    const Start start = variants[p->variant].start;
    fwd(dev, p->t, at[OUT], at[INP], packed ? NULL : at[WEIGHT], packed,
        start == START_BIAS ? at[BIAS] : NULL, M, p->N, p->s.K, start == START_OUT, &e);
}

// Ops run on streams of one device, copies on those of another: each waits for the other's work.
static void settle(void) { device_sync(check_device()); }

static void run_op(Problem *p, Device *dev, EpilogueKind kind, Buf *out, const void *packed,
                   int M) {
    void *at[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        at[i] = i == OUT ? out->dev : p->buf[i].dev;
    }
    settle();
    run(p, dev, device_ops(dev)->matmul_fwd, kind, at, buf_f32(&p->cosine), buf_f32(&p->sine),
        packed, M);
    settle();
}

// ---- the witnesses ----
// want: (M,N), the equations in double.
static void equations(const Problem *p, double *want) {
    const int M = p->s.M, N = p->N, K = p->s.K, D = p->s.D, rank = variants[p->variant].rank;
    const Start start = variants[p->variant].start;
    const Buf *b = p->buf;
    double *z = xcalloc((size_t)N, sizeof *z);
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            z[n] = start == START_OUT    ? b[OUT].host[(size_t)m * N + n]
                   : start == START_BIAS ? b[BIAS].host[n]
                                         : 0;
            for (int k = 0; k < K; k++) {
                z[n] += b[INP].host[(size_t)m * K + k] * b[WEIGHT].host[(size_t)n * K + k];
            }
            for (int r = 0; r < rank; r++) {
                z[n] += b[LOW].host[(size_t)m * rank + r] * b[UP].host[(size_t)n * rank + r];
            }
        }
        for (int n = 0; n < N; n++) {
            const int in_head = n % D;
            const bool is_first = p->pairing == ROPE_HALF ? in_head < D / 2 : in_head % 2 == 0;
            const int apart = p->pairing == ROPE_HALF ? D / 2 : 1;
            const int pair = p->pairing == ROPE_HALF ? in_head % (D / 2) : in_head / 2;
            const size_t at = (size_t)m * (D / 2) + pair + variants[p->variant].is_shifted;
            const double c = p->cosine.host[at], s = p->sine.host[at];
            want[(size_t)m * N + n] = is_first ? z[n] * c - z[n + apart] * s
                                               : z[n] * c + z[n - apart] * s;
        }
    }
    free(z);
}

static void *host_copy(const Buf *buf, size_t bytes) {
    void *copy = xmalloc(bytes + 1, 1);
    settle();
    device_copy_out(check_device(), copy, buf->dev, bytes);
    return copy;
}

// The plain loop's output, in the elements' own type.
static void *plain_loop(Problem *p) {
    void *at[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        at[i] = host_copy(&p->buf[i], p->buf[i].n * dtype_size(p->t));
    }
    float *cosine = host_copy(&p->cosine, p->cosine.n * sizeof(float));
    float *sine = host_copy(&p->sine, p->sine.n * sizeof(float));
    run(p, check_device(), matmul_fwd_naive, EPILOGUE_ROPE, at, cosine, sine, NULL, p->s.M);
    for (int i = 0; i < OUT; i++) {
        free(at[i]);
    }
    free(cosine), free(sine);
    return at[OUT];
}

// A product of its own and then rope_fwd give the same bits, and the first row alone the bits it
// has in got.
static void expect_same_bits(Problem *p, Device *dev, const Buf *got) {
    const Shape s = p->s;
    const int first = variants[p->variant].is_shifted;
    Buf apart = buf_from(p->t, p->buf[OUT].host, got->n);
    run_op(p, dev, EPILOGUE_NONE, &apart, NULL, s.M);
    device_ops(dev)->rope_fwd(dev, p->t, apart.dev, buf_f32(&p->cosine) + first,
                              buf_f32(&p->sine) + first, s.M, s.H, s.D, p->N, p->pairing);
    settle();
    expect_exact("product, then rope_fwd", got->host, buf_read(&apart), got->n);
    buf_free(&apart);
    if (s.M > 1) {
        Buf alone = buf_from(p->t, p->buf[OUT].host, (size_t)p->N);
        run_op(p, dev, EPILOGUE_ROPE, &alone, NULL, 1);
        expect_exact("row 0 alone", buf_read(&alone), got->host, (size_t)p->N);
        buf_free(&alone);
    }
}

static bool is_cpu(void) { return device_kind(check_device()) == DEVICE_CPU; }

static void one_problem(Problem *p, Device *dev) {
    const size_t n = p->buf[OUT].n, bytes = n * dtype_size(p->t);
    double *want = xcalloc(n, sizeof *want), *loop = xcalloc(n, sizeof *loop);
    void *plain = plain_loop(p);
    equations(p, want);
    for (size_t i = 0; i < n; i++) {
        loop[i] = dtype_load(p->t, plain, i);
    }
    for (int packs = 0; packs <= is_cpu(); packs++) {
        void *packed = NULL;
        if (packs) {
            packed = device_alloc(dev, matmul_pack_bytes(dev, p->t, MATMUL_PACK_FWD, p->N, p->s.K),
                                  "packed");
            device_ops(dev)->matmul_pack(dev, p->t, packed, p->buf[WEIGHT].dev, MATMUL_PACK_FWD,
                                         p->N, p->s.K);
        }
        Buf got = buf_from(p->t, p->buf[OUT].host, n);
        run_op(p, dev, EPILOGUE_ROPE, &got, packed, p->s.M);
        expect_sum(packs ? "out, packed" : "out", buf_read(&got), want, loop, n);
        if (is_cpu()) {
            EXPECT(memcmp(got.dev, plain, bytes) == 0, "bits differ from the plain loop");
        }
        expect_same_bits(p, dev, &got);
        buf_free(&got);
        device_release(dev, packed);
    }
    free(want), free(loop), free(plain);
}

TEST_DEVICE(matmul_rope) {
    Device *older = device_new(device_kind(check_device()), 0, 0);
    device_limit_arch(older, 80);
    const bool is_newer = device_arch(check_device()) > device_arch(older);
    for (int i = 0; i < SHAPES * 2 * DT_COUNT * (1 + is_newer); i++) {
        const Shape s = shapes[i % SHAPES];
        const RopePairing pairing = i / SHAPES % 2 ? ROPE_HALF : ROPE_INTERLEAVED;
        const DType t = (DType)(i / SHAPES / 2 % DT_COUNT);
        Device *dev = i / SHAPES / 2 / DT_COUNT ? older : check_device();
        // Only products of bf16 have kernels of their own on a newer architecture.
        if ((dev == older && t != DT_BF16) ||
            !CASE("M=%d H=%d D=%d K=%d %s t=%s arch=%d", s.M, s.H, s.D, s.K,
                  pairing == ROPE_HALF ? "half" : "interleaved", dtype_name(t), device_arch(dev))) {
            continue;
        }
        Problem p = problem_new(s, pairing, t, i % VARIANTS);
        one_problem(&p, dev);
        problem_free(&p);
    }
    device_free(older);
}

// ---- threads ----
// Heads that a division by panels alone would give to two threads.
TEST(matmul_rope_threads) {
    for (int t = DT_F32; t <= DT_BF16; t++) {
        for (int k = 0; k < 2; k++) {
            const Shape s = k ? (Shape){700, 7, 80, 40} : (Shape){40, 11, 66, 300};
            if (!CASE("M=%d H=%d D=%d K=%d t=%s", s.M, s.H, s.D, s.K, dtype_name((DType)t))) {
                continue;
            }
            if (!is_cpu()) {
                check_skip("threads are the CPU's");
                continue;
            }
            Problem p = problem_new(s, ROPE_HALF, (DType)t, 1);
            void *plain = plain_loop(&p);
            for (int threads = 1; threads <= 3; threads++) {
                Device *dev = device_new(DEVICE_CPU, 0, threads);
                run_op(&p, dev, EPILOGUE_ROPE, &p.buf[OUT], NULL, s.M);
                EXPECT(memcmp(p.buf[OUT].dev, plain, p.buf[OUT].n * dtype_size(p.t)) == 0,
                       "%d threads", threads);
                device_free(dev);
            }
            free(plain);
            problem_free(&p);
        }
    }
}

// ---- what is refused ----
static float zeros[600];
static const MatmulEpilogue heads_of_4 = {.kind = EPILOGUE_ROPE, .cosine = zeros, .sine = zeros,
                                          .head_width = 4, .pairing = ROPE_HALF};
static void refuse(MatmulEpilogue e, int N) {
    check_ops()->matmul_fwd(check_device(), DT_F32, zeros, zeros, zeros, NULL, NULL, 1, N, 1, false,
                            &e);
}
static void no_table(void) {
    MatmulEpilogue e = heads_of_4;
    e.sine = NULL;
    refuse(e, 4);
}
static void odd_head(void) {
    MatmulEpilogue e = heads_of_4;
    e.head_width = 3;
    refuse(e, 6);
}
static void no_head(void) {
    MatmulEpilogue e = heads_of_4;
    e.head_width = 0;
    refuse(e, 4);
}
static void wide_head(void) {
    MatmulEpilogue e = heads_of_4;
    e.head_width = ROPE_MAX_D + 2;
    refuse(e, ROPE_MAX_D + 2);
}
static void part_of_a_head(void) { refuse(heads_of_4, 6); }
static void unknown_pairing(void) {
    MatmulEpilogue e = heads_of_4;
    e.pairing = (RopePairing)2;
    refuse(e, 4);
}
static void in_a_backward(void) {
    check_ops()->matmul_bwd_input(check_device(), DT_F32, zeros, zeros, zeros, NULL, 1, 1, 4, false,
                                  &heads_of_4);
}

TEST(matmul_rope_refused) {
    static const struct {
        const char *what;
        void (*run)(void);
    } cases[] = {{"no table", no_table},           {"an odd head", odd_head},
                 {"no head", no_head},             {"a head wider than tables", wide_head},
                 {"part of a head", part_of_a_head}, {"an unknown pairing", unknown_pairing},
                 {"heads in a backward", in_a_backward}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].what)) {
            expect_abort(cases[i].what, cases[i].run);
        }
    }
}
