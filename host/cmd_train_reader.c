// cmd_train_reader: jomed train-reader: the reader learns on what the retriever finds, one passage per
// prompt, four records per sample with image hits first. Writes RUN/adapter, or RUN/reader.safetensors
// with reader.all_weights=true.
#include <stdlib.h>

#include "file.h"
#include "sampler.h"
#include "schedule.h"
#include "stage.h"
#include "system.h"
#include "train_reader.h"
#include "verbs.h"
#include "weights.h"

// What the passages of the training queries are.
typedef struct {
    int P;             // passages per query, 2k
    int32_t *passages; // (queries, P)
} Found;

static Found find_passages(System *system) {
    Dataset *queries = system->split[SPLIT_TRAIN];
    const int Q = queries->n, k = system->config->evaluate.k;
    Found found = {.P = 2 * k};
    found.passages = xmalloc((size_t)Q * 2 * k, sizeof *found.passages);
    float *fixed = system_fixed_new(system, queries), *scores = xmalloc((size_t)Q * k, sizeof *scores);
    int32_t *ids = xmalloc((size_t)Q * k, sizeof *ids), *group = xmalloc((size_t)Q, sizeof *group);
    for (int q = 0; q < Q; q++) {
        group[q] = queries->records[q].group_id;
    }
    for (int side = 0; side < INDEX_SIDES; side++) {
        float *vectors = system_queries_new(system, queries, fixed, (IndexSide)side);
        index_search(system->index, (IndexSide)side, scores, ids, vectors, group, Q, k);
        for (int i = 0; i < Q * k; i++) {
            if (ids[i] < 0) {
                die(EXIT_BAD_DATA, "index: query '%s' finds fewer than evaluate.k=%d passages outside its "
                    "own group; lower it", queries->records[i / k].id, k);
            }
            found.passages[i / k * 2 * k + side * k + i % k] = ids[i];
        }
        free(vectors);
    }
    free(fixed);
    free(scores);
    free(ids);
    free(group);
    return found;
}

static ReaderImage picture_of(System *system, Dataset *ds, int row) {
    return reader_image_of_row(system->dev, &system->reader_processor, &system->reader->config.vision,
                               ds, row);
}

// Record `item` of the training split: query item / P with its passage item % P, or closed book.
static ReaderExample example_of(System *system, const Found *found, int item, bool is_closed) {
    Dataset *queries = system->split[SPLIT_TRAIN];
    const Record *query = &queries->records[item / found->P];
    ReaderExample example = {.prompt = {.caption = "", .question = query->question},
                             .answer = system->labels.tokens + query->label * system->labels.max_tokens,
                             .answer_count = system->labels.counts[query->label]};
    example.prompt.query_image = picture_of(system, queries, item / found->P);
    if (!is_closed) {
        const int passage = found->passages[item];
        example.prompt.passage_image = picture_of(system, system->corpus, passage);
        example.prompt.caption = system->corpus->records[passage].text;
    }
    return example;
}

static uint64_t context_of(const Config *config, const System *system) {
    const double words[] = {config->reader.lr,    config->reader.warmup,     config->reader.steps,
                            config->reader.batch, config->reader.weight_decay, config->reader.clip,
                            config->reader.closed_book_share, config->reader.all_weights,
                            config->evaluate.k,   config->reader.beta2};
    const uint64_t hashes[] = {system->data_hash, system->index->build_id};
    return xxh64(words, sizeof words, xxh64(hashes, sizeof hashes, 0));
}

static void save_reader(const System *system, const RunLog *run) {
    const bool is_whole = system->config->reader.all_weights;
    char *path = runlog_path_new(run, is_whole ? "reader.safetensors" : "adapter");
    if (!is_whole) {
        error_die(path, file_make_directories(path));
        free(path);
        path = runlog_path_new(run, "adapter/adapter_model.safetensors");
    }
    error_die(path, weights_save(&system->reader->tensors, path, is_whole ? "" : "base_model.model.",
                                 !is_whole, true));
    free(path);
}

static double one_step(System *system, ReaderTrainer *trainer, Sampler *sampler, const Found *found,
                       ReaderExample *examples, int64_t step, double lr) {
    const Config *config = system->config;
    const int B = config->reader.batch;
    for (int i = 0; i < B; i++) {
        Rng rng = rng_new((uint64_t)config->seed, RNG_TRAIN, (uint32_t)step, (uint32_t)i);
        const bool is_closed = rng_uniform(&rng) < config->reader.closed_book_share;
        examples[i] = example_of(system, found, sampler_item(sampler, step * B + i), is_closed);
    }
    const double loss = reader_trainer_step(trainer, examples, B, lr);
    for (int i = 0; i < B; i++) {
        free((void *)examples[i].prompt.passage_image.pixels);
        free((void *)examples[i].prompt.query_image.pixels);
    }
    return loss;
}

int cmd_train_reader(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    if (run->is_done) {
        return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
    }
    System system = system_open(config);
    if (system.split[SPLIT_TRAIN]->n == 0) {
        die(EXIT_BAD_DATA, "%s: no training queries", config->data.task);
    }
    system_open_retriever(&system, false);
    system_open_index(&system);
    system_open_heads(&system);
    system_open_reader(&system, config->reader.all_weights ? READER_TRAINS_ALL : READER_TRAINS_ADAPTER);
    const Found found = find_passages(&system);
    const int items = system.split[SPLIT_TRAIN]->n * found.P, B = config->reader.batch;
    OptimConfig optim = optim_default();
    optim.weight_decay = (float)config->reader.weight_decay;
    optim.beta2 = (float)config->reader.beta2;
    optim.clip = (float)config->reader.clip;
    ReaderTrainer trainer = reader_trainer_new(system.dev, system.reader, &system.prompts, &optim,
                                               config->reader.recompute);
    Sampler *sampler = sampler_new(items, (uint64_t)config->seed);
    ReaderExample *examples = xmalloc((size_t)B, sizeof *examples);
    Stage stage = stage_begin(config, run, "train-reader", context_of(config, &system), &trainer.optim,
                              NULL, 0, config->reader.steps);
    for (int64_t step = stage.first; stage_goes_on(&stage, step); step++) {
        const double lr = schedule_rate((Schedule)config->reader.schedule, config->reader.lr,
                                        config->reader.warmup, config->reader.steps, (int)step);
        const double loss = one_step(&system, &trainer, sampler, &found, examples, step, lr);
        const RunValue extra[] = {{"grad_norm", optim_norm(&trainer.optim)},
                                  {"cut_captions", system.prompts.cut_captions}};
        stage_step(&stage, step, loss, lr, (double)((step + 1) * B) / items, extra, 2);
    }
    if (stage_is_done(&stage)) {
        save_reader(&system, run);
    }
    free(examples);
    free(found.passages);
    sampler_free(sampler);
    reader_trainer_free(&trainer);
    system_close(&system);
    return stage_end(&stage);
}
