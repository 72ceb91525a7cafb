#!/usr/bin/env python3
"""What the machine instructions of kernels/ptx.cuh and ptx_hopper.cuh must give.

    tools/vectors_conformance.py           writes tests/data/conformance.txt
    tools/vectors_conformance.py CASE      prints all words of a case

Instructions are carried out here by the tables of the PTX ISA 9.0 (cvt, ex2, shfl, vote, ldmatrix,
mma.m16n8k16, cp.async, cp.async.bulk.tensor with the 128-byte swizzle, wgmma with its matrix
descriptors and canonical layouts), on registers and bytes; nothing comes from our sources but the
inputs, which tests/test_conformance.c makes by the same formulas, and what each kernel of
tests/emu/conformance.cu does with an instruction. Needs numpy 2 and xxhash 4.
"""
import sys

import numpy as np
import xxhash

u16, u32, u64, f32, f64 = np.uint16, np.uint32, np.uint64, np.float32, np.float64
lanes = np.arange(32)


# ---- inputs, as in the test ----
def small(n, salt):
    """Integers -4 to 4."""
    x = (np.arange(1, n + 1, dtype=u64) * 2654435761 + salt * 40503) % 2**32
    x = (x ^ x >> u64(15)) * 2246822519 % 2**32
    x = x ^ x >> u64(13)
    return (x % 9).astype(np.int64) - 4


def counting_halves(words):
    return np.arange(2 * words).astype(u16)


# ---- 16-bit floats, by their definition ----
def widen(bits, digits):
    """f16 (digits = 11) and bf16 (8) to f64: sign, exponent, fraction."""
    bits = bits.astype(np.int64)
    fraction_bits = digits - 1
    exponent_bits = 15 - fraction_bits
    bias = 2 ** (exponent_bits - 1) - 1
    fraction = bits & 2**fraction_bits - 1
    exponent = bits >> fraction_bits & 2**exponent_bits - 1
    units = np.where(exponent == 0, fraction, 2**fraction_bits + fraction).astype(f64)
    value = np.ldexp(units, np.maximum(exponent, 1) - bias - fraction_bits)
    special = np.where(fraction == 0, np.inf, np.nan)
    value = np.where(exponent == 2**exponent_bits - 1, special, value)
    return np.where(bits >> 15, -value, value)


def narrow(x, digits):
    """f32 to the bits of f16 or bf16: to nearest, ties to even, NaN to a quiet one."""
    x = x.astype(f64)
    fraction_bits = digits - 1
    bias = 2 ** (14 - fraction_bits) - 1
    size = np.where(np.isfinite(x), np.abs(x), 0)
    # Of zero and subnormals that of the least normal.
    exponent = np.where(size == 0, 1 - bias, np.maximum(np.frexp(size)[1] - 1, 1 - bias))
    units = np.rint(np.ldexp(size, fraction_bits - exponent)).astype(np.int64)  # rint: ties to even
    # The fraction carries into the exponent by itself, from subnormal to normal and up to infinity.
    bits = units + (exponent + bias - 1) * 2**fraction_bits
    infinity = (2 * bias + 1) << fraction_bits
    bits = np.where(np.isinf(x), infinity, np.minimum(bits, infinity))
    bits = np.where(np.isnan(x), infinity | infinity >> 1, bits)
    return (bits | np.signbit(x).astype(np.int64) << 15).astype(u16)


DIGITS = {"f16": 11, "bf16": 8}
INFINITY = {"f16": 0x7C00, "bf16": 0x7F80}


# ---- fragments ----
def pairs(words):
    """(..., n) words to (..., 2n) halves, the lower first."""
    words = np.asarray(words, u32)
    return np.stack([words & 0xFFFF, words >> 16], -1).reshape(*words.shape[:-1], -1).astype(u16)


def ldmatrix(memory, addresses, count, is_transposed):
    """Bytes of memory and the address every lane gives: (32, count) words."""
    out = np.zeros((32, count), u32)
    for m in range(count):
        rows = np.stack([memory[a : a + 16].view(u16) for a in addresses[8 * m : 8 * m + 8]])
        matrix = rows.T if is_transposed else rows
        for lane in range(32):  # row lane / 4, elements 2 (lane % 4) and the next
            low, high = matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]
            out[lane, m] = int(low) | int(high) << 16
    return out


# mma.m16n8k16, section "Matrix Fragments for mma.m16n8k16 with floating point type": the row and
# the column that element i of a lane's registers has in A, B, C.
def a_place(lane, i):
    group, thread = lane >> 2, lane % 4
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    column = thread * 2 + (i & 1) + (0 if i < 4 else 8)
    return row, column


def b_place(lane, i):
    group, thread = lane >> 2, lane % 4
    return thread * 2 + (i & 1) + (0 if i < 2 else 8), group


def c_place(lane, i):
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


def mma(a, b, acc, digits):
    """a (32,4), b (32,2) words, acc (32,4) floats: (32,4) floats."""
    A, B, C = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
    a, b = widen(pairs(a), digits), widen(pairs(b), digits)
    for lane in range(32):
        for i in range(8):
            A[a_place(lane, i)] = a[lane, i]
        for i in range(4):
            B[b_place(lane, i)] = b[lane, i]
            C[c_place(lane, i)] = acc[lane, i]
    D = A @ B + C
    return np.array([[D[c_place(lane, i)] for i in range(4)] for lane in range(32)])


# wgmma, section "Register Fragments for wgmma.mma_async.m64nNk16": element i of the accumulators of
# thread t of the warpgroup, and of A in registers.
def d_place(t, i):
    row = t // 32 * 16 + t % 32 // 4 + (8 if i % 4 >= 2 else 0)
    column = i // 4 * 8 + t % 4 * 2 + i % 2
    return row, column


def a_place_64(t, i):
    row, column = a_place(t % 32, i)
    return t // 32 * 16 + row, column


def places(place, count):
    """Index of (rows, columns) that makes (128, count) registers of them."""
    return tuple(np.moveaxis([[place(t, i) for i in range(count)] for t in range(128)], -1, 0))


# ---- tensor copies ----
def swizzle(address):
    """CU_TENSOR_MAP_SWIZZLE_128B: address bits 4 to 6 xor bits 7 to 9."""
    return address ^ (address >> 7 & 7) << 4


def tensor_copy(shared, at, tensor, box_rows, column, row):
    """A box of box_rows x 64 halves of tensor into shared bytes; zeros outside it."""
    halves = shared.view(u16)
    for r in range(box_rows):
        for c in range(64):
            y, x = row + r, column + c
            inside = 0 <= y < tensor.shape[0] and 0 <= x < tensor.shape[1]
            halves[swizzle(at + 128 * r + 2 * c) // 2] = tensor[y, x] if inside else 0


# ---- products of a warpgroup ----
def descriptor(address, leading, stride):
    """Section "Matrix Descriptor Format": bits 13-0, 29-16, 45-32 hold (x & 0x3ffff) >> 4; 63-62
    are 1 for the 128-byte swizzle."""
    encode = lambda x: (x & 0x3FFFF) >> 4
    return encode(address) | encode(leading) << 16 | encode(stride) << 32 | 1 << 62


def operand(shared, desc, rows, is_mn):
    """The (rows, 16) tile of a descriptor: section "Strides" and its canonical layouts for the
    128-byte swizzle, T = 8 halves to 16 bytes:
        K-major   ((8,m),(T,2k)) : ((8T,SBO),(1,T))
        MN-major  ((T,8,m),(8,k)) : ((1,T,LBO),(8T,SBO))"""
    T = 8
    start, LBO, SBO = [(desc >> shift & 0x3FFF) << 4 for shift in (0, 16, 32)]
    out = np.zeros((rows, 16), u16)
    for r in range(rows):
        for k in range(16):
            if is_mn:
                halves = r % T + r // T % 8 * T + k % 8 * 8 * T
                address = start + 2 * halves + r // (8 * T) * LBO + k // 8 * SBO
            else:
                halves = r % 8 * 8 * T + k % T + k // T * T
                address = start + 2 * halves + r // 8 * SBO
            out[r, k] = shared.view(u16)[swizzle(address) // 2]
    return out


def product(shared, digits, a_at, a_mn, b_at, b_mn, width):
    """(64, width): four products along k. K-major tiles have the next 16 of k 32 bytes further,
    MN-major ones two groups of 8 further, of 1024 bytes each. a_at may be the four (64, 16) parts
    themselves, from registers."""
    D = np.zeros((64, width))
    for k in range(4):
        if isinstance(a_at, int):
            at = a_at + k * (2048 if a_mn else 32)
            A = widen(operand(shared, descriptor(at, 8192, 1024), 64, a_mn), digits)
        else:
            A = a_at[k]
        at = b_at + k * (2048 if b_mn else 32)
        D += A @ widen(operand(shared, descriptor(at, 8192, 1024), width, b_mn), digits).T
    return D


def load(shared, at, digits, salt, rows, columns, is_mn, box_rows):
    """Small integers as a tile: K-major (rows, columns) or MN-major (columns, rows)."""
    shape = (columns, rows) if is_mn else (rows, columns)
    tensor = narrow(small(rows * columns, salt).astype(f32), digits).reshape(shape)
    for column in range(0, box_rows if is_mn else 64, 64):
        tensor_copy(shared, at + column * 128, tensor, 64 if is_mn else box_rows, column, 0)


def wgmma_tile(digits, width, a_mn, b_mn, rows, columns, K):
    """The first kernel of wgmma_tile.cuh: both operands by tensor copies."""
    a_at, b_at = 1024, 1024 + 8192
    shared = np.zeros(1 << 16, np.uint8)
    load(shared, a_at, digits, 4, rows, K, a_mn, 64)
    load(shared, b_at, digits, 5, columns, K, b_mn, width)
    return product(shared, digits, a_at, a_mn, b_at, b_mn, width)[places(d_place, width // 2)]


def wgmma_chain(digits, width, c_mn):
    """The second: the accumulators of one product are rounded in pairs and are, four words to each
    16 of k, the registers of A of the other."""
    a_at, b_at, c_at = 1024, 1024 + 8192, 1024 + 16384
    shared = np.zeros(1 << 16, np.uint8)
    load(shared, a_at, digits, 6, 64, 8, 0, 64)
    load(shared, b_at, digits, 7, 64, 8, 0, 64)
    load(shared, c_at, digits, 8, width, 64, c_mn, width)
    x = product(shared, digits, a_at, 0, b_at, 0, 64)[places(d_place, 32)]
    assert np.abs(x).max() < 256  # exact in both types
    parts = np.zeros((4, 64, 16))
    for k in range(4):
        parts[k][places(a_place_64, 8)] = x[:, 8 * k : 8 * k + 8]
    return product(shared, digits, parts, 0, c_at, c_mn, width)[places(d_place, width // 2)]


def wgmma_stored():
    """Tiles that threads stored: the swizzle is theirs to do."""
    shared = np.zeros(1024 + 16384, np.uint8)
    for tile, salt in ((0, 9), (1, 10)):
        data = narrow(small(64 * 64, salt).astype(f32), 8).view(np.uint8)
        at = 1024 + 8192 * tile + np.arange(8192)
        shared[swizzle(at)] = data
    return product(shared, 8, 1024, 0, 1024 + 8192, 0, 64)[places(d_place, 32)]


# ---- lanes ----
def shuffle(x, kind, b, width=32):
    """Section shfl.sync: a lane beyond its group of `width` keeps its own value."""
    first = lanes // width * width
    last = first + width - 1
    source = {"idx": first + b % width, "up": lanes - b, "down": lanes + b, "xor": lanes ^ b}[kind]
    is_there = source >= first if kind == "up" else source <= last
    return x[np.where(is_there, source, lanes)]


def lane_words():
    x = lanes.astype(u32)
    ballot = sum(1 << int(l) for l in lanes if l % 5 == 2)
    odd = np.where(lanes % 2 == 1, shuffle(x, "xor", 2), 0)
    first = np.full(32, 1)  # of two votes the first is for it
    columns = [shuffle(x, "idx", (7 * lanes + 3) % 32), shuffle(x, "up", 3), shuffle(x, "down", 5),
               shuffle(x, "xor", 9), shuffle(x, "idx", 5 + 0 * lanes, 8), shuffle(x, "up", 3, 8),
               shuffle(x, "down", 5, 8), np.full(32, ballot), first, first, odd]
    return np.stack(columns, 1)


# ---- cases: name, kind of a word, words or floats ----
def cases():
    every = np.arange(65536).astype(u16)
    yield "cvt.f32.f16", "float", widen(every, 11)
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001], u32)
    upper = np.arange(65536 // 13, dtype=u32) * 13
    x = (upper[:, None] << 16 | lower).reshape(-1)
    x = x[: x.size // 2 * 2].view(f32)
    with np.errstate(invalid="ignore"):
        for t in ("f16", "bf16"):
            yield f"cvt.rn.{t}.f32", t, narrow(x, DIGITS[t]).astype(u32)
        for t in ("f16", "bf16"):
            half = narrow(x, DIGITS[t]).astype(u32)
            yield f"cvt.rn.{t}x2.f32", t, half[0::2] | half[1::2] << 16
    last = [np.inf, -np.inf, np.nan, 0]  # the last is a subnormal, which is taken for 0
    x = np.concatenate([(5 * np.arange(64) - 160) * 0.8125, last])
    y = np.exp2(x)
    yield "ex2.approx.ftz.f32", "float", np.where(y < 2.0**-126, 0, y)
    with np.errstate(divide="ignore"):
        yield "rcp.approx.ftz.f32", "float", 1 / x

    n = np.arange(128)
    last_first = n.reshape(32, 4)[::-1].reshape(-1)
    yield "loads and stores", "bits", np.concatenate([n, last_first, n[:64]])
    yield "lanes", "bits", lane_words()
    reversed_rows = np.arange(96).reshape(3, 32)[:, ::-1]
    yield "named barriers", "bits", reversed_rows
    yield "mbarriers", "bits", reversed_rows
    yield "registers", "bits", np.arange(384)
    made = [descriptor(at, leading, 1024) for at, leading in
            ((1024, 16), (0x2FC20, 16), (0x30400, 8192))]
    words = [w >> s & 0xFFFFFFFF for w in made for s in (0, 32)]
    yield "wgmma descriptors", "bits", np.array(words)

    for count in (0, 4, 7, 8, 12, 16):
        data = counting_halves(64).view(np.uint8).copy()
        first = data[:128].reshape(8, 16)
        first[:, count:] = 0
        yield f"cp.async {count} bytes", "bits", data.view(u32)
    memory = counting_halves(128).view(np.uint8)
    for count in (2, 4):
        for form in ("", ".trans"):
            words = ldmatrix(memory, 16 * (5 * lanes % 32), count, form == ".trans")
            yield f"ldmatrix.x{count}{form}", "bits", words
    for t in ("bf16", "f16"):
        a, b = (narrow(small(n, salt).astype(f32), DIGITS[t]).view(u32)
                for n, salt in ((256, 1), (128, 2)))
        yield f"mma.m16n8k16 {t}", "sum", mma(a.reshape(32, 4), b.reshape(32, 2),
                                              small(128, 3).reshape(32, 4), DIGITS[t])

    for rows, columns, stride, box_rows, column, row in (
            (64, 64, 64, 64, 0, 0), (40, 40, 40, 64, 0, 0), (100, 128, 128, 64, 64, 64),
            (64, 100, 136, 16, 64, 5), (64, 64, 64, 64, -8, -3), (20, 37, 40, 256, 5, 1),
            (8, 64, 64, 8, 64, 0)):
        shared = np.zeros(1024 + box_rows * 128, np.uint8)
        tensor = counting_halves(rows * stride // 2).reshape(rows, stride)[:, :columns]
        tensor_copy(shared, 1024, tensor, box_rows, column, row)
        yield (f"tma rows={rows} columns={columns} stride={stride}, box of {box_rows} rows at "
               f"({column},{row})", "bits", shared[1024:].view(u32))
    for rows, heads, D, stride, box_heads, box_rows, column, head, row in (
            (20, 3, 80, 240, 1, 64, 64, 1, 0), (40, 8, 64, 512, 4, 16, 0, 4, 30),
            (30, 6, 64, 400, 4, 16, 0, 4, 10)):
        lines = box_heads * box_rows
        shared = np.zeros(1024 + lines * 128, np.uint8)
        tensor = counting_halves(rows * stride // 2).reshape(rows, stride)[:, : heads * D]
        tensor = tensor.reshape(rows, heads, D)
        for line in range(lines):  # the head runs faster than the row
            y, h = row + line // box_heads, head + line % box_heads
            inside = y < rows and h < heads
            one = tensor[y, h : h + 1] if inside else np.zeros((0, D), u16)
            tensor_copy(shared, 1024 + 128 * line, one, 1, column, 0)
        yield (f"tma rows={rows} heads={heads} D={D} stride={stride}, box of {box_heads} heads, "
               f"{box_rows} rows at ({column},{head},{row})", "bits", shared[1024:].view(u32))
    yield "wgmma of tiles that threads stored", "sum", wgmma_stored()
    major = ["K", "MN"]
    for width in (64, 80, 128, 192, 256):
        for t in ("bf16", "f16"):
            for k in range(12):
                a_mn, b_mn = k // 2 % 2, k % 2
                rows = 64 if k < 4 else 40 if k < 8 else 8 if a_mn else 1
                columns = width if k < 4 else width - 24 if k < 8 else 8 if b_mn else 3
                K = 64 if k < 4 else 40 if k < 8 else 5 if a_mn and b_mn else 8
                yield (f"wgmma {t} {width} wide, {major[a_mn]}-major x {major[b_mn]}-major, "
                       f"rows={rows} columns={columns} K={K}", "sum",
                       wgmma_tile(DIGITS[t], width, a_mn, b_mn, rows, columns, K))
            for c_mn in (0, 1):
                yield (f"wgmma {t} {width} wide, a from registers x {major[c_mn]}-major", "sum",
                       wgmma_chain(DIGITS[t], width, c_mn))


# ---- the file ----
def as_words(kind, values):
    """What is compared: bits, but one form of NaN, and of zero in a sum."""
    values = np.asarray(values).reshape(-1)
    if kind not in ("float", "sum"):
        words = values.astype(u32)
        if kind in INFINITY:  # halves that are NaN lose their sign
            quiet = INFINITY[kind] | INFINITY[kind] >> 1
            halves = words.view(u16).copy()
            halves[halves & 0x7FFF > INFINITY[kind]] = quiet
            words = halves.view(u32)
        return words
    words = (values + 0.0 if kind == "sum" else values).astype(f32).view(u32)
    infinity = u32(0x7F800000)
    return np.where((words & 0x7FFFFFFF) > infinity, infinity | infinity >> 1, words).astype(u32)


def line(name, kind, values):
    words = as_words(kind, values)
    if kind in ("float", "sum"):
        text = [f"{x:.9g}" for x in words.view(f32)]
    else:
        text = [str(w) if w < 10000 else f"0x{w:x}" for w in words]
    if len(text) > 400:
        raw = words.astype("<u4").tobytes()
        digest = xxhash.xxh64_hexdigest(raw, 0) + xxhash.xxh64_hexdigest(raw, 1)
        return f"{name}: {len(text)} words, {digest}, first {' '.join(text[:8])}"
    return f"{name}: {' '.join(text)}"


if len(sys.argv) > 1:
    for name, kind, values in cases():
        if name == sys.argv[1]:
            words = as_words(kind, values)
            for i, word in enumerate(words):
                print(f"{i} 0x{word:08x} {words[i : i + 1].view(f32)[0]:.9g}")
else:
    with open("tests/data/conformance.txt", "w") as file:
        packages = f"numpy {np.__version__}, xxhash {xxhash.VERSION}"
        print(f"# Written by tools/vectors_conformance.py, {packages}.", file=file)
        for case in cases():
            print(line(*case), file=file)
