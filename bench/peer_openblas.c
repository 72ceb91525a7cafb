// peer_openblas: cblas_sgemm by dlopen; see peer_openblas.h. No header of the library is needed:
// the three functions used have had these prototypes since the reference BLAS.
#define _POSIX_C_SOURCE 200809L
#include "bench/peer_openblas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 }; // CBLAS's numbers
typedef void sgemm_fn(int order, int a_form, int b_form, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);
static sgemm_fn *sgemm;
static char name[64];

bool peer_openblas_open(void) {
    static bool was_tried;
    if (was_tried) {
        return sgemm != NULL;
    }
    was_tried = true;
    // Its idle threads must not spin while ours are timed (2^4 clocks, the least it takes).
    setenv("OPENBLAS_THREAD_TIMEOUT", "4", 0);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    void (*set_threads)(int) = NULL;
    const char *(*corename)(void) = NULL;
    if (library) { // POSIX's way of taking a function from dlsym
        *(void **)&sgemm = dlsym(library, "cblas_sgemm");
        *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
        *(void **)&corename = dlsym(library, "openblas_get_corename");
    }
    if (!sgemm || !set_threads || !corename) {
        fprintf(stderr, "bench: no libopenblas.so.0, its columns are left out; "
                        "apt-get install libopenblas0-pthread\n");
        sgemm = NULL;
        return false;
    }
    set_threads(bench_threads());
    snprintf(name, sizeof name, "OpenBLAS(%s)", corename());
    return true;
}

const char *peer_openblas_name(void) { return name; }

void peer_openblas_product(bool a_is_transposed, bool b_is_transposed, int rows, int columns,
                           int depth, const float *a, const float *b, float keep, float *c) {
    sgemm(ROW_MAJOR, a_is_transposed ? TRANSPOSED : PLAIN, b_is_transposed ? TRANSPOSED : PLAIN,
          rows, columns, depth, 1, a, a_is_transposed ? rows : depth, b,
          b_is_transposed ? depth : columns, keep, c, columns);
}
