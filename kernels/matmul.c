// matmul: the linear layer and its gradients on the CPU; see matmul.h.
//
// All three are C[i,j] = start[i,j] + sum_l A[i,l] B[l,j] with other strides (Product below):
//
//   product      C                 A                B                     reduction l
//   fwd          out (M,N)         inp (M,K)        weight' (K,N)         k
//   bwd_input    dinp (M,K)        dout (M,N)       weight (N,K)          n
//   bwd_weight   dweight (N,K)     dout' (N,M)      inp (M,K)             m
//
// After Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication": B is cut
// into panels as wide as a register tile, stored l after l; a panel DEPTH long stays in the first
// cache while the rows of A pass by, a block of A in the second. What differs from there: the sum
// over l is never divided, only interrupted (a tile's f32 partial sums are stored and taken up
// again), so that every element is the chain of the contract; and each thread packs the panels it
// needs for itself, in its own scratch, so that threads never wait for each other inside a product.
// An adapter's terms are a second pair of factors, over which the same chains go on; what follows
// the sum (matmul_epilogue.h) is done to a block of C as soon as it is complete.
//
// Left out: B packed once for all threads, and any use of tensor units of the CPU.
#include "matmul.h"

#include <math.h>

#include "base.h"
#include "matmul_epilogue.h"
#include "matmul_kernel.h"
#include "scratch.h"

static void check_sizes(int M, int N, int K) {
    CHECK(M >= 1 && N >= 1 && K >= 1, "M=%d N=%d K=%d", M, N, K);
}

// ---- the definition ----
void matmul_fwd_naive(Device *dev, DType t, void *out, const void *inp, const void *weight,
                      const void *packed, const void *bias, int M, int N, int K,
                      bool is_accumulated, const MatmulEpilogue *epilogue) {
    (void)dev;
    (void)packed;
    check_sizes(M, N, K);
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    const MatmulEpilogue e = matmul_epilogue(epilogue, true, N);
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            const size_t at = (size_t)m * N + n;
            float sum = is_accumulated ? dtype_load(t, out, at) : bias ? dtype_load(t, bias, n) : 0;
            for (int k = 0; k < K; k++) {
                sum = fmaf(dtype_load(t, inp, (size_t)m * K + k),
                           dtype_load(t, weight, (size_t)n * K + k), sum);
            }
            for (int r = 0; r < e.rank; r++) {
                sum = fmaf(dtype_load(t, e.low, (size_t)m * e.rank + r),
                           dtype_load(t, e.up, (size_t)n * e.rank + r), sum);
            }
            matmul_finish_one(&e, t, out, at, sum);
        }
        if (e.kind == EPILOGUE_ROPE) {
            matmul_turn_row(&e, t, out, m, N);
        }
    }
}

void matmul_bwd_input_naive(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                            const void *packed, int M, int N, int K, bool is_accumulated,
                            const MatmulEpilogue *epilogue) {
    (void)dev;
    (void)packed;
    check_sizes(M, N, K);
    const MatmulEpilogue e = matmul_epilogue(epilogue, false, K);
    for (int m = 0; m < M; m++) {
        for (int k = 0; k < K; k++) {
            const size_t at = (size_t)m * K + k;
            float sum = is_accumulated ? dtype_load(t, dinp, at) : 0;
            for (int n = 0; n < N; n++) {
                sum = fmaf(dtype_load(t, dout, (size_t)m * N + n),
                           dtype_load(t, weight, (size_t)n * K + k), sum);
            }
            for (int r = 0; r < e.rank; r++) {
                sum = fmaf(dtype_load(t, e.low, (size_t)m * e.rank + r),
                           dtype_load(t, e.up, (size_t)r * K + k), sum);
            }
            matmul_finish_one(&e, t, dinp, at, sum);
        }
    }
}

void matmul_bwd_weight_naive(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                             const void *inp, int M, int N, int K) {
    (void)dev;
    check_sizes(M, N, K);
    for (int n = 0; n < N; n++) {
        for (int k = 0; dweight && k < K; k++) {
            float sum = dweight[(size_t)n * K + k];
            for (int m = 0; m < M; m++) {
                sum = fmaf(dtype_load(t, dout, (size_t)m * N + n),
                           dtype_load(t, inp, (size_t)m * K + k), sum);
            }
            dweight[(size_t)n * K + k] = sum;
        }
        for (int m = 0; dbias && m < M; m++) {
            dbias[n] += dtype_load(t, dout, (size_t)m * N + n);
        }
    }
}

// ---- blocks ----
enum {
    DEPTH = 256,               // of a panel: 256 x 16 floats are half of a first cache of 32 KB
    BLOCK_ROWS = 480,          // rows of A in the second cache; packing a panel pays 1/BLOCK_ROWS
    BLOCK_COLUMNS = 512,       // columns of C done with one staged block of A
    GROUP = 4,                 // panels packed together, so that rows are read in longer pieces
    CHUNK = 64,                // elements widened at a time while packing
    STAGE_PANELS = 8,          // with more panels of C than these, staging a block of A pays
    STAGE_LINES = 8,           // rows read side by side while cutting slabs
    DIRECT_ROWS = 24,          // up to so many rows B is read where it lies, if its columns adjoin
    WORK_PER_THREAD = 1 << 22, // multiply-adds worth a thread: 80 us; waking one takes about 40
    COPY_COST = 8,             // moving an element costs as much as this many multiply-adds
    PANEL_COST = 8,            // packing one step of a panel costs as much as this many rows
};

// Two factors of a sum over l. Strides count elements; one of each one's two is 1.
typedef struct {
    const void *a, *b;
    size_t a_row, a_inner, b_inner, b_column; // inner: step of l
    const float *packed;                      // all panels of B one after the other, or NULL
    int depth;                                // 0: no sum
} Factors;

// One matrix product.
typedef struct {
    const MatmulKernel *kernel;
    DType t, c_type;       // of a, b, bias; of c
    Factors main, adapter; // whose sums follow each other
    const void *bias;
    void *c; // (rows, columns)
    int rows, columns;
    int unit; // columns between which C may be cut: a multiple of the kernel's
    bool is_accumulated;
    MatmulEpilogue epilogue;
} Product;

// What one thread needs besides the operands, kept as scratch.h says; 1.6 MB a thread, of which c
// is only touched where outputs are not f32.
typedef struct {
    float a[BLOCK_ROWS * DEPTH];
    float panels[GROUP * DEPTH * MATMUL_MAX_COLUMNS];
    float c[BLOCK_ROWS * BLOCK_COLUMNS];
} Scratch;

static int ceil_div(int a, int b) { return a / b + (a % b > 0); }
static int min_int(int a, int b) { return a < b ? a : b; }

// Length of the even pieces, each a multiple of `unit`, into which pieces of at most `most` cut n.
static int even_piece(int n, int most, int unit) {
    return ceil_div(ceil_div(n, ceil_div(n, most)), unit) * unit;
}

// ---- packing ----
// Panels of B from (l0, j0) on, one after the other: out[l*width + j] = B[l0+l, j0+j] for l <
// depth, j < width, in each; columns past the last are zero.
static void pack_rows(const Product *p, const Factors *f, float *out, int l0, int depth, int j0,
                      int panels) {
    const int width = p->kernel->columns;
    for (int l = 0; l < depth; l++) { // along the rows: the next panel's part is adjacent
        const void *b = dtype_at_const(p->t, f->b, (l0 + l) * f->b_inner + j0);
        for (int panel = 0; panel < panels; panel++) {
            const int j = panel * width, columns = min_int(width, p->columns - j0 - j);
            float *to = out + ((size_t)panel * depth + l) * width;
            if (p->t == DT_F32 && columns == width) { // copies of a known size need no call
                for (int k = 0; k < width; k += 16) {
                    memcpy(to + k, (const float *)b + j + k, 16 * sizeof(float));
                }
            } else {
                dtype_widen(to, p->t, dtype_at_const(p->t, b, j), columns);
                memset(to + columns, 0, (width - columns) * sizeof(float));
            }
        }
    }
}

static void pack_panels(const Product *p, const Factors *f, float *out, int l0, int depth, int j0,
                        int panels) {
    const int width = p->kernel->columns;
    if (f->b_column == 1) {
        pack_rows(p, f, out, l0, depth, j0, panels);
        return;
    }
    for (int panel = 0; panel < panels; panel++, j0 += width, out += (size_t)depth * width) {
        const void *b = dtype_at_const(p->t, f->b, j0 * f->b_column + l0);
        const int columns = min_int(width, p->columns - j0);
        if (p->t == DT_F32 && columns == width) {
            p->kernel->panel(out, b, f->b_column, depth);
            continue;
        }
        float wide[MATMUL_MAX_COLUMNS * CHUNK] = {0}; // zeros remain in columns past the last
        for (int l = 0; l < depth; l += CHUNK) {
            const int n = min_int(CHUNK, depth - l);
            for (int j = 0; j < columns; j++) {
                dtype_widen(wide + j * CHUNK, p->t, dtype_at_const(p->t, b, j * f->b_column + l),
                            n);
            }
            p->kernel->panel(out + (size_t)l * width, wide, CHUNK, n);
        }
    }
}

// A block of A as the tiles read it.
typedef struct {
    const float *at;
    size_t tile, row, inner; // strides: of a tile's height of rows, of a row, of l
} Rows;

// Where rows are contiguous along l they stay so, widened and closer together. Where l runs down
// the rows they are cut into slabs one tile high, each contiguous.
static Rows stage_a(const Product *p, const Factors *f, float *out, int i0, int rows, int l0,
                    int depth) {
    const void *a = dtype_at_const(p->t, f->a, i0 * f->a_row + l0 * f->a_inner);
    const int height = p->kernel->rows;
    if (f->a_inner == 1) {
        for (int i = 0; i < rows; i++) {
            dtype_widen(out + (size_t)i * depth, p->t, dtype_at_const(p->t, a, i * f->a_row),
                        depth);
        }
        return (Rows){out, (size_t)height * depth, depth, 1};
    }
    float wide[STAGE_LINES * BLOCK_ROWS + MATMUL_MAX_ROWS] = {0};
    // Rows in whole slabs with nothing to widen are read in place, the others by way of `wide`.
    const int whole = p->t == DT_F32 ? rows / height * height : 0;
    for (int l = 0; l < depth; l += STAGE_LINES) { // few: lines far apart may share cache sets
        const int n = min_int(STAGE_LINES, depth - l);
        for (int i = 0; i < whole; i += height) {
            p->kernel->slab(out + (size_t)i * depth + l * height,
                            (const float *)a + l * f->a_inner + i, f->a_inner, n);
        }
        for (int k = 0; k < n && whole < rows; k++) {
            dtype_widen(wide + k * BLOCK_ROWS + whole, p->t,
                        dtype_at_const(p->t, a, (l + k) * f->a_inner + whole), rows - whole);
        }
        for (int i = whole; i < rows; i += height) { // rows past the last: never used
            p->kernel->slab(out + (size_t)i * depth + l * height, wide + i, BLOCK_ROWS, n);
        }
    }
    return (Rows){out, (size_t)height * depth, 1, height};
}

// ---- one block of C ----
typedef struct {
    Rows a;         // at this block's first row and step
    const float *b; // one panel
    size_t b_inner;
    const float *first; // what every row starts from, or NULL: from c
    float *c;
    size_t c_row;
    int rows, columns, depth; // columns: of this panel
} Strip;

// The rows of one block against one panel, tile by tile from the top.
static void multiply_strip(const MatmulKernel *kernel, const Strip *s) {
    const int width = kernel->columns;
    float edge[MATMUL_MAX_ROWS * MATMUL_MAX_COLUMNS];
    for (int i = 0; i < s->rows; i += kernel->rows) {
        const int rows = min_int(kernel->rows, s->rows - i);
        const float *a = s->a.at + i / kernel->rows * s->a.tile;
        float *c = s->c + i * s->c_row;
        if (s->columns == width) {
            kernel->tile(rows, s->depth, a, s->a.row, s->a.inner, s->b, s->b_inner,
                         s->first ? s->first : c, s->first ? 0 : s->c_row, c, s->c_row);
            continue;
        }
        // A tile over the right edge of C is made beside it.
        for (int r = 0; r < rows && !s->first; r++) {
            for (int j = 0; j < width; j++) {
                edge[r * width + j] = j < s->columns ? c[r * s->c_row + j] : 0;
            }
        }
        kernel->tile(rows, s->depth, a, s->a.row, s->a.inner, s->b, s->b_inner,
                     s->first ? s->first : edge, s->first ? 0 : width, edge, width);
        for (int r = 0; r < rows; r++) {
            memcpy(c + r * s->c_row, edge + r * width, s->columns * sizeof(float));
        }
    }
}

// The panel of B at (l, j0 + j), of the block whose columns start at j0, and its stride of l.
// Panels are asked for from left to right; a group of them is packed when its first is asked for.
static const float *panel_of_b(const Product *p, const Factors *f, float *packed, int l, int depth,
                               int j0, int j, int columns, bool is_direct, size_t *inner) {
    const int width = p->kernel->columns;
    *inner = width;
    if (f->packed) {
        return f->packed + (size_t)(j0 + j) * f->depth + (size_t)l * width;
    }
    if (is_direct && columns - j >= width) {
        *inner = f->b_inner;
        return (const float *)f->b + l * f->b_inner + j0 + j;
    }
    const int group = is_direct ? 1 : GROUP, done = j / width % group;
    if (done == 0) {
        pack_panels(p, f, packed, l, depth, j0 + j, min_int(group, ceil_div(columns - j, width)));
    }
    return packed + (size_t)done * depth * width;
}

// What the chains of a panel start from, the same in every row: its bias or zeros.
static void start_of_panel(const Product *p, float *first, int j, int columns) {
    memset(first, 0, p->kernel->columns * sizeof *first);
    if (p->bias) {
        dtype_widen(first, p->t, dtype_at_const(p->t, p->bias, j), columns);
    }
}

// A block of C and where its partial sums wait.
typedef struct {
    int i0, rows, j0, columns; // rows <= BLOCK_ROWS, columns <= BLOCK_COLUMNS; j0 starts a panel
    float *sum;
    size_t sum_row;
} Block;

// The sums over all of l of one pair of factors, for one block; is_start: no sums are there yet.
static void multiply_factors(const Product *p, const Factors *f, const Block *at, bool is_start,
                             Scratch *scratch) {
    const MatmulKernel *kernel = p->kernel;
    const int width = kernel->columns, step = even_piece(f->depth, DEPTH, 8);
    const bool is_staged = p->t != DT_F32 || at->columns > STAGE_PANELS * width;
    const bool is_direct = p->t == DT_F32 && f->b_column == 1 && at->rows <= DIRECT_ROWS;
    float first[MATMUL_MAX_COLUMNS];
    Strip s = {.c_row = at->sum_row, .rows = at->rows};
    for (int l = 0; l < f->depth; l += step) {
        const bool is_first = is_start && l == 0;
        s.depth = min_int(step, f->depth - l);
        s.first = is_first ? first : NULL;
        s.a = is_staged ? stage_a(p, f, scratch->a, at->i0, at->rows, l, s.depth)
                        : (Rows){(const float *)f->a + at->i0 * f->a_row + l * f->a_inner,
                                 kernel->rows * f->a_row, f->a_row, f->a_inner};
        for (int j = 0; j < at->columns; j += width) {
            s.columns = min_int(width, at->columns - j);
            s.c = at->sum + j;
            s.b = panel_of_b(p, f, scratch->panels, l, s.depth, at->j0, j, at->columns, is_direct,
                             &s.b_inner);
            if (is_first) {
                start_of_panel(p, first, at->j0 + j, s.columns);
            }
            multiply_strip(kernel, &s);
        }
    }
}

// One block of C, from the first term to the store.
static void multiply_block(const Product *p, int i0, int rows, int j0, int columns) {
    Scratch *scratch = scratch_bytes(SCRATCH_MATMUL, sizeof *scratch);
    const MatmulEpilogue *e = &p->epilogue;
    const size_t at = (size_t)i0 * p->columns + j0;
    // Partial sums of an f32 result lie in C itself; others wait in scratch for their one rounding.
    const bool is_in_place = p->c_type == DT_F32 && !matmul_epilogue_reads(e, p->c);
    const Block block = {.i0 = i0,
                         .rows = rows,
                         .j0 = j0,
                         .columns = columns,
                         .sum = is_in_place ? (float *)p->c + at : scratch->c,
                         .sum_row = is_in_place ? (size_t)p->columns : BLOCK_COLUMNS};
    for (int i = 0; i < rows && !is_in_place && p->is_accumulated; i++) {
        dtype_widen(block.sum + i * block.sum_row, p->c_type,
                    dtype_at_const(p->c_type, p->c, at + (size_t)i * p->columns), columns);
    }
    multiply_factors(p, &p->main, &block, !p->is_accumulated, scratch);
    if (p->adapter.depth > 0) {
        multiply_factors(p, &p->adapter, &block, false, scratch);
    }
    for (int i = 0; i < rows && !(is_in_place && e->kind == EPILOGUE_NONE); i++) {
        matmul_finish(e, p->c_type, p->c, at + (size_t)i * p->columns, i0 + i,
                      block.sum + i * block.sum_row, columns);
    }
}

// ---- threads ----
// Rows i0..i1 and columns j0..j1 of C, by one thread.
static void multiply_part(const Product *p, int i0, int i1, int j0, int j1) {
    const int block = BLOCK_ROWS / p->kernel->rows * p->kernel->rows;
    if (i0 >= i1 || j0 >= j1) {
        return;
    }
    const int rows = even_piece(i1 - i0, block, p->kernel->rows);
    const int columns = even_piece(j1 - j0, BLOCK_COLUMNS / p->unit * p->unit, p->unit);
    for (int j = j0; j < j1; j += columns) {
        for (int i = i0; i < i1; i += rows) {
            multiply_block(p, i, min_int(rows, i1 - i), j, min_int(columns, j1 - j));
        }
    }
}

// As many as have enough to do: waking threads costs more than a small product takes.
static int threads_for(const Device *dev, double work) {
    const double most = work / WORK_PER_THREAD;
    return most < 2 ? 1 : most < device_threads(dev) ? (int)most : device_threads(dev);
}

// The fewest columns that are whole panels of the kernel, and whole heads where these turn.
static int unit_of(const MatmulEpilogue *e) {
    const int width = matmul_kernels()[0]->columns;
    int unit = width;
    while (e->kind == EPILOGUE_ROPE && unit % e->head_width > 0) {
        unit += width;
    }
    return unit;
}

// Divides C into equal rectangles of whole units, at most one for each thread, so that the largest
// is the least work. Threads one above the other pack the same panels of B: hence PANEL_COST.
static void multiply(const Device *dev, Product p) {
    p.kernel = matmul_kernels()[0];
    p.unit = unit_of(&p.epilogue);
    const int height = p.kernel->rows, width = p.unit;
    const int tiles = ceil_div(p.rows, height), panels = ceil_div(p.columns, width);
    const int threads = threads_for(dev, (double)p.rows * p.columns * p.main.depth);
    int down = 1; // rectangles one below the other; threads / down beside each other
    double least = HUGE_VAL;
    for (int d = 1; d <= threads; d++) {
        const double rows = (double)ceil_div(tiles, d) * height + (p.main.packed ? 0 : PANEL_COST);
        const double cost = rows * ceil_div(panels, threads / d);
        if (cost < least) {
            least = cost;
            down = d;
        }
    }
    const int across = threads / down;
    if (threads == 1) {
        multiply_part(&p, 0, p.rows, 0, p.columns);
        return;
    }
    const int rows = ceil_div(tiles, down) * height, columns = ceil_div(panels, across) * width;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int part = 0; part < down * across; part++) {
        const int i = part / across * rows, j = part % across * columns;
        multiply_part(&p, i, min_int(p.rows, i + rows), j, min_int(p.columns, j + columns));
    }
}

// ---- the ops ----
size_t matmul_pack_bytes(const Device *dev, DType t, MatmulPack which, int N, int K) {
    check_sizes(1, N, K);
    CHECK(t < DT_COUNT, "t=%d", (int)t);
    if (device_kind(dev) != DEVICE_CPU) {
        return 0;
    }
    const int width = matmul_kernels()[0]->columns;
    const int columns = which == MATMUL_PACK_FWD ? N : K, depth = which == MATMUL_PACK_FWD ? K : N;
    size_t bytes;
    CHECK(size_mul((size_t)ceil_div(columns, width) * width, (size_t)depth * sizeof(float), &bytes),
          "N=%d K=%d", N, K);
    return bytes;
}

// The factors of inp (rows of depth elements) and weight (N,K), in the forward or the backward.
static Factors factors_of(const void *inp, const void *weight, const void *packed, MatmulPack which,
                          int N, int K) {
    const bool is_fwd = which == MATMUL_PACK_FWD;
    return (Factors){.a = inp,
                     .a_row = is_fwd ? K : N,
                     .a_inner = 1,
                     .b = weight,
                     .b_inner = is_fwd ? 1 : K,
                     .b_column = is_fwd ? K : 1,
                     .packed = packed,
                     .depth = is_fwd ? K : N};
}

void matmul_pack_cpu(Device *dev, DType t, void *packed, const void *weight, MatmulPack which,
                     int N, int K) {
    CHECK_POINTERS(matmul_pack, packed, weight);
    check_sizes(1, N, K);
    const Product p = {.kernel = matmul_kernels()[0],
                       .t = t,
                       .main = factors_of(NULL, weight, NULL, which, N, K),
                       .columns = which == MATMUL_PACK_FWD ? N : K};
    const int width = p.kernel->columns, panels = ceil_div(p.columns, width), depth = p.main.depth;
    const int threads = threads_for(dev, (double)N * K * COPY_COST);
    float *out = packed;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int i = 0; i < panels; i++) {
        pack_panels(&p, &p.main, out + (size_t)i * width * depth, 0, depth, i * width, 1);
    }
}

void matmul_fwd_cpu(Device *dev, DType t, void *out, const void *inp, const void *weight,
                    const void *packed, const void *bias, int M, int N, int K, bool is_accumulated,
                    const MatmulEpilogue *epilogue) {
    CHECK_POINTERS(matmul_fwd, out, inp);
    if (!packed) {
        CHECK_POINTERS(matmul_fwd, weight);
    }
    check_sizes(M, N, K);
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    MatmulEpilogue e = matmul_epilogue(epilogue, true, N);
    // Heads of odd widths, for which no block has room, are turned when all is stored.
    const bool turns_after = unit_of(&e) > BLOCK_COLUMNS;
    if (turns_after) {
        e.kind = EPILOGUE_NONE;
    }
    const MatmulPack fwd = MATMUL_PACK_FWD;
    multiply(dev, (Product){.t = t,
                            .main = factors_of(inp, weight, packed, fwd, N, K),
                            .adapter = factors_of(e.low, e.up, e.packed_up, fwd, N, e.rank),
                            .bias = bias,
                            .c = out,
                            .c_type = t,
                            .rows = M,
                            .columns = N,
                            .is_accumulated = is_accumulated,
                            .epilogue = e});
    if (turns_after) {
        rope_fwd_cpu(dev, t, out, e.cosine, e.sine, M, N / e.head_width, e.head_width, N,
                     e.pairing);
    }
}

void matmul_bwd_input_cpu(Device *dev, DType t, void *dinp, const void *dout, const void *weight,
                          const void *packed, int M, int N, int K, bool is_accumulated,
                          const MatmulEpilogue *epilogue) {
    CHECK_POINTERS(matmul_bwd_input, dinp, dout);
    if (!packed) {
        CHECK_POINTERS(matmul_bwd_input, weight);
    }
    check_sizes(M, N, K);
    const MatmulEpilogue e = matmul_epilogue(epilogue, false, K);
    const MatmulPack bwd = MATMUL_PACK_BWD;
    multiply(dev, (Product){.t = t,
                            .main = factors_of(dout, weight, packed, bwd, N, K),
                            .adapter = factors_of(e.low, e.up, e.packed_up, bwd, e.rank, K),
                            .c = dinp,
                            .c_type = t,
                            .rows = M,
                            .columns = K,
                            .is_accumulated = is_accumulated,
                            .epilogue = e});
}

// dbias: vectors lie across columns here too, so each column is one chain of additions over m.
static void sum_rows(Device *dev, DType t, float *dbias, const void *dout, int M, int N) {
    const int threads = threads_for(dev, (double)M * N * COPY_COST);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int n = 0; n < N; n += CHUNK) {
        float row[CHUNK];
        const int count = min_int(CHUNK, N - n);
        for (int m = 0; m < M; m++) {
            dtype_widen(row, t, dtype_at_const(t, dout, (size_t)m * N + n), count);
            for (int i = 0; i < count; i++) {
                dbias[n + i] += row[i];
            }
        }
    }
}

void matmul_bwd_weight_cpu(Device *dev, DType t, float *dweight, float *dbias, const void *dout,
                           const void *inp, int M, int N, int K) {
    CHECK_POINTERS(matmul_bwd_weight, dout, inp);
    check_sizes(M, N, K);
    if (dweight) {
        const Factors factors = {.a = dout,
                                 .a_row = 1,
                                 .a_inner = N,
                                 .b = inp,
                                 .b_inner = K,
                                 .b_column = 1,
                                 .depth = M};
        multiply(dev, (Product){.t = t,
                                .main = factors,
                                .c = dweight,
                                .c_type = DT_F32,
                                .rows = N,
                                .columns = K,
                                .is_accumulated = true});
    }
    if (dbias) {
        sum_rows(dev, t, dbias, dout, M, N);
    }
}
