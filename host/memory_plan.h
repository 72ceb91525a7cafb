// memory_plan: what a model will need, counted before anything of it is allocated.
//
// Weights are counted from the tensor list, activations by a pass over a planning arena. Left out:
// what does not grow with the model (tiles of threads, a few MB each; pictures; tokenizers).
#ifndef JOMED_HOST_MEMORY_PLAN_H
#define JOMED_HOST_MEMORY_PLAN_H

#include <stdio.h>

#include "kernels/device_memory.h"
#include "models/reader.h"
#include "models/retriever.h"

// M(field, "what it is"): bytes. Mapped weights stay in the file: the system reads and drops their
// pages as it needs memory, so they are not part of the total.
#define MEMORY_ROWS(M)                                                                             \
    M(mapped, "frozen weights, read in the file")                                                  \
    M(weights, "frozen weights, in memory")                                                        \
    M(trainable, "trainable weights, f32 and as the ops read them")                                \
    M(gradients, "gradients")                                                                      \
    M(moments, "moments of AdamW")                                                                 \
    M(activations, "activations and scratch of one pass")                                          \
    M(scratch, "scratch of ops")                                                                   \
    M(caches, "vision features kept by the scorer, at most")                                       \
    M(keys, "keys and values of the answers generated at once")
typedef struct {
#define MEMORY_FIELD(field, text) size_t field;
    MEMORY_ROWS(MEMORY_FIELD)
#undef MEMORY_FIELD
} MemoryPlan;
size_t memory_plan_total(const MemoryPlan *plan); // all but mapped
void memory_plan_print(FILE *out, const MemoryPlan *plan);

// Adds the tensors of a list of type t, marked but perhaps without memory; mapped of their bytes
// stay in a file (weights_check).
void memory_plan_tensors(MemoryPlan *plan, const TensorList *list, DType t, size_t mapped);
// Adds one pass over the prompts of a batch: forward, logits of as many rows as exist at once and,
// in training, backward.
void memory_plan_reader(MemoryPlan *plan, Reader *reader, Device *dev, DType t,
                        const ReaderBatch *batch, bool is_training, bool recomputes);

// Adds one pass of a tower: unit rows of B pictures, or of a batch of texts, and in training their
// backward. Passes that follow one another share memory: the largest counts.
void memory_plan_images(MemoryPlan *plan, ImageTower *tower, Device *dev, DType t, int B,
                        bool is_training);
void memory_plan_texts(MemoryPlan *plan, TextTower *tower, Device *dev, DType t,
                       const TextBatch *batch, bool is_training);

// ---- before a training ----
// What the first step will take besides what is allocated; `scratch` is all that its ops take for
// themselves, some of which they may hold by now. The log says what is held and what will come;
// where the device has memory of its own and less of it is free, the run ends here (device_expect).
typedef struct {
    const char *what; // as in device_alloc
    size_t bytes;
} MemoryNeed;
void memory_plan_training(Device *dev, const MemoryNeed *need, int count, size_t scratch);
// For device_set_advice: the keys that make a purpose of device_alloc smaller.
const char *memory_advice(const char *what);

// Anonymous memory of this process that is in RAM now (RssAnon of Linux); 0: not known.
size_t memory_anonymous(void);

#endif
