// fuzz_hub: config.json and open_clip_config.json of checkpoint folders, and sentence-transformers'
// pooling.
#include "fuzz.h"
#include "host/hub_reader.h"
#include "host/hub_retriever.h"

FUZZ(hub) {
    bool is_accepted = false;
    for (int is_open_clip = 0; is_open_clip < 2; is_open_clip++) {
        HubRetriever hub = {0};
        if (fuzz_accepts(hub_retriever_parse(&hub, data, size, is_open_clip))) {
            is_accepted = true;
            CHECK(hub.max_tokens > 0, "%d tokens", hub.max_tokens);
            fuzz_accepts(hub_retriever_parse_pooling(&hub, data, size));
        }
        hub_retriever_free(&hub);
    }
    json_t *root = NULL;
    HubFamily family;
    if (fuzz_accepts(json_parse_new(&root, data, size)) &&
        fuzz_accepts(hub_family_of(&family, root))) {
        ReaderConfig config;
        is_accepted = fuzz_accepts(hub_reader_config(&config, family, root)) || is_accepted;
    }
    json_decref(root);
    return is_accepted;
}
