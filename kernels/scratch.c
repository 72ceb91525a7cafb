// scratch: growable buffers, one set per thread; see scratch.h.
#define _POSIX_C_SOURCE 200809L
#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

#include "base.h"

#define ALIGNMENT 64

typedef struct {
    void *memory[SCRATCH_COUNT];
    size_t capacity[SCRATCH_COUNT];
} Buffers;

// ---- one set per thread ----
// The key is there for its destructor, which runs when a thread ends; the pointer reads faster.
static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static _Thread_local Buffers *of_thread;

static void free_buffers(void *p) {
    Buffers *buffers = p;
    for (int use = 0; use < SCRATCH_COUNT; use++) {
        free(buffers->memory[use]);
    }
    free(buffers);
}

static void make_key(void) {
    const int rc = pthread_key_create(&key, free_buffers);
    CHECK(rc == 0, "pthread_key_create: %d", rc);
}

static Buffers *buffers_of_thread(void) {
    if (!of_thread) {
        pthread_once(&key_once, make_key);
        of_thread = xcalloc(1, sizeof *of_thread);
        const int rc = pthread_setspecific(key, of_thread);
        CHECK(rc == 0, "pthread_setspecific: %d", rc);
    }
    return of_thread;
}

// ---- buffers ----
void *scratch_bytes(ScratchUse use, size_t n) {
    Buffers *buffers = buffers_of_thread();
    if (n > buffers->capacity[use]) {
        size_t bytes;
        if (!size_add(n, ALIGNMENT, &bytes)) {
            die(EXIT_RESOURCE, "memory: a tile of %zu bytes does not fit in an address space", n);
        }
        free(buffers->memory[use]);
        buffers->memory[use] = aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT);
        if (!buffers->memory[use]) {
            die(EXIT_RESOURCE, "memory: cannot get %zu bytes for a tile", bytes);
        }
        buffers->capacity[use] = n;
    }
    return buffers->memory[use];
}

float *scratch_floats(size_t n) {
    size_t bytes;
    if (!size_mul(n, sizeof(float), &bytes)) {
        die(EXIT_RESOURCE, "memory: a tile of %zu floats does not fit in an address space", n);
    }
    return scratch_bytes(SCRATCH_OP, bytes);
}
