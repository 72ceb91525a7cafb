// hub_write: the form of towers as a family's configuration files: the way back of hub_retriever.
//
//   clip        config.json and preprocessor_config.json of transformers' CLIP
//   open_clip   open_clip_config.json of open_clip's own towers
//   jina_clip   config.json and preprocessor_config.json of jina-clip-v1
// CLIP's towers go into either of the first two, jina's (and the tiny ones) into the third. What is
// written is read again and compared with the form it came from, so that nothing is lost between
// two families without a word. Left out: BiomedCLIP, which only open_clip has; BERT alone.
#ifndef JOMED_HOST_HUB_WRITE_H
#define JOMED_HOST_HUB_WRITE_H

#include "hub_retriever.h"
#include "processor.h"

// Writes the files of the family into dir, which is there. *as: what opening the folder will find,
// hub_retriever_free ends it. *weights: the name that its weights must have. Crops that lie a pixel
// apart and the order of resizing and RGB are each library's own and no difference.
// Error: EXIT_BAD_DATA: the family has no place for the form or the processor.
Error hub_write(HubRetriever *as, const char **weights, const char *dir, HubFamily family,
                const RetrieverConfig *form, const ProcessorConfig *processor);

#endif
