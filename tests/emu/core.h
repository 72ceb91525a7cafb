// core: what the parts of the emulator share: threads, warps, the block that runs, and reports.
//
// One block runs at a time, on one OS thread; a CUDA thread is a fiber. A thread runs until it has
// to wait for others (meet, barrier, spin); then the next ready one of its warp goes on, then the
// next warp. In the check build every kernel's memory access comes to shadow.cpp, which keeps for
// every thread what it knows to have happened (a vector clock).
// size: all that the parts share in one place; only the emulator's own files include it.
#ifndef JOMED_TESTS_EMU_CORE_H
#define JOMED_TESTS_EMU_CORE_H

#include <functional>
#include <string>
#include <vector>

#include "calls.h"
#include "cuda_emu.h"

namespace emu {
enum { MAX_THREADS = 1024, LANES = 32, MAX_WARPS = MAX_THREADS / LANES };
enum : size_t { STACK_BYTES = 256 * 1024 };

// ---- what a thread knows: shadow.cpp ----
// at[t]: the last event of thread t that happened before. Shared by all who know the same.
struct Knowledge {
    int users = 0;
    uint64_t stamp = 0;  // new with every change
    uint64_t merged = 0; // stamp of the one last added whole
    uint32_t at[MAX_THREADS];
};
// Holds a share of a Knowledge; null knows nothing.
struct Known {
    Knowledge *one = nullptr;
    Known() = default;
    Known(const Known &other) : one(other.one) {
        if (one) {
            one->users++;
        }
    }
    Known &operator=(const Known &other);
    ~Known();
};

// ---- asynchronous copies: async.cpp ----
struct Copy { // one cp.async, made when its group is waited for
    uint32_t to;
    const char *from;
    int bytes;
    uintptr_t pc;
    int group;
};

// ---- products of a warpgroup: hopper.cpp ----
struct Product { // one wgmma, computed when its group is waited for
    float *acc;
    int columns;
    DType t; // of a and b
    uint64_t a, b;
    bool a_mn, b_mn; // the tile is MN-major
    uintptr_t pc;
    int group;
    std::vector<float> start; // the accumulator before, known when the one before it is done
    // a from registers: where this thread's lie, what they held, and those of lanes 4 g .. 4 g + 3
    uint32_t *fragment = nullptr;
    uint32_t held[4] = {}, quad[4][4] = {};
};

// ---- threads and warps ----
struct Warp;
struct Thread {
    uint3 place;           // threadIdx
    int index, lane;       // in the block, in the warp
    Warp *warp;
    void *stack_top;       // saved stack pointer while it does not run
    char *stack;           // its lowest byte
    bool is_live;
    const char *waits_for; // "__syncthreads", and where it was called
    Place waits_at;
    uint32_t mask;         // of the lanes it waits for, 0 otherwise
    uint32_t clock;        // its own events; never goes back
    Known known, fenced;   // fenced: known when it last called __threadfence
    std::vector<Copy> copies;
    int groups;            // committed so far
    uint32_t proxy_clock;  // its clock at its last fence_proxy_async
    std::vector<Product> products;
    int product_groups;
    bool is_fenced;        // wgmma_fence since its accumulators were free
    int registers;         // it may use, by setmaxnreg
};
// Lanes that came to one exchange; done when all of the mask are there.
struct Meeting {
    uint32_t mask, arrived;
    const char *what;
    Place place;
    void *records[LANES];
};
struct Warp {
    int index;
    uint32_t live, ready;
    std::vector<Meeting> meetings;
};
extern Thread threads[MAX_THREADS];
extern Warp warps[MAX_WARPS];
extern Thread *cur; // null while host code runs

// ---- the running block ----
struct Block {
    const Launch *launch;
    uint3 place; // blockIdx
    int threads, warps, live;
    long spins;  // calls of spin since a thread last got on
    int registers; // that its threads gave back
};
extern Block block;
enum class Order { FORWARD, REVERSE, RANDOM };
extern Order order;       // EMU_ORDER=forward|reverse|random:SEED
extern bool copies_early; // EMU_COPIES=late|early
uint32_t random_word();

void wait(const char *what, Place place, uint32_t mask); // until another makes it ready
void wake(Thread *thread);
// All lanes of mask come with a record each; the last one runs `act` over the records.
typedef void act_fn(uint32_t mask, void **records, const void *context);
void meet(uint32_t mask, const char *what, Place place, void *record, act_fn *act,
          const void *context);
void barriers_start();
void hopper_start();
void barriers_check_exit(); // a thread ends: nobody may be waiting for it
bool async_deliver();       // nothing else can run: an asynchronous copy arrives; false: none left

// ---- memory.cpp ----
enum : size_t { HEAP_BYTES = (size_t)1 << 30, SHARED_BYTES = (size_t)1 << 18 };
extern char *heap, *shared;
void shared_start();                     // new block: everything dead and poisoned
void memory_check(const Launch &launch); // limits of a launch; after its first block too
void shared_check_static();
bool name_of(const void *at, char *text, size_t size); // "shared tile + 12", for reports
void *shared_at(uint32_t address);
void heap_close(bool is_closed);
bool is_broken(const char *call); // EMU_FAULT
constexpr cudaError_t ILLEGAL_ADDRESS = (cudaError_t)700; // what such a call says

// ---- shadow.cpp; does nothing outside the check build ----
enum Access : uint8_t { READ = 1, WRITE = 2, ATOMIC = 4, ASYNC = 8, PROXY = 16 };
void shadow_map(const void *at, size_t bytes, bool is_valid, bool is_set); // no race is looked for
void shadow_unset(const void *at, size_t bytes);
void shadow_copy_set(void *to, const void *from, size_t bytes);
void shadow_access(const void *at, size_t bytes, int access, uintptr_t pc);
void launch_clocks();
void block_clocks();
void merge(Known *all, const Known &more);
void tell(Known *all, Thread *thread);   // what thread knows is added to all; thread goes on
// Adds all to what thread knows. (To one that has told all of its own, just assign: known = all.)
void learn(Thread *thread, const Known &all);
void fence(Thread *thread);
void atomic_order(const void *at);

// ---- lint.cpp: at each access, after a block, after a launch ----
extern bool is_linting; // EMU_LINT=1
void lint_access(const void *at, size_t bytes, uintptr_t pc);
void lint_block();
void lint_launch();

// ---- what was asked of the runtime: runtime.cpp ----
extern EmuCalls calls;

// ---- reports ----
// Prints kernel, block, thread and the text to stderr and ends the process.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string source_line(uintptr_t pc); // "kernels/x.cu:40"
std::string thread_name(int index);
#define HERE_PC ((uintptr_t)__builtin_return_address(0))
} // namespace emu
#endif
