// Rope: tables and rotations against the equations in double, the numbers the models publish, and
// the identities a rotation must keep.
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- the table ----
// Exponent x of theta^-x and the axis, written from the papers' vectors instead of by cases of j:
// the list of the row's (or section's) frequencies is laid out first, then looked up.
static double angle_of(int j, int D, RopeLayout layout, double theta, const int *sections,
                       const int32_t *positions, int N, int n) {
    double exponent[256];
    int axis[256], filled = 0;
    if (layout == ROPE_1D) {
        for (int i = 0; i < D; i += 2, filled++) {
            exponent[filled] = (double)i / D;
            axis[filled] = 0;
        }
    } else if (layout == ROPE_M) {
        for (int a = 0; a < 3; a++) {
            for (int i = 0; i < sections[a]; i++, filled++) {
                exponent[filled] = 2.0 * filled / D;
                axis[filled] = a;
            }
        }
    } else {
        for (int a = 0; a < 2; a++) {
            for (int i = 0; i < D / 4; i++, filled++) {
                exponent[filled] = layout == ROPE_2D_HALVES ? 2.0 * i / (D / 2)
                                                            : 2.0 * (2 * i + a) / D; // even, odd
                axis[filled] = a;
            }
        }
    }
    return positions[axis[j] * N + n] * exp(-exponent[j] * log(theta));
}

// values (N): positions. Equal rows of positions make M-RoPE the plain one, whatever the sections.
static void expect_m_is_1d(const int32_t *values, int N) {
    const int sections[3] = {3, 8, 5}, D = 32;
    int32_t same[3 * 7];
    CHECK(N <= 7, "N=%d", N);
    for (int i = 0; i < 3 * N; i++) {
        same[i] = values[i % N];
    }
    IntBuf equal = ibuf_from(same, 3 * (size_t)N);
    Buf table[4];
    for (int i = 0; i < 4; i++) {
        table[i] = buf_fill(DT_F32, (size_t)(N * D / 2), NAN);
    }
    check_ops()->rope_table(check_device(), buf_f32(&table[0]), buf_f32(&table[1]), equal.dev,
                            N, D, ROPE_M, 1e6, sections);
    check_ops()->rope_table(check_device(), buf_f32(&table[2]), buf_f32(&table[3]), equal.dev,
                            N, D, ROPE_1D, 1e6, NULL);
    for (int i = 0; i < 4; i++) {
        buf_read(&table[i]);
    }
    expect_exact("cosine", table[0].host, table[2].host, table[0].n);
    expect_exact("sine", table[1].host, table[3].host, table[1].n);
    EXPECT(isfinite(table[0].host[0]), "cosine[0] = %g", table[0].host[0]);
    for (int i = 0; i < 4; i++) {
        buf_free(&table[i]);
    }
    ibuf_free(&equal);
}

TEST_OP(rope_table) {
    const struct {
        RopeLayout layout;
        int D;
        double theta;
        int sections[3];
        double second; // frequency of pair 1, as published; 0 where there is none
    } rows[] = {
        {ROPE_2D_HALVES, 64, 1e4, {0}, 0.56234133},    // jina vision
        {ROPE_2D_HALVES, 80, 1e4, {0}, 0.63095734},    // Qwen2-VL vision
        {ROPE_2D_ALTERNATE, 64, 1e4, {0}, 0.56234133}, // Pixtral: f_2 = f_1^2 = 0.74989421^2
        {ROPE_M, 128, 1e6, {16, 24, 24}, 0.80584219},  // Qwen2-VL language
        {ROPE_1D, 128, 1e9, {0}, 0.72339415},          // Mistral
        {ROPE_1D, 2, 1e4, {0}, 0},
        {ROPE_2D_HALVES, 4, 1e4, {0}, 0},
        {ROPE_2D_ALTERNATE, 4, 1e4, {0}, 0},
        {ROPE_M, 6, 1e4, {1, 0, 2}, 0},
        {ROPE_1D, 10, 500, {0}, 0},
    };
    const int N = 7;
    int32_t values[3 * 7];
    Rng rng = check_rng(0);
    for (int i = 0; i < 3 * N; i++) {
        values[i] = i % N == 0 ? 0 : i % N == 1 ? 1 : (int32_t)rng_below(&rng, 32000);
    }
    IntBuf positions = ibuf_from(values, 3 * (size_t)N);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int D = rows[r].D, pairs = D / 2;
        if (!CASE("layout=%d D=%d theta=%g", (int)rows[r].layout, D, rows[r].theta)) {
            continue;
        }
        Buf cosine = buf_fill(DT_F32, (size_t)(N * pairs), NAN);
        Buf sine = buf_fill(DT_F32, (size_t)(N * pairs), NAN);
        check_ops()->rope_table(check_device(), buf_f32(&cosine), buf_f32(&sine), positions.dev, N,
                                D, rows[r].layout, rows[r].theta,
                                rows[r].layout == ROPE_M ? rows[r].sections : NULL);
        buf_read(&cosine);
        buf_read(&sine);
        for (int i = 0; i < N * pairs; i++) {
            // The angle itself is known to 1e-16 of its size, up to 32000: 4e-12 in the cosine.
            const double angle = angle_of(i % pairs, D, rows[r].layout, rows[r].theta,
                                          rows[r].sections, values, N, i / pairs);
            const double c = cos(angle), s = sin(angle), slack = 4e-12 + 0x1p-24;
            EXPECT(fabs(cosine.host[i] - c) <= slack && fabs(sine.host[i] - s) <= slack,
                   "row %d pair %d: (%.9g, %.9g), want (%.9g, %.9g)", i / pairs, i % pairs,
                   cosine.host[i], sine.host[i], c, s);
        }
        if (rows[r].second > 0) { // position 1 stands in row 1: its angle is the frequency
            const double frequency = atan2(sine.host[pairs + 1], cosine.host[pairs + 1]);
            EXPECT(fabs(frequency - rows[r].second) <= 1e-7, "frequency 1 is %.9g, published %.9g",
                   frequency, rows[r].second);
        }
        buf_free(&cosine);
        buf_free(&sine);
    }
    if (CASE("M with equal positions is 1-D")) {
        expect_m_is_1d(values, N);
    }
    ibuf_free(&positions);
}

// ---- the rotation ----
typedef struct {
    int N, H, D, gap;
    RopePairing pairing;
    DType t;
} Shape;

static const Shape shapes[] = {
    {1, 1, 2, 0, ROPE_INTERLEAVED, DT_F32},    {1, 1, 2, 0, ROPE_HALF, DT_F32},
    {5, 3, 6, 1, ROPE_INTERLEAVED, DT_F32},    {5, 3, 6, 1, ROPE_HALF, DT_F32},
    {3, 2, 256, 0, ROPE_INTERLEAVED, DT_F32},  {3, 2, 256, 0, ROPE_HALF, DT_F32},
    {9, 12, 64, 2, ROPE_INTERLEAVED, DT_BF16}, {9, 4, 80, 2, ROPE_HALF, DT_BF16},
    {50, 12, 64, 0, ROPE_HALF, DT_F32},        {300, 12, 64, 64, ROPE_INTERLEAVED, DT_F32},
    {9, 4, 80, 2, ROPE_INTERLEAVED, DT_F16},   {9, 12, 64, 2, ROPE_HALF, DT_F16},
    // rows that begin at multiples of 16 bytes
    {9, 3, 64, 8, ROPE_INTERLEAVED, DT_BF16},  {9, 5, 64, 8, ROPE_HALF, DT_BF16},
    {5, 3, 80, 0, ROPE_INTERLEAVED, DT_F16},   {5, 2, 80, 0, ROPE_HALF, DT_F16},
};

typedef struct {
    Shape s;
    int stride;
    Buf cosine, sine, x;
} Problem;

// Row 0 of the table is position 0.
static Problem problem_new(Shape s) {
    Problem p = {.s = s, .stride = s.H * s.D + s.gap};
    Rng rng = check_rng(1);
    p.cosine = buf_fill(DT_F32, (size_t)(s.N * s.D / 2), 1);
    p.sine = buf_fill(DT_F32, (size_t)(s.N * s.D / 2), 0);
    for (int i = s.D / 2; i < s.N * s.D / 2; i++) {
        const double angle = 100 * rng_uniform(&rng);
        p.cosine.host[i] = cos(angle);
        p.sine.host[i] = sin(angle);
    }
    buf_write(&p.cosine);
    buf_write(&p.sine);
    p.x = buf_normal(s.t, (size_t)(s.N * p.stride), 1, &rng);
    return p;
}

static void problem_free(Problem *p) {
    buf_free(&p->cosine);
    buf_free(&p->sine);
    buf_free(&p->x);
}

static void rotate(Problem *p, rope_fwd_fn *op) {
    op(check_device(), p->s.t, p->x.dev, buf_f32(&p->cosine), buf_f32(&p->sine), p->s.N, p->s.H,
       p->s.D, p->stride, p->s.pairing);
    buf_read(&p->x);
}

// x rotated by direction * angle, in double or as the plain f32 loop; gaps stay.
static double *rotated(const Problem *p, const double *x, int direction, bool is_f32) {
    const Shape s = p->s;
    double *out = xmalloc(p->x.n, sizeof *out);
    memcpy(out, x, p->x.n * sizeof *out);
    for (int n = 0; n < s.N; n++) {
        for (int h = 0; h < s.H; h++) {
            for (int j = 0; j < s.D / 2; j++) {
                const int base = n * p->stride + h * s.D;
                const int a = base + (s.pairing == ROPE_HALF ? j : 2 * j);
                const int b = s.pairing == ROPE_HALF ? a + s.D / 2 : a + 1;
                const double c = p->cosine.host[n * s.D / 2 + j];
                const double sn = direction * p->sine.host[n * s.D / 2 + j];
                out[a] =
                    is_f32 ? (float)((float)(x[a] * c) - (float)(x[b] * sn)) : x[a] * c - x[b] * sn;
                out[b] =
                    is_f32 ? (float)((float)(x[b] * c) + (float)(x[a] * sn)) : x[b] * c + x[a] * sn;
            }
        }
    }
    for (size_t i = 0; is_f32 && i < p->x.n; i++) {
        float cell;
        dtype_store(s.t, &cell, 0, (float)out[i]);
        out[i] = dtype_load(s.t, &cell, 0);
    }
    return out;
}

static void expect_rotation(rope_fwd_fn *op, int direction) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const Shape s = shapes[i];
        if (!CASE("N=%d H=%d D=%d gap=%d %s t=%s", s.N, s.H, s.D, s.gap,
                  s.pairing == ROPE_HALF ? "half" : "interleaved", dtype_name(s.t))) {
            continue;
        }
        Problem p = problem_new(s);
        double *f64 = rotated(&p, p.x.host, direction, false);
        double *plain = rotated(&p, p.x.host, direction, true);
        double norm = 0, before = 0;
        for (size_t e = 0; e < p.x.n; e++) {
            before += p.x.host[e] * p.x.host[e];
        }
        rotate(&p, op);
        expect_sum("x", p.x.host, f64, plain, p.x.n);
        for (size_t e = 0; e < p.x.n; e++) {
            norm += p.x.host[e] * p.x.host[e];
        }
        const double unit = s.t == DT_F32 ? 0x1p-23 : 0x1p-8; // roundings of x and of the table
        EXPECT(fabs(norm - before) <= 4 * unit * before, "norm^2 %.9g became %.9g", before, norm);
        free(f64);
        free(plain);
        problem_free(&p);
    }
}

// Rows as raw bytes, so that -0 and NaN count too.
static void expect_identity(rope_fwd_fn *op) {
    for (int k = 0; k < 8; k++) {
        const int t = k % 2, D = k & 2 ? 16 : 4;
        const RopePairing pairing = k & 4 ? ROPE_INTERLEAVED : ROPE_HALF;
        if (!CASE("position 0 leaves every bit, D=%d %s t=%s", D,
                  pairing == ROPE_HALF ? "half" : "interleaved", dtype_name((DType)t))) {
            continue;
        }
        Problem p = problem_new((Shape){2, 2, D, 0, pairing, (DType)t});
        const double odd[] = {-0.0, INFINITY, NAN, -1, 1e-40, -0.0, -INFINITY, 3};
        memcpy(p.x.host, odd, sizeof odd);
        buf_write(&p.x);
        uint8_t before[32], after[32];
        const size_t bytes = 8 * dtype_size((DType)t);
        device_copy_out(check_device(), before, p.x.dev, bytes);
        const double moved = p.x.host[p.stride];
        rotate(&p, op);
        device_copy_out(check_device(), after, p.x.dev, bytes);
        EXPECT(memcmp(before, after, bytes) == 0, "row 0 changed");
        EXPECT(p.x.host[p.stride] != moved, "row 1 did not change");
        problem_free(&p);
    }
}

// Pairs at angle 0 in a row that turns: -0 and infinities stay what they are.
static void expect_still_pairs(rope_fwd_fn *op, int direction) {
    for (int t = 0; t < DT_COUNT; t++) {
        if (!CASE("pairs at angle 0 stay, t=%s", dtype_name((DType)t))) {
            continue;
        }
        const double values[] = {-0.0, INFINITY, -1, -0.0, 1, 2, -0.0, -3};
        Problem p = problem_new((Shape){1, 1, 8, 0, ROPE_INTERLEAVED, (DType)t});
        p.cosine.host[2] = 0, p.sine.host[2] = 1;
        memcpy(p.x.host, values, sizeof values);
        buf_write(&p.cosine), buf_write(&p.sine), buf_write(&p.x);
        rotate(&p, op);
        for (int i = 0; i < 8; i++) {
            const double want = i == 4   ? -direction * values[5]
                                : i == 5 ? direction * values[4]
                                         : values[i];
            EXPECT(p.x.host[i] == want && signbit(p.x.host[i]) == signbit(want),
                   "[%d] is %g, want %g", i, p.x.host[i], want);
        }
        problem_free(&p);
    }
}

TEST_OP(rope_fwd) {
    expect_rotation(check_ops()->rope_fwd, 1);
    expect_identity(check_ops()->rope_fwd);
    expect_still_pairs(check_ops()->rope_fwd, 1);
    if (CASE("threads change nothing")) {
        const Shape s = {300, 12, 64, 3, ROPE_HALF, DT_F32};
        Problem a = problem_new(s), b = problem_new(s);
        Device *many = device_new(device_kind(check_device()), 0, 3);
        rotate(&a, check_ops()->rope_fwd);
        check_ops()->rope_fwd(many, s.t, b.x.dev, buf_f32(&b.cosine), buf_f32(&b.sine), s.N, s.H,
                              s.D, b.stride, s.pairing);
        expect_exact("x", a.x.host, buf_read(&b.x), a.x.n);
        device_free(many);
        problem_free(&a);
        problem_free(&b);
    }
}

TEST_OP(rope_bwd) {
    expect_rotation(check_ops()->rope_bwd, -1);
    expect_identity(check_ops()->rope_bwd);
    expect_still_pairs(check_ops()->rope_bwd, -1);
}
