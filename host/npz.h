// npz: a ZIP of .npy arrays, as numpy.savez and savez_compressed write it. Reading only.
//
// Stored or deflated members, ZIP64. Refused: encryption, several disks, overlapping or duplicate
// members. A member's size comes from its array's header and is held against the directory and the
// caller's limit before anything is allocated; then exactly that much is inflated, so a bomb costs
// nothing. Member names are keys, never paths.
// Source: PKWARE APPNOTE 6.3; numpy/lib/npyio.py.
#ifndef JOMED_HOST_NPZ_H
#define JOMED_HOST_NPZ_H

#include "kernels/base.h"
#include "npy.h"

typedef struct {
    char *name;                      // as in the archive, without ".npy"
    size_t offset, packed, unpacked; // of the local header; bytes in the file and inflated
    uint32_t crc;
    int method; // 0 stored, 8 deflated
} NpzMember;
typedef struct {
    const uint8_t *data;
    size_t size;
    NpzMember *members; // in the directory's order
    int count;
} Npz;
// data (size) must outlive *out.
Error npz_open_new(Npz *out, const void *data, size_t size);
void npz_free(Npz *archive);
bool npz_has(const Npz *archive, const char *name);
// The array called name. max_bytes limits its data (config limits.max_array_bytes): beyond it, and
// for a name that is not there, EXIT_BAD_DATA. The member's CRC is checked. Free with npy_free.
Error npz_load_new(NpyArray *out, const Npz *archive, const char *name, size_t max_bytes);

#endif
