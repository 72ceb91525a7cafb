// bench: the timing harness.
//
//   build/bin/bench [pattern] [backend=cpu|cuda] [threads=N] [seconds=S] [warm=S] [json=FILE]
//                   [dtype=f32|bf16|f16] [shrink=N]
//
// A bench of an op is BENCH_OP(topk) { ... }; any other is BENCH(name) { ... }. It checks that the
// result is right before it times it, then calls bench_time once per shape. Each row printed says
// shape, median, 5th and 95th percentile, GFLOP/s, GB/s, the share of the ceiling and, where there
// is a peer, its time over ours, measured in the same run with the two interleaved. json=FILE gets
// one object per row.
//
// These have sizes for a CPU. BENCH_REAL(name) has those of the real models, in type dtype=: they
// alone run with backend=cuda, and on the CPU only with shrink=N, which divides what grows with the
// batch by N and takes the tiny models, to try the benches themselves. Their shapes are named in
// full, so that peers can be run on them by what a row says (bench/peers/gpu.py does).
//
// On a GPU a sample is a batch of launches between two events of the device, the problem changes
// from launch to launch until twice the last cache has been passed, and warm=S (default 3 s before
// the first row, a sixth of it before others) lets the power settle. A row says its error: the
// largest difference from f64 over the largest value, among the elements that were checked.
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
#define BENCH_REAL(name)                                                                           \
    static void bench_real_body_##name(void);                                                      \
    __attribute__((constructor)) static void bench_real_register_##name(void) {                    \
        bench_register_real(#name, bench_real_body_##name);                                        \
    }                                                                                              \
    static void bench_real_body_##name(void)
void bench_register(const char *name, void (*body)(void));
void bench_register_real(const char *name, void (*body)(void));

Device *bench_device(void);
const Ops *bench_ops(void);
int bench_threads(void);
double bench_seconds(void); // time budget of one row
DType bench_dtype(void);    // dtype=, else bf16
bool bench_is_shrunk(void);
int bench_shrunk(int n); // n, divided by what shrink= says, at least 1

typedef void bench_fn(void *ctx);
// Times run(ctx) for about bench_seconds(), after a warm-up. flops and bytes are the least work one
// call must do (0: not printed). peer (or NULL) is timed interleaved with it; its name heads the
// ratio.
void bench_time(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                const char *peer_name, bench_fn *peer, void *peer_ctx);
// The same over an array of `copies` like problems of `stride` bytes each, which begins at ctx and
// which both sides visit in turn.
void bench_time_turns(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                      size_t stride, int copies, const char *peer_name, bench_fn *peer);
// How many problems that touch so many bytes pass twice the device's cache; on a CPU 1.
#define BENCH_COPIES 32 // at most; what is so small is bound by launches
int bench_copies(double bytes);
// For a peer that takes its own time: the call in progress took so many seconds.
void bench_took(double seconds_taken);
// Seconds on a clock that suits work by that many CPU threads.
double bench_now(int thread_count);
// Fused multiply-adds of f32 this CPU does in registers, in FLOP/s; measured once per count.
double bench_peak_flops(int threads);
// What a row is set against, in FLOP/s of type t and bytes/s; 0: not known. Measured once: on the
// CPU as above; on a GPU a copy of memory, read and written bytes counted, and for 16-bit types the
// vendor's product of 8192^3.
double bench_ceiling_flops(DType t);
double bench_ceiling_bytes(void);
bool bench_has_cublaslt(void); // says once on stderr why not
// A device buffer of n normal deviates of type t (fixed seed; they come again after a million), and
// one of zeros.
void *bench_normal(DType t, size_t n);
void bench_fill(DType t, void *memory, size_t n, double sd); // the same deviates, times sd
void *bench_zeros(size_t bytes);
#define BENCH_RELEASE(...)                                                                         \
    bench_release((void *const[]){__VA_ARGS__},                                                    \
                  sizeof((void *const[]){__VA_ARGS__}) / sizeof(void *))
void bench_release(void *const *memory, size_t count); // NULLs are passed over
float bench_at(DType t, const void *tensor, size_t i); // an element, wherever the tensor lies

#endif
