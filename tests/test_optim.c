// test_optim: the update of a list of tensors against the equations, tensor by tensor.
#include "host/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

enum { ROWS = 3, COLUMNS = 5, BIAS = 7, COUNT = ROWS * COLUMNS + BIAS };

// A matrix, a vector and a frozen vector between them.
typedef struct {
    TensorList list;
    Tensor *matrix, *frozen, *vector;
} Fixture;

static Fixture fixture_new(DType t) {
    Fixture f = {.list = tensors_new()};
    f.matrix = tensors_add(&f.list, "matrix", init_normal(1), 2, (int[]){ROWS, COLUMNS});
    f.frozen = tensors_add(&f.list, "frozen", init_normal(1), 1, (int[]){BIAS});
    f.vector = tensors_add(&f.list, "vector", init_normal(1), 1, (int[]){BIAS});
    f.matrix->is_trainable = f.vector->is_trainable = true;
    tensors_allocate(&f.list, check_device(), t);
    tensors_init(&f.list, check_seed());
    return f;
}

static void read_values(const Fixture *f, float values[COUNT]) {
    tensor_read(&f->list, f->matrix, values);
    tensor_read(&f->list, f->vector, values + ROWS * COLUMNS);
}

static void set_gradient(Fixture *f, uint32_t step, double scale, float gradient[COUNT]) {
    Rng rng = check_rng(step);
    for (int i = 0; i < COUNT; i++) {
        gradient[i] = (float)(scale * rng_normal(&rng));
    }
    device_copy_in(f->list.dev, f->matrix->grad, gradient, ROWS * COLUMNS * sizeof(float));
    device_copy_in(f->list.dev, f->vector->grad, gradient + ROWS * COLUMNS, BIAS * sizeof(float));
}

// The same update in double precision.
typedef struct {
    double w[COUNT], m[COUNT], v[COUNT], norm;
} Truth;

static void truth_step(Truth *truth, const OptimConfig *config, const float *gradient, double lr,
                       int step) {
    double square = 0;
    for (int i = 0; i < COUNT; i++) {
        square += (double)gradient[i] * gradient[i];
    }
    truth->norm = sqrt(square);
    const bool clips = config->clip > 0 && !config->is_clip_before_backward;
    const double scale = clips ? fmin(1, config->clip / (truth->norm + 1e-6)) : 1;
    const double beta1 = config->beta1, beta2 = config->beta2;
    for (int i = 0; i < COUNT; i++) {
        const bool decays = config->decays_all || i < ROWS * COLUMNS;
        const double g = gradient[i] * scale;
        truth->w[i] *= 1 - lr * (decays ? config->weight_decay : 0);
        truth->m[i] = beta1 * truth->m[i] + (1 - beta1) * g;
        truth->v[i] = beta2 * truth->v[i] + (1 - beta2) * g * g;
        truth->w[i] -= lr / (1 - pow(beta1, step)) * truth->m[i] /
                       (sqrt(truth->v[i] / (1 - pow(beta2, step))) + config->eps);
    }
}

static const struct {
    const char *name;
    OptimConfig config;
} cases[] = {
    {"default", {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f}},
    {"decays_all",
     {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 1, .decays_all = true}},
    {"matrices decay", {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 1}},
    {"clip", {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 0.5f}},
    {"large clip", {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 1e6f}},
    {"clip_before_backward",
     {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 0.5f, .is_clip_before_backward = true}},
};

TEST_DEVICE(optim_steps) {
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (!CASE("%s", cases[k].name)) {
            continue;
        }
        Fixture f = fixture_new(DT_F32);
        float values[COUNT], gradient[COUNT], frozen[BIAS], frozen_after[BIAS];
        Truth truth = {{0}, {0}, {0}, 0};
        read_values(&f, values);
        tensor_read(&f.list, f.frozen, frozen);
        for (int i = 0; i < COUNT; i++) {
            truth.w[i] = values[i];
        }
        Optim optim = optim_new(&f.list, &cases[k].config);
        for (int step = 1; step <= 4; step++) {
            const double lr = 0.01 * step;
            set_gradient(&f, (uint32_t)step, step == 3 ? 0.01 : 1, gradient); // one below the clip
            truth_step(&truth, &cases[k].config, gradient, lr, step);
            optim_step(&optim, lr);
            const double norm = (double)optim_read(&optim).norm;
            EXPECT(fabs(norm - truth.norm) <= 1e-6 * truth.norm, "norm %g, not %g", norm,
                   truth.norm);
        }
        read_values(&f, values);
        double got[COUNT];
        for (int i = 0; i < COUNT; i++) {
            got[i] = values[i];
        }
        // Four updates of at most 0.1 in all: a few roundings of numbers near one.
        expect_within("weights", got, truth.w, COUNT, 2e-6);
        tensor_read(&f.list, f.frozen, frozen_after);
        EXPECT(memcmp(frozen, frozen_after, sizeof frozen) == 0, "a frozen tensor moved");
        EXPECT(optim_read(&optim).count.step == 4, "%d updates", optim_read(&optim).count.step);
        device_copy_out(f.list.dev, gradient, f.matrix->grad, ROWS * COLUMNS * sizeof(float));
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            EXPECT(gradient[i] == 0, "gradient %d is left over", i);
        }
        optim_free(&optim);
        tensors_free(&f.list);
    }
}

// The first update of every schedule has rate 0: weights stay, but the moments learn.
TEST_DEVICE(optim_rate_zero) {
    Fixture f = fixture_new(DT_F32);
    OptimConfig config = optim_default();
    config.weight_decay = 1;
    config.decays_all = true;
    Optim optim = optim_new(&f.list, &config);
    float before[COUNT], after[COUNT], gradient[COUNT], m[ROWS * COLUMNS];
    read_values(&f, before);
    set_gradient(&f, 1, 1, gradient);
    optim_step(&optim, 0);
    read_values(&f, after);
    EXPECT(memcmp(before, after, sizeof before) == 0, "weights moved at rate 0");
    device_copy_out(f.list.dev, m, optim.m + f.matrix->offset, sizeof m);
    EXPECT(m[0] != 0 && optim_read(&optim).count.step == 1, "the moments did not see the gradient");
    optim_free(&optim);
    tensors_free(&f.list);
}

static void expect_count(const Optim *optim, int step, int skipped) {
    const AdamWCount count = optim_read(optim).count;
    EXPECT(count.step == step && count.skipped == skipped, "step %d, skipped %d", count.step,
           count.skipped);
}

// A gradient that is not finite changes nothing but the count of such steps.
TEST_DEVICE(optim_bad_gradient) {
    const float bad[] = {NAN, INFINITY};
    for (int k = 0; k < 2; k++) {
        if (!CASE("%g", (double)bad[k])) {
            continue;
        }
        Fixture f = fixture_new(DT_F32);
        OptimConfig config = optim_default();
        Optim optim = optim_new(&f.list, &config);
        float before[COUNT], after[COUNT], gradient[COUNT];
        set_gradient(&f, 1, 1, gradient);
        optim_step(&optim, 0.1);
        read_values(&f, before);
        for (int step = 1; step <= 2; step++) {
            set_gradient(&f, 2, 1, gradient);
            device_copy_in(f.list.dev, f.vector->grad + 3, &bad[k], sizeof bad[k]);
            optim_step(&optim, 0.1);
            expect_count(&optim, 1, step);
        }
        read_values(&f, after);
        EXPECT(memcmp(before, after, sizeof before) == 0, "weights moved");
        set_gradient(&f, 3, 1, gradient);
        optim_step(&optim, 0.1);
        read_values(&f, after);
        expect_count(&optim, 2, 0);
        for (int i = 0; i < COUNT; i++) {
            EXPECT(isfinite(after[i]), "weight %d is %g: the bad gradient was kept", i,
                   (double)after[i]);
        }
        EXPECT(memcmp(before, after, sizeof before) != 0, "weights did not move again");
        optim_free(&optim);
        tensors_free(&f.list);
    }
}
