// summary: the tables of a report, computed from the results of its runs.
//
// All but the gains are means over runs. "inc." is the subset of queries fixed from the frozen
// retriever (results.h). Queries without a gold answer count nowhere.
// Source: JOMED (arXiv 2508.17394): accuracy, inconsistent retrieval predictions, oracle,
// rerankers; MedMNIST v2 (Yang et al. 2023): AUC and ACC.
#ifndef JOMED_HOST_SUMMARY_H
#define JOMED_HOST_SUMMARY_H

#include "runs.h"
#include "tables.h"

// ---- subsets of a run's queries ----
typedef enum {
    SUBSET_ALL,
    SUBSET_INCONSISTENT, // fixed from the frozen retriever
    SUBSET_CONSISTENT,
    SUBSET_OWN_INCONSISTENT, // by the system's own passages
    SUBSET_OWN_CONSISTENT,
} Subset;
// (Q) membership; caller frees.
bool *subset_new(const RunResult *run, const SystemResult *system, Subset subset);
// Share of right answers of one kind in one run; NaN for an empty subset.
double system_accuracy(const RunResult *run, const SystemResult *system, Answer answer,
                       Subset subset);

// ---- tables ----
typedef struct {
    Table **items;
    int count;
} TableList;
void table_list_free(TableList *tables);
const Table *table_list_find(const TableList *tables, const char *name); // NULL when absent

// Systems against ways to answer, and the oracle; all queries, then inc.  name: main
Table *summary_main_new(const RunList *runs);
// Each run's own accuracy: seeds, queries, systems.  name: runs
Table *summary_runs_new(const RunList *runs);
// Gain of every system over the baseline on a subset.  name: gain, or gain-inconsistent
Table *summary_gain_new(const RunList *runs, const char *baseline, Subset subset);
// All tables: main, gain, gain-inconsistent, metrics, oracle, inconsistency, rerankers,
// confusion-*, facts, system-facts, runs. Some are absent where the results say nothing of the
// kind; gains where no run has the baseline. system: whose confusion stands beside the baseline's.
TableList summary_tables_new(const RunList *runs, const char *baseline, const char *system);

#endif
