// hub_retriever: towers from a checkpoint folder: configuration to form, tensors by name.
//
// Families: jina-clip-v1; CLIP as transformers and as open_clip write it; BiomedCLIP (open_clip
// with timm's ViT and a BERT); BERT as sentence-transformers use it (texts alone). Any sizes.
// Fields that would change the computation otherwise than we can are refused by name; training
// options (dropouts) are not read. Sources: the configuration classes of transformers 4.45 to 5,
// open_clip 2.26 to 3.3, jina-clip-implementation, sentence-transformers.
#ifndef JOMED_HOST_HUB_RETRIEVER_H
#define JOMED_HOST_HUB_RETRIEVER_H

#include "hub.h"
#include "models/retriever.h"
#include "weights.h"

typedef struct {
    HubFamily family;
    RetrieverConfig config; // its texts are constants
    int max_tokens;         // of a text, with its special tokens
    char *weights;          // file or index; NULL after hub_retriever_parse
} HubRetriever;
// From the text of config.json or open_clip_config.json. Error: EXIT_BAD_DATA.
Error hub_retriever_parse(HubRetriever *out, const void *text, size_t size, bool is_open_clip);
// DIR/1_Pooling/config.json of sentence-transformers, for BERT; without one it is the mean.
Error hub_retriever_parse_pooling(HubRetriever *out, const void *text, size_t size);
// From a folder.
Error hub_retriever_open_new(HubRetriever *out, const char *dir);
void hub_retriever_free(HubRetriever *hub);
// How hub->weights spells the names of the towers' tensors, and what else may be in it.
Error hub_retriever_names(WeightNames *out, const HubRetriever *hub);
// Fills a retriever that was built of this configuration and marked, and has no memory yet; see
// weights_map. Buffers, poolers and heads that the towers do not use may be in the file.
Error hub_retriever_load(Retriever *retriever, Device *dev, DType t, SafeStore *store,
                         const HubRetriever *hub);

#endif
