// base: stopping, logging, memory, random numbers and hashing; see base.h.
#define _POSIX_C_SOURCE 200809L
#include "base.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// ---- stopping and logging ----
static int log_rank = 0, log_world = 1;
static LogLevel log_level = LOG_INFO;
static int log_file = -1;
static bool is_live; // a live line stands on the terminal

void base_set_rank(int rank, int world) {
    log_rank = rank;
    log_world = world;
}

void log_set_level(LogLevel level) { log_level = level; }

void log_set_file(int fd) { log_file = fd; }

static const char wipe[] = "\r\x1b[K"; // to the start of the line, and clear it

void log_live(const char *fmt, ...) {
    char line[512];
    const size_t head = sizeof wipe - 1;
    memcpy(line, wipe, head);
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(line + head, sizeof line - head, fmt, args);
    va_end(args);
    const size_t room = sizeof line - head - 1, length = n < 0 ? 0 : (size_t)n;
    const ssize_t done = write(STDERR_FILENO, line, head + (length < room ? length : room));
    is_live = done > 0;
}

// Writes one whole line with a single write(2), so that lines of several processes do not mix.
static void write_line(const char *head, const char *fmt, va_list args) {
    char line[4096];
    size_t used = 0;
    if (log_world > 1) {
        char host[64] = "?";
        gethostname(host, sizeof host - 1);
        used += (size_t)snprintf(line, 128, "%s rank %d: ", host, log_rank);
    }
    used += (size_t)snprintf(line + used, sizeof line - used, "%s", head);
    const int n = vsnprintf(line + used, sizeof line - used - 1, fmt, args);
    used += n < 0 ? 0 : (size_t)n;
    if (used > sizeof line - 2) {
        used = sizeof line - 2;
    }
    line[used++] = '\n';
    ssize_t done = is_live ? write(STDERR_FILENO, wipe, sizeof wipe - 1) : 0;
    is_live = false;
    done = write(STDERR_FILENO, line, used);
    if (log_file >= 0) {
        done = write(log_file, line, used);
    }
    (void)done; // nowhere left to complain
}

void log_line(LogLevel level, const char *fmt, ...) {
    if (level > log_level || (log_rank != 0 && level > LOG_WARN)) {
        return;
    }
    static const char *const names[] = {"error: ", "warning: ", "", ""};
    char head[64];
    const time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    const size_t used = strftime(head, sizeof head, "%H:%M:%S ", &tm);
    snprintf(head + used, sizeof head - used, "%s", names[level]);
    va_list args;
    va_start(args, fmt);
    write_line(head, fmt, args);
    va_end(args);
}

void die(ExitCode code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    write_line("error: ", fmt, args);
    va_end(args);
    exit(code);
}

void check_failed(const char *file, int line, const char *condition, const char *fmt, ...) {
    char head[512];
    snprintf(head, sizeof head, "bug: %s:%d: CHECK(%s) failed: ", file, line, condition);
    va_list args;
    va_start(args, fmt);
    write_line(head, fmt, args);
    va_end(args);
    abort();
}

// names: "out, inp", as many as pointers.
void check_pointers(const char *file, int line, const char *op, const char *names,
                    const void *const *pointer, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const int length = (int)strcspn(names, ",");
        if (!pointer[i]) {
            check_failed(file, line, "pointer", "%s: %.*s is null", op, length, names);
        }
        names += length + strspn(names + length, ", ");
    }
}

// ---- errors ----
Error error_none(void) {
    Error error = {.code = EXIT_OK};
    return error;
}

Error error_at(ExitCode code, size_t offset, const char *fmt, ...) {
    Error error = {.code = code, .offset = offset};
    va_list args;
    va_start(args, fmt);
    vsnprintf(error.text, sizeof error.text, fmt, args);
    va_end(args);
    // Names from files are quoted in the text, which must stay one line and leave a terminal alone.
    for (char *p = error.text; *p; p++) {
        *p = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
    }
    return error;
}

void error_die(const char *file, Error error) {
    if (error.code != EXIT_OK && error.offset == ERROR_NOWHERE) {
        die(error.code, "%s: %s", file, error.text);
    } else if (error.code != EXIT_OK) {
        die(error.code, "%s:%zu: %s", file, error.offset, error.text);
    }
}

// ---- memory and sizes ----
bool size_mul(size_t a, size_t b, size_t *out) {
    size_t product; // the builtin writes even where it overflows
    const bool fits = !__builtin_mul_overflow(a, b, &product);
    *out = fits ? product : *out;
    return fits;
}

bool size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    const bool fits = !__builtin_add_overflow(a, b, &sum);
    *out = fits ? sum : *out;
    return fits;
}

static size_t checked_bytes(size_t count, size_t size) {
    size_t bytes;
    if (!size_mul(count, size, &bytes)) {
        die(EXIT_RESOURCE, "memory: %zu items of %zu bytes do not fit in an address space", count,
            size);
    }
    return bytes ? bytes : 1;
}

static void *or_die(void *got, size_t bytes) {
    if (!got) {
        die(EXIT_RESOURCE, "memory: cannot get %zu bytes; use a smaller batch or a larger machine",
            bytes);
    }
    return got;
}

void *xmalloc(size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return or_die(malloc(bytes), bytes);
}

void *xcalloc(size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return or_die(calloc(1, bytes), bytes);
}

void *xrealloc(void *old, size_t count, size_t size) {
    const size_t bytes = checked_bytes(count, size);
    return or_die(realloc(old, bytes), bytes);
}

char *xstrdup(const char *text) {
    const size_t bytes = strlen(text) + 1;
    return memcpy(xmalloc(bytes, 1), text, bytes);
}

char *xformat_args_new(const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, fmt, args);
    CHECK(length >= 0, "format '%s'", fmt);
    char *text = xmalloc((size_t)length + 1, 1);
    vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

char *xformat_new(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = xformat_args_new(fmt, args);
    va_end(args);
    return text;
}

double seconds_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

// ---- random numbers ----
void philox4x32(uint32_t out[4], uint64_t key, const uint32_t counter[4]) {
    const uint32_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u; // multipliers of the paper
    const uint32_t W0 = 0x9E3779B9u, W1 = 0xBB67AE85u; // key increments (golden ratio, sqrt 3)
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)M0 * c0, p1 = (uint64_t)M1 * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += W0;
        k1 += W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

Rng rng_new(uint64_t seed, RngStream stream, uint32_t step, uint32_t sample) {
    Rng rng = {.key = seed, .counter = {(uint32_t)stream, step, sample, 0}};
    return rng;
}

uint32_t rng_u32(Rng *rng) {
    if (rng->left == 0) {
        philox4x32(rng->words, rng->key, rng->counter);
        rng->counter[3]++;
        rng->left = 4;
    }
    return rng->words[4 - rng->left--];
}

double rng_uniform(Rng *rng) {
    const uint64_t high = rng_u32(rng), low = rng_u32(rng);
    return (double)((high << 32 | low) >> 11) * 0x1p-53;
}

double rng_normal(Rng *rng) {
    if (rng->has_spare) {
        rng->has_spare = false;
        return rng->spare;
    }
    const double radius = sqrt(-2.0 * log(1.0 - rng_uniform(rng)));
    const double angle = 2.0 * 3.14159265358979323846 * rng_uniform(rng);
    rng->spare = radius * sin(angle);
    rng->has_spare = true;
    return radius * cos(angle);
}

uint32_t rng_below(Rng *rng, uint32_t n) {
    CHECK(n >= 1, "n=%u", n);
    const uint32_t limit = UINT32_MAX - UINT32_MAX % n; // words from here on would bias the result
    uint32_t word;
    do {
        word = rng_u32(rng);
    } while (word >= limit);
    return word % n;
}

// ---- hash ----
static uint64_t rotl64(uint64_t x, int r) { return x << r | x >> (64 - r); }
static uint64_t read64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

uint64_t xxh64(const void *data, size_t size, uint64_t seed) {
    const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                   P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;
    const uint8_t *p = data, *const end = size > 0 ? p + size : p; // NULL has no bytes
    uint64_t h;
    if (size >= 32) {
        uint64_t lane[4] = {seed + P1 + P2, seed + P2, seed, seed - P1};
        for (; end - p >= 32; p += 32) {
            for (int i = 0; i < 4; i++) {
                lane[i] = rotl64(lane[i] + read64(p + 8 * i) * P2, 31) * P1;
            }
        }
        h = rotl64(lane[0], 1) + rotl64(lane[1], 7) + rotl64(lane[2], 12) + rotl64(lane[3], 18);
        for (int i = 0; i < 4; i++) {
            h = (h ^ rotl64(lane[i] * P2, 31) * P1) * P1 + P4;
        }
    } else {
        h = seed + P5;
    }
    h += size;
    for (; end - p >= 8; p += 8) {
        h = rotl64(h ^ rotl64(read64(p) * P2, 31) * P1, 27) * P1 + P4;
    }
    if (end - p >= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        h = rotl64(h ^ word * P1, 23) * P2 + P3;
        p += 4;
    }
    for (; p < end; p++) {
        h = rotl64(h ^ *p * P5, 11) * P1;
    }
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}
