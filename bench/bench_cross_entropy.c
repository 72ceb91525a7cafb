// Benches of cross_entropy at the rows of the demo's reader and of Qwen2-VL's vocabulary.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    DType t;
    int R, V;
    void *logits, *dlogits;
    float *loss, *lse, *dloss;
    int32_t *target;
} Args;

static void forward(void *ctx) {
    Args *const a = ctx;
    bench_ops()->cross_entropy_fwd(bench_device(), a->t, a->loss, a->lse, a->logits, a->target,
                                   a->R, a->V);
}

static void backward(void *ctx) {
    Args *const a = ctx;
    bench_ops()->cross_entropy_bwd(bench_device(), a->t, a->dlogits, a->dloss, a->logits, a->lse,
                                   a->target, a->R, a->V);
}

// Two passes over the logits forward (maximum, sum), one read and one write backward.
static void bench_shapes(bench_fn *run) {
    static const int shapes[][2] = {{64, 12}, {8, 32000}, {8, 151936}};
    for (DType t = DT_F32; t <= DT_BF16; t++) {
        for (int i = 0; i < 3; i++) {
            const int R = shapes[i][0], V = shapes[i][1];
            const size_t n = (size_t)R * (size_t)V;
            Args a = {t, R, V, bench_normal(t, n), bench_zeros(n * dtype_size(t)),
                      bench_zeros((size_t)R * 4), bench_zeros((size_t)R * 4),
                      bench_normal(DT_F32, (size_t)R), bench_zeros((size_t)R * 4)};
            forward(&a); // target 0 everywhere; the mean loss of N(0,1) logits is log V + 1/2
            float loss[64];
            device_copy_out(bench_device(), loss, a.loss, (size_t)R * 4);
            double mean = 0;
            for (int r = 0; r < R; r++) {
                mean += (double)loss[r] / R;
            }
            CHECK(fabs(mean - log(V) - 0.5) < 4 / sqrt(R), "loss %g at V=%d", mean, V);
            char shape[64];
            snprintf(shape, sizeof shape, "R=%d V=%d %s", R, V, dtype_name(t));
            bench_time(shape, 0, 2 * (double)n * (double)dtype_size(t), run, &a, NULL, NULL, NULL);
            device_release(bench_device(), a.logits);
            device_release(bench_device(), a.dlogits);
            device_release(bench_device(), a.loss);
            device_release(bench_device(), a.lse);
            device_release(bench_device(), a.dloss);
            device_release(bench_device(), a.target);
        }
    }
}

BENCH_OP(cross_entropy_fwd) { bench_shapes(forward); }
BENCH_OP(cross_entropy_bwd) { bench_shapes(backward); }
