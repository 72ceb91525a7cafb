// attention: softmax attention over packed sequences on the CPU; the contract is in attention.h.
//
// First the equations as loops (_naive). The fast version computes the same numbers with one routine,
// `product`: C = A B for a few rows of A, where every element of C is one chain over the inner index.
// Keys are transposed once, so that eight keys (for the scores) or eight channels (for everything
// else) fill a vector. All of it happens in tiles of one key/value head, so nothing of size (T,T) is
// kept by the forward and only a block of queries times the keys by the backward.
//
// A masked key is left out of every chain, not multiplied by zero: what a query cannot see cannot
// reach it, not even as a NaN. The cost is that rows of a register tile whose limits differ finish
// their last few keys one by one.
#include "attention.h"

#include <math.h>
#include <stdlib.h>

#include "base.h"
#include "lanes.h"
#include "scratch.h"
#include "vec8.h"

#define MAX_D 256
#define FWD_QUERIES 96 // queries per task: enough to pay for packing the keys
#define BWD_QUERIES 48 // queries per block of the backward: two blocks of (queries, keys) stay in L2
#define PARALLEL_FROM 1e6 // multiply-adds; below, waking the threads costs more than it gains

// ---- what the two versions share ----
// One sequence as one task sees it.
typedef struct {
    int q0, k0; // first rows in the packed tensors
    int Tq, Tk;
} Span;

static Span span_of(const AttentionShape *shape, int b) {
    return (Span){shape->cu_q[b], shape->cu_k[b], shape->cu_q[b + 1] - shape->cu_q[b],
                  shape->cu_k[b + 1] - shape->cu_k[b]};
}

// How many keys query i sees: always the first ones.
static int visible(const AttentionShape *shape, Span span, int i) {
    if (!shape->is_causal) {
        return span.Tk;
    }
    const int n = i + span.Tk - span.Tq + 1;
    return n < 0 ? 0 : n;
}

static float score(const AttentionShape *shape, Span span, int h, int i, int j, float dot) {
    const float slope = shape->alibi ? shape->alibi[h] : 0.0f;
    return fmaf(dot, shape->scale, -slope * fabsf((float)(i + span.Tk - span.Tq - j)));
}

static void check_shape(const AttentionShape *s) {
    CHECK(s->B >= 1 && s->H >= 1 && s->Hkv >= 1 && s->H % s->Hkv == 0 && s->D >= 1 && s->D <= MAX_D,
          "B=%d H=%d Hkv=%d D=%d", s->B, s->H, s->Hkv, s->D);
    CHECK(s->q_stride >= s->H * s->D && s->k_stride >= s->Hkv * s->D &&
              s->v_stride >= s->Hkv * s->D && s->out_stride >= s->H * s->D,
          "H=%d Hkv=%d D=%d, strides %d %d %d %d", s->H, s->Hkv, s->D, s->q_stride, s->k_stride,
          s->v_stride, s->out_stride);
}

// ---- the equations ----
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
                    e[j] = score(shape, span, h, i, j, dot);
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

// p and ds of one pair, from the two dot products of the backward.
static void pair_backward(float *p, float *ds, float s, float lse, float dp, float delta,
                          float scale) {
    *p = exp_f32(s - lse);
    *ds = *p * (dp - delta) * scale;
}

void attention_bwd_naive(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                         const void *dout, const void *out, const float *lse, const void *q,
                         const void *k, const void *v, const AttentionShape *shape) {
    (void)dev;
    check_shape(shape);
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
                            dot = fmaf(qi[d], at(t, k, span.k0 + j, shape->k_stride, hkv, D, d), dot);
                            dp = fmaf(doi[d], at(t, v, span.k0 + j, shape->v_stride, hkv, D, d), dp);
                        }
                        pair_backward(&p, &ds, score(shape, span, h, i, j, dot), lse[stat], dp,
                                      delta[stat], shape->scale);
                        for (int d = 0; d < D; d++) {
                            const size_t e = (size_t)j * D + d;
                            dqi[d] = fmaf(ds, at(t, k, span.k0 + j, shape->k_stride, hkv, D, d), dqi[d]);
                            dks[e] = fmaf(ds, qi[d], dks[e]);
                            dvs[e] = fmaf(p, doi[d], dvs[e]);
                        }
                    }
                    for (int d = 0; d < D; d++) {
                        dtype_store(t, dq, (size_t)row * shape->q_stride + (size_t)h * D + d, dqi[d]);
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

// ---- the product ----
#define ROWS 6 // register tile: 6 rows by 2 vectors are 12 of the 16 registers

// A matrix in memory: element (m,k) is at[m*row + k*col].
typedef struct {
    const float *at;
    size_t row, col;
} View;

#define INLINE static inline __attribute__((always_inline))

// C[0..rows) [0..8 vecs) (+)= A B over K steps; rows and vecs are constants where this is inlined.
INLINE void tile(float *c, size_t ldc, View a, const float *b, size_t ldb, int K, bool adds,
                 const int rows, const int vecs) {
    vec8 acc[ROWS][2];
    for (int r = 0; r < rows; r++) {
        for (int n = 0; n < vecs; n++) {
            acc[r][n] = adds ? vec8_load(c + r * ldc + n * VEC) : vec8_all(0.0f);
        }
    }
    for (int k = 0; k < K; k++) {
        vec8 bk[2];
        for (int n = 0; n < vecs; n++) {
            bk[n] = vec8_load(b + k * ldb + n * VEC);
        }
        for (int r = 0; r < rows; r++) {
            const vec8 ak = vec8_all(a.at[r * a.row + k * a.col]);
            for (int n = 0; n < vecs; n++) {
                acc[r][n] = vec8_fma(ak, bk[n], acc[r][n]);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int n = 0; n < vecs; n++) {
            vec8_store(c + r * ldc + n * VEC, acc[r][n]);
        }
    }
}

// C (rows,N) (+)= A (rows,K) B (K,N), each element one chain over k. rows <= ROWS, N % VEC == 0; B has
// its columns next to each other.
static void product(float *c, size_t ldc, View a, const float *b, size_t ldb, int rows, int N, int K,
                    bool adds) {
    for (int n = 0; n < N; n += 2 * VEC) {
        const int vecs = n + VEC < N ? 2 : 1;
#define CASE_ROWS(R)                                                                               \
    case R:                                                                                        \
        if (vecs == 2) {                                                                           \
            tile(c + n, ldc, a, b + n, ldb, K, adds, R, 2);                                        \
        } else {                                                                                   \
            tile(c + n, ldc, a, b + n, ldb, K, adds, R, 1);                                        \
        }                                                                                          \
        break
        switch (rows) {
            CASE_ROWS(1);
            CASE_ROWS(2);
            CASE_ROWS(3);
            CASE_ROWS(4);
            CASE_ROWS(5);
            CASE_ROWS(6);
        }
#undef CASE_ROWS
    }
}

// C = A B where row r of A ends after limit[r] columns (ascending): the common part at once, then each
// row's rest.
static void product_rows(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb,
                         int rows, int N, const int *limit) {
    product(c, ldc, (View){a, lda, 1}, b, ldb, rows, N, limit[0], false);
    for (int r = 1; r < rows; r++) {
        if (limit[r] > limit[0]) {
            product(c + r * ldc, ldc, (View){a + r * lda + limit[0], lda, 1}, b + limit[0] * ldb,
                    ldb, 1, N, limit[r] - limit[0], true);
        }
    }
}

// C += A^T B where column r of A begins at row first[r] (ascending) and A has K rows: each column's
// beginning, then the common part.
static void product_columns(float *c, size_t ldc, const float *a, size_t lda, const float *b,
                            size_t ldb, int columns, int N, int K, const int *first) {
    const int common = first[columns - 1];
    for (int r = 0; r < columns - 1; r++) {
        if (first[r] < common) {
            product(c + r * ldc, ldc, (View){a + r + first[r] * lda, 1, lda}, b + first[r] * ldb,
                    ldb, 1, N, common - first[r], true);
        }
    }
    product(c, ldc, (View){a + common * lda, 1, lda}, b + common * ldb, ldb, columns, N, K - common,
            true);
}

// ---- tiles in and out ----
static int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Rows of one head, widened, into rows of ld floats; the columns behind D become zero.
static void load_rows(float *to, int ld, DType t, const void *from, int first, int stride, int h,
                      int rows, int D) {
    for (int r = 0; r < rows; r++) {
        const void *row = dtype_at_const(t, from, (size_t)(first + r) * stride + (size_t)h * D);
        float *wide = to + (size_t)r * ld;
        int d = 0;
        if (t == DT_F32) { // by vectors: rows are too short for a call of memcpy each
            for (; d + VEC <= D; d += VEC) {
                vec8_store(wide + d, vec8_load((const float *)row + d));
            }
            for (; d < D; d++) {
                wide[d] = ((const float *)row)[d];
            }
        } else {
            dtype_widen(wide, t, row, (size_t)D);
        }
        for (d = D; d < ld; d++) {
            wide[d] = 0;
        }
    }
}

static void store_rows(DType t, void *to, int first, int stride, int h, const float *from, int ld,
                       int rows, int D) {
    for (int r = 0; r < rows; r++) {
        void *row = dtype_at(t, to, (size_t)(first + r) * stride + (size_t)h * D);
        const float *wide = from + (size_t)r * ld;
        if (t == DT_F32) {
            int d = 0;
            for (; d + VEC <= D; d += VEC) {
                vec8_store((float *)row + d, vec8_load(wide + d));
            }
            for (; d < D; d++) {
                ((float *)row)[d] = wide[d];
            }
        } else {
            dtype_narrow(t, row, wide, (size_t)D);
        }
    }
}

// Transposes (rows,D) of ld floats into (D,ldt); the columns behind rows become zero.
static void transpose(float *to, int ldt, const float *from, int ld, int rows, int D) {
    for (int d = 0; d < D; d++) {
        float *line = to + (size_t)d * ldt;
        for (int r = 0; r < rows; r++) {
            line[r] = from[(size_t)r * ld + d];
        }
        for (int r = rows; r < ldt; r++) {
            line[r] = 0;
        }
    }
}

// ---- forward ----
// Turns n dot products of query i, head h into scores and then exponentials; returns their sum in lane
// order. dots has room for n rounded up to VEC; what is behind n is overwritten with no meaning.
static float softmax_row(float *dots, int n, float *max, const AttentionShape *shape, Span span,
                         int h, int i) {
    const int padded = round_up(n, VEC);
    if (shape->alibi) {
        for (int j = 0; j < n; j++) {
            dots[j] = score(shape, span, h, i, j, dots[j]);
        }
    } else {
        for (int j = 0; j < padded; j++) {
            dots[j] *= shape->scale;
        }
    }
    float top = -INFINITY;
    vec8 tops = vec8_all(-INFINITY);
    int j = 0;
    for (; j + VEC <= n; j += VEC) {
        tops = vec8_max(vec8_load(dots + j), tops);
    }
    for (; j < n; j++) {
        top = dots[j] > top ? dots[j] : top;
    }
    for (int l = 0; l < VEC; l++) {
        top = tops[l] > top ? tops[l] : top;
    }
    for (j = 0; j < padded; j += VEC) {
        for (int l = 0; l < VEC; l++) {
            dots[j + l] = exp_f32(dots[j + l] - top);
        }
    }
    *max = top;
    return sum16(dots, n);
}

typedef struct {
    DType t;
    void *out;
    float *lse;
    const void *q, *k, *v;
    const AttentionShape *shape;
} Fwd;

// Queries first .. first+count-1 of one sequence, for all query heads that read key/value head hkv.
static void fwd_task(const Fwd *f, Span span, int hkv, int first, int count) {
    const AttentionShape *shape = f->shape;
    const int D = shape->D, Dp = round_up(D, VEC), group = shape->H / shape->Hkv;
    const int keys = visible(shape, span, first + count - 1), Kp = round_up(keys, VEC);
    float *kt = scratch_floats((size_t)D * Kp + (size_t)2 * Kp * Dp + (size_t)count * Dp +
                               (size_t)ROWS * (Kp + Dp));
    float *vs = kt + (size_t)D * Kp, *ks = vs + (size_t)Kp * Dp, *qs = ks + (size_t)Kp * Dp;
    float *e = qs + (size_t)count * Dp, *o = e + (size_t)ROWS * Kp;
    load_rows(ks, Dp, f->t, f->k, span.k0, shape->k_stride, hkv, keys, D);
    transpose(kt, Kp, ks, Dp, keys, D);
    load_rows(vs, Dp, f->t, f->v, span.k0, shape->v_stride, hkv, keys, D);
    for (int h = hkv * group; h < (hkv + 1) * group; h++) {
        load_rows(qs, Dp, f->t, f->q, span.q0 + first, shape->q_stride, h, count, D);
        for (int block = 0; block < count; block += ROWS) {
            const int rows = count - block < ROWS ? count - block : ROWS, i = first + block;
            int limit[ROWS];
            for (int r = 0; r < rows; r++) {
                limit[r] = visible(shape, span, i + r);
            }
            product(e, (size_t)Kp, (View){qs + (size_t)block * Dp, (size_t)Dp, 1}, kt, (size_t)Kp,
                    rows, round_up(limit[rows - 1], VEC), D, false);
            float sum[ROWS];
            for (int r = 0; r < rows; r++) {
                float max;
                sum[r] = softmax_row(e + (size_t)r * Kp, limit[r], &max, shape, span, h, i + r);
                f->lse[(size_t)h * shape->Nq + span.q0 + i + r] =
                    limit[r] ? max + log_f32(sum[r]) : -INFINITY;
            }
            product_rows(o, (size_t)Dp, e, (size_t)Kp, vs, (size_t)Dp, rows, Dp, limit);
            for (int r = 0; r < rows; r++) {
                for (int d = 0; d < Dp; d++) {
                    o[r * Dp + d] = limit[r] ? o[r * Dp + d] / sum[r] : 0.0f;
                }
            }
            store_rows(f->t, f->out, span.q0 + i, shape->out_stride, h, o, Dp, rows, D);
        }
    }
}

void attention_fwd_cpu(Device *dev, DType t, void *out, float *lse, const void *q, const void *k,
                       const void *v, const AttentionShape *shape) {
    check_shape(shape);
    const Fwd f = {t, out, lse, q, k, v, shape};
    const int parts = (shape->max_Tq + FWD_QUERIES - 1) / FWD_QUERIES;
    const double work = 2.0 * shape->Nq * shape->max_Tk * shape->H * shape->D;
#pragma omp parallel for collapse(3) schedule(dynamic) num_threads(device_threads(dev)) if (work >= PARALLEL_FROM)
    for (int b = 0; b < shape->B; b++) {
        for (int hkv = 0; hkv < shape->Hkv; hkv++) {
            for (int part = 0; part < parts; part++) {
                const Span span = span_of(shape, b);
                const int first = part * FWD_QUERIES, left = span.Tq - first;
                if (left > 0) {
                    fwd_task(&f, span, hkv, first, left < FWD_QUERIES ? left : FWD_QUERIES);
                }
            }
        }
    }
}

// ---- backward ----
typedef struct {
    DType t;
    void *dq, *dk, *dv;
    float *delta;
    const void *dout, *out;
    const float *lse;
    const void *q, *k, *v;
    const AttentionShape *shape;
} Bwd;

// The tiles of one backward task. Kp, Dp: keys and D rounded up to VEC.
typedef struct {
    float *kt, *vt;          // (D,Kp)
    float *ks, *dks, *dvs;   // (Tk,Dp); dks and dvs run over all heads of the group
    float *qs, *dos, *dqs;   // (BWD_QUERIES,Dp)
    float *p, *ds;           // (BWD_QUERIES,Kp)
    int Kp, Dp;
} BwdTiles;

static BwdTiles bwd_tiles(int Tk, int D) {
    BwdTiles x = {.Kp = round_up(Tk, VEC), .Dp = round_up(D, VEC)};
    const size_t kv = (size_t)x.Kp * x.Dp, block = (size_t)BWD_QUERIES * x.Dp;
    const size_t pairs = (size_t)BWD_QUERIES * x.Kp;
    x.kt = scratch_floats(5 * kv + 3 * block + 2 * pairs);
    x.vt = x.kt + kv;
    x.ks = x.vt + kv;
    x.dks = x.ks + kv;
    x.dvs = x.dks + kv;
    x.qs = x.dvs + kv;
    x.dos = x.qs + block;
    x.dqs = x.dos + block;
    x.p = x.dqs + block;
    x.ds = x.p + pairs;
    return x;
}

// p and ds of query i, from the products in the rows p (q k) and ds (dout v).
static void softmax_row_backward(float *p, float *ds, int n, float lse, float delta,
                                 const AttentionShape *shape, Span span, int h, int i) {
    const float scale = shape->scale;
    if (shape->alibi) {
        for (int j = 0; j < n; j++) {
            p[j] = score(shape, span, h, i, j, p[j]);
        }
    } else {
        for (int j = 0; j < n; j++) {
            p[j] *= scale;
        }
    }
    for (int j = 0; j < round_up(n, VEC); j += VEC) {
        for (int l = 0; l < VEC; l++) {
            pair_backward(p + j + l, ds + j + l, p[j + l], lse, ds[j + l], delta, scale);
        }
    }
}

// Adds to dks and dvs, and stores dq, for queries first .. first+count-1 of head h.
static void bwd_block(const Bwd *f, const BwdTiles *x, Span span, int h, int first,
                      int count) {
    const AttentionShape *shape = f->shape;
    const int D = shape->D, Dp = x->Dp, Kp = x->Kp, row = span.q0 + first;
    float *delta = f->delta + (size_t)h * shape->Nq + row;
    const float *lse = f->lse + (size_t)h * shape->Nq + row;
    load_rows(x->qs, Dp, f->t, f->q, row, shape->q_stride, h, count, D);
    load_rows(x->dos, Dp, f->t, f->dout, row, shape->out_stride, h, count, D);
    load_rows(x->dqs, Dp, f->t, f->out, row, shape->out_stride, h, count, D); // only for delta
    for (int block = 0; block < count; block += ROWS) {
        const int rows = count - block < ROWS ? count - block : ROWS;
        float *p = x->p + (size_t)block * Kp, *ds = x->ds + (size_t)block * Kp;
        const size_t at_row = (size_t)block * Dp;
        int limit[ROWS];
        for (int r = 0; r < rows; r++) {
            limit[r] = visible(shape, span, first + block + r);
            delta[block + r] = dot16(x->dos + at_row + r * Dp, x->dqs + at_row + r * Dp, D);
        }
        const int keys = round_up(limit[rows - 1], VEC);
        product(p, (size_t)Kp, (View){x->qs + at_row, (size_t)Dp, 1}, x->kt, (size_t)Kp, rows, keys,
                D, false);
        product(ds, (size_t)Kp, (View){x->dos + at_row, (size_t)Dp, 1}, x->vt, (size_t)Kp, rows,
                keys, D, false);
        for (int r = 0; r < rows; r++) {
            softmax_row_backward(p + (size_t)r * Kp, ds + (size_t)r * Kp, limit[r], lse[block + r],
                                 delta[block + r], shape, span, h, first + block + r);
        }
        product_rows(x->dqs + at_row, (size_t)Dp, ds, (size_t)Kp, x->ks, (size_t)Dp, rows, Dp, limit);
    }
    store_rows(f->t, f->dq, row, shape->q_stride, h, x->dqs, Dp, count, D);
    for (int j = 0; j < span.Tk; j += ROWS) {
        const int columns = span.Tk - j < ROWS ? span.Tk - j : ROWS;
        int start[ROWS]; // first query of the block that sees key j + r
        for (int r = 0; r < columns; r++) {
            const int i = shape->is_causal ? j + r - (span.Tk - span.Tq) - first : 0;
            start[r] = i < 0 ? 0 : i < count ? i : count;
        }
        product_columns(x->dvs + (size_t)j * Dp, (size_t)Dp, x->p + j, (size_t)Kp, x->dos, (size_t)Dp,
                        columns, Dp, count, start);
        product_columns(x->dks + (size_t)j * Dp, (size_t)Dp, x->ds + j, (size_t)Kp, x->qs, (size_t)Dp,
                        columns, Dp, count, start);
    }
}

// One key/value head of one sequence.
static void bwd_task(const Bwd *f, Span span, int hkv) {
    const AttentionShape *shape = f->shape;
    const int D = shape->D, group = shape->H / shape->Hkv;
    const BwdTiles x = bwd_tiles(span.Tk, D);
    load_rows(x.ks, x.Dp, f->t, f->v, span.k0, shape->v_stride, hkv, span.Tk, D);
    transpose(x.vt, x.Kp, x.ks, x.Dp, span.Tk, D);
    load_rows(x.ks, x.Dp, f->t, f->k, span.k0, shape->k_stride, hkv, span.Tk, D);
    transpose(x.kt, x.Kp, x.ks, x.Dp, span.Tk, D);
    for (size_t i = 0; i < (size_t)span.Tk * x.Dp; i++) {
        x.dks[i] = x.dvs[i] = 0;
    }
    for (int h = hkv * group; h < (hkv + 1) * group; h++) {
        for (int first = 0; first < span.Tq; first += BWD_QUERIES) {
            const int left = span.Tq - first;
            bwd_block(f, &x, span, h, first, left < BWD_QUERIES ? left : BWD_QUERIES);
        }
    }
    store_rows(f->t, f->dk, span.k0, shape->k_stride, hkv, x.dks, x.Dp, span.Tk, D);
    store_rows(f->t, f->dv, span.k0, shape->v_stride, hkv, x.dvs, x.Dp, span.Tk, D);
}

void attention_bwd_cpu(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                       const void *dout, const void *out, const float *lse, const void *q,
                       const void *k, const void *v, const AttentionShape *shape) {
    check_shape(shape);
    const Bwd f = {t, dq, dk, dv, delta, dout, out, lse, q, k, v, shape};
    const double work = 5.0 * shape->Nq * shape->max_Tk * shape->H * shape->D;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(device_threads(dev)) if (work >= PARALLEL_FROM)
    for (int b = 0; b < shape->B; b++) {
        for (int hkv = 0; hkv < shape->Hkv; hkv++) {
            bwd_task(&f, span_of(shape, b), hkv);
        }
    }
}
