// Tests of host/tfevents: published checksums, and the records read back by a reader of their own.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/file.h"
#include "host/tfevents.h"

TEST(tfevents_checksums) {
    EXPECT(crc32c("123456789", 9) == 0xE3069283u, "%08x", crc32c("123456789", 9));
    EXPECT(crc32c("", 0) == 0, "of nothing");
    const uint8_t zeros[32] = {0}; // RFC 3720, B.4
    EXPECT(crc32c(zeros, 32) == 0x8A9136AAu, "%08x", crc32c(zeros, 32));
    // TensorBoard's own vectors: a field 3 with a text of 17 bytes, and the length word of 24
    // bytes.
    const char *message = "\x1a\x11"
                          "CRC test, one two";
    EXPECT(tfevents_mask(crc32c(message, 19)) == 0x5794d08au, "%08x",
           tfevents_mask(crc32c(message, 19)));
    const uint8_t length[8] = {24};
    EXPECT(tfevents_mask(crc32c(length, 8)) == 0x224b7fa3u, "%08x",
           tfevents_mask(crc32c(length, 8)));
}

// ---- a reader ----
static uint64_t varint(const uint8_t **p, const uint8_t *end) {
    uint64_t value = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        const uint8_t byte = *(*p)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            break;
        }
    }
    return value;
}

// Finds a field of a message; its bytes (or number) and, for bytes, the size. False when absent.
static bool field(const uint8_t *p, const uint8_t *end, int wanted, const uint8_t **bytes,
                  uint64_t *number) {
    while (p < end) {
        const uint64_t key = varint(&p, end);
        const int wire = (int)(key & 7);
        *bytes = p;
        if (wire == 0) {
            *number = varint(&p, end);
        } else {
            *number = wire == 1 ? 8 : wire == 5 ? 4 : varint(&p, end);
            *bytes = p;
            p += *number;
        }
        if (p > end) {
            return false;
        }
        if ((int)(key >> 3) == wanted) {
            return true;
        }
    }
    return false;
}

// The record at *at, its checksums tested; false at the end of the file.
static bool next_record(const FileBytes *file, size_t *at, const uint8_t **begin,
                        const uint8_t **end) {
    if (*at == file->size) {
        return false;
    }
    uint64_t length;
    uint32_t head, body;
    const uint8_t *p = file->data + *at;
    memcpy(&length, p, 8);
    memcpy(&head, p + 8, 4);
    EXPECT(head == tfevents_mask(crc32c(p, 8)), "checksum of the length at %zu", *at);
    CHECK(length <= file->size - *at - 16, "length %llu", (unsigned long long)length);
    memcpy(&body, p + 12 + length, 4);
    EXPECT(body == tfevents_mask(crc32c(p + 12, length)), "checksum of the data at %zu", *at);
    *begin = p + 12;
    *end = p + 12 + length;
    *at += 16 + length;
    return true;
}

static void expect_scalar(const FileBytes *file, size_t *at, int64_t step, const char *tag,
                          float value) {
    const uint8_t *p, *end, *summary, *item, *bytes;
    uint64_t number, size, item_size;
    EXPECT(next_record(file, at, &p, &end), "a record for %s", tag);
    EXPECT(field(p, end, 2, &bytes, &number) && (int64_t)number == step, "step of %s", tag);
    EXPECT(field(p, end, 5, &summary, &size), "summary");
    EXPECT(field(summary, summary + size, 1, &item, &item_size), "value");
    EXPECT(field(item, item + item_size, 1, &bytes, &number) && number == strlen(tag) &&
               memcmp(bytes, tag, number) == 0,
           "tag %s", tag);
    float got;
    EXPECT(field(item, item + item_size, 2, &bytes, &number) && number == 4, "simple_value");
    memcpy(&got, bytes, 4);
    EXPECT(got == value || (isnan(got) && isnan(value)), "%s is %g, wanted %g", tag, got, value);
}

TEST(tfevents_records) {
    char *directory = file_join_new(check_tmpdir(), "run/tb");
    TfEvents events, second;
    EXPECT(tfevents_open(&events, directory).code == EXIT_OK, "open");
    EXPECT(strstr(events.path, "/events.out.tfevents."), "%s", events.path);
    EXPECT(tfevents_open(&second, directory).code == EXIT_OK &&
               strcmp(events.path, second.path) != 0,
           "a second file in the same second");
    tfevents_close(&second);
    char long_tag[401];
    memset(long_tag, 'x', 400);
    long_tag[400] = '\0';
    tfevents_scalar(&events, 1, "train/loss", 2.5);
    tfevents_scalar(&events, 1ll << 40, long_tag, -1);
    log_set_level(LOG_ERROR);
    file_fault("write", 1, 28, false);
    tfevents_scalar(&events, 3, "lost", 1);
    file_fault(NULL, 0, 0, false);
    tfevents_scalar(&events, 0, "nan", NAN);
    EXPECT(events.dropped == 1, "dropped=%zu", events.dropped);
    FileBytes file;
    EXPECT(file_read_new(&file, events.path, 1 << 20).code == EXIT_OK, "read");
    const uint8_t *p, *end, *bytes;
    uint64_t number;
    size_t at = 0;
    EXPECT(next_record(&file, &at, &p, &end), "the first record");
    EXPECT(field(p, end, 3, &bytes, &number) && number == 13 &&
               memcmp(bytes, "brain.Event:2", 13) == 0,
           "file_version");
    double wall_time = 0;
    EXPECT(field(p, end, 1, &bytes, &number), "wall_time");
    memcpy(&wall_time, bytes, 8);
    EXPECT(wall_time > 1.5e9 && wall_time < 1e11, "wall_time %g", wall_time);
    expect_scalar(&file, &at, 1, "train/loss", 2.5f);
    expect_scalar(&file, &at, 1ll << 40, long_tag, -1);
    expect_scalar(&file, &at, 0, "nan", NAN);
    EXPECT(!next_record(&file, &at, &p, &end), "the end");
    file_bytes_free(&file);
    tfevents_close(&events);
    free(directory);
}

TEST(tfevents_cannot_create) {
    TfEvents events;
    EXPECT(tfevents_open(&events, "/dev/null/tb").code == EXIT_NO_OUTPUT, "not a directory");
    tfevents_close(&events);
}
