// peer_torch: PyTorch on the CPU in f32 as a peer, by the script peers/ops_torch.py. Its problems
// have the shapes of ours; its numbers are not compared with ours, which is for the tests.
#ifndef JOMED_BENCH_PEER_TORCH_H
#define JOMED_BENCH_PEER_TORCH_H

#include <stdbool.h>

#include "bench/bench.h"

// Prepares a problem, "name size size ..." as the script lists them, on as many threads as the
// bench; the one before is forgotten. Its bench_fn, or NULL when there is no PyTorch here.
bench_fn *peer_torch(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
