// Attention in bf16 at the edges of a GPU's tiles: lengths around 64, 128, 256, sequences of all
// kinds side by side, widths that have kernels of their own. Tiles reach beyond the end of a
// sequence and of a head; what lies there must not.
#include "tests/attention_check.h"

#include <math.h>

static const AttentionCase shapes[] = {
    {4, 2, 2, 64, false, false, {65, 1, 63, 64}, {65, 1, 63, 64}},
    {4, 4, 2, 64, true, false, {128, 1, 65, 0}, {128, 63, 65, 9}},
    {1, 1, 1, 64, false, false, {197}, {197}},
    {1, 1, 1, 64, true, true, {255}, {255}},
    {2, 1, 1, 64, false, true, {256, 40}, {256, 0}},
    {3, 1, 1, 64, false, false, {70, 64, 30}, {129, 300, 192}}, // one for other kernels
    {3, 4, 1, 64, true, false, {100, 20, 66}, {40, 197, 128}},  // blind queries
    {3, 3, 3, 80, false, false, {65, 1, 127}, {65, 2, 128}},
    {3, 2, 1, 80, true, true, {64, 90, 70}, {130, 63, 70}},
    {2, 4, 1, 128, true, false, {65, 33}, {65, 128}},
    {3, 2, 2, 128, false, true, {129, 17, 64}, {127, 128, 140}},
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

// Forward alone: several tiles of keys; strips with rows of several heads, of few queries.
static const AttentionCase forwards[] = {
    {1, 1, 1, 64, false, false, {257}, {257}},
    {2, 3, 1, 64, true, false, {70, 200}, {70, 230}},           // three heads share a strip
    {2, 5, 1, 64, false, true, {30, 3}, {600, 256}},            // five
    {3, 7, 1, 128, true, false, {20, 1, 9}, {350, 600, 257}},   // seven; decoding
    {2, 2, 2, 80, true, true, {130, 20}, {350, 512}},
    {3, 2, 2, 80, false, false, {1, 200, 0}, {1, 20, 5}},
    {2, 1, 1, 128, true, false, {180, 3}, {150, 0}},            // blind queries
    {1, 65, 1, 64, false, false, {2}, {40}},                    // heads that no strip holds
    {1, 1, 1, 64, true, false, {350}, {350}},                   // from here on with large=1
    {1, 2, 2, 64, false, false, {600}, {600}},
    {2, 4, 1, 128, true, false, {350, 197}, {350, 197}},
    {1, 2, 2, 80, false, false, {300}, {300}},
};
#define FORWARDS ((int)(sizeof forwards / sizeof *forwards))
#define LARGE    8

// Head 0 of sequence 0 with NaN in all other heads and sequences, which follow at once.
static void expect_neighbours_stay_out(int D, int T, bool is_causal) {
    const AttentionCase s = {2, 2, 2, D, is_causal, false, {T, 9}, {T, 9}};
    AttentionProblem a = attention_problem_new(&s, DT_BF16, 300);
    AttentionProblem b = attention_problem_new(&s, DT_BF16, 300);
    Buf *inputs[] = {&b.q, &b.k, &b.v, &b.dout};
    const int stride[] = {b.shape.q_stride, b.shape.k_stride, b.shape.v_stride, b.shape.out_stride};
    for (int x = 0; x < 4; x++) {
        for (size_t i = 0; i < inputs[x]->n; i++) {
            const size_t row = i / (size_t)stride[x], column = i % (size_t)stride[x];
            inputs[x]->host[i] = row < (size_t)T && column < (size_t)D ? inputs[x]->host[i] : NAN;
        }
        buf_write(inputs[x]);
    }
    attention_run(&a);
    attention_run(&b);
    const Buf *clean[] = {&a.dq, &a.dk, &a.dv, &a.out}, *got[] = {&b.dq, &b.dk, &b.dv, &b.out};
    const char *const name[] = {"dq", "dk", "dv", "out"};
    for (int x = 0; x < 4; x++) {
        for (int row = 0; row < T; row++) {
            expect_exact(name[x], got[x]->host + row * stride[x], clean[x]->host + row * stride[x],
                         (size_t)D);
        }
    }
    expect_exact("lse", b.lse.host, a.lse.host, (size_t)T);
    expect_exact("delta", b.delta.host, a.delta.host, (size_t)T);
    EXPECT(isnan(b.lse.host[T]), "no NaN reached its own sequence");
    attention_problem_free(&a);
    attention_problem_free(&b);
}

// A scale below zero is that of the opposite queries. A bias of zeros takes it the other way.
static void expect_negative_scale(void) {
    const AttentionCase s = {1, 2, 1, 64, true, true, {70}, {90}};
    AttentionProblem a = attention_problem_new(&s, DT_BF16, 301);
    AttentionProblem b = attention_problem_new(&s, DT_BF16, 301);
    for (size_t i = 0; i < a.alibi.n; i++) {
        a.alibi.host[i] = 0;
    }
    for (size_t i = 0; i < b.q.n; i++) {
        b.q.host[i] = -b.q.host[i];
    }
    buf_write(&a.alibi), buf_write(&b.q);
    b.shape.alibi = NULL, b.shape.scale = -a.shape.scale;
    attention_run_fwd(&a, check_ops()->attention_fwd);
    attention_run_fwd(&b, check_ops()->attention_fwd);
    expect_exact("out", b.out.host, a.out.host, a.out.n);
    expect_exact("lse", b.lse.host, a.lse.host, a.lse.n);
    attention_problem_free(&a);
    attention_problem_free(&b);
}

// All scores far below zero: of a key that is not there, whose row is zeros, 2^(0 - lse) would be
// infinite.
static void expect_finite(int T) {
    const AttentionCase s = {1, 1, 1, 64, false, false, {T}, {T}};
    AttentionProblem p = attention_problem_new(&s, DT_BF16, 400);
    for (size_t i = 0; i < p.q.n; i++) {
        p.q.host[i] = 5;
    }
    for (size_t i = 0; i < p.k.n; i++) {
        p.k.host[i] = -5 + (int)(i % 5) / 32.0;
    }
    buf_write(&p.q);
    buf_write(&p.k);
    attention_run(&p);
    const Buf *got[] = {&p.lse, &p.dq, &p.dk, &p.dv};
    EXPECT(p.lse.host[0] < -180, "lse %g", p.lse.host[0]);
    for (int x = 0; x < 4; x++) {
        for (size_t i = 0; i < got[x]->n; i++) {
            EXPECT(isfinite(got[x]->host[i]), "output %d: element %zu is %g", x, i,
                   got[x]->host[i]);
        }
    }
    attention_problem_free(&p);
}

TEST_DEVICE(attention_tiles) {
    for (int n = 0; n < SHAPES; n++) {
        const AttentionCase *s = &shapes[n];
        if (CASE("equation shape %d B=%d H=%d/%d D=%d Tq=%d Tk=%d%s%s", n, s->B, s->H, s->Hkv, s->D,
                 s->Tq[0], s->Tk[0], s->is_causal ? " causal" : "", s->has_alibi ? " alibi" : "")) {
            expect_attention(s, DT_BF16, 10 * (uint32_t)n, ATTENTION_OUT, ATTENTION_DV);
        }
    }
    for (int n = 0; n < FORWARDS; n++) {
        const AttentionCase *s = &forwards[n];
        if (check_affords(n < LARGE ? 0 : 1e9) &&
            CASE("forward %d B=%d H=%d/%d D=%d Tq=%d Tk=%d%s%s", n, s->B, s->H, s->Hkv, s->D,
                 s->Tq[0], s->Tk[0], s->is_causal ? " causal" : "", s->has_alibi ? " alibi" : "")) {
            expect_attention(s, DT_BF16, 10 * (uint32_t)n + 5, ATTENTION_OUT, ATTENTION_LSE);
        }
    }
    if (CASE("a scale below zero")) {
        expect_negative_scale();
    }
    const int widths[] = {64, 80, 128};
    for (int n = 0; n < 3; n++) {
        if (CASE("NaN of neighbours stays out, D=%d", widths[n])) {
            expect_neighbours_stay_out(widths[n], 65 + 5 * n, n == 1);
        }
    }
    if (CASE("scores far below zero")) {
        expect_finite(63);
    }
    const AttentionCase batches[] = {
        {2, 2, 1, 64, true, true, {3, 70}, {300, 90}}, // a long one beside a short one
        {2, 2, 2, 128, false, false, {70, 20}, {9, 65}},
        {2, 3, 1, 80, true, false, {10, 150}, {300, 200}}, // one item of keys that stay, or several
    };
    for (int n = 0; n < 3; n++) {
        if (CASE("the rest of the batch changes nothing, batch %d", n)) {
            expect_attention_alone(&batches[n], DT_BF16);
        }
    }
}
