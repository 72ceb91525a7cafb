// predictions: one JSON object per query, in the original's layout, for its metric scripts and for
// people.
//   {"id", "query", "answers": [gold], "generation": answer, "logits": [C],
//    "passages": [{"id", "text", "score", "prediction"}], "metadata": {"label", "correct"}}
// logits: log of the answer's probabilities. UTF-8; what is not finite is null.
#ifndef JOMED_HOST_PREDICTIONS_H
#define JOMED_HOST_PREDICTIONS_H

#include "evaluate.h"

// Replaces path. answer: which of the ways to fuse speaks (exact.fusion: ANSWER_LOGITS).
Error predictions_write(const char *path, const Dataset *queries, const Dataset *corpus,
                        const Evaluation *evaluation, Answer answer);

#endif
