// activation: pointwise non-linearities, plain and gated.
//   gelu        x Phi(x), exact (erf)                 Hendrycks and Gimpel 2016
//   gelu_tanh   0.5 x (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3)))
//   quick_gelu  x sigmoid(1.702 x)                    OpenAI CLIP, Qwen2-VL vision
//   silu        x sigmoid(x)
// Bits do not depend on the C library (lanes.h). act(-inf) is NaN, as in PyTorch.
// Agreement: ulp: before the rounding to t, within 8 ulp of f32 and 4e-36 (less may be flushed to
// 0). With act(x) = x G(x), the slope act' = G + x G' has a zero near x = -1, where its terms
// cancel: its 8 ulp are of |G| + |x G'|. On a GPU 16-bit types have 2^-15 of these in place of the
// 8 ulp: a sixteenth of what the rounding to f16 may add.
#ifndef JOMED_KERNELS_ACTIVATION_H
#define JOMED_KERNELS_ACTIVATION_H

#include "device.h"
#include "dtype.h"

typedef enum { ACT_GELU, ACT_GELU_TANH, ACT_QUICK_GELU, ACT_SILU, ACT_COUNT } Activation;

#ifdef __cplusplus
extern "C" {
#endif

// out[i] = act(inp[i]), i < n. out may alias inp.
typedef void activation_fwd_fn(Device *dev, DType t, void *out, const void *inp, size_t n,
                               Activation act);
// dinp[i] = dout[i] act'(inp[i]). dinp may alias dout.
typedef void activation_bwd_fn(Device *dev, DType t, void *dinp, const void *dout, const void *inp,
                               size_t n, Activation act);
// out[i] = act(gate[i]) * up[i]. out may alias either.
typedef void gated_fwd_fn(Device *dev, DType t, void *out, const void *gate, const void *up,
                          size_t n, Activation act);
// dgate[i] = dout[i] up[i] act'(gate[i])   dup[i] = dout[i] act(gate[i]). dup may alias dout.
typedef void gated_bwd_fn(Device *dev, DType t, void *dgate, void *dup, const void *dout,
                          const void *gate, const void *up, size_t n, Activation act);

activation_fwd_fn activation_fwd_cpu, activation_fwd_cuda, activation_fwd_emu;
activation_bwd_fn activation_bwd_cpu, activation_bwd_cuda, activation_bwd_emu;
gated_fwd_fn gated_fwd_cpu, gated_fwd_cuda, gated_fwd_emu;
gated_bwd_fn gated_bwd_cpu, gated_bwd_cuda, gated_bwd_emu;

#ifdef __cplusplus
}
#endif
#endif
