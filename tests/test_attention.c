// Attention against the equations in double, in plain f32, and against finite differences; and the
// promises of the contract: what a query cannot see does not reach it, and neither threads nor the
// rest of the batch change a bit.
#include "tests/attention_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>


static const AttentionCase shapes[] = {
    {1, 16, 16, 1, false, false, {1}, {1}},
    {1, 16, 16, 1, true, true, {2}, {2}},
    {3, 4, 4, 16, false, false, {17, 17, 17}, {17, 17, 17}},
    {4, 4, 2, 16, true, false, {30, 1, 7, 26}, {30, 1, 7, 26}},
    {2, 2, 1, 7, false, true, {5, 9}, {8, 16}},       // cross attention
    {3, 3, 1, 24, true, true, {1, 4, 9}, {20, 4, 3}}, // decoding; queries that see nothing
    {3, 2, 2, 5, false, false, {6, 0, 2}, {0, 4, 3}}, // empty sequences
    {1, 2, 1, 33, true, false, {47, 0}, {49, 0}},
    {1, 1, 1, 64, true, false, {100}, {100}}, // more than one block of queries
    {1, 3, 3, 80, false, true, {97}, {65}},
    {1, 1, 1, 255, false, false, {13}, {11}},
    {1, 2, 1, 256, true, false, {12}, {12}},
    {2, 1, 1, 4, false, true, {6, 140}, {150, 5}}, // more keys, more queries than a GPU's tile
    {2, 6, 2, 32, true, true, {47, 21}, {47, 33}},   // three heads share a tile
    {2, 4, 2, 128, false, true, {33, 2}, {33, 130}},
    {2, 2, 1, 40, true, true, {37, 20}, {300, 37}},  // one sequence's keys fit a tile, one's do not
    {1, 4, 4, 128, false, false, {16}, {530}},       // three tiles of keys
    {1, 1, 1, 64, true, false, {280}, {270}},        // causal over two tiles; blind queries
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))
#define TILED  13 // the first of those for the kernels of 16-bit tiles

// Bits of every output of two problems of one shape.
static void expect_same(const char *what, const AttentionProblem *a, const AttentionProblem *b) {
    const Buf *x[] = {&a->out, &a->lse, &a->dq, &a->dk, &a->dv, &a->delta};
    const Buf *y[] = {&b->out, &b->lse, &b->dq, &b->dk, &b->dv, &b->delta};
    for (int i = 0; i < 6; i++) {
        expect_exact(what, x[i]->host, y[i]->host, x[i]->n);
    }
}

static bool begin_case(const char *text, int n) {
    const AttentionCase *s = &shapes[n / DT_COUNT];
    return CASE("%s shape %d t=%s B=%d H=%d/%d D=%d Tq=%d Tk=%d%s%s", text, n / DT_COUNT,
                dtype_name((DType)(n % DT_COUNT)), s->B, s->H, s->Hkv, s->D, s->Tq[0], s->Tk[0],
                s->is_causal ? " causal" : "", s->has_alibi ? " alibi" : "");
}

// In the emulator the tiled shapes are for the kernels that have tiles; large=1: for all.
static bool is_afforded(int n) {
    return check_affords(n % DT_COUNT != DT_BF16 && n / DT_COUNT >= TILED ? 1e9 : 0);
}

#define EACH_SHAPE(text)                                                                           \
    for (int n = 0; n < DT_COUNT * SHAPES; n++)                                                    \
        if (is_afforded(n) && begin_case(text, n))

// ---- forward, and what holds for both ----
static void expect_mask_stops_nan(void) {
    const AttentionCase s = {2, 1, 1, 8, true, false, {9, 12}, {9, 12}};
    AttentionProblem a = attention_problem_new(&s, DT_F32, 102);
    AttentionProblem b = attention_problem_new(&s, DT_F32, 102);
    attention_run(&a);
    const int bad = 9 + 7; // key 7 of sequence 1: queries 0..6 of it must not notice
    for (int d = 0; d < 8; d++) {
        b.k.host[bad * b.shape.k_stride + d] = b.v.host[bad * b.shape.v_stride + d] = NAN;
    }
    buf_write(&b.k);
    buf_write(&b.v);
    attention_run(&b);
    for (int i = 0; i < 21; i++) {
        const double *x = b.out.host + i * b.shape.out_stride;
        if (i < bad) {
            expect_exact("out", x, a.out.host + i * a.shape.out_stride, 8);
            expect_exact("dq", b.dq.host + i * b.shape.q_stride,
                         a.dq.host + i * a.shape.q_stride, 8);
        } else {
            EXPECT(isnan(x[0]) && isnan(b.lse.host[i]), "query %d hides a NaN: %g", i, x[0]);
        }
    }
    for (int j = 0; j < 9; j++) { // sequence 0
        expect_exact("dk", b.dk.host + j * b.shape.k_stride, a.dk.host + j * a.shape.k_stride,
                     8);
        expect_exact("dv", b.dv.host + j * b.shape.v_stride, a.dv.host + j * a.shape.v_stride,
                     8);
    }
    attention_problem_free(&a);
    attention_problem_free(&b);
}

// The last Tq queries of each sequence over keys in a cache with room for `room` rows, whose unused
// rows are NaN, against the same rows of the whole pass.
static void expect_cache(DType t, int D, bool is_causal) {
    enum { room = 70 };
    const AttentionCase whole = {3, 4, 2, D, is_causal, true, {61, 1, 40}, {61, 1, 40}};
    const AttentionCase part = {3, 4, 2, D, is_causal, true, {1, 1, 7}, {room, room, room}};
    AttentionProblem a = attention_problem_new(&whole, t, 103);
    AttentionProblem b = attention_problem_new(&part, t, 104);
    Buf *from[] = {&a.k, &a.v, &a.q}, *to[] = {&b.k, &b.v, &b.q};
    const int stride[] = {a.shape.k_stride, a.shape.v_stride, a.shape.q_stride};
    for (int i = 0; i < 3; i++) {
        for (size_t e = 0; e < to[i]->n; e++) {
            to[i]->host[e] = NAN;
        }
        for (int s = 0; s < whole.B; s++) {
            const int rows = i < 2 ? whole.Tk[s] : part.Tq[s];
            const int first = i < 2 ? room * s : b.host_q[s];
            const int source = a.host_k[s] + whole.Tk[s] - rows;
            memcpy(to[i]->host + first * stride[i], from[i]->host + source * stride[i],
                   (size_t)rows * stride[i] * sizeof(double));
        }
        buf_write(to[i]);
    }
    IntBuf used = ibuf_from(whole.Tk, (size_t)whole.B);
    b.shape.used_k = used.dev;
    attention_run_fwd(&a, check_ops()->attention_fwd);
    attention_fwd_fn *fast = check_ops()->attention_fwd;
    attention_fwd_fn *const ways[] = {fast, attention_fwd_naive};
    for (int w = 0; w < (device_kind(check_device()) == DEVICE_CPU ? 2 : 1); w++) {
        attention_run_fwd(&b, ways[w]);
        for (int s = 0; s < whole.B; s++) {
            for (int i = 0; i < part.Tq[s]; i++) {
                const int row = b.host_q[s] + i, n = a.host_q[s] + whole.Tq[s] - part.Tq[s] + i;
                expect_exact("out", b.out.host + row * b.shape.out_stride,
                             a.out.host + n * a.shape.out_stride, (size_t)(4 * D));
                for (int h = 0; h < 4; h++) {
                    expect_exact("lse", b.lse.host + h * b.shape.Nq + row,
                                 a.lse.host + h * a.shape.Nq + n, 1);
                }
            }
        }
    }
    ibuf_free(&used);
    attention_problem_free(&a);
    attention_problem_free(&b);
}

// A GPU promises no other kernel's bits, but its own again; an emulated one has no other order.
static void expect_same_bits(void) {
    const DeviceKind kind = device_kind(check_device());
    const char *text = kind == DEVICE_CPU ? "naive and fast have the same bits"
                                          : "a second run has the same bits";
    for (int n = 0; n < DT_COUNT * SHAPES && kind != DEVICE_EMU; n++) {
        if (begin_case(text, n)) {
            const AttentionCase *s = &shapes[n / DT_COUNT];
            AttentionProblem a = attention_problem_new(s, (DType)(n % DT_COUNT), (uint32_t)n);
            AttentionProblem b = attention_problem_new(s, (DType)(n % DT_COUNT), (uint32_t)n);
            attention_run(&a);
            if (kind == DEVICE_CPU) {
                attention_run_with(&b, check_device(), attention_fwd_naive, attention_bwd_naive);
            } else {
                attention_run(&b);
            }
            expect_same("again", &a, &b);
            attention_problem_free(&a);
            attention_problem_free(&b);
        }
    }
}

TEST_OP(attention_fwd) {
    EACH_SHAPE("equation") {
        expect_attention(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n,
                         ATTENTION_OUT, ATTENTION_LSE);
    }
    expect_same_bits();
    if (CASE("threads change nothing")) {
        const AttentionCase s = {3, 4, 2, 64, true, false, {130, 97, 40}, {130, 97, 40}};
        AttentionProblem a = attention_problem_new(&s, DT_F32, 100);
        AttentionProblem b = attention_problem_new(&s, DT_F32, 100);
        Device *many = device_new(device_kind(check_device()), 0, 3);
        attention_run(&a);
        attention_run_with(&b, many, check_ops()->attention_fwd, check_ops()->attention_bwd);
        expect_same("threads", &a, &b);
        device_free(many);
        attention_problem_free(&a);
        attention_problem_free(&b);
    }
    const AttentionCase batches[] = {
        {2, 2, 1, 16, true, true, {19, 35}, {19, 35}},
        {2, 1, 1, 8, false, false, {3, 21}, {300, 40}}, // a long one beside a short one
        {2, 1, 1, 8, true, false, {3, 21}, {40, 300}},
    };
    for (int n = 0; n < 6; n++) {
        const DType type = n % 2 ? DT_BF16 : DT_F32;
        if (CASE("the rest of the batch changes nothing, batch %d t=%s", n / 2, dtype_name(type))) {
            expect_attention_alone(&batches[n / 2], type);
        }
    }
    if (CASE("what is masked or elsewhere does not reach a query, not even as NaN")) {
        expect_mask_stops_nan();
    }
    for (int n = 0; n < 4 * DT_COUNT; n++) {
        const DType t = (DType)(n / 4);
        const int D = n / 2 % 2 ? 64 : 24;
        if (CASE("a cache changes nothing t=%s D=%d%s", dtype_name(t), D, n % 2 ? " causal" : "")) {
            expect_cache(t, D, n % 2);
        }
    }
}

// ---- backward ----
// loss = sum of out * dout in double, as a function of one input.
typedef struct {
    AttentionProblem *p;
} Loss;

static double loss_of(void *ctx) {
    const AttentionProblem *p = ((Loss *)ctx)->p;
    const AttentionShape *s = &p->shape;
    AttentionResult r = attention_result_new(p);
    attention_reference(p, &r, false);
    double loss = 0;
    for (size_t row = 0; row < (size_t)s->Nq; row++) {
        for (int c = 0; c < s->H * s->D; c++) {
            const size_t i = row * (size_t)s->out_stride + (size_t)c;
            loss += r.out[i] * p->dout.host[i];
        }
    }
    attention_result_free(&r);
    return loss;
}

TEST_OP(attention_bwd) {
    EACH_SHAPE("equation") {
        expect_attention(&shapes[n / DT_COUNT], (DType)(n % DT_COUNT), (uint32_t)n,
                         ATTENTION_DELTA, ATTENTION_DV);
    }
    const AttentionCase small[] = {
        {2, 2, 1, 3, true, true, {3, 4}, {5, 4}},
        {2, 2, 2, 4, false, false, {3, 2}, {4, 1}},
    };
    for (int n = 0; n < 2; n++) {
        if (CASE("differences shape %d", n)) {
            // The double reference against differences; the op was held to the reference above.
            AttentionProblem p = attention_problem_new(&small[n], DT_F32, 200);
            AttentionResult r = attention_result_new(&p);
            attention_reference(&p, &r, false);
            Loss loss = {&p};
            const struct {
                const char *name;
                Buf *x;
                double *grad;
                int stride, width;
            } inputs[] = {
                {"dq", &p.q, r.dq, p.shape.q_stride, p.shape.H * p.shape.D},
                {"dk", &p.k, r.dk, p.shape.k_stride, p.shape.Hkv * p.shape.D},
                {"dv", &p.v, r.dv, p.shape.v_stride, p.shape.Hkv * p.shape.D},
            };
            for (int x = 0; x < 3; x++) {
                for (size_t at = 0; at < inputs[x].x->n; at += (size_t)inputs[x].stride) {
                    expect_gradient(inputs[x].name, inputs[x].grad + at, inputs[x].x->host + at,
                                    (size_t)inputs[x].width, loss_of, &loss, 100);
                }
            }
            attention_result_free(&r);
            attention_problem_free(&p);
        }
    }
}

