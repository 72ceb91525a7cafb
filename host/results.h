// results: what one run found, as one file (results.json) from which every table and figure is
// computed.
//
// It holds predictions, not metrics: report derives accuracy, F1, AUC, oracles and significance
// from it, so that a number in a table can always be computed again. Layout of results.json:
//
//   {"version": 1, "task": "demo", "commit": "..", "seed": 1, "k": 2, "classes": [names],
//    "gold": [class of each query],
//    "inconsistent": [0 or 1 of each query], "facts": {name: number},
//    "systems": [{"name": "joint", "facts": {name: number},
//                 "answers": {"mixture": [class], "logit fusion": [class], ...},
//                 "predicted": [class with each passage, row-major (Q,P)],
//                 "passages": [rows (Q,P)],
//                 "probability": [of the mixture, row-major (Q,C)],
//                 and where known: "passage_probability": [with each passage, row-major (Q,P,C)],
//                 "scores": [under the image, then under the text head, row-major (2,Q,P)],
//                 "caption_length": [tokens (Q,P)],
//                 "utility": {"mean": [4], "scale": [4], "weight": [4], "intercept": number}}],
//    "pictures": [{"query": png, "gold": "..", "systems": {name: [{"image": png, "caption": "..",
//                 "answer": ".."}]}}]}                                    png: base64 of a PNG file
#ifndef JOMED_HOST_RESULTS_H
#define JOMED_HOST_RESULTS_H

#include "evaluate.h"

typedef struct {
    char *name;
    double value; // NaN: not known
} Fact;
typedef struct {
    Fact *items;
    int count;
} FactList;
void facts_add(FactList *facts, double value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
double facts_get(const FactList *facts, const char *name); // NaN when absent

typedef struct {
    char *name;
    int P;                     // passages per query; 1 and passages -1: closed book
    int *answers[ANSWER_COUNT]; // (Q) each
    int *predicted;            // (Q,P)
    int32_t *passages;         // (Q,P)
    double *probability;       // (Q,C) of the mixture
    // For the rerankers; each may be NULL. Six significant digits are kept.
    double *passage_probability; // (Q,P,C) of the labels with each passage
    float *scores;               // (2,Q,P) under the image head, then under the text head
    int *caption_length;         // (Q,P) tokens
    UtilityModel *utility;       // fitted on the training queries
    FactList facts;
} SystemResult;

// One retrieved passage as it is shown.
typedef struct {
    char *image, *caption, *answer; // base64 PNG, text, class name
} ShownPassage;
typedef struct {
    char *system;
    ShownPassage *passages;
    int count;
} ShownSystem;
typedef struct {
    char *query, *gold; // base64 PNG, class name
    ShownSystem *systems;
    int count;
} Picture;

typedef struct {
    char *task, *commit; // commit of the program that made it, empty when not known
    int seed, k, Q, C;
    char **classes;      // (C)
    int *gold;           // (Q)
    bool *inconsistent;  // (Q) fixed from the system with the frozen retriever
    SystemResult *systems;
    int system_count;
    Picture *pictures;
    int picture_count;
    FactList facts;
} RunResult;

RunResult *run_result_new(const char *task, int seed, int k, const Dataset *queries);
void run_result_free(RunResult *result);
// Copies an evaluation under a name. utility may be NULL. Returns the new system (valid until the
// next add).
SystemResult *run_result_add(RunResult *result, const char *name, const Evaluation *evaluation,
                             const UtilityModel *utility);
SystemResult *run_result_append(RunResult *result); // an empty one, to be filled
// Adds a system without passages (a baseline): answers (Q) hold for every way of fusion, P is 1,
// passages are -1. probability: (Q,C).
SystemResult *run_result_add_answers(RunResult *result, const char *name, const int *answers,
                                     const double *probability);
// Sets `inconsistent` from an evaluation of the frozen retriever.
void run_result_fix_subset(RunResult *result, const Evaluation *frozen);
// Adds a picture of query q with what the named evaluations retrieved for it.
void run_result_picture(RunResult *result, Dataset *queries, Dataset *corpus, int q,
                        const char *const *names, const Evaluation *const *evaluations, int count);
const SystemResult *run_result_find(const RunResult *result, const char *name); // NULL when absent

Error run_result_write(const RunResult *result, const char *path);
// EXIT_NO_INPUT, EXIT_BAD_DATA (with what is wrong). Checked: at least one query and one class,
// sizes of all arrays, ranges of classes, 2k passages per query or one (closed book), names that
// occur once.
Error run_result_read_new(RunResult **out, const char *path);
Error run_result_parse_new(RunResult **out, const void *text, size_t size); // the same in memory

#endif
