// demo_world: the generator of the embedded benchmark; see demo_world.h.
#include "demo_world.h"

#include <math.h>
#include <stdio.h>

#define PI 3.14159265358979323846

static const char *const device_names[DEMO_DEVICES] = {"alpha", "bravo", "carol", "delta",
                                                       "echo",  "fox",   "golf",  "hotel"};
static const char *const quadrant_names[DEMO_QUADRANTS] = {"upper-left", "upper-right",
                                                           "lower-left", "lower-right"};
static const char *const finding_names[DEMO_FINDINGS] = {"banded",    "striate", "columnar",
                                                         "reticular", "speckled", "mottled"};
static const char *const extent_names[DEMO_EXTENTS] = {"small", "large"};

// ---- words ----
const char *const *demo_class_names(void) {
    static const char *const names[DEMO_CLASSES] = {"label0", "label1", "label2",  "label3",
                                                    "label4", "label5", "label6",  "label7",
                                                    "label8", "label9", "label10", "label11"};
    return names;
}

const char *const *demo_words(int *count) {
    static const char *words[64];
    static int n;
    if (n == 0) {
        static const char *const others[] = {
            "device", "view", "of",   "region",  "shows",      "lesion", ",",     "no",
            "remark", "scan", "with", "texture", "background", ":",      "grade", "?"};
        for (int i = 0; i < DEMO_DEVICES; i++) {
            words[n++] = device_names[i];
        }
        for (int i = 0; i < DEMO_QUADRANTS; i++) {
            words[n++] = quadrant_names[i];
        }
        for (int i = 0; i < DEMO_FINDINGS; i++) {
            words[n++] = finding_names[i];
        }
        for (int i = 0; i < DEMO_EXTENTS; i++) {
            words[n++] = extent_names[i];
        }
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            words[n++] = others[i];
        }
        for (int i = 0; i < DEMO_CLASSES; i++) {
            words[n++] = demo_class_names()[i];
        }
    }
    *count = n;
    return words;
}

int demo_label(const DemoCase *demo) { return DEMO_EXTENTS * demo->finding + demo->extent; }

// ---- image ----
static double uniform_between(Rng *rng, double low, double high) {
    return low + (high - low) * rng_uniform(rng);
}

static double alternating(int i) { return i % 2 == 0 ? 1.0 : -1.0; }

// One of six textures of +1 and -1, each with zero sum over every aligned 2x2 block.
static double texture_at(int finding, int x, int y) {
    const double rows = alternating(y), columns = alternating(x);
    const int bx = x / 2, by = y / 2; // the block, so that signs change between blocks only
    switch (finding) {
    case 0: return rows;
    case 1: return rows * alternating(by);
    case 2: return columns;
    case 3: return columns * alternating(bx);
    case 4: return rows * columns;
    default: return rows * columns * alternating(bx + by);
    }
}

static void draw_pixels(DemoCase *out, Rng *rng) {
    const double theta = out->device * PI / 8;
    const double wave = 2 * PI / DEMO_SIDE * (out->device % 2 == 0 ? 1 : 2);
    const double amplitude = 0.14 * uniform_between(rng, 0.8, 1.2);
    const double phase = 0.7 * out->device + 0.4 * rng_normal(rng);
    const double cx = (out->quadrant & 1 ? 24 : 8) + 2.0 * ((int)rng_below(rng, 3) - 1);
    const double cy = (out->quadrant & 2 ? 24 : 8) + 2.0 * ((int)rng_below(rng, 3) - 1);
    const double radius = out->extent ? 8 : 5;
    const double brightness = 0.18 + 0.03 * (out->finding - 2.5) / 2.5 + 0.05 * rng_normal(rng);
    const double strength = 0.13 * uniform_between(rng, 0.7, 1.3);
    for (int y = 0; y < DEMO_SIDE; y++) {
        for (int x = 0; x < DEMO_SIDE; x++) {
            double value = 0.5 + amplitude * sin(wave * (x * cos(theta) + y * sin(theta)) + phase);
            // The lesion is made of whole 2x2 blocks, so that the reader's averaging cannot leak.
            const double dx = x / 2 * 2 + 1 - cx, dy = y / 2 * 2 + 1 - cy;
            if (dx * dx + dy * dy < radius * radius) {
                value += brightness + strength * texture_at(out->finding, x, y);
            }
            value += 0.06 * rng_normal(rng);
            value = value < 0 ? 0 : value > 1 ? 1 : value;
            out->pixels[y * DEMO_SIDE + x] = (uint8_t)lrint(value * 255);
        }
    }
}

// ---- caption ----
static void write_caption(DemoCase *out, Rng *rng, double p_finding, double p_wrong) {
    out->named_finding = -1;
    bool names_extent = false;
    if (rng_uniform(rng) < p_finding) {
        out->named_finding = out->finding;
        if (rng_uniform(rng) < p_wrong) {
            const int other = (int)rng_below(rng, DEMO_FINDINGS - 1);
            out->named_finding = other + (other >= out->finding);
        }
        names_extent = rng_uniform(rng) < 0.3;
    }
    const char *const device = device_names[out->device], *quadrant = quadrant_names[out->quadrant];
    const char *const finding = out->named_finding < 0 ? "" : finding_names[out->named_finding];
    const char *const extent = extent_names[out->extent];
    const bool is_first_template = rng_uniform(rng) < 0.5;
    const size_t room = sizeof out->caption;
    if (is_first_template && out->named_finding < 0) {
        snprintf(out->caption, room, "device %s view of %s region , no remark", device, quadrant);
    } else if (is_first_template) {
        snprintf(out->caption, room, "device %s view of %s region shows %s%s%s lesion", device,
                 quadrant, names_extent ? extent : "", names_extent ? " " : "", finding);
    } else if (out->named_finding < 0) {
        snprintf(out->caption, room, "scan with %s , %s no remark", device, quadrant);
    } else {
        snprintf(out->caption, room, "scan with %s , %s texture %s%s%s", device, quadrant, finding,
                 names_extent ? " , " : "", names_extent ? extent : "");
    }
}

void demo_case(DemoCase *out, Rng *rng, double p_finding, double p_wrong, int finding) {
    out->device = (int)rng_below(rng, DEMO_DEVICES);
    out->quadrant = (int)rng_below(rng, DEMO_QUADRANTS);
    out->finding = (int)rng_below(rng, DEMO_FINDINGS);
    out->extent = (int)rng_below(rng, DEMO_EXTENTS);
    if (finding >= 0) {
        CHECK(finding < DEMO_FINDINGS, "finding=%d", finding);
        out->finding = finding;
    }
    draw_pixels(out, rng);
    write_caption(out, rng, p_finding, p_wrong);
}
