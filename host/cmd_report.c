// cmd_report: jomed report: tables and a page from the results of one run or of several seeds.
// Without run.dir and run.dirs it reports on runs/demo, the runs that everybody can make.
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "report_runs.h"
#include "verbs.h"

// The directories seed-* below dir; dir itself when it has results and no seeds. Caller frees.
static char **runs_below_new(const char *dir, int *count) {
    char **names, **dirs = xcalloc(1, sizeof *dirs), *own = file_join_new(dir, "results.json");
    int found;
    error_die(dir, file_list_new(&names, &found, dir));
    *count = 0;
    for (int i = 0; i < found; i++) {
        char *path = file_join_new(dir, names[i]);
        if (strncmp(names[i], "seed-", 5) == 0 && file_is_directory(path)) {
            dirs = xrealloc(dirs, (size_t)*count + 2, sizeof *dirs);
            dirs[(*count)++] = path;
        } else {
            free(path);
        }
    }
    file_list_free(names, found);
    if (*count == 0 && file_exists(own)) {
        dirs[(*count)++] = xstrdup(dir);
    }
    free(own);
    if (*count == 0) {
        die(EXIT_NO_INPUT, "%s: no directory seed-* and no results.json; name the runs by run.dirs",
            dir);
    }
    return dirs;
}

int cmd_report(const Config *config) {
    const bool is_named = config->run.dirs.count > 0;
    const char *fallback = is_named ? "runs/report" : "runs/demo";
    const char *base = config->run.dir[0] ? config->run.dir : fallback;
    RunsReport report = {.dir = config->report.dir[0] ? config->report.dir : base,
                         .baseline = config->report.baseline,
                         .system = config->report.system};
    if (is_named) {
        report_runs(&report, config->run.dirs.items, config->run.dirs.count);
        return report.worst;
    }
    int count;
    char **dirs = runs_below_new(base, &count);
    report_runs(&report, dirs, count);
    for (int i = 0; i < count; i++) {
        free(dirs[i]);
    }
    free(dirs);
    return report.worst;
}
