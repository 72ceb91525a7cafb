// safetensors: named tensors in a file. Read without a copy from mapped bytes, written atomically.
//
//   u64 N, little-endian | N bytes of JSON | data
//
// The reader trusts nothing: names unique, shapes and offsets checked with overflow, tensors tile
// the data with no hole, overlap or rest. Values are not looked at: NaN may be in a file.
// Data in a file need not be aligned for its type: copy with memcpy or dtype_* on an aligned copy.
// Source: huggingface/safetensors README and tensor.rs; the rules are listed in the tests.
#ifndef JOMED_HOST_SAFETENSORS_H
#define JOMED_HOST_SAFETENSORS_H

#include "file.h"
#include "kernels/base.h"
#include "kernels/dtype.h"

// ---- element types ----
// S(enumerator, "name in the file", bits per element)
#define SAFE_TYPES(S)                                                                              \
    S(SAFE_BOOL, "BOOL", 8) S(SAFE_F4, "F4", 4) S(SAFE_F6_E2M3, "F6_E2M3", 6)                      \
    S(SAFE_F6_E3M2, "F6_E3M2", 6) S(SAFE_U8, "U8", 8) S(SAFE_I8, "I8", 8)                          \
    S(SAFE_F8_E5M2, "F8_E5M2", 8) S(SAFE_F8_E4M3, "F8_E4M3", 8) S(SAFE_F8_E8M0, "F8_E8M0", 8)      \
    S(SAFE_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8) S(SAFE_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8)                    \
    S(SAFE_I16, "I16", 16) S(SAFE_U16, "U16", 16) S(SAFE_F16, "F16", 16) S(SAFE_BF16, "BF16", 16)  \
    S(SAFE_I32, "I32", 32) S(SAFE_U32, "U32", 32) S(SAFE_F32, "F32", 32) S(SAFE_C64, "C64", 64)    \
    S(SAFE_F64, "F64", 64) S(SAFE_I64, "I64", 64) S(SAFE_U64, "U64", 64)
#define SAFE_ENUMERATOR(name, text, bits) name,
typedef enum { SAFE_TYPES(SAFE_ENUMERATOR) SAFE_TYPE_COUNT } SafeType;
#undef SAFE_ENUMERATOR
const char *safe_type_name(SafeType type);
int safe_type_bits(SafeType type);
SafeType safe_type_of(DType t);        // F32, BF16, F16
int safe_type_to_dtype(SafeType type); // DType, or -1: not one that ops know

// ---- one tensor ----
enum { SAFE_MAX_RANK = 8 };
typedef struct {
    const char *name;
    SafeType type;
    int rank; // 0: one element
    size_t shape[SAFE_MAX_RANK];
    const void *data; // row-major, little-endian; may be unaligned when it was read
    size_t bytes;     // the writer computes it
} SafeTensor;
size_t safe_count(const SafeTensor *tensor); // elements
// "F32 [2, 3]" for messages; returns out.
char *safe_describe(char out[128], const SafeTensor *tensor);

// ---- reading ----
typedef struct {
    SafeTensor *tensors; // sorted by name; their data lies in the bytes that were parsed
    int count;
    char **metadata;    // name, value, name, value ... from __metadata__
    int metadata_count; // pairs
} SafeTensors;
// data (size) must outlive *out. Error: EXIT_BAD_DATA with the byte; *out is empty then.
Error safetensors_parse_new(SafeTensors *out, const void *data, size_t size);
void safetensors_free(SafeTensors *set); // also fine on a zeroed struct
const SafeTensor *safetensors_find(const SafeTensors *set, const char *name); // NULL: not there
const char *safetensors_metadata(const SafeTensors *set, const char *name);   // NULL: not there

// A checkpoint of one or many files, mapped. path is a file, an index (*.index.json), or a
// directory with one of model.safetensors.index.json, model.safetensors,
// open_clip_model.safetensors, adapter_model.safetensors.
typedef struct {
    SafeTensors all; // of all shards, sorted by name
    FileBytes *files;
    int file_count;
} SafeStore;
// The text names the shard at fault. Shard names that leave the directory are refused; every name
// of the index must be in its shard, and no tensor beside them.
Error safestore_open_new(SafeStore *out, const char *path);
void safestore_free(SafeStore *store);

// ---- writing ----
// Replaces path (file_replace rules). Tensors go by descending element size, then by name, as the
// usual writer does; the data begins at a multiple of 64. metadata: pairs, NULL when there are none
// beside format=pt, which is always written. CHECKs names unique and non-empty.
Error safetensors_write(const char *path, const SafeTensor *tensors, int count,
                        const char *const *metadata, int metadata_count);

#endif
