// python_random: see python_random.h.
#include "python_random.h"

#include "kernels/base.h"

enum { N = PYTHON_RANDOM_WORDS, M = 397 };

static void fill(uint32_t *word, uint32_t seed) {
    word[0] = seed;
    for (uint32_t i = 1; i < N; i++) {
        word[i] = 1812433253u * (word[i - 1] ^ word[i - 1] >> 30) + i;
    }
}

// The step of init_by_array's two rounds; i walks 1 .. N-1 and wraps.
static int next_word(uint32_t *word, int i) {
    if (++i < N) {
        return i;
    }
    word[0] = word[N - 1];
    return 1;
}

void python_random_seed(PythonRandom *random, uint64_t seed) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t length = key[1] ? 2 : 1;
    uint32_t *const word = random->word;
    fill(word, 19650218u);
    int i = 1;
    for (uint32_t k = 0; k < N; k++) { // N rounds, because keys are shorter than N
        word[i] = (word[i] ^ (word[i - 1] ^ word[i - 1] >> 30) * 1664525u) + key[k % length] +
                  k % length;
        i = next_word(word, i);
    }
    for (int k = 1; k < N; k++) {
        word[i] = (word[i] ^ (word[i - 1] ^ word[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        i = next_word(word, i);
    }
    word[0] = 0x80000000u;
    random->used = N;
}

static void twist(uint32_t *word) {
    for (int i = 0; i < N; i++) {
        const uint32_t y = (word[i] & 0x80000000u) | (word[(i + 1) % N] & 0x7fffffffu);
        word[i] = word[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t python_random_bits(PythonRandom *random, int bits) {
    CHECK(bits >= 1 && bits <= 32, "bits=%d", bits);
    if (random->used == N) {
        twist(random->word);
        random->used = 0;
    }
    uint32_t y = random->word[random->used++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return (y ^ y >> 18) >> (32 - bits);
}

uint32_t python_random_below(PythonRandom *random, uint32_t n) {
    CHECK(n >= 1, "n=%u", n);
    int bits = 1;
    while (bits < 32 && n >> bits) {
        bits++;
    }
    uint32_t draw = python_random_bits(random, bits);
    while (draw >= n) {
        draw = python_random_bits(random, bits);
    }
    return draw;
}
