// calls: how often the emulated runtime was asked for what a training step must not do unseen.
// Shared by the emulator and the tests.
#ifndef JOMED_TESTS_EMU_CALLS_H
#define JOMED_TESTS_EMU_CALLS_H

#ifdef __cplusplus
extern "C" {
#endif

// Since the program started.
typedef struct {
    int allocations; // device or pinned memory
    int releases;    // of either; each waits for the device
    int waits;       // of the host: for a stream, an event, the device
    int copies_out;  // device to host
    int copies_in, launches;
} EmuCalls;
// Absent where the emulator is not linked.
const EmuCalls *emu_calls(void) __attribute__((weak));

#ifdef __cplusplus
}
#endif
#endif
