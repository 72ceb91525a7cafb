// feature_cache: vision features of a frozen reader, one entry per image, the least recently used
// dropped when the bound is reached. Features are batch-invariant: kept or computed again, the same
// bits.
#ifndef JOMED_HOST_FEATURE_CACHE_H
#define JOMED_HOST_FEATURE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/device.h"

typedef struct {
    uint64_t key;  // hash of the image
    void *data;    // on the device, bytes long; NULL: a free slot
    size_t bytes;
    int rows, columns;     // patches of the image
    int newer, older;      // neighbours in the order of use, -1 none
    int next;              // in the chain of its hash bucket, -1 none
} Feature;

typedef struct {
    Device *dev;
    size_t limit, used;    // bytes
    Feature *features;
    int count, room, free_list;
    int *bucket;           // (buckets), first feature of each chain or -1
    int buckets;           // a power of two
    int newest, oldest;
    uint64_t hits, misses;
} FeatureCache;

FeatureCache feature_cache_new(Device *dev, size_t limit_bytes);
void feature_cache_free(FeatureCache *cache);
bool feature_cache_has(const FeatureCache *cache, uint64_t key); // changes no order
// NULL: not there. The entry lives until the next _put; it becomes the most recently used.
const Feature *feature_cache_get(FeatureCache *cache, uint64_t key);
// Makes room and returns a new entry whose data the caller fills. An entry larger than the limit is
// kept alone. Entries got since `pinned` entries ago are never dropped: those of the batch being
// built.
const Feature *feature_cache_put(FeatureCache *cache, uint64_t key, size_t bytes, int rows,
                                 int columns, int pinned);

#endif
