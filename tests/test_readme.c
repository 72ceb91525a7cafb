// test_readme: the lines of README.md between "<!-- run: NAME -->" and "<!-- /run -->", run by a
// shell in a small world: every command ends well, and leaves what it says. The published folders
// that they name are tiny ones of the same families, with values of the formula.
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/hub_reader.h"
#include "host/hub_retriever.h"
#include "host/json.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/program.h"
#include "tests/tokenizer_folders.h"

static void put(const char *name, const char *text) { world_write(name, text, strlen(text)); }

// ---- folders ----
#define PICTURES(type, more)                                                                       \
    "{\"image_processor_type\": \"" type "ImageProcessor\", " more "}"

static char *folder_new(const char *name, const char *config, const char *processor) {
    char *dir = file_join_new(world_dir(), name), *file = file_join_new(name, "config.json");
    error_die(dir, file_make_directories(dir));
    put(file, config);
    free(file);
    file = file_join_new(name, "preprocessor_config.json");
    put(file, processor);
    free(file);
    return dir;
}

static void write_towers(const char *name, const char *config, const char *processor) {
    char *dir = folder_new(name, config, processor),
         *path = file_join_new(dir, "model.safetensors");
    HubRetriever hub;
    error_die(name, hub_retriever_parse(&hub, config, strlen(config), false));
    Retriever *retriever = retriever_new(check_device(), DT_F32, &hub.config, false);
    tensors_formula(&retriever->tensors);
    error_die(path, weights_save(&retriever->tensors, path, "", false, true));
    retriever_free(retriever);
    free(path);
    free(dir);
}

static void write_reader(const char *name, const char *config, const char *processor) {
    char *dir = folder_new(name, config, processor),
         *path = file_join_new(dir, "model.safetensors");
    json_t *root;
    ReaderConfig form;
    error_die(name, json_parse_new(&root, config, strlen(config)));
    error_die(name, hub_reader_config(&form, HUB_QWEN2_VL, root));
    json_decref(root);
    Reader *reader = reader_new(check_device(), DT_BF16, &form, false);
    tensors_formula(&reader->tensors);
    error_die(path, weights_save(&reader->tensors, path, "", false, false));
    reader_free(reader);
    qwen2vl_folder_of_bytes(dir);
    free(path);
    free(dir);
}

static const char
    jina[] = "{\"model_type\": \"jina_clip\", \"add_projections\": false, \"vision_config\":"
             " {\"width\": 16, \"layers\": 1, \"head_width\": 8, \"image_size\": 16,"
             " \"patch_size\": 8, \"mlp_ratio\": 1.5, \"embed_dim\": 16, \"naive_swiglu\": true,"
             " \"rope_embeddings\": true, \"subln\": true, \"intp_freq\": false,"
             " \"qkv_bias\": true}, \"text_config\": {\"embed_dim\": 16, \"hf_model_name_or_path\":"
             " \"jinaai/jina-bert-flash-implementation\", \"pooler_type\": \"mean_pooler\","
             " \"proj_type\": null, \"proj_bias\": false, \"hf_model_config_kwargs\":"
             " {\"vocab_size\": 9, \"hidden_size\": 16, \"num_attention_heads\": 2,"
             " \"intermediate_size\": 24, \"num_hidden_layers\": 1}}}",
    clip[] = "{\"model_type\": \"clip\", \"projection_dim\": 8, \"vision_config\":"
             " {\"hidden_size\": 16, \"intermediate_size\": 32, \"num_hidden_layers\": 1,"
             " \"num_attention_heads\": 2, \"image_size\": 16, \"patch_size\": 8},"
             " \"text_config\": {\"hidden_size\": 16, \"intermediate_size\": 32,"
             " \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"vocab_size\": 9,"
             " \"max_position_embeddings\": 6, \"eos_token_id\": 2}}",
    qwen2vl[] = "{\"model_type\": \"qwen2_vl\", \"hidden_size\": 16, \"intermediate_size\": 12,"
                " \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
                " \"vocab_size\": 270, \"rms_norm_eps\": 1e-6, \"tie_word_embeddings\": true,"
                " \"image_token_id\": 268, \"rope_scaling\": {\"type\": \"mrope\","
                " \"mrope_section\": [2, 1, 1]}, \"vision_config\": {\"depth\": 1,"
                " \"embed_dim\": 8, \"hidden_size\": 16, \"num_heads\": 1, \"mlp_ratio\": 1,"
                " \"patch_size\": 4}}";

static void write_checkpoints(void) {
    write_towers("jina-clip-v1", jina, PICTURES("JinaCLIP", "\"size\": 16"));
    put("jina-clip-v1/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ndisc\na\nbright\ndark\n,\n");
    write_towers("clip-vit-base-patch32", clip,
                 PICTURES("CLIP", "\"size\": {\"shortest_edge\": 16}, \"crop_size\": 16"));
    write_reader("Qwen2-VL-7B-Instruct", qwen2vl,
                 PICTURES("Qwen2VL", "\"patch_size\": 4, \"merge_size\": 2, \"min_pixels\": 64,"
                                     " \"max_pixels\": 256"));
    put("Qwen2-VL-7B-Instruct/generation_config.json", "{\"max_new_tokens\": 4}");
}

// ---- lines ----
// The indented lines between the markers of this name, one after the other.
static char *lines_new(const char *readme, const char *name) {
    char *mark = xformat_new("<!-- run: %s -->\n", name), *out = xstrdup("");
    const char *at = strstr(readme, mark), *end = at ? strstr(at, "<!-- /run -->") : NULL;
    EXPECT(at && end, "no lines '%s' in README.md", name);
    for (at = at && end ? at + strlen(mark) : end; at < end;) {
        const size_t length = strcspn(at, "\n");
        EXPECT(strncmp(at, "    ", 4) == 0, "a line that is not run: %.*s", (int)length, at);
        char *longer = xformat_new("%s%.*s\n", out, (int)length, at);
        free(out);
        out = longer;
        at += length + 1;
    }
    free(mark);
    return out;
}

TEST(readme_checkpoints) {
    FileBytes bytes;
    const char *readme = check_fixture("../../README.md");
    error_die(readme, file_read_new(&bytes, readme, 1 << 24));
    char *lines = lines_new((const char *)bytes.data, "checkpoints");
    world();
    write_checkpoints();
    put("own.yaml", "classes: [no, yes]\nthreads: 1\nindex: {dir: runs/index}\n"
                    "data: {root: data, corpus: data/corpus.jsonl, task: data/task.jsonl}\n"
                    "prompt: {max_tokens: 256}\nretriever: {max_tokens: 32, k: 4, batch: 2, "
                    "refresh: 3, steps: 2}\nreader: {steps: 2, batch: 2, warmup: 1}\n");
    put("captions.txt", "a bright disc\na dark disc\n");
    put("chats.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"why ?\"}]}\n");
    put("lines.sh", lines);
    char *output;
    const int code = check_run(
        &output, "cd '%s' && mkdir data runs && mv images *.jsonl data && mv data/chats.jsonl . && "
        "cp data/images/q0.png a.png && cp a.png b.png && jomed='%s' OMP_WAIT_POLICY=passive "
        "sh -eu lines.sh", world_dir(), check_program());
    EXPECT(code == EXIT_OK, "code %d: %s", code, output);
    static const char *const made[] = {
        "runs/index/meta.json", "runs/lora/adapter/adapter_config.json",
        "runs/evaluate/results.json", "answers.jsonl", "vectors/images.npy", "vectors/texts.npy",
        "merged/model.safetensors", "adapter/adapter_config.json", "head/config.json",
        "faiss/text.faiss", "open/open_clip_config.json"};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        EXPECT(world_has(made[i]), "%s is not there", made[i]);
    }
    free(output);
    free(lines);
    file_bytes_free(&bytes);
}
