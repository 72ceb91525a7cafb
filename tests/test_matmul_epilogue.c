// test_matmul_epilogue: products that go on into an adapter and end in an epilogue.
//
// The same three witnesses as in test_matmul: the equations in double, written here; the plain loop
// of matmul.h; the op. On the CPU the op's bits are those of the plain loop, and also those of a
// plain product followed by the op that the epilogue stands for, where the contract says so. Heads
// that turn have other shapes: test_matmul_rope.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "tests/check.h"
#include "tests/exact_act.h"

typedef struct {
    int rows, columns, depth;
} Shape;
// Size 1, odd sizes, quads with and without a rest, several tiles of every kernel, and more columns
// than the CPU finishes at once.
static const Shape shapes[] = {{1, 1, 1},    {3, 5, 7},      {7, 17, 9},    {16, 64, 64},
                               {14, 700, 8}, {130, 136, 40}, {129, 66, 72}, {495, 32, 5}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
static const char *const kind_names[EPILOGUE_COUNT] = {"none",  "scale",   "residual", "act",
                                                       "gated", "rope",    "act bwd",  "gated bwd"};

// What a case runs through: ranks below, at and above a tensor core's step; each way to start; the
// output in the place of an input; the pre-activation kept or not.
typedef enum { START_ZERO, START_BIAS, START_OUT } Start;
static const struct {
    int rank;
    Start start;
    bool is_in_place, keeps_pre;
} variants[] = {{0, START_ZERO, true, true},
                {3, START_BIAS, false, false},
                {8, START_OUT, false, true},
                {40, START_ZERO, true, false}};
enum { VARIANTS = sizeof variants / sizeof *variants };

// ---- one product with everything it may need ----
typedef enum { INP, WEIGHT, BIAS, LOW, UP, OTHER, PRE, DGATE, OUT, TENSORS } Tensor;
// OTHER is the residual or the gate.
typedef struct {
    bool is_fwd;
    Shape s;
    DType t;
    EpilogueKind kind;
    Activation act;
    int rank;
    Start start;
    Buf buf[TENSORS];
    Tensor place; // of the output: OUT, or an input that it may overwrite
    bool keeps_pre;
} Problem;

static bool is_bwd_kind(EpilogueKind kind) {
    return kind == EPILOGUE_ACT_BWD || kind == EPILOGUE_GATED_BWD;
}

static Problem problem_new(bool is_fwd, Shape s, DType t, EpilogueKind kind, int variant) {
    Problem p = {.is_fwd = is_fwd, .s = s, .t = t, .kind = kind, .place = OUT};
    p.act = (Activation)((s.rows + (int)kind) % ACT_COUNT);
    p.rank = variants[variant].rank;
    p.start = variants[variant].start == START_BIAS && !is_fwd ? START_ZERO
                                                               : variants[variant].start;
    p.keeps_pre = variants[variant].keeps_pre || is_bwd_kind(kind);
    if (variants[variant].is_in_place) {
        p.place = kind == EPILOGUE_RESIDUAL || kind == EPILOGUE_GATED ? OTHER
                  : is_bwd_kind(kind)                                 ? PRE
                                                                      : OUT;
    }
    Rng rng = check_rng((uint32_t)variant);
    const size_t n = (size_t)s.rows * s.columns;
    const size_t counts[TENSORS] = {[INP] = (size_t)s.rows * s.depth,
                                    [WEIGHT] = (size_t)s.columns * s.depth,
                                    [BIAS] = s.columns,
                                    [LOW] = (size_t)s.rows * p.rank,
                                    [UP] = (size_t)s.columns * p.rank,
                                    [OTHER] = n,
                                    [PRE] = n,
                                    [DGATE] = n,
                                    [OUT] = n};
    for (int i = 0; i < TENSORS; i++) {
        const bool is_assigned = i == DGATE || (i == OUT && p.start != START_OUT) ||
                                 (i == PRE && !is_bwd_kind(kind));
        p.buf[i] = is_assigned ? buf_fill(t, counts[i], NAN) : buf_normal(t, counts[i], 1, &rng);
    }
    return p;
}

static void problem_free(Problem *p) {
    for (int i = 0; i < TENSORS; i++) {
        buf_free(&p->buf[i]);
    }
}

// The op or the plain loop on tensors at these addresses; packed forms or NULL.
static void run(const Problem *p, Device *dev, matmul_fwd_fn *fwd, matmul_bwd_input_fn *bwd_input,
                void *const *at, const void *packed, const void *packed_up) {
    const MatmulEpilogue e = {.kind = p->kind,
                              .act = p->act,
                              .scale = 0.7f,
                              .residual = at[OTHER],
                              .gate = at[OTHER],
                              .pre = p->keeps_pre ? at[PRE] : NULL,
                              .dgate = at[DGATE],
                              .low = at[LOW],
                              .up = packed_up ? NULL : at[UP],
                              .packed_up = packed_up,
                              .rank = p->rank};
    const Shape s = p->s;
    const bool is_accumulated = p->start == START_OUT;
    if (p->is_fwd) {
        fwd(dev, p->t, at[p->place], at[INP], at[WEIGHT], packed,
            p->start == START_BIAS ? at[BIAS] : NULL, s.rows, s.columns, s.depth, is_accumulated,
            &e);
    } else {
        bwd_input(dev, p->t, at[p->place], at[INP], at[WEIGHT], packed, s.rows, s.depth, s.columns,
                  is_accumulated, &e);
    }
}

// ---- the equations in double ----
static double sum_f64(const Problem *p, int i, int j) {
    const Shape s = p->s;
    const bool fwd = p->is_fwd;
    const Buf *b = p->buf;
    double z = p->start == START_OUT    ? b[p->place].host[(size_t)i * s.columns + j]
               : p->start == START_BIAS ? b[BIAS].host[j]
                                        : 0;
    for (int l = 0; l < s.depth; l++) {
        const size_t w = fwd ? (size_t)j * s.depth + l : (size_t)l * s.columns + j;
        z += b[INP].host[(size_t)i * s.depth + l] * b[WEIGHT].host[w];
    }
    for (int r = 0; r < p->rank; r++) {
        const size_t u = fwd ? (size_t)j * p->rank + r : (size_t)r * s.columns + j;
        z += b[LOW].host[(size_t)i * p->rank + r] * b[UP].host[u];
    }
    return z;
}

// want: (n) of the output, of pre and of dgate, those that are written.
static void equations(const Problem *p, double *out, double *pre, double *dgate) {
    const size_t n = p->buf[OUT].n;
    for (size_t i = 0; i < n; i++) {
        const double z = sum_f64(p, (int)(i / p->s.columns), (int)(i % p->s.columns));
        const double other = p->buf[OTHER].host[i], before = p->buf[PRE].host[i];
        pre[i] = z;
        switch (p->kind) {
        case EPILOGUE_SCALE: out[i] = (double)0.7f * z; break;
        case EPILOGUE_RESIDUAL: out[i] = other + z; break;
        case EPILOGUE_ACT: out[i] = exact_act(p->act, z).value; break;
        case EPILOGUE_GATED: out[i] = exact_act(p->act, other).value * z; break;
        case EPILOGUE_ACT_BWD: out[i] = z * exact_act(p->act, before).slope; break;
        case EPILOGUE_GATED_BWD:
            dgate[i] = z * before * exact_act(p->act, other).slope;
            out[i] = z * exact_act(p->act, other).value;
            break;
        default: out[i] = z;
        }
    }
}

// ---- the checks ----
static bool is_cpu(void) { return device_kind(check_device()) == DEVICE_CPU; }

static void expect_like(const char *what, const Problem *p, Tensor which, const void *plain,
                        const double *f64) {
    Buf got = p->buf[which]; // its mirror is still what went in
    double *read = xcalloc(got.n, sizeof *read), *loop = xcalloc(got.n, sizeof *loop);
    got.host = read;
    buf_read(&got);
    for (size_t i = 0; i < got.n; i++) {
        loop[i] = dtype_load(p->t, plain, i);
    }
    expect_sum(what, read, f64, loop, got.n);
    if (is_cpu()) {
        EXPECT(memcmp(got.dev, plain, got.n * dtype_size(p->t)) == 0,
               "%s: bits differ from the plain loop", what);
    }
    free(read), free(loop);
}

static void *packed_new(const Problem *p, const void *weight, int depth) {
    const MatmulPack which = p->is_fwd ? MATMUL_PACK_FWD : MATMUL_PACK_BWD;
    const int N = p->is_fwd ? p->s.columns : depth, K = p->is_fwd ? depth : p->s.columns;
    void *packed = device_alloc(check_device(),
                                matmul_pack_bytes(check_device(), p->t, which, N, K), "packed");
    check_ops()->matmul_pack(check_device(), p->t, packed, weight, which, N, K);
    return packed;
}

// Runs p's op, on the CPU also with packed weights, from the same inputs, against both witnesses.
static void one_problem(Problem *p, int variant) {
    const size_t n = p->buf[OUT].n;
    const bool writes_pre = p->keeps_pre && !is_bwd_kind(p->kind) && p->kind >= EPILOGUE_ACT;
    double *f64[3];
    void *plain[TENSORS], *at[TENSORS];
    for (int i = 0; i < 3; i++) {
        f64[i] = xcalloc(n, sizeof(double));
    }
    for (int i = 0; i < TENSORS; i++) {
        const size_t bytes = p->buf[i].n * dtype_size(p->t);
        plain[i] = xmalloc(bytes + 1, 1);
        device_copy_out(check_device(), plain[i], p->buf[i].dev, bytes);
        at[i] = p->buf[i].dev;
    }
    equations(p, f64[0], f64[1], f64[2]);
    run(p, check_device(), matmul_fwd_naive, matmul_bwd_input_naive, plain, NULL, NULL);
    for (int packs = 0; packs <= is_cpu(); packs++) {
        void *packed = packs ? packed_new(p, at[WEIGHT], p->s.depth) : NULL;
        void *packed_up = packs && p->rank ? packed_new(p, at[UP], p->rank) : NULL;
        for (int i = 0; i < TENSORS; i++) {
            buf_write(&p->buf[i]);
        }
        run(p, check_device(), check_ops()->matmul_fwd, check_ops()->matmul_bwd_input, at, packed,
            packed_up);
        char what[64];
        snprintf(what, sizeof what, "out, variant %d%s", variant, packs ? ", packed" : "");
        expect_like(what, p, p->place, plain[p->place], f64[0]);
        if (writes_pre) {
            expect_like("pre", p, PRE, plain[PRE], f64[1]);
        }
        if (p->kind == EPILOGUE_GATED_BWD) {
            expect_like("dgate", p, DGATE, plain[DGATE], f64[2]);
        }
        device_release(check_device(), packed), device_release(check_device(), packed_up);
    }
    for (int i = 0; i < TENSORS; i++) {
        free(plain[i]);
    }
    free(f64[0]), free(f64[1]), free(f64[2]);
}

static void each_problem(bool is_fwd, void (*one)(Problem *p, int variant)) {
    for (int i = 0; i < SHAPES * EPILOGUE_COUNT * DT_COUNT; i++) {
        const Shape s = shapes[i / (EPILOGUE_COUNT * DT_COUNT)];
        const EpilogueKind kind = (EpilogueKind)(i / DT_COUNT % EPILOGUE_COUNT);
        const DType t = (DType)(i % DT_COUNT);
        const bool acts = kind == EPILOGUE_ACT || kind == EPILOGUE_GATED;
        if (kind == EPILOGUE_ROPE || (is_fwd ? is_bwd_kind(kind) : acts) ||
            !CASE("rows=%d columns=%d depth=%d %s t=%s", s.rows, s.columns, s.depth,
                  kind_names[kind], dtype_name(t))) {
            continue;
        }
        for (int variant = 0; variant < VARIANTS; variant++) {
            Problem p = problem_new(is_fwd, s, t, kind, variant);
            one(&p, variant);
            problem_free(&p);
        }
    }
}

TEST_DEVICE(matmul_epilogue_fwd) { each_problem(true, one_problem); }
TEST_DEVICE(matmul_epilogue_bwd) { each_problem(false, one_problem); }

// ---- two ops ----
// A plain product (its adapter is part of it) and then the op that the epilogue stands for.
static void one_pair(Problem *p, int variant) {
    (void)variant;
    const bool is_rounded_between =
        p->kind == EPILOGUE_RESIDUAL || p->kind == EPILOGUE_ACT || p->kind == EPILOGUE_GATED;
    if (!is_rounded_between && p->t != DT_F32) {
        return; // one rounding where two ops have two
    }
    if (!is_cpu()) {
        return; // a GPU's products with and without may be different kernels
    }
    Device *dev = check_device();
    const size_t n = p->buf[OUT].n;
    const float factor = 0.7f;
    p->place = OUT; // the two ops need the inputs that it may overwrite
    Buf z = buf_from(p->t, p->buf[OUT].host, n), dgate = buf_fill(p->t, n, NAN);
    void *at[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        at[i] = p->buf[i].dev;
    }
    run(p, dev, check_ops()->matmul_fwd, check_ops()->matmul_bwd_input, at, NULL, NULL);
    Problem none = *p;
    none.kind = EPILOGUE_NONE;
    at[OUT] = z.dev;
    run(&none, dev, check_ops()->matmul_fwd, check_ops()->matmul_bwd_input, at, NULL, NULL);
    const Ops *ops = check_ops();
    if (p->kind == EPILOGUE_SCALE) {
        buf_read(&z);
        for (size_t i = 0; i < n; i++) {
            z.host[i] = check_round(p->t, factor * z.host[i]);
        }
        buf_write(&z);
    } else if (p->kind == EPILOGUE_RESIDUAL) {
        ops->residual_fwd(dev, p->t, z.dev, at[OTHER], z.dev, n);
    } else if (p->kind == EPILOGUE_ACT) {
        ops->activation_fwd(dev, p->t, z.dev, z.dev, n, p->act);
    } else if (p->kind == EPILOGUE_GATED) {
        ops->gated_fwd(dev, p->t, z.dev, at[OTHER], z.dev, n, p->act);
    } else if (p->kind == EPILOGUE_ACT_BWD) {
        ops->activation_bwd(dev, p->t, z.dev, z.dev, at[PRE], n, p->act);
    } else if (p->kind == EPILOGUE_GATED_BWD) {
        ops->gated_bwd(dev, p->t, dgate.dev, z.dev, z.dev, at[OTHER], at[PRE], n, p->act);
        expect_exact("dgate", buf_read(&p->buf[DGATE]), buf_read(&dgate), n);
    }
    expect_exact("out", buf_read(&p->buf[OUT]), buf_read(&z), n);
    buf_free(&z), buf_free(&dgate);
}

TEST(matmul_epilogue_is_two_ops_fwd) { each_problem(true, one_pair); }
TEST(matmul_epilogue_is_two_ops_bwd) { each_problem(false, one_pair); }

// ---- threads ----
// Rows and columns divided among threads, blocks of 512 columns, pieces of 256: the plain bits.
TEST(matmul_epilogue_threads) {
    const Shape s = {700, 530, 33};
    for (int kind = 0; kind < EPILOGUE_ROPE; kind++) {
        for (int t = DT_F32; t <= DT_BF16; t++) {
            if (!CASE("%s t=%s", kind_names[kind], dtype_name((DType)t))) {
                continue;
            }
            if (!is_cpu()) {
                check_skip("threads are the CPU's");
                continue;
            }
            Problem p = problem_new(true, s, (DType)t, (EpilogueKind)kind, 0);
            const size_t bytes = p.buf[OUT].n * dtype_size((DType)t);
            void *plain[TENSORS], *at[TENSORS];
            for (int i = 0; i < TENSORS; i++) {
                plain[i] = xmalloc(p.buf[i].n * dtype_size((DType)t) + 1, 1);
                memcpy(plain[i], p.buf[i].dev, p.buf[i].n * dtype_size((DType)t));
                at[i] = p.buf[i].dev;
            }
            run(&p, check_device(), matmul_fwd_naive, NULL, plain, NULL, NULL);
            for (int threads = 1; threads <= 3; threads++) {
                Device *dev = device_new(DEVICE_CPU, 0, threads);
                for (int i = 0; i < TENSORS; i++) {
                    buf_write(&p.buf[i]);
                }
                run(&p, dev, device_ops(dev)->matmul_fwd, NULL, at, NULL, NULL);
                EXPECT(memcmp(at[p.place], plain[p.place], bytes) == 0, "%d threads", threads);
                device_free(dev);
            }
            for (int i = 0; i < TENSORS; i++) {
                free(plain[i]);
            }
            problem_free(&p);
        }
    }
}

// ---- what is refused ----
static float one[1] = {1};
static void refuse_fwd(MatmulEpilogue e) {
    check_ops()->matmul_fwd(check_device(), DT_F32, one, one, one, NULL, NULL, 1, 1, 1, false, &e);
}
static void act_bwd_in_a_forward(void) {
    refuse_fwd((MatmulEpilogue){.kind = EPILOGUE_ACT_BWD, .pre = one});
}
static void act_in_a_backward(void) {
    const MatmulEpilogue e = {.kind = EPILOGUE_ACT};
    check_ops()->matmul_bwd_input(check_device(), DT_F32, one, one, one, NULL, 1, 1, 1, false, &e);
}
static void no_residual(void) { refuse_fwd((MatmulEpilogue){.kind = EPILOGUE_RESIDUAL}); }
static void no_gate(void) { refuse_fwd((MatmulEpilogue){.kind = EPILOGUE_GATED}); }
static void no_up(void) { refuse_fwd((MatmulEpilogue){.low = one, .rank = 1}); }
static void unknown_act(void) {
    refuse_fwd((MatmulEpilogue){.kind = EPILOGUE_ACT, .act = ACT_COUNT});
}

TEST(matmul_epilogue_refused) {
    static const struct {
        const char *what;
        void (*run)(void);
    } cases[] = {{"a backward's epilogue in a forward", act_bwd_in_a_forward},
                 {"a forward's epilogue in a backward", act_in_a_backward},
                 {"no residual", no_residual},
                 {"no gate", no_gate},
                 {"an adapter without its second factor", no_up},
                 {"an unknown activation", unknown_act}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].what)) {
            expect_abort(cases[i].what, cases[i].run);
        }
    }
}
