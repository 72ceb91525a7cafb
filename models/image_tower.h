// image_tower: a vision transformer from pixels to one embedding per image.
//   x = [cls ; unfold(pixels) W^T + b] + pos     [ln_pre]     blocks     final norm of the CLS row
//   [projection, no bias]
// One code for jina-clip-v1 (EVA02: sub-norms, gated MLP, 2-D RoPE on patches beside the learned
// table), OpenAI CLIP and timm's ViT (BiomedCLIP). Leaves out patch dropout, and the L2 norm, which
// is the caller's (retriever.h). Sources: Koukounas et al. 2024 (jina-clip-v1); Fang et al. 2023
// (EVA-02); Radford et al. 2021 (CLIP); the names are those of the published checkpoints.
#ifndef JOMED_MODELS_IMAGE_TOWER_H
#define JOMED_MODELS_IMAGE_TOWER_H

#include "block.h"

typedef enum { IMAGE_JINA, IMAGE_CLIP, IMAGE_OPEN_CLIP, IMAGE_TIMM } ImageForm; // whose names
typedef struct {
    ImageForm form;
    int image_size, P, L, E; // E = C where there is no projection
    BlockConfig block;       // C, H, D, F and the choices
    bool has_patch_bias, has_ln_pre, has_projection;
    double theta;            // of the 2-D RoPE; unused without has_rope
    int unfrozen;            // groups a query head trains, see image_tower_unfreeze; 0: all
} ImageTowerConfig;
// Presets: "tiny", "jina-clip-v1", "clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "biomedclip".
// False: no such preset.
bool image_tower_preset(ImageTowerConfig *config, const char *name);

typedef struct {
    ImageTowerConfig config;
    int T;             // rows of one image: 1 + patches
    Tensor *cls, *pos; // (C) and (T,C) elements
    Linear patch, projection;
    Norm ln_pre, norm;
    BlockStack blocks;
    HostIds scratch;
} ImageTower;

typedef struct {
    int B;
    int32_t *patch_rows, *cls_rows, *pos_ids, *zeros; // (B*(T-1)), (B), (B*T), (B)
    void *patches, *embedded; // unfolded pixels; rows before ln_pre
    void *cls, *normed;       // CLS rows before and after the norm
    void *patch_lora, *projection_lora;
    NormState ln_pre, norm;
    StackState blocks;
} ImageTowerState;

// Adds the tower's tensors to list; the caller marks and allocates. image_tower_free frees all but
// these.
ImageTower image_tower_new(TensorList *list, const ImageTowerConfig *config);
void image_tower_free(ImageTower *tower);
// Marks what config.unfrozen says: with n > 0 the last n blocks, the final norm, which belongs to
// the last of them, and the projection; with more than L everything. Source: open_clip's locked
// towers with timm's groups, as the method's original trains BiomedCLIP (n = 4).
void image_tower_unfreeze(TensorList *list, const ImageTower *tower);
// out: (B,E) t, not normalised   pixels: (B,3,S,S) f32 on the device, already scaled
void image_tower_fwd(Run *run, ImageTower *tower, ImageTowerState *state, void *out,
                     const float *pixels, int B);
// Parameter gradients from dout (B,E). No gradient of the pixels.
void image_tower_bwd(Run *run, ImageTower *tower, ImageTowerState *state, const void *dout);

#endif
