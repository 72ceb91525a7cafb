// bench_peak: the most fused multiply-adds this machine does, the mark against which rows are set.
//
// Twelve independent chains of the widest vectors in registers: enough to hide the latency of two
// FMA units, and no memory. What it leaves out: the clock falls under long load on some machines.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"

#define CHAINS 12
#define ROUNDS 1000000 // about 2 ms
#define RUNS 30
#define MAX_THREADS 1024

// Runs ROUNDS * CHAINS multiply-adds of `width` floats; returning a sum keeps them all alive.
typedef float chains_fn(float x);
typedef struct {
    chains_fn *run;
    int width;
} Chains;

#if defined(__x86_64__)
#include <immintrin.h>
#define CHAINS_OF(name, isa, vec, set1, fma, lane0)                                                \
    static __attribute__((target(isa))) float name(float x) {                                      \
        vec sum[CHAINS];                                                                           \
        const vec a = set1(x);                                                                     \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) { sum[i] = set1((float)i); }     \
        for (int r = 0; r < ROUNDS; r++) {                                                         \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {                            \
                sum[i] = fma(a, sum[i], a);                                                        \
            }                                                                                      \
        }                                                                                          \
        float total = 0;                                                                           \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) { total += lane0(sum[i]); }      \
        return total;                                                                              \
    }
CHAINS_OF(chains_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_cvtss_f32)
CHAINS_OF(chains_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_cvtss_f32)
#endif

static float chains_plain(float x) {
    float sum[CHAINS] = {0};
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < CHAINS; i++) {
            sum[i] = fmaf(x, sum[i], x);
        }
    }
    float total = 0;
    for (int i = 0; i < CHAINS; i++) {
        total += sum[i];
    }
    return total;
}

static Chains choose(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        return (Chains){chains_avx512, 16};
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return (Chains){chains_avx2, 8};
    }
#endif
    return (Chains){chains_plain, 1};
}

// Each thread goes by its own clock, so that other programs on the machine do not lower the peak.
static double measure(int threads) {
    const Chains chains = choose();
    const double flops = 2.0 * ROUNDS * CHAINS * chains.width; // of one thread
    double best = 0;
    volatile float sink = 0;
    for (int run = 0; run < RUNS; run++) {
        float total = 0;
        double rate = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total, rate) if (threads > 1)
        for (int i = 0; i < threads; i++) {
            const double start = bench_now(1);
            total += chains.run(0.5f);
            rate += flops / (bench_now(1) - start);
        }
        sink = sink + total;
        best = fmax(best, rate);
    }
    return best;
}

double bench_peak_flops(int threads) {
    static double flops_of[MAX_THREADS + 1]; // measured once for each count
    CHECK(threads >= 1 && threads <= MAX_THREADS, "threads=%d", threads);
    if (flops_of[threads] <= 0) {
        flops_of[threads] = measure(threads);
    }
    return flops_of[threads];
}

static void report(int threads) {
    printf("%-20s %-34s %10.1f GFLOP/s of fused multiply-adds\n", "peak",
           threads == 1 ? "1 thread" : "all threads", bench_peak_flops(threads) * 1e-9);
}

BENCH(peak) {
    report(1);
    if (bench_threads() > 1) {
        report(bench_threads());
    }
}
