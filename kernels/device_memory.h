// device_memory: how much memory a device has left, and what a user hears when it is not enough.
#ifndef JOMED_KERNELS_DEVICE_MEMORY_H
#define JOMED_KERNELS_DEVICE_MEMORY_H

#include "device.h"

// Bytes free and in all, where the device has memory of its own; false on the CPU, which shares the
// host's.
bool device_memory(Device *dev, size_t *free_bytes, size_t *total);
// Dies as device_alloc does, unless that many bytes are free; returns where that is not known.
void device_expect(Device *dev, size_t bytes, const char *what);
size_t device_bytes_for(const Device *dev, const char *what); // held for a purpose
// "gradients 3.0 MiB, index 2.0 MiB": the purposes that hold most.
void device_list_largest(const Device *dev, char *text, size_t size);
// What a user may change where a purpose takes too much, or NULL: said when memory is out.
void device_set_advice(Device *dev, const char *(*advice)(const char *what));

#endif
