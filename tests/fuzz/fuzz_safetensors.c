// fuzz_safetensors: a file of tensors; every tensor found must lie inside it.
#include "host/safetensors.h"

#include "fuzz.h"

FUZZ(safetensors) {
    SafeTensors set;
    const bool is_accepted = fuzz_accepts(safetensors_parse_new(&set, data, size));
    CHECK(is_accepted || (set.count == 0 && !set.tensors), "a refused file left tensors");
    for (int i = 0; i < set.count; i++) {
        const SafeTensor *const tensor = &set.tensors[i];
        char text[128];
        CHECK(safetensors_find(&set, tensor->name), "tensor %d is not found by its name", i);
        CHECK(safe_count(tensor) * (size_t)safe_type_bits(tensor->type) == tensor->bytes * 8,
              "%s in %zu bytes", safe_describe(text, tensor), tensor->bytes);
        fuzz_touch(tensor->data, tensor->bytes);
    }
    for (int i = 0; i < set.metadata_count; i++) {
        CHECK(safetensors_metadata(&set, set.metadata[2 * i]), "metadata %d is not found", i);
    }
    safetensors_free(&set);
    return is_accepted;
}
