// retriever: two towers, a temperature, and unit embeddings; see retriever.h.
#include "retriever.h"

#include <math.h>
#include <stdlib.h>

bool retriever_preset(RetrieverConfig *config, const char *name) {
    config->has_images = true;
    return image_tower_preset(&config->image, name) && text_tower_preset(&config->text, name);
}

void retriever_build(Retriever *retriever, const RetrieverConfig *config) {
    CHECK(config->image.E == config->text.E, "E=%d of images, %d of texts", config->image.E,
          config->text.E);
    *retriever = (Retriever){.config = *config, .tensors = tensors_new()};
    if (config->has_images) {
        retriever->image = image_tower_new(&retriever->tensors, &config->image);
    }
    retriever->text = text_tower_new(&retriever->tensors, &config->text);
    if (config->has_images) { // ln(1/0.07), where CLIP's training starts
        retriever->logit_scale = tensors_add(&retriever->tensors, "logit_scale",
                                             init_constant((float)log(1 / 0.07)), 0, NULL);
    }
}

void retriever_unbuild(Retriever *retriever) {
    if (retriever->config.has_images) {
        image_tower_free(&retriever->image);
    }
    text_tower_free(&retriever->text);
    tensors_free(&retriever->tensors);
}

Retriever *retriever_new(Device *dev, DType t, const RetrieverConfig *config, bool is_trainable) {
    Retriever *retriever = xcalloc(1, sizeof *retriever);
    retriever_build(retriever, config);
    tensors_mark(&retriever->tensors, "", is_trainable);
    tensors_allocate(&retriever->tensors, dev, t);
    return retriever;
}

void retriever_free(Retriever *retriever) {
    retriever_unbuild(retriever);
    free(retriever);
}

Head *head_new(Device *dev, DType t, const ImageTowerConfig *config, bool is_trainable) {
    Head *head = xcalloc(1, sizeof *head);
    head->tensors = tensors_new();
    head->tower = image_tower_new(&head->tensors, config);
    if (is_trainable) {
        image_tower_unfreeze(&head->tensors, &head->tower);
    }
    tensors_allocate(&head->tensors, dev, t);
    return head;
}

void head_free(Head *head) {
    image_tower_free(&head->tower);
    tensors_free(&head->tensors);
    free(head);
}

// ---- unit embeddings ----
void embed_images_fwd(Run *run, ImageTower *tower, EmbedImagesState *state, void *out,
                      const float *pixels, int B) {
    const size_t start = arena_mark(run->arena);
    state->norm = run_take_f32(run, (size_t)B);
    state->unit = out;
    image_tower_fwd(run, tower, &state->tower, out, pixels, B);
    RUN(run, l2norm_fwd, out, state->norm, out, B, tower->config.E);
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

void embed_images_bwd(Run *run, ImageTower *tower, EmbedImagesState *state, const void *dout) {
    const int B = state->tower.B, E = tower->config.E;
    const size_t start = arena_mark(run->arena);
    void *d = run_take(run, (size_t)B, (size_t)E);
    RUN(run, l2norm_bwd, d, dout, state->unit, state->norm, B, E);
    image_tower_bwd(run, tower, &state->tower, d);
    arena_release(run->arena, start);
}

void embed_texts_fwd(Run *run, TextTower *tower, EmbedTextsState *state, void *out,
                     const TextBatch *batch) {
    const size_t start = arena_mark(run->arena);
    state->norm = run_take_f32(run, (size_t)batch->B);
    state->unit = out;
    text_tower_fwd(run, tower, &state->tower, out, batch);
    RUN(run, l2norm_fwd, out, state->norm, out, batch->B, tower->config.E);
    if (!run->is_training) {
        arena_release(run->arena, start);
    }
}

void embed_texts_bwd(Run *run, TextTower *tower, EmbedTextsState *state, const void *dout) {
    const int B = state->tower.B, E = tower->config.E;
    const size_t start = arena_mark(run->arena);
    void *d = run_take(run, (size_t)B, (size_t)E);
    RUN(run, l2norm_bwd, d, dout, state->unit, state->norm, B, E);
    text_tower_bwd(run, tower, &state->tower, d);
    arena_release(run->arena, start);
}
