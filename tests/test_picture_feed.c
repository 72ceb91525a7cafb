// The feed of pictures: the same pixels and the same first error for every number of threads, never
// more ahead than agreed, a clean end whatever was left.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/file.h"
#include "host/picture_feed.h"
#include "host/png.h"
#include "tests/check.h"
#include "tests/pictures.h"
#include "tests/world.h"

enum { ROWS = 40, ROUNDS = 90 };

// Pictures of many sizes and kinds, embedded.
static Dataset *pictures_new(void) {
    Dataset *ds = dataset_new();
    for (int i = 0; i < ROWS; i++) {
        Record record = record_empty();
        record.image = picture_bands_new(1 + i % 4, 3 + 7 * i % 90, 4 + 13 * i % 70);
        dataset_add(ds, &record);
        image_free(&record.image);
    }
    return ds;
}

static ProcessorConfig preset(const char *name) {
    ProcessorConfig config = {0};
    CHECK(processor_preset(name, &config), "no preset '%s'", name);
    return config;
}

// Hash of ROUNDS pictures, wanted in uneven portions before they are taken.
static uint64_t feed_hash(Dataset *ds, const ProcessorConfig *config, int threads, int ahead) {
    PictureFeed *feed = picture_feed_new(config, threads, ahead);
    uint64_t hash = 0;
    int wanted = 0, taken = 0;
    for (int portion = 0; taken < ROUNDS; portion++) {
        for (int i = 0; i < portion % 9 + 1 && wanted < ROUNDS; i++, wanted++) {
            picture_feed_want(feed, ds, wanted * 17 % ROWS);
        }
        for (int i = 0; i < portion % 5 + 1 && taken < wanted; i++, taken++) {
            EXPECT(picture_feed_is_next(feed, ds, taken * 17 % ROWS) &&
                   !picture_feed_is_next(feed, ds, (taken * 17 + 1) % ROWS), "picture %d", taken);
            PicturePixels pixels = picture_feed_take_new(feed, ds, taken * 17 % ROWS);
            const size_t n = (size_t)3 * pixels.width * pixels.height;
            hash = xxh64(pixels.data, n * sizeof *pixels.data, hash + (uint64_t)pixels.width);
            free(pixels.data);
        }
    }
    EXPECT(!picture_feed_is_next(feed, ds, 0), "there is nothing left");
    EXPECT(picture_feed_waited(feed) > 0, "taking takes time");
    picture_feed_free(feed);
    return hash;
}

TEST(picture_feed_same_bits) {
    static const int threads[] = {0, 1, 2, 7}, ahead[] = {1, 3, 64};
    Dataset *ds = pictures_new();
    const ProcessorConfig config = preset("qwen2vl-reader");
    uint64_t want = 0; // the plain way: one after the other
    for (int i = 0; i < ROUNDS; i++) {
        const Image *image = &ds->records[i * 17 % ROWS].image;
        int w, h;
        error_die("size", processor_size(&config, image->width, image->height, &w, &h));
        const size_t n = (size_t)3 * w * h;
        float *pixels = xmalloc(n, sizeof *pixels);
        processor_run(&config, check_device(), image, pixels);
        want = xxh64(pixels, n * sizeof *pixels, want + (uint64_t)w);
        free(pixels);
    }
    for (int t = 0; t < 4; t++) {
        for (int a = 0; a < 3; a++) {
            if (CASE("threads=%d ahead=%d", threads[t], ahead[a])) {
                EXPECT(feed_hash(ds, &config, threads[t], ahead[a]) == want, "pixels differ");
            }
        }
    }
    dataset_free(ds);
}

// ---- files ----
static void put(const char *name, const void *data, size_t size) {
    char *path = file_join_new(check_tmpdir(), name);
    EXPECT(file_replace(path, data, size).code == EXIT_OK, "%s", path);
    free(path);
}

// A sound png in which a text chunk has a wrong checksum: libpng warns, so that the data set counts
// every time it is read.
static void put_warning_png(const char *name) {
    Image image = picture_bands_new(3, 9, 9);
    size_t size;
    uint8_t *bytes = png_encode_new(&image, &size);
    static const uint8_t chunk[] = {0, 0, 0, 3, 't', 'E', 'X', 't', 'a', 0, 'b', 1, 2, 3, 4};
    const size_t end = 12; // of the last chunk
    uint8_t *out = xmalloc(size + sizeof chunk, 1);
    memcpy(out, bytes, size - end);
    memcpy(out + size - end, chunk, sizeof chunk);
    memcpy(out + size - end + sizeof chunk, bytes + size - end, end);
    put(name, out, size + sizeof chunk);
    free(out);
    free(bytes);
    image_free(&image);
}

static Dataset *files_new(const char *const *names, int n) {
    Dataset *ds = dataset_new();
    dataset_set_root(ds, check_tmpdir(), false);
    ds->policy.max_bad = 1;
    for (int i = 0; i < n; i++) {
        Record record = record_empty();
        record.path = names[i];
        dataset_add(ds, &record);
    }
    return ds;
}

static int reads(const Dataset *ds) {
    return __atomic_load_n(&ds->image_warnings, __ATOMIC_RELAXED);
}

// Threads that are not waited for stop at the bound, go on by one per picture taken, and leave the
// rest undone when the feed ends.
TEST(picture_feed_bound) {
    enum { N = 50, AHEAD = 3 };
    static const char *names[N];
    const struct timespec moment = {.tv_nsec = 5000000};
    put_warning_png("w.png");
    for (int i = 0; i < N; i++) {
        names[i] = "w.png";
    }
    Dataset *ds = files_new(names, N);
    const ProcessorConfig config = preset("tiny");
    PictureFeed *feed = picture_feed_new(&config, 4, AHEAD);
    for (int i = 0; i < N; i++) {
        picture_feed_want(feed, ds, i);
    }
    for (int taken = 0; taken < 5; taken++) {
        for (int i = 0; i < 400 && reads(ds) < taken + AHEAD; i++) {
            nanosleep(&moment, NULL);
        }
        nanosleep(&moment, NULL);
        EXPECT(reads(ds) == taken + AHEAD, "%d read when %d are taken", reads(ds), taken);
        PicturePixels pixels = picture_feed_take_new(feed, ds, taken);
        EXPECT(pixels.width == 32 && pixels.height == 32, "size");
        free(pixels.data);
    }
    picture_feed_free(feed);
    EXPECT(reads(ds) <= 5 + AHEAD, "%d read at the end", reads(ds));
    dataset_free(ds);
    picture_feed_free(picture_feed_new(&config, 3, 2)); // nothing wanted
    picture_feed_free(NULL);
}

// ---- errors ----
static const char *const mixed[] = {"w.png", "broken.png", "absent.png", "thin.png", "w.png"};
typedef struct {
    BadImage policy;
    int order[3], threads;
} Death;

static void take_three(void *ctx) {
    const Death *death = ctx;
    Dataset *ds = files_new(mixed, 5);
    ds->policy.on_bad_image = death->policy;
    const ProcessorConfig config = preset("qwen2vl");
    PictureFeed *feed = picture_feed_new(&config, death->threads, 8);
    for (int i = 0; i < 3; i++) {
        picture_feed_want(feed, ds, death->order[i]);
    }
    for (int i = 0; i < 3; i++) {
        free(picture_feed_take_new(feed, ds, death->order[i]).data);
    }
    picture_feed_free(feed);
    dataset_free(ds);
}

// Each bad row has its own exit code or kind: the first in the order of use is the one told.
TEST(picture_feed_errors) {
    static const struct {
        Death death;
        int code;
    } cases[] = {
        {{BAD_IMAGE_FAIL, {0, 1, 2}, 0}, EXIT_BAD_DATA},
        {{BAD_IMAGE_FAIL, {0, 2, 1}, 0}, EXIT_NO_INPUT},
        {{BAD_IMAGE_FAIL, {4, 3, 2}, 0}, EXIT_BAD_DATA},
        {{BAD_IMAGE_FAIL, {2, 3, 1}, 0}, EXIT_NO_INPUT},
        {{BAD_IMAGE_SKIP, {0, 2, 4}, 0}, EXIT_BAD_DATA}, {{BAD_IMAGE_BLANK, {1, 2, 0}, 0}, EXIT_OK},
        {{BAD_IMAGE_BLANK, {1, 2, 3}, 0}, EXIT_BAD_DATA}, // a sound picture that has no size
    };
    log_set_level(LOG_ERROR);
    put_warning_png("w.png");
    put("broken.png", "\x89PNG but no more", 16);
    Image thin = image_new(300, 1, 1);
    size_t size;
    uint8_t *bytes = png_encode_new(&thin, &size);
    put("thin.png", bytes, size);
    free(bytes);
    image_free(&thin);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int threads = 0; threads <= 4; threads += 2) {
            Death death = cases[i].death;
            death.threads = threads;
            const int code = world_exit_code(take_three, &death);
            EXPECT(code == cases[i].code, "case %zu, %d threads: code %d", i, threads, code);
        }
    }
}

// A grey square stands in for a bad picture, and is counted, when its turn comes.
TEST(picture_feed_blank) {
    log_set_level(LOG_ERROR);
    put("broken.png", "\x89PNG but no more", 16);
    Dataset *ds = files_new(mixed + 1, 1);
    ds->policy.on_bad_image = BAD_IMAGE_BLANK;
    const ProcessorConfig config = preset("tiny");
    PictureFeed *feed = picture_feed_new(&config, 2, 2);
    picture_feed_want(feed, ds, 0);
    EXPECT(ds->bad_images == 0, "told before its turn");
    PicturePixels pixels = picture_feed_take_new(feed, ds, 0);
    EXPECT(ds->bad_images == 1, "%d bad images", ds->bad_images);
    for (int i = 1; i < 1024; i++) {
        EXPECT(pixels.data[i] == pixels.data[0], "sample %d", i);
    }
    free(pixels.data);
    picture_feed_free(feed);
    dataset_free(ds);
}
