// Benches of infonce: the demo's batch, and a batch of a real pretraining.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    DType t;
    int B, E;
    float *loss, *scores, *lse, *log_scale;
    void *a, *b, *da, *db;
} Args;

static void forward(void *ctx) {
    Args *const x = ctx;
    bench_ops()->infonce_fwd(bench_device(), x->t, x->loss, x->scores, x->lse, x->a, x->b,
                             x->log_scale, x->B, x->E);
}

// Overwrites the scores, so that from the second call on it works on other numbers at the same
// cost.
static void backward(void *ctx) {
    Args *const x = ctx;
    bench_ops()->infonce_bwd(bench_device(), x->t, x->da, x->db, NULL, x->scores, x->lse, x->a,
                             x->b, x->log_scale, x->B, x->E);
}

static void bench_shapes(bool is_backward) {
    static const int shapes[][2] = {{128, 64}, {256, 512}, {1024, 768}};
    for (int i = 0; i < 3; i++) {
        const int B = shapes[i][0], E = shapes[i][1];
        const size_t n = (size_t)B * (size_t)E, nn = (size_t)B * (size_t)B;
        Args x = {DT_F32,
                  B,
                  E,
                  bench_zeros(8),
                  bench_zeros(nn * 4),
                  bench_zeros((size_t)B * 8),
                  bench_zeros(4),
                  bench_normal(DT_F32, n),
                  bench_normal(DT_F32, n), // the same deviates: pairs match exactly
                  bench_zeros(n * 4),
                  bench_zeros(n * 4)};
        forward(&x);
        float loss[2];
        device_copy_out(bench_device(), loss, x.loss, sizeof loss);
        // |row|^2 is about E, other products about sqrt(E): the pair wins by far.
        CHECK(loss[0] >= 0 && loss[0] < 0.1f && fabsf(loss[0] - loss[1]) < 1e-3f, "losses %g %g",
              (double)loss[0], (double)loss[1]);
        char shape[64];
        snprintf(shape, sizeof shape, "B=%d E=%d f32", B, E);
        const double flops = 2.0 * (double)nn * E * (is_backward ? 2 : 1);
        bench_time(shape, flops, 0, is_backward ? backward : forward, &x, NULL, NULL, NULL);
        void *const all[] = {x.loss, x.scores, x.lse, x.log_scale, x.a, x.b, x.da, x.db};
        for (int k = 0; k < 8; k++) {
            device_release(bench_device(), all[k]);
        }
    }
}

BENCH_OP(infonce_fwd) { bench_shapes(false); }
BENCH_OP(infonce_bwd) { bench_shapes(true); }
