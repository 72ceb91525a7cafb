// reader_folder: a tiny reader as a folder of the model hub.
#ifndef JOMED_TESTS_READER_FOLDER_H
#define JOMED_TESTS_READER_FOLDER_H

#include "models/reader.h"

// Fields of a tiny Qwen2-VL's config.json: of the language model, and of the rest.
#define TINY_TEXT                                                                                  \
    "\"hidden_size\":16,\"intermediate_size\":12,\"num_hidden_layers\":1,"                         \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":11,\"rms_norm_eps\":1e-6"
#define TINY_EYES                                                                                  \
    "\"image_token_id\":7,\"vision_config\":{\"depth\":1,\"embed_dim\":8,\"hidden_size\":16,"      \
    "\"num_heads\":1,\"mlp_ratio\":1,\"patch_size\":2}"
// A whole one, its head tied.
#define TINY_QWEN2VL                                                                               \
    "{\"model_type\":\"qwen2_vl\"," TINY_TEXT "," TINY_EYES ",\"tie_word_embeddings\":true,"       \
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[2,1,1]}}"

// Writes config.json and the weights of `reader`, in the type of its list and under the new era's
// names, in the shards a.safetensors and b.safetensors with their index.
void reader_folder_write(const char *dir, const char *config, const Reader *reader);

#endif
