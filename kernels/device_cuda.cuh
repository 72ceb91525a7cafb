// device_cuda: what a launcher asks of the CUDA device it runs on. Only for *.cu.
#ifndef JOMED_KERNELS_DEVICE_CUDA_CUH
#define JOMED_KERNELS_DEVICE_CUDA_CUH

#include "cuda_common.cuh"
#include "device.h"

// At least `bytes` bytes of device memory, 256-byte aligned, valid until the next op on the current
// stream asks. It grows to the largest ever needed, so that a step in steady state allocates
// nothing. An op that calls another one must not hold any across the call if that one asks too.
#define device_scratch CUDA_NAME(device_scratch)
extern "C" void *device_scratch(Device *dev, size_t bytes);
// Streaming multiprocessors: how many blocks make a persistent grid.
#define device_processors CUDA_NAME(device_processors)
extern "C" int device_processors(const Device *dev);
// The most shared memory that a block may have: 227 KB on sm_90, 163 on sm_80, 99 on small cards.
#define device_shared_bytes CUDA_NAME(device_shared_bytes)
extern "C" size_t device_shared_bytes(const Device *dev);
#endif
