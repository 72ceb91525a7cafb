// cmd_evaluate: jomed evaluate: answers of the systems that the configuration can build, over one
// split: closed book, random passages, the frozen retriever, and the trained heads where they are
// named. Writes RUN/results.json (which jomed report turns into tables) and
// RUN/predictions/SYSTEM.jsonl.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "baseline.h"
#include "demo.h"
#include "file.h"
#include "predictions.h"
#include "results.h"
#include "runlog.h"
#include "settings.h"
#include "system.h"
#include "verbs.h"

enum { SHOWN_QUERIES = 8 };

// The queries of one system: with the trained heads, or with the frozen tower for both sides.
static Evaluation *evaluate_system(System *system, Dataset *queries, const float *fixed,
                                   bool is_trained, int k) {
    const FusionConfig fusion = fusion_settings(system->config);
    float *vectors[INDEX_SIDES] = {NULL, NULL};
    for (int side = 0; is_trained && side < INDEX_SIDES; side++) {
        vectors[side] = system_queries_new(system, queries, fixed, (IndexSide)side);
    }
    Evaluation *e = evaluation_new(&system->scorer, system->index, queries, system->corpus,
                                   is_trained ? vectors[INDEX_IMAGE] : fixed,
                                   is_trained ? vectors[INDEX_TEXT] : fixed, k, &fusion);
    free(vectors[INDEX_IMAGE]);
    free(vectors[INDEX_TEXT]);
    return e;
}

// Oracles over more passages than are fused.
static void add_oracles(System *system, SystemResult *result, Dataset *queries, const float *fixed,
                        bool is_trained) {
    int *gold = xmalloc((size_t)queries->n, sizeof *gold);
    for (int q = 0; q < queries->n; q++) {
        gold[q] = queries->records[q].label;
    }
    for (int i = 0; i < system->config->evaluate.oracle_at.count; i++) {
        const int n = system->config->evaluate.oracle_at.items[i];
        Evaluation *e = evaluate_system(system, queries, fixed, is_trained, n);
        facts_add(&result->facts, analysis_oracle(e->predicted, gold, NULL, e->Q, e->P, e->P),
                  "oracle, %d passages per head", n);
        evaluation_free(e);
    }
    free(gold);
}

// The utility reranker of a system, from its answers to the training queries; NULL without these.
static UtilityModel *utility_new(System *system, bool is_trained) {
    Dataset *train = system->split[SPLIT_TRAIN];
    if (train->n == 0) {
        return NULL;
    }
    float *fixed = system_fixed_new(system, train);
    Evaluation *e = evaluate_system(system, train, fixed, is_trained, system->config->evaluate.k);
    UtilityModel *utility = xmalloc(1, sizeof *utility);
    *utility = evaluation_fit_utility(e, train);
    evaluation_free(e);
    free(fixed);
    return utility;
}

enum { NEIGHBOURS = 5 };

// What needs neither reader nor training: the majority class, and the nearest training images by
// the frozen image tower.
static void add_baselines(System *system, RunResult *result, const Dataset *queries,
                          const float *fixed) {
    Dataset *train = system->split[SPLIT_TRAIN];
    const int Q = queries->n, C = queries->C, E = system->retriever->config.image.E;
    if (train->n == 0) {
        return;
    }
    int *answers = xmalloc((size_t)Q, sizeof *answers),
        *labels = xmalloc((size_t)train->n, sizeof *labels);
    double *probability = xmalloc((size_t)Q * C, sizeof *probability);
    float *rows = system_fixed_new(system, train);
    for (int i = 0; i < train->n; i++) {
        labels[i] = train->records[i].label;
    }
    baseline_majority(answers, probability, train, Q, C);
    run_result_add_answers(result, "majority class", answers, probability);
    baseline_neighbours(answers, probability, rows, labels, train->n, fixed, Q, E, C, NEIGHBOURS);
    run_result_add_answers(result, "5 nearest neighbours", answers, probability);
    free(answers);
    free(labels);
    free(probability);
    free(rows);
}

// Answers in the reader's own words, where an exact switch asks for them; else NULL.
static OwnWords *own_words_of(System *system, Dataset *queries, const Evaluation *e) {
    const Config *config = system->config;
    OwnConfig own = {.is_parser = config->exact.parser, .is_tail = config->exact.tail_decode,
                     .is_fusion = config->exact.fusion,
                     .has_saved_logits = config->exact.saved_logits,
                     .is_max_norm = config->exact.max_norm, .choice = system_choice(system)};
    if (!own.is_parser && !own.is_tail && !own.is_fusion && !own.has_saved_logits) {
        return NULL;
    }
    own.choice.is_sampled = false; // the original's answers are greedy, whatever the folder says
    own.choice.penalty = config->exact.rep_penalty ? own.choice.penalty : 1;
    const int32_t pad = tokenizer_id(system->tokenizer, "<|endoftext|>");
    own.pad = pad >= 0 ? pad : system->prompts.answer_end >= 0 ? system->prompts.answer_end : 0;
    return own_words_new(&system->scorer, e, queries, system->corpus, &own);
}

static void write_predictions(const RunLog *run, const System *system, const Dataset *queries,
                              const char *name, const Evaluation *e, const OwnWords *own) {
    char file[96], *dir = runlog_path_new(run, "predictions");
    error_die(dir, file_make_directories(dir));
    snprintf(file, sizeof file, "%s.jsonl", name);
    for (char *c = file; *c; c++) {
        *c = *c == ' ' || *c == ',' ? '-' : *c;
    }
    char *path = file_join_new(dir, file);
    error_die(path,
              predictions_write(path, queries, system->corpus, e,
                                system->config->exact.fusion ? ANSWER_LOGITS : ANSWER_MIXTURE,
                                own));
    free(path);
    free(dir);
}

// One row of every table, and one file of predictions.
static void add_system(RunLog *run, System *system, RunResult *result, Dataset *queries,
                       const float *fixed, const Evaluation *e, DemoSystem kind) {
    const bool is_joint = kind == DEMO_JOINT, has_retriever = is_joint || kind == DEMO_RAG;
    const char *name = demo_system_name(kind);
    UtilityModel *utility = has_retriever ? utility_new(system, is_joint) : NULL;
    SystemResult *added = run_result_add(result, name, e, utility);
    free(utility);
    if (has_retriever) {
        add_oracles(system, added, queries, fixed, is_joint);
    }
    OwnWords *own = own_words_of(system, queries, e);
    if (own) {
        facts_add(&added->facts, own_words_accuracy(own, queries, false),
                  "accuracy of the texts with each passage");
        facts_add(&added->facts, own_words_accuracy(own, queries, true),
                  "accuracy of the fused texts");
    }
    write_predictions(run, system, queries, name, e, own);
    own_words_free(own);
    const Answer answer = system->config->exact.fusion ? ANSWER_LOGITS : ANSWER_MIXTURE;
    LOG(INFO, "%-24s accuracy %.1f", name, 100 * evaluation_accuracy(e, queries, answer, NULL));
}

int cmd_evaluate(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    if (run->is_done) {
        return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
    }
    System system = system_open(config, CORPUS_INDEXED);
    Dataset *queries = system.split[config->evaluate.split];
    if (queries->n == 0) {
        die(EXIT_BAD_DATA, "%s: no queries in the split; set evaluate.split", config->data.task);
    }
    system_open_retriever(&system, TOWERS_FROZEN);
    system_open_index(&system);
    system_open_heads(&system);
    system_open_reader(&system, READER_FROZEN);
    system_open_scorer(&system, run->dir, false);
    const int k = config->evaluate.k;
    const FusionConfig fusion = fusion_settings(config);
    const bool is_trained = system.heads[INDEX_IMAGE] || system.heads[INDEX_TEXT];
    float *fixed = system_fixed_new(&system, queries);
    int32_t *passages = random_passages_new(queries, system.corpus, 2 * k, (uint64_t)config->seed);
    Evaluation *e[4] = {
        evaluation_of_passages_new(&system.scorer, queries, system.corpus, NULL, NULL, 0, &fusion),
        evaluation_of_passages_new(&system.scorer, queries, system.corpus, passages, NULL, k,
                                   &fusion),
        evaluate_system(&system, queries, fixed, false, k),
        is_trained ? evaluate_system(&system, queries, fixed, true, k) : NULL};
    static const DemoSystem kinds[4] = {DEMO_CLOSED_BOOK, DEMO_RANDOM, DEMO_RAG, DEMO_JOINT};
    RunResult *result = run_result_new(config->data.task, config->seed, k, queries);
    run_result_fix_subset(result, e[2]);
    add_baselines(&system, result, queries, fixed);
    for (int i = 0; i < 4 && e[i]; i++) {
        add_system(run, &system, result, queries, fixed, e[i], kinds[i]);
    }
    const char *const names[] = {demo_system_name(DEMO_RAG), demo_system_name(DEMO_JOINT)};
    const Evaluation *const shown[] = {e[2], e[3]};
    for (int q = 0; q < SHOWN_QUERIES && q < queries->n; q++) {
        run_result_picture(result, queries, system.corpus, q, names, shown, is_trained ? 2 : 1);
    }
    facts_add(&result->facts, (double)system.scorer.forwards, "reader forwards");
    facts_add(&result->facts, (double)system.scorer.pairs, "pairs asked for");
    char *path = runlog_path_new(run, "results.json");
    error_die(path, run_result_write(result, path));
    free(path);
    for (int i = 0; i < 4; i++) {
        evaluation_free(e[i]);
    }
    run_result_free(result);
    free(passages);
    free(fixed);
    system_close(&system);
    return runlog_close(run, RUN_END_DONE, EXIT_OK, NULL);
}
