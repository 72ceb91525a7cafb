// optim: see optim.h.
#include "optim.h"

#include <math.h>

OptimConfig optim_default(void) {
    return (OptimConfig){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
}

Optim optim_new(TensorList *list, const OptimConfig *config) {
    Optim optim = {.config = *config, .list = list};
    const size_t n = list->trainable_count;
    Arena plan = arena_plan();
    for (int pass = 0; pass < 2; pass++) {
        Arena *arena = pass ? &optim.arena : &plan;
        if (pass) {
            optim.arena = arena_new(list->dev, "optimiser", plan.used);
        }
        optim.m = arena_take(arena, n, sizeof(float));
        optim.v = arena_take(arena, n, sizeof(float));
        optim.norm = arena_take(arena, 2, sizeof(float));
    }
    return optim;
}

void optim_free(Optim *optim) { arena_free(&optim->arena); }

void optim_step(Optim *optim, double lr) {
    TensorList *list = optim->list;
    Device *dev = list->dev;
    const OptimConfig *config = &optim->config;
    const bool clips = config->clip > 0 && !config->is_clip_before_backward;
    device_ops(dev)->global_norm(dev, optim->norm, list->grad, list->trainable_count,
                                 clips ? config->clip : 0);
    if (!isfinite(optim_norm(optim))) { // one bad batch must not spoil what all others taught
        optim->skipped++;
        tensors_zero_grad(list);
        return;
    }
    optim->skipped = 0;
    optim->step++;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (!tensor->is_trainable) {
            continue;
        }
        const bool decays = config->decays_all || tensor->rank >= 2;
        const AdamWConfig step = {.lr = (float)lr, .beta1 = config->beta1, .beta2 = config->beta2,
                                  .eps = config->eps, .step = optim->step,
                                  .weight_decay = decays ? config->weight_decay : 0};
        device_ops(dev)->adamw(dev, list->t, tensor->data, tensor->master,
                               optim->m + tensor->offset, optim->v + tensor->offset, tensor->grad,
                               optim->norm + 1, tensor->count, &step);
    }
    tensors_zero_grad(list);
}

float optim_norm(const Optim *optim) {
    float norm = 0;
    device_copy_out(optim->list->dev, &norm, optim->norm, sizeof norm);
    return norm;
}
