// pretrain: see pretrain.h.
#include "pretrain.h"

#include <math.h>

Pretrainer pretrainer_new(Device *dev, Retriever *retriever, const Tokenizer *tokenizer,
                          const OptimConfig *optim, double temperature, bool learns_temperature,
                          int max_tokens) {
    const float log_scale = (float)-log(temperature);
    tensor_write(&retriever->tensors, retriever->logit_scale, DT_F32, &log_scale);
    return (Pretrainer){.dev = dev, .retriever = retriever, .tokenizer = tokenizer,
                        .optim = optim_new(&retriever->tensors, optim), .max_tokens = max_tokens,
                        .learns_temperature = learns_temperature};
}

void pretrainer_free(Pretrainer *trainer) {
    optim_free(&trainer->optim);
    arena_free(&trainer->arena);
}

// The pass itself, over an arena with or without memory. Returns the two losses on the device, or
// NULL.
static const float *pass(Pretrainer *trainer, Run *run, const float *pixels,
                         const TextBatch *texts, int B) {
    Retriever *retriever = trainer->retriever;
    Device *dev = trainer->dev;
    const int S = retriever->config.image.image_size, E = retriever->config.image.E;
    const size_t pixel_count = (size_t)B * 3 * S * S;
    EmbedImagesState image_state;
    EmbedTextsState text_state;
    float *device_pixels = run_take_f32(run, pixel_count);
    void *a = run_take(run, (size_t)B, (size_t)E), *b = run_take(run, (size_t)B, (size_t)E);
    void *da = run_take(run, (size_t)B, (size_t)E), *db = run_take(run, (size_t)B, (size_t)E);
    float *loss = run_take_f32(run, 2), *scores = run_take_f32(run, (size_t)B * B);
    float *lse = run_take_f32(run, 2 * (size_t)B);
    const Tensor *scale = retriever->logit_scale;
    if (!run->is_planning) {
        device_copy_in(dev, device_pixels, pixels, pixel_count * sizeof *pixels);
    }
    embed_images_fwd(run, &retriever->image, &image_state, a, device_pixels, B);
    embed_texts_fwd(run, &retriever->text, &text_state, b, texts);
    RUN(run, infonce_fwd, loss, scores, lse, a, b, scale->master, B, E);
    PLAN_SCRATCH(run, infonce_bwd, B, E);
    RUN(run, infonce_bwd, da, db, trainer->learns_temperature ? scale->grad : NULL, scores, lse, a,
        b, scale->master, B, E);
    embed_texts_bwd(run, &retriever->text, &text_state, db);
    embed_images_bwd(run, &retriever->image, &image_state, da);
    return loss;
}

static Arena plan_pass(Pretrainer *trainer, const TextBatch *batch, int B) {
    Run run = run_new(trainer->dev, trainer->retriever->tensors.t, &trainer->arena, true);
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    pass(trainer, &planning, NULL, batch, B);
    return plan;
}

Arena pretrainer_plan(Pretrainer *trainer, const char *const *texts, int B) {
    PackedTexts packed = pack_texts_new(trainer->tokenizer, texts, B, trainer->max_tokens);
    const TextBatch batch = packed_texts_batch(&packed);
    const Arena plan = plan_pass(trainer, &batch, B);
    packed_texts_free(&packed);
    return plan;
}

double pretrainer_step(Pretrainer *trainer, const float *pixels, const char *const *texts, int B,
                       double lr) {
    PackedTexts packed = pack_texts_new(trainer->tokenizer, texts, B, trainer->max_tokens);
    const TextBatch batch = packed_texts_batch(&packed);
    Run run = run_new(trainer->dev, trainer->retriever->tensors.t, &trainer->arena, true);
    arena_reserve(&trainer->arena, trainer->dev, "pretraining", plan_pass(trainer, &batch, B).peak);
    const float *loss = pass(trainer, &run, pixels, &batch, B);
    optim_step(&trainer->optim, lr);
    packed_texts_free(&packed);
    float both[2];
    device_copy_out(trainer->dev, both, loss, sizeof both);
    return 0.5 * ((double)both[0] + both[1]);
}
