// predictions: one JSON object per query, in the original's layout, for its metric scripts and for
// people.
//   {"id", "query", "answers": [gold], "generation": answer, "logits": [C],
//    "passages": [{"id", "text", "score", "prediction"}], "metadata": {"label", "correct"}}
// logits: log of the answer's probabilities. With answers in the reader's own words (own_words.h)
// passages have a "generation", and its class as "parsed"; "generation" of the query is the fused
// text where there is one, and "logits" are the saved ones of every passage where there are any.
// UTF-8; what is not finite is null.
#ifndef JOMED_HOST_PREDICTIONS_H
#define JOMED_HOST_PREDICTIONS_H

#include "own_words.h"

// Replaces path. own: or NULL. answer: which way to fuse speaks (exact.fusion: ANSWER_LOGITS).
Error predictions_write(const char *path, const Dataset *queries, const Dataset *corpus,
                        const Evaluation *evaluation, Answer answer, const OwnWords *own);

#endif
