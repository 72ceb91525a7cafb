// hub_reader: see hub_reader.h.
#include "hub_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 16, MAX_VOCABULARY = 1 << 22, MAX_HEAD = 256, MAX_PATCH = 256 };

#define WRONG(...) error_at(EXIT_BAD_DATA, ERROR_NOWHERE, __VA_ARGS__)

// ---- fields ----
#define READ_INTS(object, ...)                                                                     \
    hub_ints(object, (const HubInt[]){__VA_ARGS__},                                                \
             (int)(sizeof((const HubInt[]){__VA_ARGS__}) / sizeof(HubInt)))
#define EXPECT_FIELDS(object, ...)                                                                 \
    hub_expect(object, (const HubFixed[]){__VA_ARGS__},                                            \
               (int)(sizeof((const HubFixed[]){__VA_ARGS__}) / sizeof(HubFixed)))

// A member that is an object, or an empty stand-in, so that its fields have their defaults.
static Error sub_object(const json_t *object, const char *name, const json_t **out) {
    *out = NULL; // jansson takes NULL for an object without members
    return json_member_object(object, name, false, out);
}

// ---- rotary positions ----
// theta and, for M-RoPE, the three sections; of rope_parameters, or rope_scaling and rope_theta.
// types: those that mean what the family's equations say.
static Error read_rope(const json_t *text, const char *types, double *theta, int *sections, int D) {
    const json_t *rope;
    Error error = sub_object(text, "rope_parameters", &rope);
    if (!error.code && !rope) {
        error = sub_object(text, "rope_scaling", &rope);
    }
    if (!error.code) {
        error = EXPECT_FIELDS(rope, {"rope_type", types}, {"type", types},
                              {"partial_rotary_factor", "1"});
    }
    if (!error.code) {
        error = json_member_number(text, "rope_theta", false, theta);
    }
    if (!error.code) {
        error = json_member_number(rope, "rope_theta", false, theta);
    }
    if (!error.code && !(isfinite(*theta) && *theta > 1)) {
        error = WRONG("rope_theta=%g; above 1 is wanted", *theta);
    }
    if (error.code || !sections) {
        return error;
    }
    const json_t *parts = NULL;
    error = json_member_array(rope, "mrope_section", true, &parts);
    int sum = 0;
    for (size_t i = 0; !error.code && i < 3; i++) {
        const json_t *part = json_array_get(parts, i);
        const bool is_small = json_is_integer(part) && json_integer_value(part) >= 0 &&
                              json_integer_value(part) <= MAX_HEAD;
        sections[i] = is_small ? (int)json_integer_value(part) : MAX_HEAD + 1;
        sum += sections[i];
    }
    if (!error.code && (json_array_size(parts) != 3 || sum != D / 2)) {
        error = WRONG("mrope_section wants 3 integers whose sum is %d, half of a head's %d", D / 2,
                      D);
    }
    return error;
}

// ---- the language model ----
// What transformers assumes of a field that is not there.
typedef struct {
    int C, F, L, H, Hkv, V; // Hkv 0: as many as H
    double eps, theta;
} LanguageDefaults;
static const LanguageDefaults
    qwen2_defaults = {8192, 29568, 80, 64, 8, 152064, 1e-5, 1e6},
    mistral_defaults = {4096, 14336, 32, 32, 8, 32000, 1e-6, 1e4},
    llama_defaults = {4096, 11008, 32, 32, 0, 32000, 1e-6, 1e4};

// No layer of layer_types slides.
static Error expect_full_attention(const json_t *text) {
    const json_t *types = NULL;
    Error error = json_member_array(text, "layer_types", false, &types);
    for (size_t i = 0; !error.code && i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0) {
            error = WRONG("field layer_types has '%.40s'; only full_attention is supported",
                          type ? type : "?");
        }
    }
    return error;
}

// Fields of every family that say the network is computed otherwise than our equations do.
static Error expect_plain(const json_t *text) {
    const Error error = EXPECT_FIELDS(
        text, {"hidden_act", "\"silu\""}, {"quantization_config", "null"},
        {"attention_dropout", "0"}, {"attention_bias", "false"}, {"mlp_bias", "false"},
        {"use_sliding_window", "false"}, {"partial_rotary_factor", "1"});
    return error.code ? error : expect_full_attention(text);
}

// Mistral slides by default, and where sliding_window is a number.
static Error expect_no_window(const json_t *text) {
    const json_t *window = json_object_get(text, "sliding_window");
    if (!window) {
        return WRONG("field sliding_window is missing, which means 4096; a sliding window is not "
                     "supported, null is");
    }
    return EXPECT_FIELDS(text, {"sliding_window", "null"});
}

static Error check_sizes(const BlockConfig *block) {
    if (block->H % block->Hkv != 0) {
        return WRONG("num_attention_heads=%d is no multiple of num_key_value_heads=%d", block->H,
                     block->Hkv);
    }
    if (block->D < 2 || block->D > MAX_HEAD || block->D % 2 != 0) {
        return WRONG("a head width of %d; an even one of 2 .. %d is wanted", block->D, MAX_HEAD);
    }
    return error_none();
}

// Sizes, biases, rotary positions of the fields in `text`.
static Error read_language(ReaderConfig *out, const json_t *text,
                           const LanguageDefaults *defaults) {
    const bool is_qwen = out->family == READER_QWEN2VL;
    BlockConfig *block = &out->block;
    *block = (BlockConfig){.C = defaults->C, .F = defaults->F, .H = defaults->H,
                           .norm = NORM_RMS, .is_causal = true, .has_rope = true,
                           .pairing = ROPE_HALF, .is_gated = true, .act = ACT_SILU,
                           .has_q_bias = is_qwen, .has_k_bias = is_qwen, .has_v_bias = is_qwen,
                           .names = &block_names_llama};
    out->L = defaults->L;
    out->V = defaults->V;
    out->embed_sd = 0.02f;
    out->image_id = -1;
    Error error = READ_INTS(text, {"hidden_size", &block->C, 2, MAX_WIDTH},
                            {"intermediate_size", &block->F, 1, MAX_WIDTH},
                            {"num_attention_heads", &block->H, 1, MAX_WIDTH},
                            {"num_hidden_layers", &out->L, 1, MAX_LAYERS},
                            {"vocab_size", &out->V, 1, MAX_VOCABULARY});
    block->Hkv = defaults->Hkv ? defaults->Hkv : block->H;
    block->D = block->H > 0 ? block->C / block->H : 0;
    if (!error.code) {
        error = READ_INTS(text, {"num_key_value_heads", &block->Hkv, 1, MAX_WIDTH},
                          {"head_dim", &block->D, 2, MAX_HEAD});
    }
    double eps = defaults->eps;
    out->theta = defaults->theta;
    if (!error.code) {
        error = json_member_number(text, "rms_norm_eps", false, &eps);
    }
    if (!error.code && !(eps >= 0 && eps < 1)) {
        error = WRONG("rms_norm_eps=%g", eps);
    }
    block->eps = (float)eps;
    if (!error.code) {
        error = expect_plain(text);
    }
    if (!error.code) {
        error = check_sizes(block);
    }
    const char *types = is_qwen ? "\"default\" \"mrope\"" : "\"default\"";
    return error.code ? error : read_rope(text, types, &out->theta,
                                          is_qwen ? out->sections : NULL, block->D);
}

// ---- the towers ----
static Error check_tower(const ReaderConfig *config) {
    const BlockConfig *block = &config->vision.block;
    if (block->C % block->H != 0 || block->D != block->C / block->H || block->D % 4 != 0 ||
        block->D > MAX_HEAD) {
        return WRONG("vision_config: %d wide with %d heads; heads of equal width are wanted, a "
                     "multiple of 4 up to 256", block->C, block->H);
    }
    return config->image_id < config->V
               ? error_none()
               : WRONG("the image token %d is outside the vocabulary of %d", config->image_id,
                       config->V);
}

static Error read_qwen2vl_vision(ReaderConfig *out, const json_t *vision) {
    VisionConfig *config = &out->vision;
    BlockConfig *block = &config->block;
    *config = (VisionConfig){.family = READER_QWEN2VL, .P = 14, .L = 32, .merge = 2, .frames = 2,
                             .C_out = 3584, .theta = 10000};
    *block = (BlockConfig){.C = 1280, .H = 16, .norm = NORM_LAYER, .eps = 1e-6f, .has_rope = true,
                           .pairing = ROPE_HALF, .act = ACT_QUICK_GELU, .has_q_bias = true,
                           .has_k_bias = true, .has_v_bias = true, .has_o_bias = true,
                           .has_up_bias = true, .has_down_bias = true,
                           .names = &block_names_timm};
    double ratio = 4;
    Error error = READ_INTS(vision, {"embed_dim", &block->C, 4, MAX_WIDTH},
                            {"num_heads", &block->H, 1, MAX_WIDTH},
                            {"depth", &config->L, 1, MAX_LAYERS},
                            {"patch_size", &config->P, 1, MAX_PATCH},
                            {"spatial_merge_size", &config->merge, 1, 8},
                            {"temporal_patch_size", &config->frames, 1, 8},
                            {"hidden_size", &config->C_out, 2, MAX_WIDTH});
    if (!error.code) {
        error = json_member_number(vision, "mlp_ratio", false, &ratio);
    }
    if (!error.code) {
        error = EXPECT_FIELDS(vision, {"hidden_act", "\"quick_gelu\""}, {"in_channels", "3"},
                              {"quantization_config", "null"});
    }
    const double width = block->C * ratio;
    if (!error.code && !(width >= 1 && width <= MAX_WIDTH)) {
        error = WRONG("vision_config: mlp_ratio=%g", ratio);
    }
    if (!error.code && config->C_out != out->block.C) {
        error = WRONG("vision_config: hidden_size=%d, but the language model's is %d",
                      config->C_out, out->block.C);
    }
    if (!error.code) {
        block->Hkv = block->H;
        block->D = block->C / block->H;
        block->F = (int)width;
        error = check_tower(out);
    }
    return error;
}

static Error read_pixtral_vision(ReaderConfig *out, const json_t *vision) {
    VisionConfig *config = &out->vision;
    BlockConfig *block = &config->block;
    *config = (VisionConfig){.family = READER_PIXTRAL, .P = 16, .L = 24, .merge = 1, .frames = 1,
                             .C_out = out->block.C, .theta = 10000};
    *block = (BlockConfig){.C = 1024, .H = 16, .F = 4096, .norm = NORM_RMS, .eps = 1e-5f,
                           .has_rope = true, .pairing = ROPE_HALF, .is_gated = true,
                           .act = ACT_SILU, .names = &block_names_pixtral_vision};
    Error error = READ_INTS(vision, {"hidden_size", &block->C, 4, MAX_WIDTH},
                            {"num_attention_heads", &block->H, 1, MAX_WIDTH},
                            {"intermediate_size", &block->F, 1, MAX_WIDTH},
                            {"num_hidden_layers", &config->L, 1, MAX_LAYERS},
                            {"patch_size", &config->P, 1, MAX_PATCH});
    block->Hkv = block->H;
    block->D = block->H > 0 ? block->C / block->H : 0;
    if (!error.code) {
        error = READ_INTS(vision, {"head_dim", &block->D, 0, MAX_WIDTH});
    }
    if (!error.code) {
        error = EXPECT_FIELDS(vision, {"model_type", "\"pixtral\""},
                              {"hidden_act", "\"silu\" \"gelu\""}, {"num_channels", "3"},
                              {"attention_dropout", "0"}, {"quantization_config", "null"});
    }
    if (!error.code) {
        error = read_rope(vision, "\"default\" \"axial\"", &config->theta, NULL, block->D);
    }
    const char *act = json_string_value(json_object_get(vision, "hidden_act"));
    if (!error.code && act && strcmp(act, "gelu") == 0) {
        LOG(WARN, "vision_config: hidden_act gelu is a mistake of the first revisions; silu is "
                  "used, as this tower was trained");
    }
    return error.code ? error : check_tower(out);
}

// ---- families ----
// A field of the whole model, which some files keep inside text_config.
static Error read_tied(ReaderConfig *out, const json_t *config, const json_t *text) {
    const Error error = json_member_bool(text, "tie_word_embeddings", false, &out->is_tied);
    return error.code ? error
                      : json_member_bool(config, "tie_word_embeddings", false, &out->is_tied);
}

static Error read_qwen2vl(ReaderConfig *out, const json_t *config) {
    const json_t *text, *vision;
    Error error = sub_object(config, "text_config", &text);
    text = text ? text : config; // the old era: no text_config
    if (!error.code) {
        error = sub_object(config, "vision_config", &vision);
    }
    if (!error.code) {
        error = read_language(out, text, &qwen2_defaults);
    }
    out->image_id = 151655;
    if (!error.code) {
        error = READ_INTS(config, {"image_token_id", &out->image_id, 0, MAX_VOCABULARY});
    }
    return error.code ? error : read_qwen2vl_vision(out, vision);
}

static Error read_llava(ReaderConfig *out, const json_t *config) {
    const json_t *text = NULL, *vision = NULL;
    Error error = json_member_object(config, "text_config", true, &text);
    if (!error.code) {
        error = json_member_object(config, "vision_config", true, &vision);
    }
    if (!error.code) {
        error = EXPECT_FIELDS(text, {"model_type", "\"mistral\" \"llama\""});
    }
    const char *type = json_string_value(json_object_get(text, "model_type"));
    const bool is_mistral = type && strcmp(type, "mistral") == 0; // Llava's default is llama
    if (!error.code) {
        error = read_language(out, text, is_mistral ? &mistral_defaults : &llama_defaults);
    }
    if (!error.code && is_mistral) {
        error = expect_no_window(text);
    }
    // Llava's own defaults, -2 and "default", leave out the last layer and the first patch.
    static const char *const explicit_fields[] = {"vision_feature_layer",
                                                  "vision_feature_select_strategy"};
    for (int i = 0; !error.code && i < 2; i++) {
        if (!json_object_get(config, explicit_fields[i])) {
            error = WRONG("member '%s' is missing", explicit_fields[i]);
        }
    }
    if (!error.code) {
        error = EXPECT_FIELDS(config, {"projector_hidden_act", "\"gelu\""},
                              {"vision_feature_layer", "-1"},
                              {"vision_feature_select_strategy", "\"full\""},
                              {"multimodal_projector_bias", "true"});
    }
    out->image_id = 32000;
    if (!error.code) {
        error = READ_INTS(config, {"image_token_index", &out->image_id, 0, MAX_VOCABULARY},
                          {"image_token_id", &out->image_id, 0, MAX_VOCABULARY});
    }
    return error.code ? error : read_pixtral_vision(out, vision);
}

Error hub_reader_config(ReaderConfig *out, HubFamily family, const json_t *config) {
    *out = (ReaderConfig){0};
    Error error = EXPECT_FIELDS(config, {"quantization_config", "null"});
    const json_t *text = NULL;
    if (!error.code && family != HUB_LLAMA) {
        error = sub_object(config, "text_config", &text);
    }
    if (!error.code) {
        error = read_tied(out, config, text);
    }
    if (error.code) {
        return error;
    }
    switch (family) {
    case HUB_QWEN2_VL: out->family = READER_QWEN2VL; return read_qwen2vl(out, config);
    case HUB_LLAVA: out->family = READER_PIXTRAL; return read_llava(out, config);
    case HUB_LLAMA:
        out->family = out->vision.family = READER_LLAMA;
        return read_language(out, config, &llama_defaults);
    default:
        return WRONG("a model of type %s is no reader; qwen2_vl, llava and llama are",
                     hub_family_name(family));
    }
}

// ---- weights ----
WeightNames hub_reader_names(const ReaderConfig *config) {
    static const NamePair tied = {"model.embed_tokens.weight", "lm_head.weight"},
                          tied_inside = {"language_model.model.embed_tokens.weight",
                                         "language_model.lm_head.weight"};
    static const char *const buffers[] = {".rotary_emb.inv_freq", ".rotary_pos_emb.inv_freq", NULL};
    const bool is_inside = config->family == READER_PIXTRAL;
    WeightNames names = {.renamed = weights_newer_names, .ignored = buffers};
    names.twin = !config->is_tied ? NULL : is_inside ? &tied_inside : &tied;
    return names;
}

Error hub_reader_new(Reader **out, SafeStore *store, Device *dev, DType t,
                     const ReaderConfig *config, const char *weights, bool is_base_trainable,
                     bool must_be_finite) {
    Reader *reader = xcalloc(1, sizeof *reader);
    reader_build(reader, config);
    tensors_mark_adapters(&reader->tensors, true, true);
    tensors_mark_adapters(&reader->tensors, false, is_base_trainable);
    WeightNames names = hub_reader_names(config);
    names.must_be_finite = must_be_finite;
    const Error error = weights_map(&reader->tensors, dev, t, store, weights, &names);
    if (error.code) {
        reader_free(reader);
        reader = NULL;
    }
    *out = reader;
    return error;
}
