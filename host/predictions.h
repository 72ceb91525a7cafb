// predictions: one JSON object per query, in the original's layout, for its metric scripts and for people.
//   {"id", "query", "answers": [gold], "generation": answer, "logits": [C: log of the mixture],
//    "passages": [{"id", "text", "score", "prediction"}], "metadata": {"label", "correct"}}
// UTF-8; what is not finite is null.
#ifndef JOMED_HOST_PREDICTIONS_H
#define JOMED_HOST_PREDICTIONS_H

#include "evaluate.h"

// Replaces path. The answer is that of the probability mixture.
Error predictions_write(const char *path, const Dataset *queries, const Dataset *corpus,
                        const Evaluation *evaluation);

#endif
