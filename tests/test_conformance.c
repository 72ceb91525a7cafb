// test_conformance: the machine instructions do what the manual says, in the emulator (backend=emu,
// also by default where it is built) and on a GPU (backend=cuda).
//
// What must come out stands in tests/data/conformance.txt, which tools/vectors_conformance.py makes
// from the manual's tables and not from our sources. It makes the inputs by the formulas of this
// file: scramble, small, the lists of the cases. A line of the file without a case fails, and a
// case without its line.
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device_backend.h"
#include "kernels/dtype.h"
#include "tests/check.h"

// Of tests/emu/conformance.cu, by backend.
#define EACH(X)                                                                                    \
    X(convert, (Device *, int32_t *, const int32_t *, int, int))                                   \
    X(words, (Device *, int32_t *, const int32_t *, int))                                          \
    X(cp_async, (Device *, int32_t *, const int32_t *, int))                                       \
    X(ldmatrix, (Device *, int32_t *, const int32_t *, int, int))                                  \
    X(mma, (Device *, DType, int32_t *, const int32_t *, const int32_t *, const int32_t *))        \
    X(tma, (Device *, int32_t *, const int32_t *, int, int, int, int, int, int))                   \
    X(tma_heads, (Device *, int32_t *, const int32_t *, int, int, int, int, int, int, int, int,    \
                  int))                                                                            \
    X(wgmma, (Device *, DType, int32_t *, const int32_t *, const int32_t *, int, int, int, int,    \
              int, int))                                                                           \
    X(wgmma_stored, (Device *, int32_t *, const int32_t *, const int32_t *))                       \
    X(wgmma_chain, (Device *, DType, int32_t *, const int32_t *, const int32_t *, const int32_t *, \
                    int, int, int))
#define X(name, arguments)                                                                         \
    void conformance_##name##_emu arguments __attribute__((weak));                                 \
    void conformance_##name##_cuda arguments __attribute__((weak));
EACH(X)
#undef X
// The one of the backend under test.
#define PICK(name)                                                                                 \
    (device_kind(check_device()) == DEVICE_CUDA ? conformance_##name##_cuda                        \
                                                : conformance_##name##_emu)

// ---- the file ----
// A line is "NAME: VALUE..." or "NAME: COUNT words, HASH, first VALUE...".
typedef struct {
    char *name, *values;
    bool is_tried;
} Golden;
static Golden *golden, *current; // the file's lines; that of the case under test, or NULL
static int golden_count;

static void golden_read(void) {
    const char *path = check_fixture("conformance.txt");
    FILE *file = fopen(path, "r");
    CHECK(file, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        char *values = strstr(line, ": ");
        if (line[0] == '#') {
            continue;
        }
        CHECK(values, "%s: no name in '%s'", path, line);
        *values = '\0';
        golden = xrealloc(golden, (size_t)golden_count + 1, sizeof *golden);
        golden[golden_count++] = (Golden){strdup(line), strdup(values + 2), false};
    }
    free(line);
    fclose(file);
}

// CASE, with its line of the file. Where the device has no such instructions it is no case.
static bool golden_case(bool is_there, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool golden_case(bool is_there, const char *fmt, ...) {
    char name[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    current = NULL;
    for (int i = 0; i < golden_count; i++) {
        if (strcmp(golden[i].name, name) == 0) {
            current = &golden[i];
            current->is_tried = true;
        }
    }
    return is_there && CASE("%s", name);
}

// What a word of the results is. A NaN's bits are free, and in sums the sign of zero.
typedef enum { BITS, FLOAT, SUM, PAIR_F16, PAIR_BF16, APPROXIMATION } Word;

static uint32_t usual_nan(uint32_t bits, uint32_t infinity, uint32_t sign) {
    return (bits & ~sign) > infinity ? infinity | (infinity >> 1) : bits;
}
static uint32_t usual_form(Word word, uint32_t bits) {
    const uint32_t infinity = word == PAIR_F16 ? 0x7c00 : 0x7f80;
    if (word == PAIR_F16 || word == PAIR_BF16) {
        return usual_nan(bits & 0xffff, infinity, 0x8000) |
               usual_nan(bits >> 16, infinity, 0x8000) << 16;
    }
    if (word == SUM && bits == 0x80000000) {
        return 0;
    }
    return word == BITS ? bits : usual_nan(bits, 0x7f800000, 0x80000000);
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void expect_values(Word word, const uint32_t *got, size_t n) {
    char *at = current->values, *end;
    for (size_t i = 0; i < n; i++, at = end) {
        const bool is_float = word == FLOAT || word == SUM || word == APPROXIMATION;
        const float x = is_float ? strtof(at, &end) : 0;
        const uint32_t want = is_float ? usual_form(word, bits_of(x))
                                       : (uint32_t)strtoul(at, &end, 0);
        if (end == at) {
            EXPECT(false, "%zu words came out, the file has %zu", n, i);
            return;
        }
        if (word == APPROXIMATION) { // good to two units in the last place
            expect_ulp("approximation", &(double){float_of(got[i])}, &(double){x}, 1, DT_F32, 2);
        } else if (got[i] != want) {
            EXPECT(false, "word %zu is 0x%08x (%g), want 0x%08x (%g)", i, got[i],
                   (double)float_of(got[i]), want, (double)float_of(want));
            return;
        }
    }
    EXPECT(at[strspn(at, " \n")] == '\0', "%zu words came out, the file has more: %.40s", n, at);
}

// Takes the results of the case under test: they are read, compared and freed.
static void expect_golden(Word word, IntBuf *out) {
    const int32_t *read = ibuf_read(out);
    const size_t n = out->n;
    uint32_t *got = xmalloc(n, sizeof *got);
    for (size_t i = 0; i < n; i++) {
        got[i] = usual_form(word, (uint32_t)read[i]);
    }
    size_t count;
    unsigned long long high, low;
    EXPECT(current, "no line of this name in conformance.txt");
    if (current && sscanf(current->values, "%zu words, %16llx%16llx", &count, &high, &low) == 3) {
        EXPECT(count == n && xxh64(got, n * sizeof *got, 0) == high &&
                   xxh64(got, n * sizeof *got, 1) == low,
               "%zu words came out: 0x%x 0x%x 0x%x 0x%x ...; want %s", n, got[0], got[1], got[2],
               got[3], current->values);
    } else if (current) {
        expect_values(word, got, n);
    }
    free(got);
    ibuf_free(out);
}

// ---- inputs ----
static uint32_t scramble(uint32_t i, uint32_t salt) {
    uint32_t x = (i + 1) * 2654435761u + salt * 40503u;
    x = (x ^ x >> 15) * 2246822519u;
    return x ^ x >> 13;
}
static int small(uint32_t i, uint32_t salt) { return (int)(scramble(i, salt) % 9) - 4; }

// Words 0, 1, 2, ..., and halves of words.
static IntBuf counting(int n) {
    int32_t *words = xmalloc((size_t)n, sizeof *words);
    for (int i = 0; i < n; i++) {
        words[i] = i;
    }
    IntBuf buf = ibuf_from(words, (size_t)n);
    free(words);
    return buf;
}
static IntBuf counting_halves(int n) {
    int32_t *words = xmalloc((size_t)n, sizeof *words);
    for (int i = 0; i < n; i++) {
        words[i] = (int32_t)((uint32_t)(2 * i & 0xffff) | (uint32_t)(2 * i + 1) << 16);
    }
    IntBuf buf = ibuf_from(words, (size_t)n);
    free(words);
    return buf;
}
// n elements of t; an odd last one has a zero behind it.
static IntBuf smalls(DType t, int n, uint32_t salt) {
    const size_t bytes = (size_t)n * dtype_size(t), count = (bytes + 3) / 4;
    int32_t *words = xcalloc(count, sizeof *words);
    for (int i = 0; i < n; i++) {
        dtype_store(t, words, (size_t)i, (float)small((uint32_t)i, salt));
    }
    IntBuf buf = ibuf_from(words, count);
    free(words);
    return buf;
}

// ---- cases ----
// The floats that are rounded to 16 bits: every upper half, above lower halves that are ties,
// between them, and next to them.
static const uint16_t lower[] = {0, 1, 0x0fff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001};
enum { LOWERS = sizeof lower / sizeof *lower, UPPER_STEP = 13, UPPERS = 65536 / UPPER_STEP };

static void narrowing(int which, Word word, bool is_pair) {
    IntBuf inp = ibuf_fill((size_t)UPPERS * LOWERS / 2 * 2, 0);
    for (size_t i = 0; i < inp.n; i++) {
        inp.host[i] = (int32_t)((uint32_t)(i / LOWERS * UPPER_STEP) << 16 | lower[i % LOWERS]);
    }
    device_copy_in(check_device(), inp.dev, inp.host, inp.n * sizeof *inp.host);
    IntBuf out = ibuf_fill(is_pair ? inp.n / 2 : inp.n, -1);
    PICK(convert)(check_device(), out.dev, inp.dev, which, (int)out.n);
    expect_golden(word, &out);
    ibuf_free(&inp);
}

static void approximations(int which) {
    enum { N = 68 };
    int32_t words[N];
    for (int i = 0; i < N - 4; i++) {
        words[i] = (int32_t)bits_of((float)(5 * i - 160) * 0.8125f);
    }
    const uint32_t last[4] = {0x7f800000, 0xff800000, 0x7fc00000, 1}; // inf, -inf, NaN, 2^-149
    memcpy(words + N - 4, last, sizeof last);
    IntBuf inp = ibuf_from(words, N), out = ibuf_fill(N, -1);
    PICK(convert)(check_device(), out.dev, inp.dev, which, N);
    expect_golden(APPROXIMATION, &out);
    ibuf_free(&inp);
}

static void conversions(void) {
    static const struct {
        const char *name;
        Word word;
        bool is_pair;
    } narrow[] = {{"cvt.rn.f16.f32", PAIR_F16, false}, // by the number of the wrapper
                  {"cvt.rn.bf16.f32", PAIR_BF16, false},
                  {"cvt.rn.f16x2.f32", PAIR_F16, true},
                  {"cvt.rn.bf16x2.f32", PAIR_BF16, true}};
    if (golden_case(true, "cvt.f32.f16")) {
        IntBuf inp = counting(65536), out = ibuf_fill(65536, -1);
        PICK(convert)(check_device(), out.dev, inp.dev, 0, 65536);
        expect_golden(FLOAT, &out);
        ibuf_free(&inp);
    }
    for (int i = 0; i < 4; i++) {
        if (golden_case(true, "%s", narrow[i].name)) {
            narrowing(i + 1, narrow[i].word, narrow[i].is_pair);
        }
    }
    if (golden_case(true, "ex2.approx.ftz.f32")) {
        approximations(5);
    }
    if (golden_case(true, "rcp.approx.ftz.f32")) {
        approximations(6);
    }
}

// Those that take words 0, 1, 2, ... to words.
static void words_to_words(bool is_hopper) {
    static const struct {
        const char *name;
        int inputs;
        size_t outputs;
        bool is_hoppers;
    } cases[] = {{"loads and stores", 128, 320, false}, {"lanes", 32, 352, false}, // by number
                 {"named barriers", 96, 96, false},     {"mbarriers", 96, 96, true},
                 {"registers", 1, 384, true},           {"wgmma descriptors", 1, 6, true}};
    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        if (golden_case(is_hopper || !cases[i].is_hoppers, "%s", cases[i].name)) {
            IntBuf inp = counting(cases[i].inputs), out = ibuf_fill(cases[i].outputs, -1);
            PICK(words)(check_device(), out.dev, inp.dev, i);
            expect_golden(BITS, &out);
            ibuf_free(&inp);
        }
    }
}

static void async_copies(void) {
    static const int bytes[] = {0, 4, 7, 8, 12, 16};
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        if (golden_case(true, "cp.async %d bytes", bytes[i])) {
            IntBuf inp = counting_halves(64), out = ibuf_fill(64, -1);
            PICK(cp_async)(check_device(), out.dev, inp.dev, bytes[i]);
            expect_golden(BITS, &out);
            ibuf_free(&inp);
        }
    }
}

static void fragments(void) {
    for (int k = 0; k < 4; k++) {
        const int count = k / 2 ? 4 : 2, is_transposed = k % 2;
        if (golden_case(true, "ldmatrix.x%d%s", count, is_transposed ? ".trans" : "")) {
            IntBuf inp = counting_halves(128), out = ibuf_fill(32 * (size_t)count, -1);
            PICK(ldmatrix)(check_device(), out.dev, inp.dev, count, is_transposed);
            expect_golden(BITS, &out);
            ibuf_free(&inp);
        }
    }
    for (DType t = DT_BF16; t <= DT_F16; t++) {
        if (golden_case(true, "mma.m16n8k16 %s", dtype_name(t))) {
            IntBuf a = smalls(t, 256, 1), b = smalls(t, 128, 2), acc = smalls(DT_F32, 128, 3);
            IntBuf out = ibuf_fill(128, -1);
            PICK(mma)(check_device(), t, out.dev, a.dev, b.dev, acc.dev);
            expect_golden(SUM, &out);
            ibuf_free(&a), ibuf_free(&b), ibuf_free(&acc);
        }
    }
}

// A box inside, over each edge, and beside elements that lie in memory but not in the tensor.
static void tensor_copies(bool is_hopper) {
    static const struct {
        int rows, columns, stride, box_rows, column, row;
    } cases[] = {{64, 64, 64, 64, 0, 0},    {40, 40, 40, 64, 0, 0},   {100, 128, 128, 64, 64, 64},
                 {64, 100, 136, 16, 64, 5}, {64, 64, 64, 64, -8, -3}, {20, 37, 40, 256, 5, 1},
                 {8, 64, 64, 8, 64, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int rows = cases[i].rows, columns = cases[i].columns, stride = cases[i].stride;
        const int box_rows = cases[i].box_rows, column = cases[i].column, row = cases[i].row;
        if (golden_case(is_hopper, "tma rows=%d columns=%d stride=%d, box of %d rows at (%d,%d)",
                        rows, columns, stride, box_rows, column, row)) {
            IntBuf inp = counting_halves(rows * stride / 2);
            IntBuf out = ibuf_fill(32 * (size_t)box_rows, -1);
            PICK(tma)(check_device(), out.dev, inp.dev, rows, columns, stride, box_rows, column,
                      row);
            expect_golden(BITS, &out);
            ibuf_free(&inp);
        }
    }
}

// Heads of two boxes' width; rows beyond the tensor; heads beyond it, beside other elements.
static void tensor_copies_of_heads(bool is_hopper) {
    static const struct {
        int rows, heads, D, stride, box_heads, box_rows, column, head, row;
    } cases[] = {{20, 3, 80, 240, 1, 64, 64, 1, 0},
                 {40, 8, 64, 512, 4, 16, 0, 4, 30},
                 {30, 6, 64, 400, 4, 16, 0, 4, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int rows = cases[i].rows, heads = cases[i].heads, D = cases[i].D;
        const int stride = cases[i].stride, column = cases[i].column, head = cases[i].head;
        const int box_heads = cases[i].box_heads, box_rows = cases[i].box_rows, row = cases[i].row;
        if (golden_case(is_hopper, "tma rows=%d heads=%d D=%d stride=%d, box of %d heads, %d rows "
                        "at (%d,%d,%d)", rows, heads, D, stride, box_heads, box_rows, column, head,
                        row)) {
            IntBuf inp = counting_halves(rows * stride / 2);
            IntBuf out = ibuf_fill(32 * (size_t)(box_heads * box_rows), -1);
            PICK(tma_heads)(check_device(), out.dev, inp.dev, rows, heads, D, stride, box_heads,
                            box_rows, column, head, row);
            expect_golden(BITS, &out);
            ibuf_free(&inp);
        }
    }
}

static void wgmma(DType t, int width, int a_mn, int b_mn, int rows, int columns, int K) {
    IntBuf a = smalls(t, rows * K, 4), b = smalls(t, columns * K, 5);
    IntBuf out = ibuf_fill(64 * (size_t)width, -1);
    PICK(wgmma)(check_device(), t, out.dev, a.dev, b.dev, width, a_mn, b_mn, rows, columns, K);
    expect_golden(SUM, &out);
    ibuf_free(&a), ibuf_free(&b);
}
// The sums of the first product, below 2^8 and so exact in both types, are factors of the second.
static void wgmma_chain(DType t, int width, int c_mn) {
    enum { K = 8 };
    IntBuf a = smalls(t, 64 * K, 6), b = smalls(t, 64 * K, 7), c = smalls(t, 64 * width, 8);
    IntBuf out = ibuf_fill(64 * (size_t)width, -1);
    PICK(wgmma_chain)(check_device(), t, out.dev, a.dev, b.dev, c.dev, width, c_mn, K);
    expect_golden(SUM, &out);
    ibuf_free(&a), ibuf_free(&b), ibuf_free(&c);
}

static void wgmma_stored(void) {
    IntBuf a = smalls(DT_BF16, 64 * 64, 9), b = smalls(DT_BF16, 64 * 64, 10);
    IntBuf out = ibuf_fill(64 * 64, -1);
    PICK(wgmma_stored)(check_device(), out.dev, a.dev, b.dev);
    expect_golden(SUM, &out);
    ibuf_free(&a), ibuf_free(&b);
}

// Whole tiles, and ragged ones: MN-major operands have rows and columns in multiples of 8.
static void warpgroup_products(bool is_hopper, int width) {
    static const char *const major[] = {"K", "MN"};
    for (DType t = DT_BF16; t <= DT_F16; t++) {
        for (int k = 0; k < 12; k++) {
            const int a_mn = k / 2 % 2, b_mn = k % 2;
            const int rows = k < 4 ? 64 : k < 8 ? 40 : a_mn ? 8 : 1;
            const int columns = k < 4 ? width : k < 8 ? width - 24 : b_mn ? 8 : 3;
            const int K = k < 4 ? 64 : k < 8 ? 40 : a_mn && b_mn ? 5 : 8;
            if (golden_case(is_hopper,
                            "wgmma %s %d wide, %s-major x %s-major, rows=%d columns=%d K=%d",
                            dtype_name(t), width, major[a_mn], major[b_mn], rows, columns, K)) {
                wgmma(t, width, a_mn, b_mn, rows, columns, K);
            }
        }
        for (int c_mn = 0; c_mn < 2; c_mn++) {
            if (golden_case(is_hopper, "wgmma %s %d wide, a from registers x %s-major",
                            dtype_name(t), width, major[c_mn])) {
                wgmma_chain(t, width, c_mn);
            }
        }
    }
}

TEST_BODY(conformance, NOT_CPU) { // the CPU has no instructions to test
    if (device_kind(check_device()) == DEVICE_CPU) {
        check_skip("instructions of a GPU: run with backend=emu or backend=cuda");
        return;
    }
    const bool is_hopper = device_arch(check_device()) >= 90;
    golden_read();
    conversions();
    words_to_words(is_hopper);
    async_copies();
    fragments();
    tensor_copies(is_hopper);
    tensor_copies_of_heads(is_hopper);
    if (golden_case(is_hopper, "wgmma of tiles that threads stored")) {
        wgmma_stored();
    }
    const int widths[] = {64, 80, 128, 192, 256};
    for (int i = 0; i < 5; i++) {
        warpgroup_products(is_hopper, widths[i]);
    }
    if (CASE("every line of the file has a case")) {
        for (int i = 0; i < golden_count; i++) {
            EXPECT(golden[i].is_tried, "no case '%s'", golden[i].name);
        }
    }
}
