// model_check: see model_check.h.
#include "tests/model_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void expect_steady(const EmuCalls *before, int copies_out) {
    const EmuCalls *now = emu_calls();
    EXPECT(now->allocations == before->allocations && now->releases == before->releases,
           "%d allocations, %d releases", now->allocations - before->allocations,
           now->releases - before->releases);
    EXPECT(now->copies_out - before->copies_out == copies_out &&
               now->waits - before->waits == copies_out,
           "%d copies to the host instead of %d, %d waits", now->copies_out - before->copies_out,
           copies_out, now->waits - before->waits);
    EXPECT(now->launches > before->launches, "no kernel ran");
}

void tensors_disturb(TensorList *list, double sd) {
    Rng rng = check_rng(79);
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        float *values = xmalloc(tensor->count, sizeof *values);
        tensor_read(list, tensor, values);
        for (size_t k = 0; k < tensor->count; k++) {
            values[k] += (float)(sd * rng_normal(&rng));
        }
        tensor_write(list, tensor, DT_F32, values);
        free(values);
    }
}

void model_run(const ModelUnderTest *model, float *out, const float *weight, bool recomputes) {
    Device *dev = model->list->dev;
    const DType t = model->list->t;
    Run run = run_new(dev, t, NULL, weight != NULL);
    run.recomputes = recomputes;
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    model->pass(model->ctx, &planning, NULL, weight ? (void *)&plan : NULL);
    Arena arena = arena_new(dev, "test", plan.peak);
    run.arena = &arena;
    const size_t bytes = model->count * dtype_size(t);
    void *host = xmalloc(bytes, 1), *out_dev = device_alloc(dev, bytes, "out"),
         *weight_dev = device_alloc(dev, bytes, "weight");
    if (weight) {
        dtype_narrow(t, host, weight, model->count);
        device_copy_in(dev, weight_dev, host, bytes);
    }
    model->pass(model->ctx, &run, out_dev, weight ? weight_dev : NULL);
    EXPECT(arena.peak == plan.peak, "used %zu of %zu planned bytes", arena.peak, plan.peak);
    EXPECT(weight || arena.used == 0, "a forward alone kept %zu bytes", arena.used);
    values_read(dev, out, t, out_dev, model->count);
    free(host);
    device_release(dev, out_dev);
    device_release(dev, weight_dev);
    arena_free(&arena);
}

// ---- values by formula ----
void formula_fill(float *out, const char *name, size_t first, size_t count, double centre,
                  double spread) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *at = name; *at; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3u;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t z = hash + (first + i + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        out[i] = (float)(centre + spread * ((double)((z ^ z >> 31) >> 40) / 8388608 - 1));
    }
}

void formula_rows(float *out, const char *name, int rank, size_t row, size_t first, size_t count) {
    const size_t length = strlen(name);
    double centre = 0, spread = 0.3;
    if (rank >= 2) {
        const bool is_table = rank <= 3 && strstr(name, "embed");
        spread = strstr(name, "lora_B") ? 0.35 : is_table ? 0.8 : sqrt(3.0 / (double)row);
    } else if (length >= 6 && strcmp(name + length - 6, "weight") == 0) {
        centre = 1;
    }
    formula_fill(out, name, first, count, centre, spread);
}

void tensors_formula(TensorList *list) {
    for (int k = 0; k < list->count; k++) {
        Tensor *tensor = list->tensor[k];
        const size_t row = tensor->rank ? tensor->count / (size_t)tensor->shape[0] : 1;
        float *values = xmalloc(tensor->count, sizeof *values);
        formula_rows(values, tensor->file, tensor->rank, row, (size_t)tensor->file_row * row,
                     tensor->count);
        tensor_write(list, tensor, DT_F32, values);
        free(values);
    }
}

// ---- gradients ----
typedef struct {
    const ModelUnderTest *model;
    const float *weight;
    float *out;
    Tensor *tensor;
    float *start, *moved; // the tensor at rest, and displaced
} Probe;

// sum weight out at start + step * direction.
static double loss_at(Probe *probe, const double *direction, double step) {
    Tensor *tensor = probe->tensor;
    for (size_t i = 0; i < tensor->count; i++) {
        probe->moved[i] = (float)(probe->start[i] + step * direction[i]);
    }
    tensor_write(probe->model->list, tensor, DT_F32, probe->moved);
    model_run(probe->model, probe->out, NULL, false);
    tensor_write(probe->model->list, tensor, DT_F32, probe->start);
    double loss = 0;
    for (size_t i = 0; i < probe->model->count; i++) {
        loss += (double)probe->weight[i] * probe->out[i];
    }
    return loss;
}

// The rounding noise of the loss: the largest distance from a straight line, over steps so small
// that curvature cannot be seen.
static double noise_of(Probe *probe, const double *direction) {
    enum { POINTS = 9 };
    double y[POINTS], mean = 0, slope = 0, squares = 0, worst = 0;
    for (int k = 0; k < POINTS; k++) {
        y[k] = loss_at(probe, direction, 2e-5 * (k - POINTS / 2));
        mean += y[k] / POINTS;
    }
    for (int k = 0; k < POINTS; k++) {
        slope += (k - POINTS / 2) * y[k];
        squares += (k - POINTS / 2) * (k - POINTS / 2);
    }
    for (int k = 0; k < POINTS; k++) {
        worst = check_worst(worst, fabs(y[k] - mean - slope / squares * (k - POINTS / 2)));
    }
    return worst;
}

static double slope_at(Probe *probe, const double *direction, double step) {
    return (loss_at(probe, direction, step) - loss_at(probe, direction, -step)) / (2 * step);
}

// |derivative - grad . direction| within what truncation and noise explain. Of the error of a
// central difference, h^2 (..) + h^4 (..), Richardson's combination of two widths removes the first
// term. Allowed is that whole first term, as two pairs of widths show it: one pair may agree by
// chance. Noise: the largest of nine residuals is about 1.5 sigma of a loss, and the combination
// has 3.8 sigma / step; 16 noise / step is six times that, because hundreds of slopes are compared.
static void expect_slope(Probe *probe, const double *direction, double slope, double noise,
                         double scale) {
    const double own = 0x1p-20 * scale; // our own rounding: some units of f32 at the largest
    double best = 0, bound = INFINITY;
    for (double step = 0.1; step > 1e-3; step /= 4) {
        const double wide = slope_at(probe, direction, step),
                     half = slope_at(probe, direction, step / 2),
                     near = slope_at(probe, direction, step / 4);
        const double truncation = fmax(fabs(near - half), fabs(half - wide) / 4);
        if (truncation + 16 * noise / step + own < bound) {
            bound = truncation + 16 * noise / step + own;
            best = near + (near - half) / 3;
        }
    }
    const char *name = probe->tensor->name;
    EXPECT(fabs(best - slope) <= bound, "%s: slope %.9g, differences give %.9g +- %.2g", name,
           slope, best, bound);
    EXPECT(bound <= 0.03 * fabs(slope) || bound <= 3e-3 * scale,
           "%s: the differences %.9g +- %.2g cannot judge a slope of %.9g (scale %.2g)", name, best,
           bound, slope, scale);
}

static double length_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    return sqrt(sum);
}

static void expect_tensor_gradient(Probe *probe, const float *grad, double scale, Rng *rng) {
    const size_t n = probe->tensor->count;
    double *direction = xmalloc(n, sizeof *direction), noise = -1;
    for (int kind = 0; kind < 4; kind++) {
        double length = 0, slope = 0;
        for (size_t i = 0; i < n; i++) {
            const bool is_kept = kind == 0 || rng_below(rng, 2);
            direction[i] = kind < 3 ? (is_kept ? grad[i] : 0) : (is_kept ? 1 : -1);
            length += direction[i] * direction[i];
        }
        length = sqrt(length);
        for (size_t i = 0; i < n && length > 0; i++) {
            direction[i] /= length;
            slope += direction[i] * grad[i];
        }
        if (length > 0) {
            noise = noise < 0 ? noise_of(probe, direction) : noise;
            expect_slope(probe, direction, slope, noise, scale);
        }
    }
    free(direction);
}

static float *weights_new(size_t count) {
    Rng rng = check_rng(77);
    float *weight = xmalloc(count, sizeof *weight);
    for (size_t i = 0; i < count; i++) {
        weight[i] = (float)rng_normal(&rng);
    }
    return weight;
}

static float *gradients_new(const TensorList *list) {
    float *grad = xmalloc(list->trainable_count, sizeof *grad);
    device_copy_out(list->dev, grad, list->grad, list->trainable_count * sizeof *grad);
    return grad;
}

void expect_model_gradients(const ModelUnderTest *model) {
    TensorList *list = model->list;
    float *weight = weights_new(model->count), *out = xmalloc(model->count, sizeof *out);
    tensors_zero_grad(list);
    model_run(model, out, weight, false);
    float *grad = gradients_new(list);
    Rng rng = check_rng(78);
    double scale = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (tensor->is_trainable) {
            scale = check_worst(scale, length_of(grad + tensor->offset, tensor->count));
        }
    }
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (!tensor->is_trainable) {
            continue;
        }
        Probe probe = {.model = model, .weight = weight, .out = out, .tensor = tensor,
                       .start = xmalloc(tensor->count, sizeof(float)),
                       .moved = xmalloc(tensor->count, sizeof(float))};
        tensor_read(list, tensor, probe.start);
        expect_tensor_gradient(&probe, grad + tensor->offset, scale, &rng);
        free(probe.start);
        free(probe.moved);
    }
    free(weight);
    free(out);
    free(grad);
}

void expect_recompute_equal(const ModelUnderTest *model) {
    TensorList *list = model->list;
    float *weight = weights_new(model->count), *grad[2], *out[2];
    for (int again = 0; again < 2; again++) {
        out[again] = xmalloc(model->count, sizeof *out[again]);
        tensors_zero_grad(list);
        model_run(model, out[again], weight, again);
        grad[again] = gradients_new(list);
    }
    EXPECT(memcmp(out[0], out[1], model->count * sizeof(float)) == 0, "outputs of %zu differ",
           model->count);
    EXPECT(memcmp(grad[0], grad[1], list->trainable_count * sizeof(float)) == 0,
           "gradients of %zu differ", list->trainable_count);
    EXPECT(length_of(grad[0], list->trainable_count) > 0, "gradients of %zu are all zero",
           list->trainable_count);
    model_run(model, out[1], NULL, false); // a forward alone releases as it goes
    EXPECT(memcmp(out[0], out[1], model->count * sizeof(float)) == 0,
           "outputs of %zu differ without training", model->count);
    for (int again = 0; again < 2; again++) {
        free(out[again]);
        free(grad[again]);
    }
    free(weight);
}

bool is_same_on_device(Device *dev, const void *a, const void *b, size_t bytes) {
    char *host = xmalloc(2, bytes);
    device_copy_out(dev, host, a, bytes);
    device_copy_out(dev, host + bytes, b, bytes);
    const bool is_same = memcmp(host, host + bytes, bytes) == 0;
    free(host);
    return is_same;
}

void expect_frozen_without_memory(const TensorList *list) {
    size_t trainable = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        trainable += tensor->is_trainable ? tensor->count : 0;
        EXPECT((tensor->grad != NULL) == tensor->is_trainable &&
                   (tensor->master != NULL) == tensor->is_trainable,
               "%s: trainable %d, grad %p, master %p", tensor->name, tensor->is_trainable,
               (void *)tensor->grad, (void *)tensor->master);
    }
    EXPECT(trainable == tensors_count(list, true) && list->trainable_count >= trainable &&
               list->trainable_count < trainable + 64 * (size_t)list->count + 1,
           "%zu trainable, %zu allocated", trainable, list->trainable_count);
}
