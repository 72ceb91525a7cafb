// Tests of cross_entropy: against plain loops in double and in float, finite differences, and the
// order of summation bit for bit.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/lanes.h"
#include "tests/check.h"

static const int shapes[][2] = {{1, 1}, {1, 2}, {3, 15}, {2, 16}, {5, 33}, {7, 1024}, {2, 1025},
                                {3, 5003}, {2, 16400}};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

typedef struct {
    int R, V;
    double *logits; // (R,V)
    const int32_t *target;
    const double *dloss; // (R)
} Problem;

static double row_lse_f64(const double *x, int V) {
    double max = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++) {
        max = fmax(max, x[v]);
    }
    for (int v = 0; v < V; v++) {
        sum += exp(x[v] - max);
    }
    return max + log(sum);
}

static float row_lse_plain(const double *x, int V) {
    float max = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++) {
        max = fmaxf(max, (float)x[v]);
    }
    for (int v = 0; v < V; v++) {
        sum += expf((float)x[v] - max);
    }
    return max + logf(sum);
}

static double weighted_loss(void *ctx) {
    const Problem *p = ctx;
    double total = 0;
    for (int r = 0; r < p->R; r++) {
        const double *x = p->logits + (size_t)r * (size_t)p->V;
        total += p->dloss[r] * (row_lse_f64(x, p->V) - x[p->target[r]]);
    }
    return total;
}

static int32_t *targets_new(int R, int V, Rng *rng) {
    int32_t *target = xmalloc((size_t)R, sizeof *target);
    for (int r = 0; r < R; r++) {
        target[r] = (int32_t)rng_below(rng, (uint32_t)V);
    }
    target[R - 1] = V - 1; // the last column is the easiest one to miss
    return target;
}

static void forward_case(DType t, int R, int V, Rng *rng) {
    const size_t n = (size_t)R * (size_t)V;
    Buf logits = buf_normal(t, n, 4, rng);
    int32_t *target = targets_new(R, V, rng);
    IntBuf targets = ibuf_from(target, (size_t)R);
    Buf loss = buf_fill(DT_F32, (size_t)R, NAN), lse = buf_fill(DT_F32, (size_t)R, NAN);
    check_ops()->cross_entropy_fwd(check_device(), t, buf_f32(&loss), buf_f32(&lse), logits.dev,
                                   targets.dev, R, V);
    double *want = xmalloc(4 * (size_t)R, sizeof *want);
    double *const want_loss = want + R, *const plain = want + 2 * R;
    double *const plain_loss = want + 3 * R;
    for (int r = 0; r < R; r++) {
        const double *x = logits.host + (size_t)r * (size_t)V;
        want[r] = row_lse_f64(x, V);
        want_loss[r] = want[r] - x[target[r]];
        plain[r] = (double)row_lse_plain(x, V);
        plain_loss[r] = (double)((float)plain[r] - (float)x[target[r]]);
    }
    expect_sum("lse", buf_read(&lse), want, plain, (size_t)R);
    expect_sum("loss", buf_read(&loss), want_loss, plain_loss, (size_t)R);
    free(want);
    free(target);
    buf_free(&logits);
    buf_free(&loss);
    buf_free(&lse);
    ibuf_free(&targets);
}

TEST_OP(cross_entropy_fwd) {
    Rng rng = check_rng(0);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < SHAPES; i++) {
            if (CASE("R=%d V=%d t=%s", shapes[i][0], shapes[i][1], dtype_name(t))) {
                forward_case(t, shapes[i][0], shapes[i][1], &rng);
            }
        }
    }
    if (CASE("lane order, and independence of the batch")) {
        enum { R = 3, V = 2500 };
        Buf logits = buf_normal(DT_F32, R * V, 3, &rng);
        IntBuf target = ibuf_fill(R, 7);
        Buf loss = buf_fill(DT_F32, R, NAN), lse = buf_fill(DT_F32, R, NAN);
        Buf loss1 = buf_fill(DT_F32, 1, NAN), lse1 = buf_fill(DT_F32, 1, NAN);
        check_ops()->cross_entropy_fwd(check_device(), DT_F32, buf_f32(&loss), buf_f32(&lse),
                                       logits.dev, target.dev, R, V);
        check_ops()->cross_entropy_fwd(check_device(), DT_F32, buf_f32(&loss1), buf_f32(&lse1),
                                       (const float *)logits.dev + 2 * V, target.dev, 1, V);
        buf_read(&loss);
        expect_exact("alone or in a batch", buf_read(&loss1), loss.host + 2, 1);
        float e[V], max = -INFINITY;
        for (int v = 0; v < V; v++) {
            max = fmaxf(max, (float)logits.host[v]);
        }
        for (int v = 0; v < V; v++) {
            e[v] = exp_f32((float)logits.host[v] - max);
        }
        const double want = (double)(float)((double)max + log((double)sum16(e, V)));
        if (device_kind(check_device()) == DEVICE_CPU) { // a GPU has an order of its own
            expect_exact("order of the sum", buf_read(&lse), &want, 1);
        }
        buf_free(&logits);
        ibuf_free(&target);
        buf_free(&loss);
        buf_free(&lse);
        buf_free(&loss1);
        buf_free(&lse1);
    }
    if (CASE("masked, huge and impossible logits")) {
        const double x[] = {-INFINITY, 1000, -INFINITY, 1000 - 1, //
                            -INFINITY, 3,    -INFINITY, 2,        //
                            1,         NAN,  0,         0};
        const int32_t target[] = {1, 2, 0};
        Buf logits = buf_from(DT_F32, x, 12);
        Buf loss = buf_fill(DT_F32, 3, 0), lse = buf_fill(DT_F32, 3, 0);
        IntBuf targets = ibuf_from(target, 3);
        check_ops()->cross_entropy_fwd(check_device(), DT_F32, buf_f32(&loss), buf_f32(&lse),
                                       logits.dev, targets.dev, 3, 4);
        buf_read(&loss);
        const double want = log1p(exp(-1));
        expect_within("huge", loss.host, &want, 1, ldexp(1000, -24));
        EXPECT(loss.host[1] == INFINITY, "a masked target costs %g", loss.host[1]);
        EXPECT(isnan(loss.host[2]), "NaN became %g", loss.host[2]);
        buf_free(&logits);
        buf_free(&loss);
        buf_free(&lse);
        ibuf_free(&targets);
    }
}

// ---- backward ----
static void backward_case(DType t, int R, int V, Rng *rng) {
    const size_t n = (size_t)R * (size_t)V;
    Buf logits = buf_normal(t, n, 2, rng), dloss = buf_normal(DT_F32, (size_t)R, 1, rng);
    int32_t *target = targets_new(R, V, rng);
    IntBuf targets = ibuf_from(target, (size_t)R);
    Buf lse = buf_fill(DT_F32, (size_t)R, 0), dlogits = buf_fill(t, n, NAN);
    double *want = xmalloc(2 * n, sizeof *want), *const plain = want + n;
    for (int r = 0; r < R; r++) {
        const double *x = logits.host + (size_t)r * (size_t)V, d = dloss.host[r];
        const double exact = row_lse_f64(x, V);
        lse.host[r] = exact;
        for (int v = 0; v < V; v++) {
            const size_t at = (size_t)r * (size_t)V + (size_t)v;
            const bool hit = v == target[r];
            want[at] = d * (exp(x[v] - exact) - hit);
            dtype_store(t, &plain[at], 0,
                        (float)d * (expf((float)x[v] - (float)exact) - (float)hit));
            plain[at] = (double)dtype_load(t, &plain[at], 0);
        }
    }
    Problem problem = {R, V, logits.host, target, dloss.host};
    expect_gradient("reference", want, logits.host, n, weighted_loss, &problem, 40);
    buf_write(&lse);
    check_ops()->cross_entropy_bwd(check_device(), t, dlogits.dev, buf_f32(&dloss), logits.dev,
                                   buf_f32(&lse), targets.dev, R, V);
    expect_sum("dlogits", buf_read(&dlogits), want, plain, n);
    check_ops()->cross_entropy_bwd(check_device(), t, logits.dev, buf_f32(&dloss), logits.dev,
                                   buf_f32(&lse), targets.dev, R, V);
    expect_exact("in place", buf_read(&logits), dlogits.host, n);
    free(want);
    free(target);
    buf_free(&logits);
    buf_free(&dloss);
    buf_free(&lse);
    buf_free(&dlogits);
    ibuf_free(&targets);
}

TEST_OP(cross_entropy_bwd) {
    Rng rng = check_rng(1);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < SHAPES; i++) {
            if (CASE("R=%d V=%d t=%s", shapes[i][0], shapes[i][1], dtype_name(t))) {
                backward_case(t, shapes[i][0], shapes[i][1], &rng);
            }
        }
    }
}
