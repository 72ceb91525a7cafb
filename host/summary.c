// summary: see summary.h.
#include "summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gain.h"
#include "metrics.h"

// A value of INFINITY says that the column does not apply to the system: the cell stays blank.
#define NOT_APPLICABLE INFINITY

// ---- subsets ----
bool *subset_new(const RunResult *run, const SystemResult *system, Subset subset) {
    bool *use = xmalloc((size_t)run->Q, sizeof *use), *own = xmalloc((size_t)run->Q, sizeof *own);
    analysis_inconsistent(own, system->predicted, run->Q, system->P);
    for (int q = 0; q < run->Q; q++) {
        const bool is_split = subset >= SUBSET_OWN_INCONSISTENT ? own[q] : run->inconsistent[q];
        const bool wants_split = subset == SUBSET_INCONSISTENT || subset == SUBSET_OWN_INCONSISTENT;
        use[q] = run->gold[q] >= 0 && (subset == SUBSET_ALL || is_split == wants_split);
    }
    free(own);
    return use;
}

double system_accuracy(const RunResult *run, const SystemResult *system, Answer answer,
                       Subset subset) {
    bool *use = subset_new(run, system, subset);
    const double out = analysis_oracle(system->answers[answer], run->gold, use, run->Q, 1, 1);
    free(use);
    return out;
}

static bool is_closed_book(const SystemResult *system) { return system->P == 1; }

// Right with some passage among the n best of each head; n >= k: with any. Closed book counts as
// one head with one passage.
static double oracle_at(const RunResult *run, const SystemResult *system, int n, Subset subset) {
    const int k = is_closed_book(system) ? 1 : system->P / 2, most = n < k ? n : k;
    const int kept = system->P / k * most; // passages per query
    bool *use = subset_new(run, system, subset);
    int *first = xmalloc((size_t)run->Q * kept, sizeof *first), *to = first;
    for (int q = 0; q < run->Q; q++) {
        for (int p = 0; p < system->P; p++) {
            if (p % k < most) {
                *to++ = system->predicted[q * system->P + p];
            }
        }
    }
    const double out = analysis_oracle(first, run->gold, use, run->Q, kept, kept);
    free(first);
    free(use);
    return out;
}

// ---- means over runs ----
typedef double system_value_fn(const RunResult *run, const SystemResult *system, int which);

// Sets the cell of a system to the mean over runs of one value.
static void set_system(Table *table, int row, int column, const RunList *runs, const char *name,
                       system_value_fn *value, int which) {
    double *values = xmalloc((size_t)runs->count + 1, sizeof *values);
    bool *is_present = xcalloc((size_t)runs->count + 1, sizeof *is_present), applies = true;
    for (int i = 0; i < runs->count; i++) {
        const SystemResult *system = run_list_system(runs, i, name);
        is_present[i] = system != NULL;
        values[i] = system ? value(runs->items[i].result, system, which) : NAN;
        applies = applies && !isinf(values[i]);
    }
    if (applies) {
        table_set_mean(table, row, column, values, is_present, runs->count);
    }
    free(values);
    free(is_present);
}

// One row per system, every column by the same function of its number.
static void fill_systems(Table *table, const RunList *runs, system_value_fn *value) {
    int count;
    const char **names = run_list_systems_new(runs, &count);
    for (int s = 0; s < count; s++) {
        const int row = table_add_row(table, "%s", names[s]);
        for (int c = 0; c < table->column_count; c++) {
            set_system(table, row, c, runs, names[s], value, c);
        }
    }
    free(names);
}

// Mean over runs of the share of queries in the fixed subset, percent; NaN without runs.
static double inconsistent_percent(const RunList *runs) {
    double sum = 0;
    for (int i = 0; i < runs->count; i++) {
        const RunResult *run = runs->items[i].result;
        int split = 0;
        for (int q = 0; run && q < run->Q; q++) {
            split += run->inconsistent[q];
        }
        sum += run ? 100.0 * split / run->Q / runs->present : 0;
    }
    return runs->present ? sum : NAN;
}

// ---- main ----
enum { MAIN_COLUMNS = ANSWER_COUNT + 1 }; // the answers and the oracle, on all and again on inc.

static double main_value(const RunResult *run, const SystemResult *system, int which) {
    const Subset subset = which < MAIN_COLUMNS ? SUBSET_ALL : SUBSET_INCONSISTENT;
    const int column = which % MAIN_COLUMNS;
    if (column == ANSWER_COUNT) {
        return oracle_at(run, system, system->P, subset);
    }
    return column != ANSWER_MIXTURE && is_closed_book(system)
               ? NOT_APPLICABLE
               : system_accuracy(run, system, (Answer)column, subset);
}

Table *summary_main_new(const RunList *runs) {
    Table *table = table_new("main", "Accuracy, percent", "system", true);
    for (int c = 0; c < 2 * MAIN_COLUMNS; c++) {
        const int column = c % MAIN_COLUMNS;
        table_add_column(table, FORMAT_PERCENT, "%s%s",
                         column < ANSWER_COUNT ? answer_name((Answer)column) : "oracle",
                         c < MAIN_COLUMNS ? "" : ", inc.");
    }
    fill_systems(table, runs, main_value);
    table_note(
        table,
        "inc.: the queries whose passages lead the reader with the frozen retriever to different "
        "answers, %.1f%% of all. Oracle: some passage leads to the right answer. "
        "Mean and sample sd over %d run%s; %d missing.",
        inconsistent_percent(runs), runs->present, runs->present == 1 ? "" : "s",
        runs->count - runs->present);
    return table;
}

// ---- runs ----
Table *summary_runs_new(const RunList *runs) {
    int count;
    const char **names = run_list_systems_new(runs, &count);
    Table *table = table_new("runs", "Accuracy of the mixture in each run, percent", "run", false);
    table_add_column(table, FORMAT_COUNT, "seed");
    table_add_column(table, FORMAT_COUNT, "queries");
    for (int s = 0; s < count; s++) {
        table_add_column(table, FORMAT_PERCENT, "%s", names[s]);
    }
    for (int i = 0; i < runs->count; i++) {
        const RunResult *run = runs->items[i].result;
        const int row = table_add_row(table, "%s", runs->items[i].dir);
        const double known[2] = {run ? run->seed : NAN, run ? run->Q : NAN};
        const bool is_present = run != NULL;
        for (int c = 0; c < 2; c++) {
            table_set_mean(table, row, c, &known[c], &is_present, 1);
        }
        for (int s = 0; s < count; s++) {
            const SystemResult *system = run_list_system(runs, i, names[s]);
            const bool has = system != NULL;
            const double accuracy =
                has ? system_accuracy(run, system, ANSWER_MIXTURE, SUBSET_ALL) : NAN;
            table_set_mean(table, row, 2 + s, &accuracy, &has, 1);
        }
    }
    free(names);
    return table;
}

// ---- gains ----
Table *summary_gain_new(const RunList *runs, const char *baseline, Subset subset) {
    static const char *const heads[] = {"gain",    "from",  "to",        "p",
                                        "gained",  "lost",  "McNemar p", "F1 gain",
                                        "F1 from", "F1 to", "F1 p"};
    static const Format formats[] = {FORMAT_POINTS, FORMAT_POINTS, FORMAT_POINTS, FORMAT_P,
                                     FORMAT_COUNT,  FORMAT_COUNT,  FORMAT_P,      FORMAT_POINTS,
                                     FORMAT_POINTS, FORMAT_POINTS, FORMAT_P};
    const bool is_all = subset == SUBSET_ALL;
    Table *table = table_new(is_all ? "gain" : "gain-inconsistent",
                             is_all ? "Gain in accuracy and macro F1, points"
                                    : "Gain in accuracy on the inconsistent queries, points",
                             "system", false);
    const int columns = is_all ? 11 : 7;
    for (int c = 0; c < columns; c++) {
        table_add_column(table, formats[c], "%s", heads[c]);
    }
    int count;
    const char **names = run_list_systems_new(runs, &count);
    for (int s = 0; s < count; s++) {
        if (strcmp(names[s], baseline) == 0) {
            continue;
        }
        const Gain g = gain_of(runs, names[s], baseline, subset, is_all);
        const bool is_known = g.runs > 0;
        const double values[] = {g.accuracy.mean, g.accuracy.low, g.accuracy.high, g.accuracy.p,
                                 g.won,           g.lost,         g.mcnemar,       g.f1.mean,
                                 g.f1.low,        g.f1.high,      g.f1.p};
        const int row = table_add_row(table, "%s", names[s]);
        for (int c = 0; c < columns; c++) {
            table_set_mean(table, row, c, &values[c], &is_known, 1);
        }
    }
    free(names);
    table_note(
        table,
        "Mixture answers against '%s'. 95%% interval and p: paired bootstrap over queries, %d "
        "resamples, "
        "runs as strata of equal weight; p cannot fall below %.1g. Gained and lost: queries only "
        "the system, only the baseline gets right; McNemar: exact, queries of all runs together.",
        baseline, GAIN_RESAMPLES, 2.0 / (GAIN_RESAMPLES + 1));
    return table;
}

// ---- metrics ----
enum { METRIC_COUNT = 6 };

static double metric_value(const RunResult *run, const SystemResult *system, int which) {
    const size_t C = (size_t)run->C;
    int *gold = xmalloc((size_t)run->Q, sizeof *gold),
        *said = xmalloc((size_t)run->Q, sizeof *said), n = 0;
    double *probability = xmalloc((size_t)run->Q * C, sizeof *probability);
    for (int q = 0; q < run->Q; q++) {
        if (run->gold[q] >= 0) {
            memcpy(probability + n * C, system->probability + q * C, C * sizeof *probability);
            said[n] = system->answers[ANSWER_MIXTURE][q];
            gold[n++] = run->gold[q];
        }
    }
    const ClassMetrics m = metrics_classify(said, gold, n, run->C);
    const MedmnistMetrics medmnist = metrics_medmnist(probability, gold, n, run->C);
    const double values[METRIC_COUNT] = {m.accuracy, m.macro_precision, m.macro_recall,
                                         m.macro_f1, medmnist.auc,      medmnist.acc};
    free(gold);
    free(said);
    free(probability);
    return values[which];
}

static Table *metrics_table_new(const RunList *runs) {
    static const char *const heads[METRIC_COUNT] = {"accuracy", "macro precision", "macro recall",
                                                    "macro F1", "MedMNIST AUC",    "MedMNIST ACC"};
    Table *table = table_new("metrics", "Classification by the mixture, percent", "system", true);
    for (int c = 0; c < METRIC_COUNT; c++) {
        table_add_column(table, FORMAT_PERCENT, "%s", heads[c]);
    }
    fill_systems(table, runs, metric_value);
    table_note(
        table,
        "Macro averages over the union of true and predicted classes, 0/0 counts as 0. AUC: mean "
        "over classes of one against the rest; n/a when a class has no query.");
    return table;
}

// ---- oracle ----
static const int oracle_steps[] = {1, 2, 4, 8, 16, 50};
enum { ORACLE_STEPS = sizeof oracle_steps / sizeof *oracle_steps };

// Passages per head of oracle column i: the steps below k, then k; 0 behind the last.
static int oracle_step(int k, int i) {
    int seen = 0;
    for (int s = 0; s < ORACLE_STEPS && oracle_steps[s] < k; s++) {
        if (seen++ == i) {
            return oracle_steps[s];
        }
    }
    return seen == i ? k : 0;
}

static int oracle_columns(int k) {
    int count = 0;
    while (oracle_step(k, count) > 0) {
        count++;
    }
    return count;
}

static double oracle_value(const RunResult *run, const SystemResult *system, int which) {
    const int steps = oracle_columns(run->k), column = which % (steps + 1);
    const Subset subset = which < steps + 1 ? SUBSET_ALL : SUBSET_INCONSISTENT;
    if (column < steps) {
        return oracle_at(run, system, oracle_step(run->k, column), subset);
    }
    bool *use = subset_new(run, system, subset);
    const double out = analysis_floor(system->predicted, run->gold, use, run->Q, system->P);
    free(use);
    return out;
}

static Table *oracle_table_new(const RunList *runs) {
    const RunResult *first = run_list_first(runs);
    const int steps = first ? oracle_columns(first->k) : 0;
    Table *table = table_new(
        "oracle", "Oracle with n passages per head, and the floor of a blind choice, percent",
        "system", true);
    for (int c = 0; c < 2 * (steps + 1); c++) {
        const char *suffix = c < steps + 1 ? "" : ", inc.";
        const int column = c % (steps + 1);
        if (column < steps) {
            table_add_column(table, FORMAT_PERCENT, "oracle@%d%s", oracle_step(first->k, column),
                             suffix);
        } else {
            table_add_column(table, FORMAT_PERCENT, "floor%s", suffix);
        }
    }
    fill_systems(table, runs, oracle_value);
    table_note(
        table,
        "oracle@n: some of the n best passages of each head leads to the right answer. Floor: mean "
        "over "
        "the passages. More passages raise the oracle by chance alone: compare with random ones.");
    return table;
}

// ---- inconsistency ----
static double inconsistency_value(const RunResult *run, const SystemResult *system, int which) {
    static const Subset subsets[] = {SUBSET_CONSISTENT, SUBSET_INCONSISTENT, SUBSET_OWN_CONSISTENT,
                                     SUBSET_OWN_INCONSISTENT};
    if (which > 0) {
        return which > 2 && is_closed_book(system)
                   ? NOT_APPLICABLE
                   : system_accuracy(run, system, ANSWER_MIXTURE, subsets[which - 1]);
    }
    bool *own = subset_new(run, system, SUBSET_OWN_INCONSISTENT);
    int split = 0, labelled = 0;
    for (int q = 0; q < run->Q; q++) {
        split += own[q];
        labelled += run->gold[q] >= 0;
    }
    free(own);
    return is_closed_book(system) ? NOT_APPLICABLE : labelled ? (double)split / labelled : NAN;
}

static Table *inconsistency_table_new(const RunList *runs) {
    static const char *const heads[] = {"inconsistent", "fixed: on consistent",
                                        "fixed: on inconsistent", "own: on consistent",
                                        "own: on inconsistent"};
    Table *table =
        table_new("inconsistency", "Inconsistent retrieval predictions, percent", "system", true);
    for (int c = 0; c < 5; c++) {
        table_add_column(table, FORMAT_PERCENT, "%s", heads[c]);
    }
    fill_systems(table, runs, inconsistency_value);
    table_note(table,
               "First column: share of queries whose passages lead to different answers. Then the "
               "mixture's accuracy, the queries split as the frozen retriever splits them (fixed, "
               "the same for "
               "all rows) and by the system's own passages.");
    return table;
}

// ---- rerankers ----
// which: the reranker, plus RERANK_COUNT for inc.
static double reranker_value(const RunResult *run, const SystemResult *system, int which) {
    const Reranker reranker = (Reranker)(which % RERANK_COUNT);
    const bool wants_scores = reranker == RERANK_SCORE || reranker == RERANK_UTILITY;
    if (is_closed_book(system) || !system->passage_probability ||
        (wants_scores && !system->scores) ||
        (reranker == RERANK_UTILITY && !(system->utility && system->caption_length))) {
        return NAN;
    }
    PassageView *views = passage_views_new(run->Q, system->P / 2, run->C, system->scores,
                                           system->caption_length, system->passage_probability);
    int *choice = xmalloc((size_t)run->Q, sizeof *choice);
    analysis_rerank(choice, reranker, views, system->utility, run->Q, system->P, run->C);
    for (int q = 0; q < run->Q; q++) {
        choice[q] =
            system->predicted[q * system->P + choice[q]]; // the passage's answer is inherited
    }
    bool *use = subset_new(run, system, which < RERANK_COUNT ? SUBSET_ALL : SUBSET_INCONSISTENT);
    const double out = analysis_oracle(choice, run->gold, use, run->Q, 1, 1);
    free(use);
    free(choice);
    free(views);
    return out;
}

// Rows are rerankers, columns systems that retrieve; NULL when no run says enough.
static Table *rerankers_table_new(const RunList *runs) {
    int count, known = 0;
    const char **names = run_list_systems_new(runs, &count);
    for (int s = 0; s < count; s++) { // keep the systems that retrieve
        bool retrieves = false;
        for (int i = 0; i < runs->count; i++) {
            const SystemResult *system = run_list_system(runs, i, names[s]);
            retrieves =
                retrieves || (system && !is_closed_book(system) && system->passage_probability);
        }
        if (retrieves) {
            names[known++] = names[s];
        }
    }
    Table *table = known ? table_new("rerankers",
                                     "Rerankers: accuracy of the one passage they choose, percent",
                                     "chosen by", true)
                         : NULL;
    for (int c = 0; c < 2 * known; c++) {
        table_add_column(table, FORMAT_PERCENT, "%s%s", names[c % known],
                         c < known ? "" : ", inc.");
    }
    for (int r = 0; r < RERANK_COUNT + 2 && table; r++) {
        const int mixture = 0, oracle = ANSWER_COUNT, main = r == RERANK_COUNT ? mixture : oracle;
        const int row =
            r < RERANK_COUNT
                ? table_add_row(table, "%s", analysis_reranker_name((Reranker)r))
                : table_add_row(table, r == RERANK_COUNT ? "(mixture of all)" : "(oracle)");
        for (int c = 0; c < 2 * known; c++) {
            const bool is_inc = c >= known;
            set_system(table, row, c, runs, names[c % known],
                       r < RERANK_COUNT ? reranker_value : main_value,
                       r < RERANK_COUNT ? r + is_inc * RERANK_COUNT : main + is_inc * MAIN_COLUMNS);
        }
    }
    if (table) {
        table_note(
            table,
            "Each reranker picks one passage per query and inherits its answer; scores of the two "
            "heads are compared as they are. Utility: ridge "
            "regression of the gold score on both heads' scores, rank and caption length, fitted "
            "on "
            "the training queries; n/a where a system has no scores.");
    }
    free(names);
    return table;
}

// ---- confusion ----
enum { MOST_CLASSES = 64 }; // a larger matrix is no longer read by eye

// Counts over the queries of all runs; NULL when no run has the system, or for too many classes.
static Table *confusion_table_new(const RunList *runs, const char *name) {
    const RunResult *first = run_list_first(runs);
    const int C = first ? first->C : 0;
    int *sum = xcalloc((size_t)C * C + 1, sizeof *sum), found = 0;
    for (int i = 0; i < runs->count && C <= MOST_CLASSES; i++) {
        const SystemResult *system = run_list_system(runs, i, name);
        found += system != NULL;
        for (int q = 0; system && q < runs->items[i].result->Q; q++) {
            const int gold = runs->items[i].result->gold[q];
            if (gold >= 0) {
                sum[gold * C + system->answers[ANSWER_MIXTURE][q]]++;
            }
        }
    }
    Table *table = NULL;
    if (found) {
        char *slug = xformat_new("confusion-%s", name);
        for (char *at = slug; *at; at++) {
            const bool is_letter = (*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9');
            *at = is_letter ? *at : *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : '-';
        }
        char *title = xformat_new("Confusion of '%s', queries of %d run%s", name, found,
                                  found == 1 ? "" : "s");
        table = table_new(slug, title, "gold / answer", false);
        free(slug);
        free(title);
        for (int c = 0; c < C; c++) {
            table_add_column(table, FORMAT_COUNT, "%s", first->classes[c]);
        }
        for (int r = 0; r < C; r++) {
            table_add_row(table, "%s", first->classes[r]);
            for (int c = 0; c < C; c++) {
                table_set_number(table, r, c, sum[r * C + c]);
            }
        }
    }
    free(sum);
    return table;
}

// ---- facts ----
// Facts of run i: its own, or those of one of its systems; NULL when missing.
static const FactList *facts_of(const RunList *runs, int i, const char *system) {
    const SystemResult *found = system ? run_list_system(runs, i, system) : NULL;
    const RunResult *run = runs->items[i].result;
    return system ? (found ? &found->facts : NULL) : run ? &run->facts : NULL;
}

static void set_fact(Table *table, int row, int column, const RunList *runs, const char *system) {
    double *values = xmalloc((size_t)runs->count + 1, sizeof *values);
    bool *is_present = xcalloc((size_t)runs->count + 1, sizeof *is_present), is_known = false;
    for (int i = 0; i < runs->count; i++) {
        const FactList *facts = facts_of(runs, i, system);
        is_present[i] = facts != NULL;
        values[i] = facts ? facts_get(facts, table->rows[row]) : NAN;
        is_known = is_known || !isnan(values[i]);
    }
    if (is_known || !system) { // a system that is not described in this way stays blank
        table_set_mean(table, row, column, values, is_present, runs->count);
    }
    free(values);
    free(is_present);
}

static void add_fact_rows(Table *table, const RunList *runs, const char *system) {
    for (int i = 0; i < runs->count; i++) {
        const FactList *facts = facts_of(runs, i, system);
        for (int f = 0; facts && f < facts->count; f++) {
            if (table_row(table, facts->items[f].name) < 0) {
                table_add_row(table, "%s", facts->items[f].name);
            }
        }
    }
}

// Facts of the runs, or of their systems (one column each).
static Table *facts_table_new(const RunList *runs, bool of_systems) {
    int count = 1;
    const char **names =
        of_systems ? run_list_systems_new(runs, &count) : xcalloc(1, sizeof *names);
    Table *table =
        table_new(of_systems ? "system-facts" : "facts",
                  of_systems ? "Facts of the systems" : "Facts of the runs", "fact", true);
    for (int s = 0; s < count; s++) {
        table_add_column(table, FORMAT_NUMBER, "%s", of_systems ? names[s] : "value");
    }
    for (int s = 0; s < count; s++) {
        add_fact_rows(table, runs, names[s]);
    }
    for (int r = 0; r < table->row_count; r++) {
        for (int s = 0; s < count; s++) {
            set_fact(table, r, s, runs, names[s]);
        }
    }
    free(names);
    if (table->row_count == 0) {
        table_free(table);
        table = NULL;
    }
    return table;
}

// ---- all ----
static void add(TableList *tables, Table *table) {
    if (table) {
        tables->items = xrealloc(tables->items, (size_t)tables->count + 1, sizeof *tables->items);
        tables->items[tables->count++] = table;
    }
}

TableList summary_tables_new(const RunList *runs, const char *baseline, const char *system) {
    TableList tables = {NULL, 0};
    bool has_baseline = false;
    for (int i = 0; i < runs->count; i++) {
        has_baseline = has_baseline || run_list_system(runs, i, baseline);
    }
    add(&tables, summary_main_new(runs));
    if (has_baseline) {
        add(&tables, summary_gain_new(runs, baseline, SUBSET_ALL));
        add(&tables, summary_gain_new(runs, baseline, SUBSET_INCONSISTENT));
    }
    add(&tables, metrics_table_new(runs));
    add(&tables, oracle_table_new(runs));
    add(&tables, inconsistency_table_new(runs));
    add(&tables, rerankers_table_new(runs));
    add(&tables, confusion_table_new(runs, baseline));
    if (strcmp(baseline, system) != 0) {
        add(&tables, confusion_table_new(runs, system));
    }
    add(&tables, facts_table_new(runs, false));
    add(&tables, facts_table_new(runs, true));
    add(&tables, summary_runs_new(runs));
    return tables;
}

void table_list_free(TableList *tables) {
    for (int i = 0; i < tables->count; i++) {
        table_free(tables->items[i]);
    }
    free(tables->items);
    *tables = (TableList){NULL, 0};
}

const Table *table_list_find(const TableList *tables, const char *name) {
    for (int i = 0; i < tables->count; i++) {
        if (strcmp(tables->items[i]->name, name) == 0) {
            return tables->items[i];
        }
    }
    return NULL;
}
