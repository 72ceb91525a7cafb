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
// Members that change the equations, which PEFT writes as null, false or empty when they are unused.
static const char *const unsupported[] = {
    "use_dora",        "use_rslora",     "fan_in_fan_out",    "lora_bias",
    "rank_pattern",    "alpha_pattern",  "layer_replication", "modules_to_save",
    "target_parameters", "trainable_token_indices"};

static bool is_unused(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static Error parse_config(AdapterConfig *out, const json_t *root) {
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
    if (!error.code && (strcmp(type, "LORA") != 0 || strcmp(bias, "none") != 0)) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "an adapter of type '%.40s' with bias '%.40s'; only LORA without is read",
                         type, bias);
    }
    for (size_t i = 0; !error.code && i < sizeof unsupported / sizeof *unsupported; i++) {
        if (!is_unused(json_object_get(root, unsupported[i]))) {
            error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%s' is not supported; only "
                             "plain LoRA is", unsupported[i]);
        }
    }
    out->rank = (int)rank;
    return error;
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

Error adapter_load(TensorList *list, const char *dir) {
    char *path = file_join_new(dir, TENSORS_NAME);
    const Error error = weights_load(list, path, &(WeightNames){.prefix = PREFIX}, true);
    free(path);
    return error;
}

// ---- writing ----
// Paths of the modules that have an adapter, each once: PEFT builds what is listed, then loads.
static json_t *modules_of(const TensorList *list) {
    static const char suffix[] = ".lora_A.weight";
    json_t *modules = json_array();
    for (int i = 0; i < list->count; i++) {
        const char *name = list->tensor[i]->file;
        const size_t length = strlen(name), tail = sizeof suffix - 1;
        if (list->tensor[i]->is_adapter && length > tail &&
            strcmp(name + length - tail, suffix) == 0) {
            json_array_append_new(modules, json_stringn(name, length - tail));
        }
    }
    return modules;
}

// The members that every version of PEFT knows: old ones refuse others.
static json_t *config_json(const TensorList *list, const AdapterConfig *config) {
    json_t *root = json_pack("{s:s s:s s:s s:i s:f s:f s:o}", "peft_type", "LORA", "task_type",
                             "CAUSAL_LM", "bias", "none", "r", config->rank, "lora_alpha",
                             config->alpha, "lora_dropout", 0.0, "target_modules",
                             modules_of(list));
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
    json_object_set_new(root, "use_rslora", json_false());
    return root;
}

Error adapter_save(const TensorList *list, const char *dir, const AdapterConfig *config) {
    char *tensors = file_join_new(dir, TENSORS_NAME), *path = file_join_new(dir, CONFIG_NAME);
    Error error = file_make_directories(dir);
    if (!error.code) {
        error = weights_save(list, tensors, PREFIX, true, true);
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
