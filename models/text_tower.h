// text_tower: a text encoder from packed token ids to one embedding per text.
//   x = word[id] (+ type[0]) (+ pos[t])   [embed norm]   blocks   [final norm]   pooling   [head]
// One code for JinaBERT (ALiBi, post-norm, gated), BERT (MiniLM, BiomedCLIP) and the causal CLIP
// text tower. Sequences are packed: there are no pad tokens. Leaves out dropout, and the L2 norm,
// which is the caller's. Sources: Guenther et al. 2023 (JinaBERT); Devlin et al. 2019 (BERT);
// Radford et al. 2021 (CLIP); the names are those of the published checkpoints.
#ifndef JOMED_MODELS_TEXT_TOWER_H
#define JOMED_MODELS_TEXT_TOWER_H

#include "block.h"

typedef enum { TEXT_JINA, TEXT_BERT, TEXT_CLIP, TEXT_OPEN_CLIP } TextForm; // whose names
typedef enum {
    POOL_MEAN,
    POOL_FIRST,
    POOL_LARGEST_ID, // the first row with the largest id (EOT of CLIP)
    POOL_EOS,        // the first row with id eos; the first of all where there is none
} TextPool;
typedef struct {
    TextForm form;
    const char *prefix;       // of all names, "text_model.transformer." for jina
    int V, L, E, max_T, types; // types: rows of the token-type table, 0 without one
    BlockConfig block;
    bool has_positions, has_embed_norm, has_final_norm, has_projection;
    int head_hidden;          // > 0: E-wide head W2 gelu(W1 x) with this width inside (BiomedCLIP)
    TextPool pool;
    int eos;                  // of POOL_EOS
    float embed_sd;           // of the initial word embeddings
} TextTowerConfig;
// Presets: "tiny", "jina-clip-v1", "clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "biomedclip",
// "minilm-l6". "tiny" leaves V = 0: set it from the tokenizer. False: no such preset.
bool text_tower_preset(TextTowerConfig *config, const char *name);

typedef struct {
    TextTowerConfig config;
    Tensor *word, *type, *pos; // (V,C), (types,C), (max_T,C); NULL when absent
    Norm embed_norm, norm;
    Linear projection, head1, head2;
    BlockStack blocks;
    HostIds scratch;
} TextTower;

// B packed sequences, on the host; a forward copies them in.
typedef struct {
    int B, N, max_T;           // N = cu_seqlens[B]
    const int32_t *ids;        // (N)
    const int32_t *cu_seqlens; // (B+1)
} TextBatch;

typedef struct {
    int B, N;
    int32_t *ids, *pos_ids, *types, *cu_seqlens, *rows; // device copies
    void *embedded, *pooled, *head_in; // before embed_norm, norm, head
    void *hidden, *activated;          // inside the head, before and after gelu
    NormState embed_norm, norm;
    StackState blocks;
} TextTowerState;

TextTower text_tower_new(TensorList *list, const TextTowerConfig *config);
void text_tower_free(TextTower *tower);
// out: (B,E) t, not normalised
void text_tower_fwd(Run *run, TextTower *tower, TextTowerState *state, void *out,
                    const TextBatch *batch);
void text_tower_bwd(Run *run, TextTower *tower, TextTowerState *state, const void *dout);

#endif
