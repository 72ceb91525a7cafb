// weights: tensor lists to and from safetensors, under the names of the original checkpoints.
//
// A tensor that is a slice of a fused one (attn.qkv) is cut out on the way in and put together
// again on the way out, so that a file written here opens where the original's does.
#ifndef JOMED_HOST_WEIGHTS_H
#define JOMED_HOST_WEIGHTS_H

#include "models/model.h"
#include "safetensors.h"

// How the names of a file differ from ours.
typedef struct {
    const char *ours, *theirs; // a part of a name, as "LayerNorm.weight" and "LayerNorm.gamma"
} NamePair;
typedef struct {
    const char *prefix;         // what the file has in front of our names, or NULL
    const NamePair *renamed;    // of a name the first pair that is found in it; ours NULL ends them
    const char *const *ignored; // ends of names that are not ours and are not read, NULL last
} WeightNames;
// Fills every tensor of the list (or only the adapters) from a file or directory. names NULL: they
// are ours. Types are converted (exactly, or rounded once). All differences are listed in the log
// before the Error is returned: a tensor that is missing, has another shape, or is in the file but
// not in the list.
Error weights_load(TensorList *list, const char *path, const WeightNames *names,
                   bool adapters_only);
// Writes the base tensors, or only the adapters, in f32 (masters) or in the list's type.
// prefix: goes in front of our names, or "".
Error weights_save(const TensorList *list, const char *path, const char *prefix, bool adapters_only,
                   bool is_f32);

#endif
