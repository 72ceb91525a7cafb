// test_hub_reader: readers from folders of the model hub: what config.json may say and may not, the
// sizes of the published models, names of both eras, shards, and stories260K with its trained
// weights.
#include "host/hub_reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/reader_folder.h"

// ---- the published configurations ----
#define QWEN2VL(hidden, width, layers, heads, kv, rows, tied, eyes)                                \
    "{\"architectures\":[\"Qwen2VLForConditionalGeneration\"],\"attention_dropout\":0.0,"          \
    "\"hidden_act\":\"silu\",\"hidden_size\":" #hidden ",\"intermediate_size\":" #width ","        \
    "\"max_window_layers\":28,\"model_type\":\"qwen2_vl\",\"num_attention_heads\":" #heads ","     \
    "\"num_hidden_layers\":" #layers ",\"num_key_value_heads\":" #kv ",\"rms_norm_eps\":1e-06,"    \
    "\"rope_theta\":1000000.0,\"sliding_window\":32768,\"tie_word_embeddings\":" #tied ","         \
    "\"torch_dtype\":\"bfloat16\",\"use_sliding_window\":false,\"image_token_id\":151655,"         \
    "\"vision_config\":{" eyes "\"depth\":32,\"embed_dim\":1280,\"mlp_ratio\":4,"                  \
    "\"num_heads\":16,\"in_chans\":3,\"patch_size\":14,\"spatial_merge_size\":2},"                 \
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]},"                          \
    "\"vocab_size\":" #rows "}"
static const char qwen2vl_2b[] = QWEN2VL(1536, 8960, 28, 12, 2, 151936, true,
                                         "\"hidden_size\":1536,");
static const char qwen2vl_7b[] = QWEN2VL(3584, 18944, 28, 28, 4, 152064, false, "");
static const char pixtral_12b[] =
    "{\"architectures\":[\"LlavaForConditionalGeneration\"],\"image_seq_length\":1,"
    "\"image_token_index\":10,\"model_type\":\"llava\",\"projector_hidden_act\":\"gelu\","
    "\"text_config\":{\"head_dim\":128,\"hidden_size\":5120,\"intermediate_size\":14336,"
    "\"model_type\":\"mistral\",\"num_hidden_layers\":40,\"num_key_value_heads\":8,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000000.0,\"sliding_window\":null,"
    "\"vocab_size\":131072},\"torch_dtype\":\"bfloat16\",\"vision_config\":{\"head_dim\":64,"
    "\"hidden_act\":\"gelu\",\"image_size\":1024,\"model_type\":\"pixtral\",\"patch_size\":16,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":false},\"vision_feature_layer\":-1,"
    "\"vision_feature_select_strategy\":\"full\"}";

static Error config_of(ReaderConfig *out, const char *text) {
    json_t *root;
    HubFamily family = HUB_FAMILY_COUNT;
    Error error = json_parse_new(&root, text, strlen(text));
    if (!error.code) {
        error = hub_family_of(&family, root);
    }
    if (!error.code) {
        error = hub_reader_config(out, family, root);
    }
    json_decref(root);
    return error;
}

static size_t count_of(const TensorList *list, const char *prefix) {
    size_t count = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        count += strncmp(tensor->file, prefix, strlen(prefix)) == 0 ? tensor->count : 0;
    }
    return count;
}

static void expect_same_form(const ReaderConfig *config, const ReaderConfig *preset) {
    EXPECT(config->theta == preset->theta && config->vision.theta == preset->vision.theta &&
               config->block.eps == preset->block.eps &&
               config->vision.block.eps == preset->vision.block.eps &&
               config->block.H == preset->block.H && config->block.Hkv == preset->block.Hkv &&
               config->vision.block.H == preset->vision.block.H &&
               config->vision.block.act == preset->vision.block.act &&
               config->image_id == preset->image_id && config->is_tied == preset->is_tied,
           "theta %g, eps %g", config->theta, config->block.eps);
    EXPECT(config->family != READER_QWEN2VL ||
               memcmp(config->sections, preset->sections, sizeof config->sections) == 0,
           "sections %d %d %d", config->sections[0], config->sections[1], config->sections[2]);
}

// The parameters of the published models, and the same tensors and numbers as our presets.
TEST(hub_reader_published) {
    static const struct {
        const char *preset, *text, *tower, *projector;
        size_t total, eyes; // tower and projector together
    } models[] = {
        {"qwen2-vl-2b", qwen2vl_2b, "visual.", "-", 2208985600, 665271296},
        {"qwen2-vl-7b", qwen2vl_7b, "visual.", "-", 8291375616, 675759104},
        {"pixtral-12b", pixtral_12b, "vision_tower.", "multi_modal_projector.", 12682739712,
         403489792 + 31467520},
    };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        if (!CASE("%s", models[m].preset)) {
            continue;
        }
        ReaderConfig config, preset;
        const Error error = config_of(&config, models[m].text);
        EXPECT(error.code == 0, "%s", error.text);
        CHECK(reader_preset(&preset, models[m].preset), "m=%zu", m);
        Reader ours, other;
        reader_build(&ours, &config);
        reader_build(&other, &preset);
        const TensorList *list = &ours.tensors;
        const size_t total = tensors_count(list, false),
                     eyes = count_of(list, models[m].tower) + count_of(list, models[m].projector);
        EXPECT(total == models[m].total && eyes == models[m].eyes, "%zu parameters, %zu of eyes",
               total, eyes);
        EXPECT(list->count == other.tensors.count, "%d tensors", list->count);
        for (int i = 0; i < list->count && i < other.tensors.count; i++) {
            const Tensor *a = list->tensor[i], *b = other.tensors.tensor[i];
            EXPECT(strcmp(a->name, b->name) == 0 && a->count == b->count, "%s, %s", a->name,
                   b->name);
        }
        expect_same_form(&config, &preset);
        reader_unbuild(&ours);
        reader_unbuild(&other);
    }
}

// ---- refusals ----
// `from` in a published text becomes `to`.
static char *replaced_new(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    CHECK(at, "no '%s'", from);
    return xformat_new("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static const struct {
    const char *text, *from, *to, *error;
} refusals[] = {
    {qwen2vl_2b, "\"qwen2_vl\"", "\"qwen2_5_vl\"", "model_type 'qwen2_5_vl'"},
    {qwen2vl_2b, "\"qwen2_vl\"", "\"clip\"", "type clip is no reader"},
    {qwen2vl_2b, "\"use_sliding_window\":false", "\"use_sliding_window\":true",
     "use_sliding_window=true"},
    {qwen2vl_2b, "\"type\":\"mrope\"", "\"type\":\"yarn\"", "type=\"yarn\""},
    {qwen2vl_2b, "[16,24,24]", "[16,24,25]", "mrope_section"},
    {qwen2vl_2b, "[16,24,24]", "[16,24,\"24\"]", "mrope_section"},
    {qwen2vl_2b, "[16,24,24]", "[16,48]", "mrope_section"},
    {qwen2vl_2b, "\"mrope_section\":[16,24,24]", "\"x\":0", "'mrope_section' is missing"},
    {qwen2vl_2b, "\"silu\"", "\"gelu\"", "hidden_act=\"gelu\""},
    {qwen2vl_2b, "\"hidden_size\":1536,", "\"hidden_size\":\"big\",", "'hidden_size'"},
    {qwen2vl_2b, "\"hidden_size\":1536,\"depth\"", "\"hidden_size\":512,\"depth\"",
     "hidden_size=512"},
    {qwen2vl_2b, "\"num_hidden_layers\":28", "\"num_hidden_layers\":129", "num_hidden_layers"},
    {qwen2vl_2b, "\"num_key_value_heads\":2", "\"num_key_value_heads\":5",
     "no multiple of num_key_value_heads=5"},
    {qwen2vl_2b, "\"num_attention_heads\":12", "\"num_attention_heads\":2048", "head width of 0"},
    {qwen2vl_2b, "\"num_heads\":16", "\"num_heads\":7", "heads of equal width"},
    {qwen2vl_2b, "\"mlp_ratio\":4", "\"mlp_ratio\":1e9", "mlp_ratio"},
    {qwen2vl_2b, "151655", "999999", "outside the vocabulary"},
    {qwen2vl_2b, "\"torch_dtype\"", "\"quantization_config\":{\"bits\":4},\"torch_dtype\"",
     "quantization_config={\"bits\":4}"},
    {qwen2vl_2b, "\"attention_dropout\":0.0", "\"attention_dropout\":0.1",
     "attention_dropout=0.1"},
    {qwen2vl_2b, "\"torch_dtype\"", "\"layer_types\":[\"sliding_attention\"],\"torch_dtype\"",
     "'sliding_attention'"},
    {pixtral_12b, "\"sliding_window\":null", "\"sliding_window\":4096", "sliding_window=4096"},
    {pixtral_12b, "\"sliding_window\":null,", "", "sliding_window is missing"},
    {pixtral_12b, "\"model_type\":\"mistral\"", "\"model_type\":\"gemma\"",
     "model_type=\"gemma\""},
    {pixtral_12b, "\"model_type\":\"pixtral\"", "\"model_type\":\"clip_vision_model\"",
     "model_type=\"clip_vision_model\""},
    {pixtral_12b, "\"projector_hidden_act\":\"gelu\"", "\"projector_hidden_act\":\"relu\"",
     "projector_hidden_act=\"relu\""},
    {pixtral_12b, "\"vision_feature_layer\":-1", "\"vision_feature_layer\":-2",
     "vision_feature_layer=-2"},
    {pixtral_12b, "\"vision_feature_layer\":-1,", "", "'vision_feature_layer' is missing"},
    {pixtral_12b, "\"full\"", "\"default\"", "vision_feature_select_strategy=\"default\""},
    {pixtral_12b, "\"hidden_act\":\"gelu\"", "\"hidden_act\":\"relu\"", "hidden_act=\"relu\""},
    {pixtral_12b, "\"head_dim\":64", "\"head_dim\":32", "heads of equal width"},
    {pixtral_12b, "\"head_dim\":128", "\"head_dim\":127", "head width of 127"},
    {pixtral_12b, "\"rope_theta\":1000000000.0", "\"rope_theta\":0", "rope_theta"},
    {pixtral_12b, "\"text_config\"", "\"text\"", "'text_config' is missing"},
};

TEST(hub_reader_refused) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        if (!CASE("%s", refusals[i].to[0] ? refusals[i].to : refusals[i].error)) {
            continue;
        }
        char *text = replaced_new(refusals[i].text, refusals[i].from, refusals[i].to);
        ReaderConfig config;
        const Error error = config_of(&config, text);
        EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, refusals[i].error), "%d: '%s'",
               error.code, error.text);
        free(text);
    }
}

// Damaged texts: an Error or a form that can be built, never a crash.
TEST(hub_reader_damaged) {
    static const char *const texts[] = {qwen2vl_2b, qwen2vl_7b, pixtral_12b};
    static const char alphabet[] = "0123456789-.e{}[]\":,\"nulltrue";
    Rng rng = check_rng(3);
    log_set_level(LOG_ERROR);
    int errors = 0, forms = 0;
    for (int round = 0; round < 3000; round++) {
        char *text = xstrdup(texts[round % 3]);
        const uint32_t size = (uint32_t)strlen(text), changes = 1 + rng_below(&rng, 3);
        for (uint32_t k = 0; k < changes; k++) {
            // Most of them digits for digits, so that what they say is read.
            uint32_t at = rng_below(&rng, size);
            for (uint32_t end = rng_below(&rng, 4) ? size : 0; at < end; at++) {
                if (text[at] >= '0' && text[at] <= '9') {
                    break;
                }
            }
            const bool is_digit = at < size && text[at] >= '0' && text[at] <= '9';
            text[at < size ? at : size - 1] =
                alphabet[rng_below(&rng, is_digit ? 10 : sizeof alphabet - 1)];
        }
        ReaderConfig config;
        const Error error = config_of(&config, text);
        EXPECT(!error.code || error.code == EXIT_BAD_DATA, "code %d: %s", error.code, error.text);
        errors += error.code != 0;
        forms += !error.code;
        if (!error.code && forms % 16 == 0) {
            Reader reader;
            reader_build(&reader, &config);
            reader_unbuild(&reader);
        }
        free(text);
    }
    EXPECT(errors > 500 && forms > 500, "%d errors, %d forms", errors, forms);
}

// ---- both eras ----
// The new era keeps the language model's fields inside text_config and rope in rope_parameters.
TEST(hub_reader_eras) {
    char *old = xformat_new("{\"model_type\":\"qwen2_vl\",%s,%s,\"rope_theta\":500.0,"
                            "\"tie_word_embeddings\":true,"
                            "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[2,1,1]}}",
                            TINY_TEXT, TINY_EYES),
         *new = xformat_new("{\"model_type\":\"qwen2_vl\",\"text_config\":{%s,\"rope_parameters\":{"
                            "\"rope_type\":\"default\",\"rope_theta\":500.0,"
                            "\"mrope_section\":[2,1,1]},\"tie_word_embeddings\":false},%s,"
                            "\"tie_word_embeddings\":true}", TINY_TEXT, TINY_EYES);
    ReaderConfig a, b;
    Error error = config_of(&a, old);
    EXPECT(error.code == 0, "%s", error.text);
    error = config_of(&b, new);
    EXPECT(error.code == 0, "%s", error.text);
    EXPECT(a.theta == 500 && b.theta == 500 && a.is_tied && b.is_tied, "theta %g, %g", a.theta,
           b.theta);
    EXPECT(memcmp(a.sections, b.sections, sizeof a.sections) == 0 && a.sections[0] == 2,
           "sections %d, %d", a.sections[0], b.sections[0]);
    EXPECT(a.block.C == b.block.C && a.block.D == b.block.D && a.block.Hkv == b.block.Hkv &&
               a.V == b.V && a.vision.block.F == b.vision.block.F && a.image_id == b.image_id,
           "C=%d, %d", a.block.C, b.block.C);
    free(old);
    free(new);
}

// ---- folders ----
TEST(hub_reader_folder) {
    const char *dir = check_tmpdir();
    char *text = xstrdup(TINY_QWEN2VL), *shard = file_join_new(dir, "b.safetensors");
    ReaderConfig config;
    error_die("text", config_of(&config, text));
    Reader *from = reader_new(check_device(), DT_BF16, &config, false), *to;
    tensors_formula(&from->tensors);
    reader_folder_write(dir, text, from);
    HubFolder folder;
    SafeStore store;
    error_die(dir, hub_open_new(&folder, dir));
    EXPECT(folder.family == HUB_QWEN2_VL, "family %d", (int)folder.family);
    Error error = hub_reader_new(&to, &store, check_device(), DT_BF16, &config, folder.weights,
                                 false, true);
    EXPECT(error.code == 0, "%s", error.text);
    for (int i = 0; i < to->tensors.count; i++) {
        const Tensor *a = to->tensors.tensor[i], *b = from->tensors.tensor[i];
        EXPECT(a->is_borrowed == (device_kind(check_device()) == DEVICE_CPU) &&
                   is_same_on_device(check_device(), a->data, b->data, a->count * sizeof(bf16)),
               "%s differs", a->name);
    }
    reader_free(to);
    safestore_free(&store);
    error_die(shard, file_remove_tree(shard));
    error = hub_reader_new(&to, &store, check_device(), DT_BF16, &config, folder.weights, false,
                           true);
    EXPECT(error.code == EXIT_NO_INPUT && strstr(error.text, "b.safetensors") && !to, "%d: '%s'",
           error.code, error.text);
    reader_free(from);
    hub_free(&folder);
    free(text);
    free(shard);
}
