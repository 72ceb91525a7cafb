// runlog: one directory per run, with everything that says what ran and how it went.
//
//   config.resolved.yaml argv.txt env.json build.json    what ran
//   log/rank0.log ...            every line that stderr got
//   trainer_log.jsonl            a line per step, LLaMA-Factory's keys and ours
//   losses.jsonl                 the same without times (run.deterministic)
//   tb/events.out.tfevents...    the same for TensorBoard
//   STATUS                       running preempted stopped done failed, then step and reason;
//                                replaced atomically
//   lock                         flock, and who holds it
//
// Rank 0 makes the directory and writes all but the log of the others; they open theirs after it. A
// STATUS that says running beside a free lock is a run that was killed. Files that appear in the
// directory are orders: SAVE (save, go on), STOP (save, end).
// Dies on every problem at the start (EXIT_NO_OUTPUT); later a lost line is only counted.
// Left out: checkpoints, agreement between ranks on an order. flock does not reach
// across every network file system; then the owner text in the lock file is all there is, and is
// logged.
#ifndef JOMED_HOST_RUNLOG_H
#define JOMED_HOST_RUNLOG_H

#include <sys/types.h>

#include "config.h"
#include "file.h"
#include "tfevents.h"

typedef struct {
    char *dir;
    int rank, lock;  // descriptor of the lock file, -1 on other ranks
    pid_t pid;       // a forked child does not write STATUS
    bool is_resumed; // there may be a checkpoint: look for it
    bool is_done;    // the run has ended well before: exit with 0 at once
    bool is_ended;   // STATUS has got its last word
    FileLog text, trainer, losses;
    TfEvents events;        // opened at the first step
    bool is_terminal, has_losses;
    int every;                  // steps between plain progress lines
    char stage[32];             // of the current stage, for the logs
    int64_t first, total, step; // the stage began after step `first`, ends at `total`
    double stage_start, last_live;
} RunLog;

// Makes or reopens the directory as run.start says: new refuses one that was used (and becomes
// resume when SLURM_RESTART_COUNT > 0); resume takes what is there; overwrite removes what runs
// write, from a directory that is empty or a run's. Catches signals (below), teaches die() to leave
// STATUS "failed".
RunLog *runlog_open(const Config *config, int rank);
// Where a file of the run goes; caller frees.
char *runlog_path_new(const RunLog *run, const char *name);

// ---- progress ----
typedef struct {
    const char *name;
    double value;
} RunValue;
// Steps first+1 .. total follow. Lines about later steps of this stage, left by an attempt that got
// farther than its checkpoint, are taken out of the logs.
void runlog_stage(RunLog *run, const char *stage, int64_t first, int64_t total);
// One finished step. epoch may be a fraction. extra: more columns. What is not finite is written
// null.
void runlog_step(RunLog *run, int64_t step, double loss, double lr, double epoch,
                 const RunValue *extra, int extra_count);

// ---- being asked to stop ----
typedef enum { RUN_GO_ON, RUN_SAVE, RUN_STOP, RUN_PREEMPTED } RunRequest;
// Once per step on rank 0. SIGUSR1 and SIGTERM give RUN_PREEMPTED from then on; a second SIGTERM,
// or 25 s after the first, ends the process at once. SAVE and STOP files are removed when they are
// seen.
RunRequest runlog_poll(RunLog *run);
void runlog_catch_signals(void); // for other ranks; runlog_open does it
bool runlog_was_signalled(void);

// ---- the end ----
typedef enum { RUN_END_DONE, RUN_END_STOPPED, RUN_END_PREEMPTED, RUN_END_FAILED } RunEnd;
// Writes STATUS, frees the run and gives the exit code: 0, 0, EXIT_PREEMPTED, code of the failure.
// For RUN_END_PREEMPTED the checkpoint must be on disk. note may be NULL.
int runlog_close(RunLog *run, RunEnd end, ExitCode code, const char *note);

#endif
