// sync: exchange between the lanes of a warp, barriers of a block, atomics.
//
// An exchange is one meeting: every lane of the mask leaves a record on its own stack, and the last
// one to arrive computes for all. Lanes that meet must name the same mask, operation and line. A
// shuffle or a vote does not order memory; __syncwarp and barriers do.
#include "core.h"

namespace emu {

// ---- meetings ----
static bool is_same_place(Place a, Place b) {
    return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

// Lanes of the mask that have ended can never come.
static void check_ended(const Meeting &meeting, const Warp &warp) {
    const uint32_t ended = meeting.mask & ~warp.live;
    if (ended) {
        fail("%s at %s:%d names lanes %08x, which have ended", meeting.what, meeting.place.file,
             meeting.place.line, ended);
    }
}

void meet(uint32_t mask, const char *what, Place place, void *record, act_fn *act,
          const void *context) {
    Warp &warp = *cur->warp;
    const uint32_t bit = 1u << cur->lane;
    if (!(mask & bit)) {
        fail("%s at %s:%d: the mask %08x leaves out the calling lane %d", what, place.file,
             place.line, mask, cur->lane);
    }
    size_t m = 0;
    while (m < warp.meetings.size() && warp.meetings[m].mask != mask) {
        m++;
    }
    if (m == warp.meetings.size()) {
        warp.meetings.push_back({mask, 0, what, place, {}});
        check_ended(warp.meetings[m], warp);
    }
    Meeting &meeting = warp.meetings[m];
    if ((meeting.what != what && strcmp(meeting.what, what) != 0) ||
        !is_same_place(meeting.place, place)) {
        fail("lanes of mask %08x diverge: %s at %s:%d, but %s at %s:%d", mask, what, place.file,
             place.line, meeting.what, meeting.place.file, meeting.place.line);
    }
    meeting.arrived |= bit;
    meeting.records[cur->lane] = record;
    if (meeting.arrived != mask) {
        wait(what, place, mask & ~meeting.arrived);
        return;
    }
    Meeting done = meeting; // the others may begin the next meeting of this mask
    warp.meetings.erase(warp.meetings.begin() + (long)m);
    for (uint32_t rest = mask & ~bit; rest; rest &= rest - 1) {
        wake(&threads[warp.index * LANES + __builtin_ctz(rest)]);
    }
    act(mask, done.records, context);
}

// ---- shuffles ----
struct ShuffleRecord {
    uint64_t in, out;
    int arg;
};
struct ShuffleContext {
    Shuffle kind;
    int width;
    Place place;
};

static void act_shuffle(uint32_t mask, void **records, const void *context) {
    const ShuffleContext &c = *(const ShuffleContext *)context;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest), first = lane & ~(c.width - 1);
        ShuffleRecord &to = *(ShuffleRecord *)records[lane];
        int from = c.kind == Shuffle::IDX    ? first + (to.arg & (c.width - 1))
                   : c.kind == Shuffle::UP   ? lane - to.arg
                   : c.kind == Shuffle::DOWN ? lane + to.arg
                                             : lane ^ to.arg;
        if (from < first || (c.kind != Shuffle::IDX && from >= first + c.width)) {
            from = lane; // outside the segment: one's own value
        }
        if (!(mask >> from & 1)) {
            fail("shuffle at %s:%d: lane %d reads lane %d, which is not in the mask %08x",
                 c.place.file, c.place.line, lane, from, mask);
        }
        to.out = ((const ShuffleRecord *)records[from])->in;
    }
}

uint64_t shuffle(uint32_t mask, uint64_t bits, Shuffle kind, int arg, int width, Place place) {
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    if (width < 1 || width > LANES || (width & (width - 1))) {
        fail("shuffle at %s:%d: width %d is not 1, 2, 4, 8, 16 or 32", place.file, place.line,
             width);
    }
    ShuffleRecord record = {bits, bits, arg};
    const ShuffleContext context = {kind, width, place};
    meet(mask, names[(int)kind], place, &record, act_shuffle, &context);
    return record.out;
}

// ---- votes and reductions ----
struct VoteRecord {
    uint32_t in, out;
};

static uint32_t join(Vote kind, uint32_t a, uint32_t b) {
    switch (kind) {
    case Vote::ADD: return a + b;
    case Vote::MIN: return (int32_t)a < (int32_t)b ? a : b;
    case Vote::MAX: return (int32_t)a > (int32_t)b ? a : b;
    case Vote::UMIN: return a < b ? a : b;
    case Vote::UMAX: return a > b ? a : b;
    case Vote::AND: return a & b;
    case Vote::OR: return a | b;
    default: return a ^ b;
    }
}

static void act_vote(uint32_t mask, void **records, const void *context) {
    const Vote kind = *(const Vote *)context;
    uint32_t ballot = 0, all = 0;
    bool is_first = true;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const uint32_t in = ((const VoteRecord *)records[lane])->in;
        ballot |= (in ? 1u : 0u) << lane;
        all = is_first ? in : join(kind, all, in);
        is_first = false;
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        VoteRecord &to = *(VoteRecord *)records[__builtin_ctz(rest)];
        to.out = kind == Vote::BALLOT ? ballot
                 : kind == Vote::ANY  ? ballot != 0
                 : kind == Vote::ALL  ? ballot == mask
                                      : all;
        if (kind == Vote::MATCH) {
            to.out = 0;
            for (uint32_t other = mask; other; other &= other - 1) {
                const int lane = __builtin_ctz(other);
                to.out |= (((const VoteRecord *)records[lane])->in == to.in ? 1u : 0u) << lane;
            }
        }
    }
}

uint32_t vote(uint32_t mask, uint32_t value, Vote kind, Place place) {
    static const char *const names[] = {"__ballot_sync", "__any_sync", "__all_sync",
                                        "__match_any_sync"};
    VoteRecord record = {value, 0};
    meet(mask, kind <= Vote::MATCH ? names[(int)kind] : "__reduce_sync", place, &record, act_vote,
         &kind);
    return record.out;
}

static void act_syncwarp(uint32_t mask, void **, const void *) {
    const int first = cur->warp->index * LANES;
    Known all;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        tell(&all, &threads[first + __builtin_ctz(rest)]);
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        threads[first + __builtin_ctz(rest)].known = all; // all of what it knew is in it
    }
}

// ---- barriers ----
struct Barrier {
    int expected, arrived;
    Place place;
    const char *what;
    int votes;                  // true predicates
    std::vector<Thread *> here; // those that wait
    Known known;
};
static Barrier barriers[16];
static int counts[16]; // votes of a barrier's last round, read by those it released

void barriers_start() {
    for (Barrier &b : barriers) {
        if (b.arrived) {
            fail("barrier at %s:%d: the last block ended with %d of %d threads in it", b.place.file,
                 b.place.line, b.arrived, b.expected);
        }
        b.here.clear();
    }
}

// Threads that have ended never come: __syncthreads after that is a mistake of the kernel.
void barriers_check_exit() {
    if (barriers[0].arrived) {
        fail("a thread ends while %d others wait in %s at %s:%d", barriers[0].arrived,
             barriers[0].what, barriers[0].place.file, barriers[0].place.line);
    }
    for (const Meeting &meeting : cur->warp->meetings) {
        check_ended(meeting, *cur->warp);
    }
}

static void arrive(int id, int expected, bool waits, bool predicate, const char *what,
                   Place place) {
    Barrier &b = barriers[id];
    if (b.arrived == 0) {
        b.expected = expected, b.place = place, b.what = what, b.votes = 0;
        b.known = Known();
    }
    if (b.expected != expected) {
        fail("barrier %d: %d threads at %s:%d, but %d at %s:%d", id, expected, place.file,
             place.line, b.expected, b.place.file, b.place.line);
    }
    if (id == 0 && (strcmp(b.what, what) != 0 || !is_same_place(b.place, place))) {
        fail("barrier in divergent code: %s at %s:%d, but %s at %s:%d", what, place.file,
             place.line, b.what, b.place.file, b.place.line);
    }
    b.arrived++;
    b.votes += predicate;
    tell(&b.known, cur);
    if (b.arrived < b.expected) {
        if (waits) {
            b.here.push_back(cur);
            wait(what, place, 0);
        }
        return;
    }
    if (waits) {
        cur->known = b.known; // each has told all it knew
    }
    for (Thread *t : b.here) {
        t->known = b.known;
        wake(t);
    }
    counts[id] = b.votes;
    b.arrived = 0;
    b.here.clear();
}

static int sync_block(const char *what, bool predicate, Place place) {
    if (block.live != block.threads) {
        fail("%s at %s:%d after %d of %d threads have ended", what, place.file, place.line,
             block.threads - block.live, block.threads);
    }
    arrive(0, block.threads, true, predicate, what, place);
    return counts[0]; // nobody can complete the next round before every thread has read this
}

void bar(int id, int count, bool waits, Place place) {
    if (id < 1 || id > 15 || count < LANES || count % LANES || count > block.threads) {
        fail("named barrier %d for %d threads at %s:%d: 1..15, and whole warps of the block", id,
             count, place.file, place.line);
    }
    arrive(id, count, waits, false, waits ? "bar_sync" : "bar_arrive", place);
}

// ---- atomics ----
uint64_t atomic(void *at, size_t size, Atomic op, uint64_t value, uint64_t compare) {
    shadow_access(at, size, READ | WRITE | ATOMIC, HERE_PC);
    uint64_t old = 0, next = 0;
    memcpy(&old, at, size);
    const bool is_less = size == 4 && (op == Atomic::MIN || op == Atomic::MAX)
                             ? (int32_t)value < (int32_t)old
                             : value < old;
    switch (op) {
    case Atomic::ADD: next = old + value; break;
    case Atomic::ADD_F32:
        next = bits_as<uint32_t>(bits_as<float>((uint32_t)old) + bits_as<float>((uint32_t)value));
        break;
    case Atomic::MIN:
    case Atomic::UMIN: next = is_less ? value : old; break;
    case Atomic::MAX:
    case Atomic::UMAX: next = is_less ? old : value; break;
    case Atomic::AND: next = old & value; break;
    case Atomic::OR: next = old | value; break;
    case Atomic::XOR: next = old ^ value; break;
    case Atomic::EXCHANGE: next = value; break;
    case Atomic::CAS: next = old == compare ? value : old; break;
    }
    memcpy(at, &next, size);
    atomic_order(at);
    return old;
}
} // namespace emu

void __syncwarp(uint32_t mask, Place place) {
    emu::meet(mask, "__syncwarp", place, nullptr, emu::act_syncwarp, nullptr);
}
void __syncthreads(Place place) { emu::sync_block("__syncthreads", false, place); }
int __syncthreads_count(int predicate, Place place) {
    return emu::sync_block("__syncthreads_count", predicate, place);
}
int __syncthreads_and(int predicate, Place place) {
    return emu::sync_block("__syncthreads_and", predicate, place) == emu::block.threads;
}
int __syncthreads_or(int predicate, Place place) {
    return emu::sync_block("__syncthreads_or", predicate, place) != 0;
}
void __threadfence() { emu::fence(emu::cur); }
void __threadfence_block() {}
