// peer_openblas: OpenBLAS as something to be measured against, loaded at run time.
#ifndef JOMED_BENCH_PEER_OPENBLAS_H
#define JOMED_BENCH_PEER_OPENBLAS_H

#include <stdbool.h>

// Loads libopenblas and gives it as many threads as the bench's device has. False, after one line
// on stderr, where the library is absent. Later calls only answer.
bool peer_openblas_open(void);
const char *peer_openblas_name(void); // "OpenBLAS" and the kernels it chose

// c (rows,columns) = keep c + op(a) op(b), row-major f32; op transposes: a is then (depth,rows), b
// (columns,depth).
void peer_openblas_product(bool a_is_transposed, bool b_is_transposed, int rows, int columns,
                           int depth, const float *a, const float *b, float keep, float *c);

#endif
