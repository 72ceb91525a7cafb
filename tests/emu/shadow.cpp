// shadow: what is known of every word of device and shared memory, and of who saw what.
//
// The check build compiles kernels with -fsanitize=thread but without its library: g++ then calls
// the functions at the end of this file before every access. Each is looked up here:
//   * is the address inside a live block or part (bounds), the thread's own stack, or a constant?
//   * was the word ever written (uninitialised reads)?
//   * is every earlier conflicting access ordered before this one (races)? By vector clocks: each
//     thread counts its releases, and knows up to which count it has seen every other thread.
// Clocks never go back, so an old one also tells that another block, or another launch, made the
// access: launches are ordered, blocks of one launch only by fence and atomic.
// Left out: the acquire side of a fence; more than four unordered accessors of one word.
// Source: Serebryany and Iskhodzhanov 2009, ThreadSanitizer; the rules of CUDA's memory model.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>

#include "core.h"

extern "C" const char __executable_start, _end;

namespace emu {

// ---- source lines ----
// The innermost line that is not in the emulator's own headers.
std::string source_line(uintptr_t pc) {
    static std::map<uintptr_t, std::string> known; // a lint asks for the same ones again and again
    if (known.count(pc)) {
        return known[pc];
    }
    char command[200], text[1000];
    snprintf(command, sizeof command, "addr2line -i -e /proc/%d/exe %#zx", (int)getpid(),
             (size_t)(pc - 1 - (uintptr_t)&__executable_start));
    FILE *const pipe = popen(command, "r");
    std::string line = "?";
    while (pipe && fgets(text, sizeof text, pipe)) {
        text[strcspn(text, " \n")] = '\0';
        const char *const tree = strstr(text, "/kernels/"), *const tests = strstr(text, "/tests/");
        line = tree ? tree + 1 : tests ? tests + 1 : text;
        if (!strstr(text, "/emu/emu_")) {
            break;
        }
    }
    if (pipe) {
        pclose(pipe);
    }
    return known[pc] = line;
}

#ifdef EMU_CHECK
// ---- the shadow ----
// One access of one thread to some bytes of a word.
struct Entry {
    uint32_t clock; // 0: none
    uint16_t thread;
    uint8_t bytes, kind; // which of the four; Access
    uint32_t pc;         // from __executable_start
};
struct Cell {
    Entry entries[4];
};
static uint8_t *states; // per word: live bytes in the low half, written bytes in the high half
static Cell *cells;
static uint32_t launch_start[MAX_THREADS], block_start[MAX_THREADS];
static uint32_t acquired[MAX_THREADS]; // events of earlier blocks of this launch seen by fences
static std::unordered_map<const void *, Known> releases; // by atomics of this launch

static void *reserve(size_t bytes) {
    void *const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        perror("emulator: shadow memory");
        abort();
    }
    return at;
}

// Both arenas follow each other, shared first; a word's number counts from there.
static size_t word_of(const void *at) { return (size_t)((const char *)at - shared) / 4; }
static bool is_shadowed(const void *at) {
    return (const char *)at >= shared && (const char *)at < heap + HEAP_BYTES;
}

void shadow_map(const void *at, size_t bytes, bool is_valid, bool is_set) {
    if (!states) {
        states = (uint8_t *)reserve((SHARED_BYTES + HEAP_BYTES) / 4);
        cells = (Cell *)reserve((SHARED_BYTES + HEAP_BYTES) / 4 * sizeof(Cell));
    }
    const char *p = (const char *)at, *const end = p + bytes;
    const uint8_t one = (uint8_t)(is_valid | (is_set ? 16 : 0));
    while (p < end) {
        const size_t word = word_of(p);
        if ((uintptr_t)p % 4 == 0 && end - p >= 4) {
            const size_t words = (size_t)(end - p) / 4;
            memset(states + word, one * 15, words);
            p += 4 * words;
        } else {
            const int byte = (int)((uintptr_t)p % 4);
            states[word] = (uint8_t)((states[word] & ~(0x11 << byte)) | one << byte);
            p++;
        }
    }
}

void shadow_unset(const void *at, size_t bytes) { shadow_map(at, bytes, true, false); }

void shadow_copy_set(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        const char *const source = (const char *)from + i;
        const bool is_set = states[word_of(source)] >> (4 + (uintptr_t)source % 4) & 1;
        shadow_map((char *)to + i, 1, true, is_set);
    }
}

// ---- knowledge ----
static std::vector<Knowledge *> pool;

Known::~Known() {
    if (one && --one->users == 0) {
        pool.push_back(one);
    }
}
Known &Known::operator=(const Known &other) {
    if (other.one) {
        other.one->users++;
    }
    this->~Known();
    one = other.one;
    return *this;
}

// A Knowledge that nobody else holds, equal to what `known` held, to be changed.
static Knowledge *own(Known *known) {
    static uint64_t stamps;
    Knowledge *one = known->one;
    if (!one || one->users > 1) {
        Knowledge *const fresh = pool.empty() ? new Knowledge : pool.back();
        if (!pool.empty()) {
            pool.pop_back();
        }
        if (one) {
            memcpy(fresh->at, one->at, (size_t)block.threads * sizeof *fresh->at);
            one->users--;
        } else {
            memset(fresh->at, 0, sizeof fresh->at);
        }
        fresh->merged = one ? one->stamp : 0;
        fresh->users = 1;
        known->one = one = fresh;
    }
    one->stamp = ++stamps;
    return one;
}

// The threads of a block mostly know the same, from their last barrier: `merged` saves adding it
// once per thread.
void merge(Known *all, const Known &more) {
    if (!more.one || more.one == all->one || (all->one && all->one->merged == more.one->stamp)) {
        return;
    }
    if (!all->one) {
        *all = more;
        return;
    }
    Knowledge *const sum = own(all);
    for (int t = 0; t < block.threads; t++) {
        sum->at[t] = sum->at[t] > more.one->at[t] ? sum->at[t] : more.one->at[t];
    }
    sum->merged = more.one->stamp;
}

void tell(Known *all, Thread *thread) {
    merge(all, thread->known);
    own(all)->at[thread->index] = thread->clock++;
}

void learn(Thread *thread, const Known &all) { merge(&thread->known, all); }

void fence(Thread *thread) {
    thread->fenced = thread->known;
    own(&thread->fenced)->at[thread->index] = thread->clock++;
}

// What fenced threads did before their atomic happened before what follows a later atomic here.
void atomic_order(const void *at) {
    Known &release = releases[at];
    if (release.one) {
        Knowledge *const mine = own(&cur->known);
        for (int t = 0; t < block.threads; t++) {
            const uint32_t clock = release.one->at[t];
            uint32_t &seen = clock >= block_start[t] ? mine->at[t] : acquired[t];
            seen = seen > clock ? seen : clock;
        }
    }
    merge(&release, cur->fenced);
}

void launch_clocks() {
    for (int t = 0; t < MAX_THREADS; t++) {
        launch_start[t] = ++threads[t].clock;
    }
    memset(acquired, 0, sizeof acquired);
    releases.clear();
}

void block_clocks() {
    for (int t = 0; t < block.threads; t++) {
        block_start[t] = ++threads[t].clock;
    }
}

// ---- reports ----
static std::string kind_name(int kind, bool is_past) {
    const std::string verb = kind & WRITE ? (is_past ? "wrote" : "writes")
                                          : (is_past ? "read" : "reads");
    return (kind & ASYNC ? "asynchronously " : kind & ATOMIC ? "atomically " : "") + verb;
}

[[noreturn]] static void report(const char *what, const void *at, size_t bytes, int kind,
                                uintptr_t pc, const std::string &more) {
    char name[200] = "memory that is no device memory";
    name_of(at, name, sizeof name);
    fail("%s: %s %zu bytes of %s at %s%s", what, kind_name(kind, false).c_str(), bytes, name,
         source_line(pc).c_str(), more.c_str());
}

[[noreturn]] static void report_race(const void *at, size_t bytes, int kind, uintptr_t pc,
                                     const Entry &old) {
    const bool is_foreign = old.clock < block_start[old.thread];
    report("race", at, bytes, kind, pc,
           "; " + (is_foreign ? "a thread of another block" : thread_name(old.thread)) + " " +
               kind_name(old.kind, true) + " it at " +
               source_line(old.pc + (uintptr_t)&__executable_start) + ", and nothing orders them");
}

// ---- an access ----
// Did the access of `old` happen before what the running thread does now?
static inline bool is_before(const Entry &old, bool is_shared) {
    const int t = old.thread;
    if (old.clock >= block_start[t] && t < block.threads) {
        return t == cur->index || (cur->known.one && old.clock <= cur->known.one->at[t]);
    }
    return is_shared || old.clock < launch_start[t] || old.clock <= acquired[t];
}

static inline bool is_conflict(int a, int b) {
    return ((a | b) & WRITE) && !(a & b & ATOMIC);
}

static void check_word(const char *at, size_t bytes, int kind, uintptr_t pc) {
    const size_t word = word_of(at);
    const bool is_shared = at < heap;
    const uint8_t mask = (uint8_t)(((1u << bytes) - 1) << (uintptr_t)at % 4);
    if ((states[word] & mask) != mask) {
        report("out of bounds", at, bytes, kind, pc, "");
    }
    Cell &cell = cells[word];
    if (kind & READ) {
        if ((states[word] >> 4 & mask) != mask) {
            bool is_pending = false;
            for (const Entry &e : cell.entries) {
                is_pending |= e.clock >= block_start[e.thread] && (e.kind & ASYNC);
            }
            report("uninitialised", at, bytes, kind, pc,
                   is_pending ? ", before the asynchronous copy to it was waited for" : "");
        }
    }
    Entry *place = nullptr;
    for (Entry &e : cell.entries) {
        if (e.clock == 0) {
            place = place ? place : &e;
            continue;
        }
        if (!(e.bytes & mask)) {
            continue;
        }
        const bool before = is_before(e, is_shared);
        if (!before && is_conflict(e.kind, kind)) {
            report_race(at, bytes, kind, pc, e);
        }
        if ((kind & ASYNC) && !(kind & WRITE) && (e.kind & WRITE) && !(e.kind & PROXY) &&
            e.clock >= block_start[e.thread] && e.clock > threads[e.thread].proxy_clock) {
            report("no fence_proxy_async", at, bytes, kind, pc,
                   ", written by " + thread_name(e.thread) + " at " +
                       source_line(e.pc + (uintptr_t)&__executable_start));
        }
        // The new access stands for an older one that it covers and that no later one could
        // conflict with unless it conflicts with the new one too.
        if (before && !(e.bytes & ~mask) && ((kind & WRITE) || !(e.kind & WRITE)) &&
            (!(kind & ATOMIC) || (e.kind & ATOMIC))) {
            if (place && place != &e && place->clock) {
                e = {};
            } else {
                place = &e;
            }
        }
    }
    if (!place) {
        place = &cell.entries[random_word() % 4];
    }
    *place = {cur->clock, (uint16_t)cur->index, mask, (uint8_t)kind,
              (uint32_t)(pc - (uintptr_t)&__executable_start)};
    if (kind & WRITE) {
        states[word] |= (uint8_t)(mask << 4);
    }
}

void shadow_access(const void *address, size_t bytes, int kind, uintptr_t pc) {
    const char *at = (const char *)address, *const end = at + bytes;
    if (!is_shadowed(at)) {
        // A thread's own stack and the program's constants are nobody else's business.
        if (cur && at >= cur->stack && end <= cur->stack + STACK_BYTES) {
            return;
        }
        if (at >= &__executable_start && end <= &_end && !(kind & WRITE)) {
            return;
        }
        for (int t = 0; t < block.threads; t++) {
            if (at >= threads[t].stack && at < threads[t].stack + STACK_BYTES) {
                report("a local variable of another thread", at, bytes, kind, pc, "");
            }
        }
        report("host memory in a kernel", at, bytes, kind, pc, "");
    }
    if (is_linting) {
        lint_access(at, bytes, pc);
    }
    while (at < end) {
        const size_t left = 4 - (uintptr_t)at % 4;
        const size_t part = (size_t)(end - at) < left ? (size_t)(end - at) : left;
        check_word(at, part, kind, pc);
        at += part;
    }
}

// ---- what g++ calls ----
static inline void access(void *at, size_t bytes, int kind, uintptr_t pc) {
    if (cur && !((char *)at >= cur->stack && (char *)at < cur->stack + STACK_BYTES)) {
        shadow_access(at, bytes, kind, pc);
    }
}
#else
void shadow_map(const void *, size_t, bool, bool) {}
void shadow_unset(const void *, size_t) {}
void shadow_copy_set(void *, const void *, size_t) {}
void shadow_access(const void *, size_t, int, uintptr_t) {}
void launch_clocks() {}
void block_clocks() {}
Known::~Known() {}
Known &Known::operator=(const Known &) { return *this; }
void merge(Known *, const Known &) {}
void tell(Known *, Thread *) {}
void learn(Thread *, const Known &) {}
void fence(Thread *) {}
void atomic_order(const void *) {}
#endif
} // namespace emu

#ifdef EMU_CHECK
#define HOOK(name, bytes, kind)                                                                    \
    extern "C" void __tsan_##name(void *at);                                                       \
    void __tsan_##name(void *at) { emu::access(at, bytes, kind, HERE_PC); }
#define HOOKS(bytes)                                                                               \
    HOOK(read##bytes, bytes, emu::READ)                                                            \
    HOOK(write##bytes, bytes, emu::WRITE)                                                          \
    HOOK(unaligned_read##bytes, bytes, emu::READ)                                                  \
    HOOK(unaligned_write##bytes, bytes, emu::WRITE)                                                \
    HOOK(volatile_read##bytes, bytes, emu::READ)                                                   \
    HOOK(volatile_write##bytes, bytes, emu::WRITE)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
extern "C" void __tsan_init();
void __tsan_init() {}
extern "C" void __tsan_read_range(void *at, size_t bytes);
void __tsan_read_range(void *at, size_t bytes) { emu::access(at, bytes, emu::READ, HERE_PC); }
extern "C" void __tsan_write_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes) { emu::access(at, bytes, emu::WRITE, HERE_PC); }
extern "C" void __tsan_vptr_update(void **at, void *value);
void __tsan_vptr_update(void **, void *) {}
#endif
