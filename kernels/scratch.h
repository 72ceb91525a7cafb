// scratch: growable buffers, one set per thread, for ops that pack their inputs into tiles.
//
// An op inside a parallel region cannot take its tiles from an arena that all threads share, and a
// malloc per call would cost more than the small shapes themselves. A buffer grows to the largest
// tile its thread has needed and is then reused: a step in steady state allocates nothing. It goes
// with its thread: OpenMP ends threads when a smaller team follows a larger one.
#ifndef JOMED_KERNELS_SCRATCH_H
#define JOMED_KERNELS_SCRATCH_H

#include <stddef.h>

// Whose buffer: an op that holds its own may call matmul, which holds another.
typedef enum { SCRATCH_OP, SCRATCH_MATMUL, SCRATCH_COUNT } ScratchUse;

// At least n bytes, aligned to 64, contents undefined, valid until this thread's next call for the
// same use. Dies with EXIT_RESOURCE when memory is out.
void *scratch_bytes(ScratchUse use, size_t n);
// The buffer of an op, in floats.
float *scratch_floats(size_t n);

#endif
