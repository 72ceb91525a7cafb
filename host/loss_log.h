// loss_log: the losses of a run by stage, read back from losses.jsonl or trainer_log.jsonl.
#ifndef JOMED_HOST_LOSS_LOG_H
#define JOMED_HOST_LOSS_LOG_H

#include "kernels/base.h"

typedef struct {
    char *stage;
    double *step, *loss; // (n) in the order of the file; loss NaN where the file says null
    int n;
} LossStage;
typedef struct {
    LossStage *items;
    int count;
} LossLog;

// Lines are objects with "loss", "step" or "current_steps", and "stage". Lines that are none of
// this, as a torn last one, are skipped with a warning. EXIT_NO_INPUT when there is no file.
Error loss_log_read_new(LossLog *out, const char *path);
void loss_log_free(LossLog *log);
const LossStage *loss_log_find(const LossLog *log, const char *stage); // NULL when absent

#endif
