// processor_file: what a model's folder says about its pictures, as a ProcessorConfig.
//
// Three layouts: preprocessor_config.json of Transformers (4 and before), the member
// "image_processor" of processor_config.json (Transformers 5), and "preprocess_cfg" of
// open_clip_config.json. Known processors: CLIP, jina-clip, Qwen2-VL, Pixtral and open_clip's. A
// member that could change the picture and is not known here, or asks for what is not built
// (padding, other scales, Lanczos), is refused by its name.
// Source: behaviour of Transformers 4.48 and 5.23, open_clip 3, jina-clip-implementation.
#ifndef JOMED_HOST_PROCESSOR_FILE_H
#define JOMED_HOST_PROCESSOR_FILE_H

#include "processor.h"

// The text (size bytes) of one of the three files; which one is told by its members. *out is
// written on success only. Errors: EXIT_BAD_DATA; the offset is a byte where it is not JSON.
//
// What the files leave open. Scaling is SCALE_FUSED where the type ends in "Fast" and in
// Transformers 5, else SCALE_DIVIDE. A file of one layout does not say which release wrote it:
// Pixtral's sides are rounded down, as since 4.49, and Qwen2-VL takes sides below 28, as since
// 4.50. do_convert_rgb=false is read as true: the originals then fail on what is not RGB.
Error processor_parse(ProcessorConfig *out, const void *text, size_t size);

// From the first of these files in the folder: preprocessor_config.json, processor_config.json
// (when it has an image processor), open_clip_config.json. The text begins with the file's name.
// EXIT_NO_INPUT: none is there.
Error processor_open(ProcessorConfig *out, const char *dir);

#endif
