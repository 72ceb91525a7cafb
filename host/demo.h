// demo: the embedded benchmark for one seed: every stage of the method, in memory, on the CPU.
//
//   0a towers by InfoNCE    0b reader, all weights    index    1 reader LoRA on retrieved passages
//   2 text head    3 image head    4 refit of the reader's LoRA on what the trained heads retrieve
//
// World, towers and reader are drawn anew per seed. Nothing here is a result of the paper.
#ifndef JOMED_HOST_DEMO_H
#define JOMED_HOST_DEMO_H

#include "config.h"
#include "evaluate.h"

// The systems of the table.
typedef enum {
    DEMO_CLOSED_BOOK,
    DEMO_RANDOM,
    DEMO_RAG,          // frozen retriever
    DEMO_JOINT,        // both heads trained through the reader
    DEMO_REFIT,        // and the reader's adapter trained again on what they find
    DEMO_PERMUTED,     // control: heads trained on evidence shuffled over passages
    DEMO_SYSTEMS
} DemoSystem;
const char *demo_system_name(DemoSystem system);

typedef struct {
    int seed;
    Evaluation *system[DEMO_SYSTEMS];
    bool *inconsistent;      // (Q) from DEMO_RAG, used for every system
    double probe;            // accuracy of a linear probe of the finding on frozen image embeddings
    double device_match[DEMO_SYSTEMS]; // share of retrieved passages from the query's device
    double names_right[DEMO_SYSTEMS][INDEX_SIDES]; // share that names the query's finding, per head
    int distinct[DEMO_SYSTEMS][INDEX_SIDES];       // passages retrieved at all, per head
    double top20[DEMO_SYSTEMS][INDEX_SIDES]; // share of places held by the 20 most used passages
    double hit_rate[INDEX_SIDES], distinct_per_query[INDEX_SIDES]; // of the score store, in training
    uint64_t forwards;       // prompts the frozen reader ran
    double seconds;
    Dataset *corpus, *test;  // for pictures in the report
} DemoResult;

// Runs all stages for one seed. Writes losses, the index and predictions below dir.
DemoResult *demo_run_new(const Config *config, int seed, const char *dir);
void demo_result_free(DemoResult *result);

#endif
