// dtype: storage types and their conversions; see dtype.h.
#include "dtype.h"

#include "base.h"
#if defined(__F16C__)
#include <immintrin.h>
#endif

static const char *const names[DT_COUNT] = {"f32", "bf16", "f16"};

size_t dtype_size(DType t) { return t == DT_F32 ? 4 : 2; }

const char *dtype_name(DType t) {
    CHECK(t < DT_COUNT, "t=%d", (int)t);
    return names[t];
}

int dtype_parse(const char *name) {
    for (int t = 0; t < DT_COUNT; t++) {
        if (strcmp(name, names[t]) == 0) {
            return t;
        }
    }
    return -1;
}

// ---- f16 ----
float f16_to_float_portable(f16 h) {
    const uint32_t sign = (uint32_t)(h.bits & 0x8000u) << 16;
    const uint32_t exponent = h.bits >> 10 & 31, fraction = h.bits & 1023u;
    float x;
    uint32_t bits;
    if (exponent == 0) { // zero or subnormal: fraction * 2^-24
        x = (float)fraction * 0x1p-24f;
        memcpy(&bits, &x, 4);
        bits |= sign;
    } else if (exponent == 31) { // infinity or NaN (made quiet)
        bits = sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0);
    } else {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&x, &bits, 4);
    return x;
}

f16 f16_from_float_portable(float x) {
    f16 h;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { // NaN
        h.bits = (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    } else if (magnitude >= 0x477ff000u) { // 65520 and above rounds to infinity
        h.bits = (uint16_t)(sign | 0x7c00u);
    } else if (magnitude < 0x38800000u) { // below 2^-14: subnormal, let the adder round
        float value;
        memcpy(&value, &magnitude, 4);
        const float shifted = value + 0.5f; // 0.5 has an ulp of 2^-24, the unit of f16 subnormals
        uint32_t rounded;
        memcpy(&rounded, &shifted, 4);
        h.bits = (uint16_t)(sign | (rounded - 0x3f000000u));
    } else {
        const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
        h.bits = (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
    }
    return h;
}

#if defined(__F16C__) // implies AVX
float f16_to_float(f16 h) { return _cvtsh_ss(h.bits); }

f16 f16_from_float(float x) {
    const f16 h = {(uint16_t)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)};
    return h;
}

// Eight at a time (a search reads whole indices through here); returns how many were done.
static size_t f16_widen_wide(float *out, const f16 *inp, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(inp + i))));
    }
    return i;
}

static size_t f16_narrow_wide(f16 *out, const float *inp, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128((void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(inp + i), _MM_FROUND_TO_NEAREST_INT));
    }
    return i;
}
#else
float f16_to_float(f16 h) { return f16_to_float_portable(h); }
f16 f16_from_float(float x) { return f16_from_float_portable(x); }
static size_t f16_widen_wide(float *out, const f16 *inp, size_t n) {
    (void)out, (void)inp, (void)n;
    return 0;
}
static size_t f16_narrow_wide(f16 *out, const float *inp, size_t n) {
    (void)out, (void)inp, (void)n;
    return 0;
}
#endif

// ---- elements and arrays of any type ----
float dtype_load(DType t, const void *tensor, size_t i) {
    switch (t) {
    case DT_F32: return ((const float *)tensor)[i];
    case DT_BF16: return bf16_to_float(((const bf16 *)tensor)[i]);
    case DT_F16: return f16_to_float(((const f16 *)tensor)[i]);
    default: CHECK(false, "t=%d", (int)t);
    }
}

void dtype_store(DType t, void *tensor, size_t i, float value) {
    switch (t) {
    case DT_F32: ((float *)tensor)[i] = value; break;
    case DT_BF16: ((bf16 *)tensor)[i] = bf16_from_float(value); break;
    case DT_F16: ((f16 *)tensor)[i] = f16_from_float(value); break;
    default: CHECK(false, "t=%d", (int)t);
    }
}

void dtype_widen(float *out, DType t, const void *inp, size_t n) {
    if (t == DT_F32) {
        memmove(out, inp, n * sizeof(float));
    } else if (t == DT_BF16) {
        const bf16 *h = inp;
        for (size_t i = 0; i < n; i++) {
            out[i] = bf16_to_float(h[i]);
        }
    } else {
        const f16 *h = inp;
        for (size_t i = f16_widen_wide(out, h, n); i < n; i++) {
            out[i] = f16_to_float(h[i]);
        }
    }
}

void dtype_narrow(DType t, void *out, const float *inp, size_t n) {
    if (t == DT_F32) {
        memmove(out, inp, n * sizeof(float));
    } else if (t == DT_BF16) {
        bf16 *h = out;
        for (size_t i = 0; i < n; i++) {
            h[i] = bf16_from_float(inp[i]);
        }
    } else {
        f16 *h = out;
        for (size_t i = f16_narrow_wide(h, inp, n); i < n; i++) {
            h[i] = f16_from_float(inp[i]);
        }
    }
}
