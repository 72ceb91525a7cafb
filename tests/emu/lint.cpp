// lint: how well a warp's accesses fit the memory system, per source line (EMU_LINT=1).
//
// The n-th execution of one access by the lanes of a warp is taken as one instruction. Device
// memory: sectors of 32 bytes that it touches, against the fewest that hold as many bytes. Shared
// memory: passes over the 32 banks of 4 bytes (32, 16 or 8 lanes at a time for accesses of 4, 8 or
// 16 bytes; lanes that read one word share it), against one per group. Each launch prints
//   lint LINE global|shared BYTES instructions units least
// and `make emu-lint` adds them up. A ratio of 1 is the best; what is left out: caches, partly
// masked instructions that the hardware would merge, elements stored one by one.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "core.h"

namespace emu {
struct Instruction {
    size_t bytes = 0; // of one lane
    std::vector<std::pair<int, size_t>> lanes; // lane, address
};
// Of one block: by line, warp and turn; and how often each thread came by.
static std::map<std::tuple<uintptr_t, int, int>, Instruction> instructions;
static std::map<std::pair<uintptr_t, int>, int> turns;
struct Sum {
    long count = 0, units = 0, least = 0;
};
static std::map<std::tuple<uintptr_t, bool, size_t>, Sum> sums; // of one launch

void lint_access(const void *at, size_t bytes, uintptr_t pc) {
    const int turn = turns[{pc, cur->index}]++;
    Instruction &one = instructions[{pc, cur->warp->index, turn}];
    one.bytes = std::max(one.bytes, bytes);
    one.lanes.push_back({cur->lane, (size_t)((const char *)at - shared)});
}

static void count_global(const Instruction &one, Sum *sum) {
    std::set<size_t> sectors, bytes;
    for (const auto &[lane, at] : one.lanes) {
        for (size_t i = 0; i < one.bytes; i++) {
            sectors.insert((at + i) / 32);
            bytes.insert(at + i);
        }
    }
    sum->units += (long)sectors.size();
    sum->least += (long)(bytes.size() + 31) / 32;
}

static void count_shared(const Instruction &one, Sum *sum) {
    const int lanes = one.bytes <= 4 ? 32 : one.bytes <= 8 ? 16 : 8; // of one pass
    for (int first = 0; first < LANES; first += lanes) {
        std::set<size_t> words;
        int banks[32] = {0}, most = 0;
        for (const auto &[lane, at] : one.lanes) {
            for (size_t i = 0; lane / lanes * lanes == first && i < one.bytes; i += 4) {
                words.insert((at + i) / 4);
            }
        }
        for (const size_t word : words) {
            most = std::max(most, ++banks[word % 32]);
        }
        sum->units += most;
        sum->least += most > 0;
    }
}

void lint_block() {
    for (const auto &[key, one] : instructions) {
        const bool is_shared = one.lanes[0].second < SHARED_BYTES;
        Sum &sum = sums[{std::get<0>(key), is_shared, one.bytes}];
        sum.count++;
        is_shared ? count_shared(one, &sum) : count_global(one, &sum);
    }
    instructions.clear();
    turns.clear();
}

void lint_launch() {
    for (const auto &[key, sum] : sums) {
        fprintf(stderr, "lint %s %s %zu %ld %ld %ld\n", source_line(std::get<0>(key)).c_str(),
                std::get<1>(key) ? "shared" : "global", std::get<2>(key), sum.count, sum.units,
                sum.least);
    }
    sums.clear();
}
} // namespace emu
