// attention: softmax attention over packed sequences as plain loops, to be read beside the
// equations of attention.h. The tiled version, which computes the same bits, is in
// attention_tiled.c.
#include "attention.h"

#include <math.h>
#include <stdlib.h>

#include "attention_parts.h"
#include "base.h"
#include "lanes.h"

// Element d of head h in row n.
static float at(DType t, const void *x, int n, int stride, int h, int D, int d) {
    return dtype_load(t, x, (size_t)n * stride + (size_t)h * D + d);
}

void attention_fwd_naive(Device *dev, DType t, void *out, float *lse, const void *q, const void *k,
                         const void *v, const AttentionShape *shape) {
    (void)dev;
    check_shape(shape);
    const int H = shape->H, D = shape->D, group = H / shape->Hkv;
    float *e = xmalloc((size_t)shape->max_Tk + 1, sizeof *e);
    for (int b = 0; b < shape->B; b++) {
        const Span span = span_of(shape, b);
        for (int h = 0; h < H; h++) {
            for (int i = 0; i < span.Tq; i++) {
                const int n = visible(shape, span, i), row = span.q0 + i;
                float max = -INFINITY;
                for (int j = 0; j < n; j++) {
                    float dot = 0;
                    for (int d = 0; d < D; d++) {
                        dot = fmaf(at(t, q, row, shape->q_stride, h, D, d),
                                   at(t, k, span.k0 + j, shape->k_stride, h / group, D, d), dot);
                    }
                    e[j] = score(dot, shape->scale, slope_of(shape, h),
                                 (float)(i + span.Tk - span.Tq), j);
                    max = e[j] > max ? e[j] : max;
                }
                for (int j = 0; j < n; j++) {
                    e[j] = exp_f32(e[j] - max);
                }
                const float sum = sum16(e, n);
                for (int d = 0; d < D; d++) {
                    float o = 0;
                    for (int j = 0; j < n; j++) {
                        o = fmaf(e[j], at(t, v, span.k0 + j, shape->v_stride, h / group, D, d), o);
                    }
                    dtype_store(t, out, (size_t)row * shape->out_stride + (size_t)h * D + d,
                                n ? o / sum : 0.0f);
                }
                lse[(size_t)h * shape->Nq + row] = n ? max + log_f32(sum) : -INFINITY;
            }
        }
    }
    free(e);
}

void attention_bwd_naive(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                         const void *dout, const void *out, const float *lse, const void *q,
                         const void *k, const void *v, const AttentionShape *shape) {
    (void)dev;
    check_shape(shape);
    check_all_used(shape);
    const int H = shape->H, D = shape->D, group = H / shape->Hkv;
    const size_t kv_size = (size_t)shape->max_Tk * D + 1;
    float *dks = xmalloc(kv_size, sizeof *dks), *dvs = xmalloc(kv_size, sizeof *dvs);
    for (int b = 0; b < shape->B; b++) {
        const Span span = span_of(shape, b);
        for (int hkv = 0; hkv < shape->Hkv; hkv++) {
            for (size_t i = 0; i < (size_t)span.Tk * D; i++) {
                dks[i] = dvs[i] = 0;
            }
            for (int h = hkv * group; h < (hkv + 1) * group; h++) {
                for (int i = 0; i < span.Tq; i++) {
                    const int row = span.q0 + i;
                    float qi[MAX_D], oi[MAX_D], doi[MAX_D], dqi[MAX_D] = {0};
                    for (int d = 0; d < D; d++) {
                        qi[d] = at(t, q, row, shape->q_stride, h, D, d);
                        oi[d] = at(t, out, row, shape->out_stride, h, D, d);
                        doi[d] = at(t, dout, row, shape->out_stride, h, D, d);
                    }
                    const size_t stat = (size_t)h * shape->Nq + row;
                    delta[stat] = dot16(doi, oi, D);
                    for (int j = 0; j < visible(shape, span, i); j++) {
                        float dot = 0, dp = 0, p, ds;
                        for (int d = 0; d < D; d++) {
                            const float kd = at(t, k, span.k0 + j, shape->k_stride, hkv, D, d);
                            const float vd = at(t, v, span.k0 + j, shape->v_stride, hkv, D, d);
                            dot = fmaf(qi[d], kd, dot);
                            dp = fmaf(doi[d], vd, dp);
                        }
                        const float s = score(dot, shape->scale, slope_of(shape, h),
                                              (float)(i + span.Tk - span.Tq), j);
                        pair_backward(&p, &ds, s, lse[stat], dp, delta[stat], shape->scale);
                        for (int d = 0; d < D; d++) {
                            const size_t e = (size_t)j * D + d;
                            const float kd = at(t, k, span.k0 + j, shape->k_stride, hkv, D, d);
                            dqi[d] = fmaf(ds, kd, dqi[d]);
                            dks[e] = fmaf(ds, qi[d], dks[e]);
                            dvs[e] = fmaf(p, doi[d], dvs[e]);
                        }
                    }
                    for (int d = 0; d < D; d++) {
                        dtype_store(t, dq, (size_t)row * shape->q_stride + (size_t)h * D + d,
                                    dqi[d]);
                    }
                }
            }
            for (int j = 0; j < span.Tk; j++) {
                for (int d = 0; d < D; d++) {
                    const size_t row = (size_t)(span.k0 + j), e = (size_t)j * D + d;
                    dtype_store(t, dk, row * shape->k_stride + (size_t)hkv * D + d, dks[e]);
                    dtype_store(t, dv, row * shape->v_stride + (size_t)hkv * D + d, dvs[e]);
                }
            }
        }
    }
    free(dks);
    free(dvs);
}
