// feature_cache: see feature_cache.h.
#include "feature_cache.h"

#include <stdlib.h>

#include "kernels/base.h"

FeatureCache feature_cache_new(Device *dev, size_t limit_bytes) {
    FeatureCache cache = {.dev = dev, .limit = limit_bytes, .buckets = 1 << 14, .newest = -1,
                          .oldest = -1, .free_list = -1};
    cache.bucket = xmalloc((size_t)cache.buckets, sizeof *cache.bucket);
    for (int i = 0; i < cache.buckets; i++) {
        cache.bucket[i] = -1;
    }
    return cache;
}

void feature_cache_free(FeatureCache *cache) {
    for (int i = 0; i < cache->count; i++) {
        device_release(cache->dev, cache->features[i].data);
    }
    free(cache->features);
    free(cache->bucket);
    *cache = (FeatureCache){0};
}

// ---- order of use ----
static void unlink_feature(FeatureCache *cache, int i) {
    Feature *feature = &cache->features[i];
    *(feature->newer >= 0 ? &cache->features[feature->newer].older
                          : &cache->newest) = feature->older;
    *(feature->older >= 0 ? &cache->features[feature->older].newer
                          : &cache->oldest) = feature->newer;
}

static void make_newest(FeatureCache *cache, int i) {
    Feature *feature = &cache->features[i];
    feature->newer = -1;
    feature->older = cache->newest;
    *(cache->newest >= 0 ? &cache->features[cache->newest].newer : &cache->oldest) = i;
    cache->newest = i;
}

static int *bucket_of(const FeatureCache *cache, uint64_t key) {
    return &cache->bucket[key & (uint64_t)(cache->buckets - 1)];
}

static void drop(FeatureCache *cache, int i) {
    Feature *feature = &cache->features[i];
    int *link = bucket_of(cache, feature->key);
    while (*link != i) {
        link = &cache->features[*link].next;
    }
    *link = feature->next;
    unlink_feature(cache, i);
    device_release(cache->dev, feature->data);
    cache->used -= feature->bytes;
    feature->data = NULL;
    feature->next = cache->free_list;
    cache->free_list = i;
}

// ---- use ----
static int find(const FeatureCache *cache, uint64_t key) {
    int i = *bucket_of(cache, key);
    while (i >= 0 && cache->features[i].key != key) {
        i = cache->features[i].next;
    }
    return i;
}

bool feature_cache_has(const FeatureCache *cache, uint64_t key) { return find(cache, key) >= 0; }

const Feature *feature_cache_get(FeatureCache *cache, uint64_t key) {
    const int i = find(cache, key);
    if (i < 0) {
        cache->misses++;
        return NULL;
    }
    unlink_feature(cache, i);
    make_newest(cache, i);
    cache->hits++;
    return &cache->features[i];
}

const Feature *feature_cache_put(FeatureCache *cache, uint64_t key, size_t bytes, int rows,
                                 int columns, int pinned) {
    // Entries newer than the pinned-th are in use; walk from the oldest, at most as many as are
    // free.
    int live = 0;
    for (int i = cache->newest; i >= 0 && live <= pinned; i = cache->features[i].older) {
        live++;
    }
    while (cache->oldest >= 0 && cache->used + bytes > cache->limit && live > pinned) {
        drop(cache, cache->oldest);
        live = 0;
        for (int i = cache->newest; i >= 0 && live <= pinned; i = cache->features[i].older) {
            live++;
        }
    }
    int i = cache->free_list;
    if (i >= 0) {
        cache->free_list = cache->features[i].next;
    } else {
        if (cache->count == cache->room) {
            cache->room = cache->room ? 2 * cache->room : 256;
            cache->features = xrealloc(cache->features, (size_t)cache->room, sizeof(Feature));
        }
        i = cache->count++;
    }
    Feature *feature = &cache->features[i];
    *feature = (Feature){.key = key, .bytes = bytes, .rows = rows, .columns = columns};
    feature->data = device_alloc(cache->dev, bytes, "vision features");
    feature->next = *bucket_of(cache, key);
    *bucket_of(cache, key) = i;
    cache->used += bytes;
    make_newest(cache, i);
    return feature;
}
