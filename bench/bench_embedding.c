// The moving of rows: tables, gathers, patches, means and unit rows. Least traffic: what is read
// and written once, ids not counted.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

typedef struct {
    DType t;
    int N, C, V;
    void *out, *inp, *table;
    float *dtable, *norm;
    int32_t *ids, *order, *ends;
} Job;
#define SEQUENCES 8

static Job job_new(DType t, int N, int C, int V) {
    const size_t n = (size_t)N * C, v = (size_t)V * C;
    Job job = {.t = t, .N = N, .C = C, .V = V, .out = bench_zeros(n * dtype_size(t))};
    job.inp = bench_normal(t, n), job.table = bench_normal(t, v);
    job.dtable = bench_zeros(v * sizeof(float)), job.norm = bench_zeros((size_t)N * sizeof(float));
    int32_t *ids = xcalloc((size_t)N, 4), *order = xcalloc((size_t)N, 4), ends[SEQUENCES + 1];
    Rng rng = rng_new(1, RNG_TEST, 0, 1);
    for (int n0 = 0; n0 < N; n0++) {
        ids[n0] = (int32_t)rng_below(&rng, (uint32_t)V);
        order[n0] = (n0 * 7 + 3) % N; // no repeats: the sizes below are no multiples of seven
    }
    for (int b = 0; b <= SEQUENCES; b++) {
        ends[b] = (int32_t)((size_t)b * N / SEQUENCES);
    }
    job.ids = bench_zeros((size_t)N * 4), job.order = bench_zeros((size_t)N * 4);
    job.ends = bench_zeros(sizeof ends);
    device_copy_in(bench_device(), job.ids, ids, (size_t)N * 4);
    device_copy_in(bench_device(), job.order, order, (size_t)N * 4);
    device_copy_in(bench_device(), job.ends, ends, sizeof ends);
    free(ids), free(order);
    return job;
}

static void job_free(Job *job) {
    void *const all[] = {job->out,  job->inp, job->table, job->dtable,
                         job->norm, job->ids, job->order, job->ends};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        device_release(bench_device(), all[i]);
    }
}

static void run_embedding_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->embedding_fwd(bench_device(), j->t, j->out, j->table, j->ids, j->N, j->C, j->V,
                               false);
}
static void run_embedding_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->embedding_bwd(bench_device(), j->t, j->dtable, j->inp, j->ids, j->N, j->C, j->V);
}
static void run_gather(void *ctx) {
    const Job *j = ctx;
    bench_ops()->rows_gather(bench_device(), j->t, j->out, j->inp, j->order, j->N, j->C, j->N);
}
static void run_scatter(void *ctx) {
    const Job *j = ctx;
    bench_ops()->rows_scatter(bench_device(), j->t, j->out, j->inp, j->order, j->N, j->C, j->N);
}
static void run_pool_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->pool_fwd(bench_device(), j->t, j->out, j->inp, j->ends, SEQUENCES, j->N, j->C);
}
static void run_pool_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->pool_bwd(bench_device(), j->t, j->out, j->inp, j->ends, SEQUENCES, j->N, j->C);
}
static void run_l2norm_fwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->l2norm_fwd(bench_device(), j->t, j->out, j->norm, j->inp, j->N, j->C);
}
static void run_l2norm_bwd(void *ctx) {
    const Job *j = ctx;
    bench_ops()->l2norm_bwd(bench_device(), j->t, j->out, j->inp, j->table, j->norm, j->N, j->C);
}

// The last element of the result is a number, and no longer the zero it was.
static void check_written(const Job *job, const void *result, DType t, size_t at) {
    float got = 0;
    device_copy_out(bench_device(), &got, dtype_at_const(t, result, at), dtype_size(t));
    const float value = dtype_load(t, &got, 0);
    CHECK(isfinite(value) && value != 0, "N=%d C=%d: element %zu is %g", job->N, job->C, at,
          (double)value);
}

// full: how often the (N,C) tensor of type t passes; f32: how often one of f32 does.
static void bench_rows(bench_fn *run, double full, double f32) {
    static const int shapes[][2] = {{512, 768}, {4096, 768}, {1024, 3584}};
    for (size_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
        Job job = job_new(k % 2 ? DT_BF16 : DT_F32, shapes[k / 2][0], shapes[k / 2][1], 8192);
        run_l2norm_fwd(&job); // norms for the backward
        device_zero(bench_device(), job.out, (size_t)job.N * job.C * dtype_size(job.t));
        run(&job);
        if (f32 > 0) {
            int32_t last;
            device_copy_out(bench_device(), &last, job.ids + job.N - 1, sizeof last);
            check_written(&job, job.dtable, DT_F32, (size_t)last * job.C);
        } else {
            check_written(&job, job.out, job.t,
                          run == run_pool_fwd ? 0 : (size_t)job.N * job.C - 1);
        }
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%d %s", job.N, job.C, dtype_name(job.t));
        const double bytes = (double)job.N * job.C * (full * (double)dtype_size(job.t) + f32 * 4);
        bench_time(shape, 0, bytes, run, &job, NULL, NULL, NULL);
        job_free(&job);
    }
}

BENCH_OP(embedding_fwd) { bench_rows(run_embedding_fwd, 2, 0); }
BENCH_OP(embedding_bwd) { bench_rows(run_embedding_bwd, 1, 2); }
BENCH_OP(rows_gather) { bench_rows(run_gather, 2, 0); }
BENCH_OP(rows_scatter) { bench_rows(run_scatter, 2, 0); }
BENCH_OP(pool_fwd) { bench_rows(run_pool_fwd, 1, 0); }
BENCH_OP(pool_bwd) { bench_rows(run_pool_bwd, 1, 0); }
BENCH_OP(l2norm_fwd) { bench_rows(run_l2norm_fwd, 2, 0); }
BENCH_OP(l2norm_bwd) { bench_rows(run_l2norm_bwd, 3, 0); }

// ---- patch_unfold ----
typedef struct {
    DType t;
    int B, side, P, frames, merge;
    void *out;
    float *pixels;
} Patches;

static void run_patches(void *ctx) {
    const Patches *j = ctx;
    const int across = j->side / j->P;
    bench_ops()->patch_unfold(bench_device(), j->t, j->out, j->pixels, j->B, 3, across, across,
                              j->P, j->frames, j->merge);
}

BENCH_OP(patch_unfold) {
    static const Patches jobs[] = {{DT_F32, 8, 224, 16, 1, 1, NULL, NULL},
                                   {DT_BF16, 8, 224, 16, 1, 1, NULL, NULL},
                                   {DT_BF16, 2, 448, 14, 2, 2, NULL, NULL}};
    for (size_t k = 0; k < sizeof jobs / sizeof *jobs; k++) {
        Patches job = jobs[k];
        const size_t n = (size_t)job.B * 3 * job.side * job.side;
        const size_t bytes = n * (size_t)job.frames * dtype_size(job.t);
        job.pixels = bench_normal(DT_F32, n), job.out = bench_zeros(bytes);
        run_patches(&job);
        float ends[2] = {0};
        device_copy_out(bench_device(), &ends[0], job.pixels, 4);
        device_copy_out(bench_device(), &ends[1], job.out, dtype_size(job.t));
        float first;
        dtype_store(job.t, &first, 0, ends[0]);
        CHECK(dtype_load(job.t, &ends[1], 0) == dtype_load(job.t, &first, 0),
              "the first pixel moved");
        char shape[64];
        snprintf(shape, sizeof shape, "%dx3x%d^2 P=%d x%d m=%d %s", job.B, job.side, job.P,
                 job.frames, job.merge, dtype_name(job.t));
        bench_time(shape, 0, (double)(n * 4 + bytes), run_patches, &job, NULL, NULL, NULL);
        device_release(bench_device(), job.pixels), device_release(bench_device(), job.out);
    }
}
