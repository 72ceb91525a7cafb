// score_store: see score_store.h.
#define _POSIX_C_SOURCE 200809L
#include "score_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "JOMEDSC1"

// A file is this header, then records: key (16 bytes), 2 C + 1 floats, XXH64 of both (8 bytes).
typedef struct {
    char magic[8];
    uint32_t version, C;
} FileHeader;

ScoreKey score_key(uint64_t context, uint64_t query, uint64_t passage) {
    const uint64_t words[3] = {context, query, passage};
    return (ScoreKey){{xxh64(words, sizeof words, 0), xxh64(words, sizeof words, 0x5c0e)}};
}

static size_t value_count(const ScoreStore *store) { return 2 * (size_t)store->C + 1; }
static size_t record_bytes(const ScoreStore *store) {
    return sizeof(ScoreKey) + value_count(store) * sizeof(float) + sizeof(uint64_t);
}

// ---- table ----
static size_t find_slot(const ScoreStore *store, ScoreKey key) {
    size_t slot = key.word[0] & (store->slots - 1);
    while (store->rows[slot] >= 0 && memcmp(&store->keys[slot], &key, sizeof key) != 0) {
        slot = (slot + 1) & (store->slots - 1);
    }
    return slot;
}

static void grow_table(ScoreStore *store) {
    const size_t old_slots = store->slots;
    ScoreKey *old_keys = store->keys;
    int32_t *old_rows = store->rows;
    store->slots = old_slots ? 2 * old_slots : 1024;
    store->keys = xcalloc(store->slots, sizeof *store->keys);
    store->rows = xmalloc(store->slots, sizeof *store->rows);
    memset(store->rows, 0xff, store->slots * sizeof *store->rows);
    for (size_t i = 0; i < old_slots; i++) {
        if (old_rows[i] >= 0) {
            const size_t slot = find_slot(store, old_keys[i]);
            store->keys[slot] = old_keys[i];
            store->rows[slot] = old_rows[i];
        }
    }
    free(old_keys);
    free(old_rows);
}

// Adds a record to memory; false when the key is known.
static bool remember(ScoreStore *store, ScoreKey key, const float *values) {
    if (2 * (store->count + 1) > store->slots) {
        grow_table(store);
    }
    const size_t slot = find_slot(store, key);
    if (store->rows[slot] >= 0) {
        return false;
    }
    if (store->count == store->room) {
        store->room = store->room ? 2 * store->room : 1024;
        store->values = xrealloc(store->values, store->room, value_count(store) * sizeof(float));
    }
    memcpy(store->values + store->count * value_count(store), values,
           value_count(store) * sizeof(float));
    store->keys[slot] = key;
    store->rows[slot] = (int32_t)store->count++;
    return true;
}

// ---- files ----
// Takes over the records of one file up to its first damaged one.
static Error load_file(ScoreStore *store, const char *path) {
    FileBytes bytes = {0};
    Error error = file_map_new(&bytes, path);
    if (error.code) {
        return error;
    }
    FileHeader header;
    const size_t size = record_bytes(store);
    if (bytes.size >= sizeof header) {
        memcpy(&header, bytes.data, sizeof header);
    }
    if (bytes.size < sizeof header || memcmp(header.magic, MAGIC, sizeof header.magic) != 0) {
        store->cut_bytes += bytes.size; // a writer that died before its first record, or not ours
    } else if (header.C == (uint32_t)store->C) {
        size_t at = sizeof header;
        float *values = xmalloc(value_count(store), sizeof *values);
        for (; bytes.size - at >= size; at += size) {
            uint64_t hash;
            ScoreKey key;
            memcpy(&hash, bytes.data + at + size - sizeof hash, sizeof hash);
            if (xxh64(bytes.data + at, size - sizeof hash, 0) != hash) {
                break;
            }
            memcpy(&key, bytes.data + at, sizeof key);
            memcpy(values, bytes.data + at + sizeof key, value_count(store) * sizeof *values);
            remember(store, key, values);
        }
        free(values);
        store->cut_bytes += bytes.size - at;
    }
    file_bytes_free(&bytes);
    return error_none();
}

static Error create_file(ScoreStore *store, const char *dir) {
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    for (int k = 0; store->fd < 0; k++) { // a name nobody has: pids come back, restarts too
        free(store->path);
        char *name = xformat_new("scores.%s.%d.%d", host, (int)getpid(), k);
        store->path = file_join_new(dir, name);
        free(name);
        store->fd = open(store->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0666);
        if (store->fd < 0 && errno != EEXIST) {
            return error_at(EXIT_NO_OUTPUT, ERROR_NOWHERE, "%.140s: %s", store->path,
                            strerror(errno));
        }
    }
    FileHeader header = {.version = 1, .C = (uint32_t)store->C};
    memcpy(header.magic, MAGIC, sizeof header.magic);
    return file_write_all(store->fd, &header, sizeof header);
}

Error score_store_open(ScoreStore **out, const char *dir, int C, bool is_enabled) {
    CHECK(C >= 1, "C=%d", C);
    ScoreStore *store = *out = xcalloc(1, sizeof *store);
    *store = (ScoreStore){.C = C, .is_enabled = is_enabled, .fd = -1};
    grow_table(store);
    if (!dir || !is_enabled) {
        return error_none();
    }
    Error error = file_make_directories(dir);
    char **names = NULL;
    int count = 0;
    if (!error.code) {
        error = file_list_new(&names, &count, dir);
    }
    for (int i = 0; !error.code && i < count; i++) {
        if (strncmp(names[i], "scores.", 7) == 0) {
            char *path = file_join_new(dir, names[i]);
            error = load_file(store, path);
            free(path);
        }
    }
    file_list_free(names, count);
    return error.code ? error : create_file(store, dir);
}

Error score_store_close(ScoreStore *store) {
    Error error = error_none();
    if (store->fd >= 0) {
        error = file_sync(store->fd);
        const Error closed = file_close(store->fd);
        error = error.code ? error : closed;
    }
    free(store->path);
    free(store->keys);
    free(store->rows);
    free(store->values);
    free(store);
    return error;
}

// ---- use ----
bool score_store_get(ScoreStore *store, ScoreKey key, float *raw, float *logprob, int32_t *greedy) {
    const int32_t row = store->is_enabled ? store->rows[find_slot(store, key)] : -1;
    if (row < 0) {
        store->misses++;
        return false;
    }
    store->hits++;
    const float *values = store->values + (size_t)row * value_count(store);
    const size_t bytes = (size_t)store->C * sizeof(float);
    if (raw) {
        memcpy(raw, values, bytes);
    }
    if (logprob) {
        memcpy(logprob, values + store->C, bytes);
    }
    if (greedy) {
        memcpy(greedy, values + 2 * store->C, sizeof *greedy);
    }
    return true;
}

Error score_store_put(ScoreStore *store, ScoreKey key, const float *raw, const float *logprob,
                      int32_t greedy) {
    if (!store->is_enabled) {
        return error_none();
    }
    const size_t size = record_bytes(store), C = (size_t)store->C;
    char *record = xmalloc(size, 1);
    float *values = xmalloc(value_count(store), sizeof *values);
    memcpy(values, raw, C * sizeof *values);
    memcpy(values + C, logprob, C * sizeof *values);
    memcpy(values + 2 * C, &greedy, sizeof greedy);
    memcpy(record, &key, sizeof key);
    memcpy(record + sizeof key, values, value_count(store) * sizeof *values);
    const uint64_t hash = xxh64(record, size - sizeof hash, 0);
    memcpy(record + size - sizeof hash, &hash, sizeof hash);
    Error error = error_none();
    if (remember(store, key, values) && store->fd >= 0) {
        error = file_write_all(store->fd, record, size); // one write: only the end can be torn
    }
    free(values);
    free(record);
    return error;
}
