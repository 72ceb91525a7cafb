// device_cpu: the CPU as a device. Memory is aligned heap memory, work is done when the call
// returns.
#define _POSIX_C_SOURCE 200809L
#include "device.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"
#include "ops.h"

struct Device {
    DeviceKind kind;
    int threads;
    size_t in_use;
    char name[96];
};

typedef struct {
    size_t bytes;
    char pad[248]; // keeps the payload on a 256-byte boundary
} Header;

void device_threads_sleep(char **argv) {
    if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT")) {
        setenv("OMP_WAIT_POLICY", "passive", 1);
        execv("/proc/self/exe", argv);
    }
}

Device *device_new(DeviceKind kind, int index, int threads) {
    if (kind != DEVICE_CPU) {
        die(EXIT_NO_DEPENDENCY, "device: this build has no CUDA backend; use device=cpu");
    }
    CHECK(index == 0, "index=%d", index);
#if defined(__AVX2__) && defined(__FMA__) // this build uses them everywhere
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        die(EXIT_RESOURCE, "device: this CPU lacks AVX2 or FMA (x86-64-v3, 2013 or newer); "
                           "rebuild with make CPUFLAGS= for a slow portable program");
    }
#endif
    Device *dev = xcalloc(1, sizeof *dev);
    dev->kind = kind;
    dev->threads = threads > 0 ? threads : omp_get_max_threads();
    snprintf(dev->name, sizeof dev->name, "cpu, %d thread%s", dev->threads,
             dev->threads == 1 ? "" : "s");
    return dev;
}

void device_free(Device *dev) { free(dev); }
DeviceKind device_kind(const Device *dev) { return dev->kind; }
const char *device_name(const Device *dev) { return dev->name; }
int device_threads(const Device *dev) { return dev->threads; }
const Ops *device_ops(const Device *dev) {
    (void)dev;
    return &ops_cpu;
}

void *device_alloc(Device *dev, size_t bytes, const char *what) {
    size_t total;
    Header *header = NULL;
    if (!size_add(bytes, sizeof(Header) + 255, &total)) {
        die(EXIT_RESOURCE, "memory: %zu bytes for %s do not fit in an address space", bytes, what);
    }
    header = aligned_alloc(256, total / 256 * 256);
    if (!header) {
        die(EXIT_RESOURCE, "memory: cannot get %zu bytes for %s", bytes, what);
    }
    header->bytes = bytes;
    dev->in_use += bytes;
    return header + 1;
}

void device_release(Device *dev, void *memory) {
    if (memory) {
        Header *header = (Header *)memory - 1;
        dev->in_use -= header->bytes;
        free(header);
    }
}

size_t device_bytes_in_use(const Device *dev) { return dev->in_use; }

void device_copy_in(Device *dev, void *to, const void *from_host, size_t bytes) {
    (void)dev;
    memcpy(to, from_host, bytes);
}

void device_copy_out(Device *dev, void *to_host, const void *from, size_t bytes) {
    (void)dev;
    memcpy(to_host, from, bytes);
}

void device_copy(Device *dev, void *to, const void *from, size_t bytes) {
    (void)dev;
    memmove(to, from, bytes);
}

void device_zero(Device *dev, void *memory, size_t bytes) {
    (void)dev;
    if (bytes) {
        memset(memory, 0, bytes);
    }
}

void device_use(Device *dev, StreamId stream) {
    (void)dev;
    CHECK(stream < STREAM_COUNT, "stream=%d", (int)stream);
}

DeviceEvent device_record(Device *dev) {
    (void)dev;
    DeviceEvent event = {0};
    return event;
}

void device_wait(Device *dev, DeviceEvent event) {
    (void)dev;
    (void)event;
}

void device_sync(Device *dev) { (void)dev; }
