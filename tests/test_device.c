// test_device: memory, copies, streams and events of the device under test, and what it says when
// it must stop.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

// Exit status of a child that runs stop(); text (size bytes) gets what it says on stderr.
static int status_and_text(void (*stop)(void), char *text, size_t size) {
    int ends[2];
    CHECK(pipe(ends) == 0, "pipe");
    const pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        stop();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got; (got = read(ends[0], text + used, size - 1 - used)) > 0;) {
        used += (size_t)got;
    }
    text[used] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

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
    EXPECT(status_and_text(ask_too_much, text, sizeof text) == EXIT_RESOURCE, "%s", text);
    EXPECT(strstr(text, "for hopes on") &&
               strstr(text, "in use: gradients 3.0 MiB, index 2.0 MiB, crumbs 0.0 MiB\n"),
           "%s", text);
    EXPECT(status_and_text(release_twice, text, sizeof text) == 128 + 6 &&
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
    EXPECT(status_and_text(use_no_stream, text, sizeof text) == 128 + 6, "%s", text);
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

// ---- arguments that no op can take ----
static void attend(int D, bool is_null) {
    Device *dev = check_device();
    float *rows = device_alloc(dev, 1 << 20, "rows");
    int32_t *ends = device_alloc(dev, 2 * sizeof *ends, "ends");
    device_copy_in(dev, ends, (int32_t[]){0, 4}, 2 * sizeof *ends);
    const AttentionShape shape = {.B = 1, .H = 1, .Hkv = 1, .D = D, .cu_q = ends, .cu_k = ends,
                                  .Nq = 4, .Nk = 4, .max_Tq = 4, .max_Tk = 4, .q_stride = D,
                                  .k_stride = D, .v_stride = D, .out_stride = D, .scale = 1};
    check_ops()->attention_fwd(dev, DT_F32, rows, rows + 8192, rows, is_null ? NULL : rows, rows,
                               &shape);
}
static void attend_wide(void) { attend(257, false); }
static void attend_nothing(void) { attend(16, true); }

static void multiply_nothing(void) {
    float *rows = device_alloc(check_device(), 4096, "rows");
    check_ops()->matmul_fwd(check_device(), DT_F32, rows, NULL, rows, NULL, NULL, 4, 4, 4, false,
                            NULL);
}

static void turn_odd(void) {
    float *rows = device_alloc(check_device(), 4096, "rows");
    check_ops()->rope_fwd(check_device(), DT_F32, rows, rows, rows, 2, 1, 15, 15, ROPE_HALF);
}

TEST_DEVICE(device_bad_arguments) {
    const struct {
        const char *name;
        void (*body)(void);
        const char *want;
    } cases[] = {{"head width over 256", attend_wide, "D=257"},
                 {"odd width with rope", turn_odd, "D=15"},
                 {"no keys", attend_nothing, " k=(nil)"},
                 {"no input", multiply_nothing, "factors (nil) and"}};
    enum { COUNT = sizeof cases / sizeof *cases };
    char text[COUNT][1000];
    int code[COUNT];
    for (int i = 0; i < COUNT; i++) { // all children before the device is open here
        code[i] = status_and_text(cases[i].body, text[i], sizeof text[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        if (CASE("%s", cases[i].name)) {
            if (strstr(cases[i].want, "(nil)") && device_kind(check_device()) == DEVICE_CPU) {
                check_skip("a null pointer ends a CPU program by itself");
                continue;
            }
            EXPECT(code[i] == 128 + 6 && strstr(text[i], cases[i].want), "code %d: %s", code[i],
                   text[i]);
        }
    }
}

// ---- which devices there are ----
static void open_missing(void) { device_new(DEVICE_CUDA, 1000, 1); }

TEST(device_missing) {
    char why[200] = "", text[1000];
    const int code = status_and_text(open_missing, text, sizeof text);
    EXPECT(device_is_there(DEVICE_CPU, 0, why, sizeof why), "%s", why);
    EXPECT(!device_is_there(DEVICE_CUDA, 1000, why, sizeof why) && why[0], "a thousandth GPU");
    EXPECT(code == EXIT_NO_DEPENDENCY && strstr(text, why) && strstr(text, "use device=cpu"), "%s",
           text);
}
