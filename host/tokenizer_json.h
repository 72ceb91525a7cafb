// tokenizer_json: a tokenizer from the one file of Hugging Face's library, tokenizer.json.
//
// Understood: models WordPiece and byte-level BPE; normalizers BertNormalizer, NFC, Lowercase,
// Replace of \s+ by a space; pre-tokenizers BertPreTokenizer, Split by the known expressions
// (splitter.h), ByteLevel; post-processors TemplateProcessing, BertProcessing, RobertaProcessing,
// ByteLevel, for one text; decoders WordPiece and ByteLevel; Sequence of any of these.
// Anything else, and any member that could change a result, is refused by name. `truncation` and
// `padding` are only defaults that callers override: they are not obeyed.
// Source: the files themselves; tokenizers 0.23.
#ifndef JOMED_HOST_TOKENIZER_JSON_H
#define JOMED_HOST_TOKENIZER_JSON_H

#include "json.h"
#include "tokenizer.h"

// Error: EXIT_BAD_DATA, the text begins with the part ("pre_tokenizer: ...").
Error tokenizer_from_json(Tokenizer **out, const json_t *root);

// ---- shared with the other forms of files ----
// Tokens {"token": id}, with room for ids up to `most` besides. Caller frees with vocab_free.
Error names_from_json(Vocab *names, const json_t *vocab, int64_t most);
// An added token as files describe it; id: from the object unless it is given (>= 0).
Error added_token_from_json(AddedToken *token, const json_t *object, int64_t id);
// The vocabulary with added tokens that it lacks put in, so that each has its id; the model does
// not find them.
Error names_add(Vocab *names, const AddedToken *tokens, int count);

#endif
