// pictures: inputs of the image tests, made by the formulas of tools/dump_reference_*.py or read
// from the test data.
#ifndef JOMED_TESTS_PICTURES_H
#define JOMED_TESTS_PICTURES_H

#include "host/image.h"

// Sample i is a hash of i and seed: `noise` of tools/dump_reference_images.py.
void picture_noise(uint8_t *data, size_t n, uint32_t seed);
// Grain over wide bands: `generated` of tools/dump_reference_processors.py.
Image picture_bands_new(int channels, int width, int height);
// "3x401x300" (channels, width, height) is picture_bands_new; anything else a file of the test
// data. Empty after counting a skip where that is absent.
Image picture_named_new(const char *name);

#endif
