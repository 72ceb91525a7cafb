// exact_act: the activations in double precision, by the C library, for tests.
#ifndef JOMED_TESTS_EXACT_ACT_H
#define JOMED_TESTS_EXACT_ACT_H

#include "kernels/activation.h"

typedef struct {
    double value, slope;
    double terms; // |G| + |x G'|: what the slope's error is measured against
} Exact;
Exact exact_act(Activation act, double x); // in test_activation.c

#endif
