// fiber: threads as fibers, the order in which they run, and the launch.
//
// A switch saves the registers that a call preserves and takes another stack: 12 lines of assembly
// instead of swapcontext's system call. Stacks are made once, each under a guard page, and used
// again. Source of the idea: every coroutine library; nothing is taken from one.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {
Thread threads[MAX_THREADS];
Warp warps[MAX_WARPS];
Thread *cur;
Block block;
Order order;
bool copies_early, is_linting;
static uint64_t random_state = 1;
static Thread host; // stands for the launching code in a switch

enum : size_t { STACK = STACK_BYTES, GUARD = 4096 };
enum { REGISTERS = 65536, MOST_REGISTERS = 256 }; // of a multiprocessor, of a thread
enum : long { MOST_SPINS = 200000 }; // of one block, without any thread getting on

uint32_t random_word() { // xorshift64*; which thread comes next is all that hangs on it
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(random_state * 0x2545F4914F6CDD1D >> 32);
}

// ---- the switch ----
extern "C" void emu_switch(void **save, void *to);
#ifdef __x86_64__
asm(R"(
    .text
    .type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch, .-emu_switch
)");
#else
#error "the emulator's fibers are written for x86-64: add a switch for this processor"
#endif

#ifdef __SANITIZE_ADDRESS__
// ASan must know which stack is live. The host's bounds are learnt by whoever runs after it.
static Thread *left_by;
static const void *host_stack;
static size_t host_size;
static void arrived(void *fake) {
    const bool is_from_host = left_by == &host;
    __sanitizer_finish_switch_fiber(fake, is_from_host ? &host_stack : nullptr,
                                    is_from_host ? &host_size : nullptr);
}
#endif

static void switch_to(Thread *next) {
    Thread *const from = cur ? cur : &host;
    const bool to_host = next == &host;
    cur = to_host ? nullptr : next;
#ifdef __SANITIZE_ADDRESS__
    void *fake = nullptr;
    left_by = from;
    __sanitizer_start_switch_fiber(&fake, to_host ? host_stack : next->stack,
                                   to_host ? host_size : STACK);
    emu_switch(&from->stack_top, next->stack_top);
    arrived(fake);
#else
    emu_switch(&from->stack_top, next->stack_top);
#endif
}

// ---- who runs next ----
static int pick_bit(uint32_t set) {
    if (order == Order::FORWARD) {
        return __builtin_ctz(set);
    }
    if (order == Order::REVERSE) {
        return 31 - __builtin_clz(set);
    }
    for (int skip = (int)(random_word() % (uint32_t)__builtin_popcount(set)); skip; skip--) {
        set &= set - 1;
    }
    return __builtin_ctz(set);
}

static Thread *pick() {
    const int first = cur ? cur->warp->index : 0;
    const int start = order == Order::RANDOM ? (int)(random_word() % (uint32_t)block.warps) : first;
    for (int i = 0; i < block.warps; i++) {
        const int step = order == Order::REVERSE ? block.warps - i : i;
        Warp *const warp = &warps[(start + step) % block.warps];
        if (warp->ready) {
            return &threads[warp->index * LANES + pick_bit(warp->ready)];
        }
    }
    return nullptr;
}

[[noreturn]] static void deadlock() {
    std::map<std::string, int> waits;
    for (int t = 0; t < block.threads; t++) {
        if (threads[t].is_live) {
            char text[300];
            snprintf(text, sizeof text, "%s at %s:%d", threads[t].waits_for,
                     threads[t].waits_at.file, threads[t].waits_at.line);
            if (threads[t].mask) {
                snprintf(text + strlen(text), sizeof text - strlen(text), " for lanes %08x",
                         threads[t].mask);
            }
            waits[text]++;
        }
    }
    std::string all;
    for (const auto &[text, count] : waits) {
        all += "\n  " + std::to_string(count) + " in " + text;
    }
    fail("deadlock: no thread can go on%s", all.c_str());
}

// Gives the processor to the next ready thread; returns when this one is ready and chosen again.
static void run_next() {
    Thread *next = pick();
    while (!next) {
        if (!async_deliver()) {
            deadlock();
        }
        next = pick();
    }
    if (next != cur) {
        switch_to(next);
    }
}

void wait(const char *what, Place place, uint32_t mask) {
    Thread *const self = cur;
    self->waits_for = what;
    self->waits_at = place;
    self->mask = mask;
    self->warp->ready &= ~(1u << self->lane);
    run_next();
}

void wake(Thread *thread) {
    block.spins = 0;
    thread->mask = 0;
    thread->warp->ready |= 1u << thread->lane;
}

void spin(Place place) {
    if (++block.spins > MOST_SPINS) {
        fail("spin at %s:%d never ends: it waits for a later block, or for nobody", place.file,
             place.line);
    }
    // The others first: this one becomes ready again behind them.
    Thread *const self = cur;
    self->warp->ready &= ~(1u << self->lane);
    Thread *const next = pick();
    self->warp->ready |= 1u << self->lane;
    if (next) {
        switch_to(next);
    } else {
        async_deliver();
    }
}

// ---- a thread from first to last ----
static void thread_main() {
#ifdef __SANITIZE_ADDRESS__
    arrived(nullptr);
#endif
    const Launch &launch = *block.launch;
    alignas(64) char params[4096];
    memcpy(params, launch.params, launch.params_size);
    launch.call(launch.kernel, params);
    Thread *const self = cur;
    self->is_live = false;
    self->warp->live &= ~(1u << self->lane);
    self->warp->ready &= ~(1u << self->lane);
    block.live--;
    block.spins = 0;
    barriers_check_exit();
    if (block.live == 0) {
        switch_to(&host);
    } else {
        run_next();
    }
    abort(); // nobody switches to a thread that ended
}

// As __launch_bounds__(threads, 1) divides the 64 K registers of a multiprocessor. What is left over
// is not the block's: setmaxnreg hands out only what other warpgroups gave back.
static int registers_at_start() {
    const int each = REGISTERS / (block.warps * LANES) / 8 * 8;
    return each < MOST_REGISTERS ? each : MOST_REGISTERS;
}

static void thread_start(int index) {
    Thread *const t = &threads[index];
    const dim3 size = block.launch->block;
    if (!t->stack) {
        char *const memory = (char *)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE) != 0) {
            perror("emulator: stack of a thread");
            abort();
        }
        t->stack = memory + GUARD;
    }
    const unsigned i = (unsigned)index;
    t->place = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    t->index = index;
    t->lane = index % LANES;
    t->warp = &warps[index / LANES];
    t->is_live = true;
    t->mask = 0;
    t->copies.clear();
    t->products.clear();
    t->groups = t->product_groups = 0;
    t->is_fenced = false;
    t->registers = registers_at_start();
    t->known = t->fenced = Known();
    // As if emu_switch had been called from thread_main's first line: six registers, the address
    // to return to, and one word more, so that the stack is aligned as after a call.
    void **top = (void **)(t->stack + STACK) - 8;
    memset(top, 0, 8 * sizeof *top);
    top[6] = (void *)thread_main;
    t->stack_top = top;
}

// ---- the launch ----
static void run_block() {
    block.live = block.threads;
    block.spins = 0;
    block.registers = 0;
    barriers_start();
    hopper_start();
    shared_start();
    block_clocks();
    for (int w = 0; w < block.warps; w++) {
        const int lanes = block.threads - w * LANES;
        warps[w].index = w;
        warps[w].live = warps[w].ready = lanes >= LANES ? 0xffffffffu : (1u << lanes) - 1;
        warps[w].meetings.clear();
    }
    for (int t = 0; t < block.threads; t++) {
        thread_start(t);
    }
    switch_to(pick());
}

static void read_settings() {
    static bool is_done;
    if (is_done) {
        return;
    }
    is_done = true;
    const char *const how = getenv("EMU_ORDER"), *const copies = getenv("EMU_COPIES");
    is_linting = getenv("EMU_LINT") != nullptr;
    copies_early = copies && strcmp(copies, "early") == 0;
    if (how && strcmp(how, "reverse") == 0) {
        order = Order::REVERSE;
    } else if (how && strncmp(how, "random:", 7) == 0) {
        order = Order::RANDOM;
        random_state = strtoull(how + 7, nullptr, 10) * 2 + 1;
    }
}

void launch(const Launch &launch) {
    calls.launches++;
    read_settings();
    block = {};
    block.launch = &launch;
    memory_check(launch);
    block.threads = (int)(launch.block.x * launch.block.y * launch.block.z);
    block.warps = (block.threads + LANES - 1) / LANES;
    launch_clocks();
    heap_close(false);
    for (unsigned z = 0; z < launch.grid.z; z++) {
        for (unsigned y = 0; y < launch.grid.y; y++) {
            for (unsigned x = 0; x < launch.grid.x; x++) {
                block.place = {x, y, z};
                run_block();
                shared_check_static();
                if (is_linting) {
                    lint_block();
                }
            }
        }
    }
    if (is_linting) {
        lint_launch();
    }
    heap_close(true);
    block.launch = nullptr;
}

uint3 thread_index() { return cur->place; }
uint3 block_index() { return block.place; }
uint3 block_size() {
    return {block.launch->block.x, block.launch->block.y, block.launch->block.z};
}
uint3 grid_size() { return {block.launch->grid.x, block.launch->grid.y, block.launch->grid.z}; }

// ---- reports ----
std::string thread_name(int index) {
    const uint3 p = threads[index].place;
    return "thread (" + std::to_string(p.x) + "," + std::to_string(p.y) + "," +
           std::to_string(p.z) + ")";
}

void fail(const char *format, ...) {
    std::string where;
    if (block.launch) {
        const Launch &l = *block.launch;
        const uint3 b = block.place;
        where = std::string(l.name) + " (" + l.place.file + ":" + std::to_string(l.place.line) +
                ")";
        if (cur) {
            where += ", block (" + std::to_string(b.x) + "," + std::to_string(b.y) + "," +
                     std::to_string(b.z) + "), " + thread_name(cur->index);
        }
        where += ": ";
    }
    fprintf(stderr, "emulator: %s", where.c_str());
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(70); // the fibers' stacks stay behind; nothing of them is worth unwinding
}
} // namespace emu
