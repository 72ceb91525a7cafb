// Tests of host/runlog: start modes, lock, logs that survive a resume, signals, orders, the last
// word.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "host/json.h"
#include "host/runlog.h"

static Config config_for(const char *name, const char *start) {
    Config config;
    ConfigProblems problems = {0};
    config_init(&config);
    char *dir = xformat_new("run.dir=%s/%s", check_tmpdir(), name);
    char *mode = xformat_new("run.start=%s", start);
    config_override(&config, &problems, dir);
    config_override(&config, &problems, mode);
    config_override(&config, &problems, "run.deterministic=true");
    EXPECT(problems.count == 0, "%s", problems.lines[0]);
    free(dir), free(mode);
    log_set_level(LOG_ERROR);
    unsetenv("SLURM_RESTART_COUNT");
    return config;
}

static char *content_new(const Config *config, const char *name) {
    char *path = file_join_new(config->run.dir, name);
    FileBytes bytes;
    const Error error = file_read_new(&bytes, path, 1 << 20);
    char *text = xstrdup(error.code == EXIT_OK ? (const char *)bytes.data : "(absent)");
    file_bytes_free(&bytes);
    free(path);
    return text;
}

static void expect_file(const Config *config, const char *name, const char *want) {
    char *text = content_new(config, name);
    EXPECT(strcmp(text, want) == 0, "%s holds '%s', wanted '%s'", name, text, want);
    free(text);
}

// Exit code of body in a child with quiet stderr; 128 + signal when killed.
static int in_child(const Config *config, void body(const Config *config)) {
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) {
            _exit(99);
        }
        body(config);
        exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void just_open(const Config *config) {
    runlog_close(runlog_open(config, 0), RUN_END_DONE, 0, NULL);
}
static void open_and_die(const Config *config) {
    runlog_open(config, 0);
    die(EXIT_BAD_DATA, "a reason");
}

TEST(runlog_files) {
    Config config = config_for("a/b", "new");
    char *words[] = {"jomed", "demo", "seed=1"};
    config.argc = 3;
    config.argv = words;
    RunLog *run = runlog_open(&config, 0);
    EXPECT(!run->is_resumed && !run->is_done, "a new run");
    expect_file(&config, "STATUS", "running step=0\n");
    expect_file(&config, "argv.txt", "jomed demo seed=1\n");
    char *dump = config_dump_new(&config);
    expect_file(&config, "config.resolved.yaml", dump);
    free(dump);
    const char *jsons[] = {"env.json", "build.json"};
    for (int i = 0; i < 2; i++) {
        char *path = runlog_path_new(run, jsons[i]);
        json_t *value;
        const Error error = json_read_new(&value, path, 1 << 20);
        EXPECT(error.code == EXIT_OK, "%s: %s", path, error.text);
        json_decref(value);
        free(path);
    }
    runlog_stage(run, "retriever", 0, 4);
    const RunValue extra[] = {{"grad_norm", 0.25}, {"bad", NAN}};
    runlog_step(run, 1, 2.5, 1e-4, 0.5, extra, 2);
    EXPECT(runlog_close(run, RUN_END_DONE, 0, NULL) == EXIT_OK, "exit code");
    expect_file(&config, "STATUS", "done step=1\n");
    expect_file(&config, "losses.jsonl",
                "{\"stage\": \"retriever\", \"current_steps\": 1, \"loss\": 2.5, "
                "\"lr\": 0.0001, \"grad_norm\": 0.25, \"bad\": null}\n");
    char *text = content_new(&config, "trainer_log.jsonl");
    json_t *row;
    EXPECT(json_parse_new(&row, text, strlen(text)).code == EXIT_OK, "%s", text);
    const char *keys[] = {"current_steps", "total_steps", "loss",         "lr",
                          "epoch",         "percentage",  "elapsed_time", "remaining_time",
                          "grad_norm",     "bad",         "stage"};
    for (int i = 0; i < 11; i++) {
        EXPECT(json_object_get(row, keys[i]), "no %s in %s", keys[i], text);
    }
    EXPECT(json_number_value(json_object_get(row, "percentage")) == 25, "%s", text);
    json_decref(row);
    free(text);
    config_free(&config);
}

TEST(runlog_start_modes) {
    Config config = config_for("r", "new");
    just_open(&config);
    EXPECT(in_child(&config, just_open) == EXIT_NO_OUTPUT, "new refuses a used directory");
    expect_file(&config, "STATUS", "done step=0\n");
    config_free(&config);

    config = config_for("r", "resume");
    RunLog *run = runlog_open(&config, 0);
    EXPECT(run->is_resumed && run->is_done, "a finished run is done");
    runlog_close(run, RUN_END_DONE, 0, NULL);
    config_free(&config);

    config = config_for("r", "overwrite");
    run = runlog_open(&config, 0);
    EXPECT(!run->is_resumed && !run->is_done, "overwritten");
    EXPECT(runlog_close(run, RUN_END_PREEMPTED, 0, "SIGUSR1") == EXIT_PREEMPTED, "exit code");
    expect_file(&config, "STATUS", "preempted step=0 SIGUSR1\n");
    config_free(&config);

    config = config_for("r", "new"); // started again by Slurm
    setenv("SLURM_RESTART_COUNT", "1", 1);
    run = runlog_open(&config, 0);
    EXPECT(run->is_resumed && !run->is_done, "a restart resumes");
    EXPECT(runlog_close(run, RUN_END_FAILED, EXIT_DIVERGED, "loss") == EXIT_DIVERGED, "exit code");
    expect_file(&config, "STATUS", "failed step=0 loss\n");
    unsetenv("SLURM_RESTART_COUNT");
    config_free(&config);

    config = config_for("s", "resume"); // nothing there yet
    run = runlog_open(&config, 0);
    EXPECT(!run->is_resumed, "nothing to resume");
    runlog_close(run, RUN_END_STOPPED, 0, NULL);
    config_free(&config);
}

TEST(runlog_foreign_directory) {
    Config config = config_for("home", "overwrite");
    char *file = file_join_new(config.run.dir, "slurm-1.out"),
         *plots = file_join_new(config.run.dir, "plots");
    EXPECT(file_make_directories(plots).code == EXIT_OK, "make");
    EXPECT(in_child(&config, just_open) == EXIT_NO_OUTPUT, "somebody's plots are not removed");
    EXPECT(file_is_directory(plots), "still there");
    EXPECT(file_remove_tree(plots).code == EXIT_OK && file_replace(file, "x", 1).code == EXIT_OK,
           "prepare");
    EXPECT(in_child(&config, just_open) == EXIT_OK, "a Slurm output file does no harm");
    EXPECT(file_exists(file), "and stays");
    free(file), free(plots);
    config_free(&config);

    config = config_for("x", "new");
    free((void *)(uintptr_t)config.run.dir);
    config.run.dir = xstrdup("/dev/null/x");
    EXPECT(in_child(&config, just_open) == EXIT_NO_OUTPUT, "cannot be made");
    config_free(&config);
}

TEST(runlog_lock) {
    Config config = config_for("l", "resume");
    RunLog *run = runlog_open(&config, 0);
    char *lock = content_new(&config, "lock");
    EXPECT(strncmp(lock, "host ", 5) == 0 && strstr(lock, "pid "), "%s", lock);
    free(lock);
    EXPECT(in_child(&config, just_open) == EXIT_NO_OUTPUT, "a second process is refused");
    expect_file(&config, "STATUS", "running step=0\n");
    runlog_close(run, RUN_END_STOPPED, 0, NULL);
    EXPECT(in_child(&config, just_open) == EXIT_OK, "free again");
    config_free(&config);
}

TEST(runlog_die_leaves_status) {
    Config config = config_for("d", "new");
    EXPECT(in_child(&config, open_and_die) == EXIT_BAD_DATA, "exit code");
    char *status = content_new(&config, "STATUS"), *log = content_new(&config, "log/rank0.log");
    EXPECT(strncmp(status, "failed step=0 ", 14) == 0, "%s", status);
    EXPECT(strstr(log, "error: a reason"), "%s", log);
    free(status), free(log);
    config_free(&config);
}

// An attempt that got to step 7 after the checkpoint of step 5: the resumed log equals a log
// without it.
TEST(runlog_resume_cuts_logs) {
    Config config = config_for("c", "new");
    RunLog *run = runlog_open(&config, 0);
    runlog_stage(run, "reader", 0, 2);
    for (int step = 1; step <= 2; step++) {
        runlog_step(run, step, 1.0 / step, 0.1, 0, NULL, 0);
    }
    runlog_stage(run, "retriever", 0, 9);
    for (int step = 1; step <= 7; step++) {
        runlog_step(run, step, 0.1 * step, 0.1, 0, NULL, 0);
    }
    runlog_close(run, RUN_END_PREEMPTED, 0, NULL);
    char *path = file_join_new(config.run.dir, "losses.jsonl");
    FileLog torn;
    EXPECT(file_log_open(&torn, path).code == EXIT_OK, "open");
    EXPECT(file_write_all(torn.fd, "{\"stage\": \"retr", 15).code == EXIT_OK, "a torn line");
    file_log_close(&torn);
    config_free(&config);

    config = config_for("c", "resume");
    run = runlog_open(&config, 0);
    EXPECT(run->is_resumed, "resumed");
    runlog_stage(run, "retriever", 5, 9);
    for (int step = 6; step <= 9; step++) {
        runlog_step(run, step, 0.1 * step, 0.1, 0, NULL, 0);
    }
    runlog_close(run, RUN_END_DONE, 0, NULL);
    char *text = content_new(&config, "losses.jsonl"), *want = xstrdup("");
    for (int i = 1; i <= 11; i++) {
        char number[JSON_NUMBER_ROOM];
        const int step = i <= 2 ? i : i - 2;
        json_number(number, i <= 2 ? 1.0 / step : 0.1 * step);
        char *longer =
            xformat_new("%s{\"stage\": \"%s\", \"current_steps\": %d, \"loss\": %s, \"lr\": 0.1}\n",
                        want, i <= 2 ? "reader" : "retriever", step, number);
        free(want);
        want = longer;
    }
    EXPECT(strcmp(text, want) == 0, "%s\nwanted\n%s", text, want);
    free(text), free(want), free(path);
    config_free(&config);
}

TEST(runlog_orders_and_signals) {
    Config config = config_for("o", "new");
    RunLog *run = runlog_open(&config, 0);
    char *save = runlog_path_new(run, "SAVE"), *stop = runlog_path_new(run, "STOP");
    EXPECT(runlog_poll(run) == RUN_GO_ON, "nothing yet");
    EXPECT(file_replace(save, "", 0).code == EXIT_OK, "write");
    EXPECT(runlog_poll(run) == RUN_SAVE && runlog_poll(run) == RUN_GO_ON, "SAVE once");
    EXPECT(file_replace(stop, "", 0).code == EXIT_OK, "write");
    EXPECT(runlog_poll(run) == RUN_STOP && !file_exists(stop), "STOP once");
    raise(SIGUSR1);
    EXPECT(runlog_was_signalled() && runlog_poll(run) == RUN_PREEMPTED, "SIGUSR1");
    EXPECT(runlog_poll(run) == RUN_PREEMPTED, "stays");
    runlog_close(run, RUN_END_PREEMPTED, 0, NULL);
    free(save), free(stop);
    config_free(&config);
}

static void terminate_twice(const Config *config) {
    RunLog *run = runlog_open(config, 0);
    raise(SIGTERM);
    if (runlog_poll(run) != RUN_PREEMPTED) {
        exit(1);
    }
    raise(SIGTERM);
    exit(2);
}

TEST(runlog_second_sigterm) {
    Config config = config_for("t", "new");
    EXPECT(in_child(&config, terminate_twice) == 128 + SIGTERM, "ends at once");
    expect_file(&config, "STATUS", "running step=0\n");
    EXPECT(in_child(&config, just_open) == EXIT_NO_OUTPUT, "new refuses");
    config_free(&config);
}

// A full disk costs log lines, not the run.
TEST(runlog_full_disk) {
    Config config = config_for("f", "new");
    RunLog *run = runlog_open(&config, 0);
    runlog_stage(run, "s", 0, 3);
    file_fault("write", 1, 28, true);
    runlog_step(run, 1, 1, 1, 0, NULL, 0);
    file_fault(NULL, 0, 0, false);
    runlog_step(run, 2, 1, 1, 0, NULL, 0);
    EXPECT(run->trainer.dropped == 1 && run->losses.dropped == 1, "dropped %zu",
           run->trainer.dropped);
    runlog_close(run, RUN_END_DONE, 0, NULL);
    expect_file(&config, "losses.jsonl",
                "{\"stage\": \"s\", \"current_steps\": 2, \"loss\": 1, \"lr\": 1}\n");
    config_free(&config);
}

// A live line is wiped by the log line that follows it, and does not go to the log file.
TEST(runlog_live_line) {
    int ends[2];
    EXPECT(pipe(ends) == 0, "pipe");
    char *path = file_join_new(check_tmpdir(), "log");
    FileLog log;
    EXPECT(file_log_open(&log, path).code == EXIT_OK, "open");
    const int before = dup(STDERR_FILENO);
    log_set_file(log.fd);
    dup2(ends[1], STDERR_FILENO);
    log_live("step %d", 1);
    log_live("step %d", 2);
    LOG(WARN, "a line");
    LOG(WARN, "another");
    dup2(before, STDERR_FILENO);
    log_set_file(-1);
    char text[512];
    const ssize_t n = read(ends[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    EXPECT(strncmp(text, "\r\x1b[Kstep 1\r\x1b[Kstep 2\r\x1b[K", 24) == 0, "%s", text);
    const char *rest = strstr(text, "a line\n");
    EXPECT(rest && !strchr(rest, '\r') && strstr(rest, "another\n"), "nothing is wiped twice");
    file_log_close(&log);
    FileBytes bytes;
    EXPECT(file_read_new(&bytes, path, 1 << 16).code == EXIT_OK, "read");
    const char *content = (const char *)bytes.data;
    EXPECT(strstr(content, "a line\n") && strstr(content, "another\n") && !strstr(content, "step"),
           "%s", content);
    file_bytes_free(&bytes);
    close(before), close(ends[0]), close(ends[1]);
    free(path);
}
