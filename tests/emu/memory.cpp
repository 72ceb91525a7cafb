// memory: device memory, shared memory and the limits of a launch.
//
// Both memories are arenas with dead gaps between their parts, filled with 0xFF: read as a float,
// what nobody wrote is NaN. Between launches the heap is closed to the host, so that a program that
// reads a device pointer faults here as it would with a GPU.
#include <cstdio>
#include <cstdlib>
#include <cstdlib>
#include <map>
#include <sys/mman.h>

#include "core.h"

namespace emu {
enum : size_t {
    GAP = 256,              // bytes between blocks of the heap, and their alignment
    RED_ZONE = 64,          // bytes between parts of shared memory
    FIRST = 1024,           // address of the first part of shared memory
    DEFAULT_SHARED = 48 * 1024,
    MOST_SHARED = 227 * 1024,
    MOST_PARAMS = 4096,
};
char *heap, *shared;

// ---- the heap ----
static std::map<char *, size_t> blocks; // in use
static size_t used;

// EMU_MEMORY=N: a device of N MiB.
static size_t heap_limit() {
    static const char *const text = getenv("EMU_MEMORY");
    static const size_t limit = text ? (size_t)strtoull(text, nullptr, 10) << 20 : HEAP_BYTES;
    return limit < HEAP_BYTES ? limit : HEAP_BYTES;
}

static void open_arenas() {
    if (heap) {
        return;
    }
    // Shared memory begins at a multiple of its size: an address in it is its offset.
    char *const all = (char *)mmap(nullptr, HEAP_BYTES + 2 * SHARED_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) {
        perror("emulator: device memory");
        abort();
    }
    shared = (char *)(((uintptr_t)all + SHARED_BYTES - 1) / SHARED_BYTES * SHARED_BYTES);
    heap = shared + SHARED_BYTES;
}

void heap_close(bool is_closed) {
    open_arenas();
    if (mprotect(heap, HEAP_BYTES, is_closed ? PROT_NONE : PROT_READ | PROT_WRITE) != 0) {
        perror("emulator: mprotect");
        abort();
    }
}

// Opens the heap to the runtime's own copies.
struct Opened {
    Opened() { heap_close(false); }
    ~Opened() { heap_close(true); }
};

static bool is_device(const void *at) {
    return heap && (const char *)at >= heap && (const char *)at < heap + HEAP_BYTES;
}

// A copy or fill of the host touches whole live blocks only.
static void check_range(const char *what, const void *at, size_t bytes) {
    if (!is_device(at) || bytes == 0) {
        return;
    }
    auto next = blocks.upper_bound((char *)at);
    if (next == blocks.begin()) {
        fail("%s: %p is in no block of device memory", what, at);
    }
    const auto &[base, size] = *--next;
    if ((const char *)at + bytes > base + size) {
        fail("%s: %zu bytes at offset %td of a block of %zu bytes of device memory", what, bytes,
             (const char *)at - base, size);
    }
}

// ---- shared memory ----
struct Part {
    const void *key; // of a static array
    const char *name;
    size_t bytes, align;
    char *at;
};
static std::vector<Part> statics, dynamics; // of this block
static size_t shared_used;                  // with red zones
static size_t static_bytes, dynamic_bytes;  // as the hardware counts
static std::map<const void *, size_t> allowed; // dynamic bytes a kernel may ask for

void shared_start() {
    if (shared_used == 0) { // the first block of all
        memset(shared, 0xFF, SHARED_BYTES);
    } else if (shared_used > FIRST) {
        memset(shared, 0xFF, shared_used);
        shadow_map(shared, shared_used, false, false);
    }
    shared_used = FIRST;
    static_bytes = dynamic_bytes = 0;
    statics.clear();
    dynamics.clear();
}

static char *new_part(std::vector<Part> *parts, const void *key, const char *name, size_t bytes,
                      size_t align) {
    const size_t start = (shared_used + RED_ZONE + align - 1) / align * align;
    if (start + bytes + RED_ZONE > SHARED_BYTES) {
        fail("shared %s: no room for %zu bytes", name, bytes);
    }
    shared_used = start + bytes + RED_ZONE;
    parts->push_back({key, name, bytes, align, shared + start});
    shadow_map(shared + start, bytes, true, false);
    return shared + start;
}

void *smem_static(const void *key, const char *name, size_t bytes, size_t align, Place) {
    for (const Part &part : statics) {
        if (part.key == key) {
            return part.at;
        }
    }
    static_bytes = (static_bytes + align - 1) / align * align + bytes;
    return new_part(&statics, key, name, bytes, align);
}

void *smem_take(Carver *carver, const char *name, size_t bytes, size_t align, Place place) {
    const size_t number = (size_t)carver->taken++;
    if (align == 0 || (align & (align - 1))) {
        fail("SMEM_TAKE of %s at %s:%d: alignment %zu is no power of two", name, place.file,
             place.line, align);
    }
    if (number < dynamics.size()) {
        const Part &part = dynamics[number];
        if (part.bytes != bytes || part.align != align || strcmp(part.name, name) != 0) {
            fail("SMEM_TAKE of %s at %s:%d: another thread took %s of %zu bytes here", name,
                 place.file, place.line, part.name, part.bytes);
        }
        return part.at;
    }
    dynamic_bytes = (dynamic_bytes + align - 1) / align * align + bytes;
    if (dynamic_bytes > block.launch->dynamic) {
        fail("SMEM_TAKE of %s at %s:%d: the parts have %zu bytes by now, the launch gave %zu", name,
             place.file, place.line, dynamic_bytes, block.launch->dynamic);
    }
    return new_part(&dynamics, nullptr, name, bytes, align);
}

uint32_t smem_address(const void *at) {
    if ((const char *)at < shared || (const char *)at >= shared + SHARED_BYTES) {
        fail("smem_u32 of %p, which is not in shared memory", at);
    }
    return (uint32_t)((const char *)at - shared);
}
void *shared_at(uint32_t address) {
    if (address >= SHARED_BYTES) {
        fail("%08x is no address in shared memory", address);
    }
    return shared + address;
}

bool name_of(const void *at, char *text, size_t size) {
    const char *const p = (const char *)at;
    for (const auto *parts : {&statics, &dynamics}) {
        for (const Part &part : *parts) {
            if (p >= part.at - RED_ZONE && p < part.at + part.bytes + RED_ZONE) {
                snprintf(text, size, "shared %s[%zu bytes] at offset %td", part.name, part.bytes,
                         p - part.at);
                return true;
            }
        }
    }
    if (!is_device(at)) {
        return false;
    }
    auto next = blocks.upper_bound((char *)at);
    if (next != blocks.begin()) {
        const auto &[base, bytes] = *std::prev(next);
        if (p < base + bytes + GAP || next == blocks.end()) {
            snprintf(text, size, "a block of %zu bytes of device memory at offset %td", bytes,
                     p - base);
            return true;
        }
    }
    if (next != blocks.end() && next->first - p <= (ptrdiff_t)GAP) {
        snprintf(text, size, "a block of %zu bytes of device memory at offset %td", next->second,
                 p - next->first);
        return true;
    }
    snprintf(text, size, "device memory");
    return true;
}

// ---- limits of a launch ----
void memory_check(const Launch &l) {
    const size_t count = (size_t)l.block.x * l.block.y * l.block.z;
    if (count == 0 || l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0) {
        fail("launch of nothing: grid (%u,%u,%u), block (%u,%u,%u)", l.grid.x, l.grid.y, l.grid.z,
             l.block.x, l.block.y, l.block.z);
    }
    if (count > MAX_THREADS || l.block.z > 64) {
        fail("launch with %zu threads a block (%u,%u,%u); at most 1024, and 64 in z", count,
             l.block.x, l.block.y, l.block.z);
    }
    if (l.grid.y > 65535 || l.grid.z > 65535 || l.grid.x > 0x7fffffffu) {
        fail("launch with grid (%u,%u,%u); at most 65535 in y and z", l.grid.x, l.grid.y, l.grid.z);
    }
    if (l.params_size > MOST_PARAMS) {
        fail("launch with %zu bytes of parameters; at most %zu", l.params_size,
             (size_t)MOST_PARAMS);
    }
    const auto found = allowed.find(l.kernel);
    if (l.dynamic > (found == allowed.end() ? (size_t)DEFAULT_SHARED : found->second)) {
        fail("launch with %zu bytes of shared memory; over 49152 needs SMEM_ALLOW first",
             l.dynamic);
    }
}

void shared_check_static() {
    if (static_bytes > DEFAULT_SHARED || static_bytes + block.launch->dynamic > MOST_SHARED) {
        fail("kernel with %zu bytes of static and %zu of dynamic shared memory; at most 49152 "
             "static, 232448 in all", static_bytes, block.launch->dynamic);
    }
}
} // namespace emu

// ---- the runtime's functions: memory ----
using namespace emu;

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    calls.allocations++;
    const Opened opened;
    const size_t room = (bytes + GAP - 1) / GAP * GAP + GAP;
    char *at = heap + GAP; // first fit
    for (const auto &[base, size] : blocks) {
        if ((size_t)(base - at) >= room) {
            break;
        }
        at = base + (size + GAP - 1) / GAP * GAP + GAP;
    }
    if (at + room > heap + HEAP_BYTES || bytes > heap_limit() || used > heap_limit() - bytes) {
        return cudaErrorMemoryAllocation;
    }
    memset(at, 0xFF, bytes);
    shadow_map(at, bytes, true, false);
    blocks[at] = bytes;
    used += bytes;
    *memory = at;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    const auto found = blocks.find((char *)memory);
    if (!memory) {
        return cudaSuccess;
    }
    calls.releases++;
    if (found == blocks.end()) {
        fail("cudaFree of %p, which cudaMalloc did not return", memory);
    }
    const Opened opened;
    memset(memory, 0xFF, found->second);
    shadow_map(memory, found->second, false, false);
    used -= found->second;
    blocks.erase(found);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = heap_limit() - used;
    *total = heap_limit();
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && bytes > 0 &&
        (is_device(to) != to_device || is_device(from) != from_device)) {
        fail("cudaMemcpy of kind %d from %s to %s memory", (int)kind,
             is_device(from) ? "device" : "host", is_device(to) ? "device" : "host");
    }
    check_range("cudaMemcpy to", to, bytes);
    check_range("cudaMemcpy from", from, bytes);
    const Opened opened;
    calls.copies_in += is_device(to) && !is_device(from);
    calls.copies_out += is_device(from) && !is_device(to);
    memmove(to, from, bytes);
    if (is_device(to) && is_device(from)) {
        shadow_copy_set(to, from, bytes);
    } else if (is_device(to)) {
        shadow_map(to, bytes, true, true);
    }
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
    return is_broken("cudaMemcpyAsync") ? ILLEGAL_ADDRESS
                                        : cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
    check_range("cudaMemset", memory, bytes);
    const Opened opened;
    memset(memory, value, bytes);
    shadow_map(memory, bytes, true, true);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t) {
    return cudaMemset(memory, value, bytes);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || (size_t)value > MOST_SHARED) {
            return cudaErrorInvalidValue;
        }
        allowed[kernel] = (size_t)value;
    }
    return cudaSuccess;
}
