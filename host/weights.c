// weights: see weights.h.
#include "weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_LISTED 20 // differences that are worth a line each

// Rows and row length of a tensor seen as a matrix of its first dimension.
static size_t row_count(const Tensor *tensor) {
    return tensor->rank ? (size_t)tensor->shape[0] : 1;
}

// Length of dimension i in the file.
static size_t file_side(const Tensor *tensor, int i) {
    if (tensor->is_transposed) {
        return (size_t)tensor->shape[1 - i];
    }
    return (size_t)(i == 0 && tensor->file_rows ? tensor->file_rows : tensor->shape[i]);
}

// out (columns,rows) = the transpose of inp (rows,columns), elements of `size` bytes.
static void transpose(char *out, const char *inp, size_t rows, size_t columns, size_t size) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            memcpy(out + (c * rows + r) * size, inp + (r * columns + c) * size, size);
        }
    }
}

// Does the file's tensor have the shape of the whole one that ours is a slice of?
static bool shape_fits(const Tensor *tensor, const SafeTensor *stored) {
    if (stored->rank != tensor->rank) {
        return false;
    }
    for (int i = 0; i < tensor->rank; i++) {
        if (stored->shape[i] != file_side(tensor, i)) {
            return false;
        }
    }
    return true;
}

// ---- loading ----
// The first difference goes into the error, so that its one line names a tensor.
typedef struct {
    int count;
    char first[160];
} Differences;

static void note(Differences *differences, const char *what, const char *name, const char *detail) {
    if (differences->count == 0) {
        snprintf(differences->first, sizeof differences->first, "%s '%.110s'", what, name);
    }
    if (differences->count++ < MOST_LISTED) {
        LOG(ERROR, "weights: %s '%s'%s%s", what, name, detail[0] ? ": " : "", detail);
    }
}

// Copies ours out of the stored tensor.
static void load_tensor(TensorList *list, Tensor *tensor, const SafeTensor *stored, DType from) {
    const size_t row_bytes = tensor->count / row_count(tensor) * dtype_size(from);
    const size_t first = (size_t)tensor->file_row * row_bytes,
                 bytes = row_count(tensor) * row_bytes;
    void *aligned = xmalloc(bytes, 1);
    if (tensor->is_transposed) {
        transpose(aligned, stored->data, stored->shape[0], stored->shape[1], dtype_size(from));
    } else {
        memcpy(aligned, (const char *)stored->data + first, bytes);
    }
    tensor_write(list, tensor, from, aligned);
    free(aligned);
}

const NamePair weights_newer_names[] = {{"language_model.model.", "model.language_model."},
                                        {"language_model.lm_head.", "lm_head."},
                                        {"visual.", "model.visual."},
                                        {"vision_tower.", "model.vision_tower."},
                                        {"multi_modal_projector.", "model.multi_modal_projector."},
                                        {"model.", "model.language_model."},
                                        {0}};

// The file's tensor that is ours, under our name or the file's; NULL when there is none.
static const SafeTensor *find_stored(const SafeStore *store, const WeightNames *names,
                                     const char *ours) {
    const char *prefix = names->prefix ? names->prefix : "";
    char name[2 * TENSOR_NAME];
    snprintf(name, sizeof name, "%s%s", prefix, ours);
    const SafeTensor *stored = safetensors_find(&store->all, name);
    for (const NamePair *pair = names->renamed; !stored && pair && pair->ours; pair++) {
        const char *part = strstr(ours, pair->ours);
        if (part) {
            snprintf(name, sizeof name, "%s%.*s%s%s", prefix, (int)(part - ours), ours,
                     pair->theirs, part + strlen(pair->ours));
            return safetensors_find(&store->all, name);
        }
    }
    return stored;
}

static bool is_finite(const SafeTensor *stored, DType t) {
    enum { PIECE = 1024 };
    float wide[PIECE], aligned[PIECE];
    const size_t count = safe_count(stored), size = dtype_size(t);
    for (size_t i = 0; i < count; i += PIECE) {
        const size_t n = count - i < PIECE ? count - i : PIECE;
        memcpy(aligned, (const char *)stored->data + i * size, n * size);
        dtype_widen(wide, t, aligned, n);
        for (size_t k = 0; k < n; k++) {
            if (!isfinite(wide[k])) {
                return false;
            }
        }
    }
    return true;
}

static bool is_copy(const SafeTensor *stored, const SafeTensor *other) {
    return other && other->bytes == stored->bytes &&
           memcmp(other->data, stored->data, other->bytes) == 0;
}

const SafeTensor *weights_repeated(const SafeStore *store, const WeightNames *names,
                                   const SafeTensor *stored) {
    for (const NamePair *pair = names->renamed; pair && pair->ours; pair++) {
        const char *part = strstr(stored->name, pair->theirs);
        char name[2 * TENSOR_NAME];
        if (part) {
            snprintf(name, sizeof name, "%.*s%s%s", (int)(part - stored->name), stored->name,
                     pair->ours, part + strlen(pair->theirs));
            const SafeTensor *other = safetensors_find(&store->all, name);
            if (is_copy(stored, other)) {
                return other;
            }
        }
    }
    const SafeTensor *twin = NULL;
    if (names->twin && strcmp(stored->name, names->twin->theirs) == 0) {
        twin = find_stored(store, names, names->twin->ours);
    }
    return is_copy(stored, twin) ? twin : NULL;
}

// A name that stands for a buffer.
static bool is_ignored(const WeightNames *names, const char *name) {
    const size_t length = strlen(name);
    for (const char *const *end = names->ignored; end && *end; end++) {
        const size_t size = strlen(*end);
        if (size <= length && strcmp(name + length - size, *end) == 0) {
            return true;
        }
    }
    return false;
}

Error weights_match(const SafeTensor **found, const TensorList *list, const SafeStore *store,
                    const WeightNames *names, bool adapters_only) {
    Differences differences = {0};
    bool *is_used = xcalloc((size_t)store->all.count + 1, sizeof *is_used);
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        char text[128];
        if (tensor->is_adapter != adapters_only) {
            continue;
        }
        const SafeTensor *stored = find_stored(store, names, tensor->file);
        if (!stored) {
            note(&differences, "missing", tensor->file, "");
            continue;
        }
        const bool is_first = !is_used[stored - store->all.tensors];
        is_used[stored - store->all.tensors] = true;
        const int type = safe_type_to_dtype(stored->type);
        if (type < 0 || !shape_fits(tensor, stored)) {
            note(&differences, "another type or shape", stored->name, safe_describe(text, stored));
        } else if (is_first && names->must_be_finite && !is_finite(stored, (DType)type)) {
            note(&differences, "NaN or infinity in", stored->name, safe_describe(text, stored));
        }
        found[i] = stored;
    }
    for (int i = 0; i < store->all.count; i++) {
        const SafeTensor *stored = &store->all.tensors[i];
        if (!is_used[i] && !is_ignored(names, stored->name) &&
            !weights_repeated(store, names, stored)) {
            note(&differences, "not part of this model", stored->name, "");
        }
    }
    free(is_used);
    return differences.count
               ? error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                          "%d tensors differ from the model, first: %s (all are listed above); "
                          "name a checkpoint of this preset", differences.count, differences.first)
               : error_none();
}

static void load_found(TensorList *list, const SafeTensor *const *found) {
    for (int i = 0; i < list->count; i++) {
        if (found[i] && !list->tensor[i]->is_borrowed) {
            load_tensor(list, list->tensor[i], found[i],
                        (DType)safe_type_to_dtype(found[i]->type));
        }
    }
}

// Our slice of the stored tensor can be read where it lies.
static bool can_borrow(const Tensor *tensor, DType t, const SafeTensor *stored) {
    return stored && !tensor->is_trainable && !tensor->is_transposed &&
           stored->type == safe_type_of(t) && (uintptr_t)stored->data % dtype_size(t) == 0;
}

static void borrow_found(TensorList *list, DType t, const SafeTensor *const *found) {
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (can_borrow(tensor, t, found[i])) {
            const size_t row = tensor->count / row_count(tensor);
            tensor_borrow(tensor, dtype_at_const(t, found[i]->data,
                                                 (size_t)tensor->file_row * row));
        }
    }
}

static const WeightNames our_names = {0};

Error weights_load(TensorList *list, const char *path, const WeightNames *names,
                   bool adapters_only) {
    SafeStore store = {0};
    const SafeTensor **found = xcalloc((size_t)list->count + 1, sizeof *found);
    Error error = safestore_open_new(&store, path);
    if (!error.code) {
        error = weights_match(found, list, &store, names ? names : &our_names, adapters_only);
    }
    if (!error.code) {
        load_found(list, found);
    }
    free(found);
    safestore_free(&store);
    return error;
}

Error weights_check(const TensorList *list, DType t, const char *path, const WeightNames *names,
                    size_t *mapped) {
    SafeStore store = {0};
    const SafeTensor **found = xcalloc((size_t)list->count + 1, sizeof *found);
    Error error = safestore_open_new(&store, path);
    if (!error.code) {
        error = weights_match(found, list, &store, names ? names : &our_names, false);
    }
    *mapped = 0;
    for (int i = 0; i < list->count && !error.code; i++) {
        const bool is_mapped = can_borrow(list->tensor[i], t, found[i]);
        *mapped += is_mapped ? list->tensor[i]->count * dtype_size(t) : 0;
    }
    free(found);
    safestore_free(&store);
    return error;
}

Error weights_map(TensorList *list, Device *dev, DType t, SafeStore *store, const char *path,
                  const WeightNames *names) {
    const SafeTensor **found = xcalloc((size_t)list->count + 1, sizeof *found);
    Error error = safestore_open_new(store, path);
    if (!error.code) {
        error = weights_match(found, list, store, names ? names : &our_names, false);
    }
    if (error.code) {
        safestore_free(store);
    } else {
        if (device_kind(dev) == DEVICE_CPU) {
            borrow_found(list, t, found);
        }
        tensors_allocate(list, dev, t);
        load_found(list, found);
    }
    free(found);
    return error;
}

// ---- saving ----
void weights_place(const Tensor *tensor, float *whole, const float *values) {
    if (tensor->is_transposed) {
        transpose((char *)whole, (const char *)values, (size_t)tensor->shape[0],
                  (size_t)tensor->shape[1], sizeof *whole);
    } else {
        const size_t row = tensor->count / row_count(tensor);
        memcpy(whole + (size_t)tensor->file_row * row, values, tensor->count * sizeof *whole);
    }
}

// One tensor of the file: the first of ours that belongs to it, and the values of all of them.
typedef struct {
    const Tensor *first;
    float *values; // whole, f32
    void *narrow;  // in the type of the file where that is another; values is gone then
    char name[2 * TENSOR_NAME];
} Whole;

Error weights_save(const TensorList *list, const char *path, const char *prefix, bool adapters_only,
                   bool is_f32) {
    Whole *wholes = xcalloc((size_t)list->count + 1, sizeof *wholes);
    SafeTensor *out = xcalloc((size_t)list->count + 1, sizeof *out);
    int count = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (tensor->is_adapter != adapters_only) {
            continue;
        }
        int w = 0;
        while (w < count && strcmp(wholes[w].first->file, tensor->file) != 0) {
            w++;
        }
        const size_t row = tensor->count / row_count(tensor);
        const size_t rows = tensor->rank && tensor->file_rows ? (size_t)tensor->file_rows
                                                              : row_count(tensor);
        if (w == count) {
            wholes[count].first = tensor;
            wholes[count++].values = xcalloc(rows * row, sizeof(float));
        }
        float *values = xmalloc(tensor->count, sizeof *values);
        tensor_read(list, tensor, values);
        weights_place(tensor, wholes[w].values, values);
        free(values);
    }
    const DType t = is_f32 ? DT_F32 : list->t;
    for (int w = 0; w < count; w++) {
        Whole *whole = &wholes[w];
        const Tensor *tensor = whole->first;
        snprintf(whole->name, sizeof whole->name, "%s%s", prefix, tensor->file);
        out[w] = (SafeTensor){.name = whole->name, .type = safe_type_of(t), .rank = tensor->rank};
        for (int i = 0; i < tensor->rank; i++) {
            out[w].shape[i] = file_side(tensor, i);
        }
        out[w].data = whole->values;
        if (t != DT_F32) {
            const size_t n = safe_count(&out[w]);
            whole->narrow = xmalloc(n, dtype_size(t));
            dtype_narrow(t, whole->narrow, whole->values, n);
            free(whole->values);
            whole->values = NULL;
            out[w].data = whole->narrow;
        }
    }
    const Error error = safetensors_write(path, out, count, NULL, 0);
    for (int w = 0; w < count; w++) {
        free(wholes[w].values);
        free(wholes[w].narrow);
    }
    free(wholes);
    free(out);
    return error;
}
