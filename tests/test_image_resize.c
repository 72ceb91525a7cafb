// image_resize against Pillow, byte for byte (tests/data/image_resize.txt, made by
// tools/dump_reference_images.py from the same noise), and against itself where Pillow cannot go.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "host/image.h"
#include "tests/check.h"
#include "tests/pictures.h"

enum { GUARD = 64 };

// Runs the op on dev into out, with guard bands around out and scratch.
static void run_op(Device *dev, uint8_t *out, const uint8_t *inp, int H, int W, int C, int outH,
                   int outW, ResizeFilter filter) {
    const size_t in_bytes = (size_t)H * (size_t)W * (size_t)C;
    const size_t bytes[2] = {(size_t)outH * (size_t)outW * (size_t)C,
                             image_resize_scratch_bytes(H, W, C, outH, outW, filter)};
    uint8_t *blocks[2], *mirror[2], *source = device_alloc(dev, in_bytes, "test");
    device_copy_in(dev, source, inp, in_bytes);
    for (int b = 0; b < 2; b++) {
        blocks[b] = device_alloc(dev, bytes[b] + 2 * GUARD, "test");
        mirror[b] = malloc(bytes[b] + 2 * GUARD);
        memset(mirror[b], 0xA5, bytes[b] + 2 * GUARD);
        device_copy_in(dev, blocks[b], mirror[b], bytes[b] + 2 * GUARD);
    }
    device_ops(dev)->image_resize(dev, blocks[0] + GUARD, source, blocks[1] + GUARD, H, W, C, outH,
                                  outW, filter);
    for (int b = 0; b < 2; b++) {
        device_copy_out(dev, mirror[b], blocks[b], bytes[b] + 2 * GUARD);
        for (size_t i = 0; i < GUARD; i++) {
            EXPECT(mirror[b][i] == 0xA5 && mirror[b][GUARD + bytes[b] + i] == 0xA5,
                   "stray write beside %s, byte %zu", b ? "scratch" : "out", i);
        }
    }
    memcpy(out, mirror[0] + GUARD, bytes[0]);
    for (int b = 0; b < 2; b++) {
        free(mirror[b]);
        device_release(dev, blocks[b]);
    }
    device_release(dev, source);
}

typedef struct {
    int C, W, H, outW, outH;
    ResizeFilter filter;
    uint32_t seed, crc;
    char filter_name[16], pixels[160];
} Reference;

static bool read_reference(FILE *file, Reference *r) {
    static const char *const names[] = {"nearest", "bilinear", "bicubic"};
    char line[400];
    do {
        if (!fgets(line, sizeof line, file)) {
            return false;
        }
    } while (line[0] == '#');
    EXPECT(sscanf(line, "%d %d %d %d %d %15s %u %x %159s", &r->C, &r->W, &r->H, &r->outW, &r->outH,
                  r->filter_name, &r->seed, &r->crc, r->pixels) == 9, "fixture line '%s'", line);
    for (int f = 0; f < 3; f++) {
        if (strcmp(names[f], r->filter_name) == 0) {
            r->filter = (ResizeFilter)f;
        }
    }
    return true;
}

static void expect_reference(const Reference *r, const uint8_t *out) {
    const size_t bytes = (size_t)r->outW * (size_t)r->outH * (size_t)r->C;
    for (size_t i = 0; r->pixels[0] != '-' && i < bytes; i++) {
        unsigned want = 256;
        sscanf(r->pixels + 2 * i, "%2x", &want);
        EXPECT(out[i] == want, "byte %zu is %u, Pillow says %u", i, out[i], want);
    }
    const uint32_t crc = (uint32_t)crc32(0, out, (uInt)bytes);
    EXPECT(crc == r->crc, "crc32 of the pixels %08x, Pillow's %08x", crc, r->crc);
}

// Channels 1 and 3 are the op itself; 2 and 4 carry alpha, which image_resize_new adds around it.
TEST_OP(image_resize) {
    FILE *file = fopen(check_fixture("image_resize.txt"), "r");
    Reference r;
    int references = 0;
    while (file && read_reference(file, &r)) {
        references++;
        if (!CASE("%dx%dx%d to %dx%d %s", r.W, r.H, r.C, r.outW, r.outH, r.filter_name)) {
            continue;
        }
        Image inp = image_new(r.W, r.H, r.C);
        picture_noise(inp.data, image_bytes(&inp), r.seed);
        Image out = image_resize_new(check_device(), &inp, r.outW, r.outH, r.filter);
        expect_reference(&r, out.data);
        if (r.C == 1 || r.C == 3) {
            memset(out.data, 0, image_bytes(&out));
            run_op(check_device(), out.data, inp.data, r.H, r.W, r.C, r.outH, r.outW, r.filter);
            expect_reference(&r, out.data);
        }
        image_free(&out);
        image_free(&inp);
    }
    if (file) {
        fclose(file);
    }
    EXPECT(references >= 40, "only %d references", references);
}

// Any channel count is that many independent planes, and threads change nothing.
TEST(image_resize_planes) {
    enum { H = 61, W = 87, C = 5 };
    static uint8_t inp[H * W * C], plane[H * W];
    picture_noise(inp, sizeof inp, 7);
    static const int sizes[][2] = {{224, 224}, {20, 30}, {61, 200}, {122, 87}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (int filter = RESIZE_NEAREST; filter <= RESIZE_BICUBIC; filter++) {
            const int outH = sizes[s][0], outW = sizes[s][1];
            if (!CASE("to %dx%d filter=%d", outW, outH, filter)) {
                continue;
            }
            const size_t pixels = (size_t)outH * (size_t)outW;
            uint8_t *all = malloc(pixels * C), *one = malloc(pixels),
                    *threaded = malloc(pixels * C);
            run_op(check_device(), all, inp, H, W, C, outH, outW, (ResizeFilter)filter);
            for (int c = 0; c < C; c++) {
                for (size_t i = 0; i < H * W; i++) {
                    plane[i] = inp[i * C + (size_t)c];
                }
                run_op(check_device(), one, plane, H, W, 1, outH, outW, (ResizeFilter)filter);
                size_t wrong = 0;
                for (size_t i = 0; i < pixels; i++) {
                    wrong += one[i] != all[i * C + (size_t)c];
                }
                EXPECT(wrong == 0, "channel %d: %zu pixels differ", c, wrong);
            }
            if (device_kind(check_device()) == DEVICE_CPU) {
                Device *three = device_new(DEVICE_CPU, 0, 3);
                run_op(three, threaded, inp, H, W, C, outH, outW, (ResizeFilter)filter);
                EXPECT(memcmp(threaded, all, pixels * C) == 0, "three threads differ from one");
                device_free(three);
            }
            free(all);
            free(one);
            free(threaded);
        }
    }
}
