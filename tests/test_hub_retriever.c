// test_hub_retriever: configurations of published checkpoints give towers with the published number
// of parameters; what would change the computation is refused by its name; damaged folders are
// refused in one line. Agreement of what comes out: test_retriever_reference.
#include "host/hub_retriever.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "tests/check.h"

// ---- published configurations: the fields that matter, as the files have them ----
static const char jina[] =
    "{\"model_type\": \"jina_clip\", \"add_projections\": false, \"projection_dim\": 768,"
    " \"logit_scale_init_value\": 2.6592, \"torch_dtype\": \"float32\", \"text_config\":"
    " {\"embed_dim\": 768, \"hf_model_config_kwargs\": {\"use_flash_attn\": false},"
    " \"hf_model_name_or_path\": \"jinaai/jina-bert-flash-implementation\","
    " \"model_type\": \"jina_clip_text\", \"pad_token_id\": null, \"pooler_type\": \"mean_pooler\","
    " \"proj_bias\": false, \"proj_type\": null}, \"vision_config\": {\"embed_dim\": 768,"
    " \"fused_layer_norm\": false, \"head_width\": 64, \"image_size\": 224, \"intp_freq\": false,"
    " \"layers\": 12, \"ls_init_value\": null, \"mlp_ratio\": 2.6667, \"naive_swiglu\": true,"
    " \"patch_dropout\": 0.1, \"patch_size\": 16, \"post_norm\": false, \"pt_hw_seq_len\": 14,"
    " \"qkv_bias\": true, \"rope_embeddings\": true, \"subln\": true, \"width\": 768,"
    " \"x_attention\": true}}";
static const char clip_b32[] =
    "{\"model_type\": \"clip\", \"projection_dim\": 512, \"text_config\": {\"eos_token_id\": 2,"
    " \"hidden_act\": \"quick_gelu\", \"hidden_size\": 512}, \"vision_config\": {\"dropout\": 0.0,"
    " \"hidden_act\": \"quick_gelu\", \"patch_size\": 32}, \"text_config_dict\": null}";
static const char clip_b16[] =
    "{\"model_type\": \"clip\", \"projection_dim\": 512, \"text_config\": {\"eos_token_id\": 2},"
    " \"vision_config\": {\"patch_size\": 16}}";
static const char clip_l14[] =
    "{\"model_type\": \"clip\", \"projection_dim\": 768, \"text_config\": {\"eos_token_id\": 2},"
    " \"text_config_dict\": {\"hidden_size\": 768, \"intermediate_size\": 3072,"
    " \"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"projection_dim\": 768},"
    " \"vision_config\": {\"hidden_size\": 1024, \"intermediate_size\": 4096,"
    " \"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"patch_size\": 14,"
    " \"projection_dim\": 768}}";
static const char open_clip_b32[] =
    "{\"model_cfg\": {\"embed_dim\": 512, \"quick_gelu\": true, \"vision_cfg\":"
    " {\"image_size\": 224, \"layers\": 12, \"width\": 768, \"patch_size\": 32}, \"text_cfg\":"
    " {\"context_length\": 77, \"vocab_size\": 49408, \"width\": 512, \"heads\": 8,"
    " \"layers\": 12}}, \"preprocess_cfg\": {\"mean\": [0.48, 0.45, 0.40]}}";
static const char open_clip_l14[] =
    "{\"model_cfg\": {\"embed_dim\": 768, \"vision_cfg\": {\"image_size\": 224, \"layers\": 24,"
    " \"width\": 1024, \"patch_size\": 14}, \"text_cfg\": {\"context_length\": 77,"
    " \"vocab_size\": 49408, \"width\": 768, \"heads\": 12, \"layers\": 12}}}";
static const char biomedclip[] =
    "{\"model_cfg\": {\"embed_dim\": 512, \"vision_cfg\": {\"timm_model_name\":"
    " \"vit_base_patch16_224\", \"timm_model_pretrained\": false, \"timm_pool\": \"\","
    " \"timm_proj\": \"linear\", \"image_size\": 224}, \"text_cfg\": {\"hf_model_name\":"
    " \"microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract\", \"hf_tokenizer_name\":"
    " \"microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract\", \"hf_proj_type\": \"mlp\","
    " \"hf_pooler_type\": \"cls_last_hidden_state_pooler\", \"context_length\": 256}}}";
static const char minilm[] =
    "{\"model_type\": \"bert\", \"attention_probs_dropout_prob\": 0.1, \"hidden_act\": \"gelu\","
    " \"hidden_size\": 384, \"intermediate_size\": 1536, \"layer_norm_eps\": 1e-12,"
    " \"max_position_embeddings\": 512, \"num_attention_heads\": 12, \"num_hidden_layers\": 6,"
    " \"pad_token_id\": 0, \"position_embedding_type\": \"absolute\", \"type_vocab_size\": 2,"
    " \"vocab_size\": 30522}";

static Error parse(HubRetriever *hub, const char *text) {
    return hub_retriever_parse(hub, text, strlen(text), strstr(text, "model_cfg") != NULL);
}

// ---- sizes ----
TEST(hub_retriever_parameters) {
    static const struct {
        const char *name, *config;
        size_t vision, text; // published, each with its projection
        int max_tokens;
    } models[] = {
        {"jina-clip-v1", jina, 85869312, 136777728, 8192},
        {"clip-vit-b-32", clip_b32, 87849216, 63428096, 77},
        {"clip-vit-b-16", clip_b16, 86192640, 63428096, 77},
        {"clip-vit-l-14", clip_l14, 303966208, 123650304, 77},
        {"open_clip ViT-B-32", open_clip_b32, 87849216, 63428096, 77},
        {"open_clip ViT-L-14", open_clip_l14, 303966208, 123650304, 77},
        {"biomedclip", biomedclip, 86191872, 109710848, 256},
        {"minilm-l6", minilm, 0, 22565376, 512}, // its pooler of 147,840 is not used
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (!CASE("%s", models[i].name)) {
            continue;
        }
        HubRetriever hub;
        const Error error = parse(&hub, models[i].config);
        EXPECT(error.code == 0, "%s", error.text);
        if (error.code) {
            continue;
        }
        Retriever retriever;
        retriever_build(&retriever, &hub.config);
        size_t vision = 0, text = 0;
        for (int k = 0; k < retriever.tensors.count; k++) {
            const Tensor *tensor = retriever.tensors.tensor[k];
            const bool is_vision = strncmp(tensor->name, "vis", 3) == 0;
            vision += is_vision ? tensor->count : 0;
            text += is_vision || tensor == retriever.logit_scale ? 0 : tensor->count;
        }
        EXPECT(vision == models[i].vision, "%zu vision parameters", vision);
        EXPECT(text == models[i].text, "%zu text parameters", text);
        EXPECT(hub.max_tokens == models[i].max_tokens, "max_tokens=%d", hub.max_tokens);
        RetrieverConfig preset; // what was written by hand must agree where both exist
        if (retriever_preset(&preset, models[i].name)) {
            EXPECT(memcmp(&preset.image, &hub.config.image, sizeof preset.image) == 0 ||
                       hub.family == HUB_BERT, "image tower is not the preset's");
            hub.config.text.eos = preset.text.eos;
            EXPECT(memcmp(&preset.text, &hub.config.text, sizeof preset.text) == 0,
                   "text tower is not the preset's");
        }
        retriever_unbuild(&retriever);
    }
}

// text with one field's value replaced; the field must be in it once.
static char *changed_new(const char *text, const char *field, const char *value) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", field);
    const char *at = strstr(text, quoted);
    CHECK(at, "no '%s'", field);
    const char *old = at + strlen(quoted), *end = old + strcspn(old, ",}");
    return xformat_new("%.*s%s%s", (int)(old - text), text, value, end);
}

TEST(hub_retriever_choices) {
    HubRetriever hub;
    EXPECT(parse(&hub, clip_b32).code == 0 && hub.config.text.pool == POOL_LARGEST_ID, "eos 2");
    EXPECT(parse(&hub, "{\"model_type\": \"clip\"}").code == 0 &&
               hub.config.text.pool == POOL_EOS && hub.config.text.eos == 49407,
           "pool %d eos %d", (int)hub.config.text.pool, hub.config.text.eos);
    EXPECT(parse(&hub, open_clip_b32).code == 0 && hub.config.image.block.act == ACT_QUICK_GELU &&
               hub.config.text.block.act == ACT_QUICK_GELU, "quick_gelu");
    EXPECT(parse(&hub, open_clip_l14).code == 0 && hub.config.image.block.act == ACT_GELU &&
               hub.config.text.block.act == ACT_GELU, "gelu");
    EXPECT(parse(&hub, "{\"model_type\": \"clip\", \"vision_config\": {\"layer_norm_eps\": 0.5},"
                       " \"text_config\": {\"layer_norm_eps\": 0.25}}").code == 0 &&
               hub.config.image.block.eps == 0.5f && hub.config.text.block.eps == 0.25f,
           "eps %g and %g", (double)hub.config.image.block.eps, (double)hub.config.text.block.eps);
    char *narrow = changed_new(biomedclip, "embed_dim", "256");
    EXPECT(parse(&hub, narrow).code == 0 && hub.config.text.head_hidden == 512 &&
               hub.config.text.E == 256, "head of %d", hub.config.text.head_hidden);
    free(narrow);
    const char cls[] = "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}",
               both[] = "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true}",
               max[] = "{\"pooling_mode_max_tokens\": true}";
    EXPECT(parse(&hub, minilm).code == 0 && hub.config.text.pool == POOL_MEAN, "mean");
    EXPECT(hub_retriever_parse_pooling(&hub, both, sizeof both - 1).code == EXIT_BAD_DATA, "both");
    EXPECT(hub_retriever_parse_pooling(&hub, max, sizeof max - 1).code == EXIT_BAD_DATA, "max");
    EXPECT(hub_retriever_parse_pooling(&hub, cls, sizeof cls - 1).code == 0 &&
               hub.config.text.pool == POOL_FIRST, "cls");
}

// ---- refusals ----
// size: a table of what is refused.
TEST(hub_retriever_refusals) {
    static const struct {
        const char *config, *field, *value, *wanted;
    } cases[] = {
        {jina, "model_type", "\"siglip\"", "siglip"},
        {jina, "model_type", "\"qwen2_vl\"", "is a reader"},
        {jina, "model_type", "7", "wants a text"},
        {jina, "add_projections", "true", "add_projections=true"},
        {jina, "pooler_type", "\"cls_pooler\"", "pooler_type=\"cls_pooler\""},
        {jina, "proj_type", "\"linear\"", "proj_type=\"linear\""},
        {jina, "hf_model_name_or_path", "\"bert-base-uncased\"", "hf_model_name_or_path"},
        {jina, "use_flash_attn", "false, \"position_embedding_type\": \"absolute\"",
         "position_embedding_type"},
        {jina, "intp_freq", "true", "intp_freq=true"},
        {jina, "subln", "false", "subln=false"},
        {jina, "qkv_bias", "false", "qkv_bias=false"},
        {jina, "rope_embeddings", "false", "rope_embeddings=false"},
        {jina, "ls_init_value", "0.1", "ls_init_value=0.1"},
        {jina, "pt_hw_seq_len", "16", "pt_hw_seq_len=16"},
        {jina, "head_width", "63", "head_width"},
        {jina, "head_width", "6", "multiples of 4"},
        {jina, "layers", "129", "layers"},
        {jina, "layers", "0", "layers"},
        {jina, "patch_size", "15", "patch_size"},
        {jina, "mlp_ratio", "1e300", "mlp_ratio"},
        {jina, "mlp_ratio", "-1", "mlp_ratio"},
        {jina, "width", "512", "embed_dim=768"},
        {clip_b32, "hidden_act", "\"relu\"", "hidden_act=relu"},
        {clip_b32, "hidden_size", "510", "heads"},
        {clip_b32, "patch_size", "3.5", "wants an integer"},
        {clip_b32, "dropout", "0.0, \"num_channels\": 1", "num_channels=1"},
        {clip_b32, "text_config_dict", "[]", "text_config_dict"},
        {open_clip_b32, "embed_dim", "512, \"init_logit_bias\": -10", "init_logit_bias=-10"},
        {open_clip_b32, "layers", "[3, 4, 6, 3]", "layers"},
        {open_clip_b32, "context_length", "77, \"no_causal_mask\": true", "no_causal_mask=true"},
        {open_clip_b32, "context_length", "77, \"pool_type\": \"last\"", "pool_type=\"last\""},
        {biomedclip, "timm_model_name", "\"vit_base_patch32_clip_224\"", "vit_base_patch32_clip"},
        {biomedclip, "timm_model_name", "\"convnext_base\"", "convnext_base"},
        {biomedclip, "timm_pool", "\"avg\"", "timm_pool=\"avg\""},
        {biomedclip, "timm_proj", "\"mlp\"", "timm_proj=\"mlp\""},
        {biomedclip, "hf_model_name", "\"roberta-base\"", "roberta-base"},
        {biomedclip, "hf_proj_type", "\"linear\"", "hf_proj_type=\"linear\""},
        {biomedclip, "hf_pooler_type", "\"cls_pooler\"", "hf_pooler_type=\"cls_pooler\""},
        {minilm, "hidden_act", "\"gelu_new\"", "hidden_act=\"gelu_new\""},
        {minilm, "position_embedding_type", "\"relative_key\"", "position_embedding_type"},
        {minilm, "pad_token_id", "0, \"is_decoder\": true", "is_decoder=true"},
        {minilm, "layer_norm_eps", "0", "layer_norm_eps"},
        {minilm, "vocab_size", "99999999999", "vocab_size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s %.40s", cases[i].field, cases[i].value)) {
            continue;
        }
        char *text = changed_new(cases[i].config, cases[i].field, cases[i].value);
        HubRetriever hub;
        const Error error = parse(&hub, text);
        EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, cases[i].wanted), "%d '%s'",
               (int)error.code, error.text);
        free(text);
    }
}

// Cut anywhere, or with a byte changed, it is refused or read, and nothing else happens.
TEST(hub_retriever_damage) {
    static const char *const texts[] = {jina, clip_l14, open_clip_b32, biomedclip, minilm};
    Rng rng = check_rng(1);
    int read = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const size_t size = strlen(texts[i]);
        char *copy = xmalloc(size, 1);
        for (int k = 0; k < 2000; k++) {
            memcpy(copy, texts[i], size);
            const size_t kept = k < 1000 ? rng_below(&rng, (uint32_t)size) : size;
            for (int j = 0; k >= 1000 && j < 1 + k % 3; j++) {
                static const char bytes[] = "0123456789{}[]\",:ntf";
                copy[rng_below(&rng, (uint32_t)size)] = bytes[rng_below(&rng, sizeof bytes - 1)];
            }
            HubRetriever hub;
            const Error error = hub_retriever_parse(&hub, copy, kept,
                                                    strstr(texts[i], "model_cfg") != NULL);
            EXPECT(error.code == 0 || error.code == EXIT_BAD_DATA, "code %d", (int)error.code);
            if (!error.code) {
                const BlockConfig *block = &hub.config.text.block;
                EXPECT(block->H >= 1 && block->D * block->H == block->C &&
                           hub.config.text.L <= MAX_LAYERS,
                       "H=%d D=%d C=%d", block->H, block->D, block->C);
                read++;
            }
        }
        free(copy);
    }
    EXPECT(read > 0, "nothing was read");
}

// ---- folders ----
static void put(const char *dir, const char *name, const char *text) {
    char *path = file_join_new(dir, name);
    error_die(path, file_replace(path, text, strlen(text)));
    free(path);
}

TEST(hub_retriever_folders) {
    HubRetriever hub;
    const char *dir = check_tmpdir();
    EXPECT(hub_retriever_open_new(&hub, "/nonexistent").code == EXIT_NO_INPUT, "no folder");
    Error error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == EXIT_NO_INPUT && strstr(error.text, "config.json"), "%s", error.text);
    put(dir, "open_clip_config.json", biomedclip);
    error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == EXIT_NO_INPUT && strstr(error.text, "convert_original"), "%s",
           error.text);
    put(dir, "config.json", "{\"architecture\": \"vit_base\"}"); // timm's, beside open_clip's
    put(dir, "open_clip_model.safetensors", "");
    error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == 0 && hub.family == HUB_OPEN_CLIP, "%s", error.text);
    hub_retriever_free(&hub);
    put(dir, "config.json", minilm); // wins over open_clip's
    put(dir, "sentence_bert_config.json", "{\"max_seq_length\": 256}");
    put(dir, "model.safetensors", "");
    error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == 0 && hub.family == HUB_BERT && hub.max_tokens == 256, "%s, max_tokens=%d",
           error.text, hub.max_tokens);
    Retriever retriever;
    SafeStore store;
    retriever_build(&retriever, &hub.config);
    error = hub_retriever_load(&retriever, check_device(), DT_F32, &store, &hub);
    EXPECT(error.code == EXIT_BAD_DATA, "an empty file gave %d", (int)error.code);
    retriever_unbuild(&retriever);
    hub_retriever_free(&hub);
    put(dir, "sentence_bert_config.json", "{\"max_seq_length\": 1024}");
    error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "max_seq_length"), "%s", error.text);
    put(dir, "config.json", "{\"model_type\": \"bert\"");
    error = hub_retriever_open_new(&hub, dir);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "config.json"), "%s", error.text);
}

// A BERT of another writer: below "bert.", norms with gamma and beta, heads of its pretraining.
TEST(hub_retriever_old_bert) {
    static const char config[] =
        "{\"model_type\": \"bert\", \"hidden_size\": 8, \"intermediate_size\": 12,"
        " \"max_position_embeddings\": 4, \"num_attention_heads\": 2, \"num_hidden_layers\": 1,"
        " \"vocab_size\": 7}";
    const char *dir = check_tmpdir();
    put(dir, "config.json", config);
    HubRetriever hub;
    Retriever retriever;
    EXPECT(parse(&hub, config).code == 0, "config");
    retriever_build(&retriever, &hub.config);
    SafeTensor tensors[40];
    char *names[40];
    int count = retriever.tensors.count;
    float *values = xmalloc(256, sizeof *values);
    for (int i = 0; i < 256; i++) {
        values[i] = (float)i;
    }
    for (int i = 0; i < count; i++) {
        const Tensor *tensor = retriever.tensors.tensor[i];
        const char *norm = strstr(tensor->file, "LayerNorm.");
        names[i] = norm ? xformat_new("bert.%.*sLayerNorm.%s", (int)(norm - tensor->file),
                                      tensor->file, norm[10] == 'w' ? "gamma" : "beta")
                        : xformat_new("bert.%s", tensor->file);
        tensors[i] = (SafeTensor){.name = names[i], .type = SAFE_F32, .rank = tensor->rank,
                                  .data = values};
        for (int k = 0; k < tensor->rank; k++) {
            tensors[i].shape[k] = (size_t)tensor->shape[k];
        }
    }
    names[count] = xstrdup("cls.predictions.bias");
    tensors[count] = (SafeTensor){.name = names[count], .type = SAFE_F32, .rank = 1, .shape = {7},
                                  .data = values};
    char *path = file_join_new(dir, "model.safetensors");
    error_die(path, safetensors_write(path, tensors, ++count, NULL, 0));
    error_die(dir, hub_retriever_open_new(&hub, dir));
    SafeStore store;
    const Error error = hub_retriever_load(&retriever, check_device(), DT_F32, &store, &hub);
    EXPECT(error.code == 0, "%s", error.text);
    float read[8];
    tensor_read(&retriever.tensors, retriever.text.embed_norm.bias, read);
    EXPECT(read[7] == 7, "beta ends in %g", read[7]);
    for (int i = 0; i < count; i++) {
        free(names[i]);
    }
    free(path);
    free(values);
    retriever_unbuild(&retriever);
    safestore_free(&store);
    hub_retriever_free(&hub);
}
