// demo_verdict: whether the claim of the embedded benchmark holds, and what looks odd beside it.
#ifndef JOMED_HOST_DEMO_VERDICT_H
#define JOMED_HOST_DEMO_VERDICT_H

#include "runs.h"

// The claim: joint - RAG is at least 10 points with p < 0.01 (paired bootstrap over queries, the
// seeds as strata). Missing runs, or runs without these systems, are not judged.
typedef enum { VERDICT_PASS, VERDICT_FAIL, VERDICT_NONE } Verdict;
// *text (caller frees) says the gain with its interval, and the verdict, in one or two lines.
Verdict demo_verdict(char **text, const RunList *runs);
// Logs a warning for each number outside what the recipe leads one to expect; these are no
// failures.
void demo_warnings(const RunList *runs);

#endif
