// runs: the results of several runs of one task, which differ in their seed; some may be missing.
#ifndef JOMED_HOST_RUNS_H
#define JOMED_HOST_RUNS_H

#include "results.h"

typedef struct {
    char *dir;
    RunResult *result; // NULL: there is none
    Error error;       // why: EXIT_NO_INPUT, or what is wrong with results.json
} LoadedRun;
typedef struct {
    LoadedRun *items;
    int count, present; // runs named, runs with results
} RunList;

// Reads dirs[i]/results.json. A run that cannot be read is kept as missing, with a warning. Dies
// with EXIT_BAD_DATA when two runs cannot stand in one table: another task, classes or k, or the
// same seed.
RunList *run_list_new(char *const *dirs, int count);
void run_list_free(RunList *runs);
const RunResult *run_list_first(const RunList *runs); // the first that is there, or NULL
// Names of all systems in order of appearance. (names[i] are borrowed, the array is the caller's.)
const char **run_list_systems_new(const RunList *runs, int *count);
// Results of one system in run i; NULL when the run or the system is missing.
const SystemResult *run_list_system(const RunList *runs, int i, const char *name);

#endif
