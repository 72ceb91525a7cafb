// tokenizer_files: a tokenizer from the files of a model's folder, whichever form they have.
//
//   tokenizer.json                    Hugging Face's library (tokenizer_json.h)
//   tekken.json                       Mistral's (tekken.h)
//   vocab.json, merges.txt            Qwen2, CLIP or GPT-2, as tokenizer_config.json says; added
//                                     tokens from there, else from added_tokens.json, which of them
//                                     are special from special_tokens_map.json
//   vocab.txt                         BERT; switches from tokenizer_config.json where it is there
//   *.txt.gz                          CLIP's own list of merges (clip_merges.h)
//   *.tiktoken, special_tokens.json   Mistral's ranks, in tiktoken's form (tekken.h)
// A folder is searched in this order; a single file is known by its content.
// Source: transformers 5 (tokenization_bert, _clip, _qwen2), open_clip's tokenizer.py, tiktoken.
#ifndef JOMED_HOST_TOKENIZER_FILES_H
#define JOMED_HOST_TOKENIZER_FILES_H

#include "json.h"
#include "tokenizer.h"

// path: a folder or a file in one; caller frees *out with tokenizer_free. Error: EXIT_NO_INPUT when
// there is no file of a known form; else the text begins with the name of the file at fault.
Error tokenizer_open_new(Tokenizer **out, const char *path);

// ---- one form each ----
// Texts and JSON are borrowed; JSON may be NULL where there is no such file. Error: EXIT_BAD_DATA.
Error tokenizer_from_vocab_txt(Tokenizer **out, const char *text, size_t size,
                               const json_t *config);
typedef struct {
    const json_t *vocab, *config, *added, *special_map;
    const char *merges;
    size_t merges_size;
} MergeFiles;
Error tokenizer_from_merges(Tokenizer **out, const MergeFiles *files);

#endif
