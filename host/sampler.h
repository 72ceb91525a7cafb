// sampler: the one global order of samples. Position p of the stream of samples is a pure function
// of (seed, p), so that a run resumes anywhere and rank r of W takes positions p with p mod W = r.
#ifndef JOMED_HOST_SAMPLER_H
#define JOMED_HOST_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int n;             // items
    uint64_t seed;
    int C;             // classes, 0: plain order
    int *members;      // balanced: items grouped by class
    int *start;        // (C+1) first member of each class
    bool is_cyclic;    // exact.min_class
    bool is_reseeded;  // exact.reseed
    int epoch_size;    // positions per epoch
    int epoch;         // of the order below, -1 none
    int *order;        // (epoch_size) items of the epoch
} Sampler;

// A fresh permutation of all n items every epoch.
Sampler *sampler_new(int n, uint64_t seed);
// Class-balanced: an epoch has n places, dealt to the classes in turn; a class runs through its own
// items in a random order and starts over when it is used up, so that rare ones are repeated.
// label: (n) classes 0..C-1; classes without items are left out.
Sampler *sampler_balanced_new(const int *label, int n, int C, uint64_t seed);
// exact.min_class: classes in cyclic order, each item at most once an epoch, truncated to the size
// of the rarest class; the order within a class is fresh every epoch.
Sampler *sampler_min_class_new(const int *label, int n, int C, uint64_t seed);
// exact.reseed, of the two samplers with classes and before the first item: items within a class
// come in the order of Python's random.shuffle, class after class from one generator, which starts
// from the seed in every epoch. So all epochs are alike, and with exact.min_class whatever is not
// among the first of its class is never shown. Source: JOMED's breast and retina tasks.
void sampler_reseed(Sampler *sampler);
void sampler_free(Sampler *sampler);
int sampler_item(Sampler *sampler, int64_t position);

#endif
