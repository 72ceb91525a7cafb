// softmax_row: what the losses need of a row of logits, in one pass over it. Only for *.cu.
//
// A block has a row. Each thread keeps the largest logit so far and the sum of exponentials under
// it, which it scales down whenever a larger one comes (Milakov and Gimelshein 2018); at the end
// the threads' sums are brought under the largest of all and added in butterflies. The order
// depends on V, the type and the alignment of the tensor alone. Packs of 16 bytes where rows begin
// at multiples of 16, else one element.
#ifndef JOMED_KERNELS_SOFTMAX_ROW_CUH
#define JOMED_KERNELS_SOFTMAX_ROW_CUH

#include "cuda_common.cuh"
#include "lanes.h"

typedef struct {
    float lse;   // log sum_v exp(row[v]), rounded once from f64; -inf for a row of -inf, NaN if any
    float first; // position of the first largest element; +inf in a row of NaN. Exact below 2^24
} SoftmaxRow;

struct Least {
    __device__ float operator()(float a, float b) const { return a < b ? a : b; }
};

// EACH elements from v on, widened.
template <typename T, int EACH>
static __device__ inline void softmax_load(float (&x)[EACH], const T *from) {
    if constexpr (EACH == 1) {
        x[0] = to_float(*from);
    } else {
        const Pack<T> pack = pack_load(from);
        UNROLL for (int e = 0; e < EACH; e++) {
            x[e] = pack.at[e];
        }
    }
}

template <typename T, int EACH>
static __device__ inline void softmax_store(T *to, const float (&x)[EACH]) {
    if constexpr (EACH == 1) {
        *to = from_float<T>(x[0]);
    } else {
        Pack<T> pack;
        UNROLL for (int e = 0; e < EACH; e++) {
            pack.at[e] = x[e];
        }
        pack_store(to, pack);
    }
}

// exp(x - max), where -inf - -inf shall be -inf.
static __device__ inline float exp_below(float x, float max) {
    return exp_f32(x - (max == -INFINITY ? 0.0f : max));
}

// Of a row of V elements, a multiple of EACH: 1 or a pack. All threads get the result; their number
// is a multiple of 32. Six barriers, 384 bytes of shared memory.
template <typename T, int EACH>
static __device__ inline SoftmaxRow softmax_row(const T *row, int V CALLER) {
    float max = -INFINITY, sum = 0, first = INFINITY;
    for (int v = threadIdx.x * EACH; v < V; v += blockDim.x * EACH) {
        float x[EACH], most = max;
        softmax_load<T, EACH>(x, row + v);
        UNROLL for (int e = 0; e < EACH; e++) {
            if (x[e] > most || (first == INFINITY && x[e] == most)) { // not NaN; -inf if first
                most = x[e];
                first = (float)(v + e);
            }
        }
        sum *= exp_below(max, most);
        max = most;
        UNROLL for (int e = 0; e < EACH; e++) {
            sum += exp_below(x[e], max);
        }
    }
    const float top = block_max(max CALLER_PASS);
    sum = block_sum(sum * exp_below(max, top) CALLER_PASS);
    first = block_reduce(max == top ? first : INFINITY, Least(), INFINITY CALLER_PASS);
    const float shift = top == -INFINITY ? 0.0f : top;
    return {(float)((double)shift + log_wide(sum)), first};
}

// Threads of a row's block: enough that a row alone keeps a multiprocessor's share of the memory
// busy.
static inline unsigned softmax_block(int V, int each) {
    const int wanted = (V + each - 1) / each;
    return wanted >= 1024 ? 1024 : ((unsigned)wanted + WARP - 1) / WARP * WARP;
}

// Runs a statement with T the type of logits and EACH what a thread reads at once. is_aligned:
// whether the tensors begin at multiples of 16 bytes.
#define FOR_LOGITS(t, T, EACH, is_aligned, V, ...)                                                 \
    FOR_DTYPE(t, T, if ((is_aligned) && (V) % Pack<T>::N == 0) {                                   \
        enum { EACH = Pack<T>::N };                                                                \
        __VA_ARGS__;                                                                               \
    } else {                                                                                       \
        enum { EACH = 1 };                                                                         \
        __VA_ARGS__;                                                                               \
    })

#endif
