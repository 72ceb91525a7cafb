// test_device: memory, copies, streams and events of the device under test, and what it says when
// it must stop.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

// ---- memory ----
static void ask_too_much(void) {
    Device *dev = check_device();
    for (int i = 0; i < 3; i++) {
        device_alloc(dev, (size_t)1 << 20, "gradients"); // together the most, each less than index
    }
    device_alloc(dev, (size_t)2 << 20, "index");
    device_alloc(dev, (size_t)1, "crumbs");
    device_alloc(dev, (size_t)1 << 62, "hopes");
}

static void release_twice(void) {
    Device *dev = check_device();
    void *memory = device_alloc(dev, 10, "once");
    device_release(dev, memory);
    device_release(dev, memory);
}

// Children come first: a GPU's context does not outlive a fork.
TEST_DEVICE(device_memory) {
    char text[1000];
    EXPECT(check_child(ask_too_much, text, sizeof text) == EXIT_RESOURCE, "%s", text);
    EXPECT(strstr(text, "for hopes on") &&
               strstr(text, "in use: gradients 3.0 MiB, index 2.0 MiB, crumbs 0.0 MiB\n"),
           "%s", text);
    EXPECT(check_child(release_twice, text, sizeof text) == CHECK_ABORTED &&
               strstr(text, "released before"),
           "%s", text);
    Device *dev = check_device();
    const size_t before = device_bytes_in_use(dev);
    void *block[100];
    for (int i = 0; i < 100; i++) {
        block[i] = device_alloc(dev, (size_t)i, "block"); // of no bytes too
        EXPECT(block[i] && (uintptr_t)block[i] % 256 == 0, "alignment of %p", block[i]);
    }
    EXPECT(device_bytes_in_use(dev) == before + 99 * 100 / 2, "%zu bytes in use",
           device_bytes_in_use(dev));
    for (int i = 0; i < 100; i++) {
        device_release(dev, block[i * 37 % 100]); // in another order
    }
    device_release(dev, NULL);
    EXPECT(device_bytes_in_use(dev) == before, "all is given back");
}

// ---- copies ----
TEST_DEVICE(device_copies) {
    // More than all pinned staging buffers together, so that each is used again.
    const size_t n = (size_t)18 << 20;
    Device *dev = check_device();
    uint8_t *host = malloc(n), *back = malloc(n);
    for (size_t i = 0; i < n; i++) {
        host[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    char *a = device_alloc(dev, n, "a"), *b = device_alloc(dev, n, "b");
    device_zero(dev, b, n);
    device_copy_in(dev, a, host, n);
    host[0] ^= 1; // what was given is read already
    device_copy(dev, b + 3, a + 5, n - 5);
    device_copy(dev, b, b, 0);
    device_copy_out(dev, back, b, n);
    host[0] ^= 1;
    EXPECT(memcmp(back + 3, host + 5, n - 5) == 0, "bytes differ");
    EXPECT(!back[0] && !back[1] && !back[2] && !back[n - 1], "zeros are zeros");
    device_zero(dev, a + 1, 2);
    device_copy_out(dev, back, a, 4);
    EXPECT(back[0] == host[0] && !back[1] && !back[2] && back[3] == host[3], "zero of a part");
    device_release(dev, a);
    device_release(dev, b);
    free(host);
    free(back);
}

// ---- streams ----
static void use_no_stream(void) { device_use(check_device(), STREAM_COUNT); }

TEST_DEVICE(device_streams) {
    char text[1000];
    EXPECT(check_child(use_no_stream, text, sizeof text) == CHECK_ABORTED, "%s", text);
    Device *dev = check_device();
    int32_t values[200], got = -1;
    char *memory = device_alloc(dev, sizeof values, "values");
    const DeviceEvent nothing = {0};
    device_wait(dev, nothing);
    for (int i = 0; i < 200; i++) { // more marks than a stream has events
        values[i] = i;
        device_use(dev, STREAM_COPY);
        device_copy_in(dev, memory + (size_t)i * sizeof *values, &values[i], sizeof *values);
        const DeviceEvent copied = device_record(dev);
        device_use(dev, STREAM_COMPUTE);
        device_wait(dev, copied);
        device_copy(dev, memory, memory + (size_t)i * sizeof *values, sizeof *values);
        const DeviceEvent used = device_record(dev);
        device_use(dev, STREAM_COPY);
        device_wait(dev, used);
    }
    device_use(dev, STREAM_COMPUTE);
    device_sync(dev);
    device_copy_out(dev, &got, memory, sizeof got);
    EXPECT(got == 199, "%d", got);
    device_release(dev, memory);
}

// ---- timer ----
TEST_DEVICE(device_timer) {
    Device *dev = check_device();
    void *memory = device_alloc(dev, 1 << 20, "timed");
    device_timer_start(dev);
    device_zero(dev, memory, 1 << 20);
    const double once = device_timer_stop(dev);
    EXPECT(once > 0 && once < 10, "%g seconds", once);
    device_timer_start(dev); // what came before does not count
    const double start = seconds_now();
    while (seconds_now() < start + 0.02) {
        device_zero(dev, memory, 1 << 20);
    }
    const double many = device_timer_stop(dev);
    EXPECT(many >= 0.019 && many < once + 10, "%g seconds", many);
    device_release(dev, memory);
    EXPECT((device_cache_bytes(dev) > 0) == (device_kind(dev) != DEVICE_CPU), "%zu bytes of cache",
           device_cache_bytes(dev));
}

// ---- architecture ----
TEST_DEVICE(device_architecture) {
    Device *dev = device_new(device_kind(check_device()), 0, 1);
    const char *const emulated = getenv("EMU_ARCH");
    const int arch = device_arch(dev), want = emulated && strcmp(emulated, "sm80") == 0 ? 80 : 90;
    EXPECT(device_kind(dev) == DEVICE_CPU   ? arch == 0
           : device_kind(dev) == DEVICE_EMU ? arch == want
                                            : arch == 80 || arch == 90,
           "arch %d", arch);
    device_limit_arch(dev, 90);
    EXPECT(device_arch(dev) == arch, "%d", device_arch(dev));
    device_limit_arch(dev, 80);
    EXPECT(device_arch(dev) == (arch ? 80 : 0), "%d", device_arch(dev));
    device_limit_arch(dev, 90); // what was taken away does not come back
    EXPECT(device_arch(dev) == (arch ? 80 : 0), "%d", device_arch(dev));
    device_free(dev);
}

// ---- which devices there are ----
static void open_missing(void) { device_new(DEVICE_CUDA, 1000, 1); }

TEST(device_missing) {
    char why[200] = "", text[1000];
    const int code = check_child(open_missing, text, sizeof text);
    EXPECT(device_is_there(DEVICE_CPU, 0, why, sizeof why), "%s", why);
    EXPECT(!device_is_there(DEVICE_CUDA, 1000, why, sizeof why) && why[0], "a thousandth GPU");
    EXPECT(code == EXIT_NO_DEPENDENCY && strstr(text, why) && strstr(text, "use device=cpu"), "%s",
           text);
}
