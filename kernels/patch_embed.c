// patch_embed: the CPU definition; see patch_embed.h.
#include "patch_embed.h"

#include "base.h"
#include "chunk.h"

void patch_unfold_cpu(Device *dev, DType t, void *out, const float *pixels, int B, int Cin, int Ph,
                      int Pw, int P, int frames, int merge) {
    CHECK_POINTERS(patch_unfold, out, pixels);
    CHECK(Ph % merge == 0 && Pw % merge == 0, "Ph=%d Pw=%d merge=%d", Ph, Pw, merge);
    const int cell = merge * merge, patches = Ph * Pw;
    const size_t width = (size_t)Cin * frames * P * P, line = (size_t)Pw * P;
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, (size_t)B * patches * width))
    for (size_t row = 0; row < (size_t)B * patches; row++) {
        const size_t b = row / patches;
        const int patch = (int)(row % patches), inside = patch % cell;
        const int cells_wide = Pw / merge;
        const int py = patch / cell / cells_wide * merge + inside / merge;
        const int px = patch / cell % cells_wide * merge + inside % merge;
        size_t to = row * width;
        for (int c = 0; c < Cin; c++) {
            const float *corner = pixels + ((b * Cin + c) * Ph * P + (size_t)py * P) * line +
                                  (size_t)px * P;
            for (int f = 0; f < frames; f++) {
                for (int y = 0; y < P; y++, to += (size_t)P) {
                    dtype_narrow(t, dtype_at(t, out, to), corner + (size_t)y * line, (size_t)P);
                }
            }
        }
    }
}
