// fuzz_npy: one NumPy array; its data must lie in the input.
#include "fuzz.h"
#include "host/npy.h"

FUZZ(npy) {
    NpyArray array;
    const bool is_accepted = fuzz_accepts(npy_parse(&array, data, size));
    if (is_accepted) {
        fuzz_touch(array.data, array.bytes);
        if (array.count > 0) {
            npy_number(&array, 0);
            npy_number(&array, array.count - 1);
        }
    }
    npy_free(&array);
    return is_accepted;
}
