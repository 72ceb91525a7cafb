// tfevents: a file that TensorBoard reads. Scalars only.
//
//   record = u64 length | u32 masked crc of the length | data | u32 masked crc of the data
//   data   = an Event in protobuf: wall_time, step, and file_version or a Summary of one value
//
// A new file per process, never appended to after a crash: readers stop for good at a torn record
// that is followed by another. A record that cannot be written whole is cut off again and counted.
// Left out: images, histograms, the newer tensor form of scalars (readers take both).
// Source: tensorflow/core/lib/io/record_writer.cc, event.proto, summary.proto.
#ifndef JOMED_HOST_TFEVENTS_H
#define JOMED_HOST_TFEVENTS_H

#include "kernels/base.h"

typedef struct {
    char *path;
    int fd;
    int64_t size; // of the whole records so far
    size_t dropped;
} TfEvents;
// Makes <directory>/events.out.tfevents.<seconds>.<host>.<pid>.<n> and its first record.
Error tfevents_open(TfEvents *events, const char *directory);
void tfevents_scalar(TfEvents *events, int64_t step, const char *tag, double value);
void tfevents_close(
    TfEvents *events); // warns when records were dropped; also fine on a zeroed struct

// CRC-32C (Castagnoli), and its mask: rotated right by 15, plus a constant, so that a checksum of
// data with checksums inside is not trivial.
uint32_t crc32c(const void *data, size_t size);
uint32_t tfevents_mask(uint32_t crc);

#endif
