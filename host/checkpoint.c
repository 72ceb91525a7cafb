// checkpoint: see checkpoint.h.
#define _POSIX_C_SOURCE 200809L
#include "checkpoint.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "safetensors.h"

#define VERSION 1
#define ATTEMPTS 3
#define SMALL_FILE ((size_t)1 << 20) // bytes of the two JSON files
static const char *const members[] = {"tensors.safetensors", "state.json"};

static char *parent_new(const char *run_dir) { return file_join_new(run_dir, "checkpoints"); }

static char *directory_new(const char *run_dir, const char *stage, int64_t step) {
    return xformat_new("%s/checkpoints/%s-%08" PRId64, run_dir, stage, step);
}

// ---- tensors ----
// The tensors of a checkpoint, with values brought to the host. names and values are owned.
typedef struct {
    SafeTensor *tensors;
    int count, room;
} Gathered;

// values: (count) on the heap, taken over.
static void gather(Gathered *all, const Tensor *shape, float *values, const char *head, int list) {
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 256;
        all->tensors = xrealloc(all->tensors, (size_t)all->room, sizeof *all->tensors);
    }
    SafeTensor *out = &all->tensors[all->count++];
    *out = (SafeTensor){.name = xformat_new("%s%d.%s", head, list, shape->name), .type = SAFE_F32,
                        .rank = shape->rank, .data = values};
    for (int i = 0; i < shape->rank; i++) {
        out->shape[i] = (size_t)shape->shape[i];
    }
}

// Masters, or the stored values widened: f32 holds every storage type exactly.
static float *values_new(const TensorList *list, const Tensor *tensor) {
    float *values = xmalloc(tensor->count, sizeof *values);
    tensor_read(list, tensor, values);
    return values;
}

static float *moment_new(const Optim *optim, const float *moment, const Tensor *tensor) {
    float *values = xmalloc(tensor->count, sizeof *values);
    device_copy_out(optim->list->dev, values, moment + tensor->offset,
                    tensor->count * sizeof *values);
    return values;
}

static Gathered gather_state(const CheckpointState *state) {
    Gathered all = {0};
    const Optim *optim = state->optim;
    const TensorList *trained = optim->list;
    for (int i = 0; i < trained->count; i++) {
        const Tensor *tensor = trained->tensor[i];
        if (tensor->is_trainable) {
            gather(&all, tensor, values_new(trained, tensor), "value", 0);
            gather(&all, tensor, moment_new(optim, optim->m, tensor), "m", 0);
            gather(&all, tensor, moment_new(optim, optim->v, tensor), "v", 0);
        }
    }
    for (int k = 0; k < state->list_count; k++) {
        const TensorList *list = state->lists[k];
        for (int i = 0; i < list->count; i++) {
            gather(&all, list->tensor[i], values_new(list, list->tensor[i]), "list", k + 1);
        }
    }
    return all;
}

static void free_gathered(Gathered *all) {
    for (int i = 0; i < all->count; i++) {
        free((void *)all->tensors[i].name);
        free((void *)all->tensors[i].data);
    }
    free(all->tensors);
}

// ---- writing ----
static Error write_text(const char *dir, const char *name, json_t *root) {
    char *path = file_join_new(dir, name), *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    const Error error = file_replace(path, text, strlen(text));
    free(text);
    free(path);
    return error;
}

static Error hash_file(const char *dir, const char *name, uint64_t *hash, size_t *size) {
    char *path = file_join_new(dir, name);
    FileBytes bytes = {0};
    const Error error = file_map_new(&bytes, path);
    free(path);
    if (!error.code) {
        *hash = xxh64(bytes.data, bytes.size, 0);
        *size = bytes.size;
        file_bytes_free(&bytes);
    }
    return error;
}

static Error write_manifest(const char *dir) {
    json_t *files = json_object();
    Error error = error_none();
    for (size_t i = 0; !error.code && i < sizeof members / sizeof *members; i++) {
        uint64_t hash = 0;
        size_t size = 0;
        error = hash_file(dir, members[i], &hash, &size);
        json_object_set_new(files, members[i],
                            json_pack("{s:I s:o}", "size", (json_int_t)size, "xxh64",
                                      json_sprintf("%016" PRIx64, hash)));
    }
    json_t *root = json_pack("{s:i s:o}", "version", VERSION, "files", files);
    if (error.code) {
        json_decref(root);
        return error;
    }
    return write_text(dir, "MANIFEST.json", root);
}

static Error write_directory(const char *dir, const CheckpointState *state) {
    Error error = file_make_directories(dir);
    if (!error.code) {
        Gathered all = gather_state(state);
        char *path = file_join_new(dir, "tensors.safetensors");
        error = safetensors_write(path, all.tensors, all.count, NULL, 0);
        free(path);
        free_gathered(&all);
    }
    if (!error.code) {
        error = write_text(dir, "state.json",
                           json_pack("{s:i s:s s:I s:o s:o s:i}", "version", VERSION, "stage",
                                     state->stage, "step", (json_int_t)state->step, "seed",
                                     json_sprintf("%" PRIu64, state->seed), "context",
                                     json_sprintf("%016" PRIx64, state->context), "updates",
                                     optim_read(state->optim).count.step));
    }
    if (!error.code) {
        error = write_manifest(dir);
    }
    return error.code ? error : file_sync_directory(dir);
}

// Step of a directory name "STAGE-digits", or -1.
static int64_t step_of(const char *name, const char *stage) {
    const size_t length = strlen(stage);
    int64_t step;
    int used = 0;
    if (strncmp(name, stage, length) != 0 || name[length] != '-' ||
        sscanf(name + length + 1, "%8" SCNd64 "%n", &step, &used) != 1 ||
        name[length + 1 + (size_t)used] != '\0' || step < 0) {
        return -1;
    }
    return step;
}

// Removes what earlier attempts left behind, and all but the newest `keep` checkpoints of the
// stage. One of a later step than `step`, just saved, was damaged, else the run would have begun
// there: it must not take the place of a whole one.
static void clean(const char *parent, const char *stage, int64_t step, int keep) {
    char **names = NULL;
    int count = 0, seen = 0;
    if (file_list_new(&names, &count, parent).code) {
        return;
    }
    for (int i = count - 1; i >= 0; i--) { // sorted, so the newest of a stage come first
        const int64_t found = step_of(names[i], stage);
        seen += found >= 0 && found <= step;
        if (strncmp(names[i], ".tmp-", 5) == 0 || found > step || (found >= 0 && seen > keep)) {
            char *path = file_join_new(parent, names[i]);
            const Error error = file_remove_tree(path);
            if (error.code) {
                LOG(WARN, "%s: %s", path, error.text);
            }
            free(path);
        }
    }
    file_list_free(names, count);
}

Error checkpoint_save(const char *run_dir, const CheckpointState *state, int keep) {
    char *parent = parent_new(run_dir), *to = directory_new(run_dir, state->stage, state->step);
    char *temporary = xformat_new("%s/.tmp-%s-%" PRId64 ".%d", parent, state->stage, state->step,
                                  (int)getpid());
    Error error = error_none();
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        error = file_make_directories(parent);
        if (!error.code) {
            error = file_sync_directory(
                run_dir); // or a power cut takes `checkpoints` and all in it
        }
        if (!error.code) {
            error = file_remove_tree(temporary);
        }
        if (!error.code) {
            error = write_directory(temporary, state);
        }
        if (!error.code) {
            error = file_remove_tree(to); // only there when a run was repeated with other data
        }
        if (!error.code) {
            error = file_rename(temporary, to);
        }
        if (!error.code) {
            break;
        }
        LOG(WARN, "%s: attempt %d of %d to save failed: %s", to, attempt + 1, ATTEMPTS, error.text);
    }
    if (error.code) {
        file_remove_tree(temporary);
    } else {
        clean(parent, state->stage, state->step, keep);
    }
    free(parent);
    free(to);
    free(temporary);
    return error;
}

// ---- reading ----
static json_t *read_json(const char *dir, const char *name) {
    char *path = file_join_new(dir, name);
    FileBytes bytes = {0};
    json_t *root = NULL;
    if (!file_read_new(&bytes, path, SMALL_FILE).code) {
        root = json_loadb((const char *)bytes.data, bytes.size, JSON_REJECT_DUPLICATES, NULL);
        file_bytes_free(&bytes);
    }
    free(path);
    return root;
}

// Is every file there as the manifest says?
static bool is_whole(const char *dir) {
    json_t *root = read_json(dir, "MANIFEST.json");
    bool is_good = root && json_integer_value(json_object_get(root, "version")) == VERSION;
    for (size_t i = 0; is_good && i < sizeof members / sizeof *members; i++) {
        const json_t *file = json_object_get(json_object_get(root, "files"), members[i]);
        const char *text = json_string_value(json_object_get(file, "xxh64"));
        uint64_t hash = 0, want = 0;
        size_t size = 0;
        is_good = text && sscanf(text, "%16" SCNx64, &want) == 1 &&
                  !hash_file(dir, members[i], &hash, &size).code && hash == want &&
                  (json_int_t)size == json_integer_value(json_object_get(file, "size"));
    }
    json_decref(root);
    return is_good;
}

// Newest whole checkpoint of the stage, or NULL.
static char *newest_new(const char *run_dir, const char *stage) {
    char *parent = parent_new(run_dir), *found = NULL, **names = NULL;
    int count = 0;
    if (!file_list_new(&names, &count, parent).code) {
        for (int i = count - 1; i >= 0 && !found; i--) {
            if (step_of(names[i], stage) < 0) {
                continue;
            }
            char *dir = file_join_new(parent, names[i]);
            if (is_whole(dir)) {
                found = dir;
            } else {
                LOG(WARN, "%s: damaged or incomplete; falling back to the checkpoint before it",
                    dir);
                free(dir);
            }
        }
        file_list_free(names, count);
    }
    free(parent);
    return found;
}

// The stored values for a tensor, aligned; NULL when they are not there or do not fit.
static float *stored_new(const SafeTensors *set, const Tensor *shape, const char *head, int list) {
    char *name = xformat_new("%s%d.%s", head, list, shape->name);
    const SafeTensor *stored = safetensors_find(set, name);
    free(name);
    if (!stored || stored->type != SAFE_F32 || safe_count(stored) != shape->count) {
        return NULL;
    }
    float *values = xmalloc(shape->count, sizeof *values);
    memcpy(values, stored->data, shape->count * sizeof *values);
    return values;
}

static bool take_values(const SafeTensors *set, TensorList *list, Tensor *tensor, const char *head,
                        int number) {
    float *values = stored_new(set, tensor, head, number);
    if (!values) {
        return false;
    }
    tensor_write(list, tensor, DT_F32, values); // and what the ops read, rounded
    free(values);
    return true;
}

static bool take_moment(const SafeTensors *set, const Optim *optim, float *moment,
                        const Tensor *tensor, const char *head) {
    float *values = stored_new(set, tensor, head, 0);
    if (!values) {
        return false;
    }
    device_copy_in(optim->list->dev, moment + tensor->offset, values,
                   tensor->count * sizeof *values);
    free(values);
    return true;
}

static bool take_state(const SafeTensors *set, Optim *optim, TensorList *const *lists,
                       int list_count) {
    TensorList *trained = optim->list;
    bool is_good = true;
    for (int i = 0; is_good && i < trained->count; i++) {
        Tensor *tensor = trained->tensor[i];
        if (tensor->is_trainable) {
            is_good = take_values(set, trained, tensor, "value", 0) &&
                      take_moment(set, optim, optim->m, tensor, "m") &&
                      take_moment(set, optim, optim->v, tensor, "v");
        }
    }
    for (int k = 0; is_good && k < list_count; k++) {
        for (int i = 0; is_good && i < lists[k]->count; i++) {
            is_good = take_values(set, lists[k], lists[k]->tensor[i], "list", k + 1);
        }
    }
    return is_good;
}

Error checkpoint_load(int64_t *step, const char *run_dir, const CheckpointState *state,
                      Optim *optim, TensorList *const *lists) {
    *step = 0;
    char *dir = newest_new(run_dir, state->stage);
    if (!dir) {
        return error_none();
    }
    json_t *root = read_json(dir, "state.json");
    const char *seed_text = json_string_value(json_object_get(root, "seed"));
    const char *context_text = json_string_value(json_object_get(root, "context"));
    uint64_t seed = 0, context = 0;
    Error error = error_none();
    if (!seed_text || !context_text || sscanf(seed_text, "%" SCNu64, &seed) != 1 ||
        sscanf(context_text, "%16" SCNx64, &context) != 1) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "%.150s: state.json lacks a member; remove that directory", dir);
    } else if (seed != state->seed || context != state->context) {
        error = error_at(EXIT_CONFIG, ERROR_NOWHERE,
                         "%.110s: made with another seed, data or settings; "
                         "use another run.dir or run.start=overwrite", dir);
    }
    SafeStore store = {0};
    char *path = file_join_new(dir, "tensors.safetensors");
    if (!error.code) {
        error = safestore_open_new(&store, path);
    }
    if (!error.code && !take_state(&store.all, optim, lists, state->list_count)) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "%.110s: tensors do not fit this model; use another run.dir", path);
    }
    if (!error.code) {
        *step = json_integer_value(json_object_get(root, "step"));
        optim_set_step(optim, (int)json_integer_value(json_object_get(root, "updates")));
    }
    safestore_free(&store);
    json_decref(root);
    free(path);
    free(dir);
    return error;
}
