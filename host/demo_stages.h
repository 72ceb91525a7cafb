// demo_stages: the stages of the embedded benchmark, one function each; demo.c runs them in order.
#ifndef JOMED_HOST_DEMO_STAGES_H
#define JOMED_HOST_DEMO_STAGES_H

#include "config.h"
#include "demo_world.h"
#include "evaluate.h"
#include "file.h"
#include "pretrain.h"
#include "schedule.h"
#include "train_reader.h"
#include "train_retriever.h"

// The recipe of the prototype (steep in a few knobs, so its values are kept). Keys of the
// configuration that the user sets take the place of what stands here.
typedef struct {
    int corpus_size, train_size, test_size;
    double corpus_finding, corpus_wrong;     // captions of the corpus
    double pretrain_finding, pretrain_wrong; // captions of the pretraining pairs
    double reader_finding, reader_wrong;     // captions of the reader's pretraining passages
    int pretrain_steps, pretrain_batch, reader_steps, reader_batch, lora_steps, lora_batch;
    int head_steps, head_batch, refit_steps, refit_batch, K, refresh, k;
    double pretrain_lr, reader_lr, lora_lr, head_lr, refit_lr;
    int pretrain_warmup, reader_warmup, lora_warmup, head_warmup, refit_warmup;
    double temperature, share, closed_book_share;
    int lora_rank;
    double lora_alpha;
} DemoRecipe;
DemoRecipe demo_recipe(const Config *config);

// A drawn set: the cases, and the same as a data set.
typedef struct {
    DemoCase *cases;
    Dataset *ds;
} DemoSet;

// Everything of one seed.
typedef struct {
    const Config *config;
    DemoRecipe recipe;
    int seed;
    const char *dir;
    Device *dev;
    FileLog losses; // one line per step, without times: equal runs give equal bytes
    Tokenizer *tokenizer;
    ProcessorConfig tower_processor, reader_processor;
    DemoSet corpus, train, test;
    LabelSet labels;
    Retriever *retriever;
    Reader *base, *reader; // without and with adapters
    PromptMaker prompts;
    Index *index;
    float *index_f32[INDEX_SIDES]; // the rows before rounding, for exact.recompute_fp32
    float *fixed_train, *fixed_test; // f(v), (queries,E)
    ScoreStore *store;
    Scorer scorer;
} Demo;

void demo_draw(Demo *demo);           // world and tokenizer
void demo_pretrain_towers(Demo *demo); // stage 0a
void demo_pretrain_reader(Demo *demo); // stage 0b
void demo_build_index(Demo *demo);
// Stage 1, or 4 when the reader has been trained before: LoRA on examples of (query, passage).
// passages: (train queries,2k), what a system retrieves for them.
void demo_train_adapter(Demo *demo, const int32_t *passages, const char *stage, int steps,
                        int batch, double lr, int warmup, bool is_linear);
// Scores of the reader as it is now; ends an earlier scorer.
void demo_open_scorer(Demo *demo);
// Stage 2 or 3: a head trained from a copy of the frozen tower. hit_rate and distinct are reported.
// search: search head to start with (exact.stale_search_head), or NULL for a copy of the tower.
Head *demo_train_head(Demo *demo, IndexSide side, bool is_permuted, const char *stage,
                      Head **search, double *hit_rate, double *distinct);
// Mixed queries of a head for a set: (n,E), to be freed. head NULL: the frozen tower alone.
float *demo_queries_new(Demo *demo, const DemoSet *set, const float *fixed, Head *head);
// Accuracy on the second half of the corpus of a least-squares classifier of the finding, fitted on
// the image rows of the first half.
double demo_probe(const Demo *demo);
void demo_close(Demo *demo);

#endif
