// score_store: what was put is found again, by other processes too, and damage costs only the tail.
#define _POSIX_C_SOURCE 200809L
#include "host/score_store.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

enum { C = 3, COUNT = 5000 };

static void fill(int i, float raw[C], float logprob[C]) {
    for (int c = 0; c < C; c++) {
        raw[c] = (float)(i * 7 + c);
        logprob[c] = -(float)(i + c) / 8;
    }
}

static void put_some(ScoreStore *store, int from, int to) {
    for (int i = from; i < to; i++) {
        float raw[C], logprob[C];
        fill(i, raw, logprob);
        const Error error = score_store_put(store, score_key(1, (uint64_t)i, 9), raw, logprob, i);
        EXPECT(error.code == 0, "put: %s", error.text);
    }
}

// How many of the first COUNT records are there; each must be right.
static int known(ScoreStore *store) {
    int found = 0;
    for (int i = 0; i < COUNT; i++) {
        float raw[C], logprob[C], want_raw[C], want_logprob[C];
        int32_t greedy;
        fill(i, want_raw, want_logprob);
        if (score_store_get(store, score_key(1, (uint64_t)i, 9), raw, logprob, &greedy)) {
            found++;
            EXPECT(memcmp(raw, want_raw, sizeof raw) == 0 &&
                       memcmp(logprob, want_logprob, sizeof logprob) == 0 && greedy == i,
                   "record %d came back wrong", i);
        }
    }
    return found;
}

TEST(score_store_remembers) {
    ScoreStore *store;
    EXPECT(score_store_open(&store, NULL, C, true).code == 0, "open");
    put_some(store, 0, COUNT);
    put_some(store, 0, 10); // again: left as they are
    EXPECT(store->count == COUNT, "%zu records", store->count);
    EXPECT(known(store) == COUNT, "some are lost");
    EXPECT(store->hits == COUNT && store->misses == 0, "counters");
    EXPECT(!score_store_get(store, score_key(2, 1, 9), NULL, NULL, NULL), "another reader's score");
    EXPECT(!score_store_get(store, score_key(1, 9, 1), NULL, NULL, NULL),
           "query and passage swapped");
    score_store_close(store);
    EXPECT(score_store_open(&store, NULL, C, false).code == 0, "open");
    put_some(store, 0, 10);
    EXPECT(known(store) == 0, "a disabled store remembers");
    score_store_close(store);
}

TEST(score_store_two_writers_share_a_directory) {
    ScoreStore *a, *b, *c;
    const char *dir = check_tmpdir();
    EXPECT(score_store_open(&a, dir, C, true).code == 0, "open");
    EXPECT(score_store_open(&b, dir, C, true).code == 0, "open");
    EXPECT(strcmp(a->path, b->path) != 0, "two writers, one file");
    put_some(a, 0, 2000);
    put_some(b, 1000, COUNT);
    EXPECT(score_store_close(a).code == 0 && score_store_close(b).code == 0, "close");
    EXPECT(score_store_open(&c, dir, C, true).code == 0, "open");
    EXPECT(known(c) == COUNT && c->cut_bytes == 0, "%zu bytes cut", c->cut_bytes);
    score_store_close(c);
    EXPECT(score_store_open(&c, dir, C + 1, true).code == 0, "another label set is left alone");
    EXPECT(c->count == 0, "%zu records of another label set", c->count);
    score_store_close(c);
}

TEST(score_store_damage_costs_only_the_tail) {
    ScoreStore *store;
    const char *dir = check_tmpdir();
    EXPECT(score_store_open(&store, dir, C, true).code == 0, "open");
    char *path = xstrdup(store->path);
    put_some(store, 0, 100);
    score_store_close(store);
    FileBytes bytes;
    EXPECT(file_read_new(&bytes, path, 1 << 20).code == 0, "read");
    const size_t record = (bytes.size - 16) / 100;
    uint8_t *copy = malloc(bytes.size);
    memcpy(copy, bytes.data, bytes.size);
    file_replace(path, copy, bytes.size - 5); // torn
    EXPECT(score_store_open(&store, dir, C, true).code == 0, "open");
    EXPECT(known(store) == 99 && store->cut_bytes == record - 5, "%zu known", store->count);
    score_store_close(store);
    copy[16 + 40 * record + 20] ^= 4; // bit rot in record 40
    file_replace(path, copy, bytes.size);
    EXPECT(score_store_open(&store, dir, C, true).code == 0, "open");
    EXPECT(known(store) == 40, "%zu known", store->count);
    score_store_close(store);
    file_bytes_free(&bytes);
    free(copy);
    free(path);
}
