// bpe_vocab: from the tokens and merges of files to a byte-pair tokenizer.
//
// Files of the GPT-2 family write tokens in an alphabet of printable characters, one per byte: 33
// to 126, 161 to 172 and 174 to 255 stand for themselves, the other 68 bytes, ascending, for U+0100
// and on; a token with any other character stands for its own bytes. A token may end in a suffix
// ("</w>") that marks the end of a word. Files in tiktoken's form have the bytes themselves and no
// merges: any two tokens merge whose bytes together are a token, whose rank is that of the merge.
// Source: GPT-2's encoder.py (bytes_to_unicode); tiktoken's _educational.py.
#ifndef JOMED_HOST_BPE_VOCAB_H
#define JOMED_HOST_BPE_VOCAB_H

#include "tokenizer.h"

// Merges as ids of their parts, in order of rank.
typedef struct {
    int32_t left, right, rank, result;
} RankedMerge;
typedef struct {
    RankedMerge *items;
    int count, room;
} MergeList;
void merge_list_free(MergeList *list);
// Adds the merge of two tokens, by name; suffixes and all are part of the names.
// Error: a part or the result is no token.
Error merge_list_add(MergeList *list, const Vocab *names, const char *left, size_t left_size,
                     const char *right, size_t right_size);
// The same from a line: the two parts with one space between.
Error merge_list_add_line(MergeList *list, const Vocab *names, const char *line, size_t size);

// UTF-8 of the character that stands for a byte; the number of its bytes, 1 or 2.
int byte_symbol(char out[4], uint8_t byte);
// Fills table and merges of tok (TOKENIZER_BPE, as many ids as names). suffix: "" or the word end.
// Error: no token for some byte, a merge that is there twice.
Error bpe_from_names(Tokenizer *tok, const Vocab *names, const MergeList *merges,
                     const char *suffix);
// The same in tiktoken's form: tok->table has the bytes, indexed, of ids first .. vocab-1.
Error bpe_from_ranks(Tokenizer *tok, int32_t first);

#endif
