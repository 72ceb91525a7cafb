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

void linears_fwd(Run *run, const Linear *const *linear, int count, void *const *out, void **lora,
                 const void *inp, int N) {
    CHECK(count >= 1 && count <= LINEAR_GROUP, "count=%d", count);
    for (int i = 0; i < count; i++) {
        const Linear *l = linear[i];
        const Tensor *a = l->lora_a, *b = l->lora_b;
        RUN(run, matmul_fwd, out[i], inp, l->weight->data, l->weight->packed_fwd,
            l->bias ? l->bias->data : NULL, N, l->out, l->in, false, NULL);
        lora[i] = NULL;
        if (!a) {
            continue;
        }
        if (i > 0 && linear[i - 1]->lora_a == a) {
            lora[i] = lora[i - 1];
        } else {
            lora[i] = run_take(run, (size_t)N, (size_t)l->rank);
            RUN(run, matmul_fwd, lora[i], inp, a->data, a->packed_fwd, NULL, N, l->rank, l->in,
                false, NULL);
            RUN(run, scale_fwd, lora[i], lora[i], l->scale, (size_t)N * l->rank);
        }
        RUN(run, matmul_fwd, out[i], lora[i], b->data, b->packed_fwd, NULL, N, l->out, l->rank,
            true, NULL);
    }
}

// The adapters' part: with u = s x A^T,  dB += dy^T u,  du = s dy B,  dA += du^T x,  dx += du A.
// Layers first .. last-1 share A, so their du add up.
static void adapters_bwd(Run *run, const Linear *const *linear, int first, int last, void *dinp,
                         const void *const *dout, void *const *lora, const void *inp, int N) {
    const Linear *shared = linear[first];
    const Tensor *a = shared->lora_a;
    const size_t mark = arena_mark(run->arena);
    void *du = run_take(run, (size_t)N, (size_t)shared->rank);
    for (int i = first; i < last; i++) {
        const Linear *l = linear[i];
        const Tensor *b = l->lora_b;
        if (b->grad) {
            RUN(run, matmul_bwd_weight, b->grad, NULL, dout[i], lora[i], N, l->out, l->rank);
        }
        RUN(run, matmul_bwd_input, du, dout[i], b->data, b->packed_bwd, N, l->out, l->rank,
            i > first, NULL);
    }
    RUN(run, scale_fwd, du, du, shared->scale, (size_t)N * shared->rank);
    if (a->grad) {
        RUN(run, matmul_bwd_weight, a->grad, NULL, du, inp, N, shared->rank, shared->in);
    }
    if (dinp) {
        RUN(run, matmul_bwd_input, dinp, du, a->data, a->packed_bwd, N, shared->rank, shared->in,
            true, NULL);
    }
    arena_release(run->arena, mark);
}

void linears_bwd(Run *run, const Linear *const *linear, int count, void *dinp,
                 const void *const *dout, void *const *lora, const void *inp, int N) {
    CHECK(count >= 1 && count <= LINEAR_GROUP, "count=%d", count);
    for (int i = 0; i < count; i++) {
        const Linear *l = linear[i];
        float *dweight = grad_of(l->weight), *dbias = grad_of(l->bias);
        if (dweight || dbias) {
            RUN(run, matmul_bwd_weight, dweight, dbias, dout[i], inp, N, l->out, l->in);
        }
        if (dinp) {
            RUN(run, matmul_bwd_input, dinp, dout[i], l->weight->data, l->weight->packed_bwd, N,
                l->out, l->in, i > 0, NULL);
        }
    }
    for (int first = 0, last; first < count; first = last) {
        for (last = first + 1; last < count && linear[last]->lora_a == linear[first]->lora_a;) {
            last++;
        }
        if (linear[first]->lora_a) {
            adapters_bwd(run, linear, first, last, dinp, dout, lora, inp, N);
        }
    }
}

void linear_fwd(Run *run, const Linear *linear, void *out, void **lora, const void *inp, int N) {
    linears_fwd(run, &linear, 1, &out, lora, inp, N);
}

void linear_bwd(Run *run, const Linear *linear, void *dinp, const void *dout, void *lora,
                const void *inp, int N) {
    linears_bwd(run, &linear, 1, dinp, &dout, &lora, inp, N);
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

void norm_bwd(Run *run, const Norm *norm, const NormState *state, void *dinp, const void *dout,
              const void *inp, int N) {
    if (norm->kind == NORM_RMS) {
        RUN(run, rmsnorm_bwd, dinp, norm->weight->grad, dout, inp, norm->weight->data, state->rstd,
            N, norm->C);
    } else {
        RUN(run, layernorm_bwd, dinp, norm->weight->grad, norm->bias->grad, dout, inp,
            norm->weight->data, state->mean, state->rstd, N, norm->C);
    }
}
