// test_matmul_tiles: products of several tiles per block and several rounds of the ring, in the
// kernels of every architecture the device has.
//
// Operands are -1, 0 or 1 and sums stay below 256, so that every result is exact, in bf16 too, and
// a wrong term cannot hide in a tolerance.
#include <math.h>
#include <stdlib.h>

#include "kernels/matmul.h"
#include "tests/check.h"

typedef struct {
    int M, N, K;
} Shape;
// Whole tiles of 128 x 256 x 64, and one row, column and chunk more; deep and flat ones; more than
// 16 rows of tiles, and a sum long enough to be split.
static const Shape shapes[] = {{128, 256, 64}, {129, 264, 72}, {264, 264, 136}, {8, 520, 200},
                               {2100, 8, 264}, {8, 136, 448},  {200, 64, 8}};

static Buf signs(DType t, size_t n, Rng *rng) {
    double *values = xcalloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = (double)rng_below(rng, 3) - 1;
    }
    Buf buf = buf_from(t, values, n);
    free(values);
    return buf;
}

// Ops run on streams of one device, copies on those of another: each waits for the other's work.
static void settle(void) { device_sync(check_device()); }

// want[i,j] += sum_l x[i,l] y[j,l], both operands given by two strides.
static void add_product(double *want, const Buf *x, size_t x_row, size_t x_inner, const Buf *y,
                        size_t y_row, size_t y_inner, int rows, int columns, int depth) {
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < columns; j++) {
            double sum = 0;
            for (int l = 0; l < depth; l++) {
                sum += x->host[i * x_row + l * x_inner] * y->host[j * y_row + l * y_inner];
            }
            want[(size_t)i * columns + j] += sum;
        }
    }
}

static void one_shape(Device *dev, Shape s) {
    const int M = s.M, N = s.N, K = s.K;
    const Ops *ops = device_ops(dev);
    Rng rng = check_rng(0);
    Buf inp = signs(DT_BF16, (size_t)M * K, &rng), weight = signs(DT_BF16, (size_t)N * K, &rng);
    Buf dout = signs(DT_BF16, (size_t)M * N, &rng), bias = signs(DT_BF16, N, &rng);
    Buf out = buf_fill(DT_BF16, (size_t)M * N, NAN), dinp = buf_fill(DT_BF16, (size_t)M * K, NAN);
    Buf dweight = signs(DT_F32, (size_t)N * K, &rng);
    double *want_out = xcalloc(out.n, sizeof(double)), *want_dinp = xcalloc(dinp.n, sizeof(double));
    double *want_dweight = xcalloc(dweight.n, sizeof(double));
    for (size_t i = 0; i < out.n; i++) {
        want_out[i] = bias.host[i % N];
    }
    for (size_t i = 0; i < dweight.n; i++) {
        want_dweight[i] = dweight.host[i];
    }
    add_product(want_out, &inp, K, 1, &weight, K, 1, M, N, K);
    add_product(want_dinp, &dout, N, 1, &weight, 1, K, M, K, N);
    add_product(want_dweight, &dout, 1, N, &inp, 1, K, N, K, M);
    settle();
    ops->matmul_fwd(dev, DT_BF16, out.dev, inp.dev, weight.dev, NULL, bias.dev, M, N, K, false,
                    NULL);
    ops->matmul_bwd_input(dev, DT_BF16, dinp.dev, dout.dev, weight.dev, NULL, M, N, K, false,
                          NULL);
    ops->matmul_bwd_weight(dev, DT_BF16, buf_f32(&dweight), NULL, dout.dev, inp.dev, M, N, K);
    settle();
    expect_exact("out", buf_read(&out), want_out, out.n);
    expect_exact("dinp", buf_read(&dinp), want_dinp, dinp.n);
    expect_exact("dweight", buf_read(&dweight), want_dweight, dweight.n);
    free(want_out), free(want_dinp), free(want_dweight);
    buf_free(&inp), buf_free(&weight), buf_free(&dout), buf_free(&bias), buf_free(&out);
    buf_free(&dinp), buf_free(&dweight);
}

// ---- epilogues ----
// The sums z are exact in bf16, so an epilogue gives the bits of the ops that it stands for.
typedef struct {
    Device *dev;
    Buf z, gate, other; // the sums; what an epilogue reads
    MatmulEpilogue e;   // with the adapter
    Buf got, kept;      // out, and pre or dgate
} Ends;

static void expect_same(const char *what, Buf *got, Buf *want) {
    settle();
    buf_read(want);
    expect_exact(what, buf_read(got), want->host, want->n);
}

// Runs the product of `kind` and holds it against ops on z.
static void one_end(Ends *x, EpilogueKind kind, Activation act, const Buf *a, const Buf *b,
                    Shape s) {
    const Ops *ops = device_ops(x->dev);
    const size_t n = x->z.n;
    const bool is_bwd = kind == EPILOGUE_ACT_BWD || kind == EPILOGUE_GATED_BWD;
    Buf want = buf_fill(DT_BF16, n, NAN), kept = buf_fill(DT_BF16, n, NAN);
    MatmulEpilogue e = x->e;
    e.kind = kind, e.act = act, e.scale = 0.5f;
    e.residual = x->other.dev, e.gate = x->gate.dev, e.dgate = x->kept.dev;
    e.pre = is_bwd ? x->other.dev : x->kept.dev;
    settle();
    if (is_bwd) {
        ops->matmul_bwd_input(x->dev, DT_BF16, x->got.dev, a->dev, b->dev, NULL, s.M, s.N, s.K,
                              false, &e);
    } else {
        ops->matmul_fwd(x->dev, DT_BF16, x->got.dev, a->dev, b->dev, NULL, NULL, s.M, s.N, s.K,
                        false, &e);
    }
    if (kind == EPILOGUE_SCALE || kind == EPILOGUE_RESIDUAL) {
        settle();
        double *values = xcalloc(n, sizeof *values);
        for (size_t i = 0; i < n; i++) {
            values[i] = kind == EPILOGUE_SCALE ? x->z.host[i] / 2 : x->z.host[i] + x->other.host[i];
        }
        expect_exact("scale or residual", buf_read(&x->got), values, n);
        free(values);
    } else if (kind == EPILOGUE_ACT || kind == EPILOGUE_GATED) {
        kind == EPILOGUE_ACT
            ? ops->activation_fwd(x->dev, DT_BF16, want.dev, x->z.dev, n, act)
            : ops->gated_fwd(x->dev, DT_BF16, want.dev, x->gate.dev, x->z.dev, n, act);
        expect_same("activation", &x->got, &want);
        expect_same("what it acted on", &x->kept, &x->z);
    } else if (kind == EPILOGUE_ACT_BWD) {
        ops->activation_bwd(x->dev, DT_BF16, want.dev, x->z.dev, x->other.dev, n, act);
        expect_same("activation, backward", &x->got, &want);
    } else {
        ops->gated_bwd(x->dev, DT_BF16, kept.dev, want.dev, x->z.dev, x->gate.dev, x->other.dev, n,
                       act);
        expect_same("gated, backward", &x->got, &want);
        expect_same("the gate's gradient", &x->kept, &kept);
    }
    buf_free(&want), buf_free(&kept);
}

// Forward (a: inp, b: weight) or bwd_input (a: dout), with an adapter.
static void one_side(Device *dev, Shape s, int rank, bool is_bwd, Rng *rng) {
    const int rows = s.M, columns = is_bwd ? s.K : s.N, depth = is_bwd ? s.N : s.K;
    const size_t n = (size_t)rows * columns;
    Buf a = signs(DT_BF16, (size_t)rows * depth, rng), b = signs(DT_BF16, (size_t)s.N * s.K, rng);
    Buf low = signs(DT_BF16, (size_t)rows * rank, rng);
    Buf up = signs(DT_BF16, (size_t)columns * rank, rng);
    double *z = xcalloc(n, sizeof *z);
    const size_t inner = is_bwd ? columns : 1; // from term to term of b and up
    add_product(z, &a, depth, 1, &b, is_bwd ? 1 : depth, inner, rows, columns, depth);
    add_product(z, &low, rank, 1, &up, is_bwd ? 1 : rank, inner, rows, columns, rank);
    Ends x = {.dev = dev, .z = buf_from(DT_BF16, z, n), .gate = buf_normal(DT_BF16, n, 1, rng),
              .other = signs(DT_BF16, n, rng), .got = buf_fill(DT_BF16, n, NAN),
              .kept = buf_fill(DT_BF16, n, NAN)};
    x.e.low = low.dev, x.e.up = up.dev, x.e.rank = rank;
    const EpilogueKind kinds[2][4] = {
        {EPILOGUE_SCALE, EPILOGUE_RESIDUAL, EPILOGUE_ACT, EPILOGUE_GATED},
        {EPILOGUE_SCALE, EPILOGUE_RESIDUAL, EPILOGUE_ACT_BWD, EPILOGUE_GATED_BWD}};
    for (int k = is_bwd ? 2 : 0; k < 4; k++) { // the first two are the same on both sides
        one_end(&x, kinds[is_bwd][k], k % 2 ? ACT_SILU : ACT_GELU, &a, &b, s);
    }
    free(z);
    buf_free(&a), buf_free(&b), buf_free(&low), buf_free(&up), buf_free(&x.z), buf_free(&x.gate);
    buf_free(&x.other), buf_free(&x.got), buf_free(&x.kept);
}

static void one_epilogues(Device *dev, Shape s, int rank) {
    Rng rng = check_rng(0);
    one_side(dev, s, rank, false, &rng);
    one_side(dev, s, rank, true, &rng);
}

// ---- batches ----
// The first row alone has the bits that it has among others: tiles differ, its sums do not.
static void one_row(Device *dev, int M, int N, int K) {
    const Ops *ops = device_ops(dev);
    Rng rng = check_rng(0);
    Buf inp = buf_normal(DT_BF16, (size_t)M * K, 1, &rng);
    Buf weight = buf_normal(DT_BF16, (size_t)N * K, 1, &rng);
    Buf all = buf_fill(DT_BF16, (size_t)M * N, NAN), one = buf_fill(DT_BF16, (size_t)N, NAN);
    settle();
    ops->matmul_fwd(dev, DT_BF16, all.dev, inp.dev, weight.dev, NULL, NULL, M, N, K, false, NULL);
    ops->matmul_fwd(dev, DT_BF16, one.dev, inp.dev, weight.dev, NULL, NULL, 1, N, K, false, NULL);
    settle();
    expect_exact("row 0", buf_read(&one), buf_read(&all), (size_t)N);
    buf_free(&inp), buf_free(&weight), buf_free(&all), buf_free(&one);
}

TEST_DEVICE(matmul_tiles) {
    // Several tiles; C without whole quads; an adapter whose rows begin anywhere.
    const struct {
        Shape s;
        int rank;
    } adapted[] = {{{129, 264, 72}, 8}, {{130, 37, 72}, 72}, {{40, 72, 136}, 12}};
    Device *older = device_new(device_kind(check_device()), 0, 0);
    device_limit_arch(older, 80);
    const bool is_newer = device_arch(check_device()) > device_arch(older);
    for (int limited = 0; limited <= is_newer; limited++) {
        Device *dev = limited ? older : check_device();
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            if (CASE("M=%d N=%d K=%d arch=%d", shapes[i].M, shapes[i].N, shapes[i].K,
                     device_arch(dev))) {
                one_shape(dev, shapes[i]);
            }
        }
        for (size_t i = 0; i < sizeof adapted / sizeof *adapted; i++) {
            const Shape s = adapted[i].s;
            if (CASE("epilogues, M=%d N=%d K=%d rank=%d arch=%d", s.M, s.N, s.K, adapted[i].rank,
                     device_arch(dev))) {
                one_epilogues(dev, s, adapted[i].rank);
            }
        }
        if (CASE("a row alone, arch=%d", device_arch(dev))) {
            one_row(dev, 200, 136, 200); // 128 columns at a time, and alone 64
        }
    }
    device_free(older);
}
