// model_pass: see model_pass.h.
#include "bench/model_pass.h"

#include <math.h>
#include <stdlib.h>

// A hash of the result, all of whose elements must be finite.
static uint64_t result_hash(const ModelPass *pass, const char *shape) {
    const size_t bytes = pass->count * dtype_size(pass->t);
    void *host = xmalloc(bytes, 1);
    device_copy_out(bench_device(), host, pass->result, bytes);
    for (size_t i = 0; i < pass->count; i++) {
        const double x = dtype_load(pass->t, host, i);
        CHECK(isfinite(x), "%s: result[%zu] is %g", shape, i, x);
    }
    const uint64_t hash = xxh64(host, bytes, 0);
    free(host);
    return hash;
}

void model_pass_time(ModelPass *pass, const char *shape, bool is_training, double flops,
                     bench_fn *peer) {
    Arena plan = arena_plan();
    pass->run = run_new(bench_device(), pass->t, &plan, is_training);
    pass->run.is_planning = true;
    pass->fn(pass->owner);
    Arena arena = arena_new(bench_device(), "bench", plan.peak);
    pass->run = run_new(bench_device(), pass->t, &arena, is_training);
    pass->fn(pass->owner);
    const uint64_t first = result_hash(pass, shape);
    pass->fn(pass->owner);
    CHECK(result_hash(pass, shape) == first, "%s changed its bits", shape);
    bench_time(shape, flops, 0, pass->fn, pass->owner, "PyTorch", peer, NULL);
    arena_free(&arena);
}

static double sd_of(const Tensor *tensor) {
    const double value = tensor->init.value;
    return tensor->is_adapter                  ? 0.02
           : tensor->init.kind == INIT_UNIFORM ? value / sqrt(3)
                                               : value;
}

void model_fill(TensorList *list) {
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (tensor->init.kind == INIT_CONSTANT && !tensor->is_adapter) {
            float *values = xmalloc(tensor->count, sizeof *values);
            for (size_t k = 0; k < tensor->count; k++) {
                values[k] = tensor->init.value;
            }
            tensor_write(list, tensor, DT_F32, values);
            free(values);
            continue;
        }
        bench_fill(list->t, tensor->data, tensor->count, sd_of(tensor));
        if (tensor->master) {
            bench_fill(DT_F32, tensor->master, tensor->count, sd_of(tensor));
        }
    }
}

double stack_flops(const BlockConfig *c, int L, double rows, double T, int passes, int products) {
    const double heads = 2.0 * c->C * c->D * (c->H + c->Hkv); // q and o, k and v
    const double weights = heads + (c->is_gated ? 3.0 : 2.0) * c->C * c->F;
    const double pairs = rows * (c->is_causal ? (T + 1) / 2 : T);
    return 2 * L * (passes * rows * weights + products * pairs * c->H * c->D);
}
