// kv_cache: see kv_cache.h.
#include "kv_cache.h"

#include <stdlib.h>
#include <string.h>

// Runs twice: to measure, and to hand out.
static void layout(KvCache *cache, Arena *arena, DType t) {
    size_t rows, count;
    if (!size_mul((size_t)cache->B, (size_t)cache->room, &rows) ||
        !size_mul(rows, (size_t)cache->width, &count)) {
        die(EXIT_RESOURCE, "memory: a cache of %d sequences of %d tokens does not fit in an "
            "address space", cache->B, cache->room);
    }
    for (int l = 0; l < cache->L; l++) {
        cache->k[l] = arena_take(arena, count, dtype_size(t));
        cache->v[l] = arena_take(arena, count, dtype_size(t));
    }
}

size_t kv_cache_bytes(DType t, int L, int width, int B, int room) {
    KvCache cache = {.L = L, .B = B, .room = room, .width = width};
    Arena plan = arena_plan();
    layout(&cache, &plan, t);
    return plan.used;
}

KvCache *kv_cache_new(Device *dev, DType t, int L, int width, int B, int room) {
    CHECK(L >= 1 && L <= MAX_LAYERS && width >= 1 && B >= 1 && room >= 1,
          "L=%d width=%d B=%d room=%d", L, width, B, room);
    CHECK(room <= INT32_MAX / B, "B=%d room=%d", B, room);
    KvCache *cache = xmalloc(1, sizeof *cache);
    *cache = (KvCache){.L = L, .B = B, .room = room, .width = width,
                       .used = xcalloc((size_t)B, sizeof(int)),
                       .next = xcalloc((size_t)B, sizeof(int32_t))};
    cache->arena = arena_new(dev, "keys and values", kv_cache_bytes(t, L, width, B, room));
    layout(cache, &cache->arena, t);
    return cache;
}

void kv_cache_free(KvCache *cache) {
    arena_free(&cache->arena);
    free(cache->used);
    free(cache->next);
    free(cache);
}

void kv_cache_clear(KvCache *cache) {
    memset(cache->used, 0, (size_t)cache->B * sizeof *cache->used);
    memset(cache->next, 0, (size_t)cache->B * sizeof *cache->next);
}

KvPass kv_pass(Run *run, HostIds *scratch, KvCache *cache, const int32_t *slot,
               const int32_t *cu_seqlens, int B) {
    KvPass pass = {.cache = cache};
    if (!cache) {
        return pass;
    }
    CHECK(!run->is_training, "a cache of %d slots has no backward", cache->B);
    const int N = cu_seqlens[B];
    int32_t *rows = host_ids(scratch, (size_t)N + 2 * (size_t)B + 1), *first = rows + N,
            *used = first + B + 1;
    for (int b = 0; b < B; b++) {
        const int s = slot[b], T = cu_seqlens[b + 1] - cu_seqlens[b];
        CHECK(s >= 0 && s < cache->B && cache->used[s] + T <= cache->room,
              "slot %d of %d: %d tokens, room=%d", s, cache->B, T, cache->room);
        first[b] = s * cache->room;
        used[b] = cache->used[s] + T;
        pass.max_T = used[b] > pass.max_T ? used[b] : pass.max_T;
        for (int i = 0; i < T; i++) {
            rows[cu_seqlens[b] + i] = first[b] + cache->used[s] + i;
        }
    }
    first[B] = 0;
    pass.rows = run_take_ids(run, rows, (size_t)N);
    pass.first = run_take_ids(run, first, (size_t)B + 1);
    pass.used = run_take_ids(run, used, (size_t)B);
    return pass;
}

void *kv_keep(Run *run, const KvPass *pass, void *tensor, const void *out, int N) {
    const KvCache *cache = pass->cache;
    RUN(run, rows_scatter, tensor, out, pass->rows, N, cache->width, cache->B * cache->room);
    return tensor;
}

void kv_pass_done(KvCache *cache, const int32_t *slot, const int32_t *cu_seqlens, int B,
                  const int32_t *positions, int stride) {
    for (int b = 0; b < B; b++) {
        const int s = slot[b];
        for (int n = cu_seqlens[b]; n < cu_seqlens[b + 1]; n++) {
            for (int axis = 0; axis < 3; axis++) {
                const int32_t after = positions[(size_t)axis * stride + n] + 1;
                cache->next[s] = after > cache->next[s] ? after : cache->next[s];
            }
        }
        cache->used[s] += cu_seqlens[b + 1] - cu_seqlens[b];
    }
}
