// hub_write: see hub_write.h.
#include "hub_write.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "processor_file.h"

static Error refuse(HubFamily family, const char *what) {
    return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "%s: the layout of %s has no place for it", what,
                    hub_family_name(family));
}

// The shortest decimal number that is x in f32, as a file would have it.
static json_t *number(float x) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) {
            break;
        }
    }
    return json_real(strtod(text, NULL));
}

static json_t *numbers(const float *x, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(list, number(x[i]));
    }
    return list;
}

static json_t *object(const char *format, ...) {
    json_error_t why;
    va_list args;
    va_start(args, format);
    json_t *out = json_vpack_ex(&why, 0, format, args);
    va_end(args);
    CHECK(out, "%s", why.text);
    return out;
}

// ---- forms ----
static json_t *clip_part(const BlockConfig *block, int L, int E) {
    return object("{s:i s:i s:i s:i s:s s:o s:i}", "hidden_size", block->C, "intermediate_size",
                  block->F, "num_hidden_layers", L, "num_attention_heads", block->H, "hidden_act",
                  block->act == ACT_QUICK_GELU ? "quick_gelu" : "gelu", "layer_norm_eps",
                  number(block->eps), "projection_dim", E);
}

// eos_token_id 2 means the largest id, in old files and to every release.
static json_t *clip_config(const RetrieverConfig *form) {
    const ImageTowerConfig *image = &form->image;
    const TextTowerConfig *text = &form->text;
    json_t *vision = clip_part(&image->block, image->L, image->E),
           *words = clip_part(&text->block, text->L, text->E);
    json_object_update_new(vision, object("{s:s s:i s:i s:i}", "model_type", "clip_vision_model",
                                          "image_size", image->image_size, "patch_size", image->P,
                                          "num_channels", 3));
    json_object_update_new(words, object("{s:s s:i s:i s:i}", "model_type", "clip_text_model",
                                         "vocab_size", text->V, "max_position_embeddings",
                                         text->max_T, "eos_token_id",
                                         text->pool == POOL_EOS ? text->eos : 2));
    return object("{s:[s] s:s s:i s:f s:o s:o}", "architectures", "CLIPModel", "model_type", "clip",
                  "projection_dim", image->E, "logit_scale_init_value", 2.6592, "vision_config",
                  vision, "text_config", words);
}

static json_t *open_clip_config(const RetrieverConfig *form) {
    const ImageTowerConfig *image = &form->image;
    const TextTowerConfig *text = &form->text;
    const BlockConfig *eye = &image->block, *reader = &text->block;
    json_t *vision = object("{s:i s:i s:i s:i s:i s:f}", "image_size", image->image_size, "layers",
                            image->L, "width", eye->C, "head_width", eye->D, "patch_size", image->P,
                            "mlp_ratio", (double)eye->F / eye->C);
    json_t *words = object("{s:i s:i s:i s:i s:i s:f}", "context_length", text->max_T, "vocab_size",
                           text->V, "width", reader->C, "heads", reader->H, "layers", text->L,
                           "mlp_ratio", (double)reader->F / reader->C);
    return object("{s:i s:b s:o s:o}", "embed_dim", image->E, "quick_gelu",
                  eye->act == ACT_QUICK_GELU, "vision_cfg", vision, "text_cfg", words);
}

static json_t *jina_config(const RetrieverConfig *form) {
    const ImageTowerConfig *image = &form->image;
    const TextTowerConfig *text = &form->text;
    const BlockConfig *eye = &image->block, *reader = &text->block;
    json_t *vision = object(
        "{s:s s:i s:i s:i s:i s:i s:i s:i s:f s:b s:b s:b s:b s:b s:b}", "model_type",
        "jina_clip_vision", "embed_dim", eye->C, "width", eye->C, "head_width", eye->D, "layers",
        image->L, "image_size", image->image_size, "patch_size", image->P, "pt_hw_seq_len",
        image->image_size / image->P, "mlp_ratio", (double)eye->F / eye->C, "naive_swiglu", 1,
        "rope_embeddings", 1, "subln", 1, "qkv_bias", 1, "intp_freq", 0, "post_norm", 0);
    json_t *sizes = object("{s:i s:i s:i s:i s:i s:i s:o s:b}", "vocab_size", text->V,
                           "hidden_size", reader->C, "num_attention_heads", reader->H,
                           "intermediate_size", reader->F, "num_hidden_layers", text->L,
                           "type_vocab_size", text->types, "layer_norm_eps", number(reader->eps),
                           "use_flash_attn", 0);
    json_t *words = object("{s:s s:i s:s s:o s:s s:b s:n}", "model_type", "jina_clip_text",
                           "embed_dim", reader->C, "hf_model_name_or_path",
                           "jinaai/jina-bert-flash-implementation", "hf_model_config_kwargs", sizes,
                           "pooler_type", "mean_pooler", "proj_bias", 0, "proj_type");
    return object("{s:[s] s:s s:b s:i s:f s:o s:o}", "architectures", "JinaCLIPModel", "model_type",
                  "jina_clip", "add_projections", 0, "projection_dim", eye->C,
                  "logit_scale_init_value", 2.6592, "vision_config", vision, "text_config", words);
}

static bool is_same_block(const BlockConfig *a, const BlockConfig *b) {
    bool is_same = a->C == b->C && a->H == b->H && a->Hkv == b->Hkv && a->D == b->D &&
                   a->F == b->F && a->norm == b->norm && a->eps == b->eps && a->act == b->act;
    is_same = is_same && a->is_post_norm == b->is_post_norm && a->is_causal == b->is_causal &&
              a->has_inner_norm == b->has_inner_norm && a->has_mlp_norm == b->has_mlp_norm &&
              a->has_alibi == b->has_alibi && a->has_rope == b->has_rope &&
              a->pairing == b->pairing && a->is_gated == b->is_gated;
#define X(part) is_same = is_same && a->has_##part##_bias == b->has_##part##_bias;
    BLOCK_LINEARS(X)
#undef X
    return is_same;
}

// The end of a text is its largest id where it is the last one of the vocabulary.
static TextPool pool_of(const TextTowerConfig *text) {
    return text->pool == POOL_EOS && text->eos == text->V - 1 ? POOL_LARGEST_ID : text->pool;
}

// The first thing that would be lost, or NULL.
static const char *lost(const RetrieverConfig *a, const RetrieverConfig *b) {
    const ImageTowerConfig *image = &a->image, *other = &b->image;
    const TextTowerConfig *text = &a->text, *words = &b->text;
    if (image->image_size != other->image_size || image->P != other->P || image->L != other->L ||
        image->E != other->E || image->has_patch_bias != other->has_patch_bias ||
        image->has_ln_pre != other->has_ln_pre || image->has_projection != other->has_projection ||
        (image->block.has_rope && image->theta != other->theta) ||
        !is_same_block(&image->block, &other->block)) {
        return "this image tower";
    }
    if (text->V != words->V || text->L != words->L || text->E != words->E ||
        text->types != words->types || text->has_positions != words->has_positions ||
        (text->has_positions && text->max_T != words->max_T) ||
        text->has_embed_norm != words->has_embed_norm ||
        text->has_final_norm != words->has_final_norm ||
        text->has_projection != words->has_projection || text->head_hidden != words->head_hidden ||
        !is_same_block(&text->block, &words->block)) {
        return "this text tower";
    }
    return pool_of(text) != pool_of(words) ||
                   (pool_of(text) == POOL_EOS && text->eos != words->eos)
               ? "the token that ends this text tower's texts" : NULL;
}

// ---- processors ----
// Resized to `size`, the short side or both, and cropped to `crop`, 0 for not at all.
typedef struct {
    int size, crop;
    bool is_squash;
    ResizeFilter filter;
} Picture;

static bool picture_of(Picture *out, const ProcessorConfig *processor) {
    const ProcessorStep *step = processor->steps;
    const bool has_crop = processor->step_count == 2 &&
                          (step[1].kind == STEP_CROP || step[1].kind == STEP_CROP_LOW);
    *out = (Picture){.size = step[0].size, .crop = has_crop ? step[1].size : 0,
                     .is_squash = step[0].kind == STEP_FIXED, .filter = step[0].filter};
    return processor->box == 1 && processor->step_count == 1 + has_crop &&
           (out->is_squash || step[0].kind == STEP_SHORTEST) &&
           (out->filter == RESIZE_BICUBIC || out->filter == RESIZE_BILINEAR);
}

// Of open_clip and of jina-clip, which crops to the size it resizes to.
static json_t *transform(const Picture *picture, const ProcessorConfig *processor) {
    return object("{s:i s:s s:s s:s s:o s:o}", "size", picture->size, "mode", "RGB",
                  "interpolation", picture->filter == RESIZE_BICUBIC ? "bicubic" : "bilinear",
                  "resize_mode", picture->is_squash ? "squash" : "shortest", "mean",
                  numbers(processor->mean, 3), "std", numbers(processor->std, 3));
}

static json_t *clip_processor(const Picture *picture, const ProcessorConfig *processor) {
    json_t *size = picture->is_squash
                       ? object("{s:i s:i}", "height", picture->size, "width", picture->size)
                       : object("{s:i}", "shortest_edge", picture->size);
    return object("{s:s s:b s:o s:i s:b s:{s:i s:i} s:b s:f s:b s:o s:o s:b}",
                  "image_processor_type", "CLIPImageProcessor", "do_resize", 1, "size", size,
                  "resample", picture->filter == RESIZE_BICUBIC ? 3 : 2, "do_center_crop",
                  picture->crop > 0, "crop_size", "height", picture->crop ? picture->crop
                                                                          : picture->size, "width",
                  picture->crop ? picture->crop : picture->size, "do_rescale", 1, "rescale_factor",
                  1.0 / 255, "do_normalize", 1, "image_mean", numbers(processor->mean, 3),
                  "image_std", numbers(processor->std, 3), "do_convert_rgb", 1);
}

static bool is_same_processor(const ProcessorConfig *a, const ProcessorConfig *b) {
    Picture one, other;
    return picture_of(&one, a) && picture_of(&other, b) && one.size == other.size &&
           one.crop == other.crop && one.is_squash == other.is_squash &&
           one.filter == other.filter && memcmp(a->mean, b->mean, sizeof a->mean) == 0 &&
           memcmp(a->std, b->std, sizeof a->std) == 0;
}

// ---- files ----
// Writes the object, which it takes, to dir/name, and returns its text.
static char *write_new(Error *error, const char *dir, const char *name, json_t *root) {
    char *path = file_join_new(dir, name), *text = json_dumps(root, JSON_INDENT(2));
    *error = file_replace(path, text, strlen(text));
    json_decref(root);
    free(path);
    return text;
}

Error hub_write(HubRetriever *as, const char **weights, const char *dir, HubFamily family,
                const RetrieverConfig *form, const ProcessorConfig *processor) {
    const bool is_open_clip = family == HUB_OPEN_CLIP, is_jina = family == HUB_JINA_CLIP;
    *as = (HubRetriever){0};
    Picture picture;
    if (!picture_of(&picture, processor)) {
        return refuse(family, "the processor of these pictures");
    }
    json_t *pictures = family == HUB_CLIP ? clip_processor(&picture, processor)
                                          : transform(&picture, processor);
    json_t *config = is_jina ? jina_config(form)
                     : is_open_clip ? object("{s:o s:o}", "model_cfg", open_clip_config(form),
                                             "preprocess_cfg", pictures)
                                    : clip_config(form);
    Error error;
    char *text = write_new(&error, dir, is_open_clip ? "open_clip_config.json" : "config.json",
                           config);
    if (!error.code) {
        error = hub_retriever_parse(as, text, strlen(text), is_open_clip);
    }
    if (!is_open_clip) {
        if (is_jina) {
            json_object_set_new(pictures, "image_processor_type",
                                json_string("JinaCLIPImageProcessor"));
        }
        Error second;
        free(write_new(&second, dir, "preprocessor_config.json", pictures));
        error = error.code ? error : second;
    }
    free(text);
    ProcessorConfig again;
    error = error.code ? error : processor_open(&again, dir);
    if (!error.code && !is_same_processor(processor, &again)) {
        error = refuse(family, "the processor of these pictures");
    }
    const char *what = error.code ? NULL : lost(form, &as->config);
    *weights = is_open_clip ? "open_clip_model.safetensors" : "model.safetensors";
    return what ? refuse(family, what) : error;
}
