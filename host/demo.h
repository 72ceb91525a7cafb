// demo: the embedded benchmark for one seed: every stage of the method, in memory, on the CPU.
//
//   0a towers by InfoNCE    0b reader, all weights    index    1 reader LoRA on retrieved passages
//   2 text head    3 image head    4 refit of the reader's LoRA on what the trained heads retrieve
//
// World, towers and reader are drawn anew per seed. Nothing here is a result of the paper.
#ifndef JOMED_HOST_DEMO_H
#define JOMED_HOST_DEMO_H

#include "config.h"

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

// Runs all stages for one seed. Writes results.json, losses.jsonl, the index and the score store
// below dir.
void demo_run(const Config *config, int seed, const char *dir);

#endif
