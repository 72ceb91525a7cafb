// vendor: how a library of NVIDIA's is loaded at run time, so that neither the build nor a machine
// without it needs it. Only for vendor_*.cu, whose functions are declared there from the library's
// documentation: its headers need not be there either.
#ifndef JOMED_KERNELS_VENDOR_CUH
#define JOMED_KERNELS_VENDOR_CUH

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda_common.cuh"

// Opens the first of `names` that is there, where the loader looks (LD_LIBRARY_PATH), then below
// CUDA_HOME. NULL, and why, when none is.
static inline void *vendor_open(const char *const *names, int count, char *why, size_t size) {
    const char *home = getenv("CUDA_HOME");
    for (int i = 0; i < 2 * count; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s%s", i < count || !home ? "" : home,
                 i < count || !home ? "" : "/lib64/", names[i % count]);
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library) {
            return library;
        }
    }
    snprintf(why, size, "%s is not there; put its folder into LD_LIBRARY_PATH", names[0]);
    return NULL;
}

// Dies with EXIT_RESOURCE, the call, its place and the library's status; 0 is success.
#define VENDOR_CHECK(table, call) vendor_check(table.call, #call, __FILE__, __LINE__)
static inline void vendor_check(int status, const char *call, const char *file, int line) {
    if (status != 0) {
        die(EXIT_RESOURCE, "%s:%d: %.40s: status %d", file, line, call, status);
    }
}

// A function of a library by its name, and where its address goes.
typedef struct {
    const char *name;
    void **address;
} VendorFunction;

// vendor_open, and the library's functions. False, and why, when it is not there or lacks one.
static inline bool vendor_load(const char *const *names, int count, const VendorFunction *functions,
                               int function_count, char *why, size_t size) {
    void *library = vendor_open(names, count, why, size);
    for (int i = 0; library && i < function_count; i++) {
        *functions[i].address = dlsym(library, functions[i].name);
        if (!*functions[i].address) {
            snprintf(why, size, "the library has no %s: it is too old", functions[i].name);
            return false;
        }
    }
    return library;
}

#endif
