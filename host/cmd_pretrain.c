// cmd_pretrain: jomed pretrain: the towers learn from the corpus's pairs. Writes
// RUN/retriever.safetensors.
#include <stdlib.h>
#include <string.h>

#include "memory_plan.h"
#include "pretrain.h"
#include "sampler.h"
#include "schedule.h"
#include "stage.h"
#include "system.h"
#include "verbs.h"
#include "weights.h"

// Settings, data and first weights that a resumed run must share with its first attempt.
static uint64_t context_of(const Config *config, const System *system, int batch) {
    const double words[] = {config->pretrain.lr,           config->pretrain.warmup,
                            config->pretrain.weight_decay, config->pretrain.temperature,
                            config->pretrain.steps,        batch,
                            config->pretrain.learn_temperature};
    const uint64_t hashes[] = {tensors_hash(&system->retriever->tensors),
                               processor_hash(&system->tower_processor),
                               (uint64_t)system->max_tokens};
    return xxh64(words, sizeof words, xxh64(hashes, sizeof hashes, system->data_hash));
}

static double one_step(System *system, Pretrainer *trainer, Sampler *sampler, int64_t step, int B,
                       float *pixels, const char **texts, double lr) {
    int *rows = xmalloc((size_t)B, sizeof *rows);
    for (int i = 0; i < B; i++) {
        rows[i] = sampler_item(sampler, step * B + i);
        texts[i] = system->corpus->records[rows[i]].text;
    }
    prepare_images(pixels, system->dev, &system->tower_processor,
                   system->retriever->config.image.image_size, system->corpus, rows, B);
    free(rows);
    return pretrainer_step(trainer, pixels, texts, B, lr);
}

// A step of the longest caption alone takes the most.
static void plan_memory(System *system, Pretrainer *trainer, const char **texts, int B) {
    const char *longest = "";
    for (int i = 0; i < system->corpus->n; i++) {
        const char *text = system->corpus->records[i].text;
        longest = strlen(text) > strlen(longest) ? text : longest;
    }
    for (int i = 0; i < B; i++) {
        texts[i] = longest;
    }
    const Arena plan = pretrainer_plan(trainer, texts, B);
    const MemoryNeed need = {"pretraining", plan.peak};
    memory_plan_training(system->dev, &need, 1, plan.scratch);
}

int cmd_pretrain(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    if (run->is_done) {
        return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
    }
    System system = system_open(config, CORPUS_WHOLE);
    system_open_retriever(&system, TOWERS_TRAINABLE);
    const int n = system.corpus->n, S = system.retriever->config.image.image_size;
    const int B = config->pretrain.batch < n ? config->pretrain.batch : n;
    if (B < config->pretrain.batch) {
        LOG(WARN, "pretrain.batch: %d pairs, but the corpus has %d; using %d",
            config->pretrain.batch, n, B);
    }
    OptimConfig optim = optim_default();
    optim.weight_decay = (float)config->pretrain.weight_decay;
    Pretrainer trainer = pretrainer_new(
        system.dev, system.retriever, system.tower_tokenizer, &optim, config->pretrain.temperature,
        config->pretrain.learn_temperature, system.max_tokens);
    Sampler *sampler = sampler_new(n, (uint64_t)config->seed);
    float *pixels = xmalloc((size_t)B * 3 * S * S, sizeof *pixels);
    const char **texts = xmalloc((size_t)B, sizeof *texts);
    Stage stage = stage_begin(config, run, "pretrain", context_of(config, &system, B),
                              &trainer.optim, NULL, 0, config->pretrain.steps);
    plan_memory(&system, &trainer, texts, B);
    for (int64_t step = stage.first; stage_goes_on(&stage, step); step++) {
        const double lr = schedule_rate(SCHEDULE_COSINE, config->pretrain.lr,
                                        config->pretrain.warmup, config->pretrain.steps, (int)step);
        const double loss = one_step(&system, &trainer, sampler, step, B, pixels, texts, lr);
        stage_step(&stage, step, loss, lr, (double)((step + 1) * B) / n, NULL, 0);
    }
    if (stage_is_done(&stage)) {
        char *path = runlog_path_new(run, "retriever.safetensors");
        error_die(path, weights_save(&system.retriever->tensors, path, "", false, true));
        free(path);
    }
    free(pixels);
    free(texts);
    sampler_free(sampler);
    pretrainer_free(&trainer);
    system_close(&system);
    return stage_end(&stage);
}
