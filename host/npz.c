// npz: the directory of a ZIP, and bounded inflating; see npz.h.
#include "npz.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_MEMBERS = 65536 };

// ---- the directory of a ZIP ----
static uint64_t get(const uint8_t *p, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) {
        value = value << 8 | p[i];
    }
    return value;
}

// Is there room for `need` bytes at `at`?
static bool has_room(const Npz *z, uint64_t at, uint64_t need) {
    return at <= z->size && need <= z->size - at;
}

// Offset, size and count of the central directory, from the record at the end of the file.
static Error find_directory(const Npz *z, uint64_t *offset, uint64_t *size, uint64_t *count) {
    enum { END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56 };
    size_t at = z->size < END_BYTES ? SIZE_MAX : z->size - END_BYTES;
    while (at != SIZE_MAX && (get(z->data + at, 4) != 0x06054b50 ||
                              get(z->data + at + 20, 2) != z->size - at - END_BYTES)) {
        at = at == 0 || z->size - at > END_BYTES + 65535 ? SIZE_MAX : at - 1;
    }
    if (at == SIZE_MAX) {
        return error_at(EXIT_BAD_DATA, z->size,
                        "no ZIP: the end record is missing; is it truncated");
    }
    const uint8_t *end = z->data + at;
    uint64_t disks = get(end + 4, 2) | get(end + 6, 2);
    *count = get(end + 10, 2);
    *size = get(end + 12, 4);
    *offset = get(end + 16, 4);
    const uint8_t *locator = at >= LOCATOR_BYTES ? end - LOCATOR_BYTES : NULL;
    if (locator && get(locator, 4) == 0x07064b50) { // ZIP64: the real numbers are elsewhere
        const uint64_t at64 = get(locator + 8, 8);
        if (!has_room(z, at64, END64_BYTES) || get(z->data + at64, 4) != 0x06064b50) {
            return error_at(EXIT_BAD_DATA, at, "the ZIP64 end record is missing");
        }
        disks = get(z->data + at64 + 16, 4) | get(z->data + at64 + 20, 4);
        *count = get(z->data + at64 + 32, 8);
        *size = get(z->data + at64 + 40, 8);
        *offset = get(z->data + at64 + 48, 8);
    }
    if (disks != 0) {
        return error_at(EXIT_BAD_DATA, at, "a ZIP over several disks");
    }
    if (!has_room(z, *offset, *size) || *count > MAX_MEMBERS) {
        return error_at(EXIT_BAD_DATA, at, "the ZIP directory lies outside the file");
    }
    return error_none();
}

// Sizes too large for 32 bits are in the extra field 1, in this order, those only.
static bool read_zip64(const uint8_t *extra, size_t length, uint64_t *unpacked, uint64_t *packed,
                       uint64_t *offset) {
    uint64_t *wanted[] = {unpacked, packed, offset};
    if (*unpacked != UINT32_MAX && *packed != UINT32_MAX && *offset != UINT32_MAX) {
        return true;
    }
    for (size_t at = 0; at + 4 <= length;) {
        const size_t id = get(extra + at, 2), size = get(extra + at + 2, 2);
        if (size > length - at - 4) {
            return false;
        }
        if (id == 1) {
            size_t used = 0;
            for (int i = 0; i < 3; i++) {
                if (*wanted[i] == UINT32_MAX) {
                    if (used + 8 > size) {
                        return false;
                    }
                    *wanted[i] = get(extra + at + 4 + used, 8);
                    used += 8;
                }
            }
            return true;
        }
        at += 4 + size;
    }
    return false;
}

// One entry at data+at, which may use `left` bytes; *used tells how many it had.
static Error read_member(const Npz *z, uint64_t at, uint64_t left, NpzMember *out, uint64_t *used) {
    enum { ENTRY_BYTES = 46 };
    const uint8_t *p = z->data + at;
    if (left < ENTRY_BYTES || get(p, 4) != 0x02014b50) {
        return error_at(EXIT_BAD_DATA, at, "the ZIP directory is damaged");
    }
    const size_t name = get(p + 28, 2), extra = get(p + 30, 2), comment = get(p + 32, 2);
    *used = ENTRY_BYTES + name + extra + comment;
    uint64_t packed = get(p + 20, 4), unpacked = get(p + 24, 4), offset = get(p + 42, 4);
    if (*used > left || !read_zip64(p + ENTRY_BYTES + name, extra, &unpacked, &packed, &offset)) {
        return error_at(EXIT_BAD_DATA, at, "the ZIP directory is damaged");
    }
    const int method = (int)get(p + 10, 2);
    if (get(p + 8, 2) & 1) {
        return error_at(EXIT_BAD_DATA, at, "an encrypted member");
    }
    if (method != 0 && method != 8) {
        return error_at(EXIT_BAD_DATA, at, "compression method %d; stored and deflated are read",
                        method);
    }
    if (name == 0 || memchr(p + ENTRY_BYTES, 0, name)) {
        return error_at(EXIT_BAD_DATA, at, "a member without a proper name");
    }
    if (!has_room(z, offset, packed)) {
        return error_at(EXIT_BAD_DATA, at, "a member lies outside the file");
    }
    const size_t kept =
        name > 4 && memcmp(p + ENTRY_BYTES + name - 4, ".npy", 4) == 0 ? name - 4 : name;
    *out = (NpzMember){.name = xformat_new("%.*s", (int)kept, (const char *)p + ENTRY_BYTES),
                       .offset = offset,
                       .packed = packed,
                       .unpacked = unpacked,
                       .crc = (uint32_t)get(p + 16, 4),
                       .method = method};
    return error_none();
}

static int by_offset(const void *a, const void *b) {
    const NpzMember *x = *(const NpzMember *const *)a, *y = *(const NpzMember *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const NpzMember *const *)a)->name, (*(const NpzMember *const *)b)->name);
}

// No two members may have one name or share bytes.
static Error check_members(const Npz *z) {
    Error error = error_none();
    const NpzMember **order = xcalloc((size_t)z->count, sizeof *order);
    for (int i = 0; i < z->count; i++) {
        order[i] = &z->members[i];
    }
    qsort(order, (size_t)z->count, sizeof *order, by_name);
    for (int i = 1; i < z->count && error.code == EXIT_OK; i++) {
        if (by_name(&order[i - 1], &order[i]) == 0) {
            error =
                error_at(EXIT_BAD_DATA, order[i]->offset, "two members '%.80s'", order[i]->name);
        }
    }
    qsort(order, (size_t)z->count, sizeof *order, by_offset);
    for (int i = 1; i < z->count && error.code == EXIT_OK; i++) {
        if (order[i]->offset - order[i - 1]->offset < order[i - 1]->packed + 30) {
            error = error_at(EXIT_BAD_DATA, order[i]->offset, "members '%.80s' and '%.80s' overlap",
                             order[i - 1]->name, order[i]->name);
        }
    }
    free(order);
    return error;
}

Error npz_open_new(Npz *out, const void *data, size_t size) {
    *out = (Npz){.data = data, .size = size};
    uint64_t offset = 0, bytes = 0, count = 0, used = 0;
    Error error = find_directory(out, &offset, &bytes, &count);
    if (error.code == EXIT_OK && count * 46 > bytes) {
        error = error_at(EXIT_BAD_DATA, offset, "the ZIP directory is damaged");
    }
    if (error.code == EXIT_OK) {
        out->members = xcalloc((size_t)count, sizeof *out->members);
    }
    for (uint64_t i = 0; i < count && error.code == EXIT_OK; i++) {
        error = read_member(out, offset, bytes, &out->members[i], &used);
        if (error.code == EXIT_OK) {
            out->count++;
            offset += used;
            bytes -= used;
        }
    }
    if (error.code == EXIT_OK) {
        error = check_members(out);
    }
    if (error.code != EXIT_OK) {
        npz_free(out);
    }
    return error;
}

void npz_free(Npz *archive) {
    for (int i = 0; i < archive->count; i++) {
        free(archive->members[i].name);
    }
    free(archive->members);
    *archive = (Npz){0};
}

static const NpzMember *find_member(const Npz *archive, const char *name) {
    for (int i = 0; i < archive->count; i++) {
        if (strcmp(archive->members[i].name, name) == 0) {
            return &archive->members[i];
        }
    }
    return NULL;
}

bool npz_has(const Npz *archive, const char *name) { return find_member(archive, name) != NULL; }

// ---- members ----
// A member's bytes in order, whether stored or deflated.
typedef struct {
    const uint8_t *at;
    size_t left; // packed bytes not used yet
    bool is_deflated, is_over;
    z_stream z;
    uLong crc;
} Unpacker;

// The next `size` bytes; false when the member ends or breaks before.
static bool unpack(Unpacker *u, uint8_t *out, size_t size) {
    enum { CHUNK = 1 << 30 }; // zlib counts in 32 bits
    for (size_t done = 0; done < size;) {
        const size_t want = size - done < CHUNK ? size - done : CHUNK;
        size_t got = want;
        if (u->is_deflated) {
            const uInt feed = (uInt)(u->left < CHUNK ? u->left : CHUNK);
            u->z.next_in = (Bytef *)(uintptr_t)u->at;
            u->z.avail_in = feed;
            u->z.next_out = out + done;
            u->z.avail_out = (uInt)want;
            const int rc = u->is_over ? Z_BUF_ERROR : inflate(&u->z, Z_NO_FLUSH);
            u->is_over |= rc == Z_STREAM_END;
            u->at += feed - u->z.avail_in;
            u->left -= feed - u->z.avail_in;
            got = want - u->z.avail_out;
            if ((rc != Z_OK && rc != Z_STREAM_END) || (got == 0 && u->z.avail_in == feed)) {
                return false;
            }
        } else if (u->left < want) {
            return false;
        } else {
            memcpy(out + done, u->at, want);
            u->at += want;
            u->left -= want;
        }
        u->crc = crc32(u->crc, out + done, (uInt)got);
        done += got;
    }
    return true;
}

// Has the stream ended exactly here? A deflate stream may still hold its empty last block.
static bool is_at_end(Unpacker *u) {
    uint8_t extra;
    if (u->is_deflated && !u->is_over) {
        u->z.next_in = (Bytef *)(uintptr_t)u->at;
        u->z.avail_in = (uInt)(u->left < 1024 ? u->left : 1024);
        const uInt feed = u->z.avail_in;
        u->z.next_out = &extra;
        u->z.avail_out = 1;
        u->is_over = inflate(&u->z, Z_FINISH) == Z_STREAM_END && u->z.avail_out == 1;
        u->left -= feed - u->z.avail_in;
        return u->is_over && u->left == 0;
    }
    return u->left == 0;
}

// Reads header, checks all sizes, then reads the data.
static Error load(NpyArray *out, Unpacker *u, const NpzMember *member, size_t max_bytes) {
    uint8_t head[NPY_HEAD_BYTES];
    size_t begin = 0, length = 0;
    // 10 bytes are enough for version 1; the other two belong to its text.
    if (member->unpacked < NPY_HEAD_BYTES || !unpack(u, head, NPY_HEAD_BYTES)) {
        return error_at(EXIT_BAD_DATA, member->offset, "member '%.80s': no .npy", member->name);
    }
    Error error = npy_header_extent(head, NPY_HEAD_BYTES, &begin, &length);
    if (error.code == EXIT_OK && length < 2) {
        error = error_at(EXIT_BAD_DATA, 0, "the header is no dict");
    }
    uint8_t *text = NULL;
    if (error.code == EXIT_OK) {
        text = xmalloc(length + NPY_HEAD_BYTES, 1);
        memcpy(text, head, NPY_HEAD_BYTES);
        if (!unpack(u, text + NPY_HEAD_BYTES, begin + length - NPY_HEAD_BYTES)) {
            error = error_at(EXIT_BAD_DATA, 0, "it ends in its header");
        } else {
            error = npy_header_parse(out, (const char *)text + begin, length, begin);
        }
    }
    free(text);
    if (error.code == EXIT_OK && (member->unpacked - begin - length != out->bytes)) {
        error = error_at(EXIT_BAD_DATA, 0, "%zu bytes of data, the shape wants %zu",
                         member->unpacked - begin - length, out->bytes);
    } else if (error.code == EXIT_OK && out->bytes > max_bytes) {
        error = error_at(EXIT_BAD_DATA, 0,
                         "%zu bytes of data from %zu packed; limits.max_array_bytes is %zu",
                         out->bytes, member->packed, max_bytes);
    } else if (error.code == EXIT_OK && !(out->owned = malloc(out->bytes + 1))) {
        error = error_at(EXIT_RESOURCE, 0, "no memory for %zu bytes", out->bytes);
    } else if (error.code == EXIT_OK) {
        out->data = out->owned;
        if (!unpack(u, out->owned, out->bytes) || !is_at_end(u)) {
            error = error_at(EXIT_BAD_DATA, 0, "the compressed data are damaged");
        } else if ((uint32_t)u->crc != member->crc) {
            error = error_at(EXIT_BAD_DATA, 0, "the checksum (CRC32) is wrong");
        }
    }
    if (error.code != EXIT_OK) {
        return error_at(error.code, member->offset, "member '%.60s': %.140s", member->name,
                        error.text);
    }
    return error;
}

Error npz_load_new(NpyArray *out, const Npz *archive, const char *name, size_t max_bytes) {
    enum { LOCAL_BYTES = 30 };
    *out = (NpyArray){0};
    const NpzMember *member = find_member(archive, name);
    if (!member) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "no member '%.80s'", name);
    }
    // Of the local header only the lengths of its variable parts count; its sizes may be anything.
    const uint8_t *local = archive->data + member->offset;
    uint64_t skip = LOCAL_BYTES;
    const bool is_there =
        has_room(archive, member->offset, LOCAL_BYTES) && get(local, 4) == 0x04034b50;
    skip += is_there ? get(local + 26, 2) + get(local + 28, 2) : 0;
    if (!is_there || !has_room(archive, member->offset + skip, member->packed)) {
        return error_at(EXIT_BAD_DATA, member->offset, "member '%.80s' lies outside the file",
                        name);
    }
    Unpacker u = {.at = local + skip, .left = member->packed, .is_deflated = member->method == 8};
    u.crc = crc32(0, NULL, 0);
    if (!u.is_deflated && member->packed != member->unpacked) {
        return error_at(EXIT_BAD_DATA, member->offset, "member '%.80s': stored, but of two sizes",
                        name);
    }
    if (u.is_deflated && inflateInit2(&u.z, -MAX_WBITS) != Z_OK) { // no zlib header in a ZIP
        return error_at(EXIT_RESOURCE, member->offset, "no memory for zlib");
    }
    const Error error = load(out, &u, member, max_bytes);
    if (u.is_deflated) {
        inflateEnd(&u.z);
    }
    if (error.code != EXIT_OK) {
        npy_free(out);
    }
    return error;
}
