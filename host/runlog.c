// runlog: the run directory, its logs and its last word; see runlog.h.
#define _GNU_SOURCE // flock, environ
#include "runlog.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "jsonl.h"
#include "version.h"

static const char *const run_files[] = {"config.resolved.yaml",
                                        "argv.txt",
                                        "env.json",
                                        "build.json",
                                        "log",
                                        "trainer_log.jsonl",
                                        "losses.jsonl",
                                        "tb",
                                        "checkpoints",
                                        "predictions",
                                        "metrics.json",
                                        "results.json",
                                        "retriever.safetensors",
                                        "reader.safetensors",
                                        "adapter",
                                        "head.safetensors",
                                        "search_head.safetensors",
                                        "report.html",
                                        "plots",
                                        "SAVE",
                                        "STOP",
                                        "STATUS"};

// ---- signals ----
static volatile sig_atomic_t signalled, terminated;

static void on_signal(int number) {
    if (number == SIGTERM && terminated++) {
        _exit(128 + SIGTERM); // asked twice: no time for a checkpoint
    }
    if (number == SIGTERM) {
        alarm(25); // Slurm kills after 30 s; a step that takes longer will not be saved anyway
    }
    signalled = 1;
}

void runlog_catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

bool runlog_was_signalled(void) { return signalled != 0; }

// ---- STATUS ----
static RunLog *open_run; // what the exit handler has to close

char *runlog_path_new(const RunLog *run, const char *name) { return file_join_new(run->dir, name); }

static void write_status(const RunLog *run, const char *word, const char *note) {
    char *path = runlog_path_new(run, "STATUS");
    char *text = xformat_new("%s step=%lld%s%s\n", word, (long long)run->step, note ? " " : "",
                             note ? note : "");
    const Error error = file_replace(path, text, strlen(text));
    if (error.code != EXIT_OK) {
        LOG(WARN, "%s: %s", path, error.text);
    }
    free(text);
    free(path);
}

// First word of the STATUS file, "" when there is none.
static void read_status(const RunLog *run, char word[16]) {
    char *path = runlog_path_new(run, "STATUS");
    FileBytes bytes;
    word[0] = '\0';
    if (file_read_new(&bytes, path, 1 << 16).code == EXIT_OK) {
        snprintf(word, 16, "%.*s", (int)strcspn((const char *)bytes.data, " \n"),
                 (const char *)bytes.data);
        file_bytes_free(&bytes);
    }
    free(path);
}

// die() leaves through exit(): the run gets its last word all the same.
static void at_exit(void) {
    if (open_run && !open_run->is_ended && open_run->rank == 0 && open_run->pid == getpid()) {
        open_run->is_ended = true;
        write_status(open_run, "failed", "ended by an error; log/rank0.log says which");
    }
}

// ---- the directory ----
static bool has_file(const RunLog *run, const char *name) {
    char *path = runlog_path_new(run, name);
    const bool is_there = file_exists(path);
    free(path);
    return is_there;
}

// Is anything here that a run would overwrite? Other files, such as Slurm's output, may stay.
static bool is_used(const RunLog *run) {
    for (size_t i = 0; i < sizeof run_files / sizeof *run_files; i++) {
        if (has_file(run, run_files[i])) {
            return true;
        }
    }
    return false;
}

// Takes the lock for the life of the process; dies when another process has it.
static void take_lock(RunLog *run) {
    char *path = runlog_path_new(run, "lock"), owner[256] = "";
    struct utsname host;
    run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0) {
        die(EXIT_NO_OUTPUT, "%s: cannot open: %s", path, strerror(errno));
    }
    const ssize_t n = pread(run->lock, owner, sizeof owner - 1, 0);
    owner[n > 0 ? (size_t)n : 0] = '\0';
    owner[strcspn(owner, "\n")] = '\0';
    if (flock(run->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            die(EXIT_NO_OUTPUT,
                "%s: the run directory is in use by %s; choose another run.dir, or, if "
                "that process is gone, remove the file",
                path, owner[0] ? owner : "another process");
        }
        LOG(WARN, "%s: this file system has no locks (%s); last owner: %s", path, strerror(errno),
            owner[0] ? owner : "none");
    }
    uname(&host);
    const char *job = getenv("SLURM_JOB_ID");
    char *text = xformat_new("host %s, pid %ld, job %s\n", host.nodename, (long)getpid(),
                             job ? job : "none");
    if (ftruncate(run->lock, 0) != 0 || pwrite(run->lock, text, strlen(text), 0) < 0) {
        LOG(WARN, "%s: cannot write: %s", path, strerror(errno));
    }
    free(text);
    free(path);
}

static int start_mode(const Config *config) {
    const char *restarts = getenv("SLURM_RESTART_COUNT");
    if (config->run.start == KEY_START_NEW && restarts && atoi(restarts) > 0) {
        LOG(INFO, "restart %s of this Slurm job: run.start=resume", restarts);
        return KEY_START_RESUME;
    }
    return config->run.start;
}

// Files that a killed process was in the middle of writing: NAME.tmp-PID. The lock is ours, so no
// writer is left.
static void remove_leftovers(const RunLog *run) {
    char **names = NULL;
    int count = 0;
    if (file_list_new(&names, &count, run->dir).code != EXIT_OK) {
        return;
    }
    for (int i = 0; i < count; i++) {
        const char *mark = strstr(names[i], ".tmp-");
        if (mark && mark[5] && mark[5 + strspn(mark + 5, "0123456789")] == '\0') {
            char *path = runlog_path_new(run, names[i]);
            unlink(path);
            free(path);
        }
    }
    file_list_free(names, count);
}

// What run.start means for this directory, which is locked already.
static void prepare_directory(RunLog *run, const Config *config) {
    const bool is_run = has_file(run, "STATUS"); // the first file a run writes
    const int mode = start_mode(config);
    char status[16];
    read_status(run, status);
    if (!is_run && is_used(run)) {
        die(EXIT_NO_OUTPUT, "%s: holds files of this name, but no run's; choose another run.dir",
            run->dir);
    }
    if (is_run && mode == KEY_START_NEW) {
        die(EXIT_NO_OUTPUT,
            "%s: a run was here (%s); run.start=resume goes on, run.start=overwrite removes "
            "it, another run.dir keeps it",
            run->dir, status);
    }
    if (is_run && mode == KEY_START_OVERWRITE) {
        for (size_t i = 0; i < sizeof run_files / sizeof *run_files; i++) {
            char *path = runlog_path_new(run, run_files[i]);
            error_die(path, file_remove_tree(path));
            free(path);
        }
    }
    if (is_run) {
        remove_leftovers(run);
    }
    run->is_resumed = is_run && mode == KEY_START_RESUME;
    run->is_done = run->is_resumed && strcmp(status, "done") == 0;
}

// ---- what ran ----
static void put(const RunLog *run, const char *name, const char *text) {
    char *path = runlog_path_new(run, name);
    error_die(path, file_replace(path, text, strlen(text)));
    free(path);
}

static void put_config(const RunLog *run, const Config *config) {
    char *path = runlog_path_new(run, "config.resolved.yaml"), *text = config_dump_new(config);
    FileBytes before;
    if (run->is_resumed && file_read_new(&before, path, 1 << 20).code == EXIT_OK) {
        if (strcmp((const char *)before.data, text) != 0) {
            LOG(WARN, "%s: the configuration is not the one this run began with", path);
        }
        file_bytes_free(&before);
    }
    put(run, "config.resolved.yaml", text);
    free(text);
    free(path);
}

static void add_arguments(const RunLog *run, const Config *config) {
    char *path = runlog_path_new(run, "argv.txt");
    FileLog log; // one line per start
    error_die(path, file_log_open(&log, path));
    char *line = xstrdup("");
    for (int i = 0; i < config->argc; i++) {
        char *longer = xformat_new("%s%s%s", line, i ? " " : "", config->argv[i]);
        free(line);
        line = longer;
    }
    file_log_line(&log, "%s", line);
    free(line);
    file_log_close(&log);
    free(path);
}

static char *json_line_new(char *sofar, const char *name, const char *value) {
    char *left = json_quote_new(name), *right = json_quote_new(value);
    char *text = xformat_new("%s  %s: %s,\n", sofar, left, right);
    free(left);
    free(right);
    free(sofar);
    return text;
}

// Only variables that can change a run, by their prefix: an environment also holds secrets.
static void put_environment(const RunLog *run) {
    static const char *const prefixes[] = {"SLURM_",  "OMP_",  "CUDA_",       "NCCL_",
                                           "GOMP_",   "RANK=", "WORLD_SIZE=", "LOCAL_RANK=",
                                           "MASTER_", "LC_",   "LANG="};
    struct utsname host;
    uname(&host);
    char when[32];
    const time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    char *text = json_line_new(xstrdup("{\n"), "host", host.nodename);
    text = json_line_new(text, "system", host.release);
    text = json_line_new(text, "machine", host.machine);
    text = json_line_new(text, "started", when);
    char number[32];
    snprintf(number, sizeof number, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    text = json_line_new(text, "cpus", number);
    for (char **e = environ; *e; e++) {
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            const char *equals = strchr(*e, '=');
            if (equals && strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0) {
                char *name = xformat_new("%.*s", (int)(equals - *e), *e);
                text = json_line_new(text, name, equals + 1);
                free(name);
            }
        }
    }
    snprintf(number, sizeof number, "%ld", (long)getpid());
    char *whole = xformat_new("%s  \"pid\": %s\n}\n", text, number);
    put(run, "env.json", whole);
    free(whole);
    free(text);
}

static void put_build(const RunLog *run) {
    char *text = json_line_new(xstrdup("{\n"), "version", version_text);
    text = json_line_new(text, "build", version_build);
    char *commit = json_quote_new(version_commit),
         *whole = xformat_new("%s  \"commit\": %s\n}\n", text, commit);
    put(run, "build.json", whole);
    free(whole);
    free(commit);
    free(text);
}

// ---- opening ----
static void open_log(const RunLog *run, FileLog *log, const char *name) {
    char *path = runlog_path_new(run, name);
    error_die(path, file_log_open(log, path));
    free(path);
}

RunLog *runlog_open(const Config *config, int rank) {
    RunLog *run = xcalloc(1, sizeof *run);
    run->rank = rank;
    run->lock = -1;
    run->pid = getpid();
    run->every = config->log.every;
    run->dir = config->run.dir[0] ? xstrdup(config->run.dir)
                                  : xformat_new("runs/%s", config->verb ? config->verb : "run");
    char *logs = runlog_path_new(run, "log"), name[32];
    if (rank == 0) {
        error_die(run->dir, file_check_writable(run->dir));
        take_lock(run);
        prepare_directory(run, config);
        if (run->is_done) {
            LOG(INFO, "%s: this run is done", run->dir);
            run->is_ended = true;
            free(logs);
            return run;
        }
        write_status(run, "running", NULL);
        error_die(logs, file_make_directories(logs));
        put_config(run, config);
        add_arguments(run, config);
        put_environment(run);
        put_build(run);
        open_log(run, &run->trainer, "trainer_log.jsonl");
        run->has_losses = config->run.deterministic;
        if (run->has_losses) {
            open_log(run, &run->losses, "losses.jsonl");
        }
        run->is_terminal = isatty(STDERR_FILENO);
    }
    snprintf(name, sizeof name, "log/rank%d.log", rank);
    open_log(run, &run->text, name);
    log_set_file(run->text.fd);
    free(logs);
    static bool is_registered;
    if (!is_registered) {
        atexit(at_exit);
        is_registered = true;
    }
    open_run = run;
    runlog_catch_signals();
    return run;
}

// ---- progress ----
// Rewrites a log without the lines of this stage that come after step `last`.
static void cut_log(RunLog *run, FileLog *log, const char *name, int64_t last) {
    FileBytes bytes;
    char *path = runlog_path_new(run, name);
    error_die(path, file_map_new(&bytes, path));
    FileWriter writer;
    error_die(path, file_writer_open(&writer, path));
    Jsonl reader;
    jsonl_begin(&reader, path, bytes.data, bytes.size);
    reader.max_bad_lines = 1 << 30; // a torn line is dropped with the rest
    size_t dropped = 0;
    for (json_t *row; jsonl_next(&reader, &row).code == EXIT_OK && row; json_decref(row)) {
        const char *stage = "";
        int64_t step = 0;
        json_member_text(row, "stage", false, &stage);
        json_member_int(row, "current_steps", false, 0, INT64_MAX, &step);
        if (strcmp(stage, run->stage) == 0 && step > last) {
            dropped++;
        } else {
            const uint8_t *line = bytes.data + reader.line_start;
            file_writer_add(&writer, line, (size_t)(reader.at - line));
        }
    }
    dropped += reader.bad_lines;
    reader.last_bad = error_none(); // told below
    jsonl_end(&reader);
    if (dropped) {
        LOG(INFO, "%s: %zu lines about steps after %lld are taken out", path, dropped,
            (long long)last);
        file_log_close(log);
        error_die(path, file_writer_commit(&writer));
        error_die(path, file_log_open(log, path));
    } else {
        file_writer_abandon(&writer);
    }
    file_bytes_free(&bytes);
    free(path);
}

void runlog_stage(RunLog *run, const char *stage, int64_t first, int64_t total) {
    snprintf(run->stage, sizeof run->stage, "%s", stage);
    run->first = run->step = first;
    run->total = total;
    run->stage_start = seconds_now();
    run->last_live = 0;
    if (run->rank == 0 && run->is_resumed) {
        cut_log(run, &run->trainer, "trainer_log.jsonl", first);
        if (run->has_losses) {
            cut_log(run, &run->losses, "losses.jsonl", first);
        }
    }
}

// Seconds as "h:mm:ss", as Python prints a timedelta.
static char *clock_text(char out[32], double seconds) {
    const long whole = seconds >= 0 && seconds < 1e9 ? (long)seconds : 0;
    snprintf(out, 32, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
    return out;
}

// `, "name": value` of every extra column; caller frees.
static char *extra_text_new(const RunValue *extra, int count) {
    char *text = xstrdup("");
    for (int i = 0; i < count; i++) {
        char number[JSON_NUMBER_ROOM], *name = json_quote_new(extra[i].name);
        char *longer = xformat_new("%s, %s: %s", text, name, json_number(number, extra[i].value));
        free(name);
        free(text);
        text = longer;
    }
    return text;
}

static void show_progress(RunLog *run, double loss, double lr, double elapsed, double remaining) {
    const int64_t done = run->step - run->first;
    const double rate = elapsed > 0 ? (double)done / elapsed : 0;
    char left[32];
    clock_text(left, remaining);
    const bool is_last = run->step >= run->total;
    if (run->is_terminal && !is_last) {
        if (seconds_now() - run->last_live >= 0.2) { // a terminal is read by eyes
            run->last_live = seconds_now();
            log_live("%s %lld/%lld  loss %.4f  lr %.3g  %.2f steps/s  %s left", run->stage,
                     (long long)run->step, (long long)run->total, loss, lr, rate, left);
        }
    } else if (is_last || run->step % run->every == 0) {
        LOG(INFO, "%s step %lld/%lld loss %.6f lr %.3g %.2f steps/s %s left", run->stage,
            (long long)run->step, (long long)run->total, loss, lr, rate, left);
    }
}

// One point per curve, tagged stage/name. TensorBoard is a convenience: without it the run goes on.
static void add_events(RunLog *run, double loss, double lr, const RunValue *extra,
                       int extra_count) {
    if (!run->events.path) {
        char *dir = file_join_new(run->dir, "tb");
        const Error error = tfevents_open(&run->events, dir);
        if (error.code) {
            LOG(WARN, "%s: %s; no TensorBoard file is written", dir, error.text);
        }
        free(dir);
    }
    if (!run->events.path) {
        return;
    }
    char tag[128];
    snprintf(tag, sizeof tag, "%s/loss", run->stage);
    tfevents_scalar(&run->events, run->step, tag, loss);
    snprintf(tag, sizeof tag, "%s/lr", run->stage);
    tfevents_scalar(&run->events, run->step, tag, lr);
    for (int i = 0; i < extra_count; i++) {
        snprintf(tag, sizeof tag, "%s/%s", run->stage, extra[i].name);
        tfevents_scalar(&run->events, run->step, tag, extra[i].value);
    }
}

void runlog_step(RunLog *run, int64_t step, double loss, double lr, double epoch,
                 const RunValue *extra, int extra_count) {
    run->step = step;
    if (run->rank != 0) {
        return;
    }
    add_events(run, loss, lr, extra, extra_count);
    const double elapsed = seconds_now() - run->stage_start;
    const double done = (double)(step - run->first), left = (double)(run->total - step);
    const double remaining = done > 0 ? elapsed / done * left : 0;
    char loss_text[JSON_NUMBER_ROOM], lr_text[JSON_NUMBER_ROOM], epoch_text[JSON_NUMBER_ROOM];
    char elapsed_text[32], remaining_text[32], *more = extra_text_new(extra, extra_count);
    json_number(loss_text, loss);
    json_number(lr_text, lr);
    json_number(epoch_text, round(epoch * 1e4) / 1e4);
    file_log_line(
        &run->trainer,
        "{\"current_steps\": %lld, \"total_steps\": %lld, \"loss\": %s, \"lr\": %s, \"epoch\": %s, "
        "\"percentage\": %.2f, \"elapsed_time\": \"%s\", \"remaining_time\": \"%s\", "
        "\"stage\": \"%s\"%s}",
        (long long)step, (long long)run->total, loss_text, lr_text, epoch_text,
        run->total > 0 ? 100.0 * (double)step / (double)run->total : 100.0,
        clock_text(elapsed_text, elapsed), clock_text(remaining_text, remaining), run->stage, more);
    if (run->has_losses) {
        file_log_line(&run->losses,
                      "{\"stage\": \"%s\", \"current_steps\": %lld, \"loss\": %s, \"lr\": %s%s}",
                      run->stage, (long long)step, loss_text, lr_text, more);
    }
    free(more);
    show_progress(run, loss, lr, elapsed, remaining);
}

// ---- being asked to stop ----
static bool take_order(const RunLog *run, const char *name) {
    char *path = runlog_path_new(run, name);
    const bool is_given = file_exists(path);
    if (is_given) {
        LOG(INFO, "%s: seen", path);
        unlink(path);
    }
    free(path);
    return is_given;
}

RunRequest runlog_poll(RunLog *run) {
    if (signalled) {
        return RUN_PREEMPTED;
    }
    if (run->rank != 0) {
        return RUN_GO_ON;
    }
    return take_order(run, "STOP") ? RUN_STOP : take_order(run, "SAVE") ? RUN_SAVE : RUN_GO_ON;
}

// ---- the end ----
int runlog_close(RunLog *run, RunEnd end, ExitCode code, const char *note) {
    static const char *const words[] = {"done", "stopped", "preempted", "failed"};
    if (run->rank == 0 && !run->is_ended) {
        write_status(run, words[end], note);
    }
    run->is_ended = true;
    open_run = NULL;
    log_set_file(-1);
    file_log_close(&run->text);
    if (run->rank == 0) {
        tfevents_close(&run->events);
        file_log_close(&run->trainer);
        file_log_close(&run->losses);
    }
    if (run->lock >= 0) {
        close(run->lock); // gives the lock back
    }
    free(run->dir);
    free(run);
    return end == RUN_END_PREEMPTED ? EXIT_PREEMPTED : end == RUN_END_FAILED ? (int)code : EXIT_OK;
}
