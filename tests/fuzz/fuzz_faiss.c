// fuzz_faiss: flat faiss indexes; their rows and ids must lie in the input.
#include <stdlib.h>

#include "fuzz.h"
#include "host/faiss.h"

FUZZ(faiss) {
    FaissIndex index;
    if (!fuzz_accepts(faiss_parse(&index, data, size))) {
        return false;
    }
    float *row = xmalloc((size_t)index.E, sizeof *row);
    for (size_t i = 0; i < index.M; i++) {
        faiss_rows(&index, row, i, 1);
        faiss_id(&index, i);
    }
    free(row);
    return true;
}
