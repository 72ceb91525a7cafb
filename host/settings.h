// settings: from the keys of the configuration to the settings of a stage, for verbs and demo
// alike.
#ifndef JOMED_HOST_SETTINGS_H
#define JOMED_HOST_SETTINGS_H

#include "config.h"
#include "evaluate.h"
#include "optim.h"
#include "train_reader.h"
#include "train_retriever.h"

// The device of the key. `auto` takes a GPU where build and machine have one, and the log says what
// was taken and why; `cuda` dies with EXIT_NO_DEPENDENCY instead of going without. matmul=cublaslt
// dies likewise where the library is not there, and with EXIT_CONFIG where there is no GPU for it.
Device *device_of_keys(const Config *config, int threads);
// The first device of a kind, with the architecture that kernels.arch allows.
Device *device_of_kind(const Config *config, DeviceKind kind, int threads);
// Of the query head of one side. Dies with EXIT_CONFIG for a loss that a closed label set does not
// have.
RetrieverTrainConfig retriever_settings(const Config *config, IndexSide side);
OptimConfig retriever_optim(const Config *config);
OptimConfig reader_optim(const Config *config);
ReaderTrainConfig reader_settings(const Config *config);
FusionConfig fusion_settings(const Config *config);

#endif
