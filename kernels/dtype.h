// dtype: the storage types of tensors and the exact conversions between them.
//
// bf16 and f16 are structs, so that arithmetic on raw bits does not compile. Rounding is to
// nearest, ties to even, NaN stays NaN (quiet); f16 keeps subnormals.
#ifndef JOMED_KERNELS_DTYPE_H
#define JOMED_KERNELS_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { DT_F32, DT_BF16, DT_F16, DT_COUNT } DType;

typedef struct {
    uint16_t bits;
} bf16;
typedef struct {
    uint16_t bits;
} f16;

#ifdef __cplusplus
extern "C" {
#endif

size_t dtype_size(DType t);             // bytes of one element
const char *dtype_name(DType t);        // "f32", "bf16", "f16"
int dtype_parse(const char *name);      // DType, or -1 when the name is unknown
f16 f16_from_float(float x); // by the F16C instructions where the build has them
float f16_to_float(f16 h);
f16 f16_from_float_portable(float x); // the same in integer arithmetic
float f16_to_float_portable(f16 h);
// Element i of a tensor of type t, widened to f32; and its store, rounded once.
float dtype_load(DType t, const void *tensor, size_t i);
void dtype_store(DType t, void *tensor, size_t i, float value);
// n elements at once: out[i] = (f32) inp[i], and back with one rounding. Agreement: exact.
void dtype_widen(float *out, DType t, const void *inp, size_t n);
void dtype_narrow(DType t, void *out, const float *inp, size_t n);

#ifdef __cplusplus
}
#endif

static inline float bf16_to_float(bf16 h) {
    const uint32_t bits = (uint32_t)h.bits << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline bf16 bf16_from_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bf16 h;
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        h.bits = (uint16_t)(bits >> 16 | 0x40); // NaN: keep sign and payload, make it quiet
    } else {
        h.bits = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
    return h;
}

// Element offset into an untyped tensor.
static inline void *dtype_at(DType t, void *tensor, size_t i) {
    return (char *)tensor + i * (t == DT_F32 ? 4 : 2);
}
static inline const void *dtype_at_const(DType t, const void *tensor, size_t i) {
    return (const char *)tensor + i * (t == DT_F32 ? 4 : 2);
}
#endif
