// test_reader_model: reader.model: whole programs with a tiny reader in a checkpoint folder of the
// published form, beside the published vocabulary: model info, train-reader, evaluate; and folders
// that do not fit together.
#include <stdlib.h>
#include <string.h>

#include "host/hub_reader.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/program.h"
#include "tests/tokenizer_folders.h"

static const char qwen2vl_text[] =
    "{\"hidden_size\":16,\"intermediate_size\":12,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"vocab_size\":151680,\"rms_norm_eps\":1e-6,\"image_token_id\":151655,"
    "\"tie_word_embeddings\":true,\"rope_theta\":10000.0,\"model_type\":\"qwen2_vl\","
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[2,1,1]},"
    "\"vision_config\":{\"depth\":1,\"embed_dim\":8,\"hidden_size\":16,\"num_heads\":1,"
    "\"mlp_ratio\":1,\"patch_size\":14}}";
static const char qwen2vl_pictures[] =
    "{\"image_processor_type\":\"Qwen2VLImageProcessor\",\"min_pixels\":3136,"
    "\"max_pixels\":6272,\"patch_size\":14,\"temporal_patch_size\":2,\"merge_size\":2,"
    "\"image_mean\":[0.48145466,0.4578275,0.40821073],"
    "\"image_std\":[0.26862954,0.26130258,0.27577711]}";
static const char pixtral_text[] =
    "{\"model_type\":\"llava\",\"image_token_index\":10,\"projector_hidden_act\":\"gelu\","
    "\"vision_feature_layer\":-1,\"vision_feature_select_strategy\":\"full\","
    "\"tie_word_embeddings\":true,"
    "\"text_config\":{\"model_type\":\"mistral\",\"hidden_size\":16,\"intermediate_size\":12,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":8,"
    "\"vocab_size\":131072,\"sliding_window\":null},"
    "\"vision_config\":{\"model_type\":\"pixtral\",\"hidden_size\":8,\"intermediate_size\":8,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"hidden_act\":\"silu\"}}";
static const char pixtral_pictures[] =
    "{\"image_processor_type\":\"PixtralImageProcessor\",\"size\":{\"longest_edge\":32},"
    "\"patch_size\":{\"height\":16,\"width\":16},"
    "\"image_mean\":[0.48145466,0.4578275,0.40821073],"
    "\"image_std\":[0.26862954,0.26130258,0.27577711]}";

// world/model with the weights in bf16. False, after counting a skip: no vocabulary.
static bool write_model(bool is_pixtral) {
    const char *text = is_pixtral ? pixtral_text : qwen2vl_text,
               *pictures = is_pixtral ? pixtral_pictures : qwen2vl_pictures;
    char *dir = file_join_new(world_dir(), "model"),
         *weights = file_join_new(dir, "model.safetensors");
    error_die(dir, file_make_directories(dir));
    const bool is_there = is_pixtral ? pixtral_folder(dir) : qwen2vl_folder(dir);
    if (is_there) {
        json_t *root;
        ReaderConfig config;
        error_die("text", json_parse_new(&root, text, strlen(text)));
        error_die("text", hub_reader_config(&config, is_pixtral ? HUB_LLAVA : HUB_QWEN2_VL, root));
        json_decref(root);
        Reader *reader = reader_new(check_device(), DT_BF16, &config, false);
        tensors_formula(&reader->tensors);
        error_die(weights, weights_save(&reader->tensors, weights, "", false, false));
        reader_free(reader);
        world_write("model/config.json", text, strlen(text));
        world_write("model/preprocessor_config.json", pictures, strlen(pictures));
    }
    free(weights);
    free(dir);
    return is_there;
}

#define MODEL " reader.model=model reader.dtype=bf16 "

// Answers in its own words, about two pictures; the folder's generation_config.json is obeyed.
static void expect_generation(void) {
    static const char arguments[] = "generate" MODEL "log.level=error generate.prompt=bright "
                                    "generate.image=[images/q0.png,images/q1.png] "
                                    "generate.max_tokens=3";
    static const char good[] = "{\"do_sample\": true, \"top_k\": 1, \"eos_token_id\": [1, 2]}",
                      bad[] = "{\"num_beams\": 4}";
    char *plain, *output;
    int code = program_run(&plain, "%s", arguments);
    EXPECT(code == EXIT_OK && plain[0], "%d: %s", code, plain);
    world_write("model/generation_config.json", good, sizeof good - 1);
    code = program_run(&output, "%s", arguments); // of one token, the draw is the largest
    EXPECT(code == EXIT_OK && strcmp(output, plain) == 0, "%d: %s", code, output);
    free(output);
    world_write("model/generation_config.json", bad, sizeof bad - 1);
    code = program_run(&output, "%s", arguments);
    EXPECT(code == EXIT_BAD_DATA && strstr(output, "generation_config.json") &&
               strstr(output, "num_beams"), "%d: %s", code, output);
    free(output);
    free(plain);
}

TEST(reader_model) {
    check_time_limit(180);
    for (int is_pixtral = 0; is_pixtral < 2; is_pixtral++) {
        if (!CASE("%s", is_pixtral ? "pixtral" : "qwen2vl")) {
            continue;
        }
        world_with_index();
        if (!write_model(is_pixtral)) {
            continue;
        }
        program_must_run("model info model");
        program_must_run("train-reader c.yaml run.dir=reader reader.steps=2 " TOWERS MODEL);
        expect_run("reader", "done", 2);
        program_must_run("evaluate c.yaml run.dir=answers " TOWERS MODEL
                         "reader.adapter=reader/adapter");
        EXPECT(world_has("answers/results.json"), "no results");
        expect_generation();
    }
}

// One line says what does not fit, with the code of its kind.
TEST(reader_model_refused) {
    static const struct {
        const char *what, *arguments, *file, *from, *to, *error;
        int code;
    } cases[] = {
        {"no folder", "reader.model=nothing", NULL, NULL, NULL, "nothing: no such directory",
         EXIT_NO_INPUT},
        {"preset too", MODEL "reader.preset=tiny-qwen2vl", NULL, NULL, NULL,
         "leave one of reader.preset and reader.model out", EXIT_CONFIG},
        {"no eyes", MODEL, "model/config.json", "\"model_type\":\"qwen2_vl\","
         "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[2,1,1]}",
         "\"model_type\":\"llama\"", "without a vision tower",
         EXIT_CONFIG},
        {"another image token", MODEL, "model/config.json", "151655", "151656",
         "'<|image_pad|>' is token 151655 of the tokenizer, 151656 in config.json", EXIT_BAD_DATA},
        {"few rows", MODEL, "model/config.json", "151680,\"rms_norm_eps\":1e-6,"
         "\"image_token_id\":151655", "151650,\"image_token_id\":7", "embedding only 151650 rows",
         EXIT_BAD_DATA},
        {"another width", TOWERS MODEL, "model/config.json",
         "\"hidden_size\":16,\"intermediate_size\":12",
         "\"hidden_size\":16,\"intermediate_size\":13", "3 tensors differ", EXIT_BAD_DATA},
    };
    check_time_limit(180);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s", cases[i].what)) {
            continue;
        }
        if (i == 5) {
            world_with_index(); // only this one gets as far as the weights
        } else {
            world();
        }
        if (!write_model(false)) {
            continue;
        }
        if (cases[i].file) {
            char *text = world_text_new(cases[i].file), *at = strstr(text, cases[i].from);
            CHECK(at, "no '%s'", cases[i].from);
            char *changed = xformat_new("%.*s%s%s", (int)(at - text), text, cases[i].to,
                                        at + strlen(cases[i].from));
            world_write(cases[i].file, changed, strlen(changed));
            free(changed);
            free(text);
        }
        char *output;
        const int code = program_run(&output, "evaluate c.yaml run.dir=x %s", cases[i].arguments);
        EXPECT(code == cases[i].code && strstr(output, cases[i].error), "%d: %s", code, output);
        free(output);
    }
}
