// stage: what every training verb does around its steps: resume, log, checkpoint, obey requests.
//
//     Stage stage = stage_begin(config, run, "pretrain", context, &optim, lists, count, steps);
//     for (int64_t step = stage.first; stage_goes_on(&stage, step); step++) {
//         ... one step ...
//         stage_step(&stage, step, loss, lr, epoch, extra, extra_count);
//     }
//     return stage_end(&stage);        closes the run log too
#ifndef JOMED_HOST_STAGE_H
#define JOMED_HOST_STAGE_H

#include "checkpoint.h"
#include "config.h"
#include "runlog.h"

typedef struct {
    const Config *config;
    RunLog *run;
    CheckpointState state;
    int64_t first, steps; // steps done by an earlier attempt; steps in all
    int64_t saved;        // step of the newest checkpoint
    RunRequest request;
    int bad_steps;        // in a row: the loss, or the gradient, was not finite
    bool is_unsaved;      // the newest checkpoint could not be written (checkpoint.on_error=warn)
} Stage;

// Loads the newest checkpoint where the run is resumed. lists: further tensor lists of the state.
// context: hash of all that must not change between attempts. Dies when a checkpoint is of another.
Stage stage_begin(const Config *config, RunLog *run, const char *name, uint64_t context,
                  Optim *optim, TensorList *const *lists, int list_count, int64_t steps);
// False after the last step, and after a request to stop.
bool stage_goes_on(const Stage *stage, int64_t step);
// Logs the finished step `step` (0-based), with the gradient's length, saves when it is time, looks
// for requests. A step whose loss or gradient is not finite is never saved; after three in a row it
// dies with EXIT_DIVERGED.
void stage_step(Stage *stage, int64_t step, double loss, double lr, double epoch,
                const RunValue *extra, int extra_count);
// True when all steps are done: results may be written before stage_end.
bool stage_is_done(const Stage *stage);
// Closes the run and returns the exit code: EXIT_IO when it was asked to stop and could not save.
int stage_end(Stage *stage);

#endif
