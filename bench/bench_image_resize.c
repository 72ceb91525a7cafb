// image_resize at the sizes that feed the towers: a radiograph to 224, and the 256-pixel rule.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

typedef struct {
    uint8_t *out, *inp;
    void *scratch;
    int H, W, C, outH, outW;
    ResizeFilter filter;
} Job;

static void run(void *ctx) {
    const Job *job = ctx;
    bench_ops()->image_resize(bench_device(), job->out, job->inp, job->scratch, job->H, job->W,
                              job->C, job->outH, job->outW, job->filter);
}

// A flat picture stays flat under every filter: the weights of a pixel sum to one.
static void check_flat(const Job *job) {
    Device *dev = bench_device();
    const size_t inp = (size_t)job->H * (size_t)job->W * (size_t)job->C;
    const size_t out = (size_t)job->outH * (size_t)job->outW * (size_t)job->C;
    uint8_t *host = xmalloc(inp > out ? inp : out, 1);
    memset(host, 77, inp);
    device_copy_in(dev, job->inp, host, inp);
    run((void *)job);
    device_copy_out(dev, host, job->out, out);
    for (size_t i = 0; i < out; i++) {
        CHECK(host[i] == 77, "sample %zu is %d", i, host[i]);
    }
    free(host);
}

BENCH_OP(image_resize) {
    static const Job jobs[] = {
        {.H = 1024, .W = 1024, .C = 3, .outH = 224, .outW = 224, .filter = RESIZE_BICUBIC},
        {.H = 842, .W = 1024, .C = 1, .outH = 224, .outW = 272, .filter = RESIZE_BICUBIC},
        {.H = 28, .W = 28, .C = 3, .outH = 224, .outW = 224, .filter = RESIZE_BICUBIC},
        {.H = 252, .W = 256, .C = 3, .outH = 252, .outW = 252, .filter = RESIZE_BICUBIC},
        {.H = 1024, .W = 1024, .C = 3, .outH = 256, .outW = 256, .filter = RESIZE_NEAREST},
    };
    Device *dev = bench_device();
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        Job job = jobs[j];
        const size_t inp = (size_t)job.H * (size_t)job.W * (size_t)job.C;
        const size_t out = (size_t)job.outH * (size_t)job.outW * (size_t)job.C;
        job.inp = bench_zeros(inp);
        job.out = bench_zeros(out);
        job.scratch = bench_zeros(
            image_resize_scratch_bytes(job.H, job.W, job.C, job.outH, job.outW, job.filter));
        check_flat(&job);
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%dx%d to %dx%d%s", job.H, job.W, job.C, job.outH,
                 job.outW, job.filter == RESIZE_NEAREST ? " nearest" : "");
        bench_time(shape, 0, (double)(inp + out), run, &job, NULL, NULL, NULL);
        device_release(dev, job.scratch);
        device_release(dev, job.out);
        device_release(dev, job.inp);
    }
}
