// report_runs: from run directories to printed tables, verdict and report; what `report` and the
// end of `demo` share.
#ifndef JOMED_HOST_REPORT_RUNS_H
#define JOMED_HOST_REPORT_RUNS_H

#include "demo_verdict.h"

typedef struct {
    const char *dir;               // where the report goes
    const char *baseline, *system; // systems in front
    Verdict verdict;               // out: of the task `demo`, else VERDICT_NONE
    ExitCode worst;                // out: EXIT_BAD_DATA when a results.json is there but wrong
} RunsReport;
// Prints main table, gains and verdict to stdout, writes the report and says where it is. Dies with
// EXIT_NO_INPUT when no run has results.
void report_runs(RunsReport *report, char *const *dirs, int count);

#endif
