// demo_verdict: see demo_verdict.h.
#include "demo_verdict.h"

#include <math.h>
#include <stdlib.h>

#include "demo.h"
#include "gain.h"

#define LEAST_GAIN 0.10
#define LARGEST_P 0.01

// Mean accuracy of the mixture over the runs that have the system; NaN when none has.
static double mean_accuracy(const RunList *runs, DemoSystem which) {
    double sum = 0;
    int count = 0;
    for (int i = 0; i < runs->count; i++) {
        const SystemResult *system = run_list_system(runs, i, demo_system_name(which));
        sum +=
            system ? system_accuracy(runs->items[i].result, system, ANSWER_MIXTURE, SUBSET_ALL) : 0;
        count += system != NULL;
    }
    return count ? sum / count : NAN;
}

static void warn_unless(bool is_expected, const char *what, double value) {
    if (!is_expected) {
        LOG(WARN, "demo: %s: %.1f", what, 100 * value);
    }
}

void demo_warnings(const RunList *runs) {
    const double closed = mean_accuracy(runs, DEMO_CLOSED_BOOK);
    const double chance = mean_accuracy(runs, DEMO_RANDOM);
    const double rag = mean_accuracy(runs, DEMO_RAG);
    const double permuted = mean_accuracy(runs, DEMO_PERMUTED);
    double probe = 0;
    for (int i = 0; i < runs->count; i++) {
        const RunResult *run = runs->items[i].result;
        probe += run ? facts_get(&run->facts, "linear probe of the finding") / runs->present : 0;
    }
    warn_unless(closed <= 0.30, "closed book is expected at 30 or below", closed);
    warn_unless(chance <= closed + 0.05, "random passages are expected near closed book", chance);
    warn_unless(rag >= 0.30 && rag <= 0.65, "RAG is expected between 30 and 65", rag);
    warn_unless(probe >= 0.60 && probe <= 0.85, "the probe is expected between 60 and 85", probe);
    warn_unless(permuted <= rag + 0.05, "the permuted control is expected not above RAG", permuted);
}

Verdict demo_verdict(char **text, const RunList *runs) {
    const Gain gain =
        gain_of(runs, demo_system_name(DEMO_JOINT), demo_system_name(DEMO_RAG), SUBSET_ALL, false);
    if (gain.runs < runs->count || gain.runs == 0) {
        *text = xformat_new("no verdict: %d of %d runs have both systems", gain.runs, runs->count);
        return VERDICT_NONE;
    }
    const Bootstrap b = gain.accuracy;
    const bool holds = b.mean >= LEAST_GAIN && b.p < LARGEST_P;
    *text = xformat_new(
        "joint - RAG: %+.1f points, 95%% interval %.1f to %.1f, p = %.2g (paired bootstrap over "
        "queries, "
        "%d resamples, seeds as strata); queries gained %d, lost %d; McNemar p = %.2g\n"
        "%s: joint - RAG is %s 10 points with p < 0.01",
        100 * b.mean, 100 * b.low, 100 * b.high, b.p, GAIN_RESAMPLES, gain.won, gain.lost,
        gain.mcnemar, holds ? "PASS" : "FAIL", holds ? "at least" : "not at least");
    return holds ? VERDICT_PASS : VERDICT_FAIL;
}
