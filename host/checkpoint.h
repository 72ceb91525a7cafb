// checkpoint: the whole state of a training stage on disk, so that it goes on bit for bit.
//
//   RUN/checkpoints/STAGE-00000200/ tensors.safetensors   trainable masters, moments, further lists
//                                   state.json            step, seed, hashes of what it depends on
//                                   MANIFEST.json         sizes, XXH64 of the files; written last
//
// It is built in a directory .tmp-*, synced file by file, renamed, and the parent synced. A
// directory without a valid manifest is no checkpoint: loading takes the newest one that is whole,
// and says so when that is not the newest. Sample order and rates are functions of the step, so the
// step is the cursor.
#ifndef JOMED_HOST_CHECKPOINT_H
#define JOMED_HOST_CHECKPOINT_H

#include "models/model.h"
#include "optim.h"

typedef struct {
    const char *stage;     // "train-reader"; part of the directory's name
    int64_t step;          // steps done
    uint64_t seed;
    uint64_t context; // hash of everything else the stage depends on: configuration, data, index
    const Optim *optim;    // its list, moments and step count
    const TensorList *const *lists; // further lists, saved whole: the search head
    int list_count;
} CheckpointState;

// Writes a checkpoint and removes all but the `keep` newest of the stage. Tried three times; a
// failure leaves earlier ones as they were.
Error checkpoint_save(const char *run_dir, const CheckpointState *state, int keep);
// Fills optim, its tensors and the lists from the newest whole checkpoint of the stage. *step is
// the number of steps done; 0 and EXIT_OK when there is none. A checkpoint of another context or
// seed is refused (EXIT_CONFIG).
Error checkpoint_load(int64_t *step, const char *run_dir, const CheckpointState *state,
                      Optim *optim, TensorList *const *lists);

#endif
