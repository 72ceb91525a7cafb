// test_ops_limits: what no op can take is refused on every backend, by a message that names it.
#include <stdio.h>
#include <string.h>

#include "tests/check.h"

// ---- null pointers ----
// One call per op of the list, with all its pointers p in the order of `names`; ops that read or
// write before they look at their pointers end otherwise than by a message. Sizes are the smallest.
typedef struct {
    const char *op, *names;
    void (*call)(void *const *p);
} OpCall;

#define CALL(op, names, ...)                                                                       \
    static const char names_##op[] = names;                                                        \
    static void call_##op(void *const *p) { check_ops()->op(check_device(), __VA_ARGS__); }

CALL(matmul_pack, "packed, weight", DT_F32, p[0], p[1], MATMUL_PACK_FWD, 1, 1)
CALL(matmul_fwd, "out, inp, weight", DT_F32, p[0], p[1], p[2], NULL, NULL, 1, 1, 1, false, NULL)
CALL(matmul_bwd_input, "dinp, dout, weight", DT_F32, p[0], p[1], p[2], NULL, 1, 1, 1, false, NULL)
CALL(matmul_bwd_weight, "dout, inp", DT_F32, NULL, NULL, p[0], p[1], 1, 1, 1)
CALL(attention_fwd, "out, lse, q, k, v, shape", DT_F32, p[0], p[1], p[2], p[3], p[4], p[5])
CALL(attention_bwd, "dq, dk, dv, delta, dout, out, lse, q, k, v, shape", DT_F32, p[0], p[1], p[2],
     p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10])
CALL(layernorm_fwd, "out, mean, rstd, inp, weight, bias", DT_F32, p[0], p[1], p[2], p[3], p[4],
     p[5], 1, 1, 1e-5f)
CALL(layernorm_bwd, "dinp, dout, inp, weight, mean, rstd", DT_F32, p[0], NULL, NULL, NULL, p[1],
     p[2], p[3], p[4], p[5], 1, 1)
CALL(rmsnorm_fwd, "out, rstd, inp, weight", DT_F32, p[0], p[1], p[2], p[3], 1, 1, 1e-5f)
CALL(rmsnorm_bwd, "dinp, dout, inp, weight, rstd", DT_F32, p[0], NULL, NULL, p[1], p[2], p[3],
     p[4], 1, 1)
CALL(activation_fwd, "out, inp", DT_F32, p[0], p[1], 1, ACT_SILU)
CALL(activation_bwd, "dinp, dout, inp", DT_F32, p[0], p[1], p[2], 1, ACT_SILU)
CALL(gated_fwd, "out, gate, up", DT_F32, p[0], p[1], p[2], 1, ACT_SILU)
CALL(gated_bwd, "dgate, dup, dout, gate, up", DT_F32, p[0], p[1], p[2], p[3], p[4], 1, ACT_SILU)
CALL(residual_fwd, "out, a, b", DT_F32, p[0], p[1], p[2], 1)
CALL(embedding_fwd, "out, table, ids", DT_F32, p[0], p[1], p[2], 1, 1, 1, false)
CALL(embedding_bwd, "dtable, dout, ids", DT_F32, p[0], p[1], p[2], 1, 1, 1)
CALL(rows_gather, "out, inp, index", DT_F32, p[0], p[1], p[2], 1, 1, 1)
CALL(rows_scatter, "out, inp, index", DT_F32, p[0], p[1], p[2], 1, 1, 1)
CALL(patch_unfold, "out, pixels", DT_F32, p[0], p[1], 1, 1, 1, 1, 1, 1, 1)
CALL(rope_table, "cosine, sine, positions, sections", p[0], p[1], p[2], 1, 2, ROPE_M, 1e4, p[3])
CALL(rope_fwd, "x, cosine, sine", DT_F32, p[0], p[1], p[2], 1, 1, 2, 2, ROPE_HALF)
CALL(rope_bwd, "dx, cosine, sine", DT_F32, p[0], p[1], p[2], 1, 1, 2, 2, ROPE_HALF)
CALL(pool_fwd, "out, inp, cu_seqlens", DT_F32, p[0], p[1], p[2], 1, 1, 1)
CALL(pool_bwd, "dinp, dout, cu_seqlens", DT_F32, p[0], p[1], p[2], 1, 1, 1)
CALL(l2norm_fwd, "out, norm, inp", DT_F32, p[0], p[1], p[2], 1, 1)
CALL(l2norm_bwd, "dinp, dout, out, norm", DT_F32, p[0], p[1], p[2], p[3], 1, 1)
CALL(cross_entropy_fwd, "loss, lse, logits, target", DT_F32, p[0], p[1], p[2], p[3], 1, 1)
CALL(cross_entropy_bwd, "dlogits, dloss, logits, lse, target", DT_F32, p[0], p[1], p[2], p[3],
     p[4], 1, 1)
CALL(label_logprob, "raw, logprob, greedy, lse, logits, row, token", DT_F32, p[0], p[1], p[2],
     p[3], p[4], p[5], p[6], 1, 1, 1)
CALL(infonce_fwd, "loss, scores, lse, a, b, log_scale", DT_F32, p[0], p[1], p[2], p[3], p[4], p[5],
     1, 1)
CALL(infonce_bwd, "da, db, scores, lse, a, b, log_scale", DT_F32, p[0], p[1], NULL, p[2], p[3],
     p[4], p[5], p[6], 1, 1)
CALL(marginal, "loss, posterior, ds, s, g, config", p[0], p[1], p[2], p[3], p[4], NULL, NULL, NULL,
     1, 1, 1, p[5])
CALL(topk, "scores, ids, queries, rows", DT_F32, p[0], p[1], p[2], p[3], NULL, NULL, 1, 1, 1, 1, 0,
     true)
CALL(adamw, "param, master, m, v, count, grad, config", DT_F32, p[0], p[1], p[2], p[3], p[4], p[5],
     NULL, NULL, 1, p[6])
CALL(global_norm, "norm, grad", p[0], p[1], 1, 1)
CALL(image_resize, "out, inp, scratch", p[0], p[1], p[2], 1, 1, 1, 2, 2, RESIZE_BICUBIC)
CALL(cast, "out, inp", DT_F32, p[0], DT_F32, p[1], 1)

static const OpCall calls[] = {
#define X(op) {#op, names_##op, call_##op},
    OPS(X)
#undef X
};

enum { MOST_POINTERS = 11 };
static const OpCall *tried; // what the child calls
static void *pointers[MOST_POINTERS];
static void call_tried(void) { tried->call(pointers); }

// The op dies for its argument number `null`, whose name is at `name`; the others point somewhere.
// The backend is not asked to do anything before that, so that any memory will do.
static void expect_refused(const char *name, int null) {
    static int32_t somewhere[1024];
    char want[100], text[1000];
    for (int i = 0; i < MOST_POINTERS; i++) {
        pointers[i] = i == null ? NULL : somewhere;
    }
    snprintf(want, sizeof want, "%s: %.*s is null", tried->op, (int)strcspn(name, ","), name);
    const int code = check_child(call_tried, text, sizeof text);
    EXPECT(code == CHECK_ABORTED && strstr(text, want), "'%s' wanted, code %d: %s", want, code,
           text);
}

TEST_DEVICE(ops_null_pointers) {
    check_device(); // children only look at their arguments
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
        tried = &calls[k];
        if (CASE("%s", tried->op)) {
            int count = 0;
            for (const char *name = tried->names; name; count++) {
                expect_refused(name, count);
                name = strchr(name, ',');
                name = name ? name + 2 : NULL;
            }
            EXPECT(count >= 2 && count <= MOST_POINTERS, "%d pointers", count);
        }
    }
}

// ---- widths ----
// Calls of head width D, over 4 rows of one head; only their arguments are looked at.
static int32_t ends[2] = {0, 4};
static float rows[4096];

static AttentionShape shape_of(int D) {
    return (AttentionShape){.B = 1, .H = 1, .Hkv = 1, .D = D, .cu_q = ends, .cu_k = ends, .Nq = 4,
                            .Nk = 4, .max_Tq = 4, .max_Tk = 4, .q_stride = D, .k_stride = D,
                            .v_stride = D, .out_stride = D, .scale = 1};
}

static void attend(const AttentionShape *shape) {
    check_ops()->attention_fwd(check_device(), DT_BF16, rows, rows, rows, rows, rows, shape);
}
static void attend_as_it_is(int D) {
    const AttentionShape shape = shape_of(D);
    attend(&shape);
}
static void attend_back(int D) {
    const AttentionShape shape = shape_of(D);
    check_ops()->attention_bwd(check_device(), DT_BF16, rows, rows, rows, rows, rows, rows, rows,
                               rows, rows, rows, &shape);
}
static void attend_close(int D) { // rows of k overlap
    AttentionShape shape = shape_of(D);
    shape.k_stride = D - 1;
    attend(&shape);
}
static void attend_in_groups(int D) { // three query heads for two of keys
    AttentionShape shape = shape_of(D);
    shape.H = 3;
    shape.Hkv = 2;
    attend(&shape);
}
static void attend_without_queries(int D) {
    AttentionShape shape = shape_of(D);
    shape.cu_q = NULL;
    attend(&shape);
}
static void attend_without_keys(int D) {
    AttentionShape shape = shape_of(D);
    shape.cu_k = NULL;
    attend(&shape);
}

static void turn(int D) {
    check_ops()->rope_fwd(check_device(), DT_BF16, rows, rows, rows, 4, 1, D, D, ROPE_HALF);
}
static void turn_back(int D) {
    check_ops()->rope_bwd(check_device(), DT_BF16, rows, rows, rows, 4, 1, D, D, ROPE_HALF);
}
static void turn_close(int D) {
    check_ops()->rope_fwd(check_device(), DT_BF16, rows, rows, rows, 4, 1, D, D - 1, ROPE_HALF);
}
static void table(int D) {
    check_ops()->rope_table(check_device(), rows, rows, ends, 1, D, ROPE_1D, 1e4, NULL);
}
static void table_of_grid(int D) {
    check_ops()->rope_table(check_device(), rows, rows, ends, 1, D, ROPE_2D_HALVES, 1e4, NULL);
}
static void table_of_sections(int D) {
    check_ops()->rope_table(check_device(), rows, rows, ends, 1, D, ROPE_M, 1e4,
                            (const int[]){1, 1, 3});
}

typedef struct {
    void (*call)(int D);
    int D;
    const char *name, *want;
} WidthCall;
static const WidthCall widths[] = {
    {attend_as_it_is, 257, "attention_fwd", "Hkv=1 D=257"},
    {attend_as_it_is, 0, "attention_fwd", "Hkv=1 D=0"},
    {attend_back, 257, "attention_bwd", "Hkv=1 D=257"},
    {attend_close, 64, "attention_fwd, strides", "D=64, strides 64 63 64 64"},
    {attend_in_groups, 64, "attention_fwd, groups", "H=3 Hkv=2"},
    {attend_without_queries, 64, "attention_fwd, cu_q", "attention: s->cu_q is null"},
    {attend_without_keys, 64, "attention_fwd, cu_k", "attention: s->cu_k is null"},
    {turn, 15, "rope_fwd", "D=15"},
    {turn, 258, "rope_fwd", "D=258"},
    {turn_back, 15, "rope_bwd", "D=15"},
    {turn_back, 258, "rope_bwd", "D=258"},
    {turn_close, 64, "rope_fwd, stride", "D=64 stride=63"},
    {table, 15, "rope_table", "D=15"},
    {table, 258, "rope_table", "D=258"},
    {table_of_grid, 6, "rope_table, two axes", "D=6"},
    {table_of_sections, 8, "rope_table, sections", "sections 1 1 3, D=8"},
};
static const WidthCall *tried_width; // what the child calls
static void call_tried_width(void) { tried_width->call(tried_width->D); }

TEST_DEVICE(ops_widths) {
    check_device();
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        tried_width = &widths[k];
        if (CASE("%s D=%d", tried_width->name, tried_width->D)) {
            char text[1000];
            const int code = check_child(call_tried_width, text, sizeof text);
            EXPECT(code == CHECK_ABORTED && strstr(text, tried_width->want),
                   "'%s' wanted, code %d: %s", tried_width->want, code, text);
        }
    }
}
