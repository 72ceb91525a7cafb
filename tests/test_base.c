// test_base: the floor everything stands on: random numbers and hashes against published vectors,
// 16-bit floats over all their values against arithmetic in double, sizes, arenas, stopping.
#define _POSIX_C_SOURCE 200809L
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/arena.h"
#include "kernels/dtype.h"
#include "tests/check.h"

// ---- random numbers ----
// Source of the vectors: kat_vectors of the Random123 library, philox4x32 with 10 rounds.
TEST(base_philox_vectors) {
    const struct {
        uint32_t counter[4], key[2], want[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint32_t out[4];
        philox4x32(out, (uint64_t)vectors[i].key[1] << 32 | vectors[i].key[0], vectors[i].counter);
        EXPECT(memcmp(out, vectors[i].want, sizeof out) == 0, "vector %zu: %08x %08x %08x %08x", i,
               out[0], out[1], out[2], out[3]);
    }
}

TEST(base_rng_streams) {
    // The cursor hands out the words of the block at (stream, step, sample, index), in order.
    Rng rng = rng_new(42, RNG_TEST, 7, 9);
    for (uint32_t index = 0; index < 3; index++) {
        uint32_t block[4];
        const uint32_t counter[4] = {RNG_TEST, 7, 9, index};
        philox4x32(block, 42, counter);
        for (int i = 0; i < 4; i++) {
            EXPECT(rng_u32(&rng) == block[i], "block %u, word %d", index, i);
        }
    }
}

// Moments within five standard errors: a right generator fails about once in a million seeds.
TEST(base_rng_distributions) {
    enum { DRAWS = 200000 };
    Rng rng = check_rng(0);
    double sum = 0, squares = 0, normal = 0, normal_squares = 0, least = 1, most = 0;
    for (int i = 0; i < DRAWS; i++) {
        const double u = rng_uniform(&rng), z = rng_normal(&rng);
        sum += u, squares += u * u, normal += z, normal_squares += z * z;
        least = fmin(least, u), most = fmax(most, u);
    }
    const double root = sqrt(DRAWS);
    EXPECT(least >= 0 && most < 1, "uniform from %.17g to %.17g", least, most);
    EXPECT(fabs(sum / DRAWS - 0.5) < 5 * sqrt(1.0 / 12) / root, "mean %g", sum / DRAWS);
    EXPECT(fabs(squares / DRAWS - 1.0 / 3) < 5 * sqrt(4.0 / 45) / root, "E u^2 %g",
           squares / DRAWS);
    EXPECT(fabs(normal / DRAWS) < 5 / root, "mean %g", normal / DRAWS);
    EXPECT(fabs(normal_squares / DRAWS - 1) < 5 * sqrt(2) / root, "var %g", normal_squares / DRAWS);
}

TEST(base_rng_below) {
    enum { DRAWS = 120000 };
    for (uint32_t n = 1; n <= 12; n++) {
        if (CASE("n=%u", n)) {
            Rng rng = check_rng(n);
            int counts[12] = {0};
            for (int i = 0; i < DRAWS; i++) {
                const uint32_t k = rng_below(&rng, n);
                EXPECT(k < n, "%u of %u", k, n);
                counts[k < n ? k : 0]++;
            }
            const double want = (double)DRAWS / n, sd = sqrt(want * (1 - 1.0 / n));
            for (uint32_t k = 0; k < n; k++) {
                EXPECT(fabs(counts[k] - want) <= 5 * sd, "%d times %u, want %g +- %g", counts[k], k,
                       want, sd);
            }
        }
    }
    // With n = 3 * 2^30, a remainder without rejection would draw the first third twice as often.
    if (CASE("n=3*2^30")) {
        Rng rng = check_rng(99);
        int low = 0;
        for (int i = 0; i < DRAWS; i++) {
            low += rng_below(&rng, 3u << 30) < 1u << 30;
        }
        const double want = DRAWS / 3.0, sd = sqrt(want * 2 / 3);
        EXPECT(fabs(low - want) <= 5 * sd, "%d in the first third, want %g +- %g", low, want, sd);
    }
}

// ---- hash ----
// Source: the vectors of the xxHash reference implementation (sanity checks of XXH64).
TEST(base_xxh64_vectors) {
    EXPECT(xxh64("", 0, 0) == 0xef46db3751d8e999u, "empty, seed 0");
    EXPECT(xxh64("a", 1, 0) == 0xd24ec4f1a98c6e5bu, "'a'");
    EXPECT(xxh64("abc", 3, 0) == 0x44bc2cf5ad770999u, "'abc'");
    // The reference's own buffer: bytes from a multiplicative generator.
    uint8_t bytes[101];
    uint64_t state = 2654435761u;
    for (int i = 0; i < 101; i++) {
        bytes[i] = (uint8_t)(state >> 56);
        state *= 11400714785074694797u;
    }
    const uint64_t PRIME = 2654435761u;
    EXPECT(xxh64(bytes, 0, PRIME) == 0xac75fda2929b17efu, "empty, seed PRIME32");
    EXPECT(xxh64(bytes, 1, 0) == 0xe934a84adb052768u, "1 byte");
    EXPECT(xxh64(bytes, 4, 0) == 0x9136a0dca57457eeu, "4 bytes");
    EXPECT(xxh64(bytes, 14, 0) == 0x8282dcc4994e35c8u, "14 bytes");
    EXPECT(xxh64(bytes, 14, PRIME) == 0xc3bd6bf63deb6df0u, "14 bytes, seed PRIME32");
}

// ---- sizes and stopping ----
TEST(base_sizes) {
    size_t out = 5;
    EXPECT(size_mul(3, 4, &out) && out == 12, "3 * 4 = %zu", out);
    EXPECT(!size_mul(SIZE_MAX / 2 + 1, 2, &out) && out == 12, "overflow leaves %zu", out);
    EXPECT(size_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX, "%zu", out);
    EXPECT(size_mul(0, SIZE_MAX, &out) && out == 0, "%zu", out);
    EXPECT(size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX, "%zu", out);
    EXPECT(!size_add(SIZE_MAX, 1, &out) && out == SIZE_MAX, "overflow leaves %zu", out);
}

// Exit status of a child that runs stop(); what it says is not shown.
static int status_of(void (*stop)(void)) {
    const pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        close(STDERR_FILENO);
        stop();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void stop_by_die(void) { die(EXIT_DIVERGED, "on purpose"); }
static void stop_by_check(void) { CHECK(1 + 1 == 3, "on purpose"); }
static void stop_by_size(void) { xmalloc(SIZE_MAX / 2, 3); }
TEST(base_error_is_one_line) {
    const Error error = error_at(EXIT_BAD_DATA, 0, "'%s'", "a\n\x1b[31m\x7f\xc3\xa9");
    EXPECT(strcmp(error.text, "'a??[31m?\xc3\xa9'") == 0, "%s", error.text);
}

static void stop_by_error(void) { error_die("file", error_at(EXIT_BAD_DATA, 3, "on purpose")); }
static void stop_by_no_error(void) { error_die("file", error_none()); }

TEST(base_stopping) {
    EXPECT(status_of(stop_by_die) == EXIT_DIVERGED, "die");
    EXPECT(status_of(stop_by_check) == 128 + 6, "CHECK aborts");
    EXPECT(status_of(stop_by_size) == EXIT_RESOURCE, "a size that overflows");
    EXPECT(status_of(stop_by_error) == EXIT_BAD_DATA, "an error");
    EXPECT(status_of(stop_by_no_error) == 0, "no error");
}

// ---- 16-bit floats ----
// The value of 16 bits with so many exponent bits, from the definition (IEEE 754, section 3.4).
static double value_of_bits(uint32_t bits, int exponent_bits) {
    const int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const uint32_t fraction = bits & ((1u << fraction_bits) - 1);
    const int exponent = (int)(bits >> fraction_bits & ((1u << exponent_bits) - 1));
    const double sign = bits & 0x8000u ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction ? NAN : sign * INFINITY;
    }
    return sign * (exponent ? ldexp((double)(fraction + (1u << fraction_bits)),
                                    exponent - bias - fraction_bits)
                            : ldexp((double)fraction, 1 - bias - fraction_bits));
}

typedef struct {
    const char *name;
    int exponent_bits;
    float (*widen)(uint16_t bits);
    uint16_t (*narrow)(float x);
} Format;

static float widen_bf16(uint16_t bits) { return bf16_to_float((bf16){bits}); }
static uint16_t narrow_bf16(float x) { return bf16_from_float(x).bits; }
static float widen_f16(uint16_t bits) { return f16_to_float((f16){bits}); }
static uint16_t narrow_f16(float x) { return f16_from_float(x).bits; }
static float widen_f16_portable(uint16_t bits) { return f16_to_float_portable((f16){bits}); }
static uint16_t narrow_f16_portable(float x) { return f16_from_float_portable(x).bits; }
static const Format formats[] = {
    {"bf16", 8, widen_bf16, narrow_bf16},
    {"f16", 5, widen_f16, narrow_f16},
    {"f16 portable", 5, widen_f16_portable, narrow_f16_portable},
};

static bool is_bit_equal(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

TEST(base_float16_widen) {
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const Format *f = &formats[k];
        if (CASE("%s", f->name)) {
            for (uint32_t bits = 0; bits < 65536; bits++) {
                const double want = value_of_bits(bits, f->exponent_bits);
                const float got = f->widen((uint16_t)bits);
                EXPECT(isnan(want) ? isnan(got) : is_bit_equal(got, (float)want),
                       "%04x is %.9g, want %.9g", (unsigned)bits, (double)got, want);
            }
        }
    }
}

// Between each finite value and its upper neighbour: just below, at and just above the middle.
TEST(base_float16_narrow) {
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const Format *f = &formats[k];
        if (!CASE("%s", f->name)) {
            continue;
        }
        const uint32_t infinity = ((1u << f->exponent_bits) - 1) << (15 - f->exponent_bits);
        for (uint32_t bits = 0; bits < infinity; bits++) {
            const double low = value_of_bits(bits, f->exponent_bits);
            // Beyond the largest value the next one is where it would be without an end.
            const uint32_t near = bits + 1 < infinity ? bits + 1 : bits - 1;
            const double other = value_of_bits(near, f->exponent_bits);
            const double high = near > bits ? other : 2 * low - other;
            const float middle = (float)(0.5 * low + 0.5 * high);
            const uint32_t even = bits & 1 ? bits + 1 : bits;
            const float x[4] = {(float)low, nextafterf(middle, 0), middle,
                                nextafterf(middle, INFINITY)};
            const uint32_t want[4] = {bits, bits, even, bits + 1};
            for (int i = 0; i < 4; i++) {
                EXPECT(f->narrow(x[i]) == want[i] && f->narrow(-x[i]) == (want[i] | 0x8000u),
                       "%.9g gives %04x, want %04x", (double)x[i], f->narrow(x[i]),
                       (unsigned)want[i]);
            }
        }
        EXPECT(f->narrow(INFINITY) == infinity && f->narrow(FLT_MAX) == infinity, "overflow");
        for (uint32_t bits = infinity + 1; bits < 32768; bits++) { // NaN stays NaN
            EXPECT(isnan(f->widen(f->narrow(f->widen((uint16_t)bits)))), "%04x", (unsigned)bits);
        }
        EXPECT(isnan(f->widen(f->narrow(NAN))), "NaN");
    }
}

// The instructions of the machine and our integer arithmetic give the same bits, NaN included.
TEST(base_float16_portable) {
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const f16 h = {(uint16_t)bits};
        EXPECT(is_bit_equal(f16_to_float(h), f16_to_float_portable(h)), "widen %04x",
               (unsigned)bits);
    }
    const uint64_t step = check_is_large() ? 1 : 641; // all floats, or a few million of them
    for (uint64_t all = 0; all < (uint64_t)1 << 32; all += step) {
        const uint32_t bits = (uint32_t)all;
        float x;
        memcpy(&x, &bits, 4);
        const uint16_t got = f16_from_float(x).bits, want = f16_from_float_portable(x).bits;
        EXPECT(got == want, "narrow %08x: %04x and %04x", (unsigned)bits, got, want);
    }
}

// Arrays use wider instructions than single values: the same bits, at every length.
TEST(base_float16_arrays) {
    for (int t = 0; t < DT_COUNT; t++) {
        for (size_t n = 1; n <= 70; n++) {
            if (CASE("%s n=%zu", dtype_name((DType)t), n)) {
                Rng rng = check_rng((uint32_t)n);
                float x[70], back[71];
                uint16_t packed[142], single[142] = {0};
                for (size_t i = 0; i < n; i++) {
                    x[i] = i % 11 == 5 ? NAN : (float)(rng_normal(&rng) * (i % 3 ? 1 : 1e-6));
                    dtype_store((DType)t, single, i, x[i]);
                }
                memset(packed, 0x5A, sizeof packed);
                back[n] = 7;
                dtype_narrow((DType)t, packed, x, n);
                const size_t bytes = n * dtype_size((DType)t);
                EXPECT(memcmp(packed, single, bytes) == 0, "narrow");
                EXPECT(((uint8_t *)packed)[bytes] == 0x5A, "narrow writes on");
                dtype_widen(back, (DType)t, packed, n);
                for (size_t i = 0; i < n; i++) {
                    EXPECT(is_bit_equal(back[i], dtype_load((DType)t, single, i)), "widen [%zu]",
                           i);
                }
                EXPECT(back[n] == 7, "widen writes on");
            }
        }
    }
}

TEST(base_dtype_names) {
    for (int t = 0; t < DT_COUNT; t++) {
        EXPECT(dtype_parse(dtype_name((DType)t)) == t, "%s", dtype_name((DType)t));
    }
    EXPECT(dtype_parse("f64") == -1 && dtype_parse("") == -1 && dtype_parse("F32") == -1,
           "unknown");
}

// ---- arenas ----
static void layout(Arena *arena, char *taken[3]) {
    taken[0] = arena_take(arena, 3, 100);
    const size_t mark = arena_mark(arena);
    taken[1] = arena_take(arena, 1000, 8); // scratch
    arena_release(arena, mark);
    taken[2] = arena_take(arena, 1, 1);
}

static void overrun(void) {
    Arena arena = arena_new(check_device(), "small", 256);
    arena_take(&arena, 257, 1);
}

TEST(base_arena) {
    char *taken[3];
    Arena plan = arena_plan();
    layout(&plan, taken);
    EXPECT(!taken[0] && !taken[1] && !taken[2], "a plan hands out nothing");
    EXPECT(plan.used == 512 + 256 && plan.peak == 512 + 8192, "used %zu, peak %zu", plan.used,
           plan.peak);
    const size_t before = device_bytes_in_use(check_device());
    Arena arena = arena_new(check_device(), "test", plan.peak);
    layout(&arena, taken);
    EXPECT(arena.used == plan.used && arena.peak == plan.peak, "used %zu, peak %zu", arena.used,
           arena.peak);
    EXPECT(taken[1] == taken[0] + 512 && taken[2] == taken[1], "scratch is given again");
    for (int i = 0; i < 3; i++) {
        EXPECT((uintptr_t)taken[i] % ARENA_ALIGN == 0, "alignment of %p", (void *)taken[i]);
    }
    uint8_t first = 1;
    device_copy_out(check_device(), &first, taken[0] + 299, 1);
    EXPECT(first == 0, "zero-filled");
    arena_free(&arena);
    EXPECT(device_bytes_in_use(check_device()) == before, "all is given back");
    EXPECT(status_of(overrun) == 128 + 6, "an arena that is too small is caught");
}
