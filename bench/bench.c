// bench: the timing harness; see bench.h.
#define _POSIX_C_SOURCE 200809L
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/sampled.h"
#include "host/version.h"

#define MAX_BENCHES 256
#define MAX_SAMPLES 4096
#define GPU_SAMPLES 30     // at least
#define LONG_SECONDS 0.25  // a call that takes longer is timed LONG_SAMPLES times: records have
#define LONG_SAMPLES 15    // two rounds
#define BATCH_SECONDS 2e-3 // of a GPU's sample at least, so that its two events cost nothing
#define PERIOD 1048583 // of normal deviates: a prime, so that no two rows of a matrix are equal

#define X(op) void bench_##op(void);
OPS(X)
#undef X

static struct {
    const char *name;
    void (*body)(void);
    bool is_real;
} benches[MAX_BENCHES];
static int bench_count;
static const char *pattern = "", *current = "";
static const char *const backends[] = {"cpu", "cuda", "emu"}; // by DeviceKind
static DeviceKind backend = DEVICE_CPU;
static DType dtype = DT_BF16;
static int threads, shrink = 1;
static double seconds = 1.0, warm_seconds = -1; // -1: the default of the backend
static bool is_warm;                            // after the first row
static double took; // what the last call of a peer says of itself, or less than 0
static FILE *json;

void bench_register(const char *name, void (*body)(void)) {
    CHECK(bench_count < MAX_BENCHES, "more than %d benches", MAX_BENCHES);
    benches[bench_count].name = name;
    benches[bench_count++].body = body;
}

void bench_register_real(const char *name, void (*body)(void)) {
    bench_register(name, body);
    benches[bench_count - 1].is_real = true;
}

Device *bench_device(void) {
    static Device *dev;
    if (!dev) {
        dev = device_new(backend, 0, threads);
    }
    return dev;
}

const Ops *bench_ops(void) { return device_ops(bench_device()); }
int bench_threads(void) { return device_threads(bench_device()); }
double bench_seconds(void) { return seconds; }
DType bench_dtype(void) { return dtype; }
bool bench_is_shrunk(void) { return shrink > 1; }
int bench_shrunk(int n) { return n > shrink ? n / shrink : 1; }
static bool is_gpu(void) { return backend != DEVICE_CPU; }

int bench_copies(double bytes) {
    const double copies = 2 * (double)device_cache_bytes(bench_device()) / bytes;
    return copies <= 1 ? 1 : copies >= BENCH_COPIES ? BENCH_COPIES : (int)copies + 1;
}

void *bench_zeros(size_t bytes) {
    void *memory = device_alloc(bench_device(), bytes, "bench");
    device_zero(bench_device(), memory, bytes);
    return memory;
}

void bench_release(void *const *memory, size_t count) {
    for (size_t i = 0; i < count; i++) {
        device_release(bench_device(), memory[i]);
    }
}

void bench_fill(DType t, void *memory, size_t n, double sd) {
    static float *deviates; // (PERIOD)
    if (!deviates) {
        deviates = xmalloc(PERIOD, sizeof *deviates);
        Rng rng = rng_new(1, RNG_TEST, 0, 0);
        for (size_t i = 0; i < PERIOD; i++) {
            deviates[i] = (float)rng_normal(&rng);
        }
    }
    const size_t size = dtype_size(t), period = n < PERIOD ? n : PERIOD;
    void *host = xmalloc(period, size);
    for (size_t i = 0; i < period; i++) {
        dtype_store(t, host, i, (float)(sd * deviates[i]));
    }
    for (size_t i = 0; i < n; i += period) {
        device_copy_in(bench_device(), (char *)memory + i * size, host,
                       (n - i < period ? n - i : period) * size);
    }
    free(host);
}

void *bench_normal(DType t, size_t n) {
    void *memory = device_alloc(bench_device(), n * dtype_size(t), "bench");
    bench_fill(t, memory, n, 1);
    return memory;
}

float bench_at(DType t, const void *tensor, size_t i) {
    char element[sizeof(float)];
    device_copy_out(bench_device(), element, dtype_at_const(t, tensor, i), dtype_size(t));
    return dtype_load(t, element, 0);
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

// What is timed: run over the problems of an array in turn.
typedef struct {
    bench_fn *run; // NULL: nothing
    char *first;
    size_t stride;
    int copies, turn;
} Side;

static void run_side(Side *side, int times) {
    for (int i = 0; side->run && i < times; i++) {
        side->run(side->first + side->stride * (size_t)side->turn);
        side->turn = (side->turn + 1) % side->copies;
    }
}

// Seconds of one call: of `batch` together on a GPU.
static double time_once(Side *side, int batch) {
    took = -1;
    device_sync(bench_device());
    if (is_gpu()) {
        device_timer_start(bench_device());
        run_side(side, batch);
        return device_timer_stop(bench_device()) / batch;
    }
    const double start = bench_now(bench_threads());
    run_side(side, 1);
    return took >= 0 ? took : bench_now(bench_threads()) - start;
}

// Runs both sides until the clocks have settled; seconds of one call of `ours`, on a GPU.
static double warm_up(Side *ours, Side *theirs) {
    const double first = warm_seconds >= 0 ? warm_seconds : is_gpu() ? 3 : 0.1 * seconds;
    const double budget = is_gpu() && is_warm ? first / 6 : first, start = seconds_now();
    double once = 0;
    do {
        once = is_gpu() ? time_once(ours, 1) : (run_side(ours, 1), 0);
        run_side(theirs, 1);
        device_sync(bench_device());
    } while (seconds_now() - start < budget);
    is_warm = true;
    return once;
}

// ---- reports ----
// What bench_time found out about one shape.
typedef struct {
    const char *shape;
    int samples;
    int copies, batch;
    double median, low, high, flops, bytes, peak_share; // peak_share: 0 where no ceiling is known
    double error;                                       // sampled_error()
    const char *peer;                                   // or NULL
    double peer_median;
} Row;

static void print_row(const Row *row) {
    printf("%-20s %-34s %10.1f us [%.1f, %.1f]", current, row->shape, row->median * 1e6,
           row->low * 1e6, row->high * 1e6);
    if (row->flops > 0) {
        printf(" %8.2f GFLOP/s", row->flops / row->median * 1e-9);
    }
    if (row->bytes > 0) {
        printf(" %7.2f GB/s", row->bytes / row->median * 1e-9);
    }
    if (row->peak_share > 0) {
        printf(" %3.0f%%", 100 * row->peak_share);
    }
    if (row->peer) {
        printf("  %s %.1f us, ratio %.2f", row->peer, row->peer_median * 1e6,
               row->peer_median / row->median);
    }
    printf("\n");
    fflush(stdout);
}

static void machine_name(char *name, size_t size) {
    snprintf(name, size, "%s", is_gpu() ? device_name(bench_device()) : "unknown");
    if (is_gpu()) {
        return;
    }
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
static DType dtype_of(const char *shape) {
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        const char *name = dtype_name(t), *at = strstr(shape, name);
        const char after = at ? at[strlen(name)] : 'x';
        if (at && at > shape && at[-1] == ' ' && (after == ' ' || after == '\0')) {
            return t;
        }
    }
    return DT_F32;
}

static void write_row(const Row *row) {
    char machine[128];
    machine_name(machine, sizeof machine);
    fprintf(json,
            "{\"bench\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\",\"threads\":%d,\"samples\":%d,"
            "\"median_us\":%.3f,\"p5_us\":%.3f,\"p95_us\":%.3f,\"flops\":%.0f,\"bytes\":%.0f",
            current, row->shape, dtype_name(dtype_of(row->shape)), bench_threads(), row->samples,
            row->median * 1e6, row->low * 1e6, row->high * 1e6, row->flops, row->bytes);
    if (row->peak_share > 0) {
        fprintf(json, ",\"peak_share\":%.4f", row->peak_share);
    }
    if (row->error >= 0) {
        fprintf(json, ",\"error\":%.3g", row->error);
    }
    if (is_gpu()) {
        fprintf(json, ",\"backend\":\"%s\",\"copies\":%d,\"batch\":%d,\"memory\":%zu",
                backends[backend], row->copies, row->batch, device_bytes_in_use(bench_device()));
    }
    if (row->peer) {
        fprintf(json, ",\"peer\":\"%s\",\"peer_median_us\":%.3f,\"ratio\":%.4f", row->peer,
                row->peer_median * 1e6, row->peer_median / row->median);
    }
    fprintf(json, ",\"machine\":\"%s\",\"commit\":\"%s\"}\n", machine, version_commit);
    fflush(json);
}

// The least time that the ceilings allow over the time it took. A CPU's row is set against its
// arithmetic in f32 whatever its type: 16-bit types are widened there.
static double ceiling_share(const Row *row) {
    const double flops = bench_ceiling_flops(is_gpu() ? dtype_of(row->shape) : DT_F32);
    const double bytes = bench_ceiling_bytes();
    const double work = row->flops > 0 && flops > 0 ? row->flops / flops : 0;
    const double traffic = row->bytes > 0 && bytes > 0 ? row->bytes / bytes : 0;
    return (work > traffic ? work : traffic) / row->median;
}

static void time_sides(const char *shape, double flops, double bytes, Side *side,
                       const char *peer_name, Side *peer) {
    static double ours[MAX_SAMPLES], theirs[MAX_SAMPLES];
    const double once = warm_up(side, peer);
    const bool is_short = is_gpu() && once < BATCH_SECONDS, is_real = is_gpu() && shrink == 1;
    const int batch = is_short ? (int)(BATCH_SECONDS / (once + 1e-7)) + 1 : 1;
    const int least = !is_real ? 5 : once > LONG_SECONDS ? LONG_SAMPLES : GPU_SAMPLES;
    int n = 0;
    const double start = seconds_now();
    while (n < MAX_SAMPLES && (n < least || seconds_now() - start < seconds)) {
        ours[n] = time_once(side, batch);
        theirs[n] = peer->run ? time_once(peer, batch) : 0;
        n++;
    }
    qsort(ours, (size_t)n, sizeof *ours, by_value);
    qsort(theirs, (size_t)n, sizeof *theirs, by_value);
    Row row = {.shape = shape, .samples = n, .copies = side->copies, .batch = batch,
               .median = ours[n / 2], .low = ours[n / 20], .high = ours[n - 1 - n / 20],
               .flops = flops, .bytes = bytes, .error = sampled_error(),
               .peer = peer->run ? peer_name : NULL,
               .peer_median = theirs[n / 2]};
    row.peak_share = ceiling_share(&row);
    print_row(&row);
    if (json) {
        write_row(&row);
    }
}

void bench_time(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                const char *peer_name, bench_fn *peer, void *peer_ctx) {
    Side ours = {.run = run, .first = ctx, .copies = 1};
    Side theirs = {.run = peer, .first = peer_ctx, .copies = 1};
    time_sides(shape, flops, bytes, &ours, peer_name, &theirs);
}

void bench_time_turns(const char *shape, double flops, double bytes, bench_fn *run, void *ctx,
                      size_t stride, int copies, const char *peer_name, bench_fn *peer) {
    Side ours = {run, ctx, stride, copies, 0};
    Side theirs = {peer, ctx, stride, copies, 0};
    time_sides(shape, flops, bytes, &ours, peer_name, &theirs);
}

// ---- the program ----
static DeviceKind backend_named(const char *name) {
    for (int kind = DEVICE_CPU; kind <= DEVICE_EMU; kind++) {
        if (strcmp(backends[kind], name) == 0) {
            return (DeviceKind)kind;
        }
    }
    die(EXIT_SYNTAX, "backend=%s: not a backend; cpu or cuda", name);
}

static DType dtype_named(const char *name) {
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        if (strcmp(dtype_name(t), name) == 0) {
            return t;
        }
    }
    die(EXIT_SYNTAX, "dtype=%s: not a type; f32, bf16 or f16", name);
}

static void parse_argument(const char *key, const char *value) {
    if (strcmp(key, "threads") == 0) {
        threads = atoi(value);
    } else if (strcmp(key, "seconds") == 0) {
        seconds = atof(value);
    } else if (strcmp(key, "warm") == 0) {
        warm_seconds = atof(value);
    } else if (strcmp(key, "shrink") == 0) {
        shrink = atoi(value);
    } else if (strcmp(key, "backend") == 0) {
        backend = backend_named(value);
    } else if (strcmp(key, "dtype") == 0) {
        dtype = dtype_named(value);
    } else if (strcmp(key, "json") == 0) {
        json = fopen(value, "w");
        if (!json) {
            die(EXIT_NO_OUTPUT, "%s: cannot write", value);
        }
    } else {
        die(EXIT_SYNTAX, "%s=: not a setting; see bench/bench.h", key);
    }
}

static void parse_arguments(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals) {
            *equals = '\0';
            parse_argument(argv[i], equals + 1);
        } else {
            pattern = argv[i];
        }
    }
}

// A GPU has the real shapes alone; the CPU has them when they are shrunk, and then nothing else.
static bool is_wanted(int i) {
    return benches[i].is_real == (is_gpu() || bench_is_shrunk()) &&
           strstr(benches[i].name, pattern);
}

int main(int argc, char **argv) {
    device_threads_sleep(argv);
    parse_arguments(argc, argv);
#define X(op) bench_register(#op, bench_##op);
    OPS(X)
#undef X
    printf("device: %s\n", device_name(bench_device()));
    for (int i = 0; i < bench_count; i++) {
        if (is_wanted(i)) {
            current = benches[i].name;
            benches[i].body();
        }
    }
    return json ? fclose(json) : 0;
}
