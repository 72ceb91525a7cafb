// conformance: one small kernel per group of wrappers of ptx.cuh and ptx_hopper.cuh. The same
// source runs in the emulator and on a GPU; tests/test_conformance.c says what must come out.
//
// Kernels hand over registers as they are, thread by thread, and shared memory byte by byte: which
// element stands where is the instruction's business, and part of what is tested.
#include "tests/emu/wgmma_tile.cuh"

// ---- conversions ----
// Which wrapper; pairs take two words of inp for one of out.
enum { FLOAT_OF_F16, F16_OF_FLOAT, BF16_OF_FLOAT, F16X2_OF_FLOATS, BF16X2_OF_FLOATS, EXP2_APPROX,
       RCP_APPROX };
static __global__ void convert_kernel1(uint32_t *out, const uint32_t *inp, int which, int n) {
    GRID_STRIDE(i, (size_t)n) {
        const bool is_pair = which == F16X2_OF_FLOATS || which == BF16X2_OF_FLOATS;
        const uint32_t word = inp[is_pair ? 2 * i : i];
        const float x = __uint_as_float(word), y = is_pair ? __uint_as_float(inp[2 * i + 1]) : 0;
        out[i] = which == FLOAT_OF_F16      ? __float_as_uint(float_of_f16((uint16_t)word))
                 : which == F16_OF_FLOAT    ? f16_of_float(x)
                 : which == BF16_OF_FLOAT   ? bf16_of_float(x)
                 : which == F16X2_OF_FLOATS ? f16x2_of_floats(x, y)
                 : is_pair                  ? bf16x2_of_floats(x, y)
                 : which == EXP2_APPROX     ? __float_as_uint(exp2_approx(x))
                                            : __float_as_uint(rcp_approx(x));
    }
}

// ---- memory ----
// out (320 words): inp's 128 in pieces of 16 bytes, the same with the last piece first, then the
// first 64 in pieces of 8. One warp.
static __global__ void memory_kernel1(uint32_t *out, const uint32_t *inp) {
    const int lane = threadIdx.x;
    st16(out + 4 * lane, ld16(inp + 4 * lane));
    st16(out + 128 + 4 * lane, ld16_stream(inp + 4 * (31 - lane)));
    st8(out + 256 + 2 * lane, ld8(inp + 2 * lane));
}

// out (64 words): the first `bytes` bytes of each 16 of inp's first 128, zeros behind; then the
// other 128, a group of their own. Eight threads.
static __global__ void cp_async_kernel1(uint4 *out, const uint4 *inp, int bytes) {
    SMEM_STATIC(row, uint4, [16]);
    const int i = threadIdx.x;
    cp_async16(smem_u32(&row[i]), inp + i, bytes);
    cp_async_commit();
    cp_async_wait<0>();
    cp_async16(smem_u32(&row[i]), inp + i, bytes);
    cp_async_commit();
    cp_async16(smem_u32(&row[i + 8]), inp + i + 8);
    cp_async_commit();
    cp_async_wait<1>();
    out[i] = row[i];
    cp_async_wait<0>();
    out[i + 8] = row[i + 8];
}

// ---- lanes ----
// out (32,11): what each lane gets of inp (32). One warp.
static __global__ void lanes_kernel1(uint32_t *out, const uint32_t *inp) {
    const uint32_t all = 0xffffffffu;
    const int lane = threadIdx.x;
    const uint32_t x = inp[lane];
    uint32_t *const to = out + 11 * lane;
    to[0] = __shfl_sync(all, x, (7 * lane + 3) % 32);
    to[1] = __shfl_up_sync(all, x, 3);
    to[2] = __shfl_down_sync(all, x, 5);
    to[3] = __shfl_xor_sync(all, x, 9);
    to[4] = __shfl_sync(all, x, 5, 8); // in groups of eight lanes
    to[5] = __shfl_up_sync(all, x, 3, 8);
    to[6] = __shfl_down_sync(all, x, 5, 8);
    to[7] = __ballot_sync(all, lane % 5 == 2);
    to[8] = (__all_sync(all, lane < 32) != 0) + 2 * (__all_sync(all, lane < 31) != 0);
    to[9] = (__any_sync(all, lane == 31) != 0) + 2 * (__any_sync(all, lane == 32) != 0);
    to[10] = 0;
    if (lane % 2) { // half a warp by itself
        to[10] = __shfl_xor_sync(0xaaaaaaaau, x, 2);
    }
}

// ---- matrix fragments ----
// out (32,COUNT): the registers of each lane. Lane l holds the address of piece 5 l of 32, so that
// neither rows nor matrices lie in order. inp: 32 pieces of 16 bytes. One warp.
template <int COUNT, bool IS_TRANSPOSED>
static __global__ void ldmatrix_kernel1(uint32_t *out, const uint4 *inp) {
    SMEM_STATIC(piece, uint4, [32]);
    const int lane = threadIdx.x;
    piece[lane] = inp[lane];
    __syncwarp();
    uint32_t part[COUNT];
    const uint32_t row = smem_u32(&piece[5 * lane % 32]);
    if constexpr (COUNT == 4) {
        if constexpr (IS_TRANSPOSED) {
            ldmatrix_x4_trans(part, row);
        } else {
            ldmatrix_x4(part, row);
        }
    } else if constexpr (IS_TRANSPOSED) {
        ldmatrix_x2_trans(part, row);
    } else {
        ldmatrix_x2(part, row);
    }
    for (int m = 0; m < COUNT; m++) {
        out[COUNT * lane + m] = part[m];
    }
}

// Registers in and out: a (32,4), b (32,2), acc and out (32,4). One warp.
template <typename T>
static __global__ void mma_kernel1(float *out, const uint32_t *a, const uint32_t *b,
                                   const float *acc) {
    const int lane = threadIdx.x;
    uint32_t a_part[4], b_part[2];
    float sum[4];
    for (int k = 0; k < 4; k++) {
        a_part[k] = a[4 * lane + k];
        b_part[k / 2] = b[2 * lane + k / 2];
        sum[k] = acc[4 * lane + k];
    }
    if constexpr (std::is_same<T, bf16>::value) {
        mma_m16n8k16_bf16(sum, a_part, b_part);
    } else {
        mma_m16n8k16_f16(sum, a_part, b_part);
    }
    for (int k = 0; k < 4; k++) {
        out[4 * lane + k] = sum[k];
    }
}

// ---- barriers ----
// out (3,32) = inp (3,32), each row with its last first: warp 1 writes, warp 0 reads, three times
// through one buffer. Named barriers 1 and 2 say that it is full, and empty. Two warps.
static __global__ void bar_kernel1(uint32_t *out, const uint32_t *inp) {
    SMEM_STATIC(buffer, uint32_t, [32]);
    const int lane = threadIdx.x % 32;
    for (int round = 0; round < 3; round++) {
        if (threadIdx.x < 32) {
            bar_sync(1, 64); // full
            out[32 * round + lane] = buffer[31 - lane];
            bar_arrive(2, 64);
        } else {
            buffer[lane] = inp[32 * round + lane];
            bar_arrive(1, 64);
            bar_sync(2, 64); // empty again
        }
    }
}
// The same by mbarriers.
static __global__ void mbar_kernel1(uint32_t *out, const uint32_t *inp) {
    SMEM_STATIC(buffer, uint32_t, [32]);
    SMEM_STATIC(bars, uint64_t, [2]);
    const uint32_t full = smem_u32(&bars[0]), empty = smem_u32(&bars[1]);
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbar_init(full, 32);
        mbar_init(empty, 32);
        mbar_init_fence();
    }
    __syncthreads(); // the barriers are seen by all
    for (int round = 0; round < 3; round++) {
        if (threadIdx.x < 32) {
            mbar_wait(full, round % 2);
            out[32 * round + lane] = buffer[31 - lane];
            mbar_arrive(empty);
        } else {
            mbar_wait(empty, (round + 1) % 2); // a fresh one counts as empty
            buffer[lane] = inp[32 * round + lane];
            mbar_arrive(full);
        }
    }
}

// Warpgroup 0 gives registers back, the others take them; out (384): the thread's number.
static __global__ void __launch_bounds__(384, 1)
    registers_kernel1(uint32_t *out, const uint32_t *) {
    if (threadIdx.x < 128) {
        registers_release<40>();
        out[threadIdx.x] = threadIdx.x;
    } else {
        registers_claim<232>();
        out[threadIdx.x] = threadIdx.x;
    }
}

// ---- tensor copies and products of a warpgroup ----
// out (box_rows,32 words): shared memory as a box of the map at (column, row) leaves it, or with
// head >= 0 one of a map of heads. One warp.
static __global__ void tma_kernel1(uint32_t *out, const __grid_constant__ TensorMap map,
                                   int box_rows, int column, int head, int row) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, box, uint32_t, box_rows * 32, 1024);
    SMEM_TAKE(carver, full, uint64_t, 1, 8);
    const uint32_t bar = smem_u32(full);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_fence();
        mbar_arrive_expect(bar, box_rows * 128);
        if (head < 0) {
            tma_load(smem_u32(box), &map, column, row, bar);
        } else {
            tma_load_heads(smem_u32(box), &map, column, head, row, bar);
        }
    }
    __syncwarp(); // the barrier is seen by all
    mbar_wait(bar, 0);
    for (int i = threadIdx.x; i < box_rows * 32; i += 32) {
        out[i] = box[i];
    }
}

// out (3,2 words): descriptors, their lower halves first. One thread.
static __global__ void descriptor_kernel1(uint32_t *out, const uint32_t *) {
    const uint64_t made[3] = {wgmma_tile(1024), wgmma_tile(0x2fc20), wgmma_tile_mn(0x30400, 8192)};
    for (int i = 0; i < 6; i++) {
        out[i] = (uint32_t)(made[i / 2] >> i % 2 * 32);
    }
}

// out (128,32): the product of two tiles of 64 x 64 bf16 that the threads stored by themselves,
// with the swizzle, a and behind it b. 128 threads, 16 KiB of shared memory.
static __global__ void wgmma_stored_kernel1(float *out, const uint4 *a, const uint4 *b) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, tiles, uint4, 2 * 64 * 8, 1024);
    for (int i = threadIdx.x; i < 2 * 64 * 8; i += 128) {
        tiles[i ^ i / 8 % 8] = i < 64 * 8 ? a[i] : b[i - 64 * 8];
    }
    fence_proxy_async(); // the tiles, for wgmma
    __syncthreads();     // they are whole
    const uint32_t at = smem_u32(tiles);
    const uint64_t a_tile = wgmma_tile(at), b_tile = wgmma_tile(at + 8192);
    float acc[32] = {};
    wgmma_hold(acc);
    wgmma_fence();
    UNROLL for (int k = 0; k < 4; k++) {
        wgmma_m64k16_bf16<0, 0>(acc, a_tile + 2 * k, b_tile + 2 * k);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(acc);
    tile_store<64>(out, acc);
}

// ---- launchers ----
CUDA_OP(conformance_convert)(Device *dev, int32_t *out, const int32_t *inp, int which, int n) {
    LAUNCH(convert_kernel1, grid_for((size_t)n, 256), 256, 0, device_stream(dev), (uint32_t *)out,
           (const uint32_t *)inp, which, n);
}
// Those that take words to words, by the number of the test's list.
CUDA_OP(conformance_words)(Device *dev, int32_t *out, const int32_t *inp, int which) {
    void (*const kernels[])(uint32_t *, const uint32_t *) = {
        memory_kernel1, lanes_kernel1, bar_kernel1, mbar_kernel1, registers_kernel1,
        descriptor_kernel1};
    const int threads[] = {32, 32, 64, 64, 384, 1};
    LAUNCH(kernels[which], 1, threads[which], 0, device_stream(dev), (uint32_t *)out,
           (const uint32_t *)inp);
}
CUDA_OP(conformance_cp_async)(Device *dev, int32_t *out, const int32_t *inp, int bytes) {
    LAUNCH(cp_async_kernel1, 1, 8, 0, device_stream(dev), (uint4 *)out, (const uint4 *)inp, bytes);
}
CUDA_OP(conformance_ldmatrix)(Device *dev, int32_t *out, const int32_t *inp, int count,
                              int is_transposed) {
    void (*const kernel)(uint32_t *, const uint4 *) =
        count == 4 ? (is_transposed ? ldmatrix_kernel1<4, true> : ldmatrix_kernel1<4, false>)
                   : (is_transposed ? ldmatrix_kernel1<2, true> : ldmatrix_kernel1<2, false>);
    LAUNCH(kernel, 1, 32, 0, device_stream(dev), (uint32_t *)out, (const uint4 *)inp);
}
CUDA_OP(conformance_mma)(Device *dev, DType t, int32_t *out, const int32_t *a, const int32_t *b,
                         const int32_t *acc) {
    void (*const kernel)(float *, const uint32_t *, const uint32_t *, const float *) =
        t == DT_BF16 ? mma_kernel1<bf16> : mma_kernel1<f16>;
    LAUNCH(kernel, 1, 32, 0, device_stream(dev), (float *)out, (const uint32_t *)a,
           (const uint32_t *)b, (const float *)acc);
}
// inp: (rows,columns) of 16 bits, `stride` elements from row to row.
CUDA_OP(conformance_tma)(Device *dev, int32_t *out, const int32_t *inp, int rows, int columns,
                         int stride, int box_rows, int column, int row) {
    TensorMap map;
    tensor_map(&map, inp, (size_t)rows, (size_t)columns, (size_t)stride, box_rows);
    LAUNCH(tma_kernel1, 1, 32, box_rows * 128 + 8, device_stream(dev), (uint32_t *)out, map,
           box_rows, column, -1, row);
}
// inp: (rows,heads,D); out (box_rows box_heads,32 words).
CUDA_OP(conformance_tma_heads)(Device *dev, int32_t *out, const int32_t *inp, int rows, int heads,
                               int D, int stride, int box_heads, int box_rows, int column, int head,
                               int row) {
    const int lines = box_heads * box_rows;
    TensorMap map;
    tensor_map_heads(&map, inp, (size_t)rows, heads, D, (size_t)stride, box_heads, box_rows);
    LAUNCH(tma_kernel1, 1, 32, lines * 128 + 8, device_stream(dev), (uint32_t *)out, map, lines,
           column, head, row);
}

CUDA_OP(conformance_wgmma_stored)(Device *dev, int32_t *out, const int32_t *a, const int32_t *b) {
    LAUNCH(wgmma_stored_kernel1, 1, 128, 16384, device_stream(dev), (float *)out, (const uint4 *)a,
           (const uint4 *)b);
}

template <typename T, int COLUMNS, int A_MN, int B_MN>
static void wgmma_tile_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b) {
    const int bytes = wgmma_tile_bytes(COLUMNS, B_MN);
    SMEM_ALLOW((wgmma_tile_kernel1<TILE_RIGHT, COLUMNS, A_MN, B_MN, T>), bytes);
    LAUNCH((wgmma_tile_kernel1<TILE_RIGHT, COLUMNS, A_MN, B_MN, T>), 1, 160, bytes,
           device_stream(dev), out, a, b);
}
template <typename T, int COLUMNS>
static void wgmma_majors_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                                int a_mn, int b_mn) {
    (a_mn ? (b_mn ? wgmma_tile_launch<T, COLUMNS, 1, 1> : wgmma_tile_launch<T, COLUMNS, 1, 0>)
          : (b_mn ? wgmma_tile_launch<T, COLUMNS, 0, 1> : wgmma_tile_launch<T, COLUMNS, 0, 0>))(
        dev, out, a, b);
}
template <typename T>
static void wgmma_width_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                               int width, int a_mn, int b_mn) {
    (width == 64    ? wgmma_majors_launch<T, 64>
     : width == 80  ? wgmma_majors_launch<T, 80>
     : width == 128 ? wgmma_majors_launch<T, 128>
     : width == 192 ? wgmma_majors_launch<T, 192>
                    : wgmma_majors_launch<T, 256>)(dev, out, a, b, a_mn, b_mn);
}

// a: (rows,K), or (K,rows) with a_mn; b: (columns,K), or (K,columns); out (128,width/2): the
// registers of each thread, with width = 64, 80, 128, 192 or 256.
CUDA_OP(conformance_wgmma)(Device *dev, DType t, int32_t *out, const int32_t *a, const int32_t *b,
                           int width, int a_mn, int b_mn, int rows, int columns, int K) {
    TensorMap a_map, b_map;
    tensor_map(&a_map, a, (size_t)(a_mn ? K : rows), (size_t)(a_mn ? rows : K),
               (size_t)(a_mn ? rows : K), 64);
    tensor_map(&b_map, b, (size_t)(b_mn ? K : columns), (size_t)(b_mn ? columns : K),
               (size_t)(b_mn ? columns : K), b_mn ? 64 : width);
    (t == DT_BF16 ? wgmma_width_launch<bf16> : wgmma_width_launch<f16>)(
        dev, (float *)out, a_map, b_map, width, a_mn, b_mn);
}

template <typename T, int COLUMNS, int C_MN>
static void wgmma_chain_launch(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                               const TensorMap &c) {
    const int bytes = wgmma_chain_bytes(COLUMNS, C_MN);
    SMEM_ALLOW((wgmma_chain_kernel1<TILE_RIGHT, COLUMNS, C_MN, T>), bytes);
    LAUNCH((wgmma_chain_kernel1<TILE_RIGHT, COLUMNS, C_MN, T>), 1, 128, bytes, device_stream(dev),
           out, a, b, c);
}
template <typename T, int C_MN>
static void wgmma_chain_width(Device *dev, float *out, const TensorMap &a, const TensorMap &b,
                              const TensorMap &c, int width) {
    (width == 64    ? wgmma_chain_launch<T, 64, C_MN>
     : width == 80  ? wgmma_chain_launch<T, 80, C_MN>
     : width == 128 ? wgmma_chain_launch<T, 128, C_MN>
     : width == 192 ? wgmma_chain_launch<T, 192, C_MN>
                    : wgmma_chain_launch<T, 256, C_MN>)(dev, out, a, b, c);
}

// a, b: (64,K); c: (width,64), or (64,width) with c_mn; out as above.
CUDA_OP(conformance_wgmma_chain)(Device *dev, DType t, int32_t *out, const int32_t *a,
                                 const int32_t *b, const int32_t *c, int width, int c_mn, int K) {
    const size_t rows = (size_t)(c_mn ? 64 : width), columns = (size_t)(c_mn ? width : 64);
    TensorMap a_map, b_map, c_map;
    tensor_map(&a_map, a, 64, (size_t)K, (size_t)K, 64);
    tensor_map(&b_map, b, 64, (size_t)K, (size_t)K, 64);
    tensor_map(&c_map, c, rows, columns, columns, c_mn ? 64 : width);
    (t == DT_BF16 ? (c_mn ? wgmma_chain_width<bf16, 1> : wgmma_chain_width<bf16, 0>)
                  : (c_mn ? wgmma_chain_width<f16, 1> : wgmma_chain_width<f16, 0>))(
        dev, (float *)out, a_map, b_map, c_map, width);
}
