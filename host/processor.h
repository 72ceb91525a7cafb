// processor: a picture to the numbers a vision tower reads.
//
//   RGB -> steps (resize, crop), each to 8 bits as Pillow -> (v / 255 - mean) / std -> (3,H,W) f32
//
// Every model's preprocessing is a list of steps. The size of the result follows from the size of
// the picture alone, so prompts can be laid out before anything is decoded. Resizing is Pillow's in
// all of them: torchvision's on tensors, which Transformers' fast processors call, differs from it
// by at most one level in 99.9 % of the samples. Sources: torchvision's and Transformers' CLIP
// processors, Qwen2-VL's and Pixtral's processors, open_clip's image_transform.
#ifndef JOMED_HOST_PROCESSOR_H
#define JOMED_HOST_PROCESSOR_H

#include "image.h"

typedef enum {
    STEP_FIXED,    // to size x size; the aspect bends
    STEP_SHORTEST, // short side to size, long side trunc(size * long / short)
    STEP_CROP,     // the middle size x size; an excess e starts at round-half-even(e / 2)
    STEP_CROP_LOW, // the same, starting at floor(e / 2): differs when e mod 4 = 3
    STEP_MULTIPLE, // Qwen2-VL's smart_resize: multiples of size, min_pixels <= area <= max_pixels;
                   // a picture that is too large keeps size in both sides, as in newer releases
    STEP_MULTIPLE_LEAST, // the same, but a side is at least size before the area is looked at
    STEP_LONGEST,  // Pixtral: longest side <= max_side, then each side up to a multiple of size
    STEP_CAP,      // a side > max_side: both times max_side / longest, truncated, at least size
    STEP_LEAST,    // a side < size becomes size
    STEP_ASPECT,   // one side more than 200 times the other becomes 180 times it
} StepKind;
// How STEP_LONGEST rounds the shrunk sides: newer Transformers, older ones, mistral-common.
typedef enum { ROUND_FLOOR, ROUND_CEIL, ROUND_HALF_EVEN } Rounding;
typedef struct {
    StepKind kind;
    ResizeFilter filter;
    int size;     // pixels, as each kind says
    int max_side; // STEP_LONGEST, STEP_CAP
    int64_t min_pixels, max_pixels; // STEP_MULTIPLE*
    Rounding rounding;              // STEP_LONGEST
} ProcessorStep;

// How u8 becomes f32; they agree to about one ulp.
typedef enum {
    SCALE_DIVIDE, // v / 255 in f32, then (x - mean) / std in f32: torchvision. Transformers' slow
                  // processors take v * (1/255) in double, to f32: the same bits for every v
    SCALE_FUSED,  // (v - 255 mean) / (255 std) in f32: Transformers' fast processors
} ScaleRule;

// When and how other kinds of pictures become RGB. Transformers 4 drops alpha, except Pixtral's
// processor; Transformers 5 lays it over white.
typedef enum {
    RGB_FIRST,    // before the steps, alpha dropped: Transformers 4, jina's encode_image
    RGB_ON_WHITE, // before the steps, alpha laid over white: Pixtral, Transformers 5
    RGB_LAST,     // behind the steps, alpha dropped: open_clip. Palettes are resized by nearest,
                  // colours with their alpha multiplied in, CMYK as inks
} RgbRule;

enum { PROCESSOR_STEPS = 4 };
typedef struct {
    ProcessorStep steps[PROCESSOR_STEPS];
    int step_count;
    RgbRule rgb;
    int box; // 1, or 2: means of 2 x 2 blocks (sides must be even); SCALE_DIVIDE only
    ScaleRule scale;
    float mean[3], std[3];
} ProcessorConfig;

// Presets: "clip" (224, half-even crop, RGB last: open_clip, BiomedCLIP), "jina" (the same, RGB
// first), "clip-hf" (224, crop from floor), "qwen2vl" and "pixtral" (the model's own rule),
// "qwen2vl-reader" and "pixtral-reader" (after the 256-pixel rule of the original's reader), "tiny"
// (32 x 32, the same statistics) and "tiny-reader" (its 2 x 2 means). False: no such name. What a
// model's folder says is read by host/processor_file.h.
#define PROCESSOR_PRESETS                                                                          \
    "jina clip clip-hf qwen2vl pixtral qwen2vl-reader pixtral-reader tiny tiny-reader"
bool processor_preset(const char *name, ProcessorConfig *config);
// Puts the rule of the original's reader before the one step of "qwen2vl" or "pixtral": sides
// capped at max_side pixels by NEAREST, then ratios above 200 cut; for Qwen2-VL, behind a first
// resize to multiples of 28.
void processor_cap_first(ProcessorConfig *config, int max_side);
// The same for fine-tuning (exact.sft_caps), of a processor whose last step is the model's own:
// whatever stood before it gives way to a cap of 512 pixels by NEAREST and, for Qwen2-VL, sides of
// at least 28 and the cut of ratios. Source: LLaMA-Factory of October 2024.
void processor_cap_for_sft(ProcessorConfig *config);
// Equal configurations give equal hashes: part of the key of cached features.
uint64_t processor_hash(const ProcessorConfig *config);

// Size of the result for a picture of width x height. Error: Qwen2-VL refuses sides of ratio above
// 200, nothing is cropped from a smaller picture, and no step makes more than 2^26 pixels.
Error processor_size(const ProcessorConfig *config, int width, int height, int *out_width,
                     int *out_height);
// The 8-bit RGB picture behind the last step, before box and scale; width and height must pass
// processor_size, as for processor_run.
Image processor_image_new(const ProcessorConfig *config, Device *dev, const Image *image);
// out: (3,H,W) f32 on the host, H and W as processor_size says.
void processor_run(const ProcessorConfig *config, Device *dev, const Image *image, float *out);

#endif
