// hub_reader: readers from folders of the model hub: Qwen2-VL, Pixtral in the Llava form, Llama.
//
// config.json states the form; both eras of it are read (all fields flat, or text_config inside;
// rope_scaling or rope_parameters). Fields that change the computation in a way that we have no
// equation for are refused by name. The tensors may have the names of either era. Source: the
// published checkpoints and the configuration classes of transformers, whose defaults we repeat.
#ifndef JOMED_HOST_HUB_READER_H
#define JOMED_HOST_HUB_READER_H

#include "hub.h"
#include "models/reader.h"
#include "weights.h"

// The form that a parsed config.json states. A Pixtral tower with hidden_act gelu is read as silu
// with a warning: its first revisions said so, and the network was trained with silu.
// Error: EXIT_BAD_DATA; the text names the field.
Error hub_reader_config(ReaderConfig *out, HubFamily family, const json_t *config);
// How such a folder may spell the names of the reader's tensors, and what else may be in it.
WeightNames hub_reader_names(const ReaderConfig *config);

// A reader with the weights of a folder. On the CPU, frozen weights of type t stay in the mapped
// files, so *store must stay open until the reader is freed. Adapters, where config has any, are
// zero. On an Error there is no reader, and *store is closed.
Error hub_reader_new(Reader **out, SafeStore *store, Device *dev, DType t,
                     const ReaderConfig *config, const char *weights, bool is_base_trainable,
                     bool must_be_finite);
#endif
