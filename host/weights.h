// weights: tensor lists to and from safetensors, under the names of the original checkpoints.
//
// A tensor that is a slice of a fused one (attn.qkv) is cut out on the way in and put together
// again on the way out, so that a file written here opens where the original's does.
#ifndef JOMED_HOST_WEIGHTS_H
#define JOMED_HOST_WEIGHTS_H

#include "models/model.h"
#include "safetensors.h"

// Fills every tensor of the list (or only the adapters) from a file or directory. Types are
// converted (exactly, or rounded once). All differences are listed in the log before the Error is
// returned: a tensor that is missing, has another shape, or is in the file but not in the list.
// prefix: what the file's names have in front of ours ("base_model.model." for adapters), or "".
Error weights_load(TensorList *list, const char *path, const char *prefix, bool adapters_only);
// Writes the base tensors, or only the adapters, in f32 (masters) or in the list's type.
Error weights_save(const TensorList *list, const char *path, const char *prefix, bool adapters_only,
                   bool is_f32);

#endif
