// test_adapter: a saved adapter comes back with its scale; what is not plain LoRA is refused.
#include "host/adapter.h"

#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/json.h"
#include "models/reader.h"
#include "tests/check.h"
#include "tests/model_check.h"

static Reader *reader_of(int rank, uint64_t seed) {
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-qwen2vl"), "no preset");
    config.L = config.vision.L = 1;
    config.V = 30;
    config.image_id = 3;
    reader_set_lora(&config, rank, 16, true);
    Reader *reader = reader_new(check_device(), DT_F32, &config, false);
    tensors_init(&reader->tensors, seed);
    return reader;
}

TEST(adapter_round_trip) {
    char *dir = file_join_new(check_tmpdir(), "a/adapter");
    Reader *from = reader_of(3, 1), *to = reader_of(3, 2), *other = reader_of(4, 1);
    tensors_disturb(&from->tensors, 0.1);
    AdapterConfig config = {.rank = 3, .alpha = 12.5}, back;
    error_die(dir, adapter_save(&from->tensors, dir, &config));
    Error error = adapter_read_config(&back, dir);
    EXPECT(error.code == 0 && back.rank == 3 && back.alpha == 12.5, "r %d, alpha %g: %s", back.rank,
           back.alpha, error.text);
    error = adapter_load(&to->tensors, dir);
    EXPECT(error.code == 0, "%s", error.text);
    for (int i = 0; i < to->tensors.count; i++) {
        const Tensor *tensor = to->tensors.tensor[i];
        float *a = xmalloc(2 * tensor->count, sizeof *a), *b = a + tensor->count;
        tensor_read(&to->tensors, tensor, a);
        tensor_read(&from->tensors, from->tensors.tensor[i], b);
        EXPECT(!tensor->is_adapter || memcmp(a, b, tensor->count * sizeof *a) == 0, "%s differs",
               tensor->name);
        free(a);
    }
    EXPECT(adapter_load(&other->tensors, dir).code == EXIT_BAD_DATA, "another rank");
    // Every adapted module is listed, a fused one once; the patch embedding and the merger are not.
    char *path = file_join_new(dir, "adapter_config.json");
    json_t *root;
    error_die(path, json_read_new(&root, path, 1 << 20));
    const json_t *modules = json_object_get(root, "target_modules");
    int fused = 0, down = 0;
    for (size_t i = 0; i < json_array_size(modules); i++) {
        const char *name = json_string_value(json_array_get(modules, i));
        fused += strcmp(name, "visual.blocks.0.attn.qkv") == 0;
        down += strcmp(name, "model.layers.0.mlp.down_proj") == 0;
        EXPECT(!strstr(name, "lora") && !strstr(name, "patch") && !strstr(name, "merger"), "%s", name);
    }
    EXPECT(json_array_size(modules) == 4 + 7 && fused == 1 && down == 1, "%zu modules",
           json_array_size(modules));
    json_decref(root);
    free(path);
    free(dir);
    reader_free(from);
    reader_free(to);
    reader_free(other);
}

TEST(adapter_refused) {
    static const struct {
        const char *text, *want;
        ExitCode code;
    } cases[] = {
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16}", "", EXIT_OK},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"use_dora\": false, "
         "\"rank_pattern\": {}, \"modules_to_save\": null}", "", EXIT_OK},
        {"{\"peft_type\": \"LORA\", \"r\": 8}", "lora_alpha", EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 16}", "'r'", EXIT_BAD_DATA},
        {"{\"peft_type\": \"IA3\", \"r\": 8, \"lora_alpha\": 16}", "IA3", EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"use_dora\": true}", "use_dora",
         EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"use_rslora\": true}",
         "use_rslora", EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"bias\": \"all\"}", "'all'",
         EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"alpha_pattern\": {\"q\": 4}}",
         "alpha_pattern", EXIT_BAD_DATA},
        {"{\"peft_type\"", "line 1", EXIT_BAD_DATA},
        {"[]", "peft_type", EXIT_BAD_DATA},
    };
    char *path = file_join_new(check_tmpdir(), "adapter_config.json");
    AdapterConfig config;
    EXPECT(adapter_read_config(&config, check_tmpdir()).code == EXIT_NO_INPUT, "no file");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%zu %s", i, cases[i].want)) {
            error_die(path, file_replace(path, cases[i].text, strlen(cases[i].text)));
            const Error error = adapter_read_config(&config, check_tmpdir());
            EXPECT(error.code == cases[i].code && strstr(error.text, cases[i].want), "code %d: %s",
                   error.code, error.text);
        }
    }
    free(path);
}
