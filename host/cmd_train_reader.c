// cmd_train_reader: jomed train-reader: the reader learns on what the retriever finds, one passage
// per prompt, four records per sample with image hits first. Writes RUN/adapter, or
// RUN/reader.safetensors with reader.all_weights=true.
#include <stdlib.h>
#include <string.h>

#include "adapter.h"
#include "file.h"
#include "memory_plan.h"
#include "schedule.h"
#include "settings.h"
#include "sharegpt.h"
#include "stage.h"
#include "system.h"
#include "train_reader.h"
#include "verbs.h"
#include "weights.h"

// What the retriever finds for the queries, (queries,2k).
static int32_t *find_passages_new(System *system, Dataset *queries) {
    float *fixed = system_fixed_new(system, queries), *vectors[INDEX_SIDES];
    for (int side = 0; side < INDEX_SIDES; side++) {
        vectors[side] = system_queries_new(system, queries, fixed, (IndexSide)side);
    }
    const float *const both[INDEX_SIDES] = {vectors[INDEX_IMAGE], vectors[INDEX_TEXT]};
    int32_t *passages = retrieve_new(system->index, queries, both, system->config->evaluate.k,
                                     NULL);
    free(fixed);
    free(vectors[INDEX_IMAGE]);
    free(vectors[INDEX_TEXT]);
    return passages;
}

// ---- records ----
// The files that the original's script makes, one per split.
static void write_records(System *system) {
    static const char *const names[SPLIT_COUNT] = {[SPLIT_TRAIN] = "train", [SPLIT_VAL] = "val",
                                                   [SPLIT_TEST] = "test"};
    const int P = 2 * system->config->evaluate.k;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        Dataset *queries = system->split[s];
        if (queries->n == 0) {
            continue;
        }
        int32_t *passages = find_passages_new(system, queries);
        char *path = xformat_new("%s_%s_.json", system->config->reader.write_records, names[s]);
        FileWriter writer;
        error_die(path, file_writer_open(&writer, path));
        for (int q = 0; q < queries->n; q++) {
            char *lines;
            error_die(path, sharegpt_lines_new(&lines, system->config->prompt.instruction, queries,
                                               q, system->corpus, passages + (size_t)q * P, P));
            file_writer_add(&writer, lines, strlen(lines));
            free(lines);
        }
        error_die(path, file_writer_commit(&writer));
        LOG(INFO, "%s: %d records", path, queries->n * P);
        free(path);
        free(passages);
    }
}

// Records of a file take the place of the training queries and the corpus; passages are theirs.
static System open_records(const Config *config, Sharegpt *records) {
    System system = system_open_models(config);
    const char *const path = config->reader.records;
    FileBytes bytes;
    error_die(path, file_map_new(&bytes, path));
    error_die(path, sharegpt_parse_new(records, system_set_new(config), system_set_new(config),
                                       path, bytes.data, bytes.size));
    file_bytes_free(&bytes);
    if (config->prompt.instruction[0] &&
        strcmp(config->prompt.instruction, records->instruction) != 0) {
        die(EXIT_CONFIG, "prompt.instruction: the records in '%s' have another; leave it out",
            path);
    }
    uint64_t hash = 0;
    Dataset *const sets[] = {records->queries, records->corpus};
    for (int i = 0; i < 2; i++) {
        const uint64_t own = dataset_hash(sets[i]);
        hash = xxh64(&own, sizeof own, hash);
        dataset_hash_images(sets[i]);
        for (int row = 0; row < sets[i]->n; row++) {
            hash = xxh64(&sets[i]->records[row].image_hash, sizeof(uint64_t), hash);
        }
    }
    system.data_hash = hash;
    system.corpus = records->corpus;
    system.split[SPLIT_TRAIN] = records->queries;
    LOG(INFO, "%s: %d records", path, records->queries->n);
    return system;
}

// Settings and data that a resumed run must share with its first attempt. The passages stand for
// index, heads and k; the reader's tensors are those it starts from.
static uint64_t context_of(const System *system, const ReaderTask *task) {
    const Config *config = system->config;
    const double words[] = {config->reader.lr, config->reader.warmup, config->reader.steps,
                            config->reader.batch, config->reader.weight_decay, config->reader.clip,
                            config->reader.closed_book_share, config->reader.all_weights,
                            config->reader.beta2, config->reader.schedule,
                            config->reader.micro_batch, config->exact.micro_mean,
                            config->exact.sft_positions,
                            (double)system->reader->config.block.lora.alpha,
                            system->reader->config.block.lora.is_rslora};
    uint64_t hash = xxh64(words, sizeof words, system->data_hash);
    hash = xxh64(task->passages, (size_t)task->queries->n * task->P * sizeof *task->passages, hash);
    const uint64_t hashes[] = {tensors_hash(&system->reader->tensors),
                               prompt_hash(&system->prompts),
                               processor_hash(&system->reader_processor)};
    return xxh64(hashes, sizeof hashes, hash);
}

static void save_reader(const System *system, const RunLog *run) {
    const TensorList *list = &system->reader->tensors;
    const LoraConfig *lora = &system->reader->config.block.lora;
    const bool is_whole = system->config->reader.all_weights;
    char *path = runlog_path_new(run, is_whole ? "reader.safetensors" : "adapter");
    const AdapterConfig adapter = {.rank = lora->rank, .alpha = lora->alpha,
                                   .is_rslora = lora->is_rslora};
    error_die(path, is_whole ? weights_save(list, path, "", false, true)
                             : adapter_save(list, path, &adapter));
    free(path);
}

// What the training needs.
typedef struct {
    System system;
    int32_t *passages; // (queries,P)
    int P;
    char *instruction; // of records, or NULL
} Training;

static Training open_training(const Config *config) {
    const ReaderUse use = config->reader.all_weights ? READER_TRAINS_ALL : READER_TRAINS_ADAPTER;
    if (config->reader.records[0]) {
        Sharegpt records;
        Training training = {.system = open_records(config, &records), .P = 1};
        system_open_reader(&training.system, use);
        training.system.prompts.instruction = training.instruction = records.instruction;
        training.passages = records.passages;
        return training;
    }
    Training training = {.P = 2 * config->evaluate.k};
    System *system = &training.system;
    *system = system_open(config, config->reader.open_answers ? CORPUS_OPEN : CORPUS_INDEXED);
    if (system->split[SPLIT_TRAIN]->n == 0) {
        die(EXIT_BAD_DATA, "%s: no training queries", config->data.task);
    }
    system_open_retriever(system, TOWERS_FROZEN);
    system_open_index(system);
    system_open_heads(system);
    if (config->reader.write_records[0]) {
        write_records(system);
    }
    system_open_reader(system, use);
    training.passages = find_passages_new(system, system->split[SPLIT_TRAIN]);
    return training;
}

int cmd_train_reader(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    if (run->is_done) {
        return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
    }
    Training training = open_training(config);
    System *system = &training.system;
    Dataset *queries = system->split[SPLIT_TRAIN];
    const int items = queries->n * training.P, B = config->reader.batch;
    const OptimConfig optim = reader_optim(config);
    const ReaderTrainConfig settings = reader_settings(config);
    ReaderTrainer trainer =
        reader_trainer_new(system->dev, system->reader, &system->prompts, &optim, &settings);
    const ReaderTask task = {.queries = queries,
                             .corpus = system->corpus,
                             .passages = training.passages,
                             .P = training.P,
                             .labels = &system->labels,
                             .processor = &system->reader_processor,
                             .closed_book_share = config->reader.closed_book_share,
                             .seed = (uint64_t)config->seed,
                             .sampler = sampler_new(items, (uint64_t)config->seed)};
    Stage stage = stage_begin(config, run, "train-reader", context_of(system, &task),
                              &trainer.optim, NULL, 0, config->reader.steps);
    if (stage_goes_on(&stage, stage.first)) {
        const Arena plan = reader_task_plan(&trainer, &task, stage.first, B);
        const MemoryNeed need = {"reader training", plan.peak};
        memory_plan_training(system->dev, &need, 1, plan.scratch);
    }
    for (int64_t step = stage.first; stage_goes_on(&stage, step); step++) {
        const double lr = schedule_rate((Schedule)config->reader.schedule, config->reader.lr,
                                        config->reader.warmup, config->reader.steps, (int)step);
        const double loss = reader_task_step(&trainer, &task, step, B, lr);
        const RunValue extra = {"cut_captions", system->prompts.cut_captions};
        stage_step(&stage, step, loss, lr, (double)((step + 1) * B) / items, &extra, 1);
    }
    if (stage_is_done(&stage)) {
        save_reader(system, run);
    }
    free(training.passages);
    free(training.instruction);
    sampler_free(task.sampler);
    reader_trainer_free(&trainer);
    system_close(system);
    return stage_end(&stage);
}
