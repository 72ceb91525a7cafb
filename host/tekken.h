// tekken: Mistral's tokenizers, which are ranks of byte strings behind the ids of special tokens.
//
// The id of a rank is n + rank, where the first n ids are special; those without a name are called
// <SPECIAL_id>. Text is not normalised; it is cut by Tekken's rule, whatever the file says of it
// must be that rule.
// Source: tekken.json of mistralai/Pixtral-12B-2409 as mistral-common 1.5 reads it; tiktoken.
#ifndef JOMED_HOST_TEKKEN_H
#define JOMED_HOST_TEKKEN_H

#include "json.h"
#include "tokenizer.h"

// tiktoken's form: lines "base64 rank". specials: {"num_special": n, "...": {"name": id, ...}}, one
// such object. Error: EXIT_BAD_DATA.
Error tokenizer_from_ranks(Tokenizer **out, const char *ranks, size_t size, const json_t *specials);

#endif
