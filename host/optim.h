// optim: AdamW over the trainable tensors of one list, with clipping of the global norm.
// Sources: Loshchilov and Hutter 2019; torch.optim.AdamW and clip_grad_norm_.
#ifndef JOMED_HOST_OPTIM_H
#define JOMED_HOST_OPTIM_H

#include "models/model.h"

typedef struct {
    float beta1, beta2, eps, weight_decay;
    bool decays_all; // exact.wd1: also tensors of one dimension; else only those of two or more
    float clip;      // largest global norm of the gradient, 0: none
    bool is_clip_before_backward; // exact.clip_before_backward: clips the gradients of the step
                                  // before, which are zero by then, so that nothing is clipped
} OptimConfig;
OptimConfig optim_default(void); // 0.9, 0.999, 1e-8, 0.01, no clipping

// What a step leaves behind.
typedef struct {
    float norm, clip_factor; // of the gradient before clipping; as global_norm gives them
    AdamWCount count;        // updates done, and steps in a row that ended without one
} OptimState;

typedef struct {
    OptimConfig config;
    TensorList *list;
    Arena arena;
    float *m, *v;        // (list->trainable_count) f32 on the device
    uint8_t *decays;     // of the spans of all tensors, as adamw takes them
    OptimState *state;   // on the device
} Optim;
Optim optim_new(TensorList *list, const OptimConfig *config);
void optim_free(Optim *optim);
// One update of every trainable tensor from its gradient, then zeroes the gradients. A gradient
// that is not finite only counts as skipped: weights and moments stay as they were. Does not wait
// for the device.
void optim_step(Optim *optim, double lr);
OptimState optim_read(const Optim *optim); // of the last step; waits for the device
void optim_set_step(Optim *optim, int step); // updates done, of a checkpoint

#endif
