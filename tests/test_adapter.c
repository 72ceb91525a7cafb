// test_adapter: a saved adapter comes back with its scale, under the names of either era; what PEFT
// is told to adapt; what is not plain LoRA is refused.
#include "host/adapter.h"

#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/json.h"
#include "host/weights.h"
#include "models/reader.h"
#include "tests/check.h"
#include "tests/model_check.h"

static Reader *tiny_reader(const char *preset, int rank, bool has_vision, uint64_t seed) {
    ReaderConfig config;
    CHECK(reader_preset(&config, preset), "no preset");
    config.L = config.vision.L = 1;
    config.V = 30;
    config.image_id = 3;
    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 16}, has_vision);
    Reader *reader = reader_new(check_device(), DT_F32, &config, false);
    tensors_init(&reader->tensors, seed);
    return reader;
}

static Reader *reader_of(int rank, uint64_t seed) {
    return tiny_reader("tiny-qwen2vl", rank, true, seed);
}

static void expect_equal_adapters(const TensorList *a, const TensorList *b) {
    for (int i = 0; i < a->count; i++) {
        const Tensor *tensor = a->tensor[i];
        float *x = xmalloc(2 * tensor->count, sizeof *x), *y = x + tensor->count;
        tensor_read(a, tensor, x);
        tensor_read(b, b->tensor[i], y);
        EXPECT(!tensor->is_adapter || memcmp(x, y, tensor->count * sizeof *x) == 0, "%s differs",
               tensor->name);
        free(x);
    }
}

TEST(adapter_round_trip) {
    char *dir = file_join_new(check_tmpdir(), "a/adapter");
    Reader *from = reader_of(3, 1), *to = reader_of(3, 2), *other = reader_of(4, 1);
    tensors_disturb(&from->tensors, 0.1);
    const AdapterConfig config = {.rank = 3, .alpha = 12.5, .is_rslora = true};
    AdapterConfig back;
    error_die(dir, adapter_save(&from->tensors, dir, &config));
    Error error = adapter_read_config(&back, dir);
    EXPECT(error.code == 0 && back.rank == 3 && back.alpha == 12.5 &&
               back.is_rslora && back.dropout == 0, "r %d, alpha %g: %s", back.rank,
           back.alpha, error.text);
    error = adapter_load(&to->tensors, dir);
    EXPECT(error.code == 0, "%s", error.text);
    expect_equal_adapters(&from->tensors, &to->tensors);
    SafeStore store; // every tensor is there under the names of both eras
    error_die(dir, safestore_open_new(&store, dir));
    static const char *const twins[][2] = {
        {"base_model.model.visual.blocks.0.attn.qkv.lora_B.weight",
         "base_model.model.model.visual.blocks.0.attn.qkv.lora_B.weight"},
        {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
         "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight"}};
    for (int i = 0; i < 2; i++) {
        const SafeTensor *a = safetensors_find(&store.all, twins[i][0]),
                         *b = safetensors_find(&store.all, twins[i][1]);
        EXPECT(a && b && a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0,
               "%s and %s", twins[i][0], twins[i][1]);
    }
    EXPECT(store.all.count == 2 * 2 * (4 + 7), "%d tensors", store.all.count);
    safestore_free(&store);
    EXPECT(adapter_load(&other->tensors, dir).code == EXIT_BAD_DATA, "another rank");
    free(dir);
    reader_free(from);
    reader_free(to);
    reader_free(other);
}

// What PEFT is told to adapt; tools/verify_export.py has it agree with the tensors.
TEST(adapter_targets) {
#define LINEAR_LAYERS "\\.(?:down_proj|gate_proj|k_proj|o_proj|q_proj|up_proj|v_proj)$"
    static const struct {
        const char *preset, *want;
        bool has_vision;
    } cases[] = {
        {"tiny-qwen2vl", "^(?!.*(?:patch_embed|patch_conv)).*\\.(?:down_proj|fc1|fc2|gate_proj|"
         "k_proj|o_proj|proj|q_proj|qkv|up_proj|v_proj)$", true},
        {"tiny-qwen2vl", "^(?!.*(?:visual|vision_tower)).*" LINEAR_LAYERS, false},
        {"tiny-pixtral", "^(?!.*(?:patch_embed|patch_conv)).*" LINEAR_LAYERS, true},
        {"tiny-pixtral", "^(?!.*(?:visual|vision_tower)).*" LINEAR_LAYERS, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s%s", cases[i].preset, cases[i].has_vision ? "" : ", frozen tower")) {
            continue;
        }
        const char *const dir = check_tmpdir();
        Reader *reader = tiny_reader(cases[i].preset, 2, cases[i].has_vision, 1);
        const AdapterConfig config = {.rank = 2, .alpha = 4};
        error_die(dir, adapter_save(&reader->tensors, dir, &config));
        bool has_vision = !cases[i].has_vision;
        error_die(dir, adapter_find_vision(&has_vision, dir));
        EXPECT(has_vision == cases[i].has_vision, "vision: %d", has_vision);
        char *path = file_join_new(dir, "adapter_config.json");
        json_t *root;
        error_die(path, json_read_new(&root, path, 1 << 20));
        const char *const got = json_string_value(json_object_get(root, "target_modules"));
        EXPECT(got && strcmp(got, cases[i].want) == 0, "'%s'", got);
        EXPECT(json_object_size(root) == 21, "%zu members", json_object_size(root));
        json_decref(root);
        free(path);
        reader_free(reader);
    }
}

// A name of ours as PEFT writes it beside newer transformers.
static char *newer_name_new(const char *name) {
    static const char *const heads[][2] = {
        {"base_model.model.language_model.model.", "base_model.model.model.language_model."},
        {"base_model.model.visual.", "base_model.model.model.visual."},
        {"base_model.model.vision_tower.", "base_model.model.model.vision_tower."},
        {"base_model.model.model.", "base_model.model.model.language_model."}};
    size_t k = 0;
    while (strncmp(name, heads[k][0], strlen(heads[k][0])) != 0) {
        CHECK(++k < 4, "'%s'", name);
    }
    return xformat_new("%s%s", heads[k][1], name + strlen(heads[k][0]));
}

TEST(adapter_newer_names) {
#define MODEL "base_model.model.model."
    static const struct {
        const char *preset, *wants[2]; // names of tensors in the file
    } cases[] = {
        {"tiny-qwen2vl",
         {MODEL "language_model.layers.0.mlp.down_proj.lora_A.weight",
          MODEL "visual.blocks.0.attn.qkv.lora_B.weight"}},
        {"tiny-pixtral",
         {MODEL "language_model.layers.0.self_attn.q_proj.lora_B.weight",
          MODEL "vision_tower.transformer.layers.0.attention.q_proj.lora_A.weight"}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (!CASE("%s", cases[k].preset)) {
            continue;
        }
        Reader *from = tiny_reader(cases[k].preset, 2, true, 1),
               *to = tiny_reader(cases[k].preset, 2, true, 2);
        tensors_disturb(&from->tensors, 0.1);
        char *path = file_join_new(check_tmpdir(), "adapter_model.safetensors");
        error_die(path, weights_save(&from->tensors, path, "base_model.model.", true, true));
        SafeStore store;
        error_die(path, safestore_open_new(&store, path));
        SafeTensor *renamed = xmalloc((size_t)store.all.count, sizeof *renamed);
        int found = 0;
        for (int i = 0; i < store.all.count; i++) {
            renamed[i] = store.all.tensors[i];
            renamed[i].name = newer_name_new(store.all.tensors[i].name);
            found += strcmp(renamed[i].name, cases[k].wants[0]) == 0 ||
                     strcmp(renamed[i].name, cases[k].wants[1]) == 0;
        }
        EXPECT(found == 2, "%d of 2 names", found);
        char *newer = file_join_new(check_tmpdir(), "newer/adapter_model.safetensors");
        char *dir = file_join_new(check_tmpdir(), "newer");
        error_die(dir, file_make_directories(dir));
        error_die(newer, safetensors_write(newer, renamed, store.all.count, NULL, 0));
        const Error error = adapter_load(&to->tensors, dir);
        EXPECT(error.code == 0, "%s", error.text);
        expect_equal_adapters(&from->tensors, &to->tensors);
        for (int i = 0; i < store.all.count; i++) {
            free((void *)renamed[i].name);
        }
        free(renamed);
        safestore_free(&store);
        free(path);
        free(newer);
        free(dir);
        reader_free(from);
        reader_free(to);
    }
}

#define PLAIN "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16"
TEST(adapter_refused) {
    static const struct {
        const char *text, *want;
        ExitCode code;
    } cases[] = {
        {PLAIN "}", "", EXIT_OK},
        {PLAIN ", \"use_dora\": false, \"rank_pattern\": {}, \"modules_to_save\": null, "
         "\"use_rslora\": true, \"lora_dropout\": 0.05, \"peft_version\": \"0.21.2\", "
         "\"qalora_group_size\": 16, \"init_lora_weights\": \"gaussian\", "
         "\"auto_mapping\": {\"parent_library\": \"x\"}, \"a_member_of_tomorrow\": false}", "",
         EXIT_OK},
        {"{\"peft_type\": \"LORA\", \"r\": 8}", "lora_alpha", EXIT_BAD_DATA},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 16}", "'r'", EXIT_BAD_DATA},
        {"{\"peft_type\": \"IA3\", \"r\": 8, \"lora_alpha\": 16}", "IA3", EXIT_BAD_DATA},
        {PLAIN ", \"bias\": \"all\"}", "'all'", EXIT_BAD_DATA},
        {PLAIN ", \"use_rslora\": 1}", "use_rslora", EXIT_BAD_DATA},
        {PLAIN ", \"use_dora\": true}", "use_dora", EXIT_BAD_DATA},
        {PLAIN ", \"fan_in_fan_out\": true}", "fan_in_fan_out", EXIT_BAD_DATA},
        {PLAIN ", \"lora_bias\": true}", "lora_bias", EXIT_BAD_DATA},
        {PLAIN ", \"rank_pattern\": {\"q\": 4}}", "rank_pattern", EXIT_BAD_DATA},
        {PLAIN ", \"alpha_pattern\": {\"q\": 4}}", "alpha_pattern", EXIT_BAD_DATA},
        {PLAIN ", \"layer_replication\": [[0, 4]]}", "layer_replication", EXIT_BAD_DATA},
        {PLAIN ", \"target_parameters\": [\"w\"]}", "target_parameters", EXIT_BAD_DATA},
        {PLAIN ", \"trainable_token_indices\": [1]}", "trainable_token_indices", EXIT_BAD_DATA},
        {PLAIN ", \"modules_to_save\": [\"lm_head\"]}", "modules_to_save", EXIT_BAD_DATA},
        {PLAIN ", \"use_qalora\": true}", "use_qalora", EXIT_BAD_DATA},
        {PLAIN ", \"a_member_of_tomorrow\": 1}", "a_member_of_tomorrow", EXIT_BAD_DATA},
        {PLAIN ", \"init_lora_weights\": \"pissa\"}", "init_lora_weights", EXIT_BAD_DATA},
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
