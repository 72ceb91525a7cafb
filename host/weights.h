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
    // A tensor that is not there under our name is looked for under the first pair's that is found
    // in the name; ours NULL ends the pairs. A file may hold equal tensors under both names.
    const NamePair *renamed;
    const NamePair *twin;       // theirs may be there too: a copy of the tensor ours. NULL: none is
    const char *const *ignored; // ends of names that are not ours and are not read, NULL last
    bool must_be_finite;        // NaN and infinity are refused
} WeightNames;
// renamed, for readers: the checkpoints of newer transformers (from 4.52), and adapters on them,
// put one "model." around everything but the head.
extern const NamePair weights_newer_names[];
// Fills every tensor of the list (or only the adapters) from a file or directory. names NULL: they
// are ours. Types are converted (exactly, or rounded once). All differences are listed in the log
// before the Error is returned: a tensor that is missing, has another type or shape, or is in the
// file but not in the list.
Error weights_load(TensorList *list, const char *path, const WeightNames *names,
                   bool adapters_only);
// Would such a load succeed? Reads only what the files say of their tensors, and values where
// names->must_be_finite. *mapped: bytes that a list of type t would borrow (weights_map).
Error weights_check(const TensorList *list, DType t, const char *path, const WeightNames *names,
                    size_t *mapped);
// weights_load for a list without memory yet, which it allocates. Where the device is the CPU,
// frozen tensors whose type in the file is t borrow the mapped bytes; *store must stay open until
// the list is freed. On an Error the list has no memory and *store is closed.
Error weights_map(TensorList *list, Device *dev, DType t, SafeStore *store, const char *path,
                  const WeightNames *names);
// Writes the base tensors, or only the adapters, in f32 (masters) or in the list's type.
// prefix: goes in front of our names, or "".
Error weights_save(const TensorList *list, const char *path, const char *prefix, bool adapters_only,
                   bool is_f32);

// ---- parts, for those who write a file again ----
// found[i]: the file's tensor that is list->tensor[i], or of which that is a slice; NULL for a
// tensor of the other kind. The Error is weights_load's.
Error weights_match(const SafeTensor **found, const TensorList *list, const SafeStore *store,
                    const WeightNames *names, bool adapters_only);
// The file's tensor that `stored` repeats under another name; NULL: none.
const SafeTensor *weights_repeated(const SafeStore *store, const WeightNames *names,
                                   const SafeTensor *stored);
// Puts the values of a tensor of ours where they belong in the file's whole one, in f32.
void weights_place(const Tensor *tensor, float *whole, const float *values);

#endif
