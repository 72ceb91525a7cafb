// cmd_train_retriever: jomed train-retriever retriever.head=text|image: a query head learns through
// the frozen reader. Writes RUN/head.safetensors and RUN/search_head.safetensors.
#include <stdlib.h>

#include "memory_plan.h"
#include "schedule.h"
#include "settings.h"
#include "stage.h"
#include "system.h"
#include "train_retriever.h"
#include "verbs.h"
#include "weights.h"

// ---- settings ----
static Sampler *order_of(const Config *config, const Dataset *queries) {
    int *label = xmalloc((size_t)queries->n, sizeof *label);
    for (int i = 0; i < queries->n; i++) {
        label[i] = queries->records[i].label;
    }
    Sampler *sampler = (config->exact.min_class ? sampler_min_class_new : sampler_balanced_new)(
        label, queries->n, queries->C, (uint64_t)config->seed);
    free(label);
    if (config->exact.reseed) {
        sampler_reseed(sampler);
    }
    return sampler;
}

static uint64_t context_of(const Config *config, const System *system) {
    const double words[] = {config->retriever.k, config->retriever.batch, config->retriever.refresh,
                            config->retriever.steps, config->retriever.share,
                            config->retriever.temperature, config->retriever.evidence_temperature,
                            config->retriever.loss, config->retriever.lr, config->retriever.warmup,
                            config->retriever.weight_decay, config->retriever.clip,
                            config->retriever.head, config->exact.double_softmax, config->exact.wd1,
                            config->exact.kl_mean, config->exact.prior_t1, config->exact.min_class,
                            config->exact.reseed,
                            config->exact.stale_search_head, config->exact.recompute_fp32,
                            config->exact.clip_before_backward, config->retriever.beta2,
                            config->retriever.schedule, config->retriever.unfreeze};
    const uint64_t hashes[] = {system->data_hash, system->index->build_id, system->scorer.context};
    return xxh64(words, sizeof words, xxh64(hashes, sizeof hashes, 0));
}

// ---- heads ----
// A copy of the frozen image tower; or for the search head of exact.stale_search_head, the text
// head's.
static Head *copy_of_tower(System *system, bool is_trainable) {
    Head *head = head_new(system->dev, system->retriever->tensors.t,
                          &system->retriever->config.image, is_trainable);
    tensors_copy(&head->tensors, &system->retriever->tensors);
    return head;
}

static Head *search_head_new(System *system, const RetrieverTrainConfig *train) {
    Head *head = copy_of_tower(system, false);
    const char *stale = system->config->retriever.search_head;
    if (train->is_stale_search_head) {
        if (!stale[0]) {
            die(EXIT_CONFIG,
                "retriever.search_head: exact.stale_search_head wants the text stage's "
                "search_head.safetensors");
        }
        error_die(stale, weights_load(&head->tensors, stale, NULL, false));
    }
    return head;
}

// The f32 rows that the frozen towers give, for exact.recompute_fp32.
static float *rows_f32_new(System *system, IndexSide side) {
    const int n = system->corpus->n, E = system->retriever->config.image.E;
    float *rows = xmalloc((size_t)n * E, sizeof *rows);
    if (side == INDEX_IMAGE) {
        encode_images(rows, system->dev, system->retriever->tensors.t, &system->retriever->image,
                      &system->tower_processor, system->corpus, NULL, n);
    } else {
        const char **texts = system_captions_new(system);
        encode_texts(rows, system->dev, system->retriever->tensors.t, &system->retriever->text,
                     system->tower_tokenizer, texts, n, system->max_tokens);
        free(texts);
    }
    return rows;
}

static void save_head(const Head *head, const RunLog *run, const char *name) {
    char *path = runlog_path_new(run, name);
    error_die(path, weights_save(&head->tensors, path, "", false, true));
    free(path);
}

static void train(RetrieverTrainer *trainer, Stage *stage, const Config *config) {
    trainer->step = (int)stage->first;
    for (int64_t step = stage->first; stage_goes_on(stage, step); step++) {
        const double lr = schedule_rate((Schedule)config->retriever.schedule, config->retriever.lr,
                                        config->retriever.warmup, config->retriever.steps,
                                        (int)step);
        const RetrieverStep report = retriever_trainer_step(trainer, lr);
        const double done = (double)((step + 1) * config->retriever.batch);
        const RunValue extra[] = {{"nll", report.nll},
                                  {"store_hit_rate", report.hit_rate},
                                  {"distinct_per_query", retriever_trainer_distinct(trainer)}};
        // What the store knew depends on earlier runs: it is not part of the comparable losses.
        stage_step(stage, step, report.loss, lr, done / trainer->queries->n, extra,
                   config->run.deterministic ? 1 : 3);
    }
}

static void plan_memory(System *system, RetrieverTrainer *trainer, Dataset *queries) {
    size_t features;
    const size_t scoring = scorer_plan(&system->scorer, queries, system->corpus, &features);
    const Arena plan = retriever_trainer_plan(trainer);
    const MemoryNeed need[] = {{"retriever training", plan.peak},
                               {"scoring", scoring},
                               {"vision features", features}};
    memory_plan_training(system->dev, need, 3, plan.scratch);
}

int cmd_train_retriever(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    if (run->is_done) {
        return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
    }
    const IndexSide side = config->retriever.head == KEY_HEAD_IMAGE ? INDEX_IMAGE : INDEX_TEXT;
    const RetrieverTrainConfig settings = retriever_settings(config, side);
    const OptimConfig optim = retriever_optim(config);
    System system = system_open(config, CORPUS_INDEXED);
    Dataset *queries = system.split[SPLIT_TRAIN];
    if (queries->n == 0) {
        die(EXIT_BAD_DATA, "%s: no training queries", config->data.task);
    }
    system_open_retriever(&system, TOWERS_FROZEN);
    system_open_index(&system);
    system_open_reader(&system, READER_FROZEN);
    system_open_scorer(&system, run->dir, true);
    Head *live = copy_of_tower(&system, true), *search = search_head_new(&system, &settings);
    float *rows_f32 = settings.is_recompute_fp32 ? rows_f32_new(&system, settings.side) : NULL;
    float *fixed = system_fixed_new(&system, queries);
    Sampler *sampler = order_of(config, queries);
    RetrieverTrainer trainer = retriever_trainer_new(
        system.dev, &settings, &optim, live, search, system.index, rows_f32,
        &system.tower_processor, queries, system.corpus, &system.scorer, sampler, fixed);
    TensorList *lists[] = {&search->tensors};
    Stage stage = stage_begin(config, run, "train-retriever", context_of(config, &system),
                              &trainer.optim, lists, 1, config->retriever.steps);
    plan_memory(&system, &trainer, queries);
    train(&trainer, &stage, config);
    if (stage_is_done(&stage)) {
        save_head(live, run, "head.safetensors");
        save_head(search, run, "search_head.safetensors");
        LOG(INFO, "score store: %llu pairs asked, %llu forwards; %.1f distinct passages per query",
            (unsigned long long)system.scorer.pairs, (unsigned long long)system.scorer.forwards,
            retriever_trainer_distinct(&trainer));
    }
    free(rows_f32);
    free(fixed);
    retriever_trainer_free(&trainer);
    sampler_free(sampler);
    head_free(live);
    head_free(search);
    system_close(&system);
    return stage_end(&stage);
}
