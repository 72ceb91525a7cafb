// index: see index.h.
#define _POSIX_C_SOURCE 200809L
#include "index.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encode.h"
#include "file.h"
#include "kernels/ops.h"

#define META_VERSION 1
#define META_LIMIT ((size_t)16 << 20) // bytes of meta.json

const char *index_side_name(IndexSide side) { return side == INDEX_IMAGE ? "image" : "text"; }

// ---- in memory ----
static size_t row_bytes(const Index *index) {
    return (size_t)index->dim * dtype_size(index->dtype);
}

Index *index_new(Device *dev, int count, int dim, DType dtype) {
    CHECK(count >= 0 && dim >= 1, "count=%d dim=%d", count, dim);
    Index *index = xcalloc(1, sizeof *index);
    *index = (Index){.dev = dev, .count = count, .dim = dim, .dtype = dtype};
    index->gathered = xcalloc(1, sizeof *index->gathered);
    for (int side = 0; side < INDEX_SIDES; side++) {
        const size_t bytes = (size_t)count * row_bytes(index);
        index->rows[side] = device_alloc(dev, bytes, "index");
        device_zero(dev, index->rows[side], bytes);
    }
    return index;
}

void index_set_groups(Index *index, const int32_t *group) {
    const size_t bytes = (size_t)index->count * sizeof *group;
    if (!index->group) {
        index->group = device_alloc(index->dev, bytes, "index groups");
    }
    device_copy_in(index->dev, index->group, group, bytes);
}

void index_free(Index *index) {
    if (index) {
        for (int side = 0; side < INDEX_SIDES; side++) {
            device_release(index->dev, index->rows[side]);
        }
        device_release(index->dev, index->group);
        arena_free(index->gathered);
        free(index->gathered);
        free(index);
    }
}

void index_set_rows(Index *index, IndexSide side, int first, int n, const float *rows) {
    CHECK(first >= 0 && n >= 0 && first <= index->count - n, "rows %d+%d of %d", first, n,
          index->count);
    const size_t values = (size_t)n * index->dim;
    void *narrow = xmalloc(values, dtype_size(index->dtype));
    dtype_narrow(index->dtype, narrow, rows, values);
    device_copy_in(index->dev, (char *)index->rows[side] + (size_t)first * row_bytes(index), narrow,
                   values * dtype_size(index->dtype));
    free(narrow);
}

void index_get_rows(const Index *index, IndexSide side, const int32_t *ids, int n, float *out) {
    for (int i = 0; i < n; i++) {
        CHECK(ids[i] >= 0 && ids[i] < index->count, "row %d of %d", ids[i], index->count);
    }
    const size_t values = (size_t)n * index->dim, bytes = values * dtype_size(index->dtype);
    void *rows = NULL;
    int32_t *rows_ids = NULL;
    Arena plan = arena_plan();
    for (int pass = 0; pass < 2; pass++) {
        Arena *arena = pass ? index->gathered : &plan;
        if (pass) {
            arena_reserve(arena, index->dev, "rows of the index", plan.peak);
        }
        rows = arena_take(arena, bytes, 1);
        rows_ids = arena_take(arena, (size_t)n, sizeof *ids);
    }
    device_copy_in(index->dev, rows_ids, ids, (size_t)n * sizeof *ids);
    device_ops(index->dev)->rows_gather(index->dev, index->dtype, rows, index->rows[side],
                                        rows_ids, n, index->dim, index->count);
    values_read(index->dev, out, index->dtype, rows, values);
}

void index_search(const Index *index, IndexSide side, float *scores, int32_t *ids,
                  const float *queries, const int32_t *query_group, int Q, int K) {
    Device *dev = index->dev;
    const size_t query_bytes = (size_t)Q * index->dim * sizeof(float);
    const size_t list_bytes = (size_t)Q * K * sizeof(float);
    float *q = device_alloc(dev, query_bytes, "queries");
    float *s = device_alloc(dev, list_bytes, "search scores");
    int32_t *found = device_alloc(dev, list_bytes, "search ids");
    int32_t *group = NULL;
    device_copy_in(dev, q, queries, query_bytes);
    if (query_group && index->group) {
        group = device_alloc(dev, (size_t)Q * sizeof *group, "query groups");
        device_copy_in(dev, group, query_group, (size_t)Q * sizeof *group);
    }
    device_ops(dev)->topk(dev, index->dtype, s, found, q, index->rows[side], group,
                          group ? index->group : NULL, Q, index->count, index->dim, K, 0, true);
    device_copy_out(dev, scores, s, list_bytes);
    device_copy_out(dev, ids, found, list_bytes);
    device_release(dev, q);
    device_release(dev, s);
    device_release(dev, found);
    device_release(dev, group);
}

// ---- shards ----
// The first 64 bytes of a shard file.
typedef struct {
    char magic[8]; // "JOMEDIX1"
    uint64_t build_id, payload_hash;
    uint32_t side, shard, first_row, rows, dim, dtype;
    char pad[16];
} ShardHeader;
_Static_assert(sizeof(ShardHeader) == 64, "rows start on a 64-byte boundary");

static void shard_name(char name[32], IndexSide side, int shard) {
    snprintf(name, 32, "%s.%05d.shard", index_side_name(side), shard);
}

// The same error with the name of the file it is about in front.
static Error in_file(Error error, const char *name) {
    char text[sizeof error.text];
    memcpy(text, error.text, sizeof text);
    return error_at(error.code, error.offset, "%s: %.170s", name, text);
}

static Error write_shard(const Index *index, const char *dir, const ShardHeader *header,
                         const void *payload) {
    char name[32];
    shard_name(name, (IndexSide)header->side, (int)header->shard);
    char *path = file_join_new(dir, name);
    FileWriter writer;
    Error error = file_writer_open(&writer, path);
    if (error.code == EXIT_OK) {
        file_writer_add(&writer, header, sizeof *header);
        file_writer_add(&writer, payload, (size_t)header->rows * row_bytes(index));
        error = file_writer_commit(&writer);
    }
    free(path);
    return error.code ? in_file(error, name) : error;
}

// Reads one shard and holds it against what meta.json says of it. On success *payload points into
// bytes, which the caller frees in any case.
static Error read_shard(FileBytes *bytes, const void **payload, const char *dir,
                        const ShardHeader *want) {
    char name[32];
    shard_name(name, (IndexSide)want->side, (int)want->shard);
    char *path = file_join_new(dir, name);
    *bytes = (FileBytes){0};
    Error error = file_map_new(bytes, path);
    free(path);
    if (error.code) {
        return in_file(error, name);
    }
    const size_t size = (size_t)want->rows * want->dim * dtype_size((DType)want->dtype);
    if (bytes->size != sizeof *want + size) {
        return error_at(EXIT_BAD_DATA, bytes->size,
                        "%s: %zu bytes instead of %zu; rebuild the index", name, bytes->size,
                        sizeof *want + size);
    }
    ShardHeader got;
    memcpy(&got, bytes->data, sizeof got);
    if (memcmp(got.magic, want->magic, sizeof got.magic) != 0) {
        return error_at(EXIT_BAD_DATA, 0, "%s: not an index shard; rebuild the index", name);
    }
    if (got.build_id != want->build_id) {
        return error_at(EXIT_BAD_DATA, 8,
                        "%s: belongs to build %016" PRIx64 ", not %016" PRIx64
                        "; rebuild the index",
                        name, got.build_id, want->build_id);
    }
    *payload = bytes->data + sizeof got;
    const uint64_t hash = xxh64(*payload, size, 0);
    if (memcmp(&got, want, sizeof got) != 0 || hash != want->payload_hash) {
        return error_at(EXIT_BAD_DATA, sizeof got, "%s: checksum differs; rebuild the index", name);
    }
    return error_none();
}

// ---- meta.json ----
static json_t *hex(uint64_t value) { return json_sprintf("%016" PRIx64, value); }

static bool parse_hex(const json_t *value, uint64_t *out) {
    const char *text = json_string_value(value);
    return text && strlen(text) == 16 && sscanf(text, "%16" SCNx64, out) == 1;
}

// All shards of an index, as their files should begin.
typedef struct {
    IndexInfo info;
    ShardHeader *shards; // image shards, then text shards
    int count;
} Meta;

// Shards must follow each other without hole or overlap, on both sides.
static bool read_shards(Meta *meta, const json_t *shards) {
    const IndexInfo *info = &meta->info;
    int next_row = 0;
    for (int i = 0; i < meta->count; i++) {
        ShardHeader *shard = &meta->shards[i];
        int first_row = -1, rows = -1;
        json_t *hash = NULL;
        if (json_unpack(json_array_get(shards, (size_t)i), "{s:i s:i s:o}", "first_row", &first_row,
                        "rows", &rows, "hash", &hash) != 0 ||
            !parse_hex(hash, &shard->payload_hash)) {
            return false;
        }
        if (i == info->shards) {
            if (next_row != info->count) {
                return false;
            }
            next_row = 0;
        }
        if (first_row != next_row || rows < 0 || rows > info->count - next_row) {
            return false;
        }
        next_row += rows;
        memcpy(shard->magic, "JOMEDIX1", sizeof shard->magic);
        shard->build_id = info->build_id;
        shard->side = (uint32_t)(i / info->shards);
        shard->shard = (uint32_t)(i % info->shards);
        shard->first_row = (uint32_t)first_row;
        shard->rows = (uint32_t)rows;
        shard->dim = (uint32_t)info->dim;
        shard->dtype = (uint32_t)info->dtype;
    }
    return next_row == info->count;
}

static Error read_meta(Meta *meta, const char *dir) {
    *meta = (Meta){0};
    char *path = file_join_new(dir, "meta.json");
    FileBytes bytes = {0};
    Error error = file_read_new(&bytes, path, META_LIMIT);
    free(path);
    if (error.code) {
        return in_file(error, "meta.json");
    }
    json_error_t why;
    json_t *root = json_loadb((const char *)bytes.data, bytes.size, JSON_REJECT_DUPLICATES, &why);
    file_bytes_free(&bytes);
    if (!root) {
        return error_at(EXIT_BAD_DATA, (size_t)why.line, "meta.json: line %d: %.120s", why.line,
                        why.text);
    }
    int version = 0;
    const char *dtype = "";
    json_t *corpus, *encoder, *build, *shards;
    IndexInfo *info = &meta->info;
    const int rc = json_unpack(root, "{s:i s:i s:i s:s s:o s:o s:o s:o}", "version", &version,
                               "count", &info->count, "dim", &info->dim, "dtype", &dtype,
                               "corpus_hash", &corpus, "encoder_hash", &encoder, "build_id", &build,
                               "shards", &shards);
    const int t = dtype_parse(dtype);
    bool is_good = rc == 0 && version == META_VERSION && t >= 0 && info->count >= 0 &&
                   info->dim >= 1 && parse_hex(corpus, &info->corpus_hash) &&
                   parse_hex(encoder, &info->encoder_hash) && parse_hex(build, &info->build_id) &&
                   json_is_array(shards);
    if (is_good) {
        info->dtype = (DType)t;
        meta->count = (int)json_array_size(shards);
        info->shards = meta->count / INDEX_SIDES;
        meta->shards = xcalloc((size_t)meta->count, sizeof *meta->shards);
    }
    is_good = is_good && meta->count % INDEX_SIDES == 0 && read_shards(meta, shards);
    json_decref(root);
    if (!is_good) {
        free(meta->shards);
        *meta = (Meta){0};
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                        "meta.json: not an index of version %d, or its shards do not add up; "
                        "rebuild the index", META_VERSION);
    }
    return error_none();
}

static Error write_meta(const Index *index, const char *dir, const ShardHeader *shards, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        char name[32];
        shard_name(name, (IndexSide)shards[i].side, (int)shards[i].shard);
        json_array_append_new(list, json_pack("{s:s s:i s:i s:o}", "file", name, "first_row",
                                              (int)shards[i].first_row, "rows", (int)shards[i].rows,
                                              "hash", hex(shards[i].payload_hash)));
    }
    json_t *root = json_pack("{s:i s:i s:i s:s s:s s:o s:o s:o s:o}", "version", META_VERSION,
                             "count", index->count, "dim", index->dim, "dtype",
                             dtype_name(index->dtype), "metric", "inner product", "corpus_hash",
                             hex(index->corpus_hash), "encoder_hash", hex(index->encoder_hash),
                             "build_id", hex(index->build_id), "shards", list);
    CHECK(root, "meta.json of %d shards", count);
    char *text = json_dumps(root, JSON_INDENT(1)), *path = file_join_new(dir, "meta.json");
    json_decref(root);
    const Error error = file_replace(path, text, strlen(text));
    free(text);
    free(path);
    return error.code ? in_file(error, "meta.json") : error;
}

// ---- saving and loading ----
// Headers of all shards with the hashes of their rows; then the build id from these hashes.
static void describe_shards(Index *index, ShardHeader *shards, int per_side, int shard_rows,
                            void *host) {
    for (int i = 0; i < per_side * INDEX_SIDES; i++) {
        const int first = i % per_side * shard_rows;
        const int rows = index->count - first < shard_rows ? index->count - first : shard_rows;
        shards[i] = (ShardHeader){.magic = "JOMEDIX", .side = (uint32_t)(i / per_side),
                                  .shard = (uint32_t)(i % per_side), .first_row = (uint32_t)first,
                                  .rows = (uint32_t)rows, .dim = (uint32_t)index->dim,
                                  .dtype = (uint32_t)index->dtype};
        shards[i].magic[7] = '1';
        const size_t bytes = (size_t)rows * row_bytes(index);
        device_copy_out(
            index->dev, host,
            (const char *)index->rows[shards[i].side] + (size_t)first * row_bytes(index), bytes);
        shards[i].payload_hash = xxh64(host, bytes, 0);
    }
    uint64_t id[2] = {index->corpus_hash, index->encoder_hash};
    index->build_id = xxh64(id, sizeof id, 0);
    for (int i = 0; i < per_side * INDEX_SIDES; i++) {
        index->build_id = xxh64(&shards[i].payload_hash, sizeof(uint64_t), index->build_id);
    }
    for (int i = 0; i < per_side * INDEX_SIDES; i++) {
        shards[i].build_id = index->build_id;
    }
}

Error index_save(Index *index, const char *dir, int shard_rows) {
    CHECK(shard_rows >= 1, "shard_rows=%d", shard_rows);
    const int per_side = index->count ? (index->count + shard_rows - 1) / shard_rows : 1;
    const int largest = index->count < shard_rows ? index->count : shard_rows;
    ShardHeader *shards = xcalloc((size_t)per_side * INDEX_SIDES, sizeof *shards);
    void *host = xmalloc((size_t)largest, row_bytes(index));
    Error error = file_make_directories(dir);
    // An old meta.json describes shards about to be overwritten: it goes first, so that a stop half
    // way leaves a directory that says it is no index rather than one that looks damaged.
    char *meta = file_join_new(dir, "meta.json");
    if (!error.code) {
        error = file_remove_tree(meta);
    }
    free(meta);
    describe_shards(index, shards, per_side, shard_rows, host);
    for (int i = 0; !error.code && i < per_side * INDEX_SIDES; i++) {
        device_copy_out(index->dev, host,
                        (const char *)index->rows[shards[i].side] +
                            (size_t)shards[i].first_row * row_bytes(index),
                        (size_t)shards[i].rows * row_bytes(index));
        error = write_shard(index, dir, &shards[i], host);
    }
    if (!error.code) {
        error = write_meta(index, dir, shards, per_side * INDEX_SIDES);
    }
    free(host);
    free(shards);
    return error;
}

Error index_load_new(Index **out, Device *dev, const char *dir, uint64_t corpus_hash) {
    *out = NULL;
    Meta meta;
    Error error = read_meta(&meta, dir);
    if (error.code) {
        return error;
    }
    if (corpus_hash && corpus_hash != meta.info.corpus_hash) {
        error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                         "meta.json: built from corpus %016" PRIx64 ", but the corpus in use is "
                         "%016" PRIx64 "; run jomed index build",
                         meta.info.corpus_hash, corpus_hash);
    }
    // Sizes are checked against the files before anything is allocated for them.
    for (int i = 0; !error.code && i < meta.count; i++) {
        FileBytes bytes;
        const void *payload;
        error = read_shard(&bytes, &payload, dir, &meta.shards[i]);
        if (!error.code) {
            if (!*out) {
                *out = index_new(dev, meta.info.count, meta.info.dim, meta.info.dtype);
            }
            const ShardHeader *shard = &meta.shards[i];
            device_copy_in(dev,
                           (char *)(*out)->rows[shard->side] + shard->first_row * row_bytes(*out),
                           payload, shard->rows * row_bytes(*out));
        }
        file_bytes_free(&bytes);
    }
    free(meta.shards);
    if (error.code) {
        index_free(*out);
        *out = NULL;
        return error;
    }
    (*out)->corpus_hash = meta.info.corpus_hash;
    (*out)->encoder_hash = meta.info.encoder_hash;
    (*out)->build_id = meta.info.build_id;
    return error_none();
}

Error index_info(IndexInfo *out, const char *dir) {
    Meta meta;
    const Error error = read_meta(&meta, dir);
    *out = meta.info;
    free(meta.shards);
    return error;
}

Error index_verify(const char *dir, index_report_fn *report, void *ctx) {
    Meta meta;
    Error first = read_meta(&meta, dir);
    if (report) {
        report("meta.json", first, ctx);
    }
    for (int i = 0; i < meta.count; i++) {
        FileBytes bytes;
        const void *payload;
        const Error error = read_shard(&bytes, &payload, dir, &meta.shards[i]);
        file_bytes_free(&bytes);
        if (report) {
            char name[32];
            shard_name(name, (IndexSide)meta.shards[i].side, (int)meta.shards[i].shard);
            report(name, error, ctx);
        }
        if (error.code && !first.code) {
            first = error;
        }
    }
    free(meta.shards);
    return first;
}
