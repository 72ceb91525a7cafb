// check: the test harness; see check.h.
#define _GNU_SOURCE
#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/verbs.h"
#include "host/version.h"

#define MAX_TESTS 1024
#define MOST_OPERATIONS 1e6 // of a case in the emulator, unless large=1
#ifdef IS_SLOW_BUILD // under sanitizers
#define SLOWNESS 6
#else
#define SLOWNESS 1
#endif

// ---- the list of tests ----
#define X(op) void test_##op(void);
OPS(X)
#undef X

typedef struct {
    const char *name;
    void (*body)(void);
    Backends backends;
    bool is_op;
} Test;
static Test tests[MAX_TESTS];
static int test_count;

void check_register(const char *name, void (*body)(void), Backends backends) {
    CHECK(test_count < MAX_TESTS, "more than %d tests", MAX_TESTS);
    tests[test_count++] = (Test){name, body, backends, false};
}

static void register_ops(void) {
#define X(op)                                                                                      \
    check_register(#op, test_##op, ON_ALL);                                                        \
    tests[test_count - 1].is_op = true;
    OPS(X)
#undef X
}

static int by_name(const void *a, const void *b) {
    const Test *x = a, *y = b;
    if (x->is_op != y->is_op) {
        return x->is_op ? -1 : 1; // ops first: what fails low fails high too
    }
    return strcmp(x->name, y->name);
}

// ---- state shared between the runner and the child that runs a test ----
typedef struct {
    int passed, failed, skipped;
    int case_number; // cases of this test begun so far, in this child
    int resume_at;   // cases below this number were done by an earlier child
    bool is_open, is_failed, is_skipped;
    char case_name[240];
    int limit;       // seconds
} Shared;
static Shared *shared;
static const Test *current;
static char test_pattern[256];         // part of the test's name
static const char *case_pattern = "";  // part of the case's name; set: the test's name is whole
static uint64_t seed = 20260101;
static int threads = 1;
static const char *part = ""; // of part=NAME
static bool is_large, is_listing, lists_cases;
static DeviceKind backend = DEVICE_CPU;
static const char *program;
static const char *fixtures = "tests/data"; // of fixtures=DIR
static FILE *record; // of record=FILE, or NULL
static char tmpdir[1024];
static const char *keep; // of keep=DIR, or NULL

static const char *backend_name(void) {
    return backend == DEVICE_CPU ? "cpu" : backend == DEVICE_EMU ? "emu" : "cuda";
}

static void close_case(void) {
    if (!shared->is_open) {
        return;
    }
    shared->is_open = false;
    if (shared->is_failed) {
        shared->failed++;
        fprintf(stderr, "FAIL %s/%s\n  rerun: %s '%s/%s' seed=%llu threads=%d%s%s%s\n",
                current->name, shared->case_name, program, current->name, shared->case_name,
                (unsigned long long)seed, threads, is_large ? " large=1" : "",
                backend == DEVICE_CPU ? "" : " backend=",
                backend == DEVICE_CPU ? "" : backend_name());
    } else if (shared->is_skipped) {
        shared->skipped++;
    } else {
        shared->passed++;
    }
}

bool check_case(const char *fmt, ...) {
    close_case();
    va_list args;
    va_start(args, fmt);
    vsnprintf(shared->case_name, sizeof shared->case_name, fmt, args);
    va_end(args);
    const int number = shared->case_number++;
    char full[512];
    snprintf(full, sizeof full, "%s/%s", current->name, shared->case_name);
    if (!strstr(shared->case_name, case_pattern) || number < shared->resume_at) {
        return false;
    }
    if (is_listing) {
        puts(full);
        return false;
    }
    shared->is_open = true;
    shared->is_failed = shared->is_skipped = false;
    alarm((unsigned)shared->limit);
    return true;
}

// A test whose body calls CASE never is one case, opened on first use.
static void open_default_case(void) {
    if (!shared->is_open && shared->case_number == 0) {
        check_case("whole");
    }
}

void check_skip(const char *fmt, ...) {
    open_default_case();
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    shared->is_skipped = true;
    fprintf(stderr, "skip %s/%s: %s\n", current->name, shared->case_name, text);
}

// The emulator takes up to a hundred times as long as the CPU's ops.
static int limit_of(int seconds) { return seconds * SLOWNESS * (backend == DEVICE_EMU ? 4 : 1); }

void check_time_limit(int seconds) {
    shared->limit = limit_of(seconds);
    alarm((unsigned)shared->limit);
}

bool check_is_large(void) { return is_large; }
bool check_affords(double operations) {
    return backend != DEVICE_EMU || is_large || operations <= MOST_OPERATIONS;
}
uint64_t check_seed(void) { return seed; }

Rng check_rng(uint32_t sample) {
    return rng_new(seed, RNG_TEST, (uint32_t)xxh64(current->name, strlen(current->name), 0),
                   sample);
}

void check_fail(const char *file, int line, const char *condition, const char *fmt, ...) {
    open_default_case();
    shared->is_failed = true;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(stderr, "%s:%d: %s/%s: %s: %s\n", file, line, current->name, shared->case_name,
            condition, text);
}

// ---- expectations ----
void expect_within(const char *what, const double *got, const double *want, size_t n,
                   double bound) {
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(got[i] - want[i]) <= bound)) {
            check_fail(__FILE__, __LINE__, what, "[%zu] is %.9g, want %.9g, off by %.3g > %.3g", i,
                       got[i], want[i], fabs(got[i] - want[i]), bound);
            return;
        }
    }
}

void expect_exact(const char *what, const double *got, const double *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])))) {
            check_fail(__FILE__, __LINE__, what, "[%zu] is %.9g, want exactly %.9g", i, got[i],
                       want[i]);
            return;
        }
    }
}

void expect_ulp(const char *what, const double *got, const double *want, size_t n, DType t,
                double ulps) {
    const int digits = t == DT_F32 ? 24 : t == DT_BF16 ? 8 : 11; // of the significand
    const int smallest = t == DT_F16 ? -14 : -126;               // exponent of the least normal
    for (size_t i = 0; i < n; i++) {
        if (got[i] == want[i] || (isnan(got[i]) && isnan(want[i]))) {
            continue;
        }
        int exponent;
        frexp(want[i], &exponent); // |want| = f 2^exponent, 1/2 <= f < 1
        exponent = exponent - 1 < smallest ? smallest : exponent - 1;
        const double ulp = ldexp(1.0, exponent - digits + 1);
        if (!(fabs(got[i] - want[i]) <= ulps * ulp)) {
            check_fail(__FILE__, __LINE__, what, "[%zu] is %.9g, want %.9g: %.3g ulp of %s > %.3g",
                       i, got[i], want[i], fabs(got[i] - want[i]) / ulp, dtype_name(t), ulps);
            return;
        }
    }
}

void expect_sum(const char *what, const double *got, const double *f64, const double *plain,
                size_t n) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        worst = check_worst(worst, fabs(plain[i] - f64[i]));
        largest = check_worst(largest, fabs(f64[i]));
    }
    EXPECT(isfinite(worst) && isfinite(largest), "%s: the reference itself is not finite", what);
    expect_within(what, got, f64, n, 2 * worst + 1e-7 * largest);
}

void expect_gradient(const char *what, const double *grad, double *x, size_t n,
                     double (*loss)(void *ctx), void *ctx, int probes) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(grad[i]));
    }
    const size_t step = n > (size_t)probes ? n / (size_t)probes : 1;
    for (size_t i = 0; i < n; i += step) {
        // Two steps of Richardson extrapolation: the error is O(h^4) and rounding about 1e-16/h.
        const double x0 = x[i], h = 1e-4 * fmax(1.0, fabs(x0));
        double slope[2];
        for (int k = 0; k < 2; k++) {
            const double hk = k ? h / 2 : h;
            x[i] = x0 + hk;
            const double up = loss(ctx);
            x[i] = x0 - hk;
            const double down = loss(ctx);
            slope[k] = (up - down) / (2 * hk);
        }
        x[i] = x0;
        const double want = (4 * slope[1] - slope[0]) / 3;
        if (!(fabs(grad[i] - want) <= 1e-6 * fmax(largest, 1e-3) + 1e-5 * fabs(want))) {
            check_fail(__FILE__, __LINE__, what, "gradient [%zu] is %.9g, differences say %.9g", i,
                       grad[i], want);
            return;
        }
    }
}

// By the definition of the formats, in double, so that no test leans on the conversions of dtype.c.
double check_round(DType t, double x) {
    const double value = (double)(float)x;
    if (t == DT_F32 || value == 0 || !isfinite(value)) {
        return value;
    }
    const int digits = t == DT_BF16 ? 8 : 11, least = t == DT_BF16 ? -126 : -14;
    int exponent;
    frexp(value, &exponent); // |value| = f 2^exponent, 1/2 <= f < 1
    exponent = exponent - 1 < least ? least : exponent - 1;
    const double unit = ldexp(1, exponent - digits + 1);
    const double rounded = nearbyint(value / unit) * unit; // to nearest, ties to even
    const double end = t == DT_BF16 ? 0x1p128 : 0x1p16;
    return fabs(rounded) >= end ? copysign(INFINITY, value) : rounded;
}

int check_child(void (*run)(void), char *text, size_t size) {
    int ends[2];
    CHECK(pipe(ends) == 0, "pipe");
    const pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        run();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], text + used, size - 1 - used)) > 0;) {
        used += (size_t)got;
    }
    text[used] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void expect_abort(const char *what, void (*run)(void)) {
    char text[1000];
    EXPECT(check_child(run, text, sizeof text) == CHECK_ABORTED, "%s does not stop the program: %s",
           what, text);
}

// ---- the device under test ----
Device *check_device(void) {
    static Device *dev;
    if (!dev) {
        dev = device_new(backend, 0, threads);
    }
    return dev;
}

Device *check_device_threads(int count) {
    static Device *devs[65];
    CHECK(count >= 1 && count <= 64, "count=%d", count);
    if (backend != DEVICE_CPU) {
        return check_device();
    }
    if (!devs[count]) {
        devs[count] = device_new(backend, 0, count);
    }
    return devs[count];
}

const Ops *check_ops(void) { return device_ops(check_device()); }

// ---- data and programs ----
static char *next_path(void) {
    static char paths[8][1024];
    static int turn;
    return paths[turn++ % 8];
}

const char *check_data(const char *path) {
    const char *root = getenv("JOMED_TEST_DATA"), *require = getenv("REQUIRE");
    char *full = next_path();
    snprintf(full, 1024, "%s/%s", root ? root : "../shared/data", path);
    if (access(full, R_OK) == 0) {
        return full;
    }
    if (require && strstr(require, "data")) {
        check_fail(__FILE__, __LINE__, "REQUIRE=data", "'%s' is not there", full);
    } else {
        check_skip("no test data at '%s'; set JOMED_TEST_DATA", full);
    }
    return NULL;
}

const char *check_fixture(const char *path) {
    char *full = next_path();
    snprintf(full, 1024, "%s/%s", fixtures, path);
    EXPECT(access(full, R_OK) == 0, "fixture '%s' is not there; run from the source directory",
           full);
    return full;
}

const char *check_tmpdir(void) {
    if (!tmpdir[0] && keep) {
        snprintf(tmpdir, sizeof tmpdir, "%s/%s", keep, current->name);
        CHECK(mkdir(tmpdir, 0777) == 0, "%s: %s", tmpdir, strerror(errno));
    } else if (!tmpdir[0]) {
        strcpy(tmpdir, "/tmp/jomed-test-XXXXXX");
        CHECK(mkdtemp(tmpdir), "mkdtemp: %s", strerror(errno));
    }
    return tmpdir;
}

static void remove_tmpdir(void) {
    if (tmpdir[0] && !keep) {
        char command[1040];
        snprintf(command, sizeof command, "rm -rf '%s'", tmpdir);
        const int rc = system(command);
        (void)rc; // what stays behind is only a temporary directory
    }
}

const char *check_program(void) {
    static char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 8);
    CHECK(n > 0, "readlink: %zd", n);
    path[n] = '\0';
    strcpy(strrchr(path, '/') + 1, "jomed");
    return path;
}

const char *check_device_program(void) {
    static char command[4200];
    if (backend != DEVICE_EMU) {
        return check_program();
    }
    const ssize_t n = readlink("/proc/self/exe", command, sizeof command - 8);
    CHECK(n > 0, "readlink: %zd", n);
    strcpy(command + n, "' 'jomed"); // both between the caller's quotes
    return command;
}

int check_run(char **output, const char *fmt, ...) {
    char command[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    char *whole = xformat_new("exec 2>&1; ( %s )", command);
    fflush(NULL);
    FILE *pipe = popen(whole, "r");
    CHECK(pipe, "popen: %s", strerror(errno));
    free(whole);
    size_t used = 0, room = 4096;
    char *text = xmalloc(room, 1);
    for (size_t got; (got = fread(text + used, 1, room - used - 1, pipe)) > 0;) {
        used += got;
        if (room - used < 2) {
            room *= 2;
            text = xrealloc(text, room, 1);
        }
    }
    text[used] = '\0';
    const int status = pclose(pipe);
    if (output) {
        *output = text;
    } else {
        free(text);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// ---- running ----
static void run_child(const Test *test) {
    current = test;
    shared->case_number = 0;
    alarm((unsigned)shared->limit);
    test->body();
    if (!is_listing) {
        open_default_case(); // no CASE and no expectation failed: one passed case
    } else if (shared->case_number == 0) {
        puts(test->name);
    }
    close_case();
    remove_tmpdir();
    fflush(NULL);
    _exit(0);
}

static void run_test(const Test *test) {
    current = test;
    shared->resume_at = 0;
    shared->limit = limit_of(60);
    for (;;) {
        fflush(NULL);
        shared->is_open = false;
        const pid_t pid = fork();
        CHECK(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0) {
            run_child(test);
        }
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return;
        }
        if (!shared->is_open) { // died between cases or before the first one
            shared->is_open = true;
            snprintf(shared->case_name, sizeof shared->case_name, "whole");
        }
        shared->is_failed = true;
        fprintf(stderr, "%s/%s: %s %d\n", test->name, shared->case_name,
                WIFSIGNALED(status)
                    ? (WTERMSIG(status) == SIGALRM ? "time limit, signal" : "killed by signal")
                    : "exited with code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        close_case();
        if (shared->case_number <= shared->resume_at || strcmp(shared->case_name, "whole") == 0) {
            return; // no further case to go on with
        }
        shared->resume_at = shared->case_number;
    }
}

// ---- the record of a run: what tools/verification_table.sh reads ----
static void open_record(const char *path) {
    record = fopen(path, "w");
    if (!record) {
        die(EXIT_NO_OUTPUT, "cannot write '%s': %s", path, strerror(errno));
    }
    setvbuf(record, NULL, _IOLBF, 0); // a run that is ended leaves what it knew
    fprintf(record, "# backend=%s seed=%llu threads=%d, %s\n", backend_name(),
            (unsigned long long)seed, threads, version_build);
}

static void record_test(const Test *test, Shared before) {
    if (record && !is_listing) {
        char date[16];
        const time_t now = time(NULL);
        strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
        fprintf(record, "%s %d %d %d %s %s\n", test->name, shared->passed - before.passed,
                shared->failed - before.failed, shared->skipped - before.skipped, date,
                version_commit);
    }
}

static const char *part_of(const Test *test) {
    return test->is_op ? "ops" : strncmp(test->name, "programs_", 9) == 0 ? "programs" : "models";
}

static void parse_arguments(int argc, char **argv) {
    const char *record_path = NULL;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--list") == 0) {
            is_listing = true;
        } else if (strncmp(a, "seed=", 5) == 0) {
            seed = strtoull(a + 5, NULL, 10);
        } else if (strncmp(a, "threads=", 8) == 0) {
            threads = atoi(a + 8);
        } else if (strncmp(a, "record=", 7) == 0) {
            record_path = a + 7;
        } else if (strncmp(a, "keep=", 5) == 0) {
            keep = a + 5;
        } else if (strncmp(a, "part=", 5) == 0) {
            part = a + 5;
        } else if (strncmp(a, "fixtures=", 9) == 0) {
            fixtures = a + 9;
        } else if (strcmp(a, "large=1") == 0) {
            is_large = true;
        } else if (strncmp(a, "backend=", 8) == 0) {
            backend = strcmp(a + 8, "cuda") == 0  ? DEVICE_CUDA
                      : strcmp(a + 8, "emu") == 0 ? DEVICE_EMU
                                                  : DEVICE_CPU;
        } else {
            const char *slash = strchr(a, '/');
            snprintf(test_pattern, sizeof test_pattern, "%.*s",
                     (int)(slash ? slash - a : (long)strlen(a)), a);
            case_pattern = slash ? slash + 1 : "";
            lists_cases = slash != NULL;
        }
    }
    if (record_path) {
        open_record(record_path); // last: its first line says what all the others set
    }
}

// Read by the address sanitizer: too much memory is refused, as without it, and ends no test.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

int main(int argc, char **argv) {
    device_threads_sleep(argv);
    if (argc > 1 && strcmp(argv[1], "jomed") == 0) {
        device_emulate_cuda();
        return command_line_run(argc - 1, argv + 1);
    }
    program = argv[0];
    parse_arguments(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED, "mmap: %s", strerror(errno));
    register_ops();
    qsort(tests, (size_t)test_count, sizeof *tests, by_name);
    const double start = seconds_now();
    for (int i = 0; i < test_count; i++) {
        if ((part[0] && strcmp(part, part_of(&tests[i])) != 0) ||
            (!test_pattern[0] &&
             tests[i].backends == (backend == DEVICE_CPU ? NOT_CPU : ON_CPU))) {
            continue;
        }
        if (case_pattern[0] ? strcmp(tests[i].name, test_pattern) == 0
                            : strstr(tests[i].name, test_pattern) != NULL) {
            if (is_listing && !lists_cases) { // cases are known only by running the body
                puts(tests[i].name);
                continue;
            }
            const double before = seconds_now();
            const Shared counts = *shared;
            run_test(&tests[i]);
            record_test(&tests[i], counts);
            const double took = seconds_now() - before;
            if (took > 5) {
                fprintf(stderr, "%6.1f s  %s\n", took, tests[i].name);
            }
        }
    }
    if (is_listing) {
        return 0;
    }
    fprintf(stderr, "seed=%llu, %.1f s\n", (unsigned long long)seed, seconds_now() - start);
    if (shared->passed + shared->failed + shared->skipped == 0) {
        fprintf(stderr, "no case matches '%s/%s'\n", test_pattern, case_pattern);
        return EXIT_SYNTAX;
    }
    if (record && fclose(record) != 0) {
        die(EXIT_IO, "cannot write the record: %s", strerror(errno));
    }
    printf("%d passed, %d failed, %d skipped\n", shared->passed, shared->failed, shared->skipped);
    return shared->failed > 0;
}
