// device: where tensors live and ops run. Opaque, because it hides vendor headers.
//
// A device has memory, three streams and a table of ops. Ops are ordered on the stream that is
// current (compute, unless device_use says otherwise); copies between streams are ordered by
// events. The CPU device runs everything at once and in order, so its streams and events are
// trivially true.
#ifndef JOMED_KERNELS_DEVICE_H
#define JOMED_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Device Device;
struct Ops; // ops.h

typedef enum { DEVICE_CPU, DEVICE_CUDA, DEVICE_EMU } DeviceKind;
typedef enum { STREAM_COMPUTE, STREAM_COPY, STREAM_COMM, STREAM_COUNT } StreamId;

#ifdef __cplusplus
extern "C" {
#endif

// First line of every main: OpenMP threads that wait shall sleep, not spin. Spinning is the
// default; where another process keeps one of their cores busy, passes of the small models took 12
// to 157 times as long with it. The OpenMP runtime reads its environment while the program is
// loaded, so this sets OMP_WAIT_POLICY=passive and starts the program over: same process, same
// arguments. Returns when there is nothing to do: the variable (or GOMP_SPINCOUNT) is set, to
// whatever the user likes, or the program cannot be started over, which only costs time.
void device_threads_sleep(char **argv);

// Opens device `index` of a kind; threads is for the CPU (0: as many as OpenMP says). Dies with
// EXIT_NO_DEPENDENCY when this build or this machine lacks the kind: a GPU run never falls back.
Device *device_new(DeviceKind kind, int index, int threads);
// For tests: from now on the emulated device stands in for the GPU. CHECK-fails where it is not
// linked.
void device_emulate_cuda(void);
// Whether device_new would succeed; if not, why (size bytes) says what is missing.
bool device_is_there(DeviceKind kind, int index, char *why, size_t size);
void device_free(Device *dev);
DeviceKind device_kind(const Device *dev);
const char *device_name(const Device *dev); // for logs: model and memory
int device_threads(const Device *dev);
// Architecture whose kernel bodies run: 90 on compute capability 9.x, 80 on every other GPU (its
// code, or its PTX compiled by the driver); 0 on the CPU. A limit makes a newer card run the bodies
// of an older one; an older card stays what it is.
int device_arch(const Device *dev);
void device_limit_arch(Device *dev, int arch);
const struct Ops *device_ops(const Device *dev);
size_t device_cache_bytes(const Device *dev); // last cache before the memory of a GPU; CPU: 0

// Memory. `what` names the purpose in messages. Alignment: 256 bytes. Dies with EXIT_RESOURCE and
// names the purposes that hold most. Not to be called from several threads at once.
void *device_alloc(Device *dev, size_t bytes, const char *what);
void device_release(Device *dev, void *memory);
size_t device_bytes_in_use(const Device *dev);

// Copies and fills on the current stream. host memory may be pageable; _out waits until it is done.
void device_copy_in(Device *dev, void *to, const void *from_host, size_t bytes);
void device_copy_out(Device *dev, void *to_host, const void *from, size_t bytes);
void device_copy(Device *dev, void *to, const void *from, size_t bytes); // device to device
void device_zero(Device *dev, void *memory, size_t bytes);

// Streams. Ops and copies that follow go to `stream`. An event marks the work given to the current
// stream so far; the current stream can be made to wait for it, the host too (device_sync: for
// all).
void device_use(Device *dev, StreamId stream);
typedef struct {
    uint64_t ticket;
} DeviceEvent;
DeviceEvent device_record(Device *dev);
void device_wait(Device *dev, DeviceEvent event);
void device_sync(Device *dev);
// Time by the device's own clock: stop waits for the work that the current stream was given since
// start, and says how many seconds passed there. One timer per device.
void device_timer_start(Device *dev);
double device_timer_stop(Device *dev);

#ifdef __cplusplus
}
#endif
#endif
