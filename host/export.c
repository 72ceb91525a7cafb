// export: see export.h.
#include "export.h"

#include <stdlib.h>
#include <string.h>

#include "faiss.h"
#include "json.h"

#define PARTIAL ".partial"
#define MAX_INDEX ((size_t)64 << 20) // bytes of model.safetensors.index.json
#define MAX_COPIED ((size_t)1 << 30) // bytes of a file beside the weights

// ---- the folder ----
// dir without slashes at its end.
static char *trimmed_new(const char *dir) {
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/') {
        length--;
    }
    return xformat_new("%.*s", (int)length, dir);
}

Error export_begin(char **partial, const char *dir) {
    *partial = NULL;
    if (file_exists(dir)) {
        char **names = NULL;
        int count = 0;
        const Error error = file_is_directory(dir) ? file_list_new(&names, &count, dir)
                                                   : error_none();
        if (error.code) {
            return error;
        }
        const bool is_free = file_is_directory(dir) && count == 0;
        file_list_free(names, count);
        if (!is_free) {
            return error_at(EXIT_NO_OUTPUT, ERROR_NOWHERE, "is there already; name a new folder");
        }
    }
    char *trimmed = trimmed_new(dir);
    *partial = xformat_new("%s" PARTIAL, trimmed);
    free(trimmed);
    Error error = file_remove_tree(*partial); // of an export that was killed
    if (!error.code) {
        error = file_make_directories(*partial);
    }
    if (error.code) {
        free(*partial);
        *partial = NULL;
    }
    return error;
}

Error export_end(char *partial, const char *dir, Error error) {
    char *trimmed = trimmed_new(dir);
    if (!error.code) {
        error = file_rename(partial, trimmed);
    }
    if (error.code) {
        const Error removal = file_remove_tree(partial);
        if (removal.code) {
            LOG(WARN, "export: %s: %s", partial, removal.text);
        }
    }
    free(trimmed);
    free(partial);
    return error;
}

// ---- files beside the weights ----
static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), size = strlen(end);
    return size <= length && strcmp(text + length - size, end) == 0;
}

// What a model needs beside its weights, in any format that weights are not in.
static bool is_copied(const char *name) {
    static const char *const ends[] = {".json", ".txt", ".txt.gz", ".model", ".py", ".jinja",
                                       ".tiktoken", ".md"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends_with(name, ends[i])) {
            return !ends_with(name, ".index.json");
        }
    }
    return strncmp(name, "LICENSE", 7) == 0;
}

static Error copy_file(const char *from, const char *to) {
    FileBytes bytes;
    Error error = file_read_new(&bytes, from, MAX_COPIED);
    if (!error.code) {
        error = file_replace(to, bytes.data, bytes.size);
        file_bytes_free(&bytes);
    }
    return error;
}

// Of one family alone: not to be copied into a folder of another.
static bool is_of_family(const char *name) {
    static const char *const names[] = {"config.json", "open_clip_config.json",
                                        "preprocessor_config.json", "processor_config.json"};
    bool is_one = ends_with(name, ".py");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        is_one = is_one || strcmp(name, names[i]) == 0;
    }
    return is_one;
}

// Folders in it are left: the copy itself may be one.
static Error copy_files(const char *from, const char *to, bool is_same_family) {
    char **names;
    int count;
    Error error = file_list_new(&names, &count, from);
    if (error.code) {
        return error;
    }
    error = file_make_directories(to);
    for (int i = 0; i < count && !error.code; i++) {
        char *source = file_join_new(from, names[i]), *target = file_join_new(to, names[i]);
        if (is_copied(names[i]) && (is_same_family || !is_of_family(names[i])) &&
            !file_is_directory(source)) {
            error = copy_file(source, target);
        }
        free(source);
        free(target);
    }
    file_list_free(names, count);
    return error;
}

// With the one folder that says how a model computes.
static Error copy_all_files(const char *from, const char *to) {
    static const char pooling[] = "1_Pooling"; // sentence-transformers
    char *source = file_join_new(from, pooling), *target = file_join_new(to, pooling);
    Error error = copy_files(from, to, true);
    if (!error.code && file_is_directory(source)) {
        error = copy_files(source, target, true);
    }
    free(source);
    free(target);
    return error;
}

// ---- values ----
typedef struct {
    const ExportFolder *what;
    SafeStore store;           // of the pattern
    const SafeTensor **found;  // (list->count) where each tensor of the list is in the store
    const Linear **linear;     // (list->count) the adapted layer whose weight it is, or NULL
} Writing;

static void find_linears(Writing *writing, const BlockStack *stack) {
    const TensorList *list = writing->what->list;
    for (int l = 0; l < stack->L; l++) {
        const Block *block = &stack->block[l];
#define X(part) &block->part,
        const Linear *const parts[] = {BLOCK_LINEARS(X)};
#undef X
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            for (int i = 0; i < list->count && parts[p]->weight && parts[p]->lora_a; i++) {
                if (list->tensor[i] == parts[p]->weight) {
                    writing->linear[i] = parts[p];
                }
            }
        }
    }
}

// The new values of a stored tensor in its type, or NULL: those it has.
static void *values_new(const Writing *writing, const SafeTensor *stored) {
    const ExportFolder *what = writing->what;
    const TensorList *list = what->list;
    const SafeTensor *other = weights_repeated(&writing->store, what->names, stored);
    const SafeTensor *owner = other ? other : stored;
    bool is_changed = false;
    for (int i = 0; i < list->count; i++) {
        is_changed = is_changed || (writing->found[i] == owner &&
                                    (!what->keeps_base || writing->linear[i]));
    }
    if (!is_changed) {
        return NULL;
    }
    const DType t = (DType)safe_type_to_dtype(stored->type);
    const size_t n = safe_count(stored);
    float *whole = xcalloc(n, sizeof *whole); // slices cover it: the match saw to the shapes
    for (int i = 0; i < list->count; i++) {
        if (writing->found[i] == owner) {
            const Tensor *tensor = list->tensor[i];
            float *values = xmalloc(tensor->count, sizeof *values);
            tensor_read(list, tensor, values);
            if (writing->linear[i]) {
                lora_merge(list, writing->linear[i], values);
            }
            weights_place(tensor, whole, values);
            free(values);
        }
    }
    void *out = xmalloc(n, dtype_size(t));
    dtype_narrow(t, out, whole, n);
    free(whole);
    return out;
}

// The tensors that map puts into the shard, or all without one.
static Error write_shard(const Writing *writing, const char *path, const json_t *map,
                         const char *shard) {
    const SafeTensors *all = &writing->store.all;
    SafeTensor *out = xmalloc((size_t)all->count + 1, sizeof *out);
    void **values = xcalloc((size_t)all->count + 1, sizeof *values);
    int count = 0;
    for (int i = 0; i < all->count; i++) {
        const json_t *place = json_object_get(map, all->tensors[i].name);
        if (map && strcmp(json_string_value(place), shard) != 0) {
            continue;
        }
        out[count] = all->tensors[i];
        values[count] = values_new(writing, &all->tensors[i]);
        out[count].data = values[count] ? values[count] : out[count].data;
        count++;
    }
    const Error error = safetensors_write(path, out, count, NULL, 0);
    for (int i = 0; i < count; i++) {
        free(values[i]);
    }
    free(values);
    free(out);
    return error;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Every shard that the index names, then the index as it was: names, types and sizes are the same.
static Error write_shards(const Writing *writing, const char *dir) {
    const char *const from = writing->what->weights;
    json_t *index;
    Error error = json_read_new(&index, from, MAX_INDEX);
    if (error.code) {
        return error;
    }
    json_t *map = json_object_get(index, "weight_map"), *done = json_object(), *place;
    const char *name;
    json_object_foreach(map, name, place) {
        const char *shard = json_string_value(place);
        if (!error.code && !json_object_get(done, shard)) {
            json_object_set_new(done, shard, json_true());
            char *path = file_join_new(dir, shard);
            error = write_shard(writing, path, map, shard);
            free(path);
        }
    }
    if (!error.code) {
        char *path = file_join_new(dir, base_name(from));
        error = copy_file(from, path);
        free(path);
    }
    json_decref(done);
    json_decref(index);
    return error;
}

static Error write_weights(const Writing *writing, const char *dir) {
    const ExportFolder *what = writing->what;
    if (ends_with(what->weights, ".json")) {
        return write_shards(writing, dir);
    }
    char *path = file_join_new(dir, what->name ? what->name : base_name(what->weights));
    const Error error = write_shard(writing, path, NULL, NULL);
    free(path);
    return error;
}

Error export_folder(const char *dir, const ExportFolder *what) {
    const size_t count = (size_t)what->list->count + 1;
    Writing writing = {.what = what};
    char *partial;
    Error error = export_begin(&partial, dir);
    if (error.code) {
        return error;
    }
    writing.found = xcalloc(count, sizeof *writing.found);
    writing.linear = xcalloc(count, sizeof *writing.linear);
    if (what->reader) {
        find_linears(&writing, &what->reader->vision.blocks);
        find_linears(&writing, &what->reader->blocks);
    }
    error = safestore_open_new(&writing.store, what->weights);
    if (!error.code) {
        error = weights_match(writing.found, what->list, &writing.store, what->names, false);
    }
    if (!error.code) {
        error = copy_all_files(what->source, partial);
    }
    if (!error.code) {
        error = write_weights(&writing, partial);
    }
    safestore_free(&writing.store);
    free(writing.found);
    free(writing.linear);
    return export_end(partial, dir, error);
}

// ---- another family's layout ----
// The values of one form in the other: both lists come from the same code, so that the tensors
// stand in the same order, whatever their names.
static void copy_towers(Retriever *to, const Retriever *from) {
    const TensorList *list = &from->tensors;
    CHECK(to->tensors.count == list->count, "%d tensors for %d", to->tensors.count, list->count);
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        CHECK(to->tensors.tensor[i]->count == tensor->count, "%s for %s",
              to->tensors.tensor[i]->name, tensor->name);
        float *values = xmalloc(tensor->count, sizeof *values);
        tensor_read(list, tensor, values);
        tensor_write(&to->tensors, to->tensors.tensor[i], DT_F32, values);
        free(values);
    }
}

Error export_towers(const char *dir, HubFamily family, const Retriever *from, DType t,
                    const ProcessorConfig *processor, const char *source) {
    char *partial;
    HubRetriever as;
    const char *name;
    Error error = export_begin(&partial, dir);
    if (error.code) {
        return error;
    }
    error = source ? copy_files(source, partial, false) : error_none();
    error = error.code ? error
                       : hub_write(&as, &name, partial, family, &from->config, processor);
    if (!error.code) {
        Retriever to;
        retriever_build(&to, &as.config);
        tensors_allocate(&to.tensors, from->tensors.dev, t);
        copy_towers(&to, from);
        char *path = file_join_new(partial, name);
        error = weights_save(&to.tensors, path, "", false, false);
        free(path);
        retriever_unbuild(&to);
    }
    return export_end(partial, dir, error);
}

Error export_type(DType *out, const char *weights) {
    SafeStore store;
    const Error error = safestore_open_new(&store, weights);
    if (error.code) {
        return error;
    }
    int type = -1;
    for (int i = 0; i < store.all.count; i++) {
        const int other = safe_type_to_dtype(store.all.tensors[i].type);
        type = other < 0 || type == other ? type : type < 0 ? other : (int)DT_F32;
    }
    *out = type < 0 ? DT_F32 : (DType)type;
    safestore_free(&store);
    return error_none();
}

// ---- index ----
Error export_index(const Index *index, IndexSide side, const char *path, const int64_t *ids) {
    FaissWriter writer;
    Error error = faiss_writer_open(&writer, path, index->dim, (size_t)index->count, ids != NULL);
    if (error.code) {
        return error;
    }
    float *row = xmalloc((size_t)index->dim, sizeof *row);
    for (int32_t i = 0; i < index->count; i++) {
        index_get_rows(index, side, &i, 1, row);
        faiss_writer_add(&writer, row, 1);
    }
    free(row);
    return faiss_writer_commit(&writer, ids);
}
