// hub_retriever: see hub_retriever.h.
#include "hub_retriever.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#define MAX_WIDTH 65536
#define MAX_VOCAB 4194304
#define MAX_CONTEXT 1048576
#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

static Error refuse(const char *fmt, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, fmt, what);
}

// ---- shapes ----
// Heads of a block from its width; the ops' limits.
static Error set_heads(BlockConfig *block, int H) {
    if (block->C % H != 0 || block->C / H > 256 || (block->has_rope && block->C / H % 4 != 0)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "%d heads in a width of %d: head widths are "
                        "whole, at most 256%s", H, block->C,
                        block->has_rope ? ", and multiples of 4" : "");
    }
    block->H = block->Hkv = H;
    block->D = block->C / H;
    return error_none();
}

static Error check_patches(const ImageTowerConfig *image) {
    if (image->image_size % image->P != 0) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "an image_size of %d is no multiple of the "
                        "patch_size %d", image->image_size, image->P);
    }
    return error_none();
}

// mlp_ratio as the originals round it: towards zero.
static Error read_ratio(const json_t *config, int C, double fallback, int *F) {
    double ratio = fallback;
    const Error error = json_member_number(config, "mlp_ratio", false, &ratio);
    if (!error.code && !(ratio * C >= 1 && ratio * C <= MAX_WIDTH)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "field mlp_ratio=%g of a width of %d", ratio,
                        C);
    }
    *F = error.code ? *F : (int)(ratio * C);
    return error;
}

static Error read_eps(const json_t *config, float *eps) {
    double value = *eps;
    const Error error = json_member_number(config, "layer_norm_eps", false, &value);
    if (!error.code && !(value > 0 && value < 1)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "field layer_norm_eps=%g", value);
    }
    *eps = (float)value;
    return error;
}

static Error read_activation(const json_t *config, Activation *act) {
    const char *name = NULL;
    const Error error = json_member_text(config, "hidden_act", false, &name);
    if (!error.code && name && strcmp(name, "gelu") != 0 && strcmp(name, "quick_gelu") != 0) {
        return refuse("field hidden_act=%.40s changes the computation; supported: gelu quick_gelu",
                      name);
    }
    if (!error.code && name) {
        *act = name[0] == 'q' ? ACT_QUICK_GELU : ACT_GELU;
    }
    return error;
}

// A nested object that must be there.
static Error part(const json_t *config, const char *name, const json_t **out) {
    *out = NULL;
    return json_member_object(config, name, true, out);
}

// ---- jina-clip-v1 ----
static Error parse_jina_image(ImageTowerConfig *image, const json_t *config) {
    static const HubFixed fixed[] = {
        {"naive_swiglu", "true"}, {"intp_freq", "false"}, {"ls_init_value", "null"},
        {"qkv_bias", "true"}, {"rope_embeddings", "true"}, {"subln", "true"},
        {"post_norm", "false"}, {"num_classes", "0"}, {"proj_type", "null"},
    };
    int width = image->block.D, seq_len = 0, embed_dim = 0;
    BlockConfig *block = &image->block;
    const HubInt fields[] = {
        {"width", &block->C, 1, MAX_WIDTH}, {"layers", &image->L, 1, MAX_LAYERS},
        {"head_width", &width, 1, 256}, {"image_size", &image->image_size, 1, 32768},
        {"patch_size", &image->P, 1, 1024}, {"pt_hw_seq_len", &seq_len, 1, 32768},
        {"embed_dim", &embed_dim, 1, MAX_WIDTH},
    };
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : read_ratio(config, block->C, 2.6667, &block->F);
    error = error.code ? error : check_patches(image);
    if (!error.code && block->C % width != 0) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "a width of %d is no multiple of the "
                         "head_width %d", block->C, width);
    }
    error = error.code ? error : set_heads(block, block->C / width);
    if (!error.code && seq_len && seq_len != image->image_size / image->P) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "field pt_hw_seq_len=%d changes the "
                         "computation; supported: %d, the patches of a side", seq_len,
                         image->image_size / image->P);
    }
    if (!error.code && embed_dim && embed_dim != block->C) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "vision_config: embed_dim=%d but width=%d; "
                         "projections are not supported", embed_dim, block->C);
    }
    image->E = block->C;
    return error;
}

// The text tower's sizes are those of another repository's configuration, built in; its
// hf_model_config_kwargs override them, as they do in the original.
static Error parse_jina_text(TextTowerConfig *text, const json_t *config) {
    static const HubFixed fixed[] = {
        {"pooler_type", "\"mean_pooler\""}, {"proj_type", "null"}, {"proj_bias", "false"},
        {"pad_token_id", "0"}, {"hf_model_name_or_path",
                                "\"jinaai/jina-bert-flash-implementation\""},
    };
    static const HubFixed fixed_kwargs[] = {
        {"hidden_act", "\"gelu\""}, {"mlp_type", "\"glu\""}, {"attention_qk_norm", "false"},
        {"position_embedding_type", "\"alibi\""}, {"pad_token_id", "0"}, {"window_size", "[-1,-1]"},
        {"use_qk_norm", "false"}, {"dense_seq_output", "false"}, {"fused_bias_fc", "false"},
    };
    const json_t *kwargs = NULL;
    int embed_dim = 0, H = text->block.H;
    BlockConfig *block = &text->block;
    const HubInt fields[] = {{"embed_dim", &embed_dim, 1, MAX_WIDTH}};
    const HubInt sizes[] = {
        {"vocab_size", &text->V, 1, MAX_VOCAB}, {"hidden_size", &block->C, 1, MAX_WIDTH},
        {"num_hidden_layers", &text->L, 1, MAX_LAYERS}, {"num_attention_heads", &H, 1, MAX_WIDTH},
        {"intermediate_size", &block->F, 1, MAX_WIDTH}, {"type_vocab_size", &text->types, 0, 1024},
    };
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    error = error.code ? error
                       : json_member_object(config, "hf_model_config_kwargs", false, &kwargs);
    error = error.code ? error : hub_expect(kwargs, fixed_kwargs, COUNT(fixed_kwargs));
    error = error.code ? error : hub_ints(kwargs, sizes, COUNT(sizes));
    error = error.code ? error : read_eps(kwargs, &block->eps);
    error = error.code ? error : set_heads(block, H);
    if (!error.code && embed_dim && embed_dim != block->C) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "text_config: embed_dim=%d but the text "
                         "tower is %d wide; projections are not supported", embed_dim, block->C);
    }
    text->E = block->C;
    return error;
}

static Error parse_jina(HubRetriever *out, const json_t *config) {
    static const HubFixed fixed[] = {{"add_projections", "false"}};
    const json_t *vision, *text;
    retriever_preset(&out->config, "jina-clip-v1");
    out->max_tokens = 8192; // ALiBi has no table; this is what the tower was trained for
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : part(config, "vision_config", &vision);
    error = error.code ? error : part(config, "text_config", &text);
    error = error.code ? error : parse_jina_image(&out->config.image, vision);
    return error.code ? error : parse_jina_text(&out->config.text, text);
}

// ---- CLIP, transformers ----
// NAME of the configuration, and over it NAME_dict, which older files have beside it. *out is a new
// reference.
static Error clip_part_new(const json_t *config, const char *name, json_t **out) {
    char dict[32];
    snprintf(dict, sizeof dict, "%s_dict", name);
    const json_t *own = NULL, *over = NULL;
    Error error = json_member_object(config, name, false, &own);
    error = error.code ? error : json_member_object(config, dict, false, &over);
    *out = own ? json_deep_copy(own) : json_object();
    if (over) {
        json_object_update(*out, (json_t *)over);
    }
    return error;
}

// What the two towers' configurations share.
static Error parse_clip_block(BlockConfig *block, int *L, int default_width, int default_heads,
                              const json_t *config) {
    block->C = default_width;
    block->F = 4 * default_width;
    *L = 12;
    int H = default_heads;
    const HubInt fields[] = {
        {"hidden_size", &block->C, 1, MAX_WIDTH}, {"intermediate_size", &block->F, 1, MAX_WIDTH},
        {"num_hidden_layers", L, 1, MAX_LAYERS}, {"num_attention_heads", &H, 1, MAX_WIDTH},
    };
    Error error = hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : read_eps(config, &block->eps);
    error = error.code ? error : read_activation(config, &block->act);
    return error.code ? error : set_heads(block, H);
}

static Error parse_clip_image(ImageTowerConfig *image, const json_t *config) {
    static const HubFixed fixed[] = {{"num_channels", "3"}};
    const HubInt fields[] = {{"image_size", &image->image_size, 1, 32768},
                             {"patch_size", &image->P, 1, 1024}};
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : parse_clip_block(&image->block, &image->L, 768, 12, config);
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    return error.code ? error : check_patches(image);
}

// Which row stands for a text: files from before the tokenizer's ids were written say eos 2, which
// means the largest id.
static Error parse_clip_text(TextTowerConfig *text, const json_t *config) {
    text->eos = 49407;
    const HubInt fields[] = {{"vocab_size", &text->V, 1, MAX_VOCAB},
                             {"max_position_embeddings", &text->max_T, 1, MAX_CONTEXT},
                             {"eos_token_id", &text->eos, 0, MAX_VOCAB}};
    Error error = parse_clip_block(&text->block, &text->L, 512, 8, config);
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    text->pool = text->eos == 2 ? POOL_LARGEST_ID : POOL_EOS;
    return error;
}

static Error parse_clip(HubRetriever *out, const json_t *config) {
    retriever_preset(&out->config, "clip-vit-b-32");
    int E = 512;
    json_t *vision = NULL, *text = NULL;
    const HubInt fields[] = {{"projection_dim", &E, 1, MAX_WIDTH}};
    Error error = hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : clip_part_new(config, "vision_config", &vision);
    error = error.code ? error : clip_part_new(config, "text_config", &text);
    error = error.code ? error : parse_clip_image(&out->config.image, vision);
    error = error.code ? error : parse_clip_text(&out->config.text, text);
    out->config.image.E = out->config.text.E = E;
    out->max_tokens = out->config.text.max_T;
    json_decref(vision);
    json_decref(text);
    return error;
}

// ---- open_clip ----
// Sizes of timm's plain vision transformers by name: vit_SIZE_patchP_224, with or without a tag.
static Error parse_timm_name(ImageTowerConfig *image, const char *name) {
    static const struct {
        const char *size;
        int C, H, L;
    } sizes[] = {{"tiny", 192, 3, 12}, {"small", 384, 6, 12}, {"base", 768, 12, 12},
                 {"large", 1024, 16, 24}};
    char size[16];
    int P, trained, used = 0;
    if (sscanf(name, "vit_%15[a-z]_patch%d_%d%n", size, &P, &trained, &used) == 3 && P >= 1 &&
        P <= 64 && (name[used] == '\0' || name[used] == '.')) {
        for (int i = 0; i < COUNT(sizes); i++) {
            if (strcmp(size, sizes[i].size) == 0) {
                image->P = P;
                image->L = sizes[i].L;
                image->block.C = sizes[i].C;
                image->block.F = 4 * sizes[i].C;
                return set_heads(&image->block, sizes[i].H);
            }
        }
    }
    return refuse("timm_model_name '%.60s' is not supported; vit_base_patch16_224 and its other "
                  "sizes are", name);
}

static Error parse_timm_image(ImageTowerConfig *image, const json_t *config, const char *name) {
    static const HubFixed fixed[] = {{"timm_pool", "\"\" \"token\""}, {"timm_proj", "\"linear\""},
                                     {"timm_proj_bias", "false"}};
    image_tower_preset(image, "biomedclip");
    const HubInt fields[] = {{"image_size", &image->image_size, 1, 32768}};
    if (!json_object_get(config, "timm_pool")) { // the default would be the mean of the patches
        return refuse("member '%s' is missing, \"\" or \"token\" is wanted", "timm_pool");
    }
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : parse_timm_name(image, name);
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    return error.code ? error : check_patches(image);
}

// Fields of open_clip's own towers that have another meaning than ours when they are set.
static const HubFixed open_clip_fixed[] = {
    {"ls_init_value", "null"}, {"norm_kwargs", "{}"}, {"act_kwargs", "{}"},
    {"block_type", "\"default\""}, {"qk_norm", "false"}, {"scaled_cosine_attn", "false"},
    {"scale_heads", "false"}, {"scale_attn_inner", "false"}, {"scale_attn", "false"},
    {"scale_fc", "false"}, {"final_ln_after_pool", "false"}, {"output_tokens", "false"},
    {"attentional_pool", "false"}, {"no_ln_pre", "false"}, {"pos_embed_type", "\"learnable\""},
    {"pool_type", "\"tok\" \"argmax\""}, {"embed_cls", "false"}, {"no_causal_mask", "false"},
    {"proj_type", "\"linear\""}, {"proj_bias", "false"},
};

// A vision or text configuration of open_clip's own towers. heads: of the text; the vision's follow
// from head_width.
static Error parse_open_clip_block(BlockConfig *block, int *L, const json_t *config, int heads) {
    int head_width = 64;
    *L = 12;
    block->C = heads ? 512 : 768;
    block->names = &block_names_open_clip;
    const HubInt fields[] = {
        {"width", &block->C, 1, MAX_WIDTH}, {"layers", L, 1, MAX_LAYERS},
        {"head_width", &head_width, 1, 256}, {"heads", &heads, 1, MAX_WIDTH},
    };
    Error error = hub_expect(config, open_clip_fixed, COUNT(open_clip_fixed));
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : read_ratio(config, block->C, 4, &block->F);
    if (!error.code && !heads && block->C % head_width != 0) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "a width of %d is no multiple of the "
                         "head_width %d", block->C, head_width);
    }
    return error.code ? error : set_heads(block, heads ? heads : block->C / head_width);
}

static Error parse_open_clip_image(ImageTowerConfig *image, const json_t *config, bool is_quick) {
    const char *timm = NULL;
    Error error = json_member_text(config, "timm_model_name", false, &timm);
    if (error.code || timm) {
        return error.code ? error : parse_timm_image(image, config, timm);
    }
    image_tower_preset(image, "clip-vit-b-16");
    image->form = IMAGE_OPEN_CLIP;
    image->block.act = is_quick ? ACT_QUICK_GELU : ACT_GELU;
    const HubInt fields[] = {{"image_size", &image->image_size, 1, 32768},
                             {"patch_size", &image->P, 1, 1024}};
    error = parse_open_clip_block(&image->block, &image->L, config, 0);
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    return error.code ? error : check_patches(image);
}

// A BERT of transformers behind an MLP head. Its sizes stand in another repository, so they follow
// from its name.
static Error parse_bert_head(TextTowerConfig *text, const json_t *config, const char *name, int E) {
    static const HubFixed fixed[] = {
        {"hf_proj_type", "\"mlp\""},
        {"hf_pooler_type", "\"cls_last_hidden_state_pooler\" \"mean_pooler\""},
        {"output_tokens", "false"},
    };
    static const char *const names[] = {
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
        "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
        "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext", "bert-base-uncased",
    };
    text_tower_preset(text, "biomedclip");
    bool is_known = false;
    for (int i = 0; i < COUNT(names); i++) {
        is_known = is_known || strcmp(names[i], name) == 0;
    }
    if (!is_known) {
        return refuse("hf_model_name '%.80s' is not supported; BiomedBERT and bert-base-uncased "
                      "are", name);
    }
    const char *pooler = "mean_pooler";
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : json_member_text(config, "hf_pooler_type", false, &pooler);
    text->pool = pooler[0] == 'm' ? POOL_MEAN : POOL_FIRST;
    text->head_hidden = (text->block.C + E) / 2;
    return error;
}

static Error parse_open_clip_text(TextTowerConfig *text, const json_t *config, bool is_quick, int E,
                                  int *max_tokens) {
    const char *name = NULL;
    Error error = json_member_text(config, "hf_model_name", false, &name);
    if (error.code) {
        return error;
    }
    *max_tokens = 77;
    const HubInt context[] = {{"context_length", max_tokens, 1, MAX_CONTEXT}};
    error = hub_ints(config, context, COUNT(context));
    if (name || error.code) {
        error = error.code ? error : parse_bert_head(text, config, name, E);
        *max_tokens = *max_tokens < text->max_T ? *max_tokens : text->max_T;
        return error;
    }
    text_tower_preset(text, "clip-vit-b-32");
    text->form = TEXT_OPEN_CLIP;
    text->prefix = "";
    text->block.act = is_quick ? ACT_QUICK_GELU : ACT_GELU;
    text->max_T = *max_tokens;
    const HubInt fields[] = {{"vocab_size", &text->V, 1, MAX_VOCAB}};
    error = parse_open_clip_block(&text->block, &text->L, config, 8);
    return error.code ? error : hub_ints(config, fields, COUNT(fields));
}

static Error parse_open_clip(HubRetriever *out, const json_t *whole) {
    static const HubFixed fixed[] = {{"init_logit_bias", "null"}, {"multimodal_cfg", "null"},
                                     {"nonscalar_logit_scale", "false"}};
    const json_t *config, *vision, *text;
    bool is_quick = false;
    int E = 512;
    out->config.has_images = true;
    const HubInt fields[] = {{"embed_dim", &E, 1, MAX_WIDTH}};
    Error error = part(whole, "model_cfg", &config);
    error = error.code ? error : hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : json_member_bool(config, "quick_gelu", false, &is_quick);
    error = error.code ? error : part(config, "vision_cfg", &vision);
    error = error.code ? error : part(config, "text_cfg", &text);
    error = error.code ? error : parse_open_clip_image(&out->config.image, vision, is_quick);
    error = error.code ? error
                       : parse_open_clip_text(&out->config.text, text, is_quick, E,
                                              &out->max_tokens);
    out->config.image.E = out->config.text.E = E;
    const bool is_timm = out->config.image.form == IMAGE_TIMM;
    if (!error.code && is_timm != (out->config.text.form == TEXT_BERT)) {
        return refuse("a %s together with the other library's text tower is not supported",
                      is_timm ? "timm_model_name" : "hf_model_name");
    }
    return error;
}

// ---- BERT ----
static Error parse_bert(HubRetriever *out, const json_t *config) {
    static const HubFixed fixed[] = {
        {"hidden_act", "\"gelu\""}, {"position_embedding_type", "\"absolute\""},
        {"is_decoder", "false"}, {"add_cross_attention", "false"},
    };
    TextTowerConfig *text = &out->config.text;
    text_tower_preset(text, "minilm-l6");
    BlockConfig *block = &text->block;
    int H = 12;
    block->C = 768;
    block->F = 3072;
    text->L = 12;
    const HubInt fields[] = {
        {"vocab_size", &text->V, 1, MAX_VOCAB}, {"hidden_size", &block->C, 1, MAX_WIDTH},
        {"num_hidden_layers", &text->L, 1, MAX_LAYERS}, {"num_attention_heads", &H, 1, MAX_WIDTH},
        {"intermediate_size", &block->F, 1, MAX_WIDTH}, {"type_vocab_size", &text->types, 1, 1024},
        {"max_position_embeddings", &text->max_T, 1, MAX_CONTEXT},
    };
    Error error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error : hub_ints(config, fields, COUNT(fields));
    error = error.code ? error : read_eps(config, &block->eps);
    error = error.code ? error : set_heads(block, H);
    text->E = block->C;
    out->config.image.E = text->E;
    out->max_tokens = text->max_T;
    return error;
}

Error hub_retriever_parse_pooling(HubRetriever *out, const void *text, size_t size) {
    static const HubFixed fixed[] = {
        {"pooling_mode_max_tokens", "false"}, {"pooling_mode_mean_sqrt_len_tokens", "false"},
        {"pooling_mode_weightedmean_tokens", "false"}, {"pooling_mode_lasttoken", "false"},
        {"pooling_mode", "\"mean\" \"cls\""},
    };
    json_t *config;
    Error error = json_parse_new(&config, text, size);
    if (error.code) {
        return error;
    }
    bool is_first = false, is_mean = false;
    const char *mode = NULL;
    error = hub_expect(config, fixed, COUNT(fixed));
    error = error.code ? error
                       : json_member_bool(config, "pooling_mode_cls_token", false, &is_first);
    error = error.code ? error
                       : json_member_bool(config, "pooling_mode_mean_tokens", false, &is_mean);
    error = error.code ? error : json_member_text(config, "pooling_mode", false, &mode);
    if (mode) {
        is_first = mode[0] == 'c';
        is_mean = !is_first;
    }
    json_decref(config);
    if (!error.code && is_first == is_mean) {
        return refuse("%s pooling modes are on; one of mean and cls is supported",
                      is_mean ? "two" : "no");
    }
    out->config.text.pool = is_first ? POOL_FIRST : POOL_MEAN;
    return error;
}

// ---- folders ----
static Error parse(HubRetriever *out, HubFamily family, const json_t *config) {
    out->family = family;
    switch (family) {
    case HUB_JINA_CLIP: return parse_jina(out, config);
    case HUB_CLIP: return parse_clip(out, config);
    case HUB_OPEN_CLIP: return parse_open_clip(out, config);
    case HUB_BERT: return parse_bert(out, config);
    default:
        return refuse("model_type %s is a reader; jina_clip, clip, bert and open_clip are "
                      "retrievers", hub_family_name(family));
    }
}

Error hub_retriever_parse(HubRetriever *out, const void *text, size_t size, bool is_open_clip) {
    *out = (HubRetriever){0};
    json_t *config;
    Error error = json_parse_new(&config, text, size);
    if (error.code) {
        return error;
    }
    HubFamily family = HUB_OPEN_CLIP;
    error = is_open_clip ? error_none() : hub_family_of(&family, config);
    error = error.code ? error : parse(out, family, config);
    json_decref(config);
    return error;
}

// What sentence-transformers add to a BERT: how it pools, and how long its texts are.
static Error read_sentence_files(HubRetriever *out, const char *dir) {
    char *path = file_join_new(dir, "1_Pooling/config.json");
    Error error = error_none();
    if (file_exists(path)) {
        FileBytes bytes;
        error = file_read_new(&bytes, path, 1 << 20);
        if (!error.code) {
            error = hub_retriever_parse_pooling(out, bytes.data, bytes.size);
            file_bytes_free(&bytes);
        }
    }
    free(path);
    json_t *sentence = NULL;
    error = error.code ? error : hub_json_new(&sentence, dir, "sentence_bert_config.json");
    const HubInt fields[] = {{"max_seq_length", &out->max_tokens, 1, out->max_tokens}};
    error = error.code ? error : hub_ints(sentence, fields, COUNT(fields));
    json_decref(sentence);
    return error;
}

Error hub_retriever_open_new(HubRetriever *out, const char *dir) {
    *out = (HubRetriever){0};
    HubFolder folder;
    Error error = hub_open_new(&folder, dir);
    if (error.code) {
        return error;
    }
    error = parse(out, folder.family, folder.config);
    if (!error.code && folder.family == HUB_BERT) {
        error = read_sentence_files(out, dir);
    }
    out->weights = error.code ? NULL : folder.weights;
    folder.weights = error.code ? folder.weights : NULL;
    hub_free(&folder);
    return error;
}

void hub_retriever_free(HubRetriever *hub) {
    free(hub->weights);
    *hub = (HubRetriever){0};
}

// A BERT of another writer: below "bert.", with the norms' parameters called gamma and beta.
static Error spell_bert(WeightNames *names, const HubRetriever *hub) {
    static const NamePair old[] = {{"LayerNorm.weight", "LayerNorm.gamma"},
                                   {"LayerNorm.bias", "LayerNorm.beta"}, {NULL, NULL}};
    SafeStore store;
    const Error error = safestore_open_new(&store, hub->weights);
    for (int i = 0; !error.code && i < store.all.count; i++) {
        const char *name = store.all.tensors[i].name;
        if (strncmp(name, "bert.", 5) == 0) {
            names->prefix = "bert.";
        }
        if (strstr(name, "LayerNorm.gamma")) {
            names->renamed = old;
        }
    }
    if (!error.code) {
        safestore_free(&store);
    }
    return error;
}

Error hub_retriever_names(WeightNames *out, const HubRetriever *hub) {
    static const char *const ignored[] = {
        "position_ids", "rope.freqs_cos", "rope.freqs_sin", "pooler.dense.weight",
        "pooler.dense.bias", "attn_mask", "input_resolution", "context_length", "vocab_size",
        "cls.predictions.bias", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias",
        "cls.predictions.transform.dense.weight", "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.beta",
        "cls.seq_relationship.weight", "cls.seq_relationship.bias", NULL};
    *out = (WeightNames){.ignored = ignored};
    return hub->family == HUB_BERT ? spell_bert(out, hub) : error_none();
}

Error hub_retriever_load(Retriever *retriever, Device *dev, DType t, SafeStore *store,
                         const HubRetriever *hub) {
    WeightNames names;
    const Error error = hub_retriever_names(&names, hub);
    return error.code ? error
                      : weights_map(&retriever->tensors, dev, t, store, hub->weights, &names);
}
