// reference: see reference.h.
#include "tests/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Reference reference_open(const char *file) {
    Reference reference = {0};
    const char *path = check_fixture(file);
    snprintf(reference.name, sizeof reference.name, "%.*s", (int)strcspn(file, "."), file);
    error_die(path, safestore_open_new(&reference.store, path));
    return reference;
}

void reference_free(Reference *reference) { safestore_free(&reference->store); }

static const SafeTensor *find(const Reference *reference, const char *name) {
    const SafeTensor *tensor = safetensors_find(&reference->store.all, name);
    CHECK(tensor, "the fixture has no '%s'", name);
    return tensor;
}

bool reference_has(const Reference *reference, const char *name) {
    return safetensors_find(&reference->store.all, name) != NULL;
}

static void *copy_new(const Reference *reference, const char *name, SafeType type, size_t *count) {
    const SafeTensor *tensor = find(reference, name);
    CHECK(tensor->type == type, "'%s' is %s", name, safe_type_name(tensor->type));
    if (count) {
        *count = safe_count(tensor);
    }
    return memcpy(xmalloc(tensor->bytes, 1), tensor->data, tensor->bytes);
}

float *reference_f32_new(const Reference *reference, const char *name, size_t *count) {
    return copy_new(reference, name, SAFE_F32, count);
}
int32_t *reference_ids_new(const Reference *reference, const char *name, size_t *count) {
    return copy_new(reference, name, SAFE_I32, count);
}
double *reference_f64_new(const Reference *reference, const char *name, size_t *count) {
    return copy_new(reference, name, SAFE_F64, count);
}

// The whole file tensor that `tensor` is a slice of: (file_rows, ...) with its own trailing shape.
static void expect_shape(const Tensor *tensor, const SafeTensor *whole) {
    bool is_equal = whole->rank == tensor->rank;
    for (int i = 0; is_equal && i < tensor->rank; i++) {
        const int want = i == 0 ? tensor->file_rows : tensor->shape[i];
        is_equal = whole->shape[i] == (size_t)want;
    }
    char text[128];
    EXPECT(is_equal, "%s: the file has %s, we rank %d with %d rows", tensor->file,
           safe_describe(text, whole), tensor->rank, tensor->file_rows);
}

static size_t slice_start(const Tensor *tensor) {
    return tensor->rank ? tensor->count / (size_t)tensor->shape[0] * (size_t)tensor->file_row : 0;
}

void reference_load(const Reference *reference, TensorList *list, bool is_partial) {
    size_t used = 0, stored = 0;
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        char name[TENSOR_NAME + 8];
        snprintf(name, sizeof name, "weight/%s", tensor->file);
        if (is_partial && !reference_has(reference, name)) {
            continue;
        }
        expect_shape(tensor, find(reference, name));
        float *values = reference_f32_new(reference, name, NULL);
        tensor_write(list, tensor, DT_F32, values + slice_start(tensor));
        free(values);
        used += tensor->count;
    }
    for (int i = 0; i < reference->store.all.count; i++) {
        const SafeTensor *tensor = &reference->store.all.tensors[i];
        stored += strncmp(tensor->name, "weight/", 7) == 0 ? safe_count(tensor) : 0;
    }
    EXPECT(used == stored || is_partial, "%zu of %zu stored weights are used", used, stored);
}

// *worst becomes the largest |got - truth|, if that is larger; NaN stays.
static void compare(double *worst, const float *got, const double *truth, size_t count) {
    for (size_t i = 0; i < count; i++) {
        *worst = check_worst(*worst, fabs(got[i] - truth[i]));
    }
}

static double largest_of(const Reference *reference, const char *name) {
    size_t count;
    double *truth = reference_f64_new(reference, name, &count), largest = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(truth[i]));
    }
    free(truth);
    return largest;
}

static double largest_gradient(const Reference *reference) {
    double largest = 0;
    for (int i = 0; i < reference->store.all.count; i++) {
        const char *name = reference->store.all.tensors[i].name;
        if (strncmp(name, "grad/", 5) == 0) {
            largest = fmax(largest, largest_of(reference, name));
        }
    }
    return largest;
}

static void expect_bound(const Reference *reference, const char *name, double worst) {
    char error_name[TENSOR_NAME + 16];
    snprintf(error_name, sizeof error_name, "error/%s", name);
    double *error = reference_f64_new(reference, error_name, NULL);
    const double own = largest_of(reference, name), all = largest_gradient(reference);
    const double largest = own < 1e-12 * all ? all : own;
    const double bound = 2 * error[0] + 1e-7 * largest;
    EXPECT(worst <= bound, "%s: off by %.3g, allowed %.3g (original f32: %.3g, largest %.3g)", name,
           worst, bound, error[0], largest);
    reference_say(reference->name, strcmp(name, "out") == 0        ? "forward"
                                   : strcmp(name, "bf16/out") == 0 ? "bf16"
                                                                   : "gradients", worst / bound);
    free(error);
}

void reference_say(const char *fixture, const char *what, double ratio) {
    if (check_is_large()) {
        printf("oracle %s %s %.2f\n", fixture, what, ratio);
    }
}

void reference_expect(const Reference *reference, const char *name, const float *got,
                      size_t count) {
    size_t stored;
    double *truth = reference_f64_new(reference, name, &stored), worst = 0;
    EXPECT(count == stored, "%s has %zu elements, we %zu", name, stored, count);
    compare(&worst, got, truth, stored < count ? stored : count);
    expect_bound(reference, name, worst);
    free(truth);
}

int reference_expect_gradients(const Reference *reference, const TensorList *list) {
    float *grad = xmalloc(list->trainable_count, sizeof *grad);
    device_copy_out(list->dev, grad, list->grad, list->trainable_count * sizeof *grad);
    int compared = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *first = list->tensor[i];
        char name[TENSOR_NAME + 8];
        snprintf(name, sizeof name, "grad/%s", first->file);
        if (!first->is_trainable || first->file_row > 0 || !reference_has(reference, name)) {
            continue;
        }
        double *truth = reference_f64_new(reference, name, NULL), worst = 0;
        size_t seen = 0;
        for (int k = i; k < list->count; k++) { // the slices of one file tensor follow their first
            const Tensor *slice = list->tensor[k];
            if (strcmp(slice->file, first->file) == 0) {
                compare(&worst, grad + slice->offset, truth + slice_start(slice), slice->count);
                seen += slice->count;
            }
        }
        EXPECT(seen == safe_count(find(reference, name)), "%s: %zu of %zu elements", name, seen,
               safe_count(find(reference, name)));
        expect_bound(reference, name, worst);
        compared++;
        free(truth);
    }
    free(grad);
    return compared;
}
