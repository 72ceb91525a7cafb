// demo_world: the embedded benchmark's small world, in which retriever training through a reader
// pays.
//
// A case has four independent uniform attributes. The label is 2 * finding + extent (12 classes).
//   device (8)    a strong smooth background, named in every caption: it owns the pretrained
//                 similarity
//   quadrant (4)  where the lesion is, named in every caption
//   finding (6)   a fine texture that sums to zero over every aligned 2x2 block. The reader sees
//                 the image after 2x2 averaging, so it never sees the texture: it needs a caption
//                 that names the right finding
//   extent (2)    the lesion's size, which the reader must read from the query image
// Captions name the finding only sometimes, and sometimes a wrong one. A good retriever must match
// the texture and prefer captions that say something; both can be learned only through the reader.
#ifndef JOMED_HOST_DEMO_WORLD_H
#define JOMED_HOST_DEMO_WORLD_H

#include <stdint.h>

#include "kernels/base.h"

enum { DEMO_SIDE = 32, DEMO_DEVICES = 8, DEMO_QUADRANTS = 4, DEMO_FINDINGS = 6, DEMO_EXTENTS = 2,
       DEMO_CLASSES = DEMO_FINDINGS * DEMO_EXTENTS };

typedef struct {
    int device, quadrant, finding, extent;
    int named_finding; // what the caption says, or -1 when it says nothing about the finding
    char caption[96];  // words separated by one blank, no [CLS]
    uint8_t pixels[DEMO_SIDE * DEMO_SIDE]; // one channel, row-major
} DemoCase;

// Draws one case. p_finding: chance that the caption names a finding; p_wrong: chance that the
// named one is wrong (then uniform over the other five). finding: 0..5 to force it, -1 to draw it.
void demo_case(DemoCase *out, Rng *rng, double p_finding, double p_wrong, int finding);

int demo_label(const DemoCase *demo); // 2 * finding + extent

// The whole-word vocabulary of captions and prompts; *count words. Classes are the words
// label0..11.
const char *const *demo_words(int *count);
const char *const *demo_class_names(void); // DEMO_CLASSES words

#endif
