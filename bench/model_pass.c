// model_pass: see model_pass.h.
#include "bench/model_pass.h"

#include <math.h>
#include <stdlib.h>

// A hash of the result, all of whose elements must be finite.
static uint64_t result_hash(const ModelPass *pass, const char *shape) {
    float *host = xmalloc(pass->count, sizeof *host);
    device_copy_out(bench_device(), host, pass->result, pass->count * sizeof *host);
    for (size_t i = 0; i < pass->count; i++) {
        CHECK(isfinite(host[i]), "%s: result[%zu] is %g", shape, i, (double)host[i]);
    }
    const uint64_t hash = xxh64(host, pass->count * sizeof *host, 0);
    free(host);
    return hash;
}

void model_pass_time(ModelPass *pass, const char *shape, bool is_training, double flops,
                     bench_fn *peer) {
    Arena plan = arena_plan();
    pass->run = run_new(bench_device(), DT_F32, &plan, is_training);
    pass->run.is_planning = true;
    pass->fn(pass->owner);
    Arena arena = arena_new(bench_device(), "bench", plan.peak);
    pass->run = run_new(bench_device(), DT_F32, &arena, is_training);
    pass->fn(pass->owner);
    const uint64_t first = result_hash(pass, shape);
    pass->fn(pass->owner);
    CHECK(result_hash(pass, shape) == first, "%s changed its bits", shape);
    bench_time(shape, flops, 0, pass->fn, pass->owner, "PyTorch", peer, NULL);
    arena_free(&arena);
}
