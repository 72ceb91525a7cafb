// demo_verdict: the table of the embedded benchmark over its seeds, and whether its claim holds.
#ifndef JOMED_HOST_DEMO_VERDICT_H
#define JOMED_HOST_DEMO_VERDICT_H

// Reads dirs[i]/results.json, prints the table and the gain of joint over RAG to stdout.
// Returns EXIT_OK when joint - RAG is at least 10 points with p < 0.01 (paired bootstrap over queries, the
// seeds as strata), else 1. What looks odd but is no failure is a warning.
int demo_verdict(char *const *dirs, int count);

#endif
