// bench: the timing harness; see bench.h.
#define _POSIX_C_SOURCE 200809L
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/version.h"

#define MAX_BENCHES 256
#define MAX_SAMPLES 4096
#define PERIOD 1048583 // of normal deviates: a prime, so that no two rows of a matrix are equal

#define X(op) void bench_##op(void);
OPS(X)
#undef X

static struct {
    const char *name;
    void (*body)(void);
} benches[MAX_BENCHES];
static int bench_count;
static const char *pattern = "", *current = "";
static int threads;
static double seconds = 1.0;
static double took; // what the last call of a peer says of itself, or less than 0
static FILE *json;

void bench_register(const char *name, void (*body)(void)) {
    CHECK(bench_count < MAX_BENCHES, "more than %d benches", MAX_BENCHES);
    benches[bench_count].name = name;
    benches[bench_count++].body = body;
}

Device *bench_device(void) {
    static Device *dev;
    if (!dev) {
        dev = device_new(DEVICE_CPU, 0, threads);
    }
    return dev;
}

const Ops *bench_ops(void) { return device_ops(bench_device()); }
int bench_threads(void) { return device_threads(bench_device()); }
double bench_seconds(void) { return seconds; }

void *bench_zeros(size_t bytes) {
    void *memory = device_alloc(bench_device(), bytes, "bench");
    device_zero(bench_device(), memory, bytes);
    return memory;
}

void *bench_normal(DType t, size_t n) {
    void *memory = bench_zeros(n * dtype_size(t));
    void *host = xmalloc(n, dtype_size(t));
    const size_t size = dtype_size(t), drawn = n < PERIOD ? n : PERIOD;
    Rng rng = rng_new(1, RNG_TEST, 0, 0);
    for (size_t i = 0; i < drawn; i++) {
        dtype_store(t, host, i, (float)rng_normal(&rng));
    }
    for (size_t i = drawn; i < n; i += PERIOD) {
        memcpy((char *)host + i * size, host, (n - i < PERIOD ? n - i : PERIOD) * size);
    }
    device_copy_in(bench_device(), memory, host, n * dtype_size(t));
    free(host);
    return memory;
}

// ---- timing ----
static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Work done by the calling thread alone is timed by that thread's own clock, which other programs
// do not advance; else by the clock on the wall.
double bench_now(int thread_count) {
    struct timespec now;
    if (thread_count > 1 || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) {
        return seconds_now();
    }
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void bench_took(double seconds_taken) { took = seconds_taken; }

static double time_once(bench_fn *run, void *ctx) {
    const bool is_cpu = device_kind(bench_device()) == DEVICE_CPU;
    const int clock_threads = is_cpu ? bench_threads() : 2;
    device_sync(bench_device());
    took = -1;
    const double start = bench_now(clock_threads);
    run(ctx);
    device_sync(bench_device());
    return took >= 0 ? took : bench_now(clock_threads) - start;
}

// ---- reports ----
// What bench_time found out about one shape.
typedef struct {
    const char *shape;
    int samples;
    double median, low, high, flops, bytes, peak_share; // peak_share: 0 where flops is
    const char *peer;                                   // or NULL
    double peer_median;
} Row;

static void print_row(const Row *row) {
    printf("%-20s %-34s %10.1f us [%.1f, %.1f]", current, row->shape, row->median * 1e6,
           row->low * 1e6, row->high * 1e6);
    if (row->flops > 0) {
        printf(" %8.2f GFLOP/s %3.0f%%", row->flops / row->median * 1e-9, 100 * row->peak_share);
    }
    if (row->bytes > 0) {
        printf(" %7.2f GB/s", row->bytes / row->median * 1e-9);
    }
    if (row->peer) {
        printf("  %s %.1f us, ratio %.2f", row->peer, row->peer_median * 1e6,
               row->peer_median / row->median);
    }
    printf("\n");
    fflush(stdout);
}

static void machine_name(char *name, size_t size) {
    snprintf(name, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n\"\\"), colon + 2);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

// The storage type is the word of the shape that names one; f32 where none does.
static const char *dtype_of(const char *shape) {
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        const char *name = dtype_name(t), *at = strstr(shape, name);
        const char after = at ? at[strlen(name)] : 'x';
        if (at && at > shape && at[-1] == ' ' && (after == ' ' || after == '\0')) {
            return name;
        }
    }
    return dtype_name(DT_F32);
}

static void write_row(const Row *row) {
    char machine[128];
    machine_name(machine, sizeof machine);
    fprintf(json,
            "{\"bench\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\",\"threads\":%d,\"samples\":%d,"
            "\"median_us\":%.3f,\"p5_us\":%.3f,\"p95_us\":%.3f,\"flops\":%.0f,\"bytes\":%.0f",
            current, row->shape, dtype_of(row->shape), bench_threads(), row->samples,
            row->median * 1e6, row->low * 1e6, row->high * 1e6, row->flops, row->bytes);
    if (row->flops > 0) {
        fprintf(json, ",\"peak_share\":%.4f", row->peak_share);
    }
    if (row->peer) {
        fprintf(json, ",\"peer\":\"%s\",\"peer_median_us\":%.3f,\"ratio\":%.4f", row->peer,
                row->peer_median * 1e6, row->peer_median / row->median);
    }
    fprintf(json, ",\"machine\":\"%s\",\"commit\":\"%s\"}\n", machine, version_commit);
    fflush(json);
}

void bench_time(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                const char *peer_name, bench_fn *peer, void *peer_ctx) {
    static double ours[MAX_SAMPLES], theirs[MAX_SAMPLES];
    const double warm = seconds_now();
    while (seconds_now() - warm < 0.1 * seconds) {
        run(ctx);
        if (peer) {
            peer(peer_ctx);
        }
    }
    int n = 0;
    const double start = seconds_now();
    while (n < MAX_SAMPLES && (n < 5 || seconds_now() - start < seconds)) {
        ours[n] = time_once(run, ctx);
        theirs[n] = peer ? time_once(peer, peer_ctx) : 0;
        n++;
    }
    qsort(ours, (size_t)n, sizeof *ours, by_value);
    qsort(theirs, (size_t)n, sizeof *theirs, by_value);
    Row row = {.shape = shape, .samples = n, .median = ours[n / 2], .low = ours[n / 20],
               .high = ours[n - 1 - n / 20], .flops = flops, .bytes = bytes,
               .peer = peer ? peer_name : NULL, .peer_median = theirs[n / 2]};
    row.peak_share = flops > 0 ? flops / row.median / bench_peak_flops(bench_threads()) : 0;
    print_row(&row);
    if (json) {
        write_row(&row);
    }
}

// ---- the program ----
static void parse_arguments(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "threads=", 8) == 0) {
            threads = atoi(argv[i] + 8);
        } else if (strncmp(argv[i], "seconds=", 8) == 0) {
            seconds = atof(argv[i] + 8);
        } else if (strncmp(argv[i], "json=", 5) == 0) {
            json = fopen(argv[i] + 5, "w");
            if (!json) {
                die(EXIT_NO_OUTPUT, "%s: cannot write", argv[i] + 5);
            }
        } else {
            pattern = argv[i];
        }
    }
}

int main(int argc, char **argv) {
    device_threads_sleep(argv);
    parse_arguments(argc, argv);
#define X(op) bench_register(#op, bench_##op);
    OPS(X)
#undef X
    printf("device: %s\n", device_name(bench_device()));
    for (int i = 0; i < bench_count; i++) {
        if (strstr(benches[i].name, pattern)) {
            current = benches[i].name;
            benches[i].body();
        }
    }
    return json ? fclose(json) : 0;
}
