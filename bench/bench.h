// bench: the timing harness. build/bin/bench [pattern] [threads=N] [seconds=S] [json=FILE]
//
// A bench of an op is BENCH_OP(topk) { ... }; any other is BENCH(name) { ... }. It checks that the
// result is right before it times it, then calls bench_time once per shape. Each row printed says
// shape, median, 5th and 95th percentile, GFLOP/s and its share of the peak, GB/s and, where there
// is a peer, its time over ours, measured in the same run with the two interleaved. json=FILE gets
// one object per row.
#ifndef JOMED_BENCH_BENCH_H
#define JOMED_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base.h"
#include "kernels/ops.h"

#define BENCH_OP(op)                                                                               \
    void bench_##op(void);                                                                         \
    void bench_##op(void)
#define BENCH(name)                                                                                \
    static void bench_body_##name(void);                                                           \
    __attribute__((constructor)) static void bench_register_##name(void) {                         \
        bench_register(#name, bench_body_##name);                                                  \
    }                                                                                              \
    static void bench_body_##name(void)
void bench_register(const char *name, void (*body)(void));

Device *bench_device(void);
const Ops *bench_ops(void);
int bench_threads(void);
double bench_seconds(void); // time budget of one row

typedef void bench_fn(void *ctx);
// Times run(ctx) for about bench_seconds(), after a warm-up. flops and bytes are the least work one
// call must do (0: not printed). peer (or NULL) is timed interleaved with it; its name heads the
// ratio.
void bench_time(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                const char *peer_name, bench_fn *peer, void *peer_ctx);
// For a peer that takes its own time: the call in progress took so many seconds.
void bench_took(double seconds_taken);
// Seconds on a clock that suits work by that many CPU threads.
double bench_now(int thread_count);
// Fused multiply-adds of f32 this machine does in registers, in FLOP/s; measured once per count.
double bench_peak_flops(int threads);
// A device buffer of n normal deviates of type t (fixed seed; they come again after a million), and
// one of zeros.
void *bench_normal(DType t, size_t n);
void *bench_zeros(size_t bytes);

#endif
