// test_patch_embed: every element of every patch row, by the inverse walk: from the pixel to its
// place.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

typedef struct {
    int B, Cin, Ph, Pw, P, frames, merge;
} Shape;
static const Shape shapes[] = {
    {1, 1, 1, 1, 1, 1, 1}, {2, 3, 2, 3, 4, 1, 1}, {1, 3, 5, 1, 7, 1, 1},
    {2, 1, 2, 4, 3, 2, 2}, {1, 3, 4, 2, 14, 2, 2}, {2, 2, 3, 6, 5, 1, 3},
    {2, 3, 6, 8, 16, 2, 2}, // enough work for more threads than one
};

// Where pixel (b, c, Y, X) goes in frame f.
static size_t place_of(Shape s, int b, int c, int f, int Y, int X) {
    const int py = Y / s.P, px = X / s.P, m = s.merge;
    const int cell = (py / m) * (s.Pw / m) + px / m;
    const size_t row = ((size_t)b * s.Ph * s.Pw) + (size_t)cell * m * m + (py % m) * m + px % m;
    const size_t width = (size_t)s.Cin * s.frames * s.P * s.P;
    return row * width + (size_t)(((c * s.frames + f) * s.P + Y % s.P) * s.P + X % s.P);
}

static double *reference_new(Shape s, DType t, const double *pixels, size_t n) {
    double *want = xcalloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) {
        want[i] = NAN; // a place no pixel reaches would show
    }
    for (int b = 0; b < s.B; b++) {
        for (int c = 0; c < s.Cin; c++) {
            for (int Y = 0; Y < s.Ph * s.P; Y++) {
                for (int X = 0; X < s.Pw * s.P; X++) {
                    const double value = check_round(t, *pixels++);
                    for (int f = 0; f < s.frames; f++) {
                        want[place_of(s, b, c, f, Y, X)] = value;
                    }
                }
            }
        }
    }
    return want;
}

TEST_OP(patch_unfold) {
    for (size_t k = 0; k < DT_COUNT * sizeof shapes / sizeof *shapes; k++) {
        const Shape s = shapes[k / DT_COUNT];
        const DType t = (DType)(k % DT_COUNT);
        if (!CASE("B=%d Cin=%d Ph=%d Pw=%d P=%d frames=%d merge=%d t=%s", s.B, s.Cin, s.Ph, s.Pw,
                  s.P, s.frames, s.merge, dtype_name(t))) {
            continue;
        }
        Rng rng = check_rng((uint32_t)k);
        const size_t pixels = (size_t)s.B * s.Cin * s.Ph * s.P * s.Pw * s.P;
        const size_t n = pixels * (size_t)s.frames;
        Buf inp = buf_normal(DT_F32, pixels, 1, &rng);
        double *want = reference_new(s, t, inp.host, n);
        for (int count = 1; count <= 3; count += 2) {
            Device *dev = check_device_threads(count);
            Buf out = buf_fill(t, n, NAN);
            device_ops(dev)->patch_unfold(dev, t, out.dev, buf_f32(&inp), s.B, s.Cin, s.Ph, s.Pw,
                                          s.P, s.frames, s.merge);
            buf_read(&out);
            for (size_t i = 0; i < n; i++) {
                EXPECT(!isnan(want[i]) && !isnan(out.host[i]), "element %zu was never assigned", i);
            }
            expect_exact("out", out.host, want, n);
            buf_free(&out);
        }
        free(want);
        buf_free(&inp);
    }
}
