// vision_tower: the eyes of a reader, from images of any size to rows for its language model.
//   Qwen2-VL: unfold by merge cells (no bias), blocks, ln_q, m*m rows side by side, W2 gelu(W0)
//   Pixtral:  unfold row by row (no bias), ln_pre, blocks, linear_2(gelu(linear_1))
// Images are packed; attention is full inside an image and never across. 2-D RoPE. Sources: Wang et
// al. 2024 (Qwen2-VL); Agrawal et al. 2024 (Pixtral 12B); names of the published checkpoints.
#ifndef JOMED_MODELS_VISION_TOWER_H
#define JOMED_MODELS_VISION_TOWER_H

#include "block.h"

typedef enum { READER_QWEN2VL, READER_PIXTRAL, READER_LLAMA } ReaderFamily;
typedef struct {
    ReaderFamily family;
    int P, L;    // L 0: there is no tower, as in READER_LLAMA
    int merge;   // side of a merge cell: 2 for Qwen2-VL, 1 for Pixtral
    int frames;  // a still image counts as this many: 2 for Qwen2-VL, 1 for Pixtral
    int C_out;   // width of the language model
    double theta;
    BlockConfig block;
} VisionConfig;

// One image, or its features when they are kept from an earlier pass.
typedef struct {
    int rows, columns;    // patches; multiples of merge. Pixels: (3, rows*P, columns*P)
    const float *pixels;  // on the host, scaled; not read when features are given
    const void *features; // (vision_tokens, C_out) t on the device, or NULL
} ReaderImage;
int vision_tokens(const VisionConfig *config, const ReaderImage *image); // rows * columns / merge^2

typedef struct {
    VisionConfig config;
    Linear patch, merge1, merge2; // merge: the merger's or projector's two layers
    Norm ln_pre, ln_q;            // Pixtral's; Qwen2-VL's
    BlockStack blocks;
    HostIds scratch;
} VisionTower;
typedef struct {
    int N;  // patches of the images that bring no features; 0: there is nothing to do
    void *patches, *embedded, *merged, *hidden, *activated;
    NormState ln_pre, ln_q;
    StackState blocks;
} VisionState;

VisionTower vision_tower_new(TensorList *list, const VisionConfig *config);
void vision_tower_free(VisionTower *tower);
// out: (sum of vision_tokens, C_out) t, of the images that bring no features, in their order.
void vision_tower_fwd(Run *run, VisionTower *tower, VisionState *state, void *out,
                      const ReaderImage *image, int count);
void vision_tower_bwd(Run *run, VisionTower *tower, VisionState *state, const void *dout);
bool vision_tower_is_trainable(const VisionTower *tower);

#endif
