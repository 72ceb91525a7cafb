// device_backend: what device.c asks of a backend. Private to device*.c and *.cu.
//
// A backend is one table of functions. device.c keeps what is the same everywhere: the checks, the
// list of live allocations and the messages; contracts are those of device.h.
#ifndef JOMED_KERNELS_DEVICE_BACKEND_H
#define JOMED_KERNELS_DEVICE_BACKEND_H

#include <stdbool.h>

#include "device.h"

typedef struct {
    void *memory;
    size_t bytes;
    char what[40];
} DeviceBlock;

typedef struct DeviceBackend {
    DeviceKind kind;
    const struct Ops *ops;
    // Whether this machine has the device; if not, why holds the reason.
    bool (*probe)(int index, char *why, size_t size);
    void (*open)(Device *dev, int index, int threads); // fills name, threads, arch and state
    void (*close)(Device *dev);
    void *(*alloc)(Device *dev, size_t bytes); // bytes >= 1; NULL when memory is out
    void (*release)(Device *dev, void *memory);
    void (*copy_in)(Device *dev, void *to, const void *from_host, size_t bytes);
    void (*copy_out)(Device *dev, void *to_host, const void *from, size_t bytes);
    void (*copy)(Device *dev, void *to, const void *from, size_t bytes);
    void (*zero)(Device *dev, void *memory, size_t bytes);
    void (*use)(Device *dev, StreamId stream);
    DeviceEvent (*record)(Device *dev);
    void (*wait)(Device *dev, DeviceEvent event);
    void (*sync)(Device *dev);
    void (*timer_start)(Device *dev);
    double (*timer_stop)(Device *dev);
    bool (*memory)(Device *dev, size_t *free_bytes, size_t *total); // NULL: the host's memory
} DeviceBackend;

struct Device {
    const DeviceBackend *backend;
    const struct Ops *ops; // the backend's, or those with some of a vendor's among them
    void *state; // the backend's own
    size_t cache_bytes;
    double timer_start; // of the CPU
    int threads, arch;
    char name[96];
    DeviceBlock *block; // (block_count) live allocations
    size_t block_count, block_room, in_use;
    const char *(*advice)(const char *what); // or NULL
};

#ifdef __cplusplus
extern "C" {
#endif

// A backend that was not linked is not there: its address is NULL.
extern const DeviceBackend device_backend_cpu;
extern const DeviceBackend device_backend_cuda __attribute__((weak));
extern const DeviceBackend device_backend_emu __attribute__((weak));

#ifdef __cplusplus
}
#endif
#endif
