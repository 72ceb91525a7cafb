// faiss: flat inner-product indexes as faiss stores them, in and out, with or without ids.
//
//   IxFI  int32 d | int64 n | 2 x int64 1048576 | u8 1 | int32 metric 0 | u64 n*d | f32[n*d]
//   IxM2  the same 33 bytes of header | a whole IxFI | u64 n | int64[n]   (IxMp: the older IDMap)
//
// Little-endian, no padding: rows begin at odd offsets and are copied out.
// Left out: every other index, other metrics (they would rank differently without saying so).
// Source: faiss/impl/index_write.cpp and index_read.cpp, 1.7 to 1.11.
#ifndef JOMED_HOST_FAISS_H
#define JOMED_HOST_FAISS_H

#include "file.h"
#include "kernels/base.h"

typedef struct {
    int E;               // embedding width, d of faiss
    size_t M;            // rows
    const uint8_t *rows; // (M,E) f32, unaligned
    const uint8_t *ids;  // (M) int64, unaligned, or NULL: row numbers
} FaissIndex;
// data (size) must outlive *out, which points into it. Error: EXIT_BAD_DATA with the byte.
Error faiss_parse(FaissIndex *out, const void *data, size_t size);
void faiss_rows(const FaissIndex *index, float *out, size_t first, size_t count); // out: (count,E)
int64_t faiss_id(const FaissIndex *index, size_t row);

// Writes an index row by row, so that it never stands in memory twice.
typedef struct {
    FileWriter file;
    size_t E, M, rows; // promised, and given so far
    bool has_ids;
} FaissWriter;
Error faiss_writer_open(FaissWriter *writer, const char *path, int E, size_t M, bool has_ids);
void faiss_writer_add(FaissWriter *writer, const float *rows, size_t count); // (count,E)
// ids (M), or NULL when none were promised. CHECKs that all rows came.
Error faiss_writer_commit(FaissWriter *writer, const int64_t *ids);

#endif
