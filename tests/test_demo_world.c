// demo_world: what the benchmark's argument rests on is checked, not assumed.
#define _POSIX_C_SOURCE 200809L
#include "host/demo_world.h"

#include <math.h>
#include <string.h>

#include "tests/check.h"

// The reader's 2x2 mean must not see the texture: averaged images of different findings may differ
// only by brightness and noise. Same draws, other finding: block sums differ by the brightness cue.
TEST(demo_world_texture_vanishes_under_averaging) {
    for (int finding = 1; finding < DEMO_FINDINGS; finding++) {
        DemoCase a, b;
        Rng ra = check_rng(1), rb = check_rng(1); // equal draws
        demo_case(&a, &ra, 0.7, 0.08, 0);
        demo_case(&b, &rb, 0.7, 0.08, finding);
        const double cue = 0.03 * finding / 2.5 * 255; // difference in brightness inside the lesion
        int differing = 0;
        for (int y = 0; y < DEMO_SIDE; y += 2) {
            for (int x = 0; x < DEMO_SIDE; x += 2) {
                double mean = 0;
                for (int k = 0; k < 4; k++) {
                    const int at = (y + k / 2) * DEMO_SIDE + x + k % 2;
                    mean += (b.pixels[at] - a.pixels[at]) / 4.0;
                    differing += b.pixels[at] != a.pixels[at];
                }
                // Rounding to 8 bits moves a mean by at most half a level; clipping at 255 is rare
                // and only lowers a bright pixel.
                EXPECT(fabs(mean) <= cue + 1.01 || a.pixels[y * DEMO_SIDE + x] > 200,
                       "finding %d at (%d,%d): mean differs by %.2f levels", finding, x, y, mean);
            }
        }
        EXPECT(differing > 50, "finding %d: only %d pixels differ", finding, differing);
    }
}

TEST(demo_world_captions_and_rates) {
    Rng rng = check_rng(2);
    const int n = 4000;
    int named = 0, wrong = 0, per_class[DEMO_CLASSES] = {0};
    for (int i = 0; i < n; i++) {
        DemoCase c;
        demo_case(&c, &rng, 0.7, 0.08, -1);
        named += c.named_finding >= 0;
        wrong += c.named_finding >= 0 && c.named_finding != c.finding;
        EXPECT(strstr(c.caption, "  ") == NULL, "two blanks in '%s'", c.caption);
        EXPECT((strstr(c.caption, "no remark") != NULL) == (c.named_finding < 0), "'%s'",
               c.caption);
        per_class[demo_label(&c)]++;
        // Every word of every caption is in the vocabulary.
        int count;
        const char *const *words = demo_words(&count);
        char copy[96], *save = NULL;
        strcpy(copy, c.caption);
        for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
            bool is_known = false;
            for (int k = 0; k < count; k++) {
                is_known = is_known || strcmp(words[k], w) == 0;
            }
            EXPECT(is_known, "word '%s' is not in the list", w);
        }
    }
    // Five standard deviations of a binomial.
    EXPECT(fabs(named - 0.7 * n) < 5 * sqrt(n * 0.7 * 0.3), "%d named", named);
    EXPECT(fabs(wrong - 0.08 * named) < 5 * sqrt(named * 0.08 * 0.92), "%d wrong", wrong);
    for (int c = 0; c < DEMO_CLASSES; c++) {
        EXPECT(fabs(per_class[c] - n / 12.0) < 5 * sqrt(n / 12.0), "class %d: %d", c, per_class[c]);
    }
}
