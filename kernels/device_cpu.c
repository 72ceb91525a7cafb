// device_cpu: the CPU as a device. Memory is aligned heap memory, work is done when the call
// returns, so streams and events have nothing to order.
#define _POSIX_C_SOURCE 200809L
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"
#include "device_backend.h"
#include "ops.h"

#define ALIGN 256 // bytes

void device_threads_sleep(char **argv) {
    if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT")) {
        setenv("OMP_WAIT_POLICY", "passive", 1);
        execv("/proc/self/exe", argv);
    }
}

static bool cpu_probe(int index, char *why, size_t size) {
    CHECK(index == 0, "index=%d", index);
#if defined(__AVX2__) && defined(__FMA__) // this build uses them everywhere
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        snprintf(why, size, "this CPU lacks AVX2 or FMA (x86-64-v3, 2013 or newer)");
        return false;
    }
#endif
    (void)why; // unused where nothing can be missing
    (void)size;
    return true;
}

static void cpu_open(Device *dev, int index, int threads) {
    (void)index;
    dev->threads = threads > 0 ? threads : omp_get_max_threads();
    snprintf(dev->name, sizeof dev->name, "cpu, %d thread%s", dev->threads,
             dev->threads == 1 ? "" : "s");
}

static void cpu_close(Device *dev) { (void)dev; }

static void *cpu_alloc(Device *dev, size_t bytes) {
    (void)dev;
    return bytes > SIZE_MAX - ALIGN ? NULL
                                    : aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
}

static void cpu_release(Device *dev, void *memory) {
    (void)dev;
    free(memory);
}

static void cpu_copy_host(Device *dev, void *to, const void *from, size_t bytes) {
    (void)dev;
    memcpy(to, from, bytes);
}

static void cpu_copy(Device *dev, void *to, const void *from, size_t bytes) {
    (void)dev;
    memmove(to, from, bytes);
}

static void cpu_zero(Device *dev, void *memory, size_t bytes) {
    (void)dev;
    memset(memory, 0, bytes);
}

static void cpu_use(Device *dev, StreamId stream) {
    (void)dev;
    (void)stream;
}

static DeviceEvent cpu_record(Device *dev) {
    (void)dev;
    return (DeviceEvent){0};
}

static void cpu_wait(Device *dev, DeviceEvent event) {
    (void)dev;
    (void)event;
}

static void cpu_sync(Device *dev) { (void)dev; }
static void cpu_timer_start(Device *dev) { dev->timer_start = seconds_now(); }
static double cpu_timer_stop(Device *dev) { return seconds_now() - dev->timer_start; }

const DeviceBackend device_backend_cpu = {
    .kind = DEVICE_CPU, .ops = &ops_cpu, .probe = cpu_probe, .open = cpu_open, .close = cpu_close,
    .alloc = cpu_alloc, .release = cpu_release, .copy_in = cpu_copy_host,
    .copy_out = cpu_copy_host, .copy = cpu_copy, .zero = cpu_zero, .use = cpu_use,
    .record = cpu_record, .wait = cpu_wait, .sync = cpu_sync,
    .timer_start = cpu_timer_start, .timer_stop = cpu_timer_stop,
};
