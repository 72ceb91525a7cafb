// adapter: a LoRA adapter as PEFT keeps it, a directory with adapter_config.json and
// adapter_model.safetensors. The scale alpha / r is no tensor: read from anywhere else it would be
// wrong without a sign of it.
// Tensors are written under the names of older transformers and again under those of newer ones
// (from 4.52), because no PEFT knows both and each passes over the other's; either is read.
// Left out: adapters of other kinds, patterns of ranks, biases and modules that are stored whole.
// Source: Hugging Face PEFT, LoraConfig and its files.
#ifndef JOMED_HOST_ADAPTER_H
#define JOMED_HOST_ADAPTER_H

#include "models/model.h"

typedef struct {
    int rank;
    double alpha, dropout; // dropout: what it was trained with; nothing once it is trained
    bool is_rslora;        // the scale is alpha / sqrt(rank)
} AdapterConfig;
// EXIT_NO_INPUT without a file, EXIT_BAD_DATA for one that is broken or asks for what is left out.
Error adapter_read_config(AdapterConfig *out, const char *dir);
// Has it adapters on the vision tower, too? Its tensors say.
Error adapter_find_vision(bool *has_vision, const char *dir);
// Fills the adapter tensors of the list; see weights_load.
Error adapter_load(TensorList *list, const char *dir);
// Makes the directory, then writes both files, values in f32 (masters).
Error adapter_save(const TensorList *list, const char *dir, const AdapterConfig *config);

#endif
