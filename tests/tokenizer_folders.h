// tokenizer_folders: folders with the tokenizers of the readers, as their models' folders have
// them, made of the test data: links to the vocabularies, and the special tokens written out.
#ifndef JOMED_TESTS_TOKENIZER_FOLDERS_H
#define JOMED_TESTS_TOKENIZER_FOLDERS_H

#include <stdbool.h>

// Put the files into dir, which is there. False, after counting a skip, where the data are absent.
bool qwen2vl_folder(const char *dir); // vocab.json, merges.txt, tokenizer_config.json
// The same without data: a vocabulary of the 256 bytes, and the special tokens behind them.
void qwen2vl_folder_of_bytes(const char *dir);
bool pixtral_folder(const char *dir); // tekken.tiktoken, special_tokens.json

#endif
