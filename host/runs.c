// runs: see runs.h.
#include "runs.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"

// Why b cannot stand beside a, or NULL.
static const char *why_not_beside(const RunResult *a, const RunResult *b) {
    if (strcmp(a->task, b->task) != 0) {
        return "not the task of";
    }
    if (a->k != b->k) {
        return "not as many passages per query as";
    }
    bool is_same = a->C == b->C;
    for (int c = 0; is_same && c < a->C; c++) {
        is_same = strcmp(a->classes[c], b->classes[c]) == 0;
    }
    return !is_same ? "not the classes of" : a->seed == b->seed ? "the same seed as" : NULL;
}

RunList *run_list_new(char *const *dirs, int count) {
    RunList *runs = xcalloc(1, sizeof *runs);
    *runs = (RunList){.items = xcalloc((size_t)count + 1, sizeof *runs->items), .count = count};
    for (int i = 0; i < count; i++) {
        LoadedRun *run = &runs->items[i];
        char *path = file_join_new(dirs[i], "results.json");
        run->dir = xstrdup(dirs[i]);
        run->error = run_result_read_new(&run->result, path);
        if (run->result) {
            runs->present++;
        } else {
            LOG(WARN, "%s: %s; shown as missing", path, run->error.text);
        }
        free(path);
        for (int j = 0; j < i && run->result; j++) {
            const RunResult *other = runs->items[j].result;
            const char *why = other ? why_not_beside(other, run->result) : NULL;
            if (why) {
                die(EXIT_BAD_DATA, "%s: %s '%s'; report them apart", dirs[i], why,
                    runs->items[j].dir);
            }
        }
    }
    return runs;
}

void run_list_free(RunList *runs) {
    for (int i = 0; runs && i < runs->count; i++) {
        run_result_free(runs->items[i].result);
        free(runs->items[i].dir);
    }
    if (runs) {
        free(runs->items);
        free(runs);
    }
}

const RunResult *run_list_first(const RunList *runs) {
    for (int i = 0; i < runs->count; i++) {
        if (runs->items[i].result) {
            return runs->items[i].result;
        }
    }
    return NULL;
}

const char **run_list_systems_new(const RunList *runs, int *count) {
    const char **names = xcalloc(1, sizeof *names);
    *count = 0;
    for (int i = 0; i < runs->count; i++) {
        const RunResult *result = runs->items[i].result;
        for (int s = 0; result && s < result->system_count; s++) {
            bool is_new = true;
            for (int n = 0; n < *count; n++) {
                is_new = is_new && strcmp(names[n], result->systems[s].name) != 0;
            }
            if (is_new) {
                names = xrealloc(names, (size_t)*count + 2, sizeof *names);
                names[(*count)++] = result->systems[s].name;
            }
        }
    }
    return names;
}

const SystemResult *run_list_system(const RunList *runs, int i, const char *name) {
    const RunResult *result = runs->items[i].result;
    return result ? run_result_find(result, name) : NULL;
}
