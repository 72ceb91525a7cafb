// layer: linear layers with adapters, and norms; see layer.h.
#include "layer.h"

#include <stdio.h>

// ---- building ----
Linear linear_new(TensorList *list, const char *name, int out, int in, bool has_bias) {
    Linear linear = {.in = in, .out = out};
    char full[TENSOR_NAME];
    snprintf(full, sizeof full, "%s.weight", name);
    linear.weight = tensors_add(list, full, init_fan_in(in), 2, (int[]){out, in});
    linear.weight->is_matrix = true;
    if (has_bias) {
        snprintf(full, sizeof full, "%s.bias", name);
        linear.bias = tensors_add(list, full, init_fan_in(in), 1, &out);
    }
    return linear;
}

Linear linear_transposed_new(TensorList *list, const char *name, int out, int in) {
    Linear linear = {.in = in, .out = out};
    linear.weight = tensors_add(list, name, init_fan_in(in), 2, (int[]){out, in});
    linear.weight->is_matrix = linear.weight->is_transposed = true;
    return linear;
}

Norm norm_new(TensorList *list, const char *name, NormKind kind, int C, float eps) {
    Norm norm = {.kind = kind, .eps = eps, .C = C};
    char full[TENSOR_NAME];
    snprintf(full, sizeof full, "%s.weight", name);
    norm.weight = tensors_add(list, full, init_constant(1), 1, &C);
    if (kind == NORM_LAYER) {
        snprintf(full, sizeof full, "%s.bias", name);
        norm.bias = tensors_add(list, full, init_constant(0), 1, &C);
    }
    return norm;
}

static bool is_trainable(const Tensor *tensor) { return tensor && tensor->is_trainable; }

bool linear_is_trainable(const Linear *linear) {
    return is_trainable(linear->weight) || is_trainable(linear->bias) ||
           is_trainable(linear->lora_a) || is_trainable(linear->lora_b);
}

bool norm_is_trainable(const Norm *norm) {
    return is_trainable(norm->weight) || is_trainable(norm->bias);
}

// ---- linear ----
static float *grad_of(const Tensor *tensor) { return tensor ? tensor->grad : NULL; }

// s x A^T, the adapter's low side.
static void *low_fwd(Run *run, const Linear *l, const void *inp, int N) {
    const Tensor *a = l->lora_a;
    const MatmulEpilogue scaled = {.kind = EPILOGUE_SCALE, .scale = l->scale};
    void *low = run_take(run, (size_t)N, (size_t)l->rank);
    RUN(run, matmul_fwd, low, inp, a->data, a->packed_fwd, NULL, N, l->rank, l->in, false, &scaled);
    return low;
}

void linears_fwd(Run *run, const Linear *const *linear, int count, void *const *out, void **lora,
                 const void *inp, int N, const MatmulEpilogue *end) {
    CHECK(count >= 1 && count <= LINEAR_GROUP, "count=%d", count);
    for (int i = 0; i < count; i++) {
        const Linear *l = linear[i];
        MatmulEpilogue e = end ? end[i] : (MatmulEpilogue){0};
        lora[i] = NULL;
        if (l->lora_a) {
            lora[i] = i > 0 && linear[i - 1]->lora_a == l->lora_a ? lora[i - 1]
                                                                   : low_fwd(run, l, inp, N);
            e.low = lora[i];
            e.up = l->lora_b->data;
            e.packed_up = l->lora_b->packed_fwd;
            e.rank = l->rank;
        }
        RUN(run, matmul_fwd, out[i], inp, l->weight->data, l->weight->packed_fwd,
            l->bias ? l->bias->data : NULL, N, l->out, l->in, false, &e);
    }
}

// The gradients of a weight (out,in) and a bias, of which either may be frozen or NULL.
static void weight_bwd(Run *run, const Tensor *weight, const Tensor *bias, const void *dout,
                       const void *inp, int N, int out, int in) {
    if (is_trainable(weight) || is_trainable(bias)) {
        PLAN_SCRATCH(run, matmul_bwd_weight, N, out, in);
        RUN(run, matmul_bwd_weight, grad_of(weight), grad_of(bias), dout, inp, N, out, in);
    }
}

// The adapters' part: with u = s x A^T,  dB += dy^T u,  du = s dy B,  dA += du^T x. Layers
// first .. last-1 share A, so their du add up. Returns du, for dx += du A.
static void *low_bwd(Run *run, const Linear *const *linear, int first, int last,
                     const void *const *dout, void *const *lora, const void *inp, int N) {
    const Linear *shared = linear[first];
    const MatmulEpilogue scaled = {.kind = EPILOGUE_SCALE, .scale = shared->scale};
    void *du = run_take(run, (size_t)N, (size_t)shared->rank);
    for (int i = first; i < last; i++) {
        const Linear *l = linear[i];
        const Tensor *b = l->lora_b;
        weight_bwd(run, b, NULL, dout[i], lora[i], N, l->out, l->rank);
        RUN(run, matmul_bwd_input, du, dout[i], b->data, b->packed_bwd, N, l->out, l->rank,
            i > first, i == last - 1 ? &scaled : NULL);
    }
    weight_bwd(run, shared->lora_a, NULL, du, inp, N, shared->rank, shared->in);
    return du;
}

void linears_bwd(Run *run, const Linear *const *linear, int count, void *dinp,
                 const void *const *dout, void *const *lora, const void *inp, int N,
                 const MatmulEpilogue *end) {
    CHECK(count >= 1 && count <= LINEAR_GROUP, "count=%d", count);
    const size_t mark = arena_mark(run->arena);
    for (int i = 0, first = 0; i < count; i++) {
        const Linear *l = linear[i];
        const Tensor *a = l->lora_a;
        MatmulEpilogue e = i == count - 1 && end ? *end : (MatmulEpilogue){0};
        weight_bwd(run, l->weight, l->bias, dout[i], inp, N, l->out, l->in);
        // The last layer with this A takes the sum of all their du.
        if (i == count - 1 || linear[i + 1]->lora_a != a) {
            if (a) {
                e.low = low_bwd(run, linear, first, i + 1, dout, lora, inp, N);
                e.up = a->data;
                e.packed_up = a->packed_bwd;
                e.rank = l->rank;
            }
            first = i + 1;
        }
        if (dinp) {
            RUN(run, matmul_bwd_input, dinp, dout[i], l->weight->data, l->weight->packed_bwd, N,
                l->out, l->in, i > 0, &e);
        }
        arena_release(run->arena, mark);
    }
}

void linear_fwd(Run *run, const Linear *linear, void *out, void **lora, const void *inp, int N,
                const MatmulEpilogue *end) {
    linears_fwd(run, &linear, 1, &out, lora, inp, N, end);
}

void linear_bwd(Run *run, const Linear *linear, void *dinp, const void *dout, void *lora,
                const void *inp, int N, const MatmulEpilogue *end) {
    linears_bwd(run, &linear, 1, dinp, &dout, &lora, inp, N, end);
}

// ---- norm ----
void norm_fwd(Run *run, const Norm *norm, NormState *state, void *out, const void *inp, int N) {
    state->rstd = run_take_f32(run, (size_t)N);
    if (norm->kind == NORM_RMS) {
        state->mean = NULL;
        RUN(run, rmsnorm_fwd, out, state->rstd, inp, norm->weight->data, N, norm->C, norm->eps);
    } else {
        state->mean = run_take_f32(run, (size_t)N);
        RUN(run, layernorm_fwd, out, state->mean, state->rstd, inp, norm->weight->data,
            norm->bias->data, N, norm->C, norm->eps);
    }
}

void norm_bwd(Run *run, const Norm *norm, const NormState *state, void *dinp, const void *residual,
              const void *dout, const void *inp, int N) {
    if (norm->kind == NORM_RMS) {
        RUN(run, rmsnorm_bwd, dinp, norm->weight->grad, residual, dout, inp, norm->weight->data,
            state->rstd, N, norm->C);
    } else {
        RUN(run, layernorm_bwd, dinp, norm->weight->grad, norm->bias->grad, residual, dout, inp,
            norm->weight->data, state->mean, state->rstd, N, norm->C);
    }
}
