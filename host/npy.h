// npy: one NumPy array in a file or in memory, in and out.
//
// Read: |u1 |i1 |b1 <u2 <i2 <i4 <i8 <f2 <f4 <f8 in C order, versions 1 to 3. Refused with their
// name: objects (pickle), texts, structured types, other byte orders, Fortran order. The header is
// read by a grammar of its own, no evaluator; sizes are checked with overflow and held against the
// data.
// Source: numpy/lib/format.py (NEP 1).
#ifndef JOMED_HOST_NPY_H
#define JOMED_HOST_NPY_H

#include "kernels/base.h"

// N(enumerator, "descr", bytes)
#define NPY_TYPES(N)                                                                               \
    N(NPY_U1, "|u1", 1) N(NPY_I1, "|i1", 1) N(NPY_BOOL, "|b1", 1) N(NPY_U2, "<u2", 2)              \
    N(NPY_I2, "<i2", 2) N(NPY_I4, "<i4", 4) N(NPY_I8, "<i8", 8) N(NPY_F2, "<f2", 2)                \
    N(NPY_F4, "<f4", 4) N(NPY_F8, "<f8", 8)
#define NPY_ENUMERATOR(name, descr, size) name,
typedef enum { NPY_TYPES(NPY_ENUMERATOR) NPY_TYPE_COUNT } NpyType;
#undef NPY_ENUMERATOR

enum { NPY_MAX_RANK = 8 };
typedef struct {
    NpyType type;
    int rank;
    size_t shape[NPY_MAX_RANK];
    size_t count, bytes; // elements, and bytes of data
    const uint8_t *data; // row-major; perhaps unaligned
    uint8_t *owned;      // what npy_free frees, or NULL
} NpyArray;
const char *npy_type_name(NpyType type);            // "<f4"
double npy_number(const NpyArray *array, size_t i); // element i; i8 beyond 2^53 is rounded
void npy_free(NpyArray *array);                     // also fine on a zeroed struct

// Error: EXIT_BAD_DATA with the byte. data (size) must outlive *out, which points into it.
Error npy_parse(NpyArray *out, const void *data, size_t size);
// Replaces path by the array.
Error npy_write(const char *path, NpyType type, int rank, const size_t *shape, const void *data);

// ---- the header alone, for readers that have the data elsewhere (npz) ----
enum { NPY_HEAD_BYTES = 12 }; // enough for npy_header_extent
// From the first bytes of a .npy: where the header's text begins and how long it is.
Error npy_header_extent(const uint8_t *head, size_t size, size_t *begin, size_t *length);
// Fills type, rank, shape, count, bytes from the text; place is put into the Error.
Error npy_header_parse(NpyArray *out, const char *text, size_t size, size_t place);

#endif
