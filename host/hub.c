// hub: see hub.h.
#include "hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#define MAX_CONFIG (16 << 20) // bytes of a configuration

// ---- families ----
#define HUB_NAME(name, text) text,
static const char *const family_names[] = {HUB_FAMILIES(HUB_NAME)};

const char *hub_family_name(HubFamily family) { return family_names[family]; }

Error hub_family_of(HubFamily *out, const json_t *config) {
    const char *type = NULL;
    const Error error = json_member_text(config, "model_type", true, &type);
    if (error.code) {
        return error;
    }
    for (int i = 0; i < HUB_FAMILY_COUNT; i++) {
        if (strcmp(family_names[i], type) == 0 && i != HUB_OPEN_CLIP) {
            *out = (HubFamily)i;
            return error_none();
        }
    }
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "model_type '%.60s' is not supported; jina_clip, "
                    "clip, bert, qwen2_vl, llava and llama are", type);
}

// ---- folders ----
// The file that an error is about, in front of its text.
static Error in_file(const char *name, Error error) {
    if (error.code) {
        char text[sizeof error.text];
        snprintf(text, sizeof text, "%s", error.text);
        snprintf(error.text, sizeof error.text, "%s: %.180s", name, text);
    }
    return error;
}

Error hub_json_new(json_t **out, const char *dir, const char *name) {
    *out = NULL;
    char *path = file_join_new(dir, name);
    const Error error = file_exists(path) ? json_read_new(out, path, MAX_CONFIG) : error_none();
    free(path);
    return in_file(name, error);
}

// The first of the files that is there; the first name where none is, for the message.
static char *first_of_new(const char *dir, const char *const *names, int count) {
    for (int i = 0; i < count; i++) {
        char *path = file_join_new(dir, names[i]);
        if (file_exists(path)) {
            return path;
        }
        free(path);
    }
    return NULL;
}

Error hub_open_new(HubFolder *out, const char *dir) {
    static const char *const files[] = {"model.safetensors.index.json", "model.safetensors"};
    static const char *const open_clip_files[] = {"open_clip_model.safetensors",
                                                  "model.safetensors.index.json",
                                                  "model.safetensors"};
    *out = (HubFolder){0};
    if (!file_is_directory(dir)) {
        return error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "no such directory; name the folder of a "
                        "checkpoint, with config.json and model.safetensors");
    }
    const char *name = "config.json";
    Error error = hub_json_new(&out->config, dir, name);
    const bool has_type = out->config && json_object_get(out->config, "model_type");
    json_t *open_clip = NULL;
    if (!error.code && !has_type) {
        error = hub_json_new(&open_clip, dir, "open_clip_config.json");
    }
    if (open_clip) {
        name = "open_clip_config.json";
        json_decref(out->config);
        out->config = open_clip;
        out->family = HUB_OPEN_CLIP;
    } else if (!error.code) {
        error = out->config ? in_file(name, hub_family_of(&out->family, out->config))
                            : error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "no config.json and no "
                                       "open_clip_config.json in the directory");
    }
    if (!error.code) {
        out->weights = open_clip ? first_of_new(dir, open_clip_files, 3)
                                 : first_of_new(dir, files, 2);
        if (!out->weights) {
            error = error_at(EXIT_NO_INPUT, ERROR_NOWHERE, "no model.safetensors in the "
                             "directory%s", open_clip ? "; tools/convert_original.py makes it "
                             "from open_clip_pytorch_model.bin" : "");
        }
    }
    if (error.code) {
        hub_free(out);
    }
    return error;
}

void hub_free(HubFolder *folder) {
    json_decref(folder->config);
    free(folder->weights);
    *folder = (HubFolder){0};
}

// ---- fields ----
// Equal as JSON; an integer equals the real number of its value.
static bool is_same(const json_t *a, const json_t *b) {
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b)
                                                  : json_equal(a, b);
}

// Is the value one of those in the text, JSON values with blanks between them?
static bool is_one_of(const json_t *value, const char *values) {
    const size_t size = strlen(values);
    for (size_t at = 0; at < size;) {
        json_error_t error;
        json_t *allowed = json_loadb(values + at, size - at,
                                     JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &error);
        CHECK(allowed, "'%s' is no list of JSON values: %s", values, error.text);
        const bool is_found = is_same(value, allowed);
        json_decref(allowed);
        if (is_found) {
            return true;
        }
        at += (size_t)error.position;
        while (values[at] == ' ') {
            at++;
        }
    }
    return false;
}

Error hub_ints(const json_t *object, const HubInt *fields, int count) {
    for (int i = 0; i < count; i++) {
        int64_t value = *fields[i].out;
        const Error error = json_member_int(object, fields[i].field, false, fields[i].low,
                                            fields[i].high, &value);
        if (error.code) {
            return error;
        }
        *fields[i].out = (int)value;
    }
    return error_none();
}

Error hub_expect(const json_t *object, const HubFixed *fields, int count) {
    for (int i = 0; i < count; i++) {
        const json_t *value = json_object_get(object, fields[i].field);
        if (!value || json_is_null(value) || is_one_of(value, fields[i].values)) {
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        const Error error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "field %s=%.60s changes the "
                                     "computation; supported: %.80s", fields[i].field,
                                     text ? text : "?", fields[i].values);
        free(text);
        return error;
    }
    return error_none();
}

Error hub_expect_vocabulary(int vocab, int V) {
    return vocab <= V ? error_none()
                      : error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "the tokenizer has %d ids, but the "
                                 "embedding only %d rows; it belongs to another model", vocab, V);
}
