// scratch: one growable buffer of floats per thread, for ops that pack their inputs into tiles.
//
// An op inside a parallel region cannot take its tiles from an arena that all threads share, and a
// malloc per call would cost more than the small shapes themselves. The buffer grows to the largest
// tile its thread has needed and is then reused for ever: a step in steady state allocates nothing.
#ifndef JOMED_KERNELS_SCRATCH_H
#define JOMED_KERNELS_SCRATCH_H

#include <stddef.h>

// At least n floats, aligned to 64 bytes, contents undefined, valid until this thread's next call.
// Never freed: OpenMP keeps its threads to the end. Dies with EXIT_RESOURCE when memory is out.
float *scratch_floats(size_t n);

#endif
