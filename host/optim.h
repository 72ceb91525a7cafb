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

typedef struct {
    OptimConfig config;
    TensorList *list;
    Arena arena;
    float *m, *v;  // (list->trainable_count) f32 on the device
    float *norm;   // (2) on the device: length of the gradient before clipping, clip factor
    int step;      // updates done
    int skipped;   // steps in a row that ended without an update
} Optim;
Optim optim_new(TensorList *list, const OptimConfig *config);
void optim_free(Optim *optim);
// One update of every trainable tensor from its gradient, then zeroes the gradients. A gradient
// that is not finite only counts in `skipped`: weights and moments stay as they were. Waits for the
// device.
void optim_step(Optim *optim, double lr);
// Length of the gradient before clipping, of the last step.
float optim_norm(const Optim *optim);

#endif
