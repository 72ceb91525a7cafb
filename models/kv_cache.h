// kv_cache: keys and values of the positions that sequences have passed, so that a pass over their
// next tokens need not repeat the old ones.
//
// B slots with room for `room` positions each; slot s has rows s*room .. s*room + used[s] - 1 of
// every block's keys (already turned by RoPE) and values. Leaves out paging, sharing of prefixes,
// and sliding windows.
#ifndef JOMED_MODELS_KV_CACHE_H
#define JOMED_MODELS_KV_CACHE_H

#include "model.h"

typedef struct {
    int L, B, room, width; // blocks; slots; positions of a slot; Hkv*D
    int *used;             // (B) on the host: positions that are there
    int32_t *next;         // (B) on the host: the position that text would continue at
    void *k[MAX_LAYERS], *v[MAX_LAYERS]; // (B*room, width) t
    Arena arena;
} KvCache;

// Empty slots. Dies with EXIT_RESOURCE where the device has no kv_cache_bytes.
KvCache *kv_cache_new(Device *dev, DType t, int L, int width, int B, int room);
void kv_cache_free(KvCache *cache);
void kv_cache_clear(KvCache *cache);
// 2 L B room width elements, and alignment.
size_t kv_cache_bytes(DType t, int L, int width, int B, int room);

// How one pass uses a cache: sequence b of it continues slot[b]. On the device.
typedef struct {
    KvCache *cache;
    int32_t *rows;        // (N) where keys and values of the pass are kept
    int32_t *first, *used; // (B+1), (B) as attention wants cu_k and used_k
    int max_T;            // the largest of used
} KvPass;
// The rows of a pass over sequences of cu_seqlens (B+1), on the host; CHECK-fails where a slot is
// full. No cache: all zero.
KvPass kv_pass(Run *run, HostIds *scratch, KvCache *cache, const int32_t *slot,
               const int32_t *cu_seqlens, int B);
// out (N,width) t of one block is kept; returns the cache's tensor.
void *kv_keep(Run *run, const KvPass *pass, void *tensor, const void *out, int N);
// After the pass: its positions (3 axes by stride) are there.
void kv_pass_done(KvCache *cache, const int32_t *slot, const int32_t *cu_seqlens, int B,
                  const int32_t *positions, int stride);

#endif
