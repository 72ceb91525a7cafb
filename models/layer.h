// layer: the linear layer (with its LoRA adapter) and the norm, forward and backward.
//   y = x W^T + b + s (x A^T) B^T,  s = alpha / r or alpha / sqrt(r)
//   dB = s dy^T (x A^T)    dA = s (dy B)^T x    dx = dy W + s (dy B) A
// A and B are tensors like any other: f32 masters, values of type t for the products, f32
// gradients. A frozen weight gets no gradient, but dx flows through it. Source: Hu et al. 2021.
#ifndef JOMED_MODELS_LAYER_H
#define JOMED_MODELS_LAYER_H

#include "model.h"

typedef struct {
    int in, out;
    Tensor *weight, *bias;     // (out,in); (out) or NULL. weight NULL: the layer does not exist
    Tensor *lora_a, *lora_b;   // (r,in), (out,r), or NULL; slices of a fused module share lora_a
    int rank;
    float scale;               // lora_scale
} Linear;

// Layers that read the same input are run together: q, k, v; gate, up. At most LINEAR_GROUP.
#define LINEAR_GROUP 3
// out[i]: (N, linear[i]->out). lora[i] (written) is s x A^T, (N,r), NULL without an adapter: the
// backward needs it. Layers that share lora_a share that buffer.
// end[i]: what the product of layer i ends in (matmul.h); it may read what the layers before put
// out. end NULL: nothing follows. The adapters' parts of them are filled in here.
void linears_fwd(Run *run, const Linear *const *linear, int count, void *const *out, void **lora,
                 const void *inp, int N, const MatmulEpilogue *end);
// dinp (N,in) = sum over the layers, or what the one end makes of it; NULL when nobody wants it.
// Parameter gradients accumulate.
void linears_bwd(Run *run, const Linear *const *linear, int count, void *dinp,
                 const void *const *dout, void *const *lora, const void *inp, int N,
                 const MatmulEpilogue *end);
// One layer.
void linear_fwd(Run *run, const Linear *linear, void *out, void **lora, const void *inp, int N,
                const MatmulEpilogue *end);
void linear_bwd(Run *run, const Linear *linear, void *dinp, const void *dout, void *lora,
                const void *inp, int N, const MatmulEpilogue *end);

typedef enum { NORM_LAYER, NORM_RMS } NormKind;
typedef struct {
    NormKind kind;
    float eps;
    int C;
    Tensor *weight, *bias; // (C); bias NULL for RMS. weight NULL: the norm does not exist
} Norm;
typedef struct {
    float *mean, *rstd; // (N); mean NULL for RMS
} NormState;
void norm_fwd(Run *run, const Norm *norm, NormState *state, void *out, const void *inp, int N);
// residual: NULL, or the gradient that comes around the norm and is added. dinp may alias dout or
// residual.
void norm_bwd(Run *run, const Norm *norm, const NormState *state, void *dinp, const void *residual,
              const void *dout, const void *inp, int N);

// Adds the tensors: name.weight and, where wanted, name.bias.
Linear linear_new(TensorList *list, const char *name, int out, int in, bool has_bias);
// No bias; the weight is called name itself, and the file holds it transposed (CLIP's x @ P).
Linear linear_transposed_new(TensorList *list, const char *name, int out, int in);
Norm norm_new(TensorList *list, const char *name, NormKind kind, int C, float eps);
bool linear_is_trainable(const Linear *linear); // any of its tensors; false when it does not exist
bool norm_is_trainable(const Norm *norm);

#endif
