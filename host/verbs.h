// verbs: the list of what jomed can do. One line each; the dispatch and the help come from it.
//
//   V(function, "words on the command line", "keys it reads: sections or whole names", "help")
//
// cmd_<function> lives in host/cmd_<verb>.c; what it returns is the exit code.
#ifndef JOMED_HOST_VERBS_H
#define JOMED_HOST_VERBS_H

#include "config.h"

#define VERBS(V) \
    V(demo, "demo", "demo run threads retriever reader pretrain index score_store evaluate exact", "the embedded benchmark: every stage of the method on a small world") \
    V(doctor, "doctor", "run index score_store device threads log", "what this machine has, and what it lacks")

#define VERB_FUNCTION(function, words, sections, help) int cmd_##function(const Config *config);
VERBS(VERB_FUNCTION)
#undef VERB_FUNCTION

#endif
