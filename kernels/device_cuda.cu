// device_cuda: a GPU as a device; see device.h. Compiled by nvcc it is the CUDA backend, compiled
// against the emulator the EMU backend.
//
// Three streams that do not wait for the default one; an event per record, from a ring per stream.
// A ticket whose event was used again since waits for a later mark of the same stream: more than
// asked, never less. Host memory goes in through pinned buffers, a ring of them per stream, so that
// copy_in returns as soon as it has read the caller's memory; copy_out waits anyway.
//
// Any failing call ends the program with EXIT_RESOURCE, the call, its file and line (CUDA_CHECK): a
// GPU that has failed once answers every later call with the same error.
// Left out: several devices in one process (one process per GPU), CUDA graphs.
#include "device_cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "device_backend.h"
#include "ops.h"

#define EVENTS 64                       // of a stream, before they are used again
#define STAGES 4                        // pinned buffers of a stream
#define STAGE_BYTES ((size_t)4 << 20)

// ---- state ----
typedef struct {
    char *memory;     // (STAGE_BYTES) pinned, NULL until the first use
    size_t used;      // bytes whose copies were given to the stream
    cudaEvent_t done; // after the last of them
} Stage;

typedef struct {
    cudaStream_t stream;
    cudaEvent_t event[EVENTS];
    uint64_t records;   // marks made so far
    Stage stage[STAGES];
    int current;        // stage being filled
    void *scratch;      // of ops
    size_t scratch_bytes;
} Lane;

typedef struct {
    Lane lane[STREAM_COUNT];
    StreamId current;
    int processors;
    size_t shared_bytes;
    cudaEvent_t timer[2]; // start and stop
} State;

static State *state_of(const Device *dev) { return (State *)dev->state; }
static Lane *lane_of(const Device *dev) { return &state_of(dev)->lane[state_of(dev)->current]; }

// ---- opening ----
static bool cuda_probe(int index, char *why, size_t size) {
    int count = 0, driver = 0, runtime = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver) {
        CUDA_CHECK(cudaDriverGetVersion(&driver));
        CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
        snprintf(why, size, "there is no CUDA driver");
        if (driver) {
            snprintf(why, size, "the CUDA driver knows CUDA %d.%d, this program wants %d.%d",
                     driver / 1000, driver / 10 % 100, runtime / 1000, runtime / 10 % 100);
        }
        return false;
    }
    if (error != cudaSuccess) {
        snprintf(why, size, "no GPU can be used: %s", cudaGetErrorString(error));
        return false;
    }
    if (index >= count) {
        snprintf(why, size, "there is no GPU %d, only %d of them", index, count);
        return false;
    }
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    if (properties.major < 8) {
        snprintf(why, size, "gpu %d, %.64s, is sm_%d%d; the kernels want sm_80 or newer", index,
                 properties.name, properties.major, properties.minor);
        return false;
    }
    return true;
}

static void cuda_open(Device *dev, int index, int threads) {
    CUDA_CHECK(cudaSetDevice(index));
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    State *state = (State *)xcalloc(1, sizeof *state);
    state->processors = properties.multiProcessorCount;
    state->shared_bytes = properties.sharedMemPerBlockOptin;
    for (int e = 0; e < 2; e++) {
        CUDA_CHECK(cudaEventCreate(&state->timer[e]));
    }
    for (int s = 0; s < STREAM_COUNT; s++) {
        Lane *lane = &state->lane[s];
        CUDA_CHECK(cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking));
        for (int e = 0; e < EVENTS; e++) {
            CUDA_CHECK(cudaEventCreateWithFlags(&lane->event[e], cudaEventDisableTiming));
        }
    }
    dev->state = state;
    dev->cache_bytes = (size_t)properties.l2CacheSize;
    dev->threads = threads > 0 ? threads : 1; // of what stays on the host
    dev->arch = properties.major == 9 ? 90 : 80;
    snprintf(dev->name, sizeof dev->name, "gpu %d, %.64s, sm_%d%d, %.0f GiB", index,
             properties.name, properties.major, properties.minor,
             (double)properties.totalGlobalMem / (1 << 30));
}

static void cuda_close(Device *dev) {
    State *state = state_of(dev);
    CUDA_CHECK(cudaDeviceSynchronize());
    for (int s = 0; s < STREAM_COUNT; s++) {
        Lane *lane = &state->lane[s];
        device_release(dev, lane->scratch);
        for (int i = 0; i < STAGES && lane->stage[i].memory; i++) {
            CUDA_CHECK(cudaFreeHost(lane->stage[i].memory));
            CUDA_CHECK(cudaEventDestroy(lane->stage[i].done));
        }
        for (int e = 0; e < EVENTS; e++) {
            CUDA_CHECK(cudaEventDestroy(lane->event[e]));
        }
        CUDA_CHECK(cudaStreamDestroy(lane->stream));
    }
    for (int e = 0; e < 2; e++) {
        CUDA_CHECK(cudaEventDestroy(state->timer[e]));
    }
    free(state);
}

// ---- memory ----
static void *cuda_alloc(Device *dev, size_t bytes) {
    (void)dev;
    void *memory = NULL;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); // not sticky: take it back
        return NULL;
    }
    CUDA_CHECK(error);
    return memory;
}

static void cuda_release(Device *dev, void *memory) {
    (void)dev;
    CUDA_CHECK(cudaFree(memory)); // waits until nothing uses it
}

extern "C" void *device_scratch(Device *dev, size_t bytes) {
    Lane *lane = lane_of(dev);
    if (bytes > lane->scratch_bytes) {
        device_release(dev, lane->scratch);
        lane->scratch = device_alloc(dev, bytes, "scratch of ops");
        lane->scratch_bytes = bytes;
    }
    return lane->scratch;
}

// ---- copies ----
// The stage being filled, with room for at least one byte.
static Stage *stage_ready(Lane *lane) {
    for (int i = 0; i < STAGES && !lane->stage[i].memory; i++) { // all at once, at the first copy
        CUDA_CHECK(cudaMallocHost((void **)&lane->stage[i].memory, STAGE_BYTES));
        CUDA_CHECK(cudaEventCreateWithFlags(&lane->stage[i].done, cudaEventDisableTiming));
    }
    Stage *stage = &lane->stage[lane->current];
    if (stage->used == STAGE_BYTES) {
        CUDA_CHECK(cudaEventRecord(stage->done, lane->stream));
        lane->current = (lane->current + 1) % STAGES;
        stage = &lane->stage[lane->current];
        CUDA_CHECK(cudaEventSynchronize(stage->done)); // its copies of the last round
        stage->used = 0;
    }
    return stage;
}

static void cuda_copy_in(Device *dev, void *to, const void *from_host, size_t bytes) {
    Lane *lane = lane_of(dev);
    for (size_t done = 0; done < bytes;) {
        Stage *stage = stage_ready(lane);
        const size_t room = STAGE_BYTES - stage->used;
        const size_t size = bytes - done < room ? bytes - done : room;
        char *pinned = stage->memory + stage->used;
        memcpy(pinned, (const char *)from_host + done, size);
        CUDA_CHECK(cudaMemcpyAsync((char *)to + done, pinned, size, cudaMemcpyHostToDevice,
                                   lane->stream));
        stage->used += size;
        done += size;
    }
}

static void cuda_copy_out(Device *dev, void *to_host, const void *from, size_t bytes) {
    const Lane *lane = lane_of(dev);
    CUDA_CHECK(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, lane->stream));
    CUDA_CHECK(cudaStreamSynchronize(lane->stream));
}

static void cuda_copy(Device *dev, void *to, const void *from, size_t bytes) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, lane_of(dev)->stream));
}

static void cuda_zero(Device *dev, void *memory, size_t bytes) {
    CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, lane_of(dev)->stream));
}

// ---- streams ----
extern "C" cudaStream_t device_stream(Device *dev) { return lane_of(dev)->stream; }
extern "C" int device_processors(const Device *dev) { return state_of(dev)->processors; }
extern "C" size_t device_shared_bytes(const Device *dev) { return state_of(dev)->shared_bytes; }

static void cuda_use(Device *dev, StreamId stream) { state_of(dev)->current = stream; }

// A ticket is 1 + number of the mark * STREAM_COUNT + stream; 0 marks nothing.
static DeviceEvent cuda_record(Device *dev) {
    Lane *lane = lane_of(dev);
    const uint64_t number = lane->records++;
    CUDA_CHECK(cudaEventRecord(lane->event[number % EVENTS], lane->stream));
    const DeviceEvent event = {1 + number * STREAM_COUNT + (uint64_t)state_of(dev)->current};
    return event;
}

static void cuda_wait(Device *dev, DeviceEvent event) {
    if (event.ticket) {
        const uint64_t number = (event.ticket - 1) / STREAM_COUNT;
        const Lane *marked = &state_of(dev)->lane[(event.ticket - 1) % STREAM_COUNT];
        CUDA_CHECK(cudaStreamWaitEvent(lane_of(dev)->stream, marked->event[number % EVENTS], 0));
    }
}

static void cuda_sync(Device *dev) {
    (void)dev;
    CUDA_CHECK(cudaDeviceSynchronize());
}

static void cuda_timer_start(Device *dev) {
    CUDA_CHECK(cudaEventRecord(state_of(dev)->timer[0], lane_of(dev)->stream));
}

static double cuda_timer_stop(Device *dev) {
    State *state = state_of(dev);
    float milliseconds = 0;
    CUDA_CHECK(cudaEventRecord(state->timer[1], lane_of(dev)->stream));
    CUDA_CHECK(cudaEventSynchronize(state->timer[1]));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, state->timer[0], state->timer[1]));
    return 1e-3 * milliseconds;
}

static bool cuda_memory(Device *dev, size_t *free_bytes, size_t *total) {
    (void)dev;
    CUDA_CHECK(cudaMemGetInfo(free_bytes, total));
    return true;
}

// ---- the tables ----
static const Ops ops = {
#define X(op) CUDA_NAME(op),
    OPS(X)
#undef X
#define X(op) CUDA_NAME(op##_scratch),
    OPS_SCRATCH(X)
#undef X
};

extern "C" const DeviceBackend CUDA_NAME(device_backend) = {
    CUDA_KIND,    &ops,         cuda_probe,    cuda_open, cuda_close, cuda_alloc,  cuda_release,
    cuda_copy_in, cuda_copy_out, cuda_copy,    cuda_zero, cuda_use,   cuda_record, cuda_wait,
    cuda_sync,    cuda_timer_start, cuda_timer_stop, cuda_memory,
};
