// adapter: see adapter.h.
#include "adapter.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "weights.h"

#define CONFIG_NAME "adapter_config.json"
#define TENSORS_NAME "adapter_model.safetensors"
#define PREFIX "base_model.model." // what PEFT puts before a module's path
#define CONFIG_LIMIT ((size_t)1 << 20)

// ---- reading ----
// Members that do not change what a stored adapter computes, or that we read ourselves.
static const char *const harmless[] = {
    "auto_mapping",      "base_model_name_or_path", "bias",              "exclude_modules",
    "inference_mode",    "init_lora_weights",       "layers_pattern",    "layers_to_transform",
    "lora_alpha",        "lora_dropout",            "megatron_core",     "peft_type",
    "peft_version",      "qalora_group_size",       "r",                 "revision",
    "target_modules",    "task_type",               "use_rslora"};

// PEFT writes members that are not used as null, false or empty.
static bool is_unused(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

// A way to begin that leaves the base weights alone: pissa, olora and others change them, so that
// their adapter means nothing on the published ones.
static bool is_plain_start(const json_t *value) {
    const char *const text = json_string_value(value);
    return !value || json_is_boolean(value) ||
           (text && (strcmp(text, "gaussian") == 0 || strcmp(text, "orthogonal") == 0 ||
                     strcmp(text, "eva") == 0));
}

// Everything in the file that is not known to be harmless must be unused, so that what tomorrow's
// PEFT adds to the equations is refused too.
static Error refuse_unknown(json_t *root) {
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value) {
        bool is_fine = is_unused(value);
        for (size_t i = 0; !is_fine && i < sizeof harmless / sizeof *harmless; i++) {
            is_fine = strcmp(name, harmless[i]) == 0;
        }
        if (!is_fine) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%.60s' is not supported; only "
                            "plain LoRA is", name);
        }
    }
    return is_plain_start(json_object_get(root, "init_lora_weights"))
               ? error_none()
               : error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "init_lora_weights changes the base; only "
                          "true, false, gaussian, orthogonal and eva do not");
}

static Error parse_config(AdapterConfig *out, json_t *root) {
    const char *type = "", *bias = "none";
    int64_t rank = 0;
    Error error = json_member_text(root, "peft_type", true, &type);
    if (!error.code) {
        error = json_member_text(root, "bias", false, &bias);
    }
    if (!error.code) {
        error = json_member_int(root, "r", true, 1, 4096, &rank);
    }
    if (!error.code) {
        error = json_member_number(root, "lora_alpha", true, &out->alpha);
    }
    if (!error.code) {
        error = json_member_number(root, "lora_dropout", false, &out->dropout);
    }
    if (!error.code) {
        error = json_member_bool(root, "use_rslora", false, &out->is_rslora);
    }
    if (!error.code && (strcmp(type, "LORA") != 0 || strcmp(bias, "none") != 0)) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "an adapter of type '%.40s' with bias '%.40s'; only LORA without is read",
                         type, bias);
    }
    out->rank = (int)rank;
    return error.code ? error : refuse_unknown(root);
}

Error adapter_read_config(AdapterConfig *out, const char *dir) {
    *out = (AdapterConfig){0};
    char *path = file_join_new(dir, CONFIG_NAME);
    json_t *root = NULL;
    Error error = json_read_new(&root, path, CONFIG_LIMIT);
    if (!error.code) {
        error = parse_config(out, root);
    }
    json_decref(root);
    free(path);
    if (error.code) {
        char text[sizeof error.text];
        memcpy(text, error.text, sizeof text);
        return error_at(error.code, error.offset, CONFIG_NAME ": %.180s", text);
    }
    return error;
}

Error adapter_find_vision(bool *has_vision, const char *dir) {
    char *path = file_join_new(dir, TENSORS_NAME);
    SafeStore store = {0};
    const Error error = safestore_open_new(&store, path);
    *has_vision = false;
    for (int i = 0; !error.code && i < store.all.count; i++) {
        const char *const name = store.all.tensors[i].name;
        *has_vision = *has_vision || strstr(name, ".visual.") || strstr(name, ".vision_tower.");
    }
    safestore_free(&store);
    free(path);
    return error;
}

Error adapter_load(TensorList *list, const char *dir) {
    char *path = file_join_new(dir, TENSORS_NAME);
    const WeightNames names = {.prefix = PREFIX, .renamed = weights_newer_names};
    const Error error = weights_load(list, path, &names, true);
    free(path);
    return error;
}

// ---- writing ----
static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The adapted modules as PEFT wants them, before it loads: a pattern of whole module paths. It
// names the last part of each path and keeps out what has the same last part: the patch embedding
// (visual.patch_embed.proj), or all of a vision tower without adapters. So it fits the paths of
// every version of transformers, which a list of paths does not.
static char *target_pattern_new(const TensorList *list) {
    static const char suffix[] = ".lora_A.weight";
    const char **part = xcalloc((size_t)list->count + 1, sizeof *part);
    int count = 0;
    bool has_vision = false;
    for (int i = 0; i < list->count; i++) {
        const char *const name = list->tensor[i]->file, *const end = strstr(name, suffix);
        if (!list->tensor[i]->is_adapter || !end) {
            continue;
        }
        has_vision = has_vision || strncmp(name, "vis", 3) == 0;
        const char *start = end;
        while (start > name && start[-1] != '.') {
            start--;
        }
        char *last = xformat_new("%.*s", (int)(end - start), start);
        int k = 0;
        while (k < count && strcmp(part[k], last) != 0) {
            k++;
        }
        if (k == count) {
            part[count++] = last;
        } else {
            free(last);
        }
    }
    qsort(part, (size_t)count, sizeof *part, by_name);
    char *text = xformat_new("^(?!.*(?:%s)).*\\.(?:", has_vision ? "patch_embed|patch_conv"
                                                                 : "visual|vision_tower");
    for (int k = 0; k < count; k++) {
        char *longer = xformat_new("%s%s%s", text, k ? "|" : "", part[k]);
        free(text);
        free((void *)part[k]);
        text = longer;
    }
    char *pattern = xformat_new("%s)$", text);
    free(text);
    free(part);
    return pattern;
}

// The members that every version of PEFT knows: old ones refuse others.
static json_t *config_json(const TensorList *list, const AdapterConfig *config) {
    char *const targets = target_pattern_new(list);
    json_t *root = json_pack("{s:s s:s s:s s:i s:f s:f s:s}", "peft_type", "LORA", "task_type",
                             "CAUSAL_LM", "bias", "none", "r", config->rank, "lora_alpha",
                             config->alpha, "lora_dropout", 0.0, "target_modules",
                             targets);
    free(targets);
    static const char *const nulls[] = {"auto_mapping",    "base_model_name_or_path",
                                        "layers_pattern",  "layers_to_transform",
                                        "modules_to_save", "revision"};
    static const char *const empties[] = {"alpha_pattern", "loftq_config", "rank_pattern"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++) {
        json_object_set_new(root, nulls[i], json_null());
    }
    for (size_t i = 0; i < sizeof empties / sizeof *empties; i++) {
        json_object_set_new(root, empties[i], json_object());
    }
    json_object_set_new(root, "fan_in_fan_out", json_false());
    json_object_set_new(root, "inference_mode", json_true());
    json_object_set_new(root, "init_lora_weights", json_true());
    json_object_set_new(root, "use_dora", json_false());
    json_object_set_new(root, "use_rslora", json_boolean(config->is_rslora));
    return root;
}

// Rewrites the file with every tensor a second time, under its newer name: PEFT beside transformers
// 5 passes over the older names, PEFT of the original's time over the newer ones, both without an
// error.
static Error add_newer_names(const char *path) {
    SafeStore store = {0};
    Error error = safestore_open_new(&store, path);
    if (error.code) {
        return error;
    }
    const int n = store.all.count;
    SafeTensor *both = xmalloc(2 * (size_t)n + 1, sizeof *both);
    int count = 0;
    for (int i = 0; i < n; i++) {
        const char *const name = store.all.tensors[i].name, *const ours = name + sizeof PREFIX - 1;
        const NamePair *pair = weights_newer_names;
        while (pair->ours && strncmp(ours, pair->ours, strlen(pair->ours)) != 0) {
            pair++;
        }
        both[count++] = store.all.tensors[i];
        if (pair->ours) {
            both[count] = store.all.tensors[i];
            both[count++].name = xformat_new(PREFIX "%s%s", pair->theirs,
                                             name + sizeof PREFIX - 1 + strlen(pair->ours));
        }
    }
    error = safetensors_write(path, both, count, NULL, 0);
    for (int i = 1; i < count; i++) {
        if (both[i].data == both[i - 1].data) {
            free((void *)both[i].name);
        }
    }
    free(both);
    safestore_free(&store);
    return error;
}

Error adapter_save(const TensorList *list, const char *dir, const AdapterConfig *config) {
    char *tensors = file_join_new(dir, TENSORS_NAME), *path = file_join_new(dir, CONFIG_NAME);
    Error error = file_make_directories(dir);
    if (!error.code) {
        error = weights_save(list, tensors, PREFIX, true, true);
    }
    if (!error.code) {
        error = add_newer_names(tensors);
    }
    if (!error.code) {
        json_t *root = config_json(list, config);
        char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS);
        error = file_replace(path, text, strlen(text));
        free(text);
        json_decref(root);
    }
    free(tensors);
    free(path);
    return error;
}
