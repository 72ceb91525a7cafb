// base: what every file of jomed leans on: how it stops, how it logs, how it multiplies sizes.
//
//   die(code, ...)    user or machine at fault: one line on stderr, then exit(code)
//   CHECK(cond, ...)  our own bug: file, line, condition, values, then abort(); never compiled out
//   Error             what parsers and readers return, so that they can be fuzzed
//   LOG(level, ...)   one line on stderr with the time; results go to stdout, chatter goes here
//
// Every line names host and rank in front when there are several (base_set_rank).
// Source of the split between die and BUG: git's Documentation/CodingGuidelines.
#ifndef JOMED_KERNELS_BASE_H
#define JOMED_KERNELS_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Functions of a header that CPU code and CUDA kernels share.
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---- exit codes ----
// One code per kind of fault, so that a job script can decide (sysexits(3) where it has a name).
typedef enum {
    EXIT_OK = 0,
    EXIT_SYNTAX = 64,        // wrong verb or command line
    EXIT_BAD_DATA = 65,      // a file that is there but wrong
    EXIT_NO_INPUT = 66,      // a file that is not there
    EXIT_NO_DEPENDENCY = 69, // a library or a program is missing
    EXIT_INTERNAL = 70,      // our bug
    EXIT_RESOURCE = 71,      // memory, threads, GPU
    EXIT_NO_OUTPUT = 73,     // cannot create output, or the run directory is locked
    EXIT_IO = 74,            // read or write failed on the way, disk full
    EXIT_PREEMPTED = 75,     // stopped on request, the checkpoint is safe: restart me
    EXIT_PEER_LOST = 76,     // another rank went away
    EXIT_DIVERGED = 77,      // the loss is not a number any more
    EXIT_CONFIG = 78,        // anything about keys or values
} ExitCode;

// ---- stopping ----
// Writes "error: <text>" (host and rank first when there are several) and exits with code.
// Text: lower case, no full stop, "file:place: what; remedy", subject in 'quotes'.
void die(ExitCode code, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void check_failed(const char *file, int line, const char *condition, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 4, 5)));
#define CHECK(condition, ...)                                              \
    do {                                                                   \
        if (!(condition)) {                                                \
            check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);     \
        }                                                                  \
    } while (0)
// CHECKs that none of an op's pointers is null; the message names the op and the argument:
// CHECK_POINTERS(rope_fwd, x, cosine, sine). Arguments that may be null are not named.
#define CHECK_POINTERS(op, ...)                                            \
    do {                                                                   \
        const void *const check_list[] = {__VA_ARGS__};                    \
        check_pointers(__FILE__, __LINE__, #op, #__VA_ARGS__, check_list,  \
                       sizeof check_list / sizeof check_list[0]);          \
    } while (0)
void check_pointers(const char *file, int line, const char *op, const char *names,
                    const void *const *pointer, size_t count);

// ---- errors of parsers and readers ----
// code 0 means success; offset is the byte (or, where the contract says so, the line) of the fault,
// or ERROR_NOWHERE. The text does not name the file: error_die does; control characters become '?'.
#define ERROR_NOWHERE SIZE_MAX
typedef struct {
    ExitCode code;
    size_t offset;
    char text[216];
} Error;
Error error_none(void);
Error error_at(ExitCode code, size_t offset, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// Dies with "file:offset: text" (or "file: text") when error holds one; returns otherwise.
void error_die(const char *file, Error error);

// ---- logging ----
typedef enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG } LogLevel;
#define LOG(level, ...) log_line(LOG_##level, __VA_ARGS__)
void log_line(LogLevel level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_set_level(LogLevel level);      // lines above this level are dropped; default LOG_INFO
void log_set_file(int fd);               // every line also goes there; -1, the default: nowhere
// On a terminal: one live line on stderr, which the next log_live or log line replaces.
void log_live(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void base_set_rank(int rank, int world); // world > 1: lines start with host and rank

// ---- memory and sizes ----
// Dies with EXIT_RESOURCE when memory is out. Count and size are multiplied with a check.
void *xmalloc(size_t count, size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t count, size_t size);
char *xstrdup(const char *text);
char *xformat_new(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *xformat_args_new(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));
// False, and *out untouched, when the result does not fit.
bool size_mul(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

// ---- time ----
double seconds_now(void); // monotonic clock, seconds

// ---- random numbers ----
// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): four 32-bit
// words from a 128-bit counter and a 64-bit key. Same key and counter, same words, everywhere.
// Who draws for what is decided by RngStream, so that no two uses share a counter.
typedef enum {
    RNG_INIT = 1,      // parameter initialisation; step = tensor number
    RNG_LORA_INIT = 2, // adapter initialisation
    RNG_ORDER = 3,     // order of samples; step = epoch
    RNG_BALANCE = 4,   // class-balanced sampling
    RNG_DEMO = 5,      // the demo world; step = which set
    RNG_GENERATE = 6,  // sampling of tokens
    RNG_BOOTSTRAP = 7, // resampling in the analysis
    RNG_TEST = 8,      // inputs of tests and benches
    RNG_BASELINE = 9,  // random retrieval and other controls
    RNG_TRAIN = 10,    // choices inside a training step (closed-book prompts, forced findings)
} RngStream;
void philox4x32(uint32_t out[4], uint64_t key, const uint32_t counter[4]);
// A cursor over one stream: words come from counter (stream, step, sample, index).
typedef struct {
    uint64_t key;
    uint32_t counter[4]; // stream, step, sample, index of the next block
    uint32_t words[4];   // words of the current block not handed out yet
    int left;            // how many of them
    double spare;        // second normal deviate of the last Box-Muller pair
    bool has_spare;
} Rng;
Rng rng_new(uint64_t seed, RngStream stream, uint32_t step, uint32_t sample);
uint32_t rng_u32(Rng *rng);
double rng_uniform(Rng *rng);            // [0, 1), 53 bits
double rng_normal(Rng *rng);             // N(0, 1), Box-Muller
uint32_t rng_below(Rng *rng, uint32_t n); // uniform 0..n-1, without bias; n >= 1

// ---- hash ----
// XXH64 (Collet, xxHash specification 0.1.1): keys caches and checks our own files. Not collision
// proof against an enemy.
uint64_t xxh64(const void *data, size_t size, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
