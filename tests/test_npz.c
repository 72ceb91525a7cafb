// Tests of host/npy and host/npz: NumPy's files, published sets, every refusal, bombs made here,
// damage.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "check.h"
#include "host/file.h"
#include "host/npz.h"

// ---- npy ----
// A version-1 .npy with this dict and data_size bytes 0, 1, 2 ...
static uint8_t *make_npy(const char *dict, size_t data_size, size_t *size) {
    const size_t length = strlen(dict);
    *size = 10 + length + data_size;
    uint8_t *bytes = xmalloc(*size, 1);
    memcpy(bytes, "\x93NUMPY\x01\x00", 8);
    bytes[8] = (uint8_t)length;
    bytes[9] = (uint8_t)(length >> 8);
    memcpy(bytes + 10, dict, length);
    for (size_t i = 0; i < data_size; i++) {
        bytes[10 + length + i] = (uint8_t)i;
    }
    return bytes;
}

#define DICT(descr, order, shape) \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

TEST(npy_headers) {
    const struct {
        const char *dict;
        size_t data_size;
        const char *want; // NULL: accepted
    } cases[] = {
        {DICT("'<f4'", "False", "(2, 3)"), 24, NULL},
        {DICT("'<f4'", "False", "()"), 4, NULL},
        {DICT("'|u1'", "False", "(3,)"), 3, NULL},
        {DICT("'|b1'", "False", "(0, 9)"), 0, NULL},
        {"{\"shape\":(1,2,),\"descr\":\"<i8\",\"fortran_order\":False}", 16, NULL},
        {DICT("'<f4'", "False", "(2, 3)"), 23, "the shape wants 24"},
        {DICT("'<f4'", "False", "(2, 3)"), 25, "the shape wants 24"},
        {DICT("'|O'", "False", "(1,)"), 8, "pickle"},
        {DICT("'<U5'", "False", "(1,)"), 20, "unknown dtype"},
        {DICT("'>f4'", "False", "(1,)"), 4, "unknown dtype"},
        {DICT("[('a', '<f4')]", "False", "(1,)"), 4, "structured"},
        {DICT("'<f4'", "True", "(1, 2)"), 8, "Fortran order"},
        {DICT("'<f4'", "false", "(1,)"), 4, "Fortran order"},
        {DICT("'<f4'", "False", "(-1,)"), 4, "no integer"},
        {DICT("'<f4'", "False", "(1.0,)"), 4, "no tuple of integers"},
        {DICT("'<f4'", "False", "(1 2)"), 4, "no tuple of integers"},
        {DICT("'<f4'", "False", "[1]"), 4, "no tuple"},
        {DICT("'<f4'", "False", "(99999999999999999999,)"), 4, "overflows"},
        {DICT("'<f8'", "False", "(2305843009213693952,)"), 0, "overflows"},
        {DICT("'|u1'", "False", "(4294967296, 4294967296)"), 0, "overflows"},
        {DICT("'|u1'", "False", "(1,1,1,1,1,1,1,1,1)"), 1, "8 dimensions"},
        {"{'descr': '<f4', 'shape': (1,), }", 4, "wants descr"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4, "repeated"},
        {"{'descr': '<f4', 'x': 1, 'fortran_order': False, 'shape': (1,)}", 4,
         "unknown or repeated"},
        {DICT("'<f4'", "False", "(1,)") "exit()", 4, "nothing else"},
        {"", 4, "no dict"},
        {"{'descr': '<f4", 0, "structured"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%zu %.50s", i, cases[i].dict)) {
            size_t size;
            uint8_t *bytes = make_npy(cases[i].dict, cases[i].data_size, &size);
            NpyArray array;
            const Error error = npy_parse(&array, bytes, size);
            if (cases[i].want) {
                EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, cases[i].want), "'%s'",
                       error.text);
                EXPECT(!array.data, "nothing comes with an error");
            } else {
                EXPECT(error.code == EXIT_OK, "%s", error.text);
                EXPECT(array.bytes == cases[i].data_size &&
                           array.data == bytes + size - array.bytes,
                       "data");
            }
            free(bytes);
        }
    }
}

TEST(npy_roundtrip) {
    const int16_t i2[6] = {-1, 2, -3, 4, 32767, -32768};
    const f16 f2[2] = {f16_from_float(0.5f), f16_from_float(-2)};
    const double f8[1] = {1e300};
    const int64_t i8[3] = {-5, 1ll << 40, 0};
    const struct {
        NpyType type;
        int rank;
        size_t shape[3];
        const void *data;
        double first;
    } cases[] = {{NPY_I2, 2, {2, 3}, i2, -1},
                 {NPY_F2, 1, {2}, f2, 0.5},
                 {NPY_F8, 0, {0}, f8, 1e300},
                 {NPY_I8, 3, {1, 3, 1}, i8, -5},
                 {NPY_F4, 2, {0, 7}, i2, 0}};
    for (int i = 0; i < 5; i++) {
        if (CASE("%s rank %d", npy_type_name(cases[i].type), cases[i].rank)) {
            char *path = file_join_new(check_tmpdir(), "a.npy");
            EXPECT(
                npy_write(path, cases[i].type, cases[i].rank, cases[i].shape, cases[i].data).code ==
                    EXIT_OK,
                "write");
            FileBytes bytes;
            NpyArray got;
            EXPECT(file_read_new(&bytes, path, 1 << 20).code == EXIT_OK, "read");
            const Error error = npy_parse(&got, bytes.data, bytes.size);
            EXPECT(error.code == EXIT_OK, "%s", error.text);
            EXPECT((bytes.size - got.bytes) % 64 == 0, "data are aligned to 64");
            EXPECT(got.type == cases[i].type && got.rank == cases[i].rank, "type and rank");
            EXPECT(memcmp(got.shape, cases[i].shape, (size_t)got.rank * sizeof(size_t)) == 0,
                   "shape");
            EXPECT(memcmp(got.data, cases[i].data, got.bytes) == 0, "data");
            EXPECT(got.count == 0 || npy_number(&got, 0) == cases[i].first, "number");
            file_bytes_free(&bytes);
            free(path);
        }
    }
}

// ---- npz ----
static uint8_t *put(uint8_t *p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        *p++ = (uint8_t)(value >> 8 * i);
    }
    return p;
}

typedef struct {
    uint8_t *bytes;
    size_t size;
    size_t directory; // where it begins
} Zip;

// One member "a.npy" of `size` bytes, deflated or stored; with_zip64 writes sizes as NumPy does.
static Zip make_zip(const uint8_t *npy, size_t size, bool is_deflated, bool with_zip64,
                    size_t claimed) {
    uLong room = compressBound(size) + 64;
    uint8_t *packed = xmalloc(room, 1);
    size_t packed_size = size;
    if (is_deflated) {
        z_stream z = {0};
        CHECK(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK, "zlib");
        z.next_in = (Bytef *)(uintptr_t)npy;
        z.avail_in = (uInt)size;
        z.next_out = packed;
        z.avail_out = (uInt)room;
        CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END, "zlib");
        packed_size = room - z.avail_out;
        deflateEnd(&z);
    } else {
        memcpy(packed, npy, size);
    }
    const uint32_t crc = (uint32_t)crc32(0, npy, (uInt)size);
    Zip zip = {.bytes = xmalloc(packed_size + 400, 1)};
    uint8_t *p = zip.bytes;
    p = put(p, 0x04034b50, 4), p = put(p, 45, 2), p = put(p, 0, 2),
    p = put(p, is_deflated ? 8 : 0, 2);
    p = put(p, 0, 4), p = put(p, crc, 4), p = put(p, UINT32_MAX, 4), p = put(p, UINT32_MAX, 4);
    p = put(p, 5, 2), p = put(p, 20, 2), memcpy(p, "a.npy", 5), p += 5;
    p = put(p, 1, 2), p = put(p, 16, 2), p = put(p, claimed, 8), p = put(p, packed_size, 8);
    memcpy(p, packed, packed_size);
    p += packed_size;
    zip.directory = (size_t)(p - zip.bytes);
    p = put(p, 0x02014b50, 4), p = put(p, 45, 2), p = put(p, 45, 2), p = put(p, 0, 2);
    p = put(p, is_deflated ? 8 : 0, 2), p = put(p, 0, 4), p = put(p, crc, 4);
    p = put(p, with_zip64 ? UINT32_MAX : packed_size, 4),
    p = put(p, with_zip64 ? UINT32_MAX : claimed, 4);
    p = put(p, 5, 2), p = put(p, with_zip64 ? 20 : 0, 2), p = put(p, 0, 2), p = put(p, 0, 2);
    p = put(p, 0, 2), p = put(p, 0, 4), p = put(p, 0, 4), memcpy(p, "a.npy", 5), p += 5;
    if (with_zip64) {
        p = put(p, 1, 2), p = put(p, 16, 2), p = put(p, claimed, 8), p = put(p, packed_size, 8);
    }
    const size_t directory_size = (size_t)(p - zip.bytes) - zip.directory;
    if (with_zip64) {
        const size_t end64 = (size_t)(p - zip.bytes);
        p = put(p, 0x06064b50, 4), p = put(p, 44, 8), p = put(p, 45, 2), p = put(p, 45, 2),
        p = put(p, 0, 8);
        p = put(p, 1, 8), p = put(p, 1, 8), p = put(p, directory_size, 8),
        p = put(p, zip.directory, 8);
        p = put(p, 0x07064b50, 4), p = put(p, 0, 4), p = put(p, end64, 8), p = put(p, 1, 4);
    }
    p = put(p, 0x06054b50, 4), p = put(p, 0, 4), p = put(p, 1, 2), p = put(p, 1, 2);
    p = put(p, directory_size, 4), p = put(p, with_zip64 ? UINT32_MAX : zip.directory, 4),
    p = put(p, 0, 2);
    zip.size = (size_t)(p - zip.bytes);
    free(packed);
    return zip;
}

// Opens the archive and loads "a"; the text of the error, "" when there is none.
static const char *load_text(const Zip *zip, size_t max_bytes) {
    static Error error;
    Npz archive;
    NpyArray array = {0};
    error = npz_open_new(&archive, zip->bytes, zip->size);
    if (error.code == EXIT_OK) {
        error = npz_load_new(&array, &archive, "a", max_bytes);
        EXPECT((array.data != NULL) == (error.code == EXIT_OK), "an array or an error");
        for (size_t i = 0; i < array.bytes && error.code == EXIT_OK && array.bytes < 100; i++) {
            EXPECT(array.data[i] == i, "byte %zu", i);
        }
        npy_free(&array);
    }
    npz_free(&archive);
    return error.code == EXIT_OK ? "" : error.text;
}

TEST(npz_forms) {
    size_t size;
    uint8_t *npy = make_npy(DICT("'|u1'", "False", "(5, 10)"), 50, &size);
    for (int i = 0; i < 4; i++) {
        if (CASE("deflated=%d zip64=%d", i & 1, i >> 1)) {
            Zip zip = make_zip(npy, size, i & 1, i >> 1, size);
            EXPECT(strcmp(load_text(&zip, 50), "") == 0, "%s", load_text(&zip, 50));
            EXPECT(strstr(load_text(&zip, 49), "limits.max_array_bytes is 49"), "the limit");
            // Every truncation is refused.
            for (size_t cut = 0; cut < zip.size; cut++) {
                uint8_t *whole = zip.bytes;
                Zip part = {.bytes = xmalloc(cut, 1), .size = cut};
                memcpy(part.bytes, whole, cut);
                EXPECT(load_text(&part, 50)[0], "cut to %zu bytes was accepted", cut);
                free(part.bytes);
            }
            free(zip.bytes);
        }
    }
    free(npy);
}

TEST(npz_lies) {
    size_t size;
    uint8_t *npy = make_npy(DICT("'|u1'", "False", "(5, 10)"), 50, &size);
    const struct {
        const char *what;
        size_t offset; // in the directory entry, or from the end when end is true
        bool end;
        uint64_t value;
        int bytes;
        const char *want;
    } cases[] = {
        {"encrypted", 8, false, 1, 2, "encrypted"},
        {"method", 10, false, 12, 2, "compression method 12"},
        {"crc", 16, false, 1, 4, "CRC32"},
        {"packed too large", 20, false, 100000, 4, "outside the file"},
        {"packed too small", 20, false, 20, 4, "ends in its header"},
        {"unpacked larger", 24, false, 1000, 4, "the shape wants 50"},
        {"unpacked smaller", 24, false, 100, 4, "the shape wants 50"},
        {"unpacked zip64 without extra", 24, false, UINT32_MAX, 4, "damaged"},
        {"name length", 28, false, 6000, 2, "damaged"},
        {"empty name", 28, false, 0, 2, "without a proper name"},
        {"offset", 42, false, 1, 4, "outside the file"},
        {"offset beyond", 42, false, 1000000, 4, "outside the file"},
        {"disks", 18, true, 1, 2, "several disks"},
        {"count", 12, true, 2, 2, "damaged"},
        {"directory size", 10, true, 1000000, 4, "outside the file"},
        {"directory offset", 6, true, 1000000, 4, "outside the file"},
        {"comment length", 2, true, 1, 2, "end record"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].what)) {
            Zip zip = make_zip(npy, size, true, false, size);
            put(zip.bytes +
                    (cases[i].end ? zip.size - cases[i].offset : zip.directory + cases[i].offset),
                cases[i].value, cases[i].bytes);
            const char *got = load_text(&zip, 1 << 20);
            EXPECT(strstr(got, cases[i].want), "'%s'", got);
            free(zip.bytes);
        }
    }
    free(npy);
}

// 64 MiB of zeros in 65 kB, and headers that promise more than there is.
TEST(npz_bombs) {
    const char *dict = DICT("'|u1'", "False", "(67108864,)");
    const size_t head = 10 + strlen(dict), size = head + (64u << 20);
    uint8_t *npy = xcalloc(size, 1);
    memcpy(npy, "\x93NUMPY\x01\x00", 8);
    npy[8] = (uint8_t)strlen(dict);
    memcpy(npy + 10, dict, strlen(dict));
    Zip zip = make_zip(npy, size, true, true, size);
    EXPECT(zip.size < 100000, "%zu bytes", zip.size);
    const double before = seconds_now();
    EXPECT(strstr(load_text(&zip, 1 << 20), "limits.max_array_bytes is 1048576"), "refused");
    EXPECT(seconds_now() - before < 0.5, "before inflating: %.3f s", seconds_now() - before);
    free(zip.bytes);
    // The directory says little, the stream holds much: only what was promised is inflated.
    zip = make_zip(npy, size, true, true, head + 100);
    EXPECT(strstr(load_text(&zip, SIZE_MAX), "the shape wants 67108864"), "%s",
           load_text(&zip, SIZE_MAX));
    free(zip.bytes);
    free(npy);
}

TEST(npz_members) {
    Npz archive;
    size_t size;
    uint8_t *npy = make_npy(DICT("'|u1'", "False", "(1,)"), 1, &size);
    Zip zip = make_zip(npy, size, false, true, size);
    EXPECT(npz_open_new(&archive, zip.bytes, zip.size).code == EXIT_OK && archive.count == 1,
           "open");
    EXPECT(npz_has(&archive, "a") && !npz_has(&archive, "a.npy") && !npz_has(&archive, "b"),
           "names");
    NpyArray array;
    EXPECT(npz_load_new(&array, &archive, "b", 100).code == EXIT_BAD_DATA, "absent");
    npz_free(&archive);
    free(zip.bytes);
    free(npy);
}

TEST(npz_published_sets) {
    const struct {
        const char *path, *name;
        int rank;
        size_t shape[4];
        double sum; // by numpy
    } cases[] = {
        {"medical/pneumoniamnist/pneumoniamnist_balanced.npz",
         "train_images",
         3,
         {2428, 28, 28},
         273679017},
        {"medical/pneumoniamnist/pneumoniamnist_balanced.npz", "test_labels", 2, {468, 1}, 234},
        {"medical/breast-ultrasound/busi_28_medmnist_form.npz",
         "test_images",
         3,
         {126, 28, 28},
         8381928},
        {"medical/skin-ham10000/ham_28_medmnist_form.npz",
         "train_images",
         4,
         {501, 28, 28, 3},
         190149281},
    };
    for (int i = 0; i < 4; i++) {
        if (CASE("%s", cases[i].path)) {
            const char *path = check_data(cases[i].path);
            if (!path) {
                continue;
            }
            FileBytes bytes;
            Npz archive;
            NpyArray array;
            EXPECT(file_map_new(&bytes, path).code == EXIT_OK, "map");
            Error error = npz_open_new(&archive, bytes.data, bytes.size);
            EXPECT(error.code == EXIT_OK && archive.count == 6, "%s", error.text);
            error = npz_load_new(&array, &archive, cases[i].name, 1 << 24);
            EXPECT(error.code == EXIT_OK && array.rank == cases[i].rank, "%s", error.text);
            EXPECT(memcmp(array.shape, cases[i].shape, (size_t)cases[i].rank * sizeof(size_t)) == 0,
                   "shape");
            double sum = 0;
            for (size_t k = 0; k < array.count; k++) {
                sum += npy_number(&array, k);
            }
            EXPECT(sum == cases[i].sum, "sum %.0f", sum);
            npy_free(&array);
            npz_free(&archive);
            file_bytes_free(&bytes);
        }
    }
}

// Any damage: an array or an error, never a crash.
TEST(npz_damaged) {
    size_t size;
    uint8_t *npy = make_npy(DICT("'|u1'", "False", "(5, 10)"), 50, &size);
    Rng rng = check_rng(0);
    for (int i = 0; i < 3000; i++) {
        Zip zip = make_zip(npy, size, i & 1, i & 2, size);
        const size_t cut = i % 3 ? zip.size : 1 + rng_below(&rng, (uint32_t)zip.size - 1);
        zip.bytes = xrealloc(zip.bytes, cut, 1);
        zip.size = cut;
        for (int k = 0; k < 3; k++) {
            zip.bytes[rng_below(&rng, (uint32_t)cut)] = (uint8_t)rng_below(&rng, 256);
        }
        Npz archive;
        NpyArray array;
        if (npz_open_new(&archive, zip.bytes, zip.size).code == EXIT_OK && archive.count > 0) {
            const Error error = npz_load_new(&array, &archive, archive.members[0].name, 1 << 20);
            EXPECT(error.code != EXIT_OK || array.bytes <= 1 << 20, "%zu bytes", array.bytes);
            npy_free(&array);
        }
        npz_free(&archive);
        free(zip.bytes);
    }
    for (int i = 0; i < 3000; i++) {
        uint8_t *bad = xmalloc(size, 1);
        memcpy(bad, npy, size);
        for (int k = 0; k < 3; k++) {
            bad[rng_below(&rng, (uint32_t)size)] = (uint8_t)rng_below(&rng, 256);
        }
        NpyArray array;
        const Error error = npy_parse(&array, bad, size);
        EXPECT(error.code != EXIT_OK || array.data + array.bytes == bad + size, "inside");
        free(bad);
    }
    free(npy);
}
