// Tests of host/faiss: the layout byte by byte, faiss's own files, every rule of rejection, damage.
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/faiss.h"

static FileBytes write_index(int E, size_t M, bool has_ids) {
    char *path = file_join_new(check_tmpdir(), "x.faiss");
    FaissWriter writer;
    float *rows = xmalloc(M * (size_t)E, sizeof(float));
    int64_t *ids = xmalloc(M, sizeof(int64_t));
    for (size_t i = 0; i < M * (size_t)E; i++) {
        rows[i] = (float)i / 4;
    }
    for (size_t i = 0; i < M; i++) {
        ids[i] = 1000 - 7 * (int64_t)i;
    }
    EXPECT(faiss_writer_open(&writer, path, E, M, has_ids).code == EXIT_OK, "open");
    faiss_writer_add(&writer, rows, M / 2);
    faiss_writer_add(&writer, rows + M / 2 * (size_t)E, M - M / 2);
    EXPECT(faiss_writer_commit(&writer, has_ids ? ids : NULL).code == EXIT_OK, "commit");
    FileBytes bytes;
    EXPECT(file_read_new(&bytes, path, 1 << 20).code == EXIT_OK, "read");
    free(rows), free(ids), free(path);
    return bytes;
}

TEST(faiss_layout) {
    static const uint8_t want[45] = {'I', 'x', 'F', 'I', 7, 0, 0, 0,  5, 0, 0, 0,  0, 0, 0,
                                     0,   0,   0,   16,  0, 0, 0, 0,  0, 0, 0, 16, 0, 0, 0,
                                     0,   0,   1,   0,   0, 0, 0, 35, 0, 0, 0, 0,  0, 0, 0};
    FileBytes flat = write_index(7, 5, false), map = write_index(7, 5, true),
              empty = write_index(3, 0, false);
    EXPECT(flat.size == 45 + 4 * 35 && memcmp(flat.data, want, 45) == 0, "flat header");
    EXPECT(empty.size == 45, "an empty index has %zu bytes", empty.size);
    EXPECT(map.size == 270 && memcmp(map.data, "IxM2", 4) == 0, "id map of %zu bytes", map.size);
    EXPECT(memcmp(map.data + 4, want + 4, 33) == 0 &&
               memcmp(map.data + 37, flat.data, flat.size) == 0,
           "the same header, then the flat index");
    FaissIndex index;
    EXPECT(faiss_parse(&index, map.data, map.size).code == EXIT_OK && index.E == 7 && index.M == 5,
           "parse");
    float rows[14];
    faiss_rows(&index, rows, 2, 2);
    for (int i = 0; i < 14; i++) {
        EXPECT(rows[i] == (float)(14 + i) / 4, "row value %d", i);
    }
    EXPECT(faiss_id(&index, 4) == 1000 - 28, "id %lld", (long long)faiss_id(&index, 4));
    EXPECT(faiss_parse(&index, flat.data, flat.size).code == EXIT_OK && !index.ids, "flat");
    EXPECT(faiss_id(&index, 4) == 4, "without ids it is the row");
    EXPECT(faiss_parse(&index, empty.data, empty.size).code == EXIT_OK && index.M == 0, "empty");
    file_bytes_free(&flat), file_bytes_free(&map), file_bytes_free(&empty);
}

// Files of faiss itself, by tools/check_faiss.py: 5 rows of width 7, values i / 4 - 3, ids 10^12 -
// row. Read, and written again from what was read, they are the same bytes.
TEST(faiss_fixture) {
    const char *names[] = {"flat_ip.faiss", "idmap2.faiss"};
    for (int k = 0; k < 2; k++) {
        FileBytes bytes;
        FaissIndex index;
        EXPECT(file_read_new(&bytes, check_fixture(names[k]), 1 << 20).code == EXIT_OK, "read");
        const Error error = faiss_parse(&index, bytes.data, bytes.size);
        EXPECT(error.code == EXIT_OK && index.E == 7 && index.M == 5, "%s: %s", names[k],
               error.text);
        float rows[35];
        faiss_rows(&index, rows, 0, 5);
        for (int i = 0; i < 35; i++) {
            EXPECT(rows[i] == (float)i / 4 - 3, "value %d is %g", i, rows[i]);
        }
        int64_t ids[5];
        for (int i = 0; i < 5; i++) {
            ids[i] = faiss_id(&index, (size_t)i);
            EXPECT(ids[i] == (k ? 1000000000000 - i : i), "id %lld", (long long)ids[i]);
        }
        char *path = file_join_new(check_tmpdir(), "again.faiss");
        FaissWriter writer;
        FileBytes again;
        EXPECT(faiss_writer_open(&writer, path, 7, 5, k).code == EXIT_OK, "open");
        faiss_writer_add(&writer, rows, 5);
        EXPECT(faiss_writer_commit(&writer, k ? ids : NULL).code == EXIT_OK, "commit");
        EXPECT(file_read_new(&again, path, 1 << 20).code == EXIT_OK, "read");
        EXPECT(again.size == bytes.size && memcmp(again.data, bytes.data, bytes.size) == 0,
               "same bytes");
        file_bytes_free(&again);
        free(path);
        file_bytes_free(&bytes);
    }
}

TEST(faiss_rejects) {
    const struct {
        const char *rule;
        bool has_ids;
        size_t offset;
        uint64_t value;
        int bytes;
        const char *want;
    } cases[] = {
        {"L2 index", false, 0, 0x32467849, 4, "index kind 'IxF2'"},
        {"magic", false, 0, 0x46464952, 4, "no faiss index"},
        {"width 0", false, 4, 0, 4, "width 0"},
        {"width negative", false, 4, UINT32_MAX, 4, "width -1"},
        {"width 2^20+1", false, 4, (1 << 20) + 1, 4, "width 1048577"},
        {"rows negative", false, 8, UINT64_MAX, 8, "-1 rows"},
        {"rows more than there are", false, 8, 6, 8, "35 numbers for 6 rows"},
        {"rows overflow", false, 8, 1ull << 62, 8, "35 numbers for"},
        {"is_trained", false, 32, 2, 1, "is_trained"},
        {"metric", false, 33, 1, 4, "metric 1"},
        {"number of floats", false, 37, 34, 8, "34 numbers"},
        {"outer rows", true, 8, 4, 8, "differ in size"},
        {"outer width", true, 4, 8, 4, "differ in size"},
        {"inner kind", true, 37, 0x32467849, 4, "no IndexFlatIP"},
        {"inner id map", true, 37, 0x324d7849, 4, "no IndexFlatIP"},
        {"inner width", true, 41, 5, 4, "35 numbers for 5 rows of width 5"},
        {"number of ids", true, 222, 4, 8, "number of ids"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].rule)) {
            FileBytes bytes = write_index(7, 5, cases[i].has_ids);
            memcpy((uint8_t *)(uintptr_t)bytes.data + cases[i].offset, &cases[i].value,
                   (size_t)cases[i].bytes);
            FaissIndex index;
            const Error error = faiss_parse(&index, bytes.data, bytes.size);
            EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, cases[i].want), "'%s'",
                   error.text);
            EXPECT(!index.rows, "nothing comes with an error");
            file_bytes_free(&bytes);
        }
    }
}

// Any truncation is refused, a byte too many too; flipped bytes never reach outside.
TEST(faiss_damaged) {
    Rng rng = check_rng(0);
    for (int k = 0; k < 2; k++) {
        FileBytes whole = write_index(7, 5, k);
        for (size_t cut = 0; cut <= whole.size + 1; cut++) {
            uint8_t *part = xcalloc(cut, 1);
            memcpy(part, whole.data, cut < whole.size ? cut : whole.size);
            FaissIndex index;
            const Error error = faiss_parse(&index, part, cut);
            EXPECT((error.code == EXIT_OK) == (cut == whole.size), "cut to %zu: %s", cut,
                   error.text);
            free(part);
        }
        for (int i = 0; i < 2000; i++) {
            uint8_t *bad = xmalloc(whole.size, 1);
            memcpy(bad, whole.data, whole.size);
            for (int n = 0; n < 3; n++) {
                bad[rng_below(&rng, 60)] = (uint8_t)rng_below(&rng, 256);
            }
            FaissIndex index;
            if (faiss_parse(&index, bad, whole.size).code == EXIT_OK && index.M > 0) {
                float *rows = xmalloc(index.M * (size_t)index.E, sizeof(float));
                faiss_rows(&index, rows, 0, index.M);
                faiss_id(&index, index.M - 1);
                free(rows);
            }
            free(bad);
        }
        file_bytes_free(&whole);
    }
}
