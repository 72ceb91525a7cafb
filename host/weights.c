// weights: see weights.h.
#include "weights.h"

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

// Our name as the file spells it.
static void spell(char out[2 * TENSOR_NAME], const WeightNames *names, const char *ours) {
    const char *prefix = names && names->prefix ? names->prefix : "";
    for (const NamePair *pair = names ? names->renamed : NULL; pair && pair->ours; pair++) {
        const char *part = strstr(ours, pair->ours);
        if (part) {
            snprintf(out, 2 * TENSOR_NAME, "%s%.*s%s%s", prefix, (int)(part - ours), ours,
                     pair->theirs, part + strlen(pair->ours));
            return;
        }
    }
    snprintf(out, 2 * TENSOR_NAME, "%s%s", prefix, ours);
}

static bool is_ignored(const WeightNames *names, const char *name) {
    const size_t length = strlen(name);
    for (const char *const *end = names ? names->ignored : NULL; end && *end; end++) {
        const size_t size = strlen(*end);
        if (size <= length && strcmp(name + length - size, *end) == 0) {
            return true;
        }
    }
    return false;
}

Error weights_load(TensorList *list, const char *path, const WeightNames *names,
                   bool adapters_only) {
    SafeStore store = {0};
    const Error error = safestore_open_new(&store, path);
    if (error.code) {
        return error;
    }
    Differences differences = {0};
    bool *is_used = xcalloc((size_t)store.all.count + 1, sizeof *is_used);
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (tensor->is_adapter != adapters_only) {
            continue;
        }
        char name[2 * TENSOR_NAME], found[128];
        spell(name, names, tensor->file);
        const SafeTensor *stored = safetensors_find(&store.all, name);
        if (!stored) {
            note(&differences, "missing", name, "");
            continue;
        }
        is_used[stored - store.all.tensors] = true;
        const int from = safe_type_to_dtype(stored->type);
        if (from < 0 || !shape_fits(tensor, stored)) {
            note(&differences, "another type or shape", name, safe_describe(found, stored));
        } else {
            load_tensor(list, tensor, stored, (DType)from);
        }
    }
    for (int i = 0; i < store.all.count; i++) {
        if (!is_used[i] && !is_ignored(names, store.all.tensors[i].name)) {
            note(&differences, "not part of this model", store.all.tensors[i].name, "");
        }
    }
    free(is_used);
    safestore_free(&store);
    return differences.count
               ? error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                          "%d tensors differ from the model, first: %s (all are listed above); "
                          "name a checkpoint of this preset", differences.count, differences.first)
               : error_none();
}

// ---- saving ----
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
        tensor_read(list, tensor, wholes[w].values + (size_t)tensor->file_row * row);
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
        if (tensor->is_transposed) {
            float *turned = xmalloc(tensor->count, sizeof *turned);
            transpose((char *)turned, (const char *)whole->values, (size_t)tensor->shape[0],
                      (size_t)tensor->shape[1], sizeof *turned);
            free(whole->values);
            whole->values = turned;
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
