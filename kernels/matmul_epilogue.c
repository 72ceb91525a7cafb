// matmul_epilogue: what becomes of finished sums on the CPU; see matmul_epilogue.h.
//
// Written twice: element by element as the contract states it, for the plain loops, and by pieces
// of a row, whose loops become vector code. A piece comes straight from the block of C that was
// just computed and is still in the second cache.
#include "matmul_epilogue.h"

#include "activation_parts.h"
#include "base.h"
#include "chunk.h"
#include "rope_parts.h"

static void check_heads(const MatmulEpilogue *e, bool is_fwd, int columns) {
    const int D = e->head_width;
    CHECK(is_fwd && e->cosine && e->sine, "heads: is_fwd=%d cosine=%d sine=%d", is_fwd,
          e->cosine != NULL, e->sine != NULL);
    CHECK(D >= 2 && D <= ROPE_MAX_D && D % 2 == 0 && columns % D == 0, "D=%d N=%d", D, columns);
    CHECK(e->pairing == ROPE_INTERLEAVED || e->pairing == ROPE_HALF, "pairing=%d",
          (int)e->pairing);
}

MatmulEpilogue matmul_epilogue(const MatmulEpilogue *epilogue, bool is_fwd, int columns) {
    if (!epilogue) {
        return (MatmulEpilogue){0};
    }
    const MatmulEpilogue *e = epilogue;
    const EpilogueKind kind = e->kind;
    const bool is_gated = kind == EPILOGUE_GATED || kind == EPILOGUE_GATED_BWD;
    const bool is_bwd = kind == EPILOGUE_ACT_BWD || kind == EPILOGUE_GATED_BWD;
    const bool acts = is_gated || is_bwd || kind == EPILOGUE_ACT;
    CHECK(kind < EPILOGUE_COUNT && (!acts || is_bwd == !is_fwd), "kind=%d is_fwd=%d", (int)kind,
          is_fwd);
    CHECK(!acts || e->act < ACT_COUNT, "act=%d", (int)e->act);
    CHECK((kind != EPILOGUE_RESIDUAL || e->residual) && (!is_gated || e->gate) &&
              (!is_bwd || e->pre) && (kind != EPILOGUE_GATED_BWD || e->dgate),
          "kind=%d lacks a tensor", (int)kind);
    if (kind == EPILOGUE_ROPE) {
        check_heads(e, is_fwd, columns);
    }
    CHECK(e->rank >= 0 && (e->rank == 0 || (e->low && (e->up || e->packed_up))), "rank=%d",
          e->rank);
    return *e;
}

bool matmul_epilogue_reads(const MatmulEpilogue *e, const void *out) {
    switch (e->kind) {
    case EPILOGUE_RESIDUAL: return e->residual == out;
    case EPILOGUE_GATED: return e->gate == out;
    case EPILOGUE_ACT_BWD: return e->pre == out;
    case EPILOGUE_GATED_BWD: return e->gate == out || e->pre == out;
    default: return false;
    }
}

// ---- one element: the definition ----
void matmul_finish_one(const MatmulEpilogue *e, DType t, void *out, size_t at, float z) {
    float value = z, stored; // of t or f32
    dtype_store(t, &stored, 0, z);
    const float rounded = dtype_load(t, &stored, 0);
    if ((e->kind == EPILOGUE_ACT || e->kind == EPILOGUE_GATED) && e->pre) {
        dtype_store(t, e->pre, at, rounded);
    }
    if (e->kind == EPILOGUE_SCALE) {
        value = e->scale * z;
    } else if (e->kind == EPILOGUE_RESIDUAL) {
        value = dtype_load(t, e->residual, at) + rounded;
    } else if (e->kind == EPILOGUE_ACT) {
        value = act_of(rounded, e->act).value;
    } else if (e->kind == EPILOGUE_GATED) {
        value = act_of(dtype_load(t, e->gate, at), e->act).value * rounded;
    } else if (e->kind == EPILOGUE_ACT_BWD) {
        value = z * act_of(dtype_load(t, e->pre, at), e->act).slope;
    } else if (e->kind == EPILOGUE_GATED_BWD) {
        const Act act = act_of(dtype_load(t, e->gate, at), e->act);
        dtype_store(t, e->dgate, at, z * dtype_load(t, e->pre, at) * act.slope);
        value = z * act.value;
    }
    dtype_store(t, out, at, value);
}

void matmul_turn_row(const MatmulEpilogue *e, DType t, void *out, int row, int columns) {
    const int pairs = e->head_width / 2, step = e->pairing == ROPE_HALF ? 1 : 2;
    const int apart = e->pairing == ROPE_HALF ? pairs : 1;
    for (int n = 0; n < columns; n += e->head_width) {
        for (int j = 0; j < pairs; j++) {
            const size_t a = (size_t)row * columns + n + j * step, b = a + apart;
            const float x = dtype_load(t, out, a), y = dtype_load(t, out, b);
            const size_t angle = (size_t)row * pairs + j;
            const float c = e->cosine[angle], s = e->sine[angle];
            dtype_store(t, out, a, rope_turned(x, y, c, -s));
            dtype_store(t, out, b, rope_turned(y, x, c, s));
        }
    }
}

// ---- a piece of a row ----
// z rounded to t, which also goes to pre (or NULL).
static void round_and_keep(DType t, void *pre, size_t at, float *z, int n) {
    bf16 buffer[CHUNK]; // or f16
    if (t == DT_F32) {
        if (pre) {
            memcpy((float *)pre + at, z, (size_t)n * sizeof *z);
        }
        return;
    }
    void *to = pre ? dtype_at(t, pre, at) : buffer;
    dtype_narrow(t, to, z, (size_t)n);
    dtype_widen(z, t, to, (size_t)n);
}

static void gated_bwd_piece(const MatmulEpilogue *e, DType t, size_t at, float *z, int n) {
    float g_buffer[CHUNK], u_buffer[CHUNK], d_buffer[CHUNK], value[CHUNK], slope[CHUNK];
    const float *gate = chunk_in(g_buffer, t, e->gate, at, n);
    const float *up = chunk_in(u_buffer, t, e->pre, at, n);
    float *dgate = chunk_out(d_buffer, t, e->dgate, at);
    act_chunk(value, slope, gate, n, e->act);
#pragma omp simd
    for (int i = 0; i < n; i++) {
        dgate[i] = z[i] * up[i] * slope[i];
        z[i] = z[i] * value[i];
    }
    chunk_store(t, e->dgate, at, dgate, n);
}

// z becomes what is stored.
static void finish_piece(const MatmulEpilogue *e, DType t, size_t at, int row, float *z, int n) {
    float buffer[CHUNK], value[CHUNK], slope[CHUNK];
    if (e->kind == EPILOGUE_SCALE) {
#pragma omp simd
        for (int i = 0; i < n; i++) {
            z[i] = e->scale * z[i];
        }
    } else if (e->kind == EPILOGUE_RESIDUAL) {
        round_and_keep(t, NULL, at, z, n);
        const float *residual = chunk_in(buffer, t, e->residual, at, n);
#pragma omp simd
        for (int i = 0; i < n; i++) {
            z[i] = residual[i] + z[i];
        }
    } else if (e->kind == EPILOGUE_ACT) {
        round_and_keep(t, e->pre, at, z, n);
        act_chunk(z, slope, z, n, e->act);
    } else if (e->kind == EPILOGUE_GATED) {
        round_and_keep(t, e->pre, at, z, n);
        act_chunk(value, slope, chunk_in(buffer, t, e->gate, at, n), n, e->act);
#pragma omp simd
        for (int i = 0; i < n; i++) {
            z[i] = value[i] * z[i];
        }
    } else if (e->kind == EPILOGUE_ROPE) {
        const int D = e->head_width;
        const size_t table = (size_t)row * (D / 2);
        round_and_keep(t, NULL, at, z, n);
        rope_turn_heads(z, e->cosine + table, e->sine + table, n / D, D, e->pairing, 1);
    } else if (e->kind == EPILOGUE_ACT_BWD) {
        act_chunk(value, slope, chunk_in(buffer, t, e->pre, at, n), n, e->act);
#pragma omp simd
        for (int i = 0; i < n; i++) {
            z[i] = z[i] * slope[i];
        }
    } else if (e->kind == EPILOGUE_GATED_BWD) {
        gated_bwd_piece(e, t, at, z, n);
    }
}

_Static_assert(ROPE_MAX_D <= CHUNK, "a piece has whole heads");

void matmul_finish(const MatmulEpilogue *e, DType t, void *out, size_t at, int row, float *z,
                   int n) {
    const int most = e->kind == EPILOGUE_ROPE ? CHUNK / e->head_width * e->head_width : CHUNK;
    for (int i = 0; i < n; i += most) {
        const int length = n - i < most ? n - i : most;
        finish_piece(e, t, at + i, row, z + i, length);
        if (t != DT_F32) {
            dtype_narrow(t, dtype_at(t, out, at + i), z + i, (size_t)length);
        } else if (z != (float *)out + at) {
            memcpy((float *)out + at + i, z + i, (size_t)length * sizeof *z);
        }
    }
}
