// activation: the CPU definition; see activation.h.
//
// Every activation is x G(x) with a gate G between 0 and 1: the normal distribution function for
// gelu, the logistic function of some v(x) for the others. The slope is G + x G', and one
// exponential gives both. For x < 0 the gate is small and must be exact relatively, not absolutely:
// exp(v) multiplies the rounding error of v by |v|, so v is kept in two floats, v + v_low.
//
// The functions do not branch, so that loops over them become vector code.
#include "activation.h"

#include "base.h"
#include "chunk.h"
#include "lanes.h"

// ---- one element ----
typedef struct {
    float value; // x G(x)
    float slope; // G(x) + x G'(x)
} Act;

// x between -limit and limit, where the gate is 0 or 1 in f32. NaN stays NaN.
static inline float cut(float x, float limit) {
    const float below = x > limit ? limit : x;
    return below < -limit ? -limit : below;
}

// G = 1 / (1 + exp(-v - v_low)); z is x after the cut, dv is v'(z).
static inline Act logistic_act(float x, float z, float v, float v_low, float dv) {
    const float away = -fabsf(v), away_low = v < 0 ? v_low : -v_low;
    const float e0 = exp_f32(away), e = fmaf(e0, away_low, e0);
    const float near_one = 1.0f / (1.0f + e), near_zero = e * near_one;
    const float gate = v < 0 ? near_zero : near_one;
    const Act act = {x * gate, fmaf(z * dv * near_zero, near_one, gate)};
    return act;
}

static inline Act silu(float x) {
    const float z = cut(x, 100.0f);
    return logistic_act(x, z, z, 0.0f, 1.0f);
}

static inline Act quick_gelu(float x) {
    const float K = 1.702f, K_LOW = (float)(1.702 - (double)1.702f);
    const float z = cut(x, 60.0f), v = K * z;
    return logistic_act(x, z, v, fmaf(K, z, -v) + K_LOW * z, K);
}

// v = z (K1 + K3 z^2), twice the argument of the tanh, because (1 + tanh(u)) / 2 = logistic(2u).
static inline Act gelu_tanh(float x) {
    const double EXACT1 = 1.5957691216057308; // 2 sqrt(2/pi)
    const double EXACT3 = 0.044715 * EXACT1;
    const float K1 = (float)EXACT1, K1_LOW = (float)(EXACT1 - (double)(float)EXACT1);
    const float K3 = (float)EXACT3, K3_LOW = (float)(EXACT3 - (double)(float)EXACT3);
    const float z = cut(x, 12.0f);
    const float square = z * z, square_low = fmaf(z, z, -square);
    const float cube = K3 * square, cube_low = fmaf(K3, square, -cube);
    const float sum = K1 + cube, back = sum - K1; // Knuth's two-sum: sum + sum_low = K1 + cube
    const float sum_low = (K1 - (sum - back)) + (cube - back);
    const float low = sum_low + cube_low + fmaf(K3, square_low, fmaf(K3_LOW, square, K1_LOW));
    const float v = z * sum, v_low = fmaf(z, sum, -v) + z * low;
    return logistic_act(x, z, v, v_low, fmaf(3.0f, cube, K1));
}

// G = Phi(x): exp(-x^2/2) Q(-x) for x < 0, and 1 - exp(-x^2/2) Q(x) otherwise.
//   Q(a) = t P(t - 1/2), t = 1 / (1 + 3a/8): P is the polynomial of degree 9 that fits
//   exp(a^2/2) Phi(-a) / t on [0, 13.4] with the least largest relative error, 1.0e-8.
static inline Act gelu(float x) {
    const float INV_SQRT_2PI = 0.398942280401432678f;
    const float z = cut(x, 14.0f), a = fabsf(z);
    const float square = z * z, square_low = fmaf(z, z, -square);
    const float e0 = exp_f32(-0.5f * square), e = fmaf(e0, -0.5f * square_low, e0);
    const float t = 1.0f / fmaf(0.375f, a, 1.0f), s = t - 0.5f;
    float p = 2.16952581e-2f;
    p = fmaf(p, s, -4.05525081e-2f);
    p = fmaf(p, s, -3.17157945e-3f);
    p = fmaf(p, s, 6.44850945e-2f);
    p = fmaf(p, s, -1.95018724e-2f);
    p = fmaf(p, s, -1.02599889e-1f);
    p = fmaf(p, s, 2.19361652e-2f);
    p = fmaf(p, s, 2.48707101e-1f);
    p = fmaf(p, s, 3.46108168e-1f);
    p = fmaf(p, s, 2.68182278e-1f);
    const float q = p * t, tail = q * e;
    const float gate = z < 0 ? tail : 1.0f - tail;
    // Far out the tail is subnormal although x times it is not: multiply by x first.
    const Act act = {z < 0 ? x * q * e : x * gate, fmaf(z * INV_SQRT_2PI, e, gate)};
    return act;
}

// ---- one chunk ----
// value[i] = act(x[i]), slope[i] = act'(x[i]); value may be x. The forward throws the slopes away:
// they cost it a few percent, a second set of loops would cost the reader more.
static void act_chunk(float *value, float *slope, const float *x, int n, Activation act) {
#define EACH(function)                                                                             \
    _Pragma("omp simd") for (int i = 0; i < n; i++) {                                              \
        const Act both = function(x[i]);                                                           \
        value[i] = both.value;                                                                     \
        slope[i] = both.slope;                                                                     \
    }
    switch (act) {
    case ACT_GELU: EACH(gelu) break;
    case ACT_GELU_TANH: EACH(gelu_tanh) break;
    case ACT_QUICK_GELU: EACH(quick_gelu) break;
    case ACT_SILU: EACH(silu) break;
    default: CHECK(false, "act=%d", (int)act);
    }
#undef EACH
}

// ---- the ops ----
void activation_fwd_cpu(Device *dev, DType t, void *out, const void *inp, size_t n,
                        Activation act) {
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
