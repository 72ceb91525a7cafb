// Lanes: the order of long sums against the order spelt out, exp_f32 and log_f32 against double.
#include "tests/check.h"

#include <math.h>
#include <string.h>

#include "kernels/lanes.h"

#define EXP_ULPS 1.03 // as lanes.h claims
#define LOG_ULPS 0.51 // correct rounding, and what the double reference itself may be off

// Element i goes to chain i mod 16; then the upper half of the chains is added to the lower.
static float in_lane_order(const float *x, const float *y, int n) {
    float chain[16];
    for (int l = 0; l < 16; l++) {
        chain[l] = 0;
        for (int i = l; i < n; i += 16) {
            chain[l] = y ? fmaf(x[i], y[i], chain[l]) : chain[l] + x[i];
        }
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            chain[l] += chain[l + half];
        }
    }
    return chain[0];
}

TEST(lanes_order) {
    static const int sizes[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 100, 256, 767, 768, 1000};
    float x[1000], y[1000];
    Rng rng = check_rng(0);
    for (int i = 0; i < 1000; i++) {
        x[i] = (float)rng_normal(&rng);
        y[i] = (float)rng_normal(&rng);
    }
    int differs = 0; // the ascending loop must give other bits somewhere, or this test sees nothing
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int n = sizes[s];
        float plain = 0;
        for (int i = 0; i < n; i++) {
            plain += x[i];
        }
        differs += plain != sum16(x, n);
        EXPECT(sum16(x, n) == in_lane_order(x, NULL, n), "sum of %d: %.9g, want %.9g", n,
               sum16(x, n), in_lane_order(x, NULL, n));
        EXPECT(dot16(x, y, n) == in_lane_order(x, y, n), "dot of %d: %.9g, want %.9g", n,
               dot16(x, y, n), in_lane_order(x, y, n));
    }
    EXPECT(differs > 3, "only %d sums depend on the order", differs);
}

// Sums in pieces are sums in one, whatever the length.
TEST(lanes_pieces) {
    Rng rng = check_rng(0);
    float x[200], y[200];
    for (int i = 0; i < 200; i++) {
        x[i] = (float)rng_normal(&rng), y[i] = (float)rng_normal(&rng);
    }
    for (int n = 0; n <= 200; n++) {
        float sum[LANES] = {0}, dot[LANES] = {0}, plain[LANES] = {0}, plain_dot[LANES] = {0};
        const int first = n / 2 / LANES * LANES;
        lanes_sum(sum, x, first), lanes_sum(sum, x + first, n - first);
        lanes_dot(dot, x, y, first), lanes_dot(dot, x + first, y + first, n - first);
        for (int i = 0; i < n; i++) {
            plain[i % LANES] += x[i];
            plain_dot[i % LANES] = fmaf(x[i], y[i], plain_dot[i % LANES]);
        }
        const float want = lanes_halve(plain), want_dot = lanes_halve(plain_dot);
        EXPECT(sum16(x, n) == want && lanes_halve(sum) == want, "sum of %d", n);
        EXPECT(dot16(x, y, n) == want_dot && lanes_halve(dot) == want_dot, "dot of %d", n);
    }
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Error in units in the last place of the normal number `want`.
static double ulps(float got, double want) {
    int exponent;
    frexp(want, &exponent);
    return fabs(got - want) / ldexp(1, exponent - 24);
}

static void expect_exp(float x) {
    const double want = exp((double)x);
    const float got = exp_f32(x);
    if (isnan(x)) {
        EXPECT(isnan(got), "exp(NaN) = %g", got);
    } else if (want < 0x1p-126) {
        EXPECT(got == 0 && !signbit(got), "exp(%.9g) = %.9g, want 0", x, got);
    } else if (want > 0x1.ffffffp127) { // halfway between the largest float and the next step
        EXPECT(got == INFINITY, "exp(%.9g) = %.9g, want inf", x, got);
    } else {
        EXPECT(ulps(got, want) <= EXP_ULPS, "exp(%.9g) = %.9g, want %.9g: %.3f ulp", x, got, want,
               ulps(got, want));
    }
}

TEST(lanes_exp) {
    if (CASE("every 509th float")) {
        for (uint32_t bits = 0; bits < UINT32_MAX - 509; bits += 509) {
            expect_exp(from_bits(bits));
        }
    }
    if (CASE("around the ends and the changes of exponent")) {
        for (int n = -127; n <= 128; n++) { // x near (n + 1/2) ln 2, where 2^n changes
            const float centre = (float)((n + 0.5) * 0.69314718055994531);
            uint32_t bits;
            memcpy(&bits, &centre, 4);
            for (uint32_t i = 0; i < 200; i++) {
                expect_exp(from_bits(bits - 100 + i));
            }
        }
        const float ends[] = {-87.33654f, 88.72283f, 0, 1, -1, 1e-38f, -1e-45f};
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
            expect_exp(nextafterf(ends[e], -INFINITY));
            expect_exp(ends[e]);
            expect_exp(nextafterf(ends[e], INFINITY));
        }
    }
    if (CASE("special values")) {
        EXPECT(exp_f32(0) == 1 && exp_f32(-0.0f) == 1, "exp(0) = %.9g", exp_f32(0));
        EXPECT(exp_f32(INFINITY) == INFINITY, "exp(inf) = %g", exp_f32(INFINITY));
        EXPECT(exp_f32(-INFINITY) == 0, "exp(-inf) = %g", exp_f32(-INFINITY));
        EXPECT(isnan(exp_f32(NAN)) && isnan(exp_f32(-NAN)), "exp(NaN) = %g", exp_f32(NAN));
    }
}

TEST(lanes_log) {
    if (CASE("every 509th positive float")) {
        for (uint32_t bits = 1; bits < 0x7f800000; bits += 509) {
            const float x = from_bits(bits), got = log_f32(x);
            const double want = log((double)x);
            EXPECT(want == 0 ? got == 0 : ulps(got, want) <= LOG_ULPS,
                   "log(%.9g) = %.9g, want %.9g", x, got, want);
            EXPECT(fabs(log_wide(x) - want) <= 1e-15 * fabs(want), "log(%.9g) in f64 is off by %g",
                   x, log_wide(x) - want);
        }
    }
    if (CASE("around one")) {
        for (int i = -1000; i <= 1000; i++) {
            const float x = from_bits(0x3f800000u + (uint32_t)i), got = log_f32(x);
            const double want = log((double)x);
            EXPECT(i == 0 ? got == 0 : ulps(got, want) <= LOG_ULPS, "log(%.9g) = %.9g, want %.9g",
                   x, got, want);
        }
    }
    if (CASE("special values")) {
        EXPECT(log_f32(0) == -INFINITY && log_f32(-0.0f) == -INFINITY, "log(0) = %g", log_f32(0));
        EXPECT(isnan(log_f32(-1)) && isnan(log_f32(-INFINITY)) && isnan(log_f32(NAN)),
               "log(-1) = %g, log(-inf) = %g, log(NaN) = %g", log_f32(-1), log_f32(-INFINITY),
               log_f32(NAN));
        EXPECT(log_f32(INFINITY) == INFINITY, "log(inf) = %g", log_f32(INFINITY));
    }
}
