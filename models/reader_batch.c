// reader_batch: prompts packed on the host, and the positions of their tokens; see reader.h.
#include <stdlib.h>
#include <string.h>

#include "reader.h"

ReaderBatch reader_batch_new(void) { return (ReaderBatch){0}; }

void reader_batch_free(ReaderBatch *batch) {
    free(batch->ids);
    free(batch->cu_seqlens);
    free(batch->positions);
    free(batch->wanted);
    free(batch->slot);
    free(batch->image);
    *batch = reader_batch_new();
}

void reader_batch_clear(ReaderBatch *batch) {
    batch->B = batch->N = batch->max_T = batch->images = batch->R = 0;
}

static void *grown(void *array, int *capacity, int need, size_t size) {
    if (need > *capacity) {
        *capacity = need > 2 * *capacity ? need : 2 * *capacity;
        array = xrealloc(array, (size_t)*capacity, size);
    }
    return array;
}

// Positions lie axis by axis, so growth moves the second and third axis.
static void grow_rows(ReaderBatch *batch, int need) {
    const size_t old = (size_t)batch->capacity_N;
    batch->ids = grown(batch->ids, &batch->capacity_N, need, sizeof *batch->ids);
    const size_t capacity = (size_t)batch->capacity_N;
    if (capacity == old) {
        return;
    }
    batch->positions = xrealloc(batch->positions, 3 * capacity, sizeof *batch->positions);
    for (int axis = 2; axis >= 1; axis--) {
        memmove(batch->positions + (size_t)axis * capacity, batch->positions + (size_t)axis * old,
                (size_t)batch->N * sizeof *batch->positions);
    }
}

int reader_positions(const ReaderConfig *config, int32_t *positions, int stride,
                     const int32_t *ids, int T, const ReaderImage *image, int images) {
    int32_t *const axis[3] = {positions, positions + (size_t)stride,
                              positions + 2 * (size_t)stride};
    const int merge = config->vision.merge;
    const bool is_flat = config->family != READER_QWEN2VL || config->has_flat_positions;
    int next = 0, seen = 0; // the next position; images passed
    for (int t = 0; t < T;) {
        if (is_flat || ids[t] != config->image_id) {
            axis[0][t] = axis[1][t] = axis[2][t] = next++;
            t++;
            continue;
        }
        CHECK(seen < images, "token %d belongs to image %d of %d", t, seen, images);
        const int tokens = vision_tokens(&config->vision, &image[seen]);
        const int rows = image[seen].rows / merge, columns = image[seen].columns / merge;
        CHECK(t + tokens <= T, "image %d wants %d tokens at %d of %d", seen, tokens, t, T);
        for (int i = 0; i < tokens; i++, t++) {
            CHECK(ids[t] == config->image_id, "token %d inside image %d is %d", t, seen, ids[t]);
            axis[0][t] = next;
            axis[1][t] = next + i / columns;
            axis[2][t] = next + i % columns;
        }
        next += rows > columns ? rows : columns;
        seen++;
    }
    CHECK(seen == images || is_flat, "%d of %d images have tokens", seen, images);
    return next;
}

// Room for one more sequence of T rows, `wanted` of them wanted, and so many images.
static void grow_all(ReaderBatch *batch, int T, int wanted, int images) {
    grow_rows(batch, batch->N + T);
    const int sequences = batch->capacity_B;
    batch->cu_seqlens = grown(batch->cu_seqlens, &batch->capacity_B, batch->B + 2,
                              sizeof *batch->cu_seqlens);
    if (batch->capacity_B > sequences) {
        batch->slot = xrealloc(batch->slot, (size_t)batch->capacity_B, sizeof *batch->slot);
    }
    batch->image = grown(batch->image, &batch->capacity_images, batch->images + images,
                         sizeof *batch->image);
    batch->wanted = grown(batch->wanted, &batch->capacity_R, batch->R + wanted,
                          sizeof *batch->wanted);
}

// Counts the sequence whose T rows are filled in.
static void end_sequence(ReaderBatch *batch, int T, int slot) {
    batch->cu_seqlens[0] = 0;
    batch->N += T;
    batch->slot[batch->B] = slot;
    batch->cu_seqlens[++batch->B] = batch->N;
    batch->max_T = T > batch->max_T ? T : batch->max_T;
}

void reader_batch_continue(ReaderBatch *batch, const KvCache *cache, int slot, int32_t id) {
    CHECK(slot >= 0 && slot < cache->B, "slot %d of %d", slot, cache->B);
    grow_all(batch, 1, 1, 0);
    batch->ids[batch->N] = id;
    for (int axis = 0; axis < 3; axis++) {
        batch->positions[(size_t)axis * batch->capacity_N + batch->N] = cache->next[slot];
    }
    batch->wanted[batch->R++] = batch->N;
    end_sequence(batch, 1, slot);
}

int reader_batch_add(ReaderBatch *batch, const ReaderConfig *config, const int32_t *ids, int T,
                     const ReaderImage *image, int images, const int32_t *wanted,
                     int wanted_count) {
    CHECK(T >= 1 && images >= 0 && wanted_count >= 0, "T=%d images=%d wanted_count=%d", T, images,
          wanted_count);
    const int first = batch->N;
    int tokens = 0;
    for (int t = 0; t < T; t++) {
        tokens += ids[t] == config->image_id;
    }
    for (int i = 0; i < images; i++) {
        tokens -= vision_tokens(&config->vision, &image[i]);
    }
    CHECK(tokens == 0, "%d image tokens too many for %d images", tokens, images);
    grow_all(batch, T, wanted_count, images);
    memcpy(batch->ids + first, ids, (size_t)T * sizeof *ids);
    reader_positions(config, batch->positions + first, batch->capacity_N, ids, T, image, images);
    for (int i = 0; i < images; i++) {
        batch->image[batch->images + i] = image[i];
    }
    for (int r = 0; r < wanted_count; r++) {
        CHECK(wanted[r] >= 0 && wanted[r] < T && (r == 0 || wanted[r] > wanted[r - 1]),
              "wanted[%d]=%d of T=%d", r, wanted[r], T);
        batch->wanted[batch->R + r] = first + wanted[r];
    }
    batch->images += images;
    batch->R += wanted_count;
    end_sequence(batch, T, batch->B);
    return first;
}
