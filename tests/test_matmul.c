// test_matmul: the linear layer, its gradients and the packing of weights.
//
// Three witnesses per product: a loop in double written here, the plain f32 loop of matmul.h, and
// the op. Against the first the class is sum; against the second the CPU must be equal bit for bit,
// which is what makes results independent of blocking, packing, threads and the place of a row in
// its batch.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "kernels/matmul_kernel.h"
#include "tests/check.h"

typedef struct {
    int M, N, K;
} Shape;
// Size 1, odd sizes, and each side of the tiles: 6 and 14 rows, 16 and 32 columns, 240 rows, 256
// deep. The last ones: tiles of 128 and 32 with whole 16-byte chunks, for the GPU's tensor cores;
// and rows enough to divide the sum of a gradient, 512 for each part, and 256 of the bias.
static const Shape shapes[] = {
    {1, 1, 1},    {1, 17, 3},   {2, 5, 7},     {5, 15, 16},   {6, 16, 15},   {7, 17, 17},
    {13, 31, 9},  {14, 32, 32}, {15, 33, 31},  {16, 64, 64},  {37, 48, 33},  {1, 40, 300},
    {2, 31, 255}, {7, 9, 256},  {16, 18, 257}, {37, 50, 513}, {197, 49, 65}, {239, 15, 5},
    {240, 16, 4}, {241, 17, 6}, {255, 7, 8},   {256, 8, 9},   {257, 9, 7},   {3, 257, 12},
    {4, 256, 11}, {5, 512, 3},  {2, 1025, 2},  {129, 40, 72}, {9, 136, 264}, {130, 144, 136},
    {1700, 8, 24},
};
#define FOR_SHAPES(s, t)                                                                           \
    for (size_t i_ = 0; i_ < sizeof shapes / sizeof *shapes; i_++)                                 \
        for (int t_ = 0; t_ < DT_COUNT; t_++)                                                      \
            for (Shape s = shapes[i_], *once_ = &s; once_; once_ = NULL)                           \
                for (DType t = (DType)t_, *again_ = &t; again_; again_ = NULL)                     \
                    if (CASE("M=%d N=%d K=%d t=%s", s.M, s.N, s.K, dtype_name(t)))

static bool is_cpu(void) { return device_kind(check_device()) == DEVICE_CPU; }

// ---- the equations in double; x(rows, depth) y(columns, depth), each given by two strides ----
typedef struct {
    const double *at;
    size_t outer, inner; // strides of the kept and of the summed index
} View;
static double *product_new(const double *start, View x, View y, int rows, int columns, int depth) {
    double *out = malloc((size_t)rows * columns * sizeof(double));
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) {
            double sum = start ? start[(size_t)i * columns + j] : 0;
            for (int l = 0; l < depth; l++) {
                sum += x.at[i * x.outer + l * x.inner] * y.at[j * y.outer + l * y.inner];
            }
            out[(size_t)i * columns + j] = sum;
        }
    }
    return out;
}

static double *copy_new(const double *x, size_t n) {
    double *copy = malloc(n * sizeof(double));
    memcpy(copy, x, n * sizeof(double));
    return copy;
}

// A weight packed on the device, between guard bands; dev is NULL where the backend does not pack.
static Buf packed_new(Device *dev, DType t, const Buf *weight, MatmulPack which, int N, int K) {
    const size_t bytes = matmul_pack_bytes(dev, t, which, N, K);
    if (bytes == 0) {
        return (Buf){0};
    }
    Buf packed = buf_fill(DT_F32, (bytes + 3) / 4, NAN);
    device_ops(dev)->matmul_pack(dev, t, packed.dev, weight->dev, which, N, K);
    buf_read(&packed);
    return packed;
}

static void packed_free(Buf *packed) {
    if (packed->dev) {
        buf_free(packed);
    }
}

// Class sum against double for every backend, and equality with the plain loop on the CPU.
static void expect_product(const char *what, Buf *got, const double *f64, Buf *plain) {
    buf_read(got);
    buf_read(plain);
    expect_sum(what, got->host, f64, plain->host, got->n);
    if (is_cpu()) {
        EXPECT(memcmp(got->dev, plain->dev, got->n * dtype_size(got->t)) == 0,
               "%s: bits differ from the plain loop", what);
    }
}

// ---- forward ----
typedef enum { START_ZERO, START_BIAS, START_OUT, START_COUNT } Start;
static const char *const start_names[START_COUNT] = {"zero", "bias", "accumulated"};

// The plain loop works on host memory: elsewhere its operands are copied there.
static void *host_new(const Buf *buf) {
    void *host = malloc(buf->n * dtype_size(buf->t) + 1);
    device_copy_out(check_device(), host, buf->dev, buf->n * dtype_size(buf->t));
    return host;
}

static void plain_fwd(Buf *out, const Buf *inp, const Buf *weight, const Buf *bias, Shape s,
                      bool is_accumulated) {
    void *x = host_new(inp), *w = host_new(weight), *b = bias ? host_new(bias) : NULL;
    void *y = host_new(out);
    matmul_fwd_naive(check_device(), out->t, y, x, w, NULL, b, s.M, s.N, s.K, is_accumulated, NULL);
    device_copy_in(check_device(), out->dev, y, out->n * dtype_size(out->t));
    free(x), free(w), free(b), free(y);
}

static void one_fwd(Shape s, DType t, Start start, Buf *inp, Buf *weight, Buf *bias,
                    const Buf *packed, const double *before) {
    const size_t n = (size_t)s.M * s.N;
    double *first = calloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) {
        first[i] = start == START_OUT ? before[i] : start == START_BIAS ? bias->host[i % s.N] : 0;
    }
    const View x = {inp->host, s.K, 1}, w = {weight->host, s.K, 1};
    const bool is_accumulated = start == START_OUT;
    const void *b = start == START_BIAS ? bias->dev : NULL;
    Buf got = is_accumulated ? buf_from(t, before, n) : buf_fill(t, n, NAN);
    Buf plain = is_accumulated ? buf_from(t, before, n) : buf_fill(t, n, NAN);
    // Accumulation runs twice: an assignment in its place would be seen.
    for (int run = 0; run < (is_accumulated ? 2 : 1); run++) {
        double *f64 = product_new(run ? plain.host : first, x, w, s.M, s.N, s.K);
        check_ops()->matmul_fwd(check_device(), t, got.dev, inp->dev, weight->dev, packed->dev, b,
                                s.M, s.N, s.K, is_accumulated, NULL);
        plain_fwd(&plain, inp, weight, b ? bias : NULL, s, is_accumulated);
        char what[64];
        snprintf(what, sizeof what, "%s%s, run %d", start_names[start],
                 packed->dev ? ", packed" : "", run);
        expect_product(what, &got, f64, &plain);
        free(f64);
    }
    free(first);
    buf_free(&got), buf_free(&plain);
}

static void accumulate_with_bias(void) {
    float out[1] = {0}, one[1] = {1};
    check_ops()->matmul_fwd(check_device(), DT_F32, out, one, one, NULL, one, 1, 1, 1, true, NULL);
}

TEST_OP(matmul_fwd) {
    FOR_SHAPES(s, t) {
        Rng rng = check_rng(0);
        Buf inp = buf_normal(t, (size_t)s.M * s.K, 1, &rng);
        Buf weight = buf_normal(t, (size_t)s.N * s.K, 1, &rng);
        Buf bias = buf_normal(t, s.N, 1, &rng), out = buf_normal(t, (size_t)s.M * s.N, 1, &rng);
        Buf packed = packed_new(check_device(), t, &weight, MATMUL_PACK_FWD, s.N, s.K), none = {0};
        for (int start = 0; start < START_COUNT; start++) {
            one_fwd(s, t, (Start)start, &inp, &weight, &bias, &none, out.host);
            if (packed.dev) {
                one_fwd(s, t, (Start)start, &inp, &weight, &bias, &packed, out.host);
            }
        }
        buf_free(&inp), buf_free(&weight), buf_free(&bias), buf_free(&out), packed_free(&packed);
    }
    if (CASE("accumulated with a bias is refused")) {
        expect_abort("matmul_fwd with a bias and is_accumulated", accumulate_with_bias);
    }
}

// ---- gradients ----
static void one_bwd_input(Shape s, DType t, bool is_accumulated, Buf *dout, Buf *weight,
                          const Buf *packed, const double *before) {
    const size_t n = (size_t)s.M * s.K;
    const View dy = {dout->host, s.N, 1}, w = {weight->host, 1, s.K};
    Buf got = is_accumulated ? buf_from(t, before, n) : buf_fill(t, n, NAN);
    Buf plain = is_accumulated ? buf_from(t, before, n) : buf_fill(t, n, NAN);
    for (int run = 0; run < (is_accumulated ? 2 : 1); run++) {
        double *f64 = product_new(is_accumulated ? plain.host : NULL, dy, w, s.M, s.K, s.N);
        check_ops()->matmul_bwd_input(check_device(), t, got.dev, dout->dev, weight->dev,
                                      packed->dev, s.M, s.N, s.K, is_accumulated, NULL);
        void *hy = host_new(dout), *hw = host_new(weight), *hx = host_new(&plain);
        matmul_bwd_input_naive(check_device(), t, hx, hy, hw, NULL, s.M, s.N, s.K, is_accumulated,
                               NULL);
        device_copy_in(check_device(), plain.dev, hx, n * dtype_size(t));
        char what[64];
        snprintf(what, sizeof what, "dinp%s%s, run %d", is_accumulated ? ", accumulated" : "",
                 packed->dev ? ", packed" : "", run);
        expect_product(what, &got, f64, &plain);
        free(f64), free(hy), free(hw), free(hx);
    }
    buf_free(&got), buf_free(&plain);
}

TEST_OP(matmul_bwd_input) {
    FOR_SHAPES(s, t) {
        Rng rng = check_rng(0);
        Buf dout = buf_normal(t, (size_t)s.M * s.N, 1, &rng);
        Buf weight = buf_normal(t, (size_t)s.N * s.K, 1, &rng);
        Buf dinp = buf_normal(t, (size_t)s.M * s.K, 1, &rng);
        Buf packed = packed_new(check_device(), t, &weight, MATMUL_PACK_BWD, s.N, s.K), none = {0};
        for (int mode = 0; mode < 4; mode++) {
            const Buf *which = mode & 2 ? &packed : &none;
            one_bwd_input(s, t, mode & 1, &dout, &weight, which, dinp.host);
        }
        buf_free(&dout), buf_free(&weight), buf_free(&dinp), packed_free(&packed);
    }
}

TEST_OP(matmul_bwd_weight) {
    FOR_SHAPES(s, t) {
        Rng rng = check_rng(0);
        Buf dout = buf_normal(t, (size_t)s.M * s.N, 1, &rng);
        Buf inp = buf_normal(t, (size_t)s.M * s.K, 1, &rng);
        Buf dweight = buf_normal(DT_F32, (size_t)s.N * s.K, 1, &rng),
            plain_dw = buf_from(DT_F32, dweight.host, dweight.n);
        Buf dbias = buf_normal(DT_F32, s.N, 1, &rng),
            plain_db = buf_from(DT_F32, dbias.host, dbias.n);
        const double one = 1;
        const View dy = {dout.host, 1, s.N}, x = {inp.host, 1, s.K}, ones = {&one, 0, 0};
        void *hy = host_new(&dout), *hx = host_new(&inp);
        float *dw = host_new(&plain_dw), *db = host_new(&plain_db);
        for (int run = 0; run < 2; run++) { // twice: gradients accumulate
            double *w64 = product_new(plain_dw.host, dy, x, s.N, s.K, s.M);
            double *b64 = product_new(plain_db.host, dy, ones, s.N, 1, s.M);
            check_ops()->matmul_bwd_weight(check_device(), t, buf_f32(&dweight), buf_f32(&dbias),
                                           dout.dev, inp.dev, s.M, s.N, s.K);
            matmul_bwd_weight_naive(check_device(), t, dw, db, hy, hx, s.M, s.N, s.K);
            device_copy_in(check_device(), plain_dw.dev, dw, plain_dw.n * sizeof(float));
            device_copy_in(check_device(), plain_db.dev, db, plain_db.n * sizeof(float));
            expect_product("dweight", &dweight, w64, &plain_dw);
            expect_product("dbias", &dbias, b64, &plain_db);
            free(w64), free(b64);
        }
        // Either gradient alone, from where the two stand now.
        check_ops()->matmul_bwd_weight(check_device(), t, buf_f32(&dweight), NULL, dout.dev,
                                       inp.dev, s.M, s.N, s.K);
        double *same = copy_new(dbias.host, dbias.n);
        expect_exact("dbias untouched", buf_read(&dbias), same, dbias.n);
        check_ops()->matmul_bwd_weight(check_device(), t, NULL, buf_f32(&dbias), dout.dev, inp.dev,
                                       s.M, s.N, s.K);
        matmul_bwd_weight_naive(check_device(), t, dw, db, hy, hx, s.M, s.N, s.K);
        double *w64 = product_new(plain_dw.host, dy, x, s.N, s.K, s.M);
        double *b64 = product_new(plain_db.host, dy, ones, s.N, 1, s.M);
        device_copy_in(check_device(), plain_dw.dev, dw, plain_dw.n * sizeof(float));
        device_copy_in(check_device(), plain_db.dev, db, plain_db.n * sizeof(float));
        expect_product("dweight alone", &dweight, w64, &plain_dw);
        expect_product("dbias alone", &dbias, b64, &plain_db);
        free(w64), free(b64), free(same), free(hy), free(hx), free(dw), free(db);
        buf_free(&dout), buf_free(&inp), buf_free(&dweight), buf_free(&dbias);
        buf_free(&plain_dw), buf_free(&plain_db);
    }
}

// The double loops above are themselves checked: the gradients against central differences.
typedef struct {
    const double *inp, *weight, *dout;
    Shape s;
} Linear;
static double linear_loss(void *ctx) {
    const Linear *l = ctx;
    const Shape s = l->s;
    double *out =
        product_new(NULL, (View){l->inp, s.K, 1}, (View){l->weight, s.K, 1}, s.M, s.N, s.K);
    double loss = 0;
    for (size_t i = 0; i < (size_t)s.M * s.N; i++) {
        loss += l->dout[i] * out[i];
    }
    free(out);
    return loss;
}

TEST(matmul_gradient) {
    const Shape s = {5, 7, 6};
    Rng rng = check_rng(0);
    Buf inp = buf_normal(DT_F32, (size_t)s.M * s.K, 1, &rng);
    Buf weight = buf_normal(DT_F32, (size_t)s.N * s.K, 1, &rng);
    Buf dout = buf_normal(DT_F32, (size_t)s.M * s.N, 1, &rng);
    Linear linear = {inp.host, weight.host, dout.host, s};
    double *dinp =
        product_new(NULL, (View){dout.host, s.N, 1}, (View){weight.host, 1, s.K}, s.M, s.K, s.N);
    double *dweight =
        product_new(NULL, (View){dout.host, 1, s.N}, (View){inp.host, 1, s.K}, s.N, s.K, s.M);
    expect_gradient("dinp", dinp, inp.host, inp.n, linear_loss, &linear, 100);
    expect_gradient("dweight", dweight, weight.host, weight.n, linear_loss, &linear, 100);
    free(dinp), free(dweight);
    buf_free(&inp), buf_free(&weight), buf_free(&dout);
}

// ---- packing ----
// The product of the identity with a packed weight gives the weight back. The weight itself is not
// passed: where there is a packed form it is not read.
TEST_OP(matmul_pack) {
    if (!is_cpu()) {
        for (int t = 0; t < DT_COUNT; t++) {
            if (CASE("a GPU does not pack t=%s", dtype_name((DType)t))) {
                for (int which = MATMUL_PACK_FWD; which <= MATMUL_PACK_BWD; which++) {
                    const size_t bytes =
                        matmul_pack_bytes(check_device(), (DType)t, (MatmulPack)which, 64, 64);
                    EXPECT(bytes == 0, "%zu bytes", bytes);
                }
            }
        }
        return;
    }
    FOR_SHAPES(s, t) {
        Rng rng = check_rng(0);
        Buf weight = buf_normal(t, (size_t)s.N * s.K, 1, &rng);
        for (int which = MATMUL_PACK_FWD; which <= MATMUL_PACK_BWD; which++) {
            Buf packed = packed_new(check_device(), t, &weight, (MatmulPack)which, s.N, s.K);
            if (!packed.dev) {
                check_skip("this backend does not pack");
                continue;
            }
            const bool is_fwd = which == MATMUL_PACK_FWD;
            const int side = is_fwd ? s.K : s.N, n = s.N * s.K;
            double *unit = calloc((size_t)side * side, sizeof(double)),
                   *want = malloc(n * sizeof(double));
            for (int i = 0; i < side; i++) {
                unit[(size_t)i * side + i] = 1;
            }
            for (int i = 0; i < n; i++) {
                want[is_fwd ? i % s.K * s.N + i / s.K : i] = weight.host[i];
            }
            Buf inp = buf_from(t, unit, (size_t)side * side), out = buf_fill(t, n, NAN);
            if (is_fwd) {
                check_ops()->matmul_fwd(check_device(), t, out.dev, inp.dev, NULL, packed.dev, NULL,
                                        s.K, s.N, s.K, false, NULL);
            } else {
                check_ops()->matmul_bwd_input(check_device(), t, out.dev, inp.dev, NULL, packed.dev,
                                              s.N, s.N, s.K, false, NULL);
            }
            expect_exact(is_fwd ? "fwd" : "bwd", buf_read(&out), want, n);
            free(unit), free(want);
            buf_free(&inp), buf_free(&out), packed_free(&packed);
        }
        buf_free(&weight);
    }
}

// ---- tile kernels ----
// Every kernel this CPU can run, not only the one it prefers, against the chain of its contract;
// both ways A can lie; all heights; what lies around the tile stays.
static void one_tile(const MatmulKernel *kernel, int rows, int depth, bool is_across,
                     bool is_start_c, const float *a, const float *b, const float *first) {
    enum { C_ROW = MATMUL_MAX_COLUMNS + 5, SIZE = MATMUL_MAX_ROWS * C_ROW };
    float got[SIZE], want[SIZE];
    const size_t a_row = is_across ? 1 : 70, a_inner = is_across ? 19 : 1;
    for (int i = 0; i < SIZE; i++) {
        got[i] = want[i] = first[i % 100];
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < kernel->columns; j++) {
            float sum = is_start_c ? want[i * C_ROW + j] : first[j];
            for (int l = 0; l < depth; l++) {
                sum = fmaf(a[i * a_row + l * a_inner], b[l * 40 + j], sum);
            }
            want[i * C_ROW + j] = sum;
        }
    }
    kernel->tile(rows, depth, a, a_row, a_inner, b, 40, is_start_c ? got : first,
                 is_start_c ? C_ROW : 0, got, C_ROW);
    EXPECT(memcmp(got, want, sizeof got) == 0, "depth=%d is_across=%d is_start_c=%d", depth,
           is_across, is_start_c);
}

TEST(matmul_kernels) {
    static const int depths[] = {1, 2, 7, 8, 9, 64};
    static float a[64 * 70], b[64 * 40], out[64 * 40];
    Rng rng = check_rng(0);
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        a[i] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) {
        b[i] = (float)rng_normal(&rng);
    }
    for (const MatmulKernel *const *kernel = matmul_kernels(); *kernel; kernel++) {
        const int height = (*kernel)->rows, width = (*kernel)->columns;
        for (int rows = 1; rows <= height; rows++) {
            if (CASE("%s rows=%d", (*kernel)->name, rows)) {
                for (int mode = 0; mode < 4 * 6; mode++) {
                    one_tile(*kernel, rows, depths[mode / 4], mode & 1, mode & 2, a, b, a + 100);
                }
            }
        }
        if (CASE("%s panel and slab", (*kernel)->name)) {
            for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
                const int depth = depths[d];
                (*kernel)->panel(out, a, 70, depth);
                for (int i = 0; i < depth * width; i++) {
                    EXPECT(out[i] == a[i % width * 70 + i / width], "panel, depth=%d [%d]", depth,
                           i);
                }
                (*kernel)->slab(out, b, 40, depth);
                for (int i = 0; i < depth * height; i++) {
                    EXPECT(out[i] == b[i / height * 40 + i % height], "slab, depth=%d [%d]", depth,
                           i);
                }
            }
        }
    }
}

// ---- what bit-equality is for ----
// Row m has the same bits wherever it stands, and alone.
TEST(matmul_rows_do_not_matter) {
    static const int batches[] = {1, 2, 7, 16, 37, 197};
    const int N = 50, K = 300, most = 197;
    Rng rng = check_rng(0);
    Buf inp = buf_normal(DT_F32, (size_t)most * K, 1, &rng);
    Buf weight = buf_normal(DT_F32, (size_t)N * K, 1, &rng);
    Buf whole = buf_fill(DT_F32, (size_t)most * N, NAN);
    check_ops()->matmul_fwd(check_device(), DT_F32, whole.dev, inp.dev, weight.dev, NULL, NULL,
                            most, N, K, false, NULL);
    buf_read(&whole);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        const int M = batches[i], turn = M / 3 + 1;
        if (!CASE("M=%d rotated by %d", M, turn)) {
            continue;
        }
        double *rows = malloc((size_t)M * K * sizeof(double)),
               *want = malloc((size_t)M * N * sizeof(double));
        for (int m = 0; m < M; m++) {
            const int from = (m + turn) % most;
            memcpy(rows + (size_t)m * K, inp.host + (size_t)from * K, K * sizeof(double));
            memcpy(want + (size_t)m * N, whole.host + (size_t)from * N, N * sizeof(double));
        }
        Buf turned = buf_from(DT_F32, rows, (size_t)M * K),
            out = buf_fill(DT_F32, (size_t)M * N, NAN);
        check_ops()->matmul_fwd(check_device(), DT_F32, out.dev, turned.dev, weight.dev, NULL, NULL,
                                M, N, K, false, NULL);
        expect_exact("rows", buf_read(&out), want, out.n);
        free(rows), free(want), buf_free(&turned), buf_free(&out);
    }
    buf_free(&inp), buf_free(&weight), buf_free(&whole);
}

// One batch of gradients, or two micro-batches one after the other.
TEST(matmul_micro_batches) {
    const int N = 33, K = 50;
    for (int t = 0; t < DT_COUNT; t++) {
        for (int M = 2; M < 700; M = M * 3 + 1) {
            if (!CASE("M=%d t=%s", M, dtype_name((DType)t))) {
                continue;
            }
            if (!is_cpu()) {
                check_skip("a GPU adds in orders of its own");
                continue;
            }
            const int M1 = M / 3 + 1;
            const size_t size = dtype_size((DType)t);
            Rng rng = check_rng(0);
            Buf dout = buf_normal((DType)t, (size_t)M * N, 1, &rng);
            Buf inp = buf_normal((DType)t, (size_t)M * K, 1, &rng);
            Buf dw1 = buf_fill(DT_F32, (size_t)N * K, 0.1),
                dw2 = buf_fill(DT_F32, (size_t)N * K, 0.1);
            Buf db1 = buf_fill(DT_F32, N, 0.1), db2 = buf_fill(DT_F32, N, 0.1);
            matmul_bwd_weight_fn *op = check_ops()->matmul_bwd_weight;
            op(check_device(), (DType)t, dw1.dev, db1.dev, dout.dev, inp.dev, M, N, K);
            op(check_device(), (DType)t, dw2.dev, db2.dev, dout.dev, inp.dev, M1, N, K);
            op(check_device(), (DType)t, dw2.dev, db2.dev, (char *)dout.dev + M1 * N * size,
               (char *)inp.dev + M1 * K * size, M - M1, N, K);
            buf_read(&dw1), buf_read(&db1);
            expect_exact("dweight", buf_read(&dw2), dw1.host, dw1.n);
            expect_exact("dbias", buf_read(&db2), db1.host, db1.n);
            buf_free(&dout), buf_free(&inp), buf_free(&dw1), buf_free(&dw2), buf_free(&db1),
                buf_free(&db2);
        }
    }
}

// All products of one layer, results and operands, as one thing.
typedef struct {
    Shape s;
    DType t;
    Buf inp, weight, out, dinp, dweight, dbias;
} Layer;
enum { RESULTS = 4 };
static Buf *layer_result(Layer *l, int i) {
    Buf *const results[RESULTS] = {&l->out, &l->dinp, &l->dweight, &l->dbias};
    return results[i];
}

static Layer layer_new(Shape s, DType t) {
    Rng rng = check_rng(0);
    Layer l = {.s = s, .t = t};
    l.inp = buf_normal(t, (size_t)s.M * s.K, 1, &rng);
    l.weight = buf_normal(t, (size_t)s.N * s.K, 1, &rng);
    l.out = buf_fill(t, (size_t)s.M * s.N, NAN);
    l.dinp = buf_fill(t, (size_t)s.M * s.K, NAN);
    l.dweight = buf_fill(DT_F32, (size_t)s.N * s.K, 0);
    l.dbias = buf_fill(DT_F32, s.N, 0);
    return l;
}

static void layer_free(Layer *l) {
    buf_free(&l->inp), buf_free(&l->weight);
    for (int i = 0; i < RESULTS; i++) {
        buf_free(layer_result(l, i));
    }
}

// Forward and both gradients, with `out` as the gradient from above.
static void layer_run(Layer *l, Device *dev, matmul_fwd_fn *fwd, matmul_bwd_input_fn *bwd_input,
                      matmul_bwd_weight_fn *bwd_weight, bool is_packed) {
    const Shape s = l->s;
    Buf ahead = {0}, back = {0};
    if (is_packed) {
        ahead = packed_new(dev, l->t, &l->weight, MATMUL_PACK_FWD, s.N, s.K);
        back = packed_new(dev, l->t, &l->weight, MATMUL_PACK_BWD, s.N, s.K);
    }
    device_zero(dev, l->dweight.dev, l->dweight.n * sizeof(float));
    device_zero(dev, l->dbias.dev, l->dbias.n * sizeof(float));
    fwd(dev, l->t, l->out.dev, l->inp.dev, l->weight.dev, ahead.dev, NULL, s.M, s.N, s.K, false,
        NULL);
    bwd_input(dev, l->t, l->dinp.dev, l->out.dev, l->weight.dev, back.dev, s.M, s.N, s.K, false,
              NULL);
    bwd_weight(dev, l->t, buf_f32(&l->dweight), buf_f32(&l->dbias), l->out.dev, l->inp.dev, s.M,
               s.N, s.K);
    packed_free(&ahead), packed_free(&back);
    for (int i = 0; i < RESULTS; i++) {
        buf_read(layer_result(l, i));
    }
}

// Large enough that every product is divided among threads; 1, 2 and 3 of them give the plain bits.
TEST(matmul_threads) {
    static const Shape large[] = {
        {400, 130, 270}, {3200, 64, 64}, {13, 1030, 1025}, {1400, 20, 500}};
    for (int i = 0; i < 6; i++) { // all in f32, the first two in bf16 as well
        const Shape s = large[i % 4];
        const DType t = i < 4 ? DT_F32 : DT_BF16;
        if (!CASE("M=%d N=%d K=%d t=%s", s.M, s.N, s.K, dtype_name(t))) {
            continue;
        }
        if (!is_cpu()) {
            check_skip("threads are the CPU's");
            continue;
        }
        Layer plain = layer_new(s, t), layer = layer_new(s, t);
        layer_run(&plain, check_device(), matmul_fwd_naive, matmul_bwd_input_naive,
                  matmul_bwd_weight_naive, false);
        for (int run = 0; run < 6; run++) { // 1 to 3 threads, not packed and packed
            Device *dev = device_new(DEVICE_CPU, 0, run / 2 + 1);
            const Ops *ops = device_ops(dev);
            layer_run(&layer, dev, ops->matmul_fwd, ops->matmul_bwd_input, ops->matmul_bwd_weight,
                      run % 2);
            for (int r = 0; r < RESULTS; r++) {
                Buf *got = layer_result(&layer, r), *want = layer_result(&plain, r);
                EXPECT(memcmp(got->dev, want->dev, got->n * dtype_size(got->t)) == 0,
                       "result %d, %d threads, is_packed=%d", r, run / 2 + 1, run % 2);
            }
            device_free(dev);
        }
        layer_free(&plain), layer_free(&layer);
    }
}

// Infinities and NaN stay in their rows and columns: what pads a tile is never mixed in.
TEST(matmul_not_finite) {
    const Shape s = {7, 17, 9};
    Layer plain = layer_new(s, DT_F32), layer = layer_new(s, DT_F32);
    Layer *const both[2] = {&plain, &layer};
    for (int i = 0; i < 2; i++) {
        both[i]->inp.host[2 * s.K + 3] = INFINITY; // row 2
        both[i]->weight.host[16 * s.K + 5] = NAN;  // column 16, alone in its tile
        buf_write(&both[i]->inp), buf_write(&both[i]->weight);
    }
    const Ops *ops = check_ops();
    layer_run(&layer, check_device(), ops->matmul_fwd, ops->matmul_bwd_input,
              ops->matmul_bwd_weight, false);
    for (int m = 0; m < s.M; m++) {
        for (int n = 0; n < s.N; n++) {
            const double x = layer.out.host[m * s.N + n];
            EXPECT(n == 16 ? isnan(x) : m == 2 ? isinf(x) : isfinite(x), "out[%d,%d] is %g", m, n,
                   x);
        }
    }
    if (is_cpu()) {
        layer_run(&plain, check_device(), matmul_fwd_naive, matmul_bwd_input_naive,
                  matmul_bwd_weight_naive, false);
        for (int r = 0; r < RESULTS; r++) {
            Buf *got = layer_result(&layer, r), *want = layer_result(&plain, r);
            expect_exact("like the plain loop", got->host, want->host, got->n);
        }
    }
    layer_free(&plain), layer_free(&layer);
}
