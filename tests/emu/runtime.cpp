// runtime: the functions of the CUDA runtime that have nothing to do here: one device, streams and
// events whose work is done when the call returns.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "core.h"

struct EmuStream {
    unsigned flags;
};
struct EmuEvent {
    double seconds;
};

EmuCalls emu::calls;
extern "C" const EmuCalls *emu_calls(void) { return &emu::calls; }

// EMU_FAULT=CALL:N: the N-th call of that name and all after it fail, as after a bad access.
bool emu::is_broken(const char *call) {
    static const char *const fault = getenv("EMU_FAULT");
    static int left = fault && strchr(fault, ':') ? atoi(strchr(fault, ':') + 1) : 0;
    if (left > 1 && strncmp(fault, call, strlen(call)) == 0 && fault[strlen(call)] == ':') {
        left--;
        return false;
    }
    return left == 1 && strncmp(fault, call, strlen(call)) == 0;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess                 ? "no error"
           : error == cudaErrorInvalidValue     ? "invalid argument"
           : error == cudaErrorMemoryAllocation ? "out of memory"
           : error == cudaErrorInvalidDevice    ? "invalid device ordinal"
           : error == emu::ILLEGAL_ADDRESS   ? "an illegal memory access was encountered"
                                                : "unknown error";
}
const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
// As an H100, for the limits that launchers ask for, but with so few processors that the blocks of
// a persistent grid take several tiles of a small case; with EMU_ARCH=sm80 (sm90a, sm75, ...) of that
// architecture.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device) {
    *prop = {};
    snprintf(prop->name, sizeof prop->name, "emulator");
    size_t free_bytes;
    cudaMemGetInfo(&free_bytes, &prop->totalGlobalMem);
    const char *const arch = getenv("EMU_ARCH");
    int number = 90;
    if (arch) {
        sscanf(arch, "sm%d", &number);
    }
    prop->major = number / 10;
    prop->minor = number % 10;
    prop->sharedMemPerBlockOptin = (prop->major < 9 ? 163 : 227) * 1024;
    prop->multiProcessorCount = 2;
    prop->l2CacheSize = 50 << 20;
    return cudaSetDevice(device);
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }
// Nothing to wait for, but the host asked.
static cudaError_t wait() {
    emu::calls.waits++;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return wait(); }
cudaError_t cudaDeviceReset() { return cudaSuccess; }

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
    emu::calls.allocations++;
    *memory = malloc(bytes ? bytes : 1);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaMallocHost(void **memory, size_t bytes) { return cudaHostAlloc(memory, bytes, 0); }
cudaError_t cudaFreeHost(void *memory) {
    emu::calls.releases++;
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    *stream = new EmuStream{flags};
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return wait(); }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new EmuEvent{0};
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return wait(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    *milliseconds = (float)(1e3 * (end->seconds - start->seconds));
    return cudaSuccess;
}
