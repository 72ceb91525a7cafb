// model_pass: how a pass over a model is timed: planned, given an arena of that size, checked, run.
#ifndef JOMED_BENCH_MODEL_PASS_H
#define JOMED_BENCH_MODEL_PASS_H

#include "bench/bench.h"
#include "models/block.h"

typedef struct {
    Run run;             // set by model_pass_time
    bench_fn *fn;        // does it once, in run, leaving the arena as it found it
    void *owner;         // what fn is given
    DType t;
    const void *result;  // (count) t on the device, of the forward
    size_t count;
} ModelPass;

// Checks that the result is finite and that a second pass gives the same bits, then times it in a
// row of the bench; peer (or NULL) is PyTorch's.
void model_pass_time(ModelPass *pass, const char *shape, bool is_training, double flops,
                     bench_fn *peer);
// Values for a model too large to be drawn weight by weight: the bench's deviates, with the
// standard deviation that each tensor is drawn with; adapters, half of which begin as zeros, with
// 0.02.
void model_fill(TensorList *list);
// Work of L blocks on so many rows, in sequences of T: `passes` products with each weight (the
// forward; the gradient of the input; that of the weight) and `products` with the pairs of rows
// that see each other (two forward, five backward).
double stack_flops(const BlockConfig *config, int L, double rows, double T, int passes,
                   int products);

#endif
