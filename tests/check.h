// check: the test harness. One binary, one case at a time in a forked child, no test that cannot
// fail.
//
//   build/bin/test [--list] [pattern] [backend=cpu|emu|cuda] [seed=N] [threads=N] [large=1]
//                  [part=ops|models|programs] [record=FILE] [keep=DIR] [fixtures=DIR]
//
// A test is a function: TEST(config_duplicate_key) { ... } for models and host, TEST_OP(topk) { ...
// } for an op of the OPS list. It divides itself into cases:
//
//     for (...) if (CASE("N=%d C=%d t=%s", N, C, dtype_name(t))) { ... }
//
// A pattern "word" selects the tests whose name contains it, "test/word" the cases of one test
// whose name contains it; the line printed for a failure reruns exactly that case. --list prints
// tests, and with a pattern "test/" their cases, which takes running what stands around them.
// part=ops: the ops alone; programs: what runs jomed; models: all the rest.
// record=FILE writes one line per test that ran: name, cases passed, failed, skipped, date, commit.
// keep=DIR: what a test writes into its check_tmpdir goes to DIR/TEST and stays, to be looked at.
// fixtures=DIR is read instead of tests/data (tools/test_oracle.sh makes fixtures anew).
// A test without CASE counts as one case. A crash or a time-out fails the case it happened in, and
// the test goes on with the next one. A skip is counted and says why; it is never a pass.
#ifndef JOMED_TESTS_CHECK_H
#define JOMED_TESTS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base.h"
#include "kernels/ops.h"

// ---- tests and cases ----
#define TEST_BODY(name, backends)                                                                  \
    static void check_body_##name(void);                                                           \
    __attribute__((constructor)) static void check_register_##name(void) {                         \
        check_register(#name, check_body_##name, backends);                                        \
    }                                                                                              \
    static void check_body_##name(void)
#define TEST(name) TEST_BODY(name, ON_CPU)
#define TEST_DEVICE(name) TEST_BODY(name, ON_ALL) // like an op, for every backend
#define TEST_OP(op)                                                                                \
    void test_##op(void);                                                                          \
    void test_##op(void)
// Where a test runs when no pattern names it.
typedef enum { ON_CPU, ON_ALL, NOT_CPU } Backends;
void check_register(const char *name, void (*body)(void), Backends backends);
#define CASE(...) check_case(__VA_ARGS__)
bool check_case(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void check_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2))); // this case; goes on
void check_time_limit(int seconds); // for the rest of this test; default 60; sanitizers: 6 x
bool check_is_large(void);          // large=1 was given: also run the slow shapes
bool check_affords(double operations); // false for a large case in the emulator without large=1
uint64_t check_seed(void);
Rng check_rng(uint32_t sample); // a stream of this test's seed

// ---- expectations ----
// All count a failure, print what differed, and go on; NaN never passes.
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            check_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                               \
        }                                                                                          \
    } while (0)
void check_fail(const char *file, int line, const char *condition, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
// |got - want| <= bound for every element.
void expect_within(const char *what, const double *got, const double *want, size_t n, double bound);
// Class "exact": equal values (-0 equals 0, NaN equals NaN).
void expect_exact(const char *what, const double *got, const double *want, size_t n);
// Class "ulp": within `ulps` units in the last place of type t at the wanted value (f32 errors
// below `ulps32` f32 ulps are added for t = f32 only by passing them as ulps).
void expect_ulp(const char *what, const double *got, const double *want, size_t n, DType t,
                double ulps);
// Class "sum": max |got - f64| <= 2 max |plain - f64| + 1e-7 max |f64|, where `plain` is the plain
// f32 loop rounded to t like the op.
void expect_sum(const char *what, const double *got, const double *f64, const double *plain,
                size_t n);
// A gradient in double precision against central differences of loss(ctx) in double precision;
// x (n) is perturbed in place and restored. At most `probes` elements are tried, spread evenly.
void expect_gradient(const char *what, const double *grad, double *x, size_t n,
                     double (*loss)(void *ctx), void *ctx, int probes);
// Runs run() in a child; text (size bytes) gets what it says on stderr. Returns its exit code, or
// 128 + the signal that ended it. A GPU's context does not outlive the fork.
int check_child(void (*run)(void), char *text, size_t size);
#define CHECK_ABORTED (128 + 6) // by a failed CHECK
void expect_abort(const char *what, void (*run)(void)); // run() ends so

// The larger of two distances, and NaN if either is NaN (fmax would pass it over).
static inline double check_worst(double a, double b) { return a >= b || a != a ? a : b; }

// ---- references ----
// A reference loop is written once, every step through check_step: in double it is the oracle, in
// f32 the plain loop of class "sum" (a double holds any one f32 operation exactly enough to round
// it).
typedef enum { IN_F64, IN_F32 } Precision;
static inline double check_step(Precision p, double x) {
    return p == IN_F32 ? (double)(float)x : x;
}
double check_round(DType t, double x); // x rounded to f32 and then to t, as a store does

// ---- device buffers with guard bands ----
Device *check_device(void); // the backend under test, opened once
Device *check_device_threads(int threads); // the same with so many threads, where it has threads
const Ops *check_ops(void);
// n elements on the device between two guard bands, and a mirror in double on the host.
typedef struct {
    DType t;
    size_t n;
    void *dev;    // pass this to ops
    double *host; // what was written, or what buf_read brought back
    void *block;  // device block with its guard bands
} Buf;
Buf buf_normal(DType t, size_t n, double sd, Rng *rng); // N(0, sd), rounded to t
Buf buf_from(DType t, const double *values, size_t n);  // rounded to t; host holds rounded values
Buf buf_fill(DType t, size_t n, double value);          // NAN for outputs that must be assigned
void buf_write(Buf *buf);                               // host (rounded to t) to device
const double *buf_read(Buf *buf);                       // device to host; checks the guard bands
float *buf_f32(Buf *buf);                               // dev as float *, CHECKs the type
void buf_free(Buf *buf);
typedef struct {
    size_t n;
    int32_t *dev, *host;
    void *block;
} IntBuf;
IntBuf ibuf_from(const int32_t *values, size_t n);
IntBuf ibuf_fill(size_t n, int32_t value);
const int32_t *ibuf_read(IntBuf *buf);
void ibuf_free(IntBuf *buf);

// ---- data and programs ----
// Path of a file of the test data (JOMED_TEST_DATA, else ../shared/data), or NULL after counting a
// skip, or a failure when REQUIRE names data. The string lives until the next call but seven.
const char *check_data(const char *path);
const char *check_fixture(const char *path); // a file under tests/data; fails when absent
// A fresh empty directory, removed when the test ends.
const char *check_tmpdir(void);
// Runs a command line by /bin/sh; returns the exit code (128 + signal if killed) and, in *output
// (caller frees; may be NULL), stdout and stderr together.
const char *check_program(void); // path of jomed, beside the test binary
// Where the emulated device is under test: the test binary itself, as `test jomed ARGUMENTS`, which
// is jomed with that device in place of the GPU. Else jomed.
const char *check_device_program(void);
int check_run(char **output, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
