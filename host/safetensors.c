// safetensors: parser with every rule of the format, shards, writer; see safetensors.h.
#define _POSIX_C_SOURCE 200809L
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

enum { HEADER_LIMIT = 100000000, DATA_ALIGN = 64, INDEX_LIMIT = 64 << 20 };

// ---- element types ----
#define TYPE_ROW(enumerator, text, bit_count) {text, bit_count},
static const struct {
    const char *name;
    int bits;
} types[SAFE_TYPE_COUNT] = {SAFE_TYPES(TYPE_ROW)};

const char *safe_type_name(SafeType type) { return types[type].name; }
int safe_type_bits(SafeType type) { return types[type].bits; }

SafeType safe_type_of(DType t) {
    return t == DT_F32 ? SAFE_F32 : t == DT_BF16 ? SAFE_BF16 : SAFE_F16;
}

int safe_type_to_dtype(SafeType type) {
    return type == SAFE_F32 ? DT_F32 : type == SAFE_BF16 ? DT_BF16 : type == SAFE_F16 ? DT_F16 : -1;
}

static int find_type(const char *name) {
    for (int i = 0; i < SAFE_TYPE_COUNT; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

// ---- sizes ----
// Bytes of a tensor; false when a product overflows or the bits do not fill whole bytes. A zero
// dimension makes the size zero, but must not hide an overflow before it.
static bool bytes_of(SafeType type, const size_t *shape, int rank, size_t *bytes) {
    size_t count = 1, bits;
    for (int i = 0; i < rank; i++) {
        if (!size_mul(count, shape[i], &count)) {
            return false;
        }
    }
    if (!size_mul(count, (size_t)types[type].bits, &bits) || bits % 8 != 0) {
        return false;
    }
    *bytes = bits / 8;
    return true;
}

size_t safe_count(const SafeTensor *tensor) {
    size_t count = 1;
    for (int i = 0; i < tensor->rank; i++) {
        count *= tensor->shape[i];
    }
    return count;
}

char *safe_describe(char out[128], const SafeTensor *tensor) {
    int used = snprintf(out, 128, "%s [", types[tensor->type].name);
    for (int i = 0; i < tensor->rank && used < 100; i++) {
        used += snprintf(out + used, 128 - (size_t)used, "%s%zu", i ? ", " : "", tensor->shape[i]);
    }
    snprintf(out + used, 128 - (size_t)used, "]");
    return out;
}

// ---- parsing one entry ----
static bool get_size(const json_t *value, size_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (size_t)json_integer_value(value);
    return true;
}

// Fills *tensor; data_size is the size of the data buffer. Returns what is wrong, or NULL.
static const char *parse_entry(SafeTensor *tensor, const json_t *entry, const uint8_t *data,
                               size_t data_size) {
    const json_t *type = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_object(entry) || json_object_size(entry) != 3 || !json_is_string(type) ||
        !json_is_array(shape) || !json_is_array(offsets)) {
        return "wants exactly dtype, shape and data_offsets";
    }
    const int found = find_type(json_string_value(type));
    if (found < 0) {
        return "unknown dtype";
    }
    tensor->type = (SafeType)found;
    if (json_array_size(shape) > SAFE_MAX_RANK) {
        return "more than 8 dimensions";
    }
    tensor->rank = (int)json_array_size(shape);
    for (int i = 0; i < tensor->rank; i++) {
        if (!get_size(json_array_get(shape, (size_t)i), &tensor->shape[i])) {
            return "a dimension is no integer >= 0";
        }
    }
    size_t begin, end;
    if (json_array_size(offsets) != 2 || !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end)) {
        return "data_offsets wants two integers >= 0";
    }
    if (begin > end || end > data_size) {
        return "data_offsets lie outside the file";
    }
    if (!bytes_of(tensor->type, tensor->shape, tensor->rank, &tensor->bytes)) {
        return "the shape's size overflows or does not fill whole bytes";
    }
    if (tensor->bytes != end - begin) {
        return "shape and data_offsets disagree";
    }
    tensor->data = data + begin;
    return NULL;
}

// By place; tensors of no bytes come first where they share one.
static int by_place(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_tensor_name(const void *a, const void *b) {
    return strcmp(((const SafeTensor *)a)->name, ((const SafeTensor *)b)->name);
}

static Error parse_metadata(SafeTensors *out, json_t *metadata) {
    if (!json_is_object(metadata)) {
        return error_at(EXIT_BAD_DATA, 8, "__metadata__ wants an object of texts");
    }
    out->metadata = xcalloc(2 * json_object_size(metadata), sizeof(char *));
    const char *name;
    json_t *value;
    json_object_foreach(metadata, name, value) {
        if (!json_is_string(value)) {
            return error_at(EXIT_BAD_DATA, 8, "__metadata__ '%.60s' wants a text, got %s", name,
                            json_type_name(value));
        }
        out->metadata[2 * out->metadata_count] = xstrdup(name);
        out->metadata[2 * out->metadata_count + 1] = xstrdup(json_string_value(value));
        out->metadata_count++;
    }
    return error_none();
}

// The tensors must tile the data: first at 0, each behind the one before, the last up to the end.
static Error check_tiling(SafeTensors *out, const uint8_t *data, size_t data_size) {
    qsort(out->tensors, (size_t)out->count, sizeof *out->tensors, by_place);
    size_t at = 0;
    for (int i = 0; i < out->count; i++) {
        const SafeTensor *t = &out->tensors[i];
        const size_t begin = (size_t)((const uint8_t *)t->data - data);
        if (begin != at) {
            return error_at(EXIT_BAD_DATA, begin,
                            "tensor '%.80s': data begins at %zu, %s before it", t->name, begin,
                            begin < at ? "overlapping the one" : "with a hole");
        }
        at += t->bytes;
    }
    if (at != data_size) {
        return error_at(EXIT_BAD_DATA, at, "%zu bytes behind the last tensor", data_size - at);
    }
    return error_none();
}

static Error parse_tensors(SafeTensors *out, json_t *header, const uint8_t *data,
                           size_t data_size) {
    out->tensors = xcalloc(json_object_size(header), sizeof *out->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            const Error error = parse_metadata(out, entry);
            if (error.code != EXIT_OK) {
                return error;
            }
            continue;
        }
        SafeTensor *tensor = &out->tensors[out->count];
        const char *what = parse_entry(tensor, entry, data, data_size);
        if (what) {
            return error_at(EXIT_BAD_DATA, 8, "tensor '%.80s': %s", name, what);
        }
        tensor->name = xstrdup(name);
        out->count++;
    }
    const Error error = check_tiling(out, data, data_size);
    qsort(out->tensors, (size_t)out->count, sizeof *out->tensors, by_tensor_name);
    return error;
}

Error safetensors_parse_new(SafeTensors *out, const void *data, size_t size) {
    *out = (SafeTensors){0};
    const uint8_t *bytes = data;
    uint64_t length;
    if (size < 8) {
        return error_at(EXIT_BAD_DATA, size, "%zu bytes are no safetensors file", size);
    }
    memcpy(&length, bytes, 8);
    if (length > HEADER_LIMIT) {
        return error_at(EXIT_BAD_DATA, 0, "a header of %llu bytes; 100000000 are allowed",
                        (unsigned long long)length);
    }
    if (length > size - 8) {
        return error_at(EXIT_BAD_DATA, 0,
                        "a header of %llu bytes in a file of %zu; is it truncated",
                        (unsigned long long)length, size);
    }
    json_t *header;
    Error error = json_parse_new(&header, bytes + 8, (size_t)length);
    if (error.code != EXIT_OK) {
        error.offset += 8;
        return error;
    }
    if (!json_is_object(header)) {
        error = error_at(EXIT_BAD_DATA, 8, "the header is %s, no object", json_type_name(header));
    } else {
        error = parse_tensors(out, header, bytes + 8 + length, size - 8 - (size_t)length);
    }
    json_decref(header);
    if (error.code != EXIT_OK) {
        safetensors_free(out);
    }
    return error;
}

void safetensors_free(SafeTensors *set) {
    for (int i = 0; i < set->count; i++) {
        free((void *)(uintptr_t)set->tensors[i].name);
    }
    for (int i = 0; i < 2 * set->metadata_count; i++) {
        free(set->metadata[i]);
    }
    free(set->tensors);
    free(set->metadata);
    *set = (SafeTensors){0};
}

const SafeTensor *safetensors_find(const SafeTensors *set, const char *name) {
    const SafeTensor wanted = {.name = name};
    return set->count
               ? bsearch(&wanted, set->tensors, (size_t)set->count, sizeof wanted, by_tensor_name)
               : NULL;
}

const char *safetensors_metadata(const SafeTensors *set, const char *name) {
    for (int i = 0; i < set->metadata_count; i++) {
        if (strcmp(set->metadata[2 * i], name) == 0) {
            return set->metadata[2 * i + 1];
        }
    }
    return NULL;
}

// ---- shards ----
// error, with the shard's name in front of its text.
static Error in_shard(Error error, const char *shard) {
    if (error.code == EXIT_OK) {
        return error;
    }
    return error_at(error.code, error.offset, "shard '%.80s': %.120s", shard, error.text);
}

// Maps one file and appends its tensors, for whose names the store takes responsibility.
static Error add_file(SafeStore *store, const char *path, SafeTensors *part) {
    FileBytes bytes;
    Error error = file_map_new(&bytes, path);
    if (error.code != EXIT_OK) {
        return error;
    }
    error = safetensors_parse_new(part, bytes.data, bytes.size);
    if (error.code != EXIT_OK) {
        file_bytes_free(&bytes);
        return error;
    }
    store->files = xrealloc(store->files, (size_t)store->file_count + 1, sizeof *store->files);
    store->files[store->file_count++] = bytes;
    return error;
}

static void append(SafeTensors *all, SafeTensors *part) {
    all->tensors = xrealloc(all->tensors, (size_t)(all->count + part->count), sizeof *all->tensors);
    memcpy(all->tensors + all->count, part->tensors, (size_t)part->count * sizeof *part->tensors);
    all->count += part->count;
    free(part->tensors);
    if (!all->metadata) { // of the first shard
        all->metadata = part->metadata;
        all->metadata_count = part->metadata_count;
        part->metadata = NULL;
        part->metadata_count = 0;
    }
    part->tensors = NULL;
    part->count = 0;
    safetensors_free(part);
}

// A shard's name comes from a file nobody checked: it must be a plain name.
static bool is_plain_name(const char *name) {
    return name[0] && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

// Opens one shard and holds it against what the index says is in it.
static Error add_shard(SafeStore *store, const char *directory, const char *shard,
                       const json_t *map) {
    char *path = file_join_new(directory, shard);
    SafeTensors part;
    Error error = in_shard(add_file(store, path, &part), shard);
    free(path);
    if (error.code != EXIT_OK) {
        return error;
    }
    for (int i = 0; i < part.count && error.code == EXIT_OK; i++) {
        const char *owner = json_string_value(json_object_get(map, part.tensors[i].name));
        if (!owner || strcmp(owner, shard) != 0) {
            error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                             "shard '%.80s': tensor '%.80s' is not in the index", shard,
                             part.tensors[i].name);
        }
    }
    append(&store->all, &part);
    return error;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static Error open_index(SafeStore *store, const char *directory, const json_t *index) {
    const json_t *map = NULL; // jansson takes NULL for an object without members
    Error error = json_member_object(index, "weight_map", true, &map);
    const size_t count = json_object_size(map);
    const char **shards = xcalloc(count, sizeof *shards);
    size_t used = 0;
    const char *name;
    json_t *shard;
    json_object_foreach((json_t *)(uintptr_t)map, name, shard) {
        if (!json_is_string(shard) || !is_plain_name(json_string_value(shard))) {
            error = error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                             "tensor '%.80s': its shard is no plain file name", name);
            break;
        }
        shards[used++] = json_string_value(shard);
    }
    qsort(shards, used, sizeof *shards, by_text);
    for (size_t i = 0; i < used && error.code == EXIT_OK; i++) {
        if (i == 0 || strcmp(shards[i], shards[i - 1]) != 0) {
            error = add_shard(store, directory, shards[i], map);
        }
    }
    free(shards);
    if (error.code == EXIT_OK && store->all.count > 0) {
        qsort(store->all.tensors, (size_t)store->all.count, sizeof(SafeTensor), by_tensor_name);
    }
    // Every tensor found is in the index, and in one shard only; so equal counts mean all were
    // found.
    if (error.code == EXIT_OK && (size_t)store->all.count != count) {
        json_object_foreach((json_t *)(uintptr_t)map, name, shard) {
            if (!safetensors_find(&store->all, name)) {
                return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "shard '%.80s' lacks tensor '%.80s'",
                                json_string_value(shard), name);
            }
        }
    }
    return error;
}

static Error open_path(SafeStore *store, const char *path) {
    const size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".json") == 0) {
        json_t *index;
        Error error = json_read_new(&index, path, INDEX_LIMIT);
        if (error.code != EXIT_OK) {
            return error;
        }
        const char *slash = strrchr(path, '/');
        char *directory = slash ? xformat_new("%.*s", (int)(slash - path), path) : xstrdup(".");
        error = open_index(store, directory[0] ? directory : "/", index);
        free(directory);
        json_decref(index);
        return error;
    }
    return add_file(store, path, &store->all);
}

Error safestore_open_new(SafeStore *out, const char *path) {
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors",
                                        "open_clip_model.safetensors", "adapter_model.safetensors"};
    *out = (SafeStore){0};
    Error error;
    if (file_is_directory(path)) {
        error = error_at(EXIT_NO_INPUT, ERROR_NOWHERE,
                         "no model.safetensors, open_clip_model.safetensors or "
                         "adapter_model.safetensors in the directory");
        for (int i = 0; i < 4; i++) {
            char *full = file_join_new(path, names[i]);
            const bool is_there = file_exists(full);
            if (is_there) {
                error = in_shard(open_path(out, full), names[i]);
            }
            free(full);
            if (is_there) {
                break;
            }
        }
    } else {
        error = open_path(out, path);
    }
    if (error.code != EXIT_OK) {
        safestore_free(out);
    }
    return error;
}

void safestore_free(SafeStore *store) {
    safetensors_free(&store->all);
    for (int i = 0; i < store->file_count; i++) {
        file_bytes_free(&store->files[i]);
    }
    free(store->files);
    *store = (SafeStore){0};
}

// ---- writing ----
static int by_name(const void *a, const void *b) {
    return by_tensor_name(*(const SafeTensor *const *)a, *(const SafeTensor *const *)b);
}

static int by_size_then_name(const void *a, const void *b) {
    const SafeTensor *x = *(const SafeTensor *const *)a, *y = *(const SafeTensor *const *)b;
    const int difference = types[y->type].bits - types[x->type].bits;
    return difference ? difference : strcmp(x->name, y->name);
}

static char *header_new(const SafeTensor *const *order, int count, const char *const *metadata,
                        int metadata_count) {
    char *text = NULL;
    size_t size = 0, at = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(out, "open_memstream");
    fputs("{\"__metadata__\":{\"format\":\"pt\"", out);
    for (int i = 0; i < metadata_count; i++) {
        char *name = json_quote_new(metadata[2 * i]), *value = json_quote_new(metadata[2 * i + 1]);
        fprintf(out, ",%s:%s", name, value);
        free(name);
        free(value);
    }
    fputc('}', out);
    for (int i = 0; i < count; i++) {
        const SafeTensor *t = order[i];
        size_t bytes;
        CHECK(bytes_of(t->type, t->shape, t->rank, &bytes), "tensor '%s'", t->name);
        char *name = json_quote_new(t->name);
        fprintf(out, ",%s:{\"dtype\":\"%s\",\"shape\":[", name, types[t->type].name);
        free(name);
        for (int k = 0; k < t->rank; k++) {
            fprintf(out, "%s%zu", k ? "," : "", t->shape[k]);
        }
        fprintf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    fputc('}', out);
    while ((8 + (size_t)ftell(out)) % DATA_ALIGN != 0) {
        fputc(' ', out);
    }
    fclose(out);
    return text;
}

Error safetensors_write(const char *path, const SafeTensor *tensors, int count,
                        const char *const *metadata, int metadata_count) {
    const SafeTensor **order = xcalloc((size_t)count, sizeof *order);
    for (int i = 0; i < count; i++) {
        order[i] = &tensors[i];
        CHECK(tensors[i].name[0] && strcmp(tensors[i].name, "__metadata__") != 0, "tensor %d", i);
    }
    qsort(order, (size_t)count, sizeof *order, by_name);
    for (int i = 1; i < count; i++) {
        CHECK(by_name(&order[i - 1], &order[i]) != 0, "tensor '%s' twice", order[i]->name);
    }
    qsort(order, (size_t)count, sizeof *order, by_size_then_name);
    char *header = header_new(order, count, metadata, metadata_count);
    const uint64_t length = strlen(header);
    FileWriter writer;
    Error error = file_writer_open(&writer, path);
    if (error.code == EXIT_OK) {
        file_writer_add(&writer, &length, 8);
        file_writer_add(&writer, header, (size_t)length);
        for (int i = 0; i < count; i++) {
            size_t bytes = 0;
            bytes_of(order[i]->type, order[i]->shape, order[i]->rank, &bytes);
            file_writer_add(&writer, order[i]->data, bytes);
        }
        error = file_writer_commit(&writer);
    }
    free(header);
    free(order);
    return error;
}
