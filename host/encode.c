// encode: see encode.h.
#include "encode.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 64 // pictures or texts per pass: enough rows to fill the products, little memory

void arena_reserve(Arena *arena, Device *dev, const char *name, size_t bytes) {
    if (arena->size < bytes) {
        arena_free(arena);
        *arena = arena_new(dev, name, bytes);
    }
    arena_release(arena, 0);
}

// ---- texts ----
PackedTexts pack_texts_new(const Tokenizer *tokenizer, const char *const *texts, int B,
                           int max_tokens) {
    const int before = tokenizer->before_count, around = before + tokenizer->after_count;
    CHECK(max_tokens > around, "max_tokens=%d", max_tokens);
    PackedTexts packed = {.B = B};
    packed.cu_seqlens = xcalloc((size_t)B + 1, sizeof(int32_t));
    int room = 0;
    for (int b = 0; b < B; b++) {
        const size_t size = strlen(texts[b]);
        const int whole = tokenizer_encode(tokenizer, texts[b], size, NULL, 0);
        const int kept = whole < max_tokens - around ? whole : max_tokens - around;
        const int T = kept + around > 0 ? kept + around : 1;
        if (packed.N + T > room) {
            room = 2 * (packed.N + T);
            packed.ids = xrealloc(packed.ids, (size_t)room, sizeof(int32_t));
        }
        int32_t *out = packed.ids + packed.N;
        out[0] = 0; // no sequence is empty: an empty text with nothing around it is one token 0
        memcpy(out, tokenizer->before, (size_t)before * sizeof *out);
        tokenizer_encode(tokenizer, texts[b], size, out + before, kept);
        memcpy(out + before + kept, tokenizer->after,
               (size_t)tokenizer->after_count * sizeof *out);
        packed.N += T;
        packed.cu_seqlens[b + 1] = packed.N;
        packed.max_T = T > packed.max_T ? T : packed.max_T;
    }
    return packed;
}

void packed_texts_free(PackedTexts *packed) {
    free(packed->ids);
    free(packed->cu_seqlens);
    *packed = (PackedTexts){0};
}

TextBatch packed_texts_batch(const PackedTexts *packed) {
    return (TextBatch){.B = packed->B, .N = packed->N, .max_T = packed->max_T, .ids = packed->ids,
                       .cu_seqlens = packed->cu_seqlens};
}

static void encode_texts_as(bool is_unit, float *out, Device *dev, DType t, TextTower *tower,
                            const Tokenizer *tokenizer, const char *const *texts, int n,
                            int max_tokens) {
    const int E = tower->config.E;
    Arena arena = {0};
    for (int first = 0; first < n; first += CHUNK) {
        const int B = n - first < CHUNK ? n - first : CHUNK;
        PackedTexts packed = pack_texts_new(tokenizer, texts + first, B, max_tokens);
        const TextBatch batch = packed_texts_batch(&packed);
        Run run = run_new(dev, t, &arena, false);
        for (int pass = 0; pass < 2; pass++) { // plan, then do
            Arena plan = arena_plan();
            Run planning = run_planning(&run, &plan), *now = pass ? &run : &planning;
            EmbedTextsState state;
            void *unit = run_take(now, (size_t)B, (size_t)E);
            if (is_unit) {
                embed_texts_fwd(now, tower, &state, unit, &batch);
            } else {
                text_tower_fwd(now, tower, &state.tower, unit, &batch);
            }
            if (!pass) {
                arena_reserve(&arena, dev, "text embedding", plan.peak);
            } else {
                values_read(dev, out + (size_t)first * E, t, unit, (size_t)B * E);
            }
        }
        packed_texts_free(&packed);
    }
    arena_free(&arena);
}

void encode_texts(float *out, Device *dev, DType t, TextTower *tower, const Tokenizer *tokenizer,
                  const char *const *texts, int n, int max_tokens) {
    encode_texts_as(true, out, dev, t, tower, tokenizer, texts, n, max_tokens);
}

void encode_texts_raw(float *out, Device *dev, DType t, TextTower *tower,
                      const Tokenizer *tokenizer, const char *const *texts, int n, int max_tokens) {
    encode_texts_as(false, out, dev, t, tower, tokenizer, texts, n, max_tokens);
}

// ---- images ----
PictureFeed *feed_images_new(Device *dev, const ProcessorConfig *processor, Dataset *ds,
                             const int *rows, int n) {
    const int threads = device_threads(dev) < n ? device_threads(dev) : n;
    PictureFeed *feed = picture_feed_new(processor, threads, CHUNK);
    for (int i = 0; i < n; i++) {
        picture_feed_want(feed, ds, rows ? rows[i] : i);
    }
    return feed;
}

void take_images(float *out, PictureFeed *feed, int S, Dataset *ds, const int *rows, int n) {
    const size_t each = (size_t)3 * S * S;
    for (int i = 0; i < n; i++) {
        PicturePixels pixels = picture_feed_take_new(feed, ds, rows ? rows[i] : i);
        if (!pixels.data) {
            memset(out + (size_t)i * each, 0, each * sizeof *out);
            continue;
        }
        if (pixels.width != S || pixels.height != S) {
            die(EXIT_CONFIG, "retriever.processor: gives %dx%d pixels, but the tower wants %dx%d; "
                "name the processor of retriever.preset", pixels.width, pixels.height, S, S);
        }
        memcpy(out + (size_t)i * each, pixels.data, each * sizeof *out);
        free(pixels.data);
    }
}

void prepare_images(float *out, Device *dev, const ProcessorConfig *processor, int S, Dataset *ds,
                    const int *rows, int n) {
    PictureFeed *feed = feed_images_new(dev, processor, ds, rows, n);
    take_images(out, feed, S, ds, rows, n);
    picture_feed_free(feed);
}

static void encode_images_as(bool is_unit, float *out, Device *dev, DType t, ImageTower *tower,
                             const ProcessorConfig *processor, Dataset *ds, const int *rows,
                             int n) {
    const int E = tower->config.E, S = tower->config.image_size;
    const size_t pixels_each = (size_t)3 * S * S;
    Arena arena = {0};
    float *host = xmalloc(CHUNK * pixels_each, sizeof *host);
    PictureFeed *feed = feed_images_new(dev, processor, ds, rows, n);
    for (int first = 0; first < n; first += CHUNK) {
        const int B = n - first < CHUNK ? n - first : CHUNK;
        int chunk[CHUNK];
        for (int i = 0; i < B; i++) {
            chunk[i] = rows ? rows[first + i] : first + i;
        }
        take_images(host, feed, S, ds, chunk, B);
        Run run = run_new(dev, t, &arena, false);
        for (int pass = 0; pass < 2; pass++) {
            Arena plan = arena_plan();
            Run planning = run_planning(&run, &plan), *now = pass ? &run : &planning;
            EmbedImagesState state;
            float *pixels = run_take_f32(now, (size_t)B * pixels_each);
            void *unit = run_take(now, (size_t)B, (size_t)E);
            if (pass) {
                device_copy_in(dev, pixels, host, (size_t)B * pixels_each * sizeof *host);
            }
            if (is_unit) {
                embed_images_fwd(now, tower, &state, unit, pixels, B);
            } else {
                image_tower_fwd(now, tower, &state.tower, unit, pixels, B);
            }
            if (!pass) {
                arena_reserve(&arena, dev, "image embedding", plan.peak);
            } else {
                values_read(dev, out + (size_t)first * E, t, unit, (size_t)B * E);
            }
        }
    }
    picture_feed_free(feed);
    free(host);
    arena_free(&arena);
}

void encode_images(float *out, Device *dev, DType t, ImageTower *tower,
                   const ProcessorConfig *processor, Dataset *ds, const int *rows, int n) {
    encode_images_as(true, out, dev, t, tower, processor, ds, rows, n);
}

void encode_images_raw(float *out, Device *dev, DType t, ImageTower *tower,
                       const ProcessorConfig *processor, Dataset *ds, const int *rows, int n) {
    encode_images_as(false, out, dev, t, tower, processor, ds, rows, n);
}
