// attention_tiled: softmax attention over packed sequences on the CPU; the contract is in
// attention.h, the equations as plain loops in attention.c. Here the same numbers come from the
// register tiles of matmul, a block of queries at a time, with scores held transposed:
//
//     S^T = K Q^T      (keys, queries); keys are read where they lie, only the queries are turned
//     max, exp, sum    down the columns: a vector is eight queries, so nothing is summed across it
//     out = (S^T)^T V  matmul's tile reads its left side in any direction
//
// and in the same way dP^T = V dout^T, dQ = (dS^T)^T K, dK += dS^T Q, dV += P^T dout. Nothing of
// size (T,T) is kept, only (keys, block).
//
// A masked key is left out of every chain, not multiplied by zero: what a query cannot see cannot
// reach it, not even as a NaN. The cost is that the rows of a tile whose limits differ finish their
// last few keys one by one.
#include "attention.h"

#include <math.h>
#include <string.h>

#include "attention_parts.h"
#include "lanes.h"
#include "matmul_kernel.h"
#include "scratch.h"

#define QUERIES       96  // of a block: whole tiles and panels of both kernels' sizes
#define TASK_QUERIES  288 // of a forward task: enough to pay for packing the values
#define GROUP         8   // columns of S^T treated together: a vector, or half of one
#define MAX_COLUMNS   (QUERIES + MATMUL_MAX_COLUMNS)
#define PARALLEL_FROM 1e6 // multiply-adds; below, waking the threads costs more than it gains

// ---- products ----
// A matrix in memory: element (m,k) is at[m*row + k*col].
typedef struct {
    const float *at;
    size_t row, col;
} View;

// The right side of a product, (depth, columns): panels of kernel->columns columns one after the
// other, `panel` elements each, columns behind the last zero. Packed even where the tile could read
// the tensor itself: rows of all heads lie so far apart that they would push each other out of L1.
typedef struct {
    const float *at;
    size_t panel;
} Panels;

static int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
static int min_int(int a, int b) { return a < b ? a : b; }

// Steps begin .. end-1 of C (rows,columns) = A B, rows at most a tile's; C starts from zero, or
// from what it holds.
static void product(const MatmulKernel *kernel, float *c, size_t ldc, View a, Panels b, int rows,
                    int columns, int begin, int end, bool adds) {
    static const float zeros[MATMUL_MAX_COLUMNS];
    const size_t width = (size_t)kernel->columns;
    for (int n = 0; n < columns; n += kernel->columns, b.at += b.panel) {
        if (begin < end) {
            kernel->tile(rows, end - begin, a.at + begin * a.col, a.row, a.col,
                         b.at + begin * width, width, adds ? c + n : zeros, adds ? ldc : 0, c + n,
                         ldc);
        } else if (!adds) {
            for (int r = 0; r < rows; r++) {
                memset(c + r * ldc + n, 0, width * sizeof *c);
            }
        }
    }
}

// C (rows,columns) = A B where row r takes part in the first limit[r] steps only.
static void product_until(const MatmulKernel *kernel, float *c, size_t ldc, View a, Panels b,
                          int rows, int columns, const int *limit) {
    for (int r0 = 0; r0 < rows; r0 += kernel->rows) {
        const int height = min_int(kernel->rows, rows - r0);
        int common = limit[r0];
        for (int r = 1; r < height; r++) {
            common = min_int(common, limit[r0 + r]);
        }
        const View tile = {a.at + r0 * a.row, a.row, a.col};
        product(kernel, c + r0 * ldc, ldc, tile, b, height, columns, 0, common, false);
        for (int r = r0; r < r0 + height; r++) {
            if (limit[r] > common) {
                const View row = {a.at + r * a.row, a.row, a.col};
                product(kernel, c + r * ldc, ldc, row, b, 1, columns, common, limit[r], true);
            }
        }
    }
}

// C (rows,columns) += A B over `depth` steps; row r takes part in those with limit[step] > r, and
// as limits ascend, it begins late.
static void product_from(const MatmulKernel *kernel, float *c, size_t ldc, View a, Panels b,
                         int rows, int columns, int depth, const int *limit) {
    int common = 0; // the first step that all rows up to r take part in
    for (int r0 = 0; r0 < rows; r0 += kernel->rows) {
        const int height = min_int(kernel->rows, rows - r0);
        int start[MATMUL_MAX_ROWS];
        for (int r = 0; r < height; r++) {
            while (common < depth && limit[common] <= r0 + r) {
                common++;
            }
            start[r] = common;
        }
        for (int r = 0; r < height; r++) {
            if (start[r] < common) {
                const View row = {a.at + (r0 + r) * a.row, a.row, a.col};
                product(kernel, c + (r0 + r) * ldc, ldc, row, b, 1, columns, start[r], common,
                        true);
            }
        }
        const View tile = {a.at + r0 * a.row, a.row, a.col};
        product(kernel, c + r0 * ldc, ldc, tile, b, height, columns, common, depth, true);
    }
}

// ---- tiles in and out ----
// One head of some rows of a packed tensor.
typedef struct {
    DType t;
    const void *at; // the head in the first row
    size_t stride;
} Rows;

static Rows rows_of(DType t, const void *x, int first, int stride, int h, int D) {
    return (Rows){t, dtype_at_const(t, x, (size_t)first * stride + (size_t)h * D), (size_t)stride};
}

// n floats, eight at a time: rows are so short that a call of memcpy would cost more than the copy.
static inline void copy_short(float *__restrict__ to, const float *__restrict__ from, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(to + i, from + i, 8 * sizeof *to);
    }
    for (; i < n; i++) {
        to[i] = from[i];
    }
}

// Row r as f32: where it is, or widened into buffer (D).
static const float *row_f32(float *buffer, Rows rows, int r, int D) {
    const void *at = dtype_at_const(rows.t, rows.at, (size_t)r * rows.stride);
    if (rows.t == DT_F32) {
        return at;
    }
    dtype_widen(buffer, rows.t, at, (size_t)D);
    return buffer;
}

// Elements from .. from+n-1 of row r.
static void widen(float *to, Rows rows, int r, int from, int n) {
    const void *at = dtype_at_const(rows.t, rows.at, (size_t)r * rows.stride + from);
    if (rows.t == DT_F32) {
        copy_short(to, at, n);
    } else {
        dtype_widen(to, rows.t, at, (size_t)n);
    }
}

// The rows as the left side of a product: where they are, or widened into buffer (count,D).
static View left_side(float *buffer, Rows rows, int count, int D) {
    if (rows.t == DT_F32) {
        return (View){rows.at, rows.stride, 1};
    }
    for (int r = 0; r < count; r++) {
        widen(buffer + (size_t)r * D, rows, r, 0, D);
    }
    return (View){buffer, (size_t)D, 1};
}

// The rows as the right side, (count,D), in buffer (D rounded up to panels, count).
static Panels right_side(const MatmulKernel *kernel, float *buffer, Rows rows, int count, int D) {
    const int width = kernel->columns;
    const Panels panels = {buffer, (size_t)count * width};
    for (int d = 0; d < D; d += width, buffer += panels.panel) {
        const int n = min_int(width, D - d);
        for (int r = 0; r < count; r++) {
            float *row = buffer + (size_t)r * width;
            widen(row, rows, r, d, n);
            for (int i = n; i < width; i++) {
                row[i] = 0;
            }
        }
    }
    return panels;
}

// Column c of the transposed right side (D,count) from row r.
static void turn_row(const MatmulKernel *kernel, float *buffer, Rows rows, int r, int c, int D) {
    const int width = kernel->columns;
    float wide[MAX_D];
    const float *row = row_f32(wide, rows, r, D);
    float *column = buffer + (size_t)(c / width) * D * width + c % width;
    for (int d = 0; d < D; d++) {
        column[(size_t)d * width] = row[d];
    }
}

// Columns c .. c+count-1, at most one panel's, from rows r on. A panel that is not full starts as
// zeros when its first column comes.
static void turn_rows(const MatmulKernel *kernel, float *buffer, Rows rows, int r, int c, int count,
                      int D) {
    const int width = kernel->columns;
    float *panel = buffer + (size_t)c * D;
    if (count == width && rows.t == DT_F32) {
        kernel->panel(panel, (const float *)rows.at + r * rows.stride, rows.stride, D);
        return;
    }
    if (c % width == 0 && count < width) {
        memset(panel, 0, (size_t)D * width * sizeof *panel);
    }
    for (int i = 0; i < count; i++) {
        turn_row(kernel, buffer, rows, r + i, c + i, D);
    }
}

// to[d] = from[d] / divisor, rounded to the tensor.
static void store_row(DType t, void *to, int row, int stride, int h, int D, const float *from,
                      float divisor) {
    float buffer[MAX_D];
    void *at = dtype_at(t, to, (size_t)row * stride + (size_t)h * D);
    float *wide = t == DT_F32 ? at : buffer;
    for (int d = 0; d < D; d++) {
        wide[d] = from[d] / divisor;
    }
    if (t != DT_F32) {
        dtype_narrow(t, at, wide, (size_t)D);
    }
}

// ---- a block of queries ----
// Queries of one sequence, the columns of S^T. What is behind count repeats the last one.
typedef struct {
    int count, padded;               // padded: to whole panels
    int head[QUERIES], row[QUERIES]; // where a query comes from and its results go
    int limit[MAX_COLUMNS];          // how many keys it sees
    float position[MAX_COLUMNS], slope[MAX_COLUMNS];
} Block;

// Queries x .. x+count-1 of the list that has, head after head from h on, `per_head` queries from
// query `first` on.
static void block_init(Block *block, const AttentionShape *shape, Span span, int h, int first,
                       int per_head, int x, int count, int width) {
    block->count = count;
    block->padded = round_up(count, width);
    int i = x;
    for (; i >= per_head; i -= per_head) {
        h++;
    }
    for (int c = 0; c < block->padded; c++) {
        if (c < count) {
            block->head[c] = h;
            block->row[c] = span.q0 + first + i;
        }
        block->limit[c] = visible(shape, span, first + i);
        block->position[c] = (float)(first + i + span.Tk - span.Tq);
        block->slope[c] = slope_of(shape, h);
        if (c + 1 < count && ++i == per_head) {
            i = 0;
            h++;
        }
    }
}

// How many keys the queries of a group see at most.
static int columns_limit(const Block *block, int first, int count) {
    int most = 0;
    for (int c = first; c < first + count; c++) {
        most = block->limit[c] > most ? block->limit[c] : most;
    }
    return most;
}

// dots (keys, ld) = left right^T for all keys that the queries of each panel see.
static void dot_products(const MatmulKernel *kernel, float *dots, size_t ld, const Block *block,
                         View left, const float *turned, int D) {
    for (int c = 0; c < block->padded; c += kernel->columns) {
        const Panels right = {turned + (size_t)c * D, 0};
        const int keys = columns_limit(block, c, kernel->columns);
        for (int j = 0; j < keys; j += kernel->rows) {
            const View rows = {left.at + j * left.row, left.row, left.col};
            product(kernel, dots + j * ld + c, ld, rows, right, min_int(kernel->rows, keys - j),
                    kernel->columns, 0, D, false);
        }
    }
}

// ---- forward ----
// Turns one group of columns from dot products into exponentials, with their maximum and their sum.
// Row j works on lane j mod 16 of either, so no step waits for the one before it.
static void softmax_group(float *__restrict__ e, size_t ld, int keys, const Block *block, int group,
                          float scale, float *__restrict__ max, float *__restrict__ sum) {
    const int *limit = block->limit + group;
    const float *position = block->position + group, *slope = block->slope + group;
    float lane[LANES * GROUP];
    for (int c = 0; c < LANES * GROUP; c++) {
        lane[c] = -INFINITY;
    }
    for (int j = 0; j < keys; j++) {
        float *row = e + j * ld, *top = lane + j % LANES * GROUP;
#pragma omp simd
        for (int c = 0; c < GROUP; c++) {
            const float s = score(row[c], scale, slope[c], position[c], j);
            row[c] = j < limit[c] ? s : -INFINITY;
            top[c] = row[c] > top[c] ? row[c] : top[c];
        }
    }
    for (int width = LANES / 2; width >= 1; width /= 2) {
        for (int c = 0; c < width * GROUP; c++) {
            lane[c] = lane[c + width * GROUP] > lane[c] ? lane[c + width * GROUP] : lane[c];
        }
    }
    memcpy(max, lane, GROUP * sizeof *max);
    for (int c = 0; c < LANES * GROUP; c++) {
        lane[c] = 0;
    }
    for (int j = 0; j < keys; j++) {
        float *row = e + j * ld, *to = lane + j % LANES * GROUP;
        for (int c = 0; c < GROUP; c++) {
            row[c] = exp_f32(row[c] - max[c]); // 0 where masked
            to[c] += row[c];
        }
    }
    for (int width = LANES / 2; width >= 1; width /= 2) { // the order of lanes_halve
        for (int c = 0; c < width * GROUP; c++) {
            lane[c] += lane[c + width * GROUP];
        }
    }
    memcpy(sum, lane, GROUP * sizeof *sum);
}

typedef struct {
    DType t;
    void *out;
    float *lse;
    const void *q, *k, *v;
    const AttentionShape *shape;
} Fwd;

// The tiles of one forward task; keys: as many as any of its queries sees.
typedef struct {
    float *k, *v, *turned, *e, *o;
    size_t ld, Dp;
} FwdTiles;

static FwdTiles fwd_tiles(int keys, int D, int width) {
    FwdTiles x = {.ld = (size_t)round_up(QUERIES, width), .Dp = (size_t)round_up(D, width)};
    x.k = scratch_floats((size_t)keys * (D + x.Dp + x.ld) + x.ld * (D + x.Dp));
    x.v = x.k + (size_t)keys * D;
    x.turned = x.v + (size_t)keys * x.Dp;
    x.e = x.turned + x.ld * D;
    x.o = x.e + (size_t)keys * x.ld;
    return x;
}

// Queries first .. first+count-1 of one sequence, for all query heads that read key/value head hkv.
static void fwd_task(const Fwd *f, Span span, int hkv, int first, int count) {
    const AttentionShape *shape = f->shape;
    const MatmulKernel *kernel = matmul_kernels()[0];
    const int D = shape->D, group = shape->H / shape->Hkv;
    const int keys = visible(shape, span, first + count - 1);
    const FwdTiles x = fwd_tiles(keys, D, kernel->columns);
    const View k = left_side(x.k, rows_of(f->t, f->k, span.k0, shape->k_stride, hkv, D), keys, D);
    const Panels v =
        right_side(kernel, x.v, rows_of(f->t, f->v, span.k0, shape->v_stride, hkv, D), keys, D);
    const int total = group * count;
    Block block;
    for (int x0 = 0; x0 < total; x0 += QUERIES) {
        block_init(&block, shape, span, hkv * group, first, count, x0, min_int(QUERIES, total - x0),
                   kernel->columns);
        for (int c = 0, n; c < block.count; c += n) { // a run of one head, at most to a panel's end
            const int room = min_int(kernel->columns - c % kernel->columns, block.count - c);
            for (n = 1; n < room && block.head[c + n] == block.head[c]; n++) {
            }
            turn_rows(kernel, x.turned,
                      rows_of(f->t, f->q, block.row[c], shape->q_stride, block.head[c], D), 0, c, n,
                      D);
        }
        dot_products(kernel, x.e, x.ld, &block, k, x.turned, D);
        float max[MAX_COLUMNS], sum[MAX_COLUMNS];
        for (int c = 0; c < block.count; c += GROUP) {
            softmax_group(x.e + c, x.ld, columns_limit(&block, c, GROUP), &block, c, shape->scale,
                          max + c, sum + c);
        }
        product_until(kernel, x.o, x.Dp, (View){x.e, 1, x.ld}, v, block.count, (int)x.Dp,
                      block.limit);
        for (int c = 0; c < block.count; c++) {
            f->lse[(size_t)block.head[c] * shape->Nq + block.row[c]] =
                block.limit[c] ? max[c] + log_f32(sum[c]) : -INFINITY;
        }
        for (int c = 0; c < block.count; c++) {
            store_row(f->t, f->out, block.row[c], shape->out_stride, block.head[c], D,
                      x.o + c * x.Dp,
                      block.limit[c] ? sum[c] : 1.0f); // a blind query's row is zero
        }
    }
}

void attention_fwd_cpu(Device *dev, DType t, void *out, float *lse, const void *q, const void *k,
                       const void *v, const AttentionShape *shape) {
    CHECK_POINTERS(attention_fwd, out, lse, q, k, v, shape);
    check_shape(shape);
    const Fwd f = {t, out, lse, q, k, v, shape};
    const double work = 2.0 * shape->Nq * shape->max_Tk * shape->H * shape->D;
    const int threads = work < PARALLEL_FROM ? 1 : device_threads(dev);
#pragma omp parallel for collapse(3) schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int b = 0; b < shape->B; b++) {
        for (int hkv = 0; hkv < shape->Hkv; hkv++) {
            for (int first = 0; first < shape->max_Tq; first += TASK_QUERIES) {
                const Span span = span_of(shape, b);
                if (first < span.Tq) {
                    fwd_task(&f, span, hkv, first, min_int(TASK_QUERIES, span.Tq - first));
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

// The tiles of one backward task.
typedef struct {
    float *k, *v, *k_right;   // (Tk,D) where not f32 already; (Tk,Dp) by panels
    float *dk, *dv;           // (Tk,Dp), over all heads of the group
    float *turned, *q, *dout; // the block: (D,ld) by panels; (QUERIES,Dp) by panels
    float *dq;                // (QUERIES,Dp)
    float *p, *ds;            // (Tk,ld)
    size_t ld, Dp;
} BwdTiles;

static BwdTiles bwd_tiles(int Tk, int D, int width) {
    BwdTiles x = {.ld = (size_t)round_up(QUERIES, width), .Dp = (size_t)round_up(D, width)};
    const size_t left = (size_t)Tk * D, right = (size_t)Tk * x.Dp, block = x.ld * x.Dp;
    x.k = scratch_floats(2 * left + 3 * right + 4 * block + 2 * Tk * x.ld);
    x.v = x.k + left;
    x.k_right = x.v + left;
    x.dk = x.k_right + right;
    x.dv = x.dk + right;
    x.turned = x.dv + right;
    x.q = x.turned + block;
    x.dout = x.q + block;
    x.dq = x.dout + block;
    x.p = x.dq + block;
    x.ds = x.p + Tk * x.ld;
    return x;
}

// One group of columns: p and ds from the dot products that they hold (q k, dout v).
static void softmax_group_backward(float *__restrict__ p, float *__restrict__ ds, size_t ld,
                                   int keys, const Block *block, int group, float scale,
                                   const float *__restrict__ lse, const float *__restrict__ delta) {
    const float *position = block->position + group, *slope = block->slope + group;
    for (int j = 0; j < keys; j++) {
        for (int c = 0; c < GROUP; c++) {
            const size_t at = j * ld + c;
            const float s = score(p[at], scale, slope[c], position[c], j);
            pair_backward(&p[at], &ds[at], s, lse[c], ds[at], delta[c], scale);
        }
    }
}

// Adds to dk and dv, and stores dq, for `count` queries of head h from query `first` on.
static void bwd_block(const Bwd *f, const BwdTiles *x, Span span, View k, View v, Panels k_right,
                      int h, int first, int count) {
    const AttentionShape *shape = f->shape;
    const MatmulKernel *kernel = matmul_kernels()[0];
    const int D = shape->D, row = span.q0 + first;
    const Rows q = rows_of(f->t, f->q, row, shape->q_stride, h, D);
    const Rows dout = rows_of(f->t, f->dout, row, shape->out_stride, h, D);
    const Rows out = rows_of(f->t, f->out, row, shape->out_stride, h, D);
    Block block;
    block_init(&block, shape, span, h, first, count, 0, count, kernel->columns);
    float lse[MAX_COLUMNS], delta[MAX_COLUMNS];
    for (int c = 0; c < round_up(count, GROUP); c++) {
        float a[MAX_D], b[MAX_D];
        const int r = min_int(c, count - 1);
        const size_t stat = (size_t)h * shape->Nq + row + r;
        delta[c] = c < count ? dot16(row_f32(a, dout, c, D), row_f32(b, out, c, D), D) : delta[r];
        f->delta[stat] = delta[c];
        lse[c] = f->lse[stat];
    }
    for (int c = 0; c < count; c += kernel->columns) {
        turn_rows(kernel, x->turned, q, c, c, min_int(kernel->columns, count - c), D);
    }
    dot_products(kernel, x->p, x->ld, &block, k, x->turned, D);
    for (int c = 0; c < count; c += kernel->columns) {
        turn_rows(kernel, x->turned, dout, c, c, min_int(kernel->columns, count - c), D);
    }
    dot_products(kernel, x->ds, x->ld, &block, v, x->turned, D);
    for (int c = 0; c < count; c += GROUP) {
        softmax_group_backward(x->p + c, x->ds + c, x->ld, columns_limit(&block, c, GROUP), &block,
                               c, shape->scale, lse + c, delta + c);
    }
    product_until(kernel, x->dq, x->Dp, (View){x->ds, 1, x->ld}, k_right, count, (int)x->Dp,
                  block.limit);
    for (int c = 0; c < count; c++) {
        store_row(f->t, f->dq, row + c, shape->q_stride, h, D, x->dq + c * x->Dp, 1.0f);
    }
    const Panels q_right = right_side(kernel, x->q, q, count, D);
    const Panels dout_right = right_side(kernel, x->dout, dout, count, D);
    product_from(kernel, x->dv, x->Dp, (View){x->p, x->ld, 1}, dout_right, span.Tk, (int)x->Dp,
                 count, block.limit);
    product_from(kernel, x->dk, x->Dp, (View){x->ds, x->ld, 1}, q_right, span.Tk, (int)x->Dp, count,
                 block.limit);
}

// One key/value head of one sequence.
static void bwd_task(const Bwd *f, Span span, int hkv) {
    const AttentionShape *shape = f->shape;
    const MatmulKernel *kernel = matmul_kernels()[0];
    const int D = shape->D, group = shape->H / shape->Hkv;
    const BwdTiles x = bwd_tiles(span.Tk, D, kernel->columns);
    const Rows k_rows = rows_of(f->t, f->k, span.k0, shape->k_stride, hkv, D);
    const View k = left_side(x.k, k_rows, span.Tk, D);
    const View v =
        left_side(x.v, rows_of(f->t, f->v, span.k0, shape->v_stride, hkv, D), span.Tk, D);
    const Panels k_right = right_side(kernel, x.k_right, k_rows, span.Tk, D);
    memset(x.dk, 0, (size_t)span.Tk * x.Dp * sizeof(float));
    memset(x.dv, 0, (size_t)span.Tk * x.Dp * sizeof(float));
    for (int h = hkv * group; h < (hkv + 1) * group; h++) {
        for (int first = 0; first < span.Tq; first += QUERIES) {
            bwd_block(f, &x, span, k, v, k_right, h, first, min_int(QUERIES, span.Tq - first));
        }
    }
    for (int j = 0; j < span.Tk; j++) {
        store_row(f->t, f->dk, span.k0 + j, shape->k_stride, hkv, D, x.dk + j * x.Dp, 1.0f);
        store_row(f->t, f->dv, span.k0 + j, shape->v_stride, hkv, D, x.dv + j * x.Dp, 1.0f);
    }
}

void attention_bwd_cpu(Device *dev, DType t, void *dq, void *dk, void *dv, float *delta,
                       const void *dout, const void *out, const float *lse, const void *q,
                       const void *k, const void *v, const AttentionShape *shape) {
    CHECK_POINTERS(attention_bwd, dq, dk, dv, delta, dout, out, lse, q, k, v, shape);
    check_shape(shape);
    check_all_used(shape);
    const Bwd f = {t, dq, dk, dv, delta, dout, out, lse, q, k, v, shape};
    const double work = 5.0 * shape->Nq * shape->max_Tk * shape->H * shape->D;
    const int threads = work < PARALLEL_FROM ? 1 : device_threads(dev);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int b = 0; b < shape->B; b++) {
        for (int hkv = 0; hkv < shape->Hkv; hkv++) {
            bwd_task(&f, span_of(shape, b), hkv);
        }
    }
}
