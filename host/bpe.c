// bpe: see bpe.h. The symbols are a doubly linked list in an array; pairs that may merge wait in a
// heap by (rank, place). An entry whose symbols have changed meanwhile is passed over.
#include "bpe.h"

#include <stdlib.h>

#include "vocab.h"

struct BpeNode {
    int32_t id, before, after; // id -1: merged away; before, after -1: none
};
struct BpeCandidate {
    int32_t rank, at;
    const Merge *merge;
};

// ---- table of merges ----
static Merge *find_slot(const Bpe *bpe, int32_t left, int32_t right) {
    const uint32_t mask = (uint32_t)bpe->slot_count - 1;
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t slot = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 32) & mask; // Fibonacci hashing
    for (;; slot = (slot + 1) & mask) {
        Merge *merge = &bpe->merges[slot];
        if (merge->left < 0 || (merge->left == left && merge->right == right)) {
            return merge;
        }
    }
}

Bpe bpe_new(int most_merges) {
    Bpe bpe = {0};
    bpe.merges = slots_new(&bpe.slot_count, most_merges, sizeof *bpe.merges);
    return bpe;
}

void bpe_free(Bpe *bpe) {
    free(bpe->merges);
    free(bpe->nodes);
    free(bpe->heap);
    *bpe = (Bpe){0};
}

bool bpe_add(Bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t result) {
    CHECK(left >= 0 && right >= 0 && 2 * bpe->merge_count < bpe->slot_count, "merge %d of %d",
          bpe->merge_count, bpe->slot_count / 2);
    Merge *slot = find_slot(bpe, left, right);
    if (slot->left >= 0) {
        return false;
    }
    *slot = (Merge){left, right, rank, result};
    bpe->merge_count++;
    return true;
}

const Merge *bpe_find(const Bpe *bpe, int32_t left, int32_t right) {
    const Merge *merge = find_slot(bpe, left, right);
    return merge->left < 0 ? NULL : merge;
}

// ---- heap ----
static bool is_before(const struct BpeCandidate *a, const struct BpeCandidate *b) {
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void push(struct BpeCandidate *heap, int *count, struct BpeCandidate new) {
    int at = (*count)++;
    for (; at > 0 && is_before(&new, &heap[(at - 1) / 2]); at = (at - 1) / 2) {
        heap[at] = heap[(at - 1) / 2];
    }
    heap[at] = new;
}

static struct BpeCandidate pop(struct BpeCandidate *heap, int *count) {
    const struct BpeCandidate top = heap[0], moved = heap[--*count];
    int at = 0;
    for (int child; (child = 2 * at + 1) < *count; at = child) {
        child += child + 1 < *count && is_before(&heap[child + 1], &heap[child]);
        if (!is_before(&heap[child], &moved)) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = moved;
    return top;
}

// ---- one piece ----
static void reserve(Bpe *bpe, size_t size) {
    CHECK(size < INT32_MAX / 4, "a piece of %zu bytes", size);
    if (bpe->room < size) { // n - 1 pairs at first, and at most two more per merge
        bpe->room = 2 * size;
        bpe->nodes = xrealloc(bpe->nodes, bpe->room, sizeof *bpe->nodes);
        bpe->heap = xrealloc(bpe->heap, 3 * bpe->room, sizeof *bpe->heap);
    }
}

static void consider(Bpe *bpe, int *count, int32_t at) {
    const int32_t after = bpe->nodes[at].after;
    const Merge *merge =
        after < 0 ? NULL : bpe_find(bpe, bpe->nodes[at].id, bpe->nodes[after].id);
    if (merge) {
        push(bpe->heap, count, (struct BpeCandidate){merge->rank, at, merge});
    }
}

int bpe_encode(Bpe *bpe, const char *piece, size_t size, int32_t *out) {
    reserve(bpe, size);
    struct BpeNode *const node = bpe->nodes;
    const int32_t n = (int32_t)size;
    for (int32_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)piece[i];
        node[i] = (struct BpeNode){i + 1 < n ? bpe->byte[byte] : bpe->last_byte[byte], i - 1,
                                   i + 1 < n ? i + 1 : -1};
    }
    int waiting = 0;
    for (int32_t i = 0; i + 1 < n; i++) {
        consider(bpe, &waiting, i);
    }
    while (waiting > 0) {
        const struct BpeCandidate best = pop(bpe->heap, &waiting);
        struct BpeNode *left = &node[best.at];
        if (left->id != best.merge->left || left->after < 0 ||
            node[left->after].id != best.merge->right) {
            continue;
        }
        left->id = best.merge->result;
        node[left->after].id = -1;
        left->after = node[left->after].after;
        if (left->after >= 0) {
            node[left->after].before = best.at;
        }
        if (left->before >= 0) {
            consider(bpe, &waiting, left->before);
        }
        consider(bpe, &waiting, best.at);
    }
    int count = 0;
    for (int32_t i = 0; i >= 0; i = node[i].after) {
        out[count++] = node[i].id;
    }
    return count;
}
