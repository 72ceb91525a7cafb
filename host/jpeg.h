// jpeg: JPEG files to pictures, by libjpeg.
#ifndef JOMED_HOST_JPEG_H
#define JOMED_HOST_JPEG_H

#include "image.h"

// Decodes a whole JPEG to grey (1 channel) or RGB (3), with libjpeg's defaults (accurate integer
// inverse transform, smooth upsampling), which are Pillow's: the same library gives the same
// pixels. Four-colour files (CMYK, YCCK) stay CMYK (4 channels, IMAGE_INKS) and are taken as
// inverted, as Adobe writes them. EXIF orientation is not applied.
// Damage libjpeg can bridge is decoded, and each instance adds one to *warnings: JPEG has no
// checksum, so these warnings are the only sign. A file that ends inside its picture is an error,
// as in Pillow; damage or an end behind the last row is a warning. On error *out is empty; the
// error's offset is the byte reached. Sizes are checked before memory is taken.
Error jpeg_decode(const void *bytes, size_t size, const ImageLimits *limits, Image *out,
                  int *warnings);

#endif
