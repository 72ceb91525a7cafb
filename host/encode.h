// encode: pictures and texts to unit embeddings on the host, by frozen towers, in chunks.
// Embeddings are batch-invariant, so the chunk size shows in the speed only.
#ifndef JOMED_HOST_ENCODE_H
#define JOMED_HOST_ENCODE_H

#include "dataset.h"
#include "models/retriever.h"
#include "picture_feed.h"
#include "tokenizer.h"

// Grows an arena to bytes when it is smaller, forgetting what was in it. name: what it is for.
void arena_reserve(Arena *arena, Device *dev, const char *name, size_t bytes);

// Packed token ids of texts, each with what its tokenizer puts around it, cut to max_tokens in all.
typedef struct {
    int B, N, max_T;
    int32_t *ids, *cu_seqlens;
} PackedTexts;
PackedTexts pack_texts_new(const Tokenizer *tokenizer, const char *const *texts, int B,
                           int max_tokens);
void packed_texts_free(PackedTexts *packed);
TextBatch packed_texts_batch(const PackedTexts *packed); // borrows

// A feed of the images of rows[0..n-1] (rows NULL: rows 0..n-1), all wanted in that order, on as
// many threads as the device has; and the next n of them, as a tower of S x S pixels wants them:
// out (n,3,S,S) f32, zero where the data set's policy drops a bad image's row. Taking dies with
// EXIT_CONFIG when the processor gives another size.
PictureFeed *feed_images_new(Device *dev, const ProcessorConfig *processor, Dataset *ds,
                             const int *rows, int n);
void take_images(float *out, PictureFeed *feed, int S, Dataset *ds, const int *rows, int n);
// Both at once.
void prepare_images(float *out, Device *dev, const ProcessorConfig *processor, int S, Dataset *ds,
                    const int *rows, int n);

// out: (n,E) f32 on the host, unit rows. t: storage type of the tower.
void encode_images(float *out, Device *dev, DType t, ImageTower *tower,
                   const ProcessorConfig *processor, Dataset *ds, const int *rows, int n);
void encode_texts(float *out, Device *dev, DType t, TextTower *tower, const Tokenizer *tokenizer,
                  const char *const *texts, int n, int max_tokens);
// The same rows as the towers give them, of any length.
void encode_images_raw(float *out, Device *dev, DType t, ImageTower *tower,
                       const ProcessorConfig *processor, Dataset *ds, const int *rows, int n);
void encode_texts_raw(float *out, Device *dev, DType t, TextTower *tower,
                      const Tokenizer *tokenizer, const char *const *texts, int n, int max_tokens);

#endif
