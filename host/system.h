// system: the parts of a run, put together from its configuration: data, towers, reader, index,
// scorer. Each part is opened by name; what was opened is closed by system_close.
#ifndef JOMED_HOST_SYSTEM_H
#define JOMED_HOST_SYSTEM_H

#include "config.h"
#include "dataset.h"
#include "evaluate.h"
#include "hub_reader.h"
#include "hub_retriever.h"
#include "index.h"
#include "scorer.h"

typedef struct {
    const Config *config;
    Device *dev;
    Tokenizer *tokenizer, *tower_tokenizer; // the reader's and labels'; the towers', perhaps it too
    ProcessorConfig tower_processor, reader_processor;
    int max_tokens; // of a text of the towers
    Dataset *corpus, *split[SPLIT_COUNT]; // passages; queries by split
    uint64_t corpus_hash; // of the corpus, the bytes of its pictures too
    uint64_t data_hash;   // of corpus and queries, likewise
    LabelSet labels;
    HubRetriever tower_hub; // what retriever.model holds
    SafeStore tower_store;  // where its frozen tensors lie
    HubFolder reader_hub;   // what reader.model holds, and the form it states
    ReaderConfig reader_form;
    SafeStore reader_store;
    Retriever *retriever;
    Reader *reader;
    PromptMaker prompts;
    Index *index;
    Head *heads[INDEX_SIDES];            // trained query heads, or NULL for the frozen tower
    ScoreStore *store;
    Scorer scorer;
} System;

// Device, data.corpus and data.task (with splits), classes, tokenizer, processors.
// CORPUS_INDEXED: without the rows that index.dir leaves out. CORPUS_OPEN: so, and queries whose
// answer is no class stay. CORPUS_TO_INDEX: a passage with a bad
// picture is skipped rather than fatal unless data.on_bad_image says otherwise; see
// system_drop_bad.
typedef enum { CORPUS_WHOLE, CORPUS_INDEXED, CORPUS_OPEN, CORPUS_TO_INDEX } CorpusUse;
System system_open(const Config *config, CorpusUse use);
// Drops the passages whose pictures were found bad, if its policy is to skip them, from the corpus
// and its hash. rows of either side, (n,E): moved up likewise.
void system_drop_bad(System *system, float *const rows[INDEX_SIDES], int E);
void system_close(System *system);
// An empty data set with the classes, the root and the policy that the keys say.
Dataset *system_set_new(const Config *config);

// Device, tokenizers and processors alone, for verbs without a task.
System system_open_models(const Config *config);

// A corpus file read as the keys of data and image say.
Dataset *system_corpus_new(const Config *config, const char *path);

// Towers from the folder retriever.model or in the form of retriever.preset; weights from
// retriever.weights, else from the folder, else drawn from the seed. A folder without an image
// tower is refused unless the use is TOWERS_OF_TEXTS. TOWERS_TRAINABLE: for pretrain.
typedef enum { TOWERS_FROZEN, TOWERS_TRAINABLE, TOWERS_OF_TEXTS } TowersUse;
void system_open_retriever(System *system, TowersUse use);
// Reader from the folder reader.model or in the form of reader.preset; weights from reader.weights,
// else from the folder, else drawn from the seed; adapter from reader.adapter.
typedef enum { READER_FROZEN, READER_TRAINS_ADAPTER, READER_TRAINS_ALL } ReaderUse;
void system_open_reader(System *system, ReaderUse use);
// How the folder reader.model chooses tokens: its generation_config.json. Where that names no ends,
// the token that ends an answer in the family's prompts does.
ChoiceConfig system_choice(const System *system);
// Hash of all that an index row depends on beside the corpus: towers, processor, tokenizer,
// max_tokens.
uint64_t system_encoder_hash(const System *system);
// index.dir, checked against the corpus (the bytes of its pictures too) and system_encoder_hash.
void system_open_index(System *system);
// Heads from retriever.text_head and retriever.image_head where these are set.
void system_open_heads(System *system);
// is_loss: for the loss of a query head, where exact.retina6 adds a sixth label to five.
void system_open_scorer(System *system, const char *run_dir, bool is_loss);

// f(v) of a set's queries: (n,E), to be freed.
float *system_fixed_new(System *system, Dataset *queries);
// Mixed queries of one side: share * head + (1 - share) * f; f itself without a head.
float *system_queries_new(System *system, Dataset *queries, const float *fixed, IndexSide side);
// Gathers the caption of every passage; the array is to be freed, the texts are the corpus's.
const char **system_captions_new(const System *system);

#endif
