// Pictures from files to pixels: radiograph-sized JPEGs, decoded and prepared for CLIP by a feed on
// all threads, beside Pillow with the fast processor of transformers on as many threads
// (peers/pictures_hf.py). Time over the number of pictures is what index build waits for.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h> // jpeglib.h uses FILE without including it
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jpeglib.h>

#include "bench/bench.h"
#include "bench/peer_process.h"
#include "host/encode.h"
#include "host/file.h"

#define SCRIPT     "bench/peers/pictures_hf.py"
#define SIDE       224
#define WORST_MEAN 1e-3 // a level in one sample of a thousand is 2e-5

enum { PICTURES = 24, WIDTH = 1024, HEIGHT = 842, QUALITY = 90 };

// ---- the files ----
// Soft shapes with grain, as a radiograph has them; another one for every seed.
static void write_jpeg(const char *path, int seed) {
    Rng rng = rng_new(1, RNG_TEST, 1, (uint32_t)seed);
    const double fx = 3 + 4 * rng_uniform(&rng), fy = 2 + 4 * rng_uniform(&rng);
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    FILE *file = fopen(path, "wb");
    CHECK(file, "cannot write '%s'", path);
    jpeg_stdio_dest(&jpeg, file);
    jpeg.image_width = WIDTH;
    jpeg.image_height = HEIGHT;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, QUALITY, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    static JSAMPLE row[WIDTH * 3];
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            const double soft = sin(fx * x / WIDTH) * cos(fy * y / HEIGHT);
            const int level = (int)(120 + 90 * soft + 20 * rng_uniform(&rng));
            row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = (JSAMPLE)level;
        }
        JSAMPROW rows = row;
        jpeg_write_scanlines(&jpeg, &rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    CHECK(fclose(file) == 0, "cannot write '%s'", path);
}

// ---- ours ----
typedef struct {
    Dataset *ds;
    ProcessorConfig processor;
    float *pixels; // (PICTURES,3,SIDE,SIDE)
} Job;

static void run(void *ctx) {
    const Job *job = ctx;
    // One thread means this one, whose time is measured.
    const int threads = bench_threads() > 1 ? bench_threads() : 0;
    PictureFeed *feed = picture_feed_new(&job->processor, threads, PICTURES);
    for (int i = 0; i < PICTURES; i++) {
        picture_feed_want(feed, job->ds, i);
    }
    take_images(job->pixels, feed, SIDE, job->ds, NULL, PICTURES);
    picture_feed_free(feed);
}

static double mean_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
    }
    return sum / (double)n;
}

// ---- the peer ----
// Seconds and mean of one round; false when the script has ended.
static bool ask(PeerProcess *peer, double *seconds_taken, double *mean) {
    fputs("run\n", peer->to);
    fflush(peer->to);
    return fscanf(peer->from, "%lf %lf", seconds_taken, mean) == 2;
}

static void run_peer(void *ctx) {
    double seconds_taken, mean;
    CHECK(ask(ctx, &seconds_taken, &mean), "the peer has died");
    bench_took(seconds_taken);
}

BENCH(pictures) {
    char dir[] = "/tmp/jomed-bench-XXXXXX";
    CHECK(mkdtemp(dir), "no directory '%s'", dir);
    PeerProcess peer = peer_process_start(SCRIPT);
    fprintf(peer.to, "%d %d\n", bench_threads(), PICTURES);
    Job job = {.ds = dataset_new()};
    dataset_set_root(job.ds, dir, false);
    CHECK(processor_preset("clip-hf", &job.processor), "no preset");
    for (int i = 0; i < PICTURES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.jpg", i);
        char *path = file_join_new(dir, name);
        write_jpeg(path, i);
        fprintf(peer.to, "%s\n", path);
        free(path);
        Record record = record_empty();
        record.path = name;
        dataset_add(job.ds, &record);
    }
    const size_t n = (size_t)PICTURES * 3 * SIDE * SIDE;
    job.pixels = xmalloc(n, sizeof *job.pixels);
    run(&job);
    const double ours = mean_of(job.pixels, n);
    double seconds_taken, theirs;
    const bool has_peer = ask(&peer, &seconds_taken, &theirs);
    CHECK(!has_peer || fabs(ours - theirs) < WORST_MEAN, "mean %g, the peer's %g", ours, theirs);
    char shape[64];
    snprintf(shape, sizeof shape, "%d JPEG %dx%d to %d", PICTURES, WIDTH, HEIGHT, SIDE);
    bench_time(shape, 0, (double)PICTURES * WIDTH * HEIGHT * 3, run, &job,
               has_peer ? "transformers" : NULL, has_peer ? run_peer : NULL, &peer);
    peer_process_stop(&peer);
    error_die(dir, file_remove_tree(dir));
    dataset_free(job.ds);
    free(job.pixels);
}
