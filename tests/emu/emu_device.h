// emu_device: the device side of the emulator: indices, shared memory, exchange between lanes,
// barriers, atomics, and the functions of the CUDA maths that kernels use.
//
// Every function that synchronises knows the line it is called from: all who meet must call it
// there. A value exchanged between lanes has at most 8 bytes.
#ifndef JOMED_TESTS_EMU_EMU_DEVICE_H
#define JOMED_TESTS_EMU_EMU_DEVICE_H

// ---- indices ----
// Constant within one call of a kernel, so the compiler may keep them.
namespace emu {
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) uint3 block_size();
__attribute__((const)) uint3 grid_size();
} // namespace emu
#define threadIdx (emu::thread_index())
#define blockIdx (emu::block_index())
#define blockDim (emu::block_size())
#define gridDim (emu::grid_size())
#define warpSize 32

// ---- shared memory ----
namespace emu {
struct Carver {
    int taken = 0; // parts this thread has taken so far
};
void *smem_static(const void *key, const char *name, size_t bytes, size_t align, Place place);
void *smem_take(Carver *carver, const char *name, size_t bytes, size_t align, Place place);
} // namespace emu
// A local variable of the function stands for its array: one per function and template instance.
#define SMEM_STATIC(name, T, dims)                                                                 \
    static const char name##_key = 0;                                                              \
    T(&name) dims = *(T(*) dims)emu::smem_static(&name##_key, #name, sizeof(T dims), alignof(T),   \
                                                 Place::here())
#define SMEM_CARVER(carver) emu::Carver carver
#define SMEM_TAKE(carver, name, T, count, align)                                                   \
    T *name = (T *)emu::smem_take(&carver, #name, sizeof(T) * (count), align, Place::here())

// ---- lanes ----
namespace emu {
enum class Shuffle { IDX, UP, DOWN, XOR };
enum class Vote { BALLOT, ANY, ALL, MATCH, ADD, MIN, MAX, UMIN, UMAX, AND, OR, XOR };
uint64_t shuffle(uint32_t mask, uint64_t bits, Shuffle kind, int arg, int width, Place place);
uint32_t vote(uint32_t mask, uint32_t value, Vote kind, Place place);
template <typename T>
T shuffle_as(uint32_t mask, T x, Shuffle kind, int arg, int width, Place place) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = shuffle(mask, bits, kind, arg, width, place);
    memcpy(&x, &bits, sizeof x);
    return x;
}
} // namespace emu
#define SHUFFLE(name, kind)                                                                        \
    template <typename T> T name(uint32_t mask, T x, int arg, int width = 32, PLACE) {             \
        return emu::shuffle_as(mask, x, emu::Shuffle::kind, arg, width, place);                    \
    }
SHUFFLE(__shfl_sync, IDX)
SHUFFLE(__shfl_up_sync, UP)
SHUFFLE(__shfl_down_sync, DOWN)
SHUFFLE(__shfl_xor_sync, XOR)
#undef SHUFFLE
#define VOTE(T, name, U, kind)                                                                     \
    static inline T name(uint32_t mask, U x, PLACE) {                                              \
        return (T)emu::vote(mask, (uint32_t)x, emu::Vote::kind, place);                            \
    }
VOTE(unsigned, __ballot_sync, int, BALLOT)
VOTE(int, __any_sync, int, ANY)
VOTE(int, __all_sync, int, ALL)
VOTE(unsigned, __match_any_sync, unsigned, MATCH)
VOTE(unsigned, __reduce_add_sync, unsigned, ADD)
VOTE(int, __reduce_add_sync, int, ADD)
VOTE(int, __reduce_min_sync, int, MIN)
VOTE(int, __reduce_max_sync, int, MAX)
VOTE(unsigned, __reduce_min_sync, unsigned, UMIN)
VOTE(unsigned, __reduce_max_sync, unsigned, UMAX)
VOTE(unsigned, __reduce_and_sync, unsigned, AND)
VOTE(unsigned, __reduce_or_sync, unsigned, OR)
VOTE(unsigned, __reduce_xor_sync, unsigned, XOR)
#undef VOTE
void __syncwarp(uint32_t mask = 0xffffffffu, PLACE);

// ---- barriers and fences ----
void __syncthreads(PLACE);
int __syncthreads_count(int predicate, PLACE);
int __syncthreads_and(int predicate, PLACE);
int __syncthreads_or(int predicate, PLACE);
void __threadfence();
void __threadfence_block();

// ---- atomics ----
namespace emu {
enum class Atomic { ADD, ADD_F32, MIN, MAX, UMIN, UMAX, AND, OR, XOR, EXCHANGE, CAS };
uint64_t atomic(void *at, size_t size, Atomic op, uint64_t value, uint64_t compare);
} // namespace emu
#define ATOMIC(name, T, bits_t, op)                                                                \
    static inline T name(T *at, T x) {                                                             \
        bits_t bits;                                                                               \
        memcpy(&bits, &x, sizeof bits);                                                            \
        bits = (bits_t)emu::atomic(at, sizeof bits, emu::Atomic::op, bits, 0);                     \
        memcpy(&x, &bits, sizeof bits);                                                            \
        return x;                                                                                  \
    }
#define ATOMICS(T, bits_t, least, most)                                                            \
    ATOMIC(atomicAdd, T, bits_t, ADD)                                                              \
    ATOMIC(atomicMin, T, bits_t, least)                                                            \
    ATOMIC(atomicMax, T, bits_t, most)                                                             \
    ATOMIC(atomicExch, T, bits_t, EXCHANGE)                                                        \
    ATOMIC(atomicAnd, T, bits_t, AND)                                                              \
    ATOMIC(atomicOr, T, bits_t, OR)                                                                \
    static inline T atomicCAS(T *at, T compare, T x) {                                             \
        return (T)emu::atomic(at, sizeof x, emu::Atomic::CAS, (bits_t)x, (bits_t)compare);         \
    }
ATOMICS(int, uint32_t, MIN, MAX)
ATOMICS(unsigned, uint32_t, UMIN, UMAX)
ATOMICS(unsigned long long, uint64_t, UMIN, UMAX)
ATOMIC(atomicAdd, float, uint32_t, ADD_F32)
ATOMIC(atomicExch, float, uint32_t, EXCHANGE)
#undef ATOMIC
#undef ATOMICS

#include "emu_math.h"
#endif
