// ops: the CPU's table, built from the list in ops.h.
#include "ops.h"

const Ops ops_cpu = {
#define X(op) .op = op##_cpu,
    OPS(X)
#undef X
};
