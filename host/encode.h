// encode: pictures and texts to unit embeddings on the host, by frozen towers, in chunks.
// Embeddings are batch-invariant, so the chunk size shows in the speed only.
#ifndef JOMED_HOST_ENCODE_H
#define JOMED_HOST_ENCODE_H

#include "dataset.h"
#include "models/retriever.h"
#include "processor.h"
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

// Pixels of the images of rows[0..n-1] (rows NULL: rows 0..n-1) as a tower of S x S pixels wants
// them: out (n,3,S,S) f32. Dies with EXIT_CONFIG when the processor gives another size, with
// EXIT_BAD_DATA at a bad image, unless the data set's policy makes it a grey one or drops its row.
void prepare_images(float *out, Device *dev, const ProcessorConfig *processor, int S, Dataset *ds,
                    const int *rows, int n);

// out: (n,E) f32 on the host, unit rows. t: storage type of the tower.
void encode_images(float *out, Device *dev, DType t, ImageTower *tower,
                   const ProcessorConfig *processor, Dataset *ds, const int *rows, int n);
void encode_texts(float *out, Device *dev, DType t, TextTower *tower, const Tokenizer *tokenizer,
                  const char *const *texts, int n, int max_tokens);

#endif
