// matmul_tile: the text of one tile kernel, included by matmul_kernel.c once per instruction set,
// so that what runs on wide vectors is what was tested on narrow ones. No include guard, therefore.
//
// Before inclusion: TILE(x) makes names, TARGET is the function attribute, ROWS the tile's height,
// VEC a vector of WIDTH floats with LOAD, STORE, BROADCAST(pointer) and FMA. The tile is two wide.

// Called with a constant number of rows only: all loops over i unroll and all sums are registers.
static inline TARGET __attribute__((always_inline)) void
TILE(body)(const int rows, int depth, const float *a, size_t a_row, size_t a_inner, const float *b,
           size_t b_inner, const float *start, size_t start_row, float *c, size_t c_row) {
    VEC sum[ROWS][2];
    // Three rows share a pointer: base, base + stride, base + 2 stride are all x86 address modes.
    const float *group[(ROWS + 2) / 3];
    UNROLL for (int i = 0; i < rows; i++) {
        sum[i][0] = LOAD(start + i * start_row);
        sum[i][1] = LOAD(start + i * start_row + WIDTH);
        if (i % 3 == 0) {
            group[i / 3] = a + i * a_row;
        }
    }
    for (int l = 0; l < depth; l++) {
        const VEC b0 = LOAD(b), b1 = LOAD(b + WIDTH);
        b += b_inner;
        UNROLL for (int i = 0; i < rows; i++) {
            const VEC x = BROADCAST(group[i / 3] + i % 3 * a_row);
            sum[i][0] = FMA(x, b0, sum[i][0]);
            sum[i][1] = FMA(x, b1, sum[i][1]);
            if (i % 3 == 2 || i == rows - 1) {
                group[i / 3] += a_inner;
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++) {
        STORE(c + i * c_row, sum[i][0]);
        STORE(c + i * c_row + WIDTH, sum[i][1]);
    }
}

// The function of the contract: chooses the body by the number of rows.
static TARGET void TILE(tile)(int rows, int depth, const float *a, size_t a_row, size_t a_inner,
                              const float *b, size_t b_inner, const float *start, size_t start_row,
                              float *c, size_t c_row) {
#define WITH(r)                                                                                    \
    case r: TILE(body)(r, depth, a, a_row, a_inner, b, b_inner, start, start_row, c, c_row); break;
    switch (rows < ROWS ? rows : ROWS) {
        WITH(1) WITH(2) WITH(3) WITH(4) WITH(5) WITH(6)
#if ROWS > 6
        WITH(7) WITH(8) WITH(9) WITH(10) WITH(11) WITH(12) WITH(13) WITH(14)
#endif
    }
#undef WITH
}

static TARGET void TILE(slab)(float *out, const float *a, size_t a_inner, int depth) {
    for (int l = 0; l < depth; l++) {
        UNROLL for (int i = 0; i < ROWS; i++) {
            out[l * ROWS + i] = a[l * a_inner + i];
        }
    }
}

// Ready for the next set; TARGET stays, for other functions of this one.
#undef TILE
#undef ROWS
#undef WIDTH
#undef VEC
#undef LOAD
#undef STORE
#undef BROADCAST
#undef FMA
