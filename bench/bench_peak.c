// bench_peak: the marks against which rows are set: the most fused multiply-adds that a CPU does; a
// copy of memory and the vendor's largest product on a GPU, in the same run as the rows.
//
// Twelve independent chains of the widest vectors in registers: enough to hide the latency of two
// FMA units, and no memory. What it leaves out: the clock falls under long load on some machines.
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "kernels/vendor_cublaslt.h"

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

// ---- ceilings of a GPU ----
#define COPY_MIB 4096 // read, and written: far past any cache
#define SQUARE 8192   // rows, columns and depth of the vendor's product

// Two buffers and a side for a copy; three squares and a side for a product.
typedef struct {
    void *a, *b, *out;
    size_t bytes;
    int side;
} Ceiling;

static void copy_once(void *ctx) {
    const Ceiling *c = ctx;
    device_copy(bench_device(), c->b, c->a, c->bytes);
}

static void vendor_product(void *ctx) {
    const Ceiling *c = ctx;
    matmul_fwd_cublaslt(bench_device(), DT_BF16, c->out, c->a, c->b, NULL, NULL, c->side, c->side,
                        c->side, false, NULL);
}

static Ceiling copy_new(void) {
    const size_t bytes = (size_t)bench_shrunk(COPY_MIB) << 20;
    return (Ceiling){.a = bench_normal(DT_F32, bytes / sizeof(float)), .b = bench_zeros(bytes),
                     .bytes = bytes};
}

static Ceiling product_new(void) {
    const int side = bench_shrunk(SQUARE);
    const size_t n = (size_t)side * side;
    return (Ceiling){.a = bench_normal(DT_BF16, n), .b = bench_normal(DT_BF16, n),
                     .out = bench_zeros(n * dtype_size(DT_BF16)), .side = side};
}

static void ceiling_free(Ceiling *c) {
    device_release(bench_device(), c->a);
    device_release(bench_device(), c->b);
    device_release(bench_device(), c->out);
}

// Median of RUNS after one that is not counted: the clocks are what they are under load.
static double seconds_of(bench_fn *run, Ceiling *c) {
    double seconds[RUNS];
    run(c);
    for (int i = 0; i < RUNS; i++) {
        device_timer_start(bench_device());
        run(c);
        double s = device_timer_stop(bench_device());
        for (int k = 0; k < i; k++) { // kept sorted
            const double larger = fmax(seconds[k], s);
            seconds[k] = fmin(seconds[k], s);
            s = larger;
        }
        seconds[i] = s;
    }
    ceiling_free(c);
    return seconds[RUNS / 2];
}

bool bench_has_cublaslt(void) {
    char why[200] = "not in this build";
    static bool was_tried, is_there;
    if (!was_tried && device_kind(bench_device()) == DEVICE_CUDA) {
        was_tried = true;
        is_there = cublaslt_open && cublaslt_open(bench_device(), why, sizeof why);
        if (!is_there) {
            fprintf(stderr, "bench: no cuBLASLt beside our products: %s\n", why);
        }
    }
    return is_there;
}

double bench_ceiling_bytes(void) {
    static double rate = -1;
    if (rate < 0) {
        rate = 0;
        if (device_kind(bench_device()) != DEVICE_CPU) {
            Ceiling c = copy_new();
            const double bytes = 2.0 * (double)c.bytes;
            rate = bytes / seconds_of(copy_once, &c);
        }
    }
    return rate;
}

double bench_ceiling_flops(DType t) {
    static double rate = -1;
    if (device_kind(bench_device()) == DEVICE_CPU) {
        return bench_peak_flops(bench_threads());
    }
    if (rate < 0) {
        rate = 0;
        if (bench_has_cublaslt()) {
            Ceiling c = product_new();
            const double flops = 2.0 * pow(c.side, 3);
            cublaslt_tune(true);
            rate = flops / seconds_of(vendor_product, &c);
            cublaslt_tune(false);
        }
    }
    return t == DT_F32 ? 0 : rate;
}

BENCH_REAL(ceiling) {
    char shape[64];
    Ceiling copy = copy_new();
    snprintf(shape, sizeof shape, "copy %zu MiB", copy.bytes >> 20);
    bench_time(shape, 0, 2.0 * (double)copy.bytes, copy_once, &copy, NULL, NULL, NULL);
    ceiling_free(&copy);
    if (bench_has_cublaslt()) {
        Ceiling product = product_new();
        snprintf(shape, sizeof shape, "cuBLASLt %d x %d x %d bf16", product.side, product.side,
                 product.side);
        cublaslt_tune(true);
        bench_time(shape, 2.0 * pow(product.side, 3), 0, vendor_product, &product, NULL, NULL,
                   NULL);
        cublaslt_tune(false);
        ceiling_free(&product);
    }
}

// ---- rows ----
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
