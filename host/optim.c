// optim: see optim.h.
#include "optim.h"

#include <stdlib.h>
#include <string.h>

OptimConfig optim_default(void) {
    return (OptimConfig){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
}

// A flag for each span: tensors begin at multiples of DECAY_SPAN, and what lies between them is 0
// and stays 0 either way.
static void set_decays(Optim *optim, size_t spans) {
    const TensorList *list = optim->list;
    uint8_t *decays = xcalloc(spans, sizeof *decays);
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (tensor->is_trainable && (optim->config.decays_all || tensor->rank >= 2)) {
            CHECK(tensor->offset % DECAY_SPAN == 0, "offset %zu", tensor->offset);
            memset(decays + tensor->offset / DECAY_SPAN, 1,
                   (tensor->count + DECAY_SPAN - 1) / DECAY_SPAN);
        }
    }
    device_copy_in(list->dev, optim->decays, decays, spans);
    free(decays);
}

Optim optim_new(TensorList *list, const OptimConfig *config) {
    CHECK(config->eps > 0, "eps=%g", (double)config->eps); // 0 / 0 between the tensors
    Optim optim = {.config = *config, .list = list};
    const size_t n = list->trainable_count, spans = (n + DECAY_SPAN - 1) / DECAY_SPAN;
    Arena plan = arena_plan();
    for (int pass = 0; pass < 2; pass++) {
        Arena *arena = pass ? &optim.arena : &plan;
        if (pass) {
            optim.arena = arena_new(list->dev, "optimiser", plan.used);
        }
        optim.m = arena_take(arena, n, sizeof(float));
        optim.v = arena_take(arena, n, sizeof(float));
        optim.decays = arena_take(arena, spans, sizeof(uint8_t));
        optim.state = arena_take(arena, 1, sizeof(OptimState));
    }
    set_decays(&optim, spans);
    return optim;
}

void optim_free(Optim *optim) { arena_free(&optim->arena); }

// Field of the state on the device.
static void *state_at(const Optim *optim, size_t offset) { return (char *)optim->state + offset; }

void optim_step(Optim *optim, double lr) {
    TensorList *list = optim->list;
    Device *dev = list->dev;
    const OptimConfig *config = &optim->config;
    const bool clips = config->clip > 0 && !config->is_clip_before_backward;
    const AdamWConfig step = {.lr = (float)lr, .beta1 = config->beta1, .beta2 = config->beta2,
                              .eps = config->eps, .weight_decay = config->weight_decay};
    const size_t n = list->trainable_count;
    device_ops(dev)->global_norm(dev, state_at(optim, offsetof(OptimState, norm)), list->grad, n,
                                 clips ? config->clip : 0);
    // A factor that is not finite is a step without an update: one bad batch must not spoil what
    // all others taught.
    device_ops(dev)->adamw(dev, list->t, list->value, list->master, optim->m, optim->v,
                           state_at(optim, offsetof(OptimState, count)), list->grad,
                           state_at(optim, offsetof(OptimState, clip_factor)), optim->decays, n,
                           &step);
    tensors_zero_grad(list);
}

OptimState optim_read(const Optim *optim) {
    OptimState state;
    device_copy_out(optim->list->dev, &state, optim->state, sizeof state);
    return state;
}

void optim_set_step(Optim *optim, int step) {
    const AdamWCount count = {.step = step};
    device_copy_in(optim->list->dev, state_at(optim, offsetof(OptimState, count)), &count,
                   sizeof count);
}
