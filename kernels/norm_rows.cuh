// norm_rows: the kernels of layernorm and rmsnorm, which differ in the mean alone. Only for *.cu.
//
//   forward, for a row x:  m = mean_c(x), or 0     r = 1 / sqrt(mean_c((x - m)^2) + eps)
//                          out = Norm::finish((x - m) r, weight, bias)
//   backward, with g = dout * weight and x^ = (x - m) r:
//     dinp = residual + r (g - mean_c(g) - x^ mean_c(g x^))    mean_c(g) only where there is an m
//     dweight += sum_n dout x^      dbias += sum_n dout
//
// Nothing but memory: the forward must move 2 elements per element, the backward 3, and 4 with a
// residual, which as an op of its own would move 3 more. So a row is read once, 16 bytes at a time,
// into the registers of its team, which is one warp up to 128 packs (in the backward 96: 768 of a
// 16-bit type, three packs a lane) and one block above; eight rows, a warp and 3 x 512 bytes each,
// keep some 50 KB of loads in flight on a processor, twice what its bandwidth times latency asks
// for. weight and bias come again for each row, out of the first-level cache: a quarter of what it
// can deliver.
//
// A row's sums are the threads' own chains, pack by pack, then butterflies: an order that C alone
// fixes. The parameters' gradients are taken in the same pass over dout and inp: a block keeps
// partial sums of its rows in registers; at the end its warps are added in order into one line of
// `parts`, and a second kernel adds these lines, PART_WARPS chains that are then added in order.
// There are at most PARTS blocks, a constant, so that the sum is the same on every card: two blocks
// for each processor of the largest one. parts are 2% of the traffic for N = 50,000.
// Left out: the forward's residual (x += y, then the norm of x). matmul's epilogue adds it for
// less: in 2-byte elements the product's store, the residual, the norm's load and store are 8; a
// norm that adds would load two and store two behind the product's store, 10. Rows longer than
// registers hold on several processors (clusters); no model has them.
//
//   version      idea                                    shape  time                  % of peak
//   fwd1, bwd1   one block per row, an element a time    -      not yet run on a GPU  -
//   params1      one thread per column down all rows     -      not yet run on a GPU  -
//   fwd2, bwd2   rows in registers, 16 bytes a time      -      not yet run on a GPU  -
//   params2      parts of bwd2, added in order           -      not yet run on a GPU  -
#ifndef JOMED_KERNELS_NORM_ROWS_CUH
#define JOMED_KERNELS_NORM_ROWS_CUH

#include "device_cuda.cuh"
#include "rows.cuh"

#define THREADS 256
#define ROWS (THREADS / WARP) // rows of a block with a warp each
#define PARTS 264             // blocks that sum parameter gradients
#define PART_WARPS 32         // chains of a column in the second kernel
#define PACKS 4               // of a thread in the forward
#define WARP_PACKS 3          // in the backward, which holds six numbers per element: of a lane,
#define BLOCK_PACKS 2         // of a block's thread
#define MOST_TEAM 512         // threads of a row

struct LayerNorm {
    enum { HAS_MEAN = 1, LINES = 2 }; // lines of a part: dweight, dbias
    template <typename T> static __device__ T finish(float normal, float weight, float bias) {
        return from_float<T>(fmaf(normal, weight, bias));
    }
};
struct RmsNorm {
    enum { HAS_MEAN = 0, LINES = 1 };
    template <typename T> static __device__ T finish(float normal, float weight, float) {
        return from_float<T>(to_float(from_float<T>(normal)) * weight); // rounded in between
    }
};

template <typename T> struct NormFwd {
    T *out;
    float *mean, *rstd; // mean, bias: NULL where there is no mean
    const T *inp, *weight, *bias;
    int N, C;
    float eps;
};
template <typename T> struct NormBwd {
    T *dinp;
    const T *residual, *dout, *inp, *weight; // residual may be NULL
    const float *mean, *rstd;
    float *parts; // (blocks, LINES, C), NULL: no parameter gradients
    int N, C;
};

// ---- version 1: any C ----
// Launch: N blocks of row_block(C) threads. 128 bytes of shared memory (the sum).
template <typename T, typename Norm> static __global__ void norm_fwd_kernel1(NormFwd<T> a) {
    const int n = blockIdx.x, C = a.C;
    const T *inp = a.inp + (size_t)n * C;
    float sum = 0, squares = 0, m = 0;
    if (Norm::HAS_MEAN) {
        ROW_STRIDE(c, C) { sum += to_float(inp[c]); }
        m = block_sum(sum) / (float)C;
    }
    ROW_STRIDE(c, C) {
        const float centred = to_float(inp[c]) - m;
        squares = fmaf(centred, centred, squares);
    }
    const float r = 1.0f / sqrtf(block_sum(squares) / (float)C + a.eps);
    ROW_STRIDE(c, C) {
        const float bias = Norm::HAS_MEAN ? to_float(a.bias[c]) : 0.0f;
        a.out[(size_t)n * C + c] =
            Norm::template finish<T>((to_float(inp[c]) - m) * r, to_float(a.weight[c]), bias);
    }
    if (threadIdx.x == 0) {
        a.rstd[n] = r;
        if (Norm::HAS_MEAN) {
            a.mean[n] = m;
        }
    }
}

// Launch: as the forward. An element of dinp is written by the thread that read this element of
// dout and residual: they may be one tensor.
template <typename T, typename Norm> static __global__ void norm_bwd_kernel1(NormBwd<T> a) {
    const int n = blockIdx.x, C = a.C;
    const size_t row = (size_t)n * C;
    const float m = Norm::HAS_MEAN ? a.mean[n] : 0.0f, r = a.rstd[n];
    float g_sum = 0, gx_sum = 0;
    ROW_STRIDE(c, C) {
        const float g = to_float(a.dout[row + c]) * to_float(a.weight[c]);
        g_sum += g;
        gx_sum = fmaf(g, (to_float(a.inp[row + c]) - m) * r, gx_sum);
    }
    const float g_mean = Norm::HAS_MEAN ? block_sum(g_sum) / (float)C : 0.0f;
    const float gx_mean = block_sum(gx_sum) / (float)C;
    ROW_STRIDE(c, C) {
        const float g = to_float(a.dout[row + c]) * to_float(a.weight[c]);
        const float normal = (to_float(a.inp[row + c]) - m) * r;
        const float d = r * fmaf(-normal, gx_mean, g - g_mean);
        a.dinp[row + c] = from_float<T>(a.residual ? to_float(a.residual[row + c]) + d : d);
    }
}

// Launch: ceil(C/256) blocks of 256 threads, no shared memory. dweight or dbias may be null.
template <typename T, typename Norm>
static __global__ void norm_params_kernel1(float *dweight, float *dbias, NormBwd<T> a) {
    const int c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= a.C) {
        return;
    }
    float dw = 0, db = 0;
    for (int n = 0; n < a.N; n++) {
        const size_t at = (size_t)n * a.C + c;
        const float dy = to_float(a.dout[at]), m = Norm::HAS_MEAN ? a.mean[n] : 0.0f;
        dw = fmaf(dy, (to_float(a.inp[at]) - m) * a.rstd[n], dw);
        db += dy;
    }
    if (dweight) {
        dweight[c] += dw;
    }
    if (dbias) {
        dbias[c] += db;
    }
}

// ---- version 2: rows in registers, all tensors at multiples of 16 bytes ----
// The threads that share a row: a warp, or the block.
struct Team {
    int lane, size;  // this thread's number, and how many there are
    int first, step; // its row, and how many rows lie before the next one
};
template <bool IS_WARP> static __device__ inline Team team_of() {
    const int thread = threadIdx.x, block = blockIdx.x;
    if (IS_WARP) {
        return {thread % WARP, WARP, block * ROWS + thread / WARP, (int)gridDim.x * ROWS};
    }
    return {thread, (int)blockDim.x, block, (int)gridDim.x};
}

// a and b become their sums over the team: together, for the sake of the barriers.
template <bool IS_WARP> static __device__ inline void team_sums(float *a, float *b CALLER) {
    *a = warp_sum(*a CALLER_PASS);
    *b = warp_sum(*b CALLER_PASS);
    if (!IS_WARP) {
        SMEM_STATIC(part, float, [2][WARP]);
        const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        __syncthreads(CALLER_ONLY); // the readers of the last call are done with part
        if (lane == 0) {
            part[0][warp] = *a;
            part[1][warp] = *b;
        }
        __syncthreads(CALLER_ONLY); // part is whole
        const bool is_there = lane < blockDim.x / WARP;
        *a = warp_sum(is_there ? part[0][lane] : 0.0f CALLER_PASS);
        *b = warp_sum(is_there ? part[1][lane] : 0.0f CALLER_PASS);
    }
}
template <bool IS_WARP> static __device__ inline float team_sum(float x CALLER) {
    return IS_WARP ? warp_sum(x CALLER_PASS) : block_sum(x CALLER_PASS);
}

// This thread's packs of a row of `packs`: pack number `at`, the k-th of the thread.
#define TEAM_PACKS(k, at, team, packs, most)                                                       \
    UNROLL for (int k = 0; k < (most); k++)                                                        \
        if (const int at = (team).lane + k * (team).size; at < (packs))

// Launch: ceil(N/8) blocks of 256 threads, a warp to a row; or N blocks of ceil(packs/PACKS)
// threads, in whole warps. 128 bytes of shared memory with blocks.
template <typename T, typename Norm, bool IS_WARP>
static __global__ void norm_fwd_kernel2(NormFwd<T> a) {
    const int E = Pack<T>::N, C = a.C, packs = C / E;
    const Team team = team_of<IS_WARP>();
    if (team.first >= a.N) {
        return; // whole warps; a block has its row
    }
    const T *inp = a.inp + (size_t)team.first * C;
    T *out = a.out + (size_t)team.first * C;
    Pack<T> x[PACKS];
    TEAM_PACKS(k, at, team, packs, PACKS) { x[k] = pack_load(inp + at * E); }
    float sum = 0, squares = 0, m = 0;
    if (Norm::HAS_MEAN) {
        TEAM_PACKS(k, at, team, packs, PACKS) {
            for (int e = 0; e < E; e++) {
                sum += x[k].at[e];
            }
        }
        m = team_sum<IS_WARP>(sum) / (float)C;
    }
    TEAM_PACKS(k, at, team, packs, PACKS) {
        for (int e = 0; e < E; e++) {
            const float centred = x[k].at[e] - m;
            squares = fmaf(centred, centred, squares);
        }
    }
    const float r = 1.0f / sqrtf(team_sum<IS_WARP>(squares) / (float)C + a.eps);
    TEAM_PACKS(k, at, team, packs, PACKS) {
        const Pack<T> w = pack_load(a.weight + at * E);
        Pack<T> b = w;
        if (Norm::HAS_MEAN) {
            b = pack_load(a.bias + at * E);
        }
        for (int e = 0; e < E; e++) {
            x[k].at[e] = to_float(
                Norm::template finish<T>((x[k].at[e] - m) * r, w.at[e], b.at[e]));
        }
        pack_store(out + at * E, x[k]); // rounded already: these bits
    }
    if (team.lane == 0) {
        a.rstd[team.first] = r;
        if (Norm::HAS_MEAN) {
            a.mean[team.first] = m;
        }
    }
}

// Partial sums of the parameters' gradients: element e of the thread's k-th pack.
template <int N> struct Partial {
    float weight[N], bias[N];
};
// Adds them, or stores them where is_first, to the two lines at to (shared or global memory).
template <typename T, typename Norm, int MOST, int N>
static __device__ inline void partial_add(float *to, const Partial<N> &sums, Team team, int C,
                                          bool is_first) {
    const int E = Pack<T>::N;
    TEAM_PACKS(k, at, team, C / E, MOST) {
        UNROLL
        for (int quad = 0; quad < E / 4; quad++) {
            UNROLL
            for (int line = 0; line < Norm::LINES; line++) {
                float *place = to + line * C + at * E + quad * 4;
                Pack<float> x;
                UNROLL
                for (int i = 0; i < 4; i++) {
                    const int e = k * E + quad * 4 + i;
                    x.at[i] = line ? sums.bias[e] : sums.weight[e];
                }
                if (!is_first) {
                    const Pack<float> before = pack_load(place);
                    UNROLL
                    for (int i = 0; i < 4; i++) {
                        x.at[i] = before.at[i] + x.at[i];
                    }
                }
                pack_store(place, x);
            }
        }
    }
}

// Launch: blocks of 256 threads, a warp to a row, LINES * 4 C bytes of shared memory where there
// are parts; or blocks of ceil(packs/MOST) threads. Any number of blocks. dinp may be dout or
// residual: a pack is written by the thread that read it.
template <typename T, typename Norm, bool IS_WARP, bool HAS_PARTS>
static __global__ void __launch_bounds__(IS_WARP ? THREADS : MOST_TEAM, IS_WARP ? 2 : 1)
    norm_bwd_kernel2(NormBwd<T> a) {
    const int E = Pack<T>::N, C = a.C, packs = C / E, MOST = IS_WARP ? WARP_PACKS : BLOCK_PACKS;
    const Team team = team_of<IS_WARP>();
    Partial<HAS_PARTS ? MOST * E : 1> partial = {};
    for (int n = team.first; n < a.N; n += team.step) {
        const size_t row = (size_t)n * C;
        const float m = Norm::HAS_MEAN ? a.mean[n] : 0.0f, r = a.rstd[n];
        uint4 x_bits[MOST], dy_bits[MOST]; // widened when needed: half the registers
        TEAM_PACKS(k, at, team, packs, MOST) {
            x_bits[k] = ld16(a.inp + row + at * E);
            dy_bits[k] = ld16(a.dout + row + at * E);
        }
        float g_sum = 0, gx_sum = 0;
        TEAM_PACKS(k, at, team, packs, MOST) {
            const Pack<T> x = pack_of<T>(x_bits[k]), dy = pack_of<T>(dy_bits[k]);
            const Pack<T> w = pack_load(a.weight + at * E);
            UNROLL
            for (int e = 0; e < E; e++) {
                const float normal = (x.at[e] - m) * r, g = dy.at[e] * w.at[e];
                g_sum += g;
                gx_sum = fmaf(g, normal, gx_sum);
                if constexpr (HAS_PARTS) {
                    partial.weight[k * E + e] =
                        fmaf(dy.at[e], normal, partial.weight[k * E + e]);
                    partial.bias[k * E + e] += dy.at[e];
                }
            }
        }
        if (Norm::HAS_MEAN) {
            team_sums<IS_WARP>(&g_sum, &gx_sum);
        } else {
            g_sum = 0;
            gx_sum = team_sum<IS_WARP>(gx_sum);
        }
        const float g_mean = g_sum / (float)C, gx_mean = gx_sum / (float)C;
        TEAM_PACKS(k, at, team, packs, MOST) {
            const Pack<T> x = pack_of<T>(x_bits[k]), dy = pack_of<T>(dy_bits[k]);
            const Pack<T> w = pack_load(a.weight + at * E);
            Pack<T> d;
            UNROLL
            for (int e = 0; e < E; e++) {
                const float normal = (x.at[e] - m) * r, g = dy.at[e] * w.at[e];
                d.at[e] = r * fmaf(-normal, gx_mean, g - g_mean);
            }
            if (a.residual) {
                const Pack<T> other = pack_load(a.residual + row + at * E);
                UNROLL
                for (int e = 0; e < E; e++) {
                    d.at[e] = other.at[e] + d.at[e];
                }
            }
            pack_store(a.dinp + row + at * E, d);
        }
    }
    if constexpr (HAS_PARTS) {
        float *part = a.parts + (size_t)blockIdx.x * Norm::LINES * C;
        if (!IS_WARP) {
            partial_add<T, Norm, MOST>(part, partial, team, C, true);
            return;
        }
        SMEM_CARVER(carver);
        SMEM_TAKE(carver, sums, float, Norm::LINES * C, 16);
        for (int warp = 0; warp < ROWS; warp++) { // in order
            if ((int)threadIdx.x / WARP == warp) {
                partial_add<T, Norm, MOST>(sums, partial, team, C, warp == 0);
            }
            __syncthreads(); // the next warp adds to these sums; the last one's are read below
        }
        for (int i = threadIdx.x; i < Norm::LINES * C; i += THREADS) {
            part[i] = sums[i];
        }
    }
}

// dweight and dbias (either may be null) += the parts of their columns. Launch: (ceil(C/32), LINES)
// blocks of 32 x PART_WARPS threads, 4224 bytes of shared memory.
static __global__ void norm_params_kernel2(float *dweight, float *dbias, const float *parts,
                                           int count, int C) {
    SMEM_STATIC(sums, float, [PART_WARPS][WARP + 1]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int c = blockIdx.x * WARP + lane, line = blockIdx.y;
    float sum = 0;
    for (int p = warp; p < count && c < C; p += PART_WARPS) {
        sum += parts[((size_t)p * gridDim.y + line) * C + c];
    }
    sums[warp][lane] = sum;
    __syncthreads(); // the first warp adds all
    float *to = line ? dbias : dweight;
    if (warp == 0 && c < C && to) {
        float total = 0;
        for (int w = 0; w < PART_WARPS; w++) {
            total += sums[w][lane];
        }
        to[c] += total;
    }
}

// ---- launchers ----
// Threads of the team for rows of C elements, `most` packs each: WARP, a block, or 0 where there is
// no version 2.
template <typename T> static unsigned team_size(int C, int most) {
    const int packs = C / Pack<T>::N, threads = (packs + most - 1) / most;
    if (C % Pack<T>::N || threads > MOST_TEAM) {
        return 0;
    }
    return (threads + WARP - 1) / WARP * WARP;
}

template <typename Norm, typename T> static void launch_norm_fwd(Device *dev, NormFwd<T> a) {
    const cudaStream_t stream = device_stream(dev);
    const bool has_packs = is_packable(a.out) && is_packable(a.inp) && is_packable(a.weight) &&
                           is_packable(a.bias);
    const unsigned team = has_packs ? team_size<T>(a.C, PACKS) : 0;
    if (team == WARP) {
        LAUNCH((norm_fwd_kernel2<T, Norm, true>), (a.N + ROWS - 1) / ROWS, THREADS, 0, stream, a);
    } else if (team) {
        LAUNCH((norm_fwd_kernel2<T, Norm, false>), a.N, team, 0, stream, a);
    } else {
        LAUNCH((norm_fwd_kernel1<T, Norm>), a.N, row_block(a.C), 0, stream, a);
    }
}

// The gradient of the parameters comes before, or together with, that of the input, which may lie
// on dout.
template <typename Norm, typename T>
static void launch_norm_bwd(Device *dev, NormBwd<T> a, float *dweight, float *dbias) {
    const cudaStream_t stream = device_stream(dev);
    const bool has_packs = is_packable(a.dinp) && is_packable(a.residual) && is_packable(a.dout) &&
                           is_packable(a.inp) && is_packable(a.weight);
    const bool is_warp = has_packs && team_size<T>(a.C, WARP_PACKS) == WARP;
    const unsigned team = has_packs && !is_warp ? team_size<T>(a.C, BLOCK_PACKS) : 0;
    const bool has_parts = dweight || dbias;
    if (!is_warp && !team) {
        if (has_parts) {
            LAUNCH((norm_params_kernel1<T, Norm>), (a.C + THREADS - 1) / THREADS, THREADS, 0,
                   stream, dweight, dbias, a);
        }
        LAUNCH((norm_bwd_kernel1<T, Norm>), a.N, row_block(a.C), 0, stream, a);
        return;
    }
    const int most = is_warp ? (a.N + ROWS - 1) / ROWS : a.N;
    if (!has_parts) {
        if (is_warp) {
            LAUNCH((norm_bwd_kernel2<T, Norm, true, false>), most, THREADS, 0, stream, a);
        } else {
            LAUNCH((norm_bwd_kernel2<T, Norm, false, false>), most, team, 0, stream, a);
        }
        return;
    }
    const int blocks = most < PARTS ? most : PARTS;
    const size_t line_bytes = (size_t)Norm::LINES * a.C * sizeof(float);
    a.parts = (float *)device_scratch(dev, blocks * line_bytes);
    if (is_warp) {
        LAUNCH((norm_bwd_kernel2<T, Norm, true, true>), blocks, THREADS, line_bytes, stream, a);
    } else {
        LAUNCH((norm_bwd_kernel2<T, Norm, false, true>), blocks, team, 0, stream, a);
    }
    const dim3 grid((a.C + WARP - 1) / WARP, Norm::LINES);
    LAUNCH(norm_params_kernel2, grid, WARP * PART_WARPS, 0, stream, dweight, dbias, a.parts, blocks,
           a.C);
}

#endif
