// layernorm at the widths of the towers. Least traffic: each (N,C) tensor once.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "bench/peer_torch.h"

typedef struct {
    DType t;
    int N, C;
    void *out, *inp, *dout, *weight, *bias;
    float *mean, *rstd, *dweight, *dbias;
} Job;

static Job job_new(DType t, int N, int C) {
    const size_t n = (size_t)N * C, vector = (size_t)C * sizeof(float);
    Job job = {.t = t, .N = N, .C = C, .out = bench_zeros(n * dtype_size(t))};
    job.inp = bench_normal(t, n), job.dout = bench_normal(t, n);
    job.weight = bench_normal(t, (size_t)C), job.bias = bench_normal(t, (size_t)C);
    job.mean = bench_zeros((size_t)N * sizeof(float));
    job.rstd = bench_zeros((size_t)N * sizeof(float));
    job.dweight = bench_zeros(vector), job.dbias = bench_zeros(vector);
    return job;
}

static void job_free(Job *job) {
    void *const all[] = {job->out,  job->inp,  job->dout,    job->weight, job->bias,
                         job->mean, job->rstd, job->dweight, job->dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void run_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->layernorm_fwd(bench_device(), j->t, j->out, j->mean, j->rstd, j->inp, j->weight,
                               j->bias, j->N, j->C, 1e-5f);
}

static void run_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->layernorm_bwd(bench_device(), j->t, j->out, j->dweight, j->dbias, NULL, j->dout,
                               j->inp, j->weight, j->mean, j->rstd, j->N, j->C);
}

// The mean of the first row, in double.
static void check_mean(const Job *job) {
    double sum = 0;
    float mean;
    for (int c = 0; c < job->C; c++) {
        sum += dtype_load(job->t, job->inp, (size_t)c);
    }
    device_copy_out(bench_device(), &mean, job->mean, sizeof mean);
    CHECK(fabs(mean - sum / job->C) < 1e-5, "mean %g, want %g", (double)mean, sum / job->C);
}

static void bench_shapes(bench_fn *run, const char *pass, int tensors) {
    static const int shapes[][2] = {{2176, 64}, {197, 768}, {4096, 768}, {577, 1024}, {1024, 3584}};
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
        Job job = job_new(k % 2 ? DT_BF16 : DT_F32, shapes[k / 2][0], shapes[k / 2][1]);
        run_fwd(&job);
        check_mean(&job);
        bench_fn *peer =
            job.t == DT_F32 ? peer_torch("layernorm_%s %d %d", pass, job.N, job.C) : NULL;
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%d %s", job.N, job.C, dtype_name(job.t));
        bench_time(shape, 0, (double)tensors * job.N * job.C * (double)dtype_size(job.t), run, &job,
                   "PyTorch", peer, NULL);
        job_free(&job);
    }
}

BENCH_OP(layernorm_fwd) { bench_shapes(run_fwd, "fwd", 2); }
BENCH_OP(layernorm_bwd) { bench_shapes(run_bwd, "bwd", 3); }
