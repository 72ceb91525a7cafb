// model_pass: how a pass over a model is timed: planned, given an arena of that size, checked, run.
#ifndef JOMED_BENCH_MODEL_PASS_H
#define JOMED_BENCH_MODEL_PASS_H

#include "bench/bench.h"
#include "models/model.h"

typedef struct {
    Run run;             // set by model_pass_time
    bench_fn *fn;        // does it once, in run, leaving the arena as it found it
    void *owner;         // what fn is given
    const float *result; // (count) on the device, of the forward
    size_t count;
} ModelPass;

// Checks that the result is finite and that a second pass gives the same bits, then times it in a
// row of the bench; peer (or NULL) is PyTorch's.
void model_pass_time(ModelPass *pass, const char *shape, bool is_training, double flops,
                     bench_fn *peer);

#endif
