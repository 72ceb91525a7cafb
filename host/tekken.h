// tekken: Mistral's tokenizers, which are ranks of byte strings behind the ids of special tokens.
//
// The id of a rank is n + rank, where the first n ids are special; those without a name are called
// <SPECIAL_id>. Text is not normalised; it is cut by Tekken's rule, or by what tekken.json states.
// Source: tekken.json as mistral-common 1.13 reads it; tiktoken.
#ifndef JOMED_HOST_TEKKEN_H
#define JOMED_HOST_TEKKEN_H

#include "json.h"
#include "tokenizer.h"

// tiktoken's form: lines "base64 rank". specials: {"num_special": n, "...": {"name": id, ...}}, one
// such object. Error: EXIT_BAD_DATA.
Error tokenizer_from_ranks(Tokenizer **out, const char *ranks, size_t size, const json_t *specials);
// tekken.json: {"config": {"pattern", "default_vocab_size", "default_num_special_tokens"}, "vocab":
// [{"rank", "token_bytes"}], "special_tokens": [{"rank", "token_str"}]}. The vocabulary is cut to
// the stated size; without special_tokens the names are those of Pixtral's time. Error:
// EXIT_BAD_DATA.
Error tokenizer_from_tekken(Tokenizer **out, const json_t *root);

#endif
