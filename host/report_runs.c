// report_runs: see report_runs.h.
#include "report_runs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum { TERMINAL_WIDTH = 110 };

static void print_table(const TableList *tables, const char *name) {
    const Table *table = table_list_find(tables, name);
    if (table) {
        putchar('\n');
        table_write_text(stdout, table, TERMINAL_WIDTH);
    }
}

void report_runs(RunsReport *report, char *const *dirs, int count) {
    RunList *runs = run_list_new(dirs, count);
    report->worst = EXIT_OK;
    report->verdict = VERDICT_NONE;
    for (int i = 0; i < runs->count; i++) {
        const ExitCode code = runs->items[i].error.code;
        report->worst = code == EXIT_OK || code == EXIT_NO_INPUT ? report->worst : code;
    }
    if (runs->present == 0) {
        run_list_free(runs);
        die(report->worst ? report->worst : EXIT_NO_INPUT,
            "report: none of %d runs has results, such as '%s/results.json'; run them first", count,
            dirs[0]);
    }
    TableList tables = summary_tables_new(runs, report->baseline, report->system);
    if (!table_list_find(&tables, "gain")) {
        LOG(WARN, "report: no run has the system '%s'; gains are left out; set report.baseline",
            report->baseline);
    }
    print_table(&tables, "main");
    print_table(&tables, "gain");
    char *verdict = NULL;
    if (strcmp(run_list_first(runs)->task, "demo") == 0) {
        demo_warnings(runs);
        report->verdict = demo_verdict(&verdict, runs);
        printf("\n%s\n", verdict);
    }
    static const char *const tones[] = {
        [VERDICT_PASS] = "good", [VERDICT_FAIL] = "bad", [VERDICT_NONE] = "open"};
    const Report page = {report->dir,           runs,           &tables,
                         report->baseline,      report->system, verdict,
                         tones[report->verdict]};
    report_write(&page);
    printf("\nreport: %s/report.html, tables in %s/tables\n", report->dir, report->dir);
    free(verdict);
    table_list_free(&tables);
    run_list_free(runs);
}
