// arena: one block of device memory, handed out in order, freed at once.
//
// The same layout function runs twice: first over an arena without memory, which only counts, then
// over one with memory of exactly that size. So size and use cannot disagree.
//
//     Arena plan = arena_plan();
//     layout(&plan, ...);                           // pointers are NULL, plan.used is the need
//     Arena arena = arena_new(dev, "activations", plan.used);
//     layout(&arena, ...);
//
// A step marks, takes scratch, and releases to the mark: no allocation inside a step.
#ifndef JOMED_KERNELS_ARENA_H
#define JOMED_KERNELS_ARENA_H

#include "device.h"

#define ARENA_ALIGN 256 // bytes; a cache line on every CPU, a full coalesced access on every GPU

typedef struct {
    Device *dev;      // NULL while planning
    const char *name; // what it is for, in messages
    char *base;       // NULL while planning
    size_t used, size, peak; // bytes; size is 0 while planning
    size_t scratch;   // while planning: the most that an op takes for itself (ops.h)
} Arena;

#ifdef __cplusplus
extern "C" {
#endif

Arena arena_plan(void);
Arena arena_new(Device *dev, const char *name, size_t bytes); // zero-filled
void arena_free(Arena *arena);
// count * size bytes, aligned to ARENA_ALIGN, uninitialised after the first release. While planning
// the result is NULL. CHECK-fails when the arena is too small: that is a plan that disagrees.
void *arena_take(Arena *arena, size_t count, size_t size);
size_t arena_mark(const Arena *arena);
void arena_release(Arena *arena, size_t mark);

#ifdef __cplusplus
}
#endif
#endif
