// tfevents: protobuf by hand, framed with checksums; see tfevents.h.
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE // gethostname, ftruncate
#include "tfevents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

// ---- checksum ----
uint32_t crc32c(const void *data, size_t size) {
    const uint8_t *p = data;
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) { // bit by bit: a record has fewer than a hundred bytes
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0); // 0x1EDC6F41, reflected
        }
    }
    return ~crc;
}

uint32_t tfevents_mask(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

// ---- protobuf ----
enum { MAX_TAG = 400, MESSAGE_ROOM = 600 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
typedef struct {
    uint8_t bytes[MESSAGE_ROOM];
    size_t size;
} Message;

static void add_varint(Message *m, uint64_t value) {
    for (; value >= 128; value >>= 7) {
        m->bytes[m->size++] = (uint8_t)(value | 128);
    }
    m->bytes[m->size++] = (uint8_t)value;
}

static void add_key(Message *m, int field, int wire) {
    add_varint(m, (uint64_t)(field << 3 | wire));
}

static void add_raw(Message *m, const void *data, size_t size) {
    memcpy(m->bytes + m->size, data, size);
    m->size += size;
}

static void add_bytes(Message *m, int field, const void *data, size_t size) {
    add_key(m, field, WIRE_BYTES);
    add_varint(m, size);
    add_raw(m, data, size);
}

// ---- records ----
static void write_record(TfEvents *events, const Message *message) {
    uint8_t record[MESSAGE_ROOM + 16];
    const uint64_t length = message->size;
    memcpy(record, &length, 8);
    const uint32_t head = tfevents_mask(crc32c(record, 8));
    const uint32_t body = tfevents_mask(crc32c(message->bytes, message->size));
    memcpy(record + 8, &head, 4);
    memcpy(record + 12, message->bytes, message->size);
    memcpy(record + 12 + message->size, &body, 4);
    const size_t size = message->size + 16;
    if (events->fd >= 0 && file_write_all(events->fd, record, size).code == EXIT_OK) {
        events->size += (int64_t)size;
        return;
    }
    // What got through of a broken record would end every reader: cut it off, or write no more.
    if (events->dropped++ == 0) {
        LOG(WARN, "%s: a record could not be written (%s) and was dropped; the work goes on",
            events->path, strerror(errno));
    }
    if (events->fd >= 0 && (ftruncate(events->fd, events->size) != 0 ||
                            lseek(events->fd, events->size, SEEK_SET) < 0)) {
        close(events->fd);
        events->fd = -1;
    }
}

static Message event(int64_t step) {
    Message m = {.size = 0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const double wall_time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    add_key(&m, 1, WIRE_64);
    add_raw(&m, &wall_time, 8);
    add_key(&m, 2, WIRE_VARINT);
    add_varint(&m, (uint64_t)step);
    return m;
}

Error tfevents_open(TfEvents *events, const char *directory) {
    *events = (TfEvents){.fd = -1};
    const Error error = file_make_directories(directory);
    if (error.code != EXIT_OK) {
        return error;
    }
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    for (int i = 0; events->fd < 0 && i < 1000;
         i++) { // another stage may have begun in this second
        free(events->path);
        events->path = xformat_new("%s/events.out.tfevents.%lld.%s.%ld.%d", directory,
                                   (long long)time(NULL), host, (long)getpid(), i);
        events->fd = open(events->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (events->fd < 0 && errno != EEXIST) {
            break;
        }
    }
    if (events->fd < 0) {
        free(events->path);
        events->path = NULL;
        return error_at(EXIT_NO_OUTPUT, ERROR_NOWHERE, "cannot create an event file: %s",
                        strerror(errno));
    }
    Message m = event(0);
    add_bytes(&m, 3, "brain.Event:2", 13); // file_version
    write_record(events, &m);
    return error_none();
}

void tfevents_scalar(TfEvents *events, int64_t step, const char *tag, double value) {
    Message scalar = {.size = 0}, summary = {.size = 0}, m = event(step);
    const float rounded = (float)value;
    const size_t length = strlen(tag);
    CHECK(length <= MAX_TAG, "tag of %zu bytes", length);
    add_bytes(&scalar, 1, tag, length);
    add_key(&scalar, 2, WIRE_32); // simple_value
    add_raw(&scalar, &rounded, 4);
    add_bytes(&summary, 1, scalar.bytes, scalar.size);
    add_bytes(&m, 5, summary.bytes, summary.size);
    write_record(events, &m);
}

void tfevents_close(TfEvents *events) {
    if (events->path) {
        if (events->dropped > 0) {
            LOG(WARN, "%s: %zu records were dropped", events->path, events->dropped);
        }
        if (events->fd >= 0 && file_close(events->fd).code != EXIT_OK) {
            LOG(WARN, "%s: cannot close: %s", events->path, strerror(errno));
        }
        free(events->path);
    }
    *events = (TfEvents){.fd = -1};
}
