// test_feature_cache: against a plain list of what was used when; the limit, and what is pinned.
#include "host/feature_cache.h"

#include <string.h>

#include "tests/check.h"

enum { KEYS = 12, UNIT = 256 };

static size_t bytes_of(uint64_t key) { return UNIT * (1 + key % 3); }

// Keys in the order of use, newest first.
typedef struct {
    uint64_t key[KEYS];
    int count;
} Order;

static bool order_use(Order *order, uint64_t key) {
    int at = 0;
    while (at < order->count && order->key[at] != key) {
        at++;
    }
    const bool is_there = at < order->count;
    if (is_there) {
        memmove(order->key + 1, order->key, (size_t)at * sizeof key);
        order->key[0] = key;
    }
    return is_there;
}

static void order_put(Order *order, uint64_t key, size_t limit, int pinned) {
    size_t used = bytes_of(key);
    for (int i = 0; i < order->count; i++) {
        used += bytes_of(order->key[i]);
    }
    while (order->count > pinned && used > limit) {
        used -= bytes_of(order->key[--order->count]);
    }
    memmove(order->key + 1, order->key, (size_t)order->count * sizeof key);
    order->key[0] = key;
    order->count++;
}

static void expect_filled(const Feature *feature, uint64_t key) {
    char got[3 * UNIT];
    device_copy_out(check_device(), got, feature->data, feature->bytes);
    for (size_t i = 0; i < feature->bytes; i++) {
        EXPECT(got[i] == (char)key, "byte %zu of key %d is %d", i, (int)key, got[i]);
    }
    EXPECT(feature->key == key && feature->rows == (int)key && feature->columns == 2 * (int)key,
           "an entry of another key");
}

TEST(feature_cache_random_use) {
    for (int pinned = 0; pinned <= 2; pinned++) {
        if (!CASE("pinned=%d", pinned)) {
            continue;
        }
        const size_t limit = 7 * UNIT, before = device_bytes_in_use(check_device());
        FeatureCache cache = feature_cache_new(check_device(), limit);
        Order order = {.count = 0};
        Rng rng = check_rng((uint32_t)pinned);
        uint64_t hits = 0;
        for (int i = 0; i < 2000; i++) {
            // Keys that share a bucket (their low bits are equal) must not be mixed up.
            const uint64_t small = 1 + rng_below(&rng, 5),
                           key = small | (uint64_t)rng_below(&rng, 2) << 40;
            const Feature *feature = feature_cache_get(&cache, key);
            const bool is_there = order_use(&order, key);
            hits += is_there;
            EXPECT((feature != NULL) == is_there, "step %d, key %d: %s", i, (int)small,
                   is_there ? "dropped too early" : "kept too long");
            if (feature) {
                EXPECT(feature->key == key, "step %d: an entry of another key", i);
            } else {
                char fill[3 * UNIT];
                memset(fill, (int)small, sizeof fill);
                feature = feature_cache_put(&cache, key, bytes_of(key), (int)small, 2 * (int)small,
                                            pinned);
                device_copy_in(check_device(), feature->data, fill, bytes_of(key));
                order_put(&order, key, limit, pinned);
            }
            if (feature->key == small) {
                expect_filled(feature, small);
            }
            EXPECT(cache.used <= limit || order.count <= pinned + 1, "%zu bytes", cache.used);
        }
        EXPECT(cache.hits == hits && cache.misses == 2000 - hits && hits > 100, "%d hits",
               (int)hits);
        feature_cache_free(&cache);
        EXPECT(device_bytes_in_use(check_device()) == before, "memory is left over");
    }
}

// What is larger than the limit is kept as long as nothing else comes.
TEST(feature_cache_large_entry) {
    FeatureCache cache = feature_cache_new(check_device(), UNIT);
    feature_cache_put(&cache, 1, 3 * UNIT, 1, 2, 0);
    EXPECT(feature_cache_get(&cache, 1) != NULL, "the large entry is gone");
    feature_cache_put(&cache, 2, 3 * UNIT, 1, 2, 0);
    EXPECT(feature_cache_get(&cache, 1) == NULL && feature_cache_get(&cache, 2) != NULL,
           "not replaced");
    feature_cache_put(&cache, 3, 3 * UNIT, 1, 2, 1); // the newest one is in use
    EXPECT(feature_cache_get(&cache, 2) != NULL && feature_cache_get(&cache, 3) != NULL, "pinned");
    feature_cache_free(&cache);
}
