// test_model_info: jomed model info on folders: a whole one, and ones that lack something.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/hub_reader.h"
#include "tests/check.h"
#include "tests/model_check.h"

static const char config_text[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":12,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"vocab_size\":6}";
static const char words[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nyes\nno\n";

static void write_text(const char *dir, const char *name, const char *text) {
    char *path = file_join_new(dir, name);
    error_die(path, file_replace(path, text, strlen(text)));
    free(path);
}

// A reader without eyes, with a tokenizer.
static void write_folder(const char *dir) {
    json_t *root;
    ReaderConfig config;
    error_die("text", json_parse_new(&root, config_text, strlen(config_text)));
    error_die("text", hub_reader_config(&config, HUB_LLAMA, root));
    json_decref(root);
    Reader *reader = reader_new(check_device(), DT_F32, &config, false);
    tensors_formula(&reader->tensors);
    char *path = file_join_new(dir, "model.safetensors");
    error_die(path, weights_save(&reader->tensors, path, "", false, true));
    free(path);
    reader_free(reader);
    write_text(dir, "config.json", config_text);
    write_text(dir, "vocab.txt", words);
}

// The last value of the file, which ends with the data of an F32 tensor.
static void put_nan_at_end(const char *path) {
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, 1 << 20));
    const float nothing = NAN;
    memcpy((char *)bytes.data + bytes.size - sizeof nothing, &nothing, sizeof nothing);
    error_die(path, file_replace(path, bytes.data, bytes.size));
    file_bytes_free(&bytes);
}

// Runs it and looks for the texts; "!text" must not be there.
static void expect_info(const char *dir, const char *more, int code, const char *const wants[],
                        int count) {
    char *output;
    const int got = check_run(&output, "%s model info %s %s", check_program(), dir, more);
    EXPECT(got == code, "exit code %d instead of %d: %s", got, code, output);
    for (int i = 0; i < count; i++) {
        const bool is_unwanted = wants[i][0] == '!';
        const bool is_there = strstr(output, wants[i] + is_unwanted) != NULL;
        EXPECT(is_there != is_unwanted, "'%s' in: %s", wants[i], output);
    }
    free(output);
}
#define EXPECT_INFO(dir, more, code, ...)                                                          \
    expect_info(dir, more, code, (const char *const[]){__VA_ARGS__},                               \
                (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

TEST(model_info) {
    const char *dir = check_tmpdir();
    char *weights = file_join_new(dir, "model.safetensors");
    if (CASE("whole")) {
        write_folder(dir);
        EXPECT_INFO(dir, "", EXIT_OK, "llama", "1 layers, 16 wide, 2 heads (2 for keys) of 8",
                    "parameters  1,840 (model 1,744, lm_head 96)", "F32, 12 tensors in 1 file",
                    "all are there", "6 ids, the embedding has 6 rows",
                    "memory for inference in f32",
                    "adapter of rank 8", "!missing", "!wrong", "!finite");
        EXPECT_INFO(dir, "weights.check_finite=true reader.dtype=bf16 reader.lora_rank=2", EXIT_OK,
                    "all values are finite", "inference in bf16", "adapter of rank 2");
        // 2 x 64 answers x (512 + 100) positions x 16 values of f32 are 5,013,504 bytes.
        EXPECT_INFO(dir, "generate.batch=64 generate.max_tokens=100", EXIT_OK,
                    "generate: 64 at once, 100 tokens more", " 4.8 MiB  keys and values");
    }
    if (CASE("no folder")) {
        EXPECT_INFO("/nonexistent", "", EXIT_NO_INPUT, "/nonexistent");
        EXPECT_INFO("", "", EXIT_CONFIG, "model.dir: not set");
    }
    if (CASE("no weights")) {
        write_folder(dir);
        error_die(weights, file_remove_tree(weights));
        EXPECT_INFO(dir, "", EXIT_NO_INPUT, "no model.safetensors");
    }
    if (CASE("no tokenizer")) {
        write_folder(dir);
        char *path = file_join_new(dir, "vocab.txt");
        error_die(path, file_remove_tree(path));
        EXPECT_INFO(dir, "", EXIT_NO_INPUT, "tokenizer   missing", "all are there");
        free(path);
    }
    if (CASE("a tokenizer too large")) {
        write_folder(dir);
        write_text(dir, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nyes\nno\nmaybe\n");
        EXPECT_INFO(dir, "", EXIT_BAD_DATA, "has 7 ids, but the embedding only 6 rows");
    }
    if (CASE("another form")) {
        write_folder(dir);
        write_text(dir, "config.json", "{\"model_type\":\"gpt2\"}");
        EXPECT_INFO(dir, "", EXIT_BAD_DATA, "model_type 'gpt2' is not supported");
    }
    if (CASE("other tensors")) {
        write_folder(dir);
        char *text = xformat_new("%.*s,\"tie_word_embeddings\":true}",
                                 (int)(sizeof config_text - 2), config_text);
        write_text(dir, "config.json", text);
        EXPECT_INFO(dir, "", EXIT_BAD_DATA, "tensors     wrong: 1 tensors differ", "lm_head.weight",
                    "!memory for");
        free(text);
    }
    free(weights);
}

TEST(model_info_damage) {
    const char *dir = check_tmpdir();
    char *weights = file_join_new(dir, "model.safetensors");
    if (CASE("not finite")) {
        write_folder(dir);
        put_nan_at_end(weights);
        EXPECT_INFO(dir, "", EXIT_OK, "all are there", "!finite");
        EXPECT_INFO(dir, "weights.check_finite=true", EXIT_BAD_DATA, "NaN or infinity in",
                    "wrong: 1 tensors differ", "!all are there");
    }
    if (CASE("shards")) {
        write_folder(dir);
        error_die(weights, file_remove_tree(weights));
        write_text(dir, "model.safetensors.index.json",
                   "{\"weight_map\":{\"lm_head.weight\":\"../model.safetensors\"}}");
        EXPECT_INFO(dir, "", EXIT_BAD_DATA, "'lm_head.weight': its shard is no plain file name");
        write_text(dir, "model.safetensors.index.json",
                   "{\"weight_map\":{\"lm_head.weight\":\"model-00001-of-00002.safetensors\"}}");
        EXPECT_INFO(dir, "", EXIT_NO_INPUT, "model-00001-of-00002.safetensors");
    }
    free(weights);
}
