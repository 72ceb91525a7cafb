// activation: the CPU definition; see activation.h. The functions of one element are in
// activation_parts.h.
#include "activation.h"

#include "activation_parts.h"
#include "base.h"
#include "chunk.h"

// ---- one chunk ----
// The forward throws the slopes away: they cost it a few percent, a second set of loops would cost
// the reader more.
void act_chunk(float *value, float *slope, const float *x, int n, Activation act) {
#define EACH(function)                                                                             \
    _Pragma("omp simd") for (int i = 0; i < n; i++) {                                              \
        const Act both = function(x[i]);                                                           \
        value[i] = both.value;                                                                     \
        slope[i] = both.slope;                                                                     \
    }
    switch (act) {
    case ACT_GELU: EACH(act_gelu) break;
    case ACT_GELU_TANH: EACH(act_gelu_tanh) break;
    case ACT_QUICK_GELU: EACH(act_quick_gelu) break;
    case ACT_SILU: EACH(act_silu) break;
    default: CHECK(false, "act=%d", (int)act);
    }
#undef EACH
}

// ---- the ops ----
void activation_fwd_cpu(Device *dev, DType t, void *out, const void *inp, size_t n,
                        Activation act) {
    CHECK_POINTERS(activation_fwd, out, inp);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        float x_buffer[CHUNK], y_buffer[CHUNK], slope[CHUNK];
        const int length = chunk_length(n, at);
        const float *x = chunk_in(x_buffer, t, inp, at, length);
        float *y = chunk_out(y_buffer, t, out, at);
        act_chunk(y, slope, x, length, act);
        chunk_store(t, out, at, y, length);
    }
}

void activation_bwd_cpu(Device *dev, DType t, void *dinp, const void *dout, const void *inp,
                        size_t n, Activation act) {
    CHECK_POINTERS(activation_bwd, dinp, dout, inp);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        float dy_buffer[CHUNK], x_buffer[CHUNK], dx_buffer[CHUNK], value[CHUNK], slope[CHUNK];
        const int length = chunk_length(n, at);
        const float *dy = chunk_in(dy_buffer, t, dout, at, length);
        const float *x = chunk_in(x_buffer, t, inp, at, length);
        float *dx = chunk_out(dx_buffer, t, dinp, at);
        act_chunk(value, slope, x, length, act);
#pragma omp simd
        for (int i = 0; i < length; i++) {
            dx[i] = dy[i] * slope[i];
        }
        chunk_store(t, dinp, at, dx, length);
    }
}

void gated_fwd_cpu(Device *dev, DType t, void *out, const void *gate, const void *up, size_t n,
                   Activation act) {
    CHECK_POINTERS(gated_fwd, out, gate, up);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        float g_buffer[CHUNK], u_buffer[CHUNK], y_buffer[CHUNK], value[CHUNK], slope[CHUNK];
        const int length = chunk_length(n, at);
        const float *g = chunk_in(g_buffer, t, gate, at, length);
        const float *u = chunk_in(u_buffer, t, up, at, length);
        float *y = chunk_out(y_buffer, t, out, at);
        act_chunk(value, slope, g, length, act);
#pragma omp simd
        for (int i = 0; i < length; i++) {
            y[i] = value[i] * u[i];
        }
        chunk_store(t, out, at, y, length);
    }
}

void gated_bwd_cpu(Device *dev, DType t, void *dgate, void *dup, const void *dout, const void *gate,
                   const void *up, size_t n, Activation act) {
    CHECK_POINTERS(gated_bwd, dgate, dup, dout, gate, up);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        float dy_buffer[CHUNK], g_buffer[CHUNK], u_buffer[CHUNK], value[CHUNK], slope[CHUNK];
        float dg_buffer[CHUNK], du_buffer[CHUNK];
        const int length = chunk_length(n, at);
        const float *dy = chunk_in(dy_buffer, t, dout, at, length);
        const float *g = chunk_in(g_buffer, t, gate, at, length);
        const float *u = chunk_in(u_buffer, t, up, at, length);
        float *dg = chunk_out(dg_buffer, t, dgate, at), *du = chunk_out(du_buffer, t, dup, at);
        act_chunk(value, slope, g, length, act);
#pragma omp simd
        for (int i = 0; i < length; i++) {
            const float d = dy[i]; // read before du, which may be the same place
            dg[i] = d * u[i] * slope[i];
            du[i] = d * value[i];
        }
        chunk_store(t, dgate, at, dg, length);
        chunk_store(t, dup, at, du, length);
    }
}
