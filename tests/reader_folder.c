// reader_folder: see reader_folder.h.
#include "reader_folder.h"

#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/json.h"
#include "host/weights.h"

void reader_folder_write(const char *dir, const char *config, const Reader *reader) {
    char *whole = file_join_new(dir, "whole"), *path = file_join_new(dir, "config.json");
    error_die(path, file_replace(path, config, strlen(config)));
    free(path);
    error_die(whole, weights_save(&reader->tensors, whole, "", false, false));
    SafeStore store;
    error_die(whole, safestore_open_new(&store, whole));
    const int count = store.all.count;
    SafeTensor *tensors = xcalloc((size_t)count, sizeof *tensors);
    json_t *map = json_object();
    for (int i = 0; i < count; i++) {
        tensors[i] = store.all.tensors[i];
        const char *old = tensors[i].name;
        const bool is_eye = strncmp(old, "visual.", 7) == 0;
        char *name = is_eye ? xformat_new("model.%s", old)
                            : xformat_new("model.language_model.%s", old + strlen("model."));
        tensors[i].name = name;
        json_object_set_new(map, name, json_string(i < count / 2 ? "a.safetensors"
                                                                 : "b.safetensors"));
    }
    for (int half = 0; half < 2; half++) {
        path = file_join_new(dir, half ? "b.safetensors" : "a.safetensors");
        error_die(path, safetensors_write(path, tensors + (half ? count / 2 : 0),
                                          half ? count - count / 2 : count / 2, NULL, 0));
        free(path);
    }
    json_t *index = json_pack("{s:o}", "weight_map", map);
    char *text = json_dumps(index, 0);
    path = file_join_new(dir, "model.safetensors.index.json");
    error_die(path, file_replace(path, text, strlen(text)));
    for (int i = 0; i < count; i++) {
        free((void *)(uintptr_t)tensors[i].name);
    }
    json_decref(index);
    safestore_free(&store);
    free(tensors);
    free(text);
    free(path);
    free(whole);
}
