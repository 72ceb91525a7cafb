// arena: see arena.h.
#include "arena.h"

#include "base.h"

Arena arena_plan(void) {
    Arena arena = {.name = "plan"};
    return arena;
}

Arena arena_new(Device *dev, const char *name, size_t bytes) {
    Arena arena = {.dev = dev, .name = name, .size = bytes};
    arena.base = device_alloc(dev, bytes, name);
    device_zero(dev, arena.base, bytes);
    return arena;
}

void arena_free(Arena *arena) {
    if (arena->base) {
        device_release(arena->dev, arena->base);
    }
    *arena = arena_plan();
}

void *arena_take(Arena *arena, size_t count, size_t size) {
    size_t bytes, end;
    if (!size_mul(count, size, &bytes) || !size_add(arena->used, bytes, &end) ||
        end > SIZE_MAX - ARENA_ALIGN) {
        die(EXIT_RESOURCE, "memory: arena '%s' would exceed the address space", arena->name);
    }
    char *taken = arena->base ? arena->base + arena->used : NULL;
    arena->used = (end + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    CHECK(!arena->base || arena->used <= arena->size, "arena '%s': %zu of %zu bytes", arena->name,
          arena->used, arena->size);
    if (arena->used > arena->peak) {
        arena->peak = arena->used;
    }
    return taken;
}

size_t arena_mark(const Arena *arena) { return arena->used; }

void arena_release(Arena *arena, size_t mark) {
    CHECK(mark <= arena->used, "mark %zu beyond %zu", mark, arena->used);
    arena->used = mark;
}
