// python_random: the random numbers of Python's `random`, for orders that a Python program drew.
// MT19937 with init_by_array over the 32-bit words of the seed; below(n) takes the upper bits of
// words, as many as n has, until the number is below n. Left out: floats and distributions, seeds
// that are no non-negative integers. Sources: Matsumoto and Nishimura 1998; the documentation of
// Python 3's module random.
#ifndef JOMED_HOST_PYTHON_RANDOM_H
#define JOMED_HOST_PYTHON_RANDOM_H

#include <stdint.h>

enum { PYTHON_RANDOM_WORDS = 624 };
typedef struct {
    uint32_t word[PYTHON_RANDOM_WORDS];
    int used; // words of this block handed out
} PythonRandom;
void python_random_seed(PythonRandom *random, uint64_t seed); // random.seed(seed)
uint32_t python_random_bits(PythonRandom *random, int bits);   // getrandbits, 1..32 bits
uint32_t python_random_below(PythonRandom *random, uint32_t n); // randrange(n), n >= 1

#endif
