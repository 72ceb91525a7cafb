// scratch: one growable buffer of floats per thread; see scratch.h.
#include "scratch.h"

#include <stdlib.h>

#include "base.h"

#define ALIGNMENT 64

float *scratch_floats(size_t n) {
    static _Thread_local float *buffer;
    static _Thread_local size_t capacity;
    if (n > capacity) {
        size_t bytes;
        if (!size_mul(n, sizeof(float), &bytes) || !size_add(bytes, ALIGNMENT, &bytes)) {
            die(EXIT_RESOURCE, "memory: a tile of %zu floats does not fit in an address space", n);
        }
        free(buffer);
        buffer = aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT);
        if (!buffer) {
            die(EXIT_RESOURCE, "memory: cannot get %zu bytes for a tile", bytes);
        }
        capacity = n;
    }
    return buffer;
}
