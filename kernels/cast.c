// cast: the CPU definition; see cast.h. Every bf16 and every f16 is an f32, so that going through
// f32 rounds once.
#include "cast.h"

#include "base.h"
#include "chunk.h"

void cast_cpu(Device *dev, DType to, void *out, DType from, const void *inp, size_t n) {
    CHECK_POINTERS(cast, out, inp);
#pragma omp parallel for schedule(static) num_threads(threads_for(dev, n))
    for (size_t at = 0; at < n; at += CHUNK) {
        const int length = chunk_length(n, at);
        if (to == from) { // bits as they are: a signalling NaN too
            memmove(dtype_at(to, out, at), dtype_at_const(from, inp, at),
                    (size_t)length * dtype_size(to));
            continue;
        }
        float buffer[CHUNK];
        const float *x = chunk_in(buffer, from, inp, at, length);
        dtype_narrow(to, dtype_at(to, out, at), x, (size_t)length);
    }
}
