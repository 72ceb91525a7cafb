// rmsnorm at the widths of the readers. Least traffic: each (N,C) tensor once.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"

typedef struct {
    DType t;
    int N, C;
    void *out, *inp, *dout, *weight;
    float *rstd, *dweight;
} Job;

static Job job_new(DType t, int N, int C) {
    const size_t n = (size_t)N * C;
    Job job = {.t = t, .N = N, .C = C, .out = bench_zeros(n * dtype_size(t))};
    job.inp = bench_normal(t, n), job.dout = bench_normal(t, n);
    job.weight = bench_normal(t, (size_t)C);
    job.rstd = bench_zeros((size_t)N * sizeof(float));
    job.dweight = bench_zeros((size_t)C * sizeof(float));
    return job;
}

static void job_free(Job *job) {
    void *const all[] = {job->out, job->inp, job->dout, job->weight, job->rstd, job->dweight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void run_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->rmsnorm_fwd(bench_device(), j->t, j->out, j->rstd, j->inp, j->weight, j->N, j->C,
                             1e-6f);
}

static void run_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->rmsnorm_bwd(bench_device(), j->t, j->out, j->dweight, NULL, j->dout, j->inp,
                             j->weight, j->rstd, j->N, j->C);
}

// The first row's factor, in double.
static void check_rstd(const Job *job) {
    double squares = 0;
    float rstd;
    for (int c = 0; c < job->C; c++) {
        const double x = dtype_load(job->t, job->inp, (size_t)c);
        squares += x * x;
    }
    const double want = 1 / sqrt(squares / job->C + 1e-6);
    device_copy_out(bench_device(), &rstd, job->rstd, sizeof rstd);
    CHECK(fabs(rstd - want) < 1e-5, "rstd %g, want %g", (double)rstd, want);
}

static void bench_shapes(bench_fn *run, const char *pass, int tensors) {
    static const int shapes[][2] = {{256, 1536}, {1024, 1536}, {1024, 3584}, {1024, 5120}};
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
        Job job = job_new(k % 2 ? DT_BF16 : DT_F32, shapes[k / 2][0], shapes[k / 2][1]);
        run_fwd(&job);
        check_rstd(&job);
        bench_fn *peer =
            job.t == DT_F32 ? peer_torch("rmsnorm_%s %d %d", pass, job.N, job.C) : NULL;
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%d %s", job.N, job.C, dtype_name(job.t));
        bench_time(shape, 0, (double)tensors * job.N * job.C * (double)dtype_size(job.t), run, &job,
                   "PyTorch", peer, NULL);
        job_free(&job);
    }
}

BENCH_OP(rmsnorm_fwd) { bench_shapes(run_fwd, "fwd", 2); }
BENCH_OP(rmsnorm_bwd) { bench_shapes(run_bwd, "bwd", 3); }
