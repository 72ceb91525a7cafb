// retriever: an image tower and a text tower with one temperature, and unit embeddings from either.
// A query head is an image tower alone, with its own tensor list, filled by tensors_copy.
#ifndef JOMED_MODELS_RETRIEVER_H
#define JOMED_MODELS_RETRIEVER_H

#include "image_tower.h"
#include "text_tower.h"

typedef struct {
    bool has_images;        // else texts alone: no image tower, no logit_scale
    ImageTowerConfig image; // E is the text tower's
    TextTowerConfig text;
} RetrieverConfig;
// The presets that both towers have: "tiny", "jina-clip-v1", "clip-vit-b-32", "clip-vit-b-16",
// "clip-vit-l-14", "biomedclip". False: no such preset. Set text.V after "tiny".
bool retriever_preset(RetrieverConfig *config, const char *name);

typedef struct {
    RetrieverConfig config;
    TensorList tensors;  // of both towers, and logit_scale
    ImageTower image;
    TextTower text;
    Tensor *logit_scale; // rank 0; scores are exp(logit_scale) a . b
} Retriever;
// The structure alone, and its end: for listing tensors, or for marking and filling them otherwise
// than retriever_new does before tensors_allocate.
void retriever_build(Retriever *retriever, const RetrieverConfig *config);
void retriever_unbuild(Retriever *retriever);
Retriever *retriever_new(Device *dev, DType t, const RetrieverConfig *config, bool is_trainable);
void retriever_free(Retriever *retriever);

// A query head: a tower and its tensors.
typedef struct {
    TensorList tensors;
    ImageTower tower;
} Head;
// is_trainable: what config->unfrozen says.
Head *head_new(Device *dev, DType t, const ImageTowerConfig *config, bool is_trainable);
void head_free(Head *head);

// Unit rows and their backward. out: (B,E) t; in training it must stay until the backward is done.
typedef struct {
    ImageTowerState tower;
    void *unit; // (B,E), the out of the forward
    float *norm;
} EmbedImagesState;
typedef struct {
    TextTowerState tower;
    void *unit;
    float *norm;
} EmbedTextsState;
void embed_images_fwd(Run *run, ImageTower *tower, EmbedImagesState *state, void *out,
                      const float *pixels, int B);
void embed_images_bwd(Run *run, ImageTower *tower, EmbedImagesState *state, const void *dout);
void embed_texts_fwd(Run *run, TextTower *tower, EmbedTextsState *state, void *out,
                     const TextBatch *batch);
void embed_texts_bwd(Run *run, TextTower *tower, EmbedTextsState *state, const void *dout);

#endif
