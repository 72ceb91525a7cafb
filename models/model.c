// model: lists of named tensors, and the arena side of a pass; see model.h.
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSOR_ALIGN 64 // elements: 128 bytes even for two-byte types, enough for any vector load

// ---- initial values ----
Init init_constant(float value) { return (Init){.kind = INIT_CONSTANT, .value = value}; }
Init init_normal(float sd) { return (Init){.kind = INIT_NORMAL, .value = sd}; }
Init init_fan_in(int fan_in) {
    return (Init){.kind = INIT_UNIFORM, .value = (float)(1.0 / sqrt((double)fan_in))};
}

// ---- building ----
TensorList tensors_new(void) { return (TensorList){0}; }

void tensors_free(TensorList *list) {
    if (list->dev) {
        device_release(list->dev, list->frozen);
        device_release(list->dev, list->packed);
        if (list->value != list->master) {
            device_release(list->dev, list->value);
        }
        device_release(list->dev, list->master);
        device_release(list->dev, list->grad);
    }
    for (int i = 0; i < list->count; i++) {
        free(list->tensor[i]);
    }
    free(list->tensor);
    *list = tensors_new();
}

Tensor *tensors_add(TensorList *list, const char *name, Init init, int rank, const int *shape) {
    CHECK(!list->dev, "'%s' comes after the allocation", name);
    CHECK(rank >= 0 && rank <= 5, "rank=%d of '%s'", rank, name);
    CHECK(!tensors_find(list, name), "'%s' is there already", name);
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->tensor = xrealloc(list->tensor, (size_t)list->capacity, sizeof *list->tensor);
    }
    Tensor *tensor = xcalloc(1, sizeof *tensor);
    const int length = snprintf(tensor->name, sizeof tensor->name, "%s", name);
    CHECK(length < TENSOR_NAME, "name '%s' is too long", name);
    memcpy(tensor->file, tensor->name, sizeof tensor->file);
    tensor->rank = rank;
    tensor->count = 1;
    for (int i = 0; i < rank; i++) {
        CHECK(shape[i] >= 1, "shape[%d]=%d of '%s'", i, shape[i], name);
        tensor->shape[i] = shape[i];
        tensor->count *= (size_t)shape[i];
    }
    tensor->file_rows = rank > 0 ? shape[0] : 1;
    tensor->init = init;
    list->tensor[list->count++] = tensor;
    return tensor;
}

void tensor_set_slice(Tensor *tensor, const char *file, int first, int rows) {
    CHECK(first >= 0 && first + tensor->shape[0] <= rows, "first=%d rows=%d of '%s'", first, rows,
          file);
    const int length = snprintf(tensor->file, sizeof tensor->file, "%s", file);
    CHECK(length < TENSOR_NAME, "name '%s' is too long", file);
    tensor->file_row = first;
    tensor->file_rows = rows;
}

void tensors_mark(TensorList *list, const char *prefix, bool is_trainable) {
    CHECK(!list->dev, "marked '%s' after the allocation", prefix);
    for (int i = 0; i < list->count; i++) {
        if (strncmp(list->tensor[i]->name, prefix, strlen(prefix)) == 0) {
            list->tensor[i]->is_trainable = is_trainable;
        }
    }
}

void tensors_mark_adapters(TensorList *list, bool is_adapter, bool is_trainable) {
    CHECK(!list->dev, "marked after the allocation, is_adapter=%d", is_adapter);
    for (int i = 0; i < list->count; i++) {
        if (list->tensor[i]->is_adapter == is_adapter) {
            list->tensor[i]->is_trainable = is_trainable;
        }
    }
}

// ---- memory ----
static size_t padded(size_t count) {
    return (count + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
}

static void *zeroed(Device *dev, size_t count, size_t size, const char *what) {
    size_t bytes;
    if (!size_mul(count, size, &bytes)) {
        die(EXIT_RESOURCE, "memory: %zu elements of %s do not fit in an address space", count,
            what);
    }
    void *memory = device_alloc(dev, bytes, what);
    device_zero(dev, memory, bytes);
    return memory;
}

void tensors_allocate(TensorList *list, Device *dev, DType t) {
    CHECK(!list->dev, "a list of %d tensors is allocated twice", list->count);
    list->dev = dev;
    list->t = t;
    size_t trainable = 0, frozen = 0;
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (tensor->is_borrowed) {
            CHECK(!tensor->is_trainable, "'%s' was marked after it was borrowed", tensor->name);
            continue;
        }
        size_t *used = tensor->is_trainable ? &trainable : &frozen;
        tensor->offset = *used;
        *used += padded(tensor->count);
    }
    list->trainable_count = trainable;
    if (frozen) {
        list->frozen = zeroed(dev, frozen, dtype_size(t), "frozen parameters");
    }
    if (trainable) {
        list->master = zeroed(dev, trainable, sizeof(float), "trainable parameters");
        list->grad = zeroed(dev, trainable, sizeof(float), "gradients");
        list->value = t == DT_F32 ? (void *)list->master
                                  : zeroed(dev, trainable, dtype_size(t), "rounded parameters");
    }
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (tensor->is_borrowed) {
            continue;
        }
        void *block = tensor->is_trainable ? list->value : list->frozen;
        tensor->data = dtype_at(t, block, tensor->offset);
        tensor->master = tensor->is_trainable ? list->master + tensor->offset : NULL;
        tensor->grad = tensor->is_trainable ? list->grad + tensor->offset : NULL;
    }
}

void tensor_borrow(Tensor *tensor, const void *data) {
    CHECK(!tensor->data && !tensor->is_trainable, "'%s' has memory of its own", tensor->name);
    tensor->data = (void *)(uintptr_t)data;
    tensor->is_borrowed = true;
}

// ---- values ----
static void draw(const Tensor *tensor, uint64_t seed, float *values) {
    const RngStream stream = tensor->is_adapter ? RNG_LORA_INIT : RNG_INIT;
    const uint64_t key = xxh64(tensor->name, strlen(tensor->name), 0);
    Rng rng = rng_new(seed, stream, (uint32_t)key, (uint32_t)(key >> 32));
    for (size_t i = 0; i < tensor->count; i++) {
        switch (tensor->init.kind) {
        case INIT_CONSTANT: values[i] = tensor->init.value; break;
        case INIT_NORMAL: values[i] = (float)(tensor->init.value * rng_normal(&rng)); break;
        case INIT_UNIFORM:
            values[i] = (float)(tensor->init.value * (2.0 * rng_uniform(&rng) - 1.0));
            break;
        }
    }
}

static void init_some(TensorList *list, uint64_t seed, bool adapters_only) {
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (tensor->is_borrowed || (adapters_only && !tensor->is_adapter)) {
            continue;
        }
        float *values = xmalloc(tensor->count, sizeof *values);
        draw(tensor, seed, values);
        tensor_write(list, tensor, DT_F32, values);
        free(values);
    }
}

void tensors_init(TensorList *list, uint64_t seed) { init_some(list, seed, false); }
void tensors_init_adapters(TensorList *list, uint64_t seed) { init_some(list, seed, true); }

Tensor *tensors_find(const TensorList *list, const char *name) {
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->tensor[i]->name, name) == 0) {
            return list->tensor[i];
        }
    }
    return NULL;
}

// data = rounded master, after the master has changed.
static void round_master(TensorList *list, Tensor *tensor) {
    if (list->t != DT_F32) {
        device_ops(list->dev)->cast(list->dev, list->t, tensor->data, DT_F32, tensor->master,
                                    tensor->count);
    }
}

void tensor_write(TensorList *list, Tensor *tensor, DType from, const void *values) {
    CHECK(list->dev && !tensor->is_borrowed, "'%s' has no memory of its own", tensor->name);
    float *wide = xmalloc(tensor->count, sizeof *wide);
    dtype_widen(wide, from, values, tensor->count);
    if (tensor->master) {
        device_copy_in(list->dev, tensor->master, wide, tensor->count * sizeof *wide);
        round_master(list, tensor);
    } else {
        void *rounded = xmalloc(tensor->count, dtype_size(list->t));
        dtype_narrow(list->t, rounded, wide, tensor->count);
        device_copy_in(list->dev, tensor->data, rounded, tensor->count * dtype_size(list->t));
        free(rounded);
    }
    free(wide);
    tensor->packed_fwd = tensor->packed_bwd = NULL;
}

void values_read(Device *dev, float *values, DType t, const void *from, size_t n) {
    void *stored = xmalloc(n, dtype_size(t));
    device_copy_out(dev, stored, from, n * dtype_size(t));
    dtype_widen(values, t, stored, n);
    free(stored);
}

void tensor_read(const TensorList *list, const Tensor *tensor, float *values) {
    if (tensor->master) {
        device_copy_out(list->dev, values, tensor->master, tensor->count * sizeof *values);
        return;
    }
    values_read(list->dev, values, list->t, tensor->data, tensor->count);
}

static bool has_same_shape(const Tensor *a, const Tensor *b) {
    return a->rank == b->rank && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

int tensors_copy(TensorList *to, const TensorList *from) {
    int copied = 0;
    for (int i = 0; i < to->count; i++) {
        Tensor *target = to->tensor[i];
        const Tensor *source = tensors_find(from, target->name);
        if (!source || !has_same_shape(target, source)) {
            continue;
        }
        CHECK(!target->is_borrowed, "'%s' is read-only", target->name);
        const void *values = source->master ? (const void *)source->master : source->data;
        const DType t = source->master ? DT_F32 : from->t;
        const Ops *op = device_ops(to->dev);
        if (target->master) {
            op->cast(to->dev, DT_F32, target->master, t, values, target->count);
            round_master(to, target);
        } else {
            op->cast(to->dev, to->t, target->data, t, values, target->count);
        }
        target->packed_fwd = target->packed_bwd = NULL;
        copied++;
    }
    return copied;
}

// Lays the packed forms out (packing, when memory is not NULL) and returns the bytes they need.
// Where nothing is trainable no backward comes.
static size_t pack_all(TensorList *list, char *memory) {
    size_t used = 0;
    const MatmulPack last = list->trainable_count ? MATMUL_PACK_BWD : MATMUL_PACK_FWD;
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (!tensor->is_matrix || tensor->is_trainable || tensor->is_borrowed) {
            continue;
        }
        const int rows = tensor->shape[0], columns = (int)(tensor->count / (size_t)rows);
        for (int which = MATMUL_PACK_FWD; which <= (int)last; which++) {
            const size_t bytes =
                matmul_pack_bytes(list->dev, list->t, (MatmulPack)which, rows, columns);
            if (memory && bytes) {
                device_ops(list->dev)->matmul_pack(list->dev, list->t, memory + used, tensor->data,
                                                   (MatmulPack)which, rows, columns);
                *(which == MATMUL_PACK_FWD ? &tensor->packed_fwd : &tensor->packed_bwd) =
                    memory + used;
            }
            used += (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
        }
    }
    return used;
}

void tensors_pack(TensorList *list, size_t limit) {
    if (!list->packed) {
        const size_t bytes = pack_all(list, NULL);
        if (bytes == 0 || bytes > limit) {
            return;
        }
        list->packed = device_alloc(list->dev, bytes, "packed parameters");
    }
    pack_all(list, list->packed);
}

void tensors_zero_grad(TensorList *list) {
    device_zero(list->dev, list->grad, list->trainable_count * sizeof(float));
}

size_t tensors_count(const TensorList *list, bool is_trainable_only) {
    size_t count = 0;
    for (int i = 0; i < list->count; i++) {
        count += list->tensor[i]->is_trainable || !is_trainable_only ? list->tensor[i]->count : 0;
    }
    return count;
}

// ---- a pass ----
Run run_new(Device *dev, DType t, Arena *arena, bool is_training) {
    return (Run){.dev = dev, .op = device_ops(dev), .t = t, .arena = arena,
                 .is_training = is_training};
}

Run run_planning(const Run *run, Arena *plan) {
    Run planning = *run;
    planning.arena = plan;
    planning.is_planning = true;
    return planning;
}

void *run_take(Run *run, size_t rows, size_t columns) {
    return arena_take(run->arena, rows * columns, dtype_size(run->t));
}

float *run_take_f32(Run *run, size_t count) { return arena_take(run->arena, count, sizeof(float)); }

int32_t *run_take_ids(Run *run, const int32_t *host, size_t count) {
    int32_t *ids = arena_take(run->arena, count, sizeof *ids);
    if (!run->is_planning) {
        device_copy_in(run->dev, ids, host, count * sizeof *ids);
    }
    return ids;
}

void run_zero(Run *run, void *tensor, size_t rows, size_t columns) {
    if (!run->is_planning) {
        device_zero(run->dev, tensor, rows * columns * dtype_size(run->t));
    }
}

void run_scratch(Run *run, size_t bytes) {
    Arena *plan = run->arena;
    plan->scratch = bytes > plan->scratch ? bytes : plan->scratch;
}

void *run_at(const Run *run, const void *tensor, size_t element) {
    return run->is_planning ? NULL : dtype_at(run->t, (void *)tensor, element);
}

int32_t *host_ids(HostIds *scratch, size_t count) {
    if (count > scratch->count) {
        scratch->ids = xrealloc(scratch->ids, count, sizeof *scratch->ids);
        scratch->count = count;
    }
    return scratch->ids;
}

void host_ids_free(HostIds *scratch) {
    free(scratch->ids);
    *scratch = (HostIds){0};
}
