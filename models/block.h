// block: the one transformer block, in all the forms the towers need, and a stack of them.
//
//   pre-norm                               post-norm (BERT, JinaBERT)
//     h = x + attn(norm1 x)                  h   = norm1(attn(x) + x)
//     out = h + mlp(norm2 h)                 out = norm2(mlp(h) + h)
//   attn(u) = o([inner_norm] softmax(scale rope(q u) rope(k u)^T + alibi + mask) v u)
//   mlp(u)  = down([mlp_norm] act(up u))        or, gated,  down([mlp_norm] (act(gate u) * up u))
//   scale = D^-0.5; sequences never see each other.
// A model states a BlockConfig and a table of names; block.c does the rest. Leaves out dropout
// and layer scale. Sources: Vaswani et al. 2017; Fang et al. 2023 (EVA-02, sub-norms);
// Press et al. 2022 (ALiBi); Su et al. 2021 (RoPE); Shazeer 2020 (gated MLP).
#ifndef JOMED_MODELS_BLOCK_H
#define JOMED_MODELS_BLOCK_H

#include "kv_cache.h"
#include "layer.h"
#include "lora.h"

// The parts of a block, in the order of its tensors. Each name appears here once: the lists
// generate the struct, the names and the tensors.
#define BLOCK_NORMS(X) X(norm1) X(inner_norm) X(norm2) X(mlp_norm)
#define BLOCK_LINEARS(X) X(q) X(k) X(v) X(o) X(gate) X(up) X(down)

// Where a part is found in a checkpoint, below the block's own prefix.
typedef struct {
    const char *module; // "attn.q_proj": tensors are module.weight and module.bias
    const char *bias;   // whole name of the bias where it is another, as "attn.q_bias"; else NULL
    const char *weight; // likewise of the weight, as "attn.in_proj_weight"
    int slice, slices;  // number and count of parts of a fused module, as "attn.qkv"; else 0, 0
} PartName;
typedef struct {
#define X(part) PartName part;
    BLOCK_NORMS(X) BLOCK_LINEARS(X)
#undef X
} BlockNames;
extern const BlockNames block_names_jina_image, block_names_jina_text, block_names_clip,
    block_names_open_clip, block_names_timm, block_names_bert, block_names_pixtral_vision,
    block_names_llama; // timm also serves Qwen2-VL vision, llama Qwen2 and Mistral

typedef struct {
    int C, H, Hkv, D, F;
    NormKind norm;
    float eps;
    bool is_post_norm;
    bool has_inner_norm, has_mlp_norm; // EVA02's sub-norms
    bool is_causal;
    bool has_alibi;
    bool has_rope; // tables come with the batch
    RopePairing pairing;
    bool is_gated; // else there is no gate
    Activation act;
#define X(part) bool has_##part##_bias;
    BLOCK_LINEARS(X)
#undef X
    LoraConfig lora; // on every linear layer of the block
    const BlockNames *names;
} BlockConfig;

typedef struct {
    BlockConfig config;
#define X(part) Norm part;
    BLOCK_NORMS(X)
#undef X
#define X(part) Linear part;
    BLOCK_LINEARS(X)
#undef X
} Block;

// The rows of one pass: B packed sequences.
typedef struct {
    int B, N, max_T;
    const int32_t *cu_seqlens;   // (B+1) on the device
    const float *cosine, *sine;  // (N,D/2), for has_rope
    const float *alibi;          // (H) slopes; stack_fwd sets it
    KvPass kv;                   // kv.cache NULL: keys and values are those of this pass alone
    int layer;                   // of the block in the stack; stack_fwd sets it
} BlockBatch;

// What the backward needs, all in the run's arena. (N,C) unless said.
typedef struct {
    const void *attn_in, *mlp_in;        // what q, k, v and gate, up read
    void *q, *k, *v, *attn, *inner;      // q, attn, inner (N,H*D); k, v (N,Hkv*D)
    void *sum1, *mid, *sum2;             // sums: post-norm only, before norm1 and norm2
    void *gate, *up, *act, *down_in;     // (N,F)
    float *lse; // (H,N)
#define X(part) NormState part;
    BLOCK_NORMS(X)
#undef X
#define X(part) void *part##_lora;
    BLOCK_LINEARS(X)
#undef X
} BlockState;

typedef struct {
    Block *block; // (L)
    int L;
    float *slopes; // (H) of ALiBi on the host, or NULL
} BlockStack;
typedef struct {
    void *x[MAX_LAYERS + 1]; // x[l] is the input of block l, x[L] the output
    BlockState block[MAX_LAYERS];
    BlockBatch batch;
} StackState;

// Adds the tensors of L blocks. prefix "blocks." gives "blocks.0.", "blocks.1.", ...
BlockStack stack_new(TensorList *list, const BlockConfig *config, int L, const char *prefix);
void stack_free(BlockStack *stack); // not the tensors, which are the list's
// Runs the blocks on x (N,C), which is overwritten unless the run trains. Returns the output.
void *stack_fwd(Run *run, const BlockStack *stack, StackState *state, void *x,
                const BlockBatch *batch);
// d (N,C): the gradient of the output on entry, that of the input on return, unless wants_dx is
// false: then the first trainable block stops at its parameters, and d is spoiled.
void stack_bwd(Run *run, const BlockStack *stack, const StackState *state, void *d, bool wants_dx);
bool stack_is_trainable(const BlockStack *stack); // any tensor
// ALiBi slopes of H heads (Press et al. 2022): 2^(-8k/n), n the lower power of two, then every
// other entry of the series of 2n.
void alibi_slopes(float *slopes, int H);

#endif
