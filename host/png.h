// png: PNG files to pictures and back, by libpng.
#ifndef JOMED_HOST_PNG_H
#define JOMED_HOST_PNG_H

#include "image.h"

// Decodes a whole PNG to 8 bits. Palettes become RGB, a transparent colour (tRNS) becomes alpha, 1,
// 2 and 4 bit grey is stretched to 0..255; Image.mode tells which it was. Of an animated file the
// default picture is taken. 16-bit samples keep their high byte, as in Pillow, with one deliberate
// difference: Pillow clips 16-bit *grey* to 255 on its way to RGB, which turns a radiograph white.
// Gamma and profiles are not applied. On error *out is empty. *warnings is increased by what libpng
// mended (a bad text chunk, a wrong profile). The error's offset is the byte reached. Sizes are
// checked before memory is taken, also against the most that so many bytes can inflate to.
Error png_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                 int *warnings);
// The same at full depth: *out is (height,width,4) RGBA, 16 bits each; the caller frees it.
Error png_decode16(const void *bytes, size_t size, const ImageLimits *limits, int *width,
                   int *height, uint16_t **out, int *warnings);
// The bytes of a PNG file holding this picture; the caller frees.
uint8_t *png_encode_new(const Image *image, size_t *size);

#endif
