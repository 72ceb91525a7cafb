// sharegpt: the records of fine-tuning as LLaMA-Factory keeps them, into data sets and out of them.
//
//   {"messages": [{"content": "{instruction}<image>background: {caption}\n\n<image>{question}",
//                  "role": "user"},
//                 {"content": "{answer}", "role": "assistant"}],
//    "images": [passage picture, query picture]}
//
// One object per line, as the original's script writes them, or all in one array. One picture and
// one <image>: a record without a passage. Left out: several turns, system messages, other content.
// Sources: LLaMA-Factory's data format; the script that makes JOMED's records.
#ifndef JOMED_HOST_SHAREGPT_H
#define JOMED_HOST_SHAREGPT_H

#include "dataset.h"

// The records of a query with P passages: rows of the corpus, -1 for none. One line each, written
// byte for byte as Python's json.dump does; the caller frees. Pictures go by the paths of the data
// sets. Error: a picture without a path, a text that holds "<image>", which would be a picture.
Error sharegpt_lines_new(char **out, const char *instruction, const Dataset *queries, int query,
                         const Dataset *corpus, const int32_t *passages, int P);

typedef struct {
    Dataset *queries, *corpus; // row i of queries is record i; rows of passages in their order
    int32_t *passages;         // (queries->n) rows of the corpus, -1 for none
    char *instruction;         // of all records
} Sharegpt;
// queries and corpus: empty sets, which keep their roots and policies and become the records'
// (freed with them). name: of the file, in messages. Error: EXIT_BAD_DATA, naming record and what
// is wrong with it; instructions that differ are wrong, too.
Error sharegpt_parse_new(Sharegpt *out, Dataset *queries, Dataset *corpus, const char *name,
                         const void *text, size_t size);
void sharegpt_free(Sharegpt *records);

#endif
