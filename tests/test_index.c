// index: what is saved comes back, and no damage goes unnoticed.
#define _POSIX_C_SOURCE 200809L
#include "host/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/file.h"
#include "tests/check.h"

enum { COUNT = 23, DIM = 12, SHARD = 7 };

static Index *sample_index(DType t) {
    Index *index = index_new(check_device(), COUNT, DIM, t);
    float rows[COUNT * DIM];
    for (int side = 0; side < INDEX_SIDES; side++) {
        Rng rng = check_rng((uint32_t)side);
        for (int i = 0; i < COUNT * DIM; i++) {
            rows[i] = (float)((int)rng_below(&rng, 9) - 4) / 4; // exact in every type
        }
        index_set_rows(index, (IndexSide)side, 0, COUNT, rows);
    }
    index->corpus_hash = 17;
    index->encoder_hash = 23;
    return index;
}

TEST(index_round_trip) {
    const DType types[] = {DT_F32, DT_F16, DT_BF16};
    for (int k = 0; k < 3; k++) {
        for (int shard_rows = 1; shard_rows <= 64; shard_rows += 21) {
            if (!CASE("t=%s shard_rows=%d", dtype_name(types[k]), shard_rows)) {
                continue;
            }
            const char *dir = file_join_new(check_tmpdir(), "index");
            Index *index = sample_index(types[k]), *back = NULL;
            Error error = index_save(index, dir, shard_rows);
            EXPECT(error.code == 0, "save: %s", error.text);
            error = index_load_new(&back, check_device(), dir, 17);
            EXPECT(error.code == 0, "load: %s", error.text);
            if (back) {
                EXPECT(back->build_id == index->build_id && back->encoder_hash == 23, "ids differ");
                for (int side = 0; side < INDEX_SIDES; side++) {
                    EXPECT(memcmp(back->rows[side], index->rows[side],
                                  (size_t)COUNT * DIM * dtype_size(types[k])) == 0,
                           "%s rows differ", index_side_name((IndexSide)side));
                }
            }
            EXPECT(index_verify(dir, NULL, NULL).code == 0, "verify");
            error = index_load_new(&back, check_device(), dir, 18);
            EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "corpus"), "other corpus: %s",
                   error.text);
        }
    }
}

// Every kind of damage to one shard: the error names that shard.
TEST(index_damage_is_refused_by_name) {
    const char *const damages[] = {"missing", "truncated", "longer", "bit flip", "another build",
                                   "swapped sides", "empty"};
    for (size_t k = 0; k < sizeof damages / sizeof *damages; k++) {
        if (!CASE("%s", damages[k])) {
            continue;
        }
        char *dir = file_join_new(check_tmpdir(), damages[k]);
        char *path = file_join_new(dir, "text.00001.shard"),
             *twin = file_join_new(dir, "image.00001.shard");
        Index *index = sample_index(DT_F16), *back = NULL;
        index_save(index, dir, SHARD);
        FileBytes bytes, other;
        EXPECT(file_read_new(&bytes, path, 1 << 20).code == 0, "read");
        EXPECT(file_read_new(&other, twin, 1 << 20).code == 0, "read");
        uint8_t copy[4096];
        memcpy(copy, bytes.data, bytes.size);
        copy[100] ^= k == 3;
        copy[8] ^= k == 4;
        if (k == 0) {
            unlink(path);
        } else if (k == 5) {
            file_replace(path, other.data, other.size);
        } else {
            file_replace(path, copy,
                         k == 1   ? bytes.size - 1
                         : k == 2 ? bytes.size + 1
                         : k == 6 ? 0
                                  : bytes.size);
        }
        const Error error = index_load_new(&back, check_device(), dir, 17);
        EXPECT(error.code == (k == 0 ? EXIT_NO_INPUT : EXIT_BAD_DATA), "code %d", error.code);
        EXPECT(strstr(error.text, "text.00001.shard"), "the error names no shard: '%s'",
               error.text);
        EXPECT(back == NULL, "a damaged index was handed out");
        EXPECT(index_verify(dir, NULL, NULL).code == error.code, "verify does not agree");
        file_bytes_free(&bytes);
        file_bytes_free(&other);
        free(dir);
        free(path);
        free(twin);
        index_free(index);
    }
}

// Not file_replace: hundreds of files, and none of them needs to outlive a power cut. A new file
// each time: what is cut and written again is flushed to the disk by some file systems.
static void write_plainly(const char *path, const void *bytes, size_t size) {
    unlink(path);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0, "%s", path);
}

TEST(index_meta_is_checked) {
    char *dir = file_join_new(check_tmpdir(), "meta"), *path = file_join_new(dir, "meta.json");
    Index *index = sample_index(DT_F32);
    index_save(index, dir, SHARD);
    FileBytes bytes;
    EXPECT(file_read_new(&bytes, path, 1 << 20).code == 0, "read");
    // Any prefix of meta.json, and any single flipped byte, is refused or leaves the meaning as it
    // was.
    for (size_t at = 0; at < bytes.size; at++) {
        uint8_t *copy = malloc(bytes.size);
        memcpy(copy, bytes.data, bytes.size);
        copy[at] ^= 1;
        write_plainly(path, copy, bytes.size);
        Index *back = NULL;
        const Error error = index_load_new(&back, check_device(), dir, 17);
        EXPECT((error.code == 0) == (back != NULL), "byte %zu", at);
        if (back) { // a blank, the metric's name, a file name that is for people, the encoder's
                    // hash
            EXPECT(memcmp(back->rows[0], index->rows[0], sizeof(float) * COUNT * DIM) == 0,
                   "byte %zu", at);
            index_free(back);
        }
        write_plainly(path, copy, at);
        EXPECT(index_load_new(&back, check_device(), dir, 17).code == EXIT_BAD_DATA, "prefix %zu",
               at);
        free(copy);
    }
    unlink(path);
    Index *back = NULL;
    EXPECT(index_load_new(&back, check_device(), dir, 17).code == EXIT_NO_INPUT, "no meta.json");
    file_bytes_free(&bytes);
    index_free(index);
    free(dir);
    free(path);
}
