// Tests of host/safetensors: one per rule of rejection, round trips, shards, and damaged files.
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/safetensors.h"

// A file in memory: header text and data_size bytes 0, 1, 2 ...; the length word may lie.
static uint8_t *make_file(const char *header, size_t data_size, uint64_t claimed, size_t *size) {
    const size_t length = strlen(header);
    *size = 8 + length + data_size;
    uint8_t *bytes = xmalloc(*size, 1);
    memcpy(bytes, &claimed, 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_size; i++) {
        bytes[8 + length + i] = (uint8_t)i;
    }
    return bytes;
}

#define ENTRY(dtype, shape, begin, end) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

TEST(safetensors_accepts) {
    const struct {
        const char *header;
        size_t data_size;
        int count;
    } cases[] = {
        {"{}", 0, 0},
        {"  {}  ", 0, 0},
        {"\n\t{\"a\":" ENTRY("U8", "[3]", 0, 3) "}\r\n", 3, 1},
        {"{\"a\":" ENTRY("F32", "[]", 0, 4) "}", 4, 1},
        {"{\"b\":" ENTRY("F16", "[2,1]", 4, 8) ",\"a\":" ENTRY("F32", "[1]", 0, 4) "}", 8, 2},
        {"{\"z\":" ENTRY("F32", "[0]", 4, 4) ",\"a\":" ENTRY("F32", "[1]", 0, 4) ",\"y\":" ENTRY(
             "I64", "[5,0]", 0, 0) "}",
         4, 3},
        {"{\"a\":" ENTRY("F4", "[4]", 0, 2) ",\"b\":" ENTRY("F6_E2M3", "[4]", 2, 5) "}", 5, 2},
        {"{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u00e9\"},\"\\u00e9\\\"\":" ENTRY(
             "BOOL", "[1]", 0, 1) "}",
         1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%zu", i)) {
            size_t size;
            uint8_t *bytes =
                make_file(cases[i].header, cases[i].data_size, strlen(cases[i].header), &size);
            SafeTensors set;
            const Error error = safetensors_parse_new(&set, bytes, size);
            EXPECT(error.code == EXIT_OK && set.count == cases[i].count, "%zu: %s", error.offset,
                   error.text);
            for (int k = 1; k < set.count; k++) {
                EXPECT(strcmp(set.tensors[k - 1].name, set.tensors[k].name) < 0, "sorted by name");
            }
            safetensors_free(&set);
            free(bytes);
        }
    }
}

// size: a table, one row per rule.
TEST(safetensors_rejects) {
    const struct {
        const char *rule, *header;
        size_t data_size;
        const char *want;
    } cases[] = {
        {"hole at the start", "{\"a\":" ENTRY("U8", "[3]", 1, 4) "}", 4, "with a hole"},
        {"hole between", "{\"a\":" ENTRY("U8", "[1]", 0, 1) ",\"b\":" ENTRY("U8", "[1]", 2, 3) "}",
         3, "with a hole"},
        {"overlap", "{\"a\":" ENTRY("U8", "[2]", 0, 2) ",\"b\":" ENTRY("U8", "[2]", 1, 3) "}", 3,
         "overlapping"},
        {"same bytes twice",
         "{\"a\":" ENTRY("U8", "[2]", 0, 2) ",\"b\":" ENTRY("U8", "[2]", 0, 2) "}", 2,
         "overlapping"},
        {"trailing bytes", "{\"a\":" ENTRY("U8", "[3]", 0, 3) "}", 4,
         "1 bytes behind the last tensor"},
        {"data without tensors", "{}", 1, "1 bytes behind"},
        {"truncated data", "{\"a\":" ENTRY("U8", "[3]", 0, 3) "}", 2, "outside the file"},
        {"begin behind end", "{\"a\":" ENTRY("U8", "[1]", 2, 1) "}", 2, "outside the file"},
        {"shape too small", "{\"a\":" ENTRY("F32", "[1]", 0, 8) "}", 8, "disagree"},
        {"shape too large", "{\"a\":" ENTRY("F32", "[3]", 0, 8) "}", 8, "disagree"},
        {"unknown dtype", "{\"a\":" ENTRY("F33", "[2]", 0, 8) "}", 8, "unknown dtype"},
        {"lower-case dtype", "{\"a\":" ENTRY("f32", "[2]", 0, 8) "}", 8, "unknown dtype"},
        {"half a byte", "{\"a\":" ENTRY("F4", "[3]", 0, 1) "}", 1, "whole bytes"},
        {"product overflows", "{\"a\":" ENTRY("U8", "[4294967296,4294967296,2]", 0, 0) "}", 0,
         "overflows"},
        {"bits overflow", "{\"a\":" ENTRY("F64", "[1152921504606846976]", 0, 0) "}", 0,
         "overflows"},
        {"overflow before a zero", "{\"a\":" ENTRY("U8", "[4611686018427387904,8,0]", 0, 0) "}", 0,
         "overflows"},
        {"negative dimension", "{\"a\":" ENTRY("U8", "[-1]", 0, 1) "}", 1, "a dimension"},
        {"real dimension", "{\"a\":" ENTRY("U8", "[1.0]", 0, 1) "}", 1, "a dimension"},
        {"huge dimension", "{\"a\":" ENTRY("U8", "[18446744073709551617]", 0, 1) "}", 1, "line 1"},
        {"nine dimensions", "{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1,
         "8 dimensions"},
        {"negative offset", "{\"a\":" ENTRY("U8", "[1]", -1, 0) "}", 1, "data_offsets wants"},
        {"three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
         "data_offsets wants"},
        {"missing member", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "wants exactly"},
        {"surplus member",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", 1,
         "wants exactly"},
        {"entry is no object", "{\"a\":1}", 1, "wants exactly"},
        {"duplicate name",
         "{\"a\":" ENTRY("U8", "[1]", 0, 1) ",\"a\":" ENTRY("U8", "[1]", 0, 1) "}", 1, "duplicate"},
        {"zero in a name", "{\"a\\u0000b\":" ENTRY("U8", "[1]", 0, 1) "}", 1, "NUL"},
        {"metadata no object", "{\"__metadata__\":[1]}", 0, "__metadata__ wants"},
        {"metadata value", "{\"__metadata__\":{\"a\":1}}", 0, "wants a text, got an integer"},
        {"bad UTF-8", "{\"\xff\":" ENTRY("U8", "[1]", 0, 1) "}", 1, "unable to decode"},
        {"array header", "[]", 0, "an array, no object"},
        {"no JSON", "hello", 0, "line 1"},
        {"two values", "{}{}", 0, "line 1"},
        {"cut JSON", "{\"a\":{", 0, "line 1"},
        {"empty header", "", 0, "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].rule)) {
            size_t size;
            uint8_t *bytes =
                make_file(cases[i].header, cases[i].data_size, strlen(cases[i].header), &size);
            SafeTensors set;
            const Error error = safetensors_parse_new(&set, bytes, size);
            EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, cases[i].want),
                   "code %d %zu: '%s'", (int)error.code, error.offset, error.text);
            EXPECT(set.count == 0 && !set.tensors && !set.metadata, "nothing comes with an error");
            free(bytes);
        }
    }
}

TEST(safetensors_length_word) {
    const uint64_t lies[] = {3,         1, 100, 100000000, 100000001, UINT64_MAX, UINT64_MAX - 7,
                             1ull << 63};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        size_t size;
        uint8_t *bytes = make_file("{}", 0, lies[i], &size);
        SafeTensors set;
        const Error error = safetensors_parse_new(&set, bytes, size);
        EXPECT(error.code == EXIT_BAD_DATA, "length %llu was accepted",
               (unsigned long long)lies[i]);
        free(bytes);
    }
    for (size_t size = 0; size < 8; size++) {
        SafeTensors set;
        EXPECT(safetensors_parse_new(&set, "\2\0\0\0\0\0\0\0", size).code == EXIT_BAD_DATA,
               "size %zu", size);
    }
}

TEST(safetensors_roundtrip) {
    const float weight[6] = {1, 2, 3, 4, 5, 6};
    const int64_t ids[2] = {-1, 7};
    const uint8_t mask[3] = {1, 0, 1};
    const bf16 half[1] = {bf16_from_float(1.5f)};
    const SafeTensor tensors[] = {
        {.name = "mask", .type = SAFE_U8, .rank = 1, .shape = {3}, .data = mask},
        {.name = "b.weight", .type = SAFE_F32, .rank = 2, .shape = {2, 3}, .data = weight},
        {.name = "a.half", .type = SAFE_BF16, .rank = 0, .data = half},
        {.name = "ids", .type = SAFE_I64, .rank = 1, .shape = {2}, .data = ids},
        {.name = "é \"q\"", .type = SAFE_F32, .rank = 3, .shape = {4, 0, 2}, .data = weight},
    };
    const char *metadata[] = {"step", "12", "note", "a \"b\"\n"};
    char *path = file_join_new(check_tmpdir(), "m.safetensors");
    EXPECT(safetensors_write(path, tensors, 5, metadata, 2).code == EXIT_OK, "write");
    SafeStore store;
    const Error error = safestore_open_new(&store, path);
    EXPECT(error.code == EXIT_OK && store.all.count == 5, "%zu: %s", error.offset, error.text);
    EXPECT(strcmp(safetensors_metadata(&store.all, "format"), "pt") == 0, "format");
    EXPECT(strcmp(safetensors_metadata(&store.all, "note"), metadata[3]) == 0, "note");
    EXPECT(!safetensors_metadata(&store.all, "absent") && !safetensors_find(&store.all, "absent"),
           "absent");
    for (int i = 0; i < 5; i++) {
        const SafeTensor *got = safetensors_find(&store.all, tensors[i].name), *want = &tensors[i];
        EXPECT(got && got->type == want->type && got->rank == want->rank, "%s", want->name);
        EXPECT(got && safe_count(got) == safe_count(want), "%s", want->name);
        EXPECT(got && memcmp(got->data, want->data, got->bytes) == 0, "%s", want->name);
    }
    // The first in the file has the largest elements, and begins at a multiple of 64.
    const SafeTensor *first = safetensors_find(&store.all, "ids");
    EXPECT(((size_t)((const uint8_t *)first->data - store.files[0].data)) % 64 == 0, "alignment");
    char text[128];
    EXPECT(strcmp(safe_describe(text, safetensors_find(&store.all, "b.weight")), "F32 [2, 3]") == 0,
           "%s", text);
    safestore_free(&store);

    EXPECT(safetensors_write(path, NULL, 0, NULL, 0).code == EXIT_OK, "no tensors");
    EXPECT(safestore_open_new(&store, path).code == EXIT_OK && store.all.count == 0, "no tensors");
    safestore_free(&store);
    free(path);
}

static void put(const char *name, const char *text) {
    char *path = file_join_new(check_tmpdir(), name);
    EXPECT(file_replace(path, text, strlen(text)).code == EXIT_OK, "write");
    free(path);
}

// Files of the Python library, by tools/check_safetensors.py.
TEST(safetensors_fixture) {
    SafeStore store;
    const Error error = safestore_open_new(&store, check_fixture("python.safetensors"));
    EXPECT(error.code == EXIT_OK && store.all.count == 9, "%zu: %s", error.offset, error.text);
    const SafeTensor *t = safetensors_find(&store.all, "b.weight");
    float f32[6];
    EXPECT(t && t->type == SAFE_F32 && t->bytes == sizeof f32, "b.weight");
    memcpy(f32, t->data, sizeof f32);
    for (int i = 0; i < 6; i++) {
        EXPECT(f32[i] == 0.5f * (float)i - 1, "b.weight[%d] = %g", i, f32[i]);
    }
    t = safetensors_find(&store.all, "a.bf16");
    bf16 half;
    EXPECT(t && t->type == SAFE_BF16 && t->rank == 0 && t->bytes == 2, "a.bf16");
    memcpy(&half, t->data, 2);
    EXPECT(bf16_to_float(half) == 1.5f, "a.bf16 = %g", bf16_to_float(half));
    t = safetensors_find(&store.all, "empty");
    EXPECT(t && t->rank == 3 && t->shape[1] == 0 && t->bytes == 0, "empty");
    EXPECT(strcmp(safetensors_metadata(&store.all, "format"), "pt") == 0, "format");
    safestore_free(&store);
}

TEST(safetensors_shards) {
    const float values[4] = {1, 2, 3, 4};
    const SafeTensor a = {.name = "a", .type = SAFE_F32, .rank = 1, .shape = {4}, .data = values};
    const SafeTensor bc[] = {
        {.name = "c", .type = SAFE_F32, .rank = 1, .shape = {2}, .data = values},
        {.name = "b", .type = SAFE_F32, .rank = 1, .shape = {1}, .data = values + 3}};
    char *first = file_join_new(check_tmpdir(), "m-1.safetensors");
    char *second = file_join_new(check_tmpdir(), "m-2.safetensors");
    EXPECT(safetensors_write(first, &a, 1, NULL, 0).code == EXIT_OK, "write");
    EXPECT(safetensors_write(second, bc, 2, NULL, 0).code == EXIT_OK, "write");
    const struct {
        const char *map;
        ExitCode code;
        const char *want;
    } cases[] = {
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}", EXIT_OK,
         ""},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}", EXIT_BAD_DATA,
         "'c' is not in the index"},
        {"{\"a\":\"m-1.safetensors\",\"d\":\"m-1.safetensors\"}", EXIT_BAD_DATA,
         "lacks tensor 'd'"},
        {"{\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}",
         EXIT_BAD_DATA, "lacks tensor 'a'"},
        {"{\"a\":\"m-3.safetensors\"}", EXIT_NO_INPUT, "shard 'm-3.safetensors': cannot open"},
        {"{\"a\":\"../m-1.safetensors\"}", EXIT_BAD_DATA, "no plain file name"},
        {"{\"a\":\"/m-1.safetensors\"}", EXIT_BAD_DATA, "no plain file name"},
        {"{\"a\":\"..\"}", EXIT_BAD_DATA, "no plain file name"},
        {"{\"a\":\"\"}", EXIT_BAD_DATA, "no plain file name"},
        {"{\"a\":1}", EXIT_BAD_DATA, "no plain file name"},
        {"[]", EXIT_BAD_DATA, "wants an object"},
        {"{}", EXIT_OK, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text =
            xformat_new("{\"metadata\":{\"total_size\":28},\"weight_map\":%s}", cases[i].map);
        put("model.safetensors.index.json", text);
        free(text);
        SafeStore store;
        const Error error = safestore_open_new(&store, check_tmpdir());
        EXPECT(error.code == cases[i].code && strstr(error.text, cases[i].want), "%s: code %d '%s'",
               cases[i].map, (int)error.code, error.text);
        if (i == 0 && error.code == EXIT_OK) {
            const SafeTensor *b = safetensors_find(&store.all, "b");
            float got;
            memcpy(&got, b->data, 4);
            EXPECT(store.all.count == 3 && got == 4, "count=%d b=%g", store.all.count, got);
        }
        safestore_free(&store);
    }
    free(first), free(second);
}

TEST(safetensors_directory) {
    SafeStore store;
    Error error = safestore_open_new(&store, check_tmpdir());
    EXPECT(error.code == EXIT_NO_INPUT, "an empty directory: %s", error.text);
    error = safestore_open_new(&store, "/nonexistent/x.safetensors");
    EXPECT(error.code == EXIT_NO_INPUT, "%s", error.text);
    put("model.safetensors", "broken");
    error = safestore_open_new(&store, check_tmpdir());
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "model.safetensors"), "%s",
           error.text);
}

TEST(safetensors_real_file) {
    const char *path = check_data("weights/stories260k/model.safetensors");
    if (!path) {
        return;
    }
    SafeStore store;
    const Error error = safestore_open_new(&store, path);
    EXPECT(error.code == EXIT_OK, "%zu: %s", error.offset, error.text);
    const SafeTensor *embedding = safetensors_find(&store.all, "model.embed_tokens.weight");
    EXPECT(embedding && embedding->type == SAFE_F32 && embedding->rank == 2 &&
               embedding->shape[0] == 512,
           "the embedding of 512 tokens");
    size_t bytes = 0;
    for (int i = 0; i < store.all.count; i++) {
        bytes += store.all.tensors[i].bytes;
    }
    EXPECT(bytes < store.files[0].size && bytes > store.files[0].size - 10000, "%zu bytes", bytes);
    safestore_free(&store);
}

// Damage gives an error or a set whose tensors lie inside the bytes, never a crash.
TEST(safetensors_damaged) {
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":" ENTRY(
        "F32", "[2,2]", 0, 16) ",\"b\":" ENTRY("F16", "[3]", 16, 22) "}";
    Rng rng = check_rng(0);
    for (int i = 0; i < 3000; i++) {
        size_t size;
        uint8_t *bytes = make_file(header, 22, strlen(header), &size);
        for (int k = 0; k < 3; k++) {
            bytes[rng_below(&rng, (uint32_t)size)] = (uint8_t)rng_below(&rng, 256);
        }
        const size_t cut = i % 2 ? size : rng_below(&rng, (uint32_t)size);
        bytes = xrealloc(bytes, cut, 1); // exact size: the sanitizer sees a read behind the end
        SafeTensors set;
        const Error error = safetensors_parse_new(&set, bytes, cut);
        EXPECT(error.code == EXIT_OK || error.code == EXIT_BAD_DATA, "code %d", (int)error.code);
        for (int k = 0; k < set.count; k++) {
            const uint8_t *data = set.tensors[k].data;
            EXPECT(data >= bytes && data + set.tensors[k].bytes <= bytes + cut, "outside");
        }
        safetensors_free(&set);
        free(bytes);
    }
}
