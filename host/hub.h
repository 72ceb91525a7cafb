// hub: what folders of the model hub have in common: which family they hold, and their fields.
//
//   config.json            transformers: "model_type" names the family
//   open_clip_config.json  open_clip
// Which fields a family has, and what they mean, is hub_retriever's and hub_reader's. The rule for
// a field we have no equation for: its plain value passes, any other is refused by name, since the
// result would be another without a word. Source: transformers' PretrainedConfig.
#ifndef JOMED_HOST_HUB_H
#define JOMED_HOST_HUB_H

#include "json.h"

// H(enumerator, "model_type"): the families we know.
#define HUB_FAMILIES(H)                                                                            \
    H(HUB_JINA_CLIP, "jina_clip") H(HUB_CLIP, "clip") H(HUB_OPEN_CLIP, "open_clip")                \
    H(HUB_BERT, "bert") H(HUB_QWEN2_VL, "qwen2_vl") H(HUB_LLAVA, "llava") H(HUB_LLAMA, "llama")
#define HUB_ENUMERATOR(name, text) name,
typedef enum { HUB_FAMILIES(HUB_ENUMERATOR) HUB_FAMILY_COUNT } HubFamily;
#undef HUB_ENUMERATOR
const char *hub_family_name(HubFamily family);
// The family of a parsed config.json. Error: none, or one that is not supported.
Error hub_family_of(HubFamily *out, const json_t *config);

// A folder's configuration, and where its weights are.
typedef struct {
    HubFamily family;
    json_t *config; // a reference
    char *weights;  // for safestore_open_new: a file or an index
} HubFolder;
// config.json with a model_type is taken before open_clip_config.json: folders with both hold the
// same weights twice. Error: no such folder or files; the text names the file.
Error hub_open_new(HubFolder *out, const char *dir);
void hub_free(HubFolder *folder);
// The bytes of DIR/name as JSON; *out stays NULL, without an error, where there is no such file.
Error hub_json_new(json_t **out, const char *dir, const char *name);

// Fields that our equations fix: `values` are JSON, any of which may stand, blanks between them.
// An absent field passes where the family's default is among them, which the caller knows; so does
// null. Error: "field hidden_act="relu" changes the computation; supported: "gelu"".
typedef struct {
    const char *field, *values;
} HubFixed;
Error hub_expect(const json_t *object, const HubFixed *fields, int count);
// Several whole numbers; an absent one leaves *out, so set the family's default before.
typedef struct {
    const char *field;
    int *out, low, high;
} HubInt;
Error hub_ints(const json_t *object, const HubInt *fields, int count);

// A tokenizer of `vocab` ids before an embedding of V rows. Error: it has ids without a row.
Error hub_expect_vocabulary(int vocab, int V);

#endif
