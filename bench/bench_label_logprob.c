// Bench of label_logprob: answer rows of a batch of prompts over a real vocabulary.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"

typedef struct {
    DType t;
    int S, R, V;
    float *raw, *logprob, *lse;
    int32_t *greedy, *row, *token;
    void *logits;
} Args;

static void run(void *ctx) {
    Args *const a = ctx;
    bench_ops()->label_logprob(bench_device(), a->t, a->raw, a->logprob, a->greedy, a->lse,
                               a->logits, a->row, a->token, a->S, a->R, a->V);
}

BENCH_OP(label_logprob) {
    static const int shapes[][3] = {{12, 1, 151936}, {48, 8, 32000}, {768, 64, 39}};
    for (DType t = DT_F32; t <= DT_BF16; t++) {
        for (int i = 0; i < 3; i++) {
            const int S = shapes[i][0], R = shapes[i][1], V = shapes[i][2];
            const size_t s = (size_t)S * 4, r = (size_t)R * 4, n = (size_t)R * (size_t)V;
            Args a = {t,
                      S,
                      R,
                      V,
                      bench_zeros(s),
                      bench_zeros(s),
                      bench_zeros(r),
                      bench_zeros(r),
                      bench_zeros(s),
                      bench_zeros(s),
                      bench_normal(t, n)};
            run(&a); // every pick is (0, 0)
            float raw, logprob, lse;
            device_copy_out(bench_device(), &raw, a.raw, 4);
            device_copy_out(bench_device(), &logprob, a.logprob, 4);
            device_copy_out(bench_device(), &lse, a.lse, 4);
            CHECK(logprob == raw - lse && fabs((double)lse - log(V) - 0.5) < 0.5, "lse %g V=%d",
                  (double)lse, V);
            char shape[64];
            snprintf(shape, sizeof shape, "S=%d R=%d V=%d %s", S, R, V, dtype_name(t));
            bench_time(shape, 0, 2 * (double)n * (double)dtype_size(t), run, &a, NULL, NULL, NULL);
            void *const all[] = {a.raw, a.logprob, a.lse, a.greedy, a.row, a.token, a.logits};
            for (int k = 0; k < 7; k++) {
                device_release(bench_device(), all[k]);
            }
        }
    }
}
