// attention_check: what the tests of attention share: problems, the equations as plain loops, and
// the promise that the rest of the batch changes nothing.
#ifndef JOMED_TESTS_ATTENTION_CHECK_H
#define JOMED_TESTS_ATTENTION_CHECK_H

#include "tests/check.h"

#define ATTENTION_MOST_B    4
#define ATTENTION_UNTOUCHED 512 // what outputs hold there; exact in every type

typedef struct {
    int B, H, Hkv, D;
    bool is_causal, has_alibi;
    int Tq[ATTENTION_MOST_B], Tk[ATTENTION_MOST_B];
} AttentionCase;

// Inputs, outputs, and the device's copy of the shape. Rows have gaps between them, which are NaN
// in the inputs; they begin at multiples of 16 bytes where D is one of 8 elements, but for D = 16.
typedef struct {
    DType t;
    AttentionShape shape;
    int host_q[ATTENTION_MOST_B + 1], host_k[ATTENTION_MOST_B + 1];
    double slopes[72];
    IntBuf cu_q, cu_k;
    Buf q, k, v, dout, out, lse, dq, dk, dv, delta, alibi;
} AttentionProblem;
AttentionProblem attention_problem_new(const AttentionCase *s, DType t, uint32_t sample);
void attention_problem_free(AttentionProblem *p);

// Forward and backward, or the forward alone; the outputs are read back.
void attention_run(AttentionProblem *p);
void attention_run_with(AttentionProblem *p, Device *dev, attention_fwd_fn *fwd,
                        attention_bwd_fn *bwd);
void attention_run_fwd(AttentionProblem *p, attention_fwd_fn *fwd);

// The plain loops, in double or rounding to f32 at every step. Laid out like the op's outputs.
typedef struct {
    double *out, *lse, *delta, *dq, *dk, *dv;
} AttentionResult;
AttentionResult attention_result_new(const AttentionProblem *p);
void attention_result_free(AttentionResult *r);
void attention_reference(const AttentionProblem *p, AttentionResult *r, bool is_f32);

// Holds outputs from..to of the op on draws of a shape against the two references.
enum {
    ATTENTION_OUT,
    ATTENTION_LSE,
    ATTENTION_DELTA,
    ATTENTION_DQ,
    ATTENTION_DK,
    ATTENTION_DV,
    ATTENTION_OUTPUTS
};
void expect_attention(const AttentionCase *shape, DType t, uint32_t sample, int from, int to);
// Sequence 1 of `both` has the bits that it has alone at the same place in memory, where the rows
// before belong to nobody.
void expect_attention_alone(const AttentionCase *both, DType t);
#endif
