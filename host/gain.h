// gain: how much better one system is than another on the same queries, and how sure that is.
#ifndef JOMED_HOST_GAIN_H
#define JOMED_HOST_GAIN_H

#include "runs.h"
#include "summary.h"

enum { GAIN_RESAMPLES = 10000 };

// Of the mixture answers. Queries are resampled within runs, and runs weigh the same (analysis.h).
typedef struct {
    int runs, queries;   // that have both systems; 0: nothing below is defined
    Bootstrap accuracy;  // difference of the shares of right answers
    Bootstrap f1;        // difference of macro F1; only when asked for
    int won, lost;       // queries that only the system, only the baseline gets right
    double mcnemar;      // exact test of these two, queries of all runs together
} Gain;
// Over the queries of a subset that both systems answered; runs where it is empty are left out.
Gain gain_of(const RunList *runs, const char *system, const char *baseline, Subset subset,
             bool with_f1);

#endif
