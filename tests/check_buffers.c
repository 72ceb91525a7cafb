// check_buffers: device buffers between guard bands, for the test harness; see check.h.
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

#define GUARD 64 // bytes of 0xA5 on each side of a buffer

// ---- guard bands ----
// Allocates bytes between two guard bands; returns the payload, *block the whole.
static void *guarded_new(size_t bytes, void **block) {
    Device *dev = check_device();
    char *base = device_alloc(dev, bytes + 256 + GUARD, "test buffer");
    char *host = malloc(bytes + 256 + GUARD);
    memset(host, 0xA5, bytes + 256 + GUARD);
    device_copy_in(dev, base, host, bytes + 256 + GUARD);
    free(host);
    *block = base;
    return base + 256;
}

static void guarded_check(const void *block, size_t bytes) {
    uint8_t guard[GUARD];
    const char *const sides[2] = {(const char *)block + 256 - GUARD,
                                  (const char *)block + 256 + bytes};
    for (int side = 0; side < 2; side++) {
        device_copy_out(check_device(), guard, sides[side], GUARD);
        for (int i = 0; i < GUARD; i++) {
            EXPECT(guard[i] == 0xA5, "stray write %s the buffer, byte %d",
                   side ? "behind" : "before", i);
        }
    }
}

// ---- elements ----
static Buf buf_new(DType t, size_t n) {
    Buf buf = {.t = t, .n = n};
    buf.dev = guarded_new(n * dtype_size(t), &buf.block);
    buf.host = malloc((n + 1) * sizeof(double));
    return buf;
}

void buf_write(Buf *buf) {
    void *packed = malloc((buf->n + 1) * dtype_size(buf->t));
    for (size_t i = 0; i < buf->n; i++) {
        dtype_store(buf->t, packed, i, (float)buf->host[i]);
        buf->host[i] = dtype_load(buf->t, packed, i);
    }
    device_copy_in(check_device(), buf->dev, packed, buf->n * dtype_size(buf->t));
    free(packed);
}

Buf buf_normal(DType t, size_t n, double sd, Rng *rng) {
    Buf buf = buf_new(t, n);
    for (size_t i = 0; i < n; i++) {
        buf.host[i] = sd * rng_normal(rng);
    }
    buf_write(&buf);
    return buf;
}

Buf buf_from(DType t, const double *values, size_t n) {
    Buf buf = buf_new(t, n);
    memcpy(buf.host, values, n * sizeof(double));
    buf_write(&buf);
    return buf;
}

Buf buf_fill(DType t, size_t n, double value) {
    Buf buf = buf_new(t, n);
    for (size_t i = 0; i < n; i++) {
        buf.host[i] = value;
    }
    buf_write(&buf);
    return buf;
}

const double *buf_read(Buf *buf) {
    void *packed = malloc((buf->n + 1) * dtype_size(buf->t));
    device_copy_out(check_device(), packed, buf->dev, buf->n * dtype_size(buf->t));
    for (size_t i = 0; i < buf->n; i++) {
        buf->host[i] = dtype_load(buf->t, packed, i);
    }
    free(packed);
    guarded_check(buf->block, buf->n * dtype_size(buf->t));
    return buf->host;
}

float *buf_f32(Buf *buf) {
    CHECK(buf->t == DT_F32, "type %s", dtype_name(buf->t));
    return buf->dev;
}

void buf_free(Buf *buf) {
    device_release(check_device(), buf->block);
    free(buf->host);
    *buf = (Buf){0};
}

// ---- integers ----
IntBuf ibuf_from(const int32_t *values, size_t n) {
    IntBuf buf = {.n = n};
    buf.dev = guarded_new(n * sizeof(int32_t), &buf.block);
    buf.host = malloc((n + 1) * sizeof(int32_t));
    memcpy(buf.host, values, n * sizeof(int32_t));
    device_copy_in(check_device(), buf.dev, values, n * sizeof(int32_t));
    return buf;
}

IntBuf ibuf_fill(size_t n, int32_t value) {
    int32_t *values = malloc((n + 1) * sizeof(int32_t));
    for (size_t i = 0; i < n; i++) {
        values[i] = value;
    }
    IntBuf buf = ibuf_from(values, n);
    free(values);
    return buf;
}

const int32_t *ibuf_read(IntBuf *buf) {
    device_copy_out(check_device(), buf->host, buf->dev, buf->n * sizeof(int32_t));
    guarded_check(buf->block, buf->n * sizeof(int32_t));
    return buf->host;
}

void ibuf_free(IntBuf *buf) {
    device_release(check_device(), buf->block);
    free(buf->host);
    *buf = (IntBuf){0};
}
