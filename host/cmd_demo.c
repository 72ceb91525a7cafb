// cmd_demo: jomed demo: the embedded benchmark over several seeds, its table and its verdict.
//
// Seeds run as processes side by side, one thread each: the products of these models are too small
// to share, and what a seed computes cannot depend on how many run beside it.
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "demo.h"
#include "file.h"
#include "report_runs.h"
#include "settings.h"
#include "verbs.h"

#define CLAIM_FAILED 1 // exit code

static char *seed_dir_new(const char *dir, int seed) {
    return xformat_new("%s/seed-%d", dir, seed);
}

// The processes that run seeds; 0 a free place.
typedef struct {
    pid_t *pids; // (count)
    int count, running;
} Seeds;

// Waits for one child. One that failed has said why, so that its code is enough; the others are
// ended, since nobody would wait for them.
static void wait_for_one(Seeds *seeds) {
    int status;
    pid_t pid;
    while ((pid = wait(&status)) < 0) {
        CHECK(errno == EINTR, "wait: %s", strerror(errno));
    }
    for (int i = 0; i < seeds->count; i++) {
        seeds->pids[i] = seeds->pids[i] == pid ? 0 : seeds->pids[i];
    }
    seeds->running--;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return;
    }
    for (int i = 0; i < seeds->count; i++) {
        if (seeds->pids[i] > 0) {
            kill(seeds->pids[i], SIGTERM);
        }
    }
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_INTERNAL;
    die((ExitCode)code, "demo: a seed ended with %s %d; its message is above",
        WIFEXITED(status) ? "code" : "signal",
        WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void run_seeds(const Config *config, const char *dir, const int *numbers, int count) {
    const int workers = config->threads > 0 ? config->threads : omp_get_num_procs();
    Seeds seeds = {.pids = xcalloc((size_t)count, sizeof *seeds.pids), .count = count};
    for (int i = 0; i < count; i++) {
        if (seeds.running == workers) {
            wait_for_one(&seeds);
        }
        fflush(NULL);
        const pid_t pid = fork();
        if (pid < 0) {
            die(EXIT_RESOURCE, "demo: cannot start a process: %s", strerror(errno));
        }
        if (pid == 0) {
            char *own = seed_dir_new(dir, numbers[i]);
            demo_run(config, numbers[i], own);
            fflush(NULL);
            _exit(EXIT_OK);
        }
        seeds.pids[i] = pid;
        seeds.running++;
    }
    while (seeds.running > 0) {
        wait_for_one(&seeds);
    }
    free(seeds.pids);
}

int cmd_demo(const Config *config) {
    const char *dir = config->run.dir[0] ? config->run.dir : "runs/demo";
    const int count = config->demo.seeds.count;
    if (count < 1 || count > 64) {
        die(EXIT_CONFIG, "demo.seeds: %d seeds; name 1 to 64, such as demo.seeds=[1, 2, 3]", count);
    }
    char **dirs = xcalloc((size_t)count, sizeof *dirs);
    for (int i = 0; i < count; i++) {
        dirs[i] = seed_dir_new(dir, config->demo.seeds.items[i]);
    }
    retriever_settings(config, INDEX_TEXT); // refuses now what a seed would refuse after minutes
    const double start = seconds_now();
    run_seeds(config, dir, config->demo.seeds.items, count);
    LOG(INFO, "%d seeds in %.0f s", count, seconds_now() - start);
    RunsReport report = {.dir = dir, .baseline = demo_system_name(DEMO_RAG),
                         .system = demo_system_name(DEMO_JOINT)};
    report_runs(&report, dirs, count);
    for (int i = 0; i < count; i++) {
        free(dirs[i]);
    }
    free(dirs);
    return report.verdict == VERDICT_PASS ? EXIT_OK : CLAIM_FAILED;
}
