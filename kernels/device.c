// device: the part of a device that is the same for every backend; see device.h.
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "device_backend.h"
#include "device_memory.h"
#include "ops.h"

#define LARGEST 4 // purposes named when memory is out

// ---- opening ----
static bool is_cuda_emulated;

void device_emulate_cuda(void) {
    CHECK(&device_backend_emu, "this program has no emulated device");
    is_cuda_emulated = true;
}

static const DeviceBackend *backend_of(DeviceKind kind) {
    switch (kind) {
    case DEVICE_CPU: return &device_backend_cpu;
    case DEVICE_CUDA: return is_cuda_emulated ? &device_backend_emu : &device_backend_cuda;
    case DEVICE_EMU: return &device_backend_emu;
    }
    CHECK(false, "kind=%d", (int)kind);
}

bool device_is_there(DeviceKind kind, int index, char *why, size_t size) {
    const DeviceBackend *backend = backend_of(kind);
    if (!backend) {
        snprintf(why, size, "this build has no %s backend",
                 kind == DEVICE_EMU ? "emulated" : "CUDA");
        return false;
    }
    return backend->probe(index, why, size);
}

Device *device_new(DeviceKind kind, int index, int threads) {
    char why[200];
    if (!device_is_there(kind, index, why, sizeof why)) {
        die(kind == DEVICE_CPU ? EXIT_RESOURCE : EXIT_NO_DEPENDENCY, "device: %s; %s", why,
            kind == DEVICE_CPU ? "rebuild with make CPUFLAGS= for a slow portable program"
                               : "use device=cpu");
    }
    Device *dev = xcalloc(1, sizeof *dev);
    dev->backend = backend_of(kind);
    dev->ops = dev->backend->ops;
    dev->backend->open(dev, index, threads);
    return dev;
}

void device_free(Device *dev) {
    dev->backend->close(dev);
    free(dev->block);
    free(dev);
}

DeviceKind device_kind(const Device *dev) { return dev->backend->kind; }
const char *device_name(const Device *dev) { return dev->name; }
int device_threads(const Device *dev) { return dev->threads; }
int device_arch(const Device *dev) { return dev->arch; }

void device_limit_arch(Device *dev, int arch) {
    CHECK(arch == 80 || arch == 90, "arch=%d", arch);
    dev->arch = arch < dev->arch ? arch : dev->arch;
}

const Ops *device_ops(const Device *dev) { return dev->ops; }
size_t device_cache_bytes(const Device *dev) { return dev->cache_bytes; }

// ---- memory ----
typedef struct {
    const char *what;
    size_t bytes; // over all blocks of this purpose; 0: no more purposes
} Consumer;

size_t device_bytes_for(const Device *dev, const char *what) {
    size_t sum = 0;
    for (size_t k = 0; k < dev->block_count; k++) {
        sum += strcmp(dev->block[k].what, what) == 0 ? dev->block[k].bytes : 0;
    }
    return sum;
}

static void find_largest(const Device *dev, Consumer out[LARGEST]) {
    for (int place = 0; place < LARGEST; place++) {
        out[place] = (Consumer){NULL, 0};
        for (size_t i = 0; i < dev->block_count; i++) {
            const char *what = dev->block[i].what;
            size_t sum = device_bytes_for(dev, what);
            for (int p = 0; p < place; p++) {
                sum = out[p].what && strcmp(out[p].what, what) == 0 ? 0 : sum;
            }
            if (sum > out[place].bytes) {
                out[place] = (Consumer){what, sum};
            }
        }
    }
}

void device_list_largest(const Device *dev, char *text, size_t size) {
    Consumer largest[LARGEST];
    find_largest(dev, largest);
    size_t used = 0;
    snprintf(text, size, "nothing");
    for (int i = 0; i < LARGEST && largest[i].bytes && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%s %.1f MiB", i ? ", " : "",
                                 largest[i].what, (double)largest[i].bytes / (1 << 20));
    }
}

// Of what is asked for, else of the largest that has any.
static const char *find_advice(const Device *dev, const char *what) {
    Consumer largest[LARGEST];
    find_largest(dev, largest);
    const char *advice = dev->advice ? dev->advice(what) : NULL;
    for (int i = 0; i < LARGEST && largest[i].bytes && dev->advice && !advice; i++) {
        advice = dev->advice(largest[i].what);
    }
    return advice;
}

static _Noreturn void out_of_memory(Device *dev, size_t bytes, const char *what) {
    char largest[300], rest[64] = "";
    size_t free_bytes, total;
    device_list_largest(dev, largest, sizeof largest);
    if (device_memory(dev, &free_bytes, &total)) {
        snprintf(rest, sizeof rest, ", %.1f MiB free", (double)free_bytes / (1 << 20));
    }
    const char *advice = find_advice(dev, what);
    die(EXIT_RESOURCE, "memory: cannot get %.1f MiB for %s on %s%s; in use: %s%s%s",
        (double)bytes / (1 << 20), what, dev->name, rest, largest, advice ? "; " : "",
        advice ? advice : "");
}

bool device_memory(Device *dev, size_t *free_bytes, size_t *total) {
    return dev->backend->memory && dev->backend->memory(dev, free_bytes, total);
}

void device_expect(Device *dev, size_t bytes, const char *what) {
    size_t free_bytes, total;
    if (device_memory(dev, &free_bytes, &total) && bytes > free_bytes) {
        out_of_memory(dev, bytes, what);
    }
}

void device_set_advice(Device *dev, const char *(*advice)(const char *what)) {
    dev->advice = advice;
}

void *device_alloc(Device *dev, size_t bytes, const char *what) {
    // Never of no bytes: whoever holds a block can release it.
    void *memory = dev->backend->alloc(dev, bytes ? bytes : 1);
    if (!memory) {
        out_of_memory(dev, bytes, what);
    }
    if (dev->block_count == dev->block_room) {
        dev->block_room = dev->block_room ? 2 * dev->block_room : 64;
        dev->block = xrealloc(dev->block, dev->block_room, sizeof *dev->block);
    }
    DeviceBlock *block = &dev->block[dev->block_count++];
    *block = (DeviceBlock){.memory = memory, .bytes = bytes};
    snprintf(block->what, sizeof block->what, "%s", what);
    dev->in_use += bytes;
    return memory;
}

void device_release(Device *dev, void *memory) {
    if (!memory) {
        return;
    }
    size_t i = dev->block_count; // young blocks go first, most of the time
    while (i > 0 && dev->block[i - 1].memory != memory) {
        i--;
    }
    CHECK(i > 0, "memory %p is not of this device, or was released before", memory);
    dev->in_use -= dev->block[i - 1].bytes;
    dev->block[i - 1] = dev->block[--dev->block_count];
    dev->backend->release(dev, memory);
}

size_t device_bytes_in_use(const Device *dev) { return dev->in_use; }

// ---- copies and streams ----
void device_copy_in(Device *dev, void *to, const void *from_host, size_t bytes) {
    if (bytes) {
        dev->backend->copy_in(dev, to, from_host, bytes);
    }
}

void device_copy_out(Device *dev, void *to_host, const void *from, size_t bytes) {
    if (bytes) {
        dev->backend->copy_out(dev, to_host, from, bytes);
    }
}

void device_copy(Device *dev, void *to, const void *from, size_t bytes) {
    if (bytes) {
        dev->backend->copy(dev, to, from, bytes);
    }
}

void device_zero(Device *dev, void *memory, size_t bytes) {
    if (bytes) {
        dev->backend->zero(dev, memory, bytes);
    }
}

void device_use(Device *dev, StreamId stream) {
    CHECK(stream < STREAM_COUNT, "stream=%d", (int)stream);
    dev->backend->use(dev, stream);
}

DeviceEvent device_record(Device *dev) { return dev->backend->record(dev); }
void device_wait(Device *dev, DeviceEvent event) { dev->backend->wait(dev, event); }
void device_sync(Device *dev) { dev->backend->sync(dev); }
void device_timer_start(Device *dev) { dev->backend->timer_start(dev); }
double device_timer_stop(Device *dev) { return dev->backend->timer_stop(dev); }
