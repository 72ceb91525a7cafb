// stage: see stage.h.
#include "stage.h"

#include <math.h>

#define MOST_BAD_STEPS 3
#define MOST_EXTRA 7 // values of a verb beside the gradient's length

Stage stage_begin(const Config *config, RunLog *run, const char *name, uint64_t context,
                  Optim *optim, TensorList *const *lists, int list_count, int64_t steps) {
    Stage stage = {.config = config, .run = run, .steps = steps};
    stage.state = (CheckpointState){.stage = name,
                                    .seed = (uint64_t)config->seed,
                                    .context = context,
                                    .optim = optim,
                                    .list_count = list_count,
                                    .lists = (const TensorList *const *)lists};
    if (run->is_resumed) {
        error_die(run->dir, checkpoint_load(&stage.first, run->dir, &stage.state, optim, lists));
        if (stage.first) {
            LOG(INFO, "%s: going on after step %lld of %lld", name, (long long)stage.first,
                (long long)steps);
        }
    }
    stage.saved = stage.first;
    runlog_stage(run, name, stage.first, steps);
    return stage;
}

bool stage_goes_on(const Stage *stage, int64_t step) {
    return step < stage->steps && stage->request != RUN_STOP && stage->request != RUN_PREEMPTED;
}

static void save(Stage *stage, int64_t done) {
    if (done == stage->saved) {
        return;
    }
    stage->state.step = done;
    const Error error = checkpoint_save(stage->run->dir, &stage->state,
                                        stage->config->checkpoint.keep);
    stage->is_unsaved = error.code != EXIT_OK;
    if (!error.code) {
        stage->saved = done;
    } else if (stage->config->checkpoint.on_error == KEY_ON_ERROR_WARN) {
        LOG(WARN, "%s: checkpoint of step %lld not saved: %s", stage->run->dir, (long long)done,
            error.text);
    } else {
        error_die(stage->run->dir, error);
    }
}

void stage_step(Stage *stage, int64_t step, double loss, double lr, double epoch,
                const RunValue *extra, int extra_count) {
    const int64_t done = step + 1;
    const OptimState optim = optim_read(stage->state.optim);
    RunValue all[1 + MOST_EXTRA] = {{"grad_norm", optim.norm}};
    CHECK(extra_count <= MOST_EXTRA, "%d extra values", extra_count);
    for (int i = 0; i < extra_count; i++) {
        all[1 + i] = extra[i];
    }
    runlog_step(stage->run, done, loss, lr, epoch, all, 1 + extra_count);
    stage->bad_steps = isfinite(loss) && !optim.count.skipped ? 0 : stage->bad_steps + 1;
    if (stage->bad_steps >= MOST_BAD_STEPS) {
        die(EXIT_DIVERGED,
            "%s: loss or gradient was not finite %d steps in a row, at step %lld; the last "
            "checkpoint is of step %lld; lower the learning rate and resume",
            stage->run->dir, MOST_BAD_STEPS, (long long)done, (long long)stage->saved);
    }
    stage->request = runlog_poll(stage->run);
    const bool is_time = done % stage->config->checkpoint.every == 0 && done < stage->steps;
    if ((stage->request != RUN_GO_ON || is_time) && !stage->bad_steps) {
        save(stage, done); // weights that gave a bad loss must not take the place of good ones
    }
    stage->state.step = done;
}

bool stage_is_done(const Stage *stage) {
    return stage->state.step >= stage->steps || stage->first >= stage->steps;
}

int stage_end(Stage *stage) {
    if (stage_is_done(stage)) {
        return runlog_close(stage->run, RUN_END_DONE, EXIT_OK, NULL);
    }
    if (stage->is_unsaved) { // 75 promises a checkpoint
        return runlog_close(stage->run, RUN_END_FAILED, EXIT_IO,
                            "asked to stop, but the checkpoint failed");
    }
    return runlog_close(stage->run,
                        stage->request == RUN_PREEMPTED ? RUN_END_PREEMPTED : RUN_END_STOPPED,
                        EXIT_OK, "asked to stop");
}
