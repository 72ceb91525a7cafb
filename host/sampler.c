// sampler: see sampler.h.
#include "sampler.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"
#include "python_random.h"

static Sampler *new_sampler(int n, uint64_t seed, int epoch_size) {
    CHECK(n >= 1 && epoch_size >= 1, "n=%d epoch_size=%d", n, epoch_size);
    Sampler *sampler = xcalloc(1, sizeof *sampler);
    *sampler = (Sampler){.n = n, .seed = seed, .epoch_size = epoch_size, .epoch = -1};
    sampler->order = xmalloc((size_t)epoch_size, sizeof *sampler->order);
    return sampler;
}

Sampler *sampler_new(int n, uint64_t seed) { return new_sampler(n, seed, n); }

// Groups items by class and drops empty classes.
static Sampler *new_classes(const int *label, int n, int C, uint64_t seed, bool is_cyclic) {
    int *members = xmalloc((size_t)n, sizeof *members),
        *start = xcalloc((size_t)C + 1, sizeof *start);
    int used = 0, classes = 0, rarest = n;
    for (int c = 0; c < C; c++) {
        const int before = used;
        for (int i = 0; i < n; i++) {
            if (label[i] == c) {
                members[used++] = i;
            }
        }
        if (used > before) {
            start[++classes] = used;
            rarest = used - before < rarest ? used - before : rarest;
        }
    }
    CHECK(used == n, "%d of %d items have a class", used, n);
    Sampler *sampler = new_sampler(n, seed, is_cyclic ? rarest * classes : n);
    sampler->C = classes;
    sampler->members = members;
    sampler->start = start;
    sampler->is_cyclic = is_cyclic;
    return sampler;
}

Sampler *sampler_balanced_new(const int *label, int n, int C, uint64_t seed) {
    return new_classes(label, n, C, seed, false);
}

Sampler *sampler_min_class_new(const int *label, int n, int C, uint64_t seed) {
    return new_classes(label, n, C, seed, true);
}

void sampler_reseed(Sampler *sampler) {
    CHECK(sampler->C > 0 && sampler->epoch == -1, "C=%d epoch=%d", sampler->C, sampler->epoch);
    sampler->is_reseeded = true;
}

void sampler_free(Sampler *sampler) {
    if (sampler) {
        free(sampler->members);
        free(sampler->start);
        free(sampler->order);
        free(sampler);
    }
}

// Fisher-Yates over n items, by Python's numbers where there are any: its random.shuffle.
static void shuffle(int *items, int n, Rng *rng, PythonRandom *python) {
    for (int i = n - 1; i > 0; i--) {
        const uint32_t left = (uint32_t)i + 1;
        const int j = (int)(python ? python_random_below(python, left) : rng_below(rng, left)),
                  swap = items[i];
        items[i] = items[j];
        items[j] = swap;
    }
}

// Deals the places of an epoch to the classes in turn.
static void deal_classes(Sampler *sampler, int epoch) {
    int *mine = xmalloc((size_t)sampler->n, sizeof *mine);
    memcpy(mine, sampler->members, (size_t)sampler->n * sizeof *mine);
    PythonRandom python; // of all classes, one after the other
    python_random_seed(&python, sampler->seed);
    for (int c = 0; c < sampler->C; c++) {
        const int first = sampler->start[c], size = sampler->start[c + 1] - first;
        Rng rng = rng_new(sampler->seed, RNG_BALANCE, (uint32_t)epoch, (uint32_t)c);
        shuffle(mine + first, size, &rng, sampler->is_reseeded ? &python : NULL);
        for (int k = 0; k * sampler->C + c < sampler->epoch_size; k++) {
            sampler->order[k * sampler->C + c] = mine[first + k % size];
        }
    }
    free(mine);
}

int sampler_item(Sampler *sampler, int64_t position) {
    CHECK(position >= 0, "position %lld", (long long)position);
    const int epoch = (int)(position / sampler->epoch_size);
    if (epoch != sampler->epoch) {
        if (sampler->C) {
            deal_classes(sampler, epoch);
        } else {
            for (int i = 0; i < sampler->n; i++) {
                sampler->order[i] = i;
            }
            Rng rng = rng_new(sampler->seed, RNG_ORDER, (uint32_t)epoch, 0);
            shuffle(sampler->order, sampler->n, &rng, NULL);
        }
        sampler->epoch = epoch;
    }
    return sampler->order[position % sampler->epoch_size];
}
