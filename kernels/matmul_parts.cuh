// matmul_parts: what the matmul kernels share: the product as a kernel gets it, and what happens to
// a sum at its beginning and its end. Only for matmul*.cu.
//
// All kernels finish C by quads: four sums of one row that lie side by side, from a column that is
// a multiple of four. Where the tensors allow it a quad is one access. Kernels whose sums lie
// otherwise in registers pass them through shared memory first, which also keeps the text of the
// epilogue from being unrolled over all of a thread's sums.
#ifndef JOMED_KERNELS_MATMUL_PARTS_CUH
#define JOMED_KERNELS_MATMUL_PARTS_CUH

#include "activation_parts.cuh"
#include "cuda_common.cuh"
#include "matmul.h"
#include "rope_parts.h"

// Two factors of a sum over l < depth: A(i,l) at a[i * a_row + l * a_inner], B(l,j) at
// b[l * b_inner + j * b_column]. One of each one's two strides is 1. depth 0: no sum.
struct Factors {
    const void *a, *b;
    size_t a_row, a_inner, b_inner, b_column; // elements
    int depth;
};

// C(i,j) = end(start(i,j) + sum_l A(i,l) B(l,j) + the same over the adapter's factors)
struct Product {
    Factors main, adapter;
    const void *bias; // (columns) or NULL
    void *c;          // (rows, columns)
    int rows, columns;
    bool is_accumulated;
    bool has_quads; // by has_quads below
    MatmulEpilogue epilogue;
    int partner; // by partner_of below
};

static const int QUAD = 4;

// Whether quads of all tensors of C's shape and of the bias are one aligned access each.
// t_size, c_size: bytes of an element of the bias, and of C and what has its type.
static inline bool has_quads(const Product &p, size_t t_size, size_t c_size) {
    const MatmulEpilogue &e = p.epilogue;
    const void *const like_c[] = {p.c, e.residual, e.gate, e.pre, e.dgate};
    bool is_aligned = p.columns % QUAD == 0 && (uintptr_t)p.bias % (QUAD * t_size) == 0 &&
                      is_packable(e.cosine) && is_packable(e.sine);
    for (const void *tensor : like_c) {
        is_aligned = is_aligned && (uintptr_t)tensor % (QUAD * c_size) == 0;
    }
    return is_aligned;
}

// The bits of a quad in memory: to have several under way before the first is widened.
template <typename T> struct QuadBits {
    uint32_t word[QUAD * sizeof(T) / 4];
};
// Elements at .. at + n - 1 (n <= QUAD) of a tensor of T; zero bits behind them.
template <typename T>
static __device__ inline QuadBits<T> quad_bits(const Product &p, const void *tensor, size_t at,
                                               int n) {
    const T *from = (const T *)tensor + at;
    if (!p.has_quads) {
        QuadBits<T> bits = {};
        UNROLL for (int k = 0; k < QUAD; k++) {
            if constexpr (sizeof(T) == 4) {
                bits.word[k] = k < n ? __float_as_uint(from[k]) : 0;
            } else {
                bits.word[k / 2] |= k < n ? (uint32_t)from[k].bits << k % 2 * 16 : 0;
            }
        }
        return bits;
    }
    if constexpr (sizeof(T) == 4) {
        const uint4 bits = ld16(from);
        return {{bits.x, bits.y, bits.z, bits.w}};
    } else {
        const uint2 bits = ld8(from);
        return {{bits.x, bits.y}};
    }
}
template <typename T>
static __device__ inline void widen_quad(float (&x)[QUAD], const QuadBits<T> &bits) {
    UNROLL for (int k = 0; k < QUAD; k++) {
        if constexpr (sizeof(T) == 4) {
            x[k] = __uint_as_float(bits.word[k]);
        } else {
            x[k] = to_float(T{(uint16_t)(bits.word[k / 2] >> k % 2 * 16)});
        }
    }
}
template <typename T>
static __device__ inline void load_quad(float (&x)[QUAD], const Product &p, const void *tensor,
                                        size_t at, int n) {
    widen_quad<T>(x, quad_bits<T>(p, tensor, at, n));
}

template <typename T>
static __device__ inline void store_quad(const Product &p, void *tensor, size_t at,
                                         const float (&x)[QUAD], int n) {
    T *to = (T *)tensor + at;
    if (!p.has_quads) {
        UNROLL for (int k = 0; k < QUAD; k++) {
            if (k < n) {
                to[k] = from_float<T>(x[k]);
            }
        }
    } else if constexpr (sizeof(T) == 4) {
        st16(to, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                            __float_as_uint(x[3])));
    } else {
        const uint32_t low = from_float<T>(x[0]).bits | (uint32_t)from_float<T>(x[1]).bits << 16;
        const uint32_t high = from_float<T>(x[2]).bits | (uint32_t)from_float<T>(x[3]).bits << 16;
        st8(to, make_uint2(low, high));
    }
}

// How many columns of the quad at j there are.
static __device__ inline int quad_length(const Product &p, int j) {
    return p.columns - j < QUAD ? p.columns - j : QUAD;
}

// ---- heads ----
// A quad holds whole pairs where they are interleaved. With halves it belongs to the first or the
// second half of a head, and a lane of the same warp has the quad of its partners: the lane whose
// number differs by the bit p.partner. So a kernel turns heads whose quads it lays out over a warp
// in this way; of `columns` at a time:
static inline bool turns_heads(const MatmulEpilogue &e, int columns) {
    return e.pairing == ROPE_INTERLEAVED ||
           (e.head_width % (2 * QUAD) == 0 && columns % e.head_width == 0);
}
// p.partner, of a kernel whose warps have quads of `columns` in lanes side by side, of wider heads
// those of both halves next to each other. 0: pairs are interleaved, or nothing turns.
static inline int partner_of(const MatmulEpilogue &e, int columns) {
    const int width = e.head_width < columns ? e.head_width : columns;
    return e.kind == EPILOGUE_ROPE && e.pairing == ROPE_HALF ? width / 2 / QUAD : 0;
}

// By what a quad turns: of every element the cosine, and the sine with the sign of its side.
struct QuadTurn {
    float cosine[QUAD], sine[QUAD];
};
static __device__ inline QuadTurn load_turn(const Product &p, int i, int j) {
    const MatmulEpilogue &e = p.epilogue;
    const int pairs = e.head_width / 2;
    const size_t row = (size_t)i * pairs;
    QuadTurn turn = {};
    if (p.partner) {
        const int pair = j % pairs;
        load_quad<float>(turn.cosine, p, e.cosine, row + pair, QUAD);
        load_quad<float>(turn.sine, p, e.sine, row + pair, QUAD);
        UNROLL for (int k = 0; k < QUAD; k++) {
            turn.sine[k] = j % e.head_width < pairs ? -turn.sine[k] : turn.sine[k];
        }
        return turn;
    }
    UNROLL for (int k = 0; k < QUAD; k += 2) {
        if (j + k < p.columns) {
            const size_t at = row + (j + k) % e.head_width / 2;
            turn.cosine[k] = turn.cosine[k + 1] = e.cosine[at];
            turn.sine[k] = -e.sine[at], turn.sine[k + 1] = e.sine[at];
        }
    }
    return turn;
}

// ROPE but for the store: the sums z of a quad are rounded and turned. All lanes of the warp.
template <typename Out>
static __device__ inline void turn_quad(float (&z)[QUAD], const Product &p,
                                        const QuadTurn &turn CALLER) {
    float other[QUAD];
    UNROLL for (int k = 0; k < QUAD; k++) { z[k] = to_float(from_float<Out>(z[k])); }
    UNROLL for (int k = 0; k < QUAD; k++) {
        other[k] = p.partner
                       ? __shfl_xor_sync(0xffffffffu, z[k], p.partner, WARP CALLER_PASS)
                       : z[k ^ 1];
    }
    UNROLL for (int k = 0; k < QUAD; k++) {
        z[k] = rope_turned(z[k], other[k], turn.cosine[k], turn.sine[k]);
    }
}

// ---- the two ends of a sum ----
// What the sums of the quad at (i, j), inside C, start from. Out: type of C, and of the bias.
template <typename Out>
static __device__ inline QuadBits<Out> start_bits(const Product &p, int i, int j) {
    return p.is_accumulated ? quad_bits<Out>(p, p.c, (size_t)i * p.columns + j, quad_length(p, j))
           : p.bias         ? quad_bits<Out>(p, p.bias, j, quad_length(p, j))
                            : QuadBits<Out>{};
}
template <typename Out>
static __device__ inline void start_quad(float (&z)[QUAD], const Product &p, int i, int j) {
    widen_quad<Out>(z, start_bits<Out>(p, i, j));
}

// What the epilogue of a quad reads: the residual, the gate or what an activation acted on; and of
// GATED_BWD what the gate multiplied.
template <typename Out> struct QuadEnd {
    QuadBits<Out> x, up;
};
template <typename Out>
static __device__ inline QuadEnd<Out> load_end(const Product &p, int i, int j) {
    const MatmulEpilogue &e = p.epilogue;
    const size_t at = (size_t)i * p.columns + j;
    const int n = quad_length(p, j);
    const void *const x = e.kind == EPILOGUE_RESIDUAL                                  ? e.residual
                          : e.kind == EPILOGUE_ACT_BWD                                 ? e.pre
                          : e.kind == EPILOGUE_GATED || e.kind == EPILOGUE_GATED_BWD ? e.gate
                                                                                       : nullptr;
    QuadEnd<Out> end = {};
    if (x) {
        end.x = quad_bits<Out>(p, x, at, n);
    }
    if (e.kind == EPILOGUE_GATED_BWD) {
        end.up = quad_bits<Out>(p, e.pre, at, n);
    }
    return end;
}

// The epilogue and the store of the quad at (i, j), inside C, whose sums are z and for which end
// was loaded; of ROPE only the store, after turn_quad. This is the text of the contract (matmul.h);
// z is spoiled. Whatever load_end reads may be where C is.
template <typename Out>
static __device__ inline void finish_quad(const Product &p, int i, int j, float (&z)[QUAD],
                                          const QuadEnd<Out> &end) {
    const MatmulEpilogue &e = p.epilogue;
    const EpilogueKind kind = e.kind;
    const size_t at = (size_t)i * p.columns + j;
    const int n = quad_length(p, j);
    float x[QUAD], up[QUAD];
    widen_quad<Out>(x, end.x);
    widen_quad<Out>(up, end.up);
    if (kind == EPILOGUE_ACT || kind == EPILOGUE_GATED || kind == EPILOGUE_RESIDUAL) {
        UNROLL for (int k = 0; k < QUAD; k++) {
            z[k] = to_float(from_float<Out>(z[k]));
            x[k] = kind == EPILOGUE_ACT ? z[k] : x[k];
        }
        if (e.pre && kind != EPILOGUE_RESIDUAL) {
            store_quad<Out>(p, e.pre, at, z, n);
        }
    }
    if (kind == EPILOGUE_SCALE) {
        UNROLL for (int k = 0; k < QUAD; k++) { z[k] = e.scale * z[k]; }
    } else if (kind == EPILOGUE_RESIDUAL) {
        UNROLL for (int k = 0; k < QUAD; k++) { z[k] = x[k] + z[k]; }
    } else if (kind != EPILOGUE_NONE && kind != EPILOGUE_ROPE) {
        Act act[QUAD];
        FOR_ACT(e.act, A, UNROLL for (int k = 0; k < QUAD; k++) { act[k] = act_as<Out, A>(x[k]); });
        UNROLL for (int k = 0; k < QUAD; k++) {
            up[k] = z[k] * up[k] * act[k].slope;
            z[k] = kind == EPILOGUE_ACT       ? act[k].value
                   : kind == EPILOGUE_ACT_BWD ? z[k] * act[k].slope
                                              : z[k] * act[k].value;
        }
        if (kind == EPILOGUE_GATED_BWD) {
            store_quad<Out>(p, e.dgate, at, up, n);
        }
    }
    store_quad<Out>(p, p.c, at, z, n);
}

// ---- ranges of a sum ----
// c[i] += sum over the splits, in order, of part[split * n + i]. Launch: grid_for(n), 256 threads.
static __global__ void matmul_join1(float *c, const float *part, size_t n, int splits) {
    GRID_STRIDE(i, n) {
        float sum = 0;
        for (int split = 0; split < splits; split++) {
            sum += part[split * n + i];
        }
        c[i] += sum;
    }
}
static inline void join_splits(Device *dev, float *c, const float *part, size_t n, int splits) {
    LAUNCH(matmul_join1, grid_for(n, 256), 256, 0, device_stream(dev), c, part, n, splits);
}
#endif
