// attention_fwd_sm90: softmax attention over packed sequences on Hopper, the forward: TMA copies,
// mbarriers, warpgroup products (wgmma). See attention.h, and attention_fwd.cu for other cards.
//
//   s = scale q k^T + bias, in units of log 2;  e = 2^(s - max);  out = (e v) / sum e
//
// A block has a producer and two consumers. A consumer has a strip of 64 packed rows
// (attention_parts.cuh) and keeps its scores with a tile of 256 keys in registers: a sequence of up
// to 256 keys takes one pass, with the exact maximum and nothing to scale; a longer one takes tiles
// of 256, with what was summed so far scaled in between (Milakov and Gimelshein 2018). e, rounded,
// is the product's A straight from registers. Its products with the values of 64 keys run while the
// e of the next 64 are formed, and those of one consumer under the other's softmax.
//
// K and V come in chunks of 64 keys through one ring of shared memory, first those of K, then those
// of V of a tile; Q comes through a ring of strips. A sequence of up to 256 keys keeps its chunks
// until all its strips are done (as many as the launch gives a block). As many blocks as
// multiprocessors; each takes items (sequence, key/value head, strips) at that distance, and its
// producer runs ahead into the next item, so that copies go on under the products. What attention
// at 197 tokens is bound by is reading Q, K, V once: 8 T D bytes for 4 T T D FLOP.
//
// A chunk's box may reach beyond its sequence into the next one's rows. Of K that only makes
// scores, which are masked; of V a NaN times e = 0 would be a NaN: a warp of the producer's group,
// the cleaner, waits for such a chunk, sets these rows to zero, and only then passes it on.
//
// Orders of sums depend on the head's layout and on the sequence's own keys alone: which strips a
// block gets, and what else is in the batch, changes no bit.
//
// Shared memory: 28 slots of 64 rows of 128 bytes at D = 64, 14 of twice that at 80 (the last 48
// columns are zeros that nobody multiplies) and 128: 224 KB. Registers: the scores are 128 of a
// consumer's 232, the sums D / 2. No spills; 168 registers at the launch.
// Left out: f16; D = 32; splitting the keys of a few long queries over blocks; clusters; the
// products of the next tile under the softmax of this one, for which registers are missing.
//
//   version  idea                                             shape  time                 % of peak
//   kernel3  TMA, wgmma, 2 consumers of 64 rows and 256 keys  -      not yet run on a GPU -
#include "attention_fwd_sm90.cuh"

#include "device_cuda.cuh"
#include "ring_hopper.cuh"

static const int ROWS3 = 64;               // of a strip, at most; keys of a chunk
static const int CHUNKS = 4;               // of a tile
static const int KEYS3 = CHUNKS * ROWS3;   // of a tile
static const int BOX = ROWS3 * 128;        // bytes of 64 rows of 64 columns
static const int CONSUMERS = 2, WARPS = WARPGROUP / WARP; // of each

// The block's shared memory.
template <int D> struct Slots {
    enum {
        BOXES = (D + 63) / 64,
        BYTES = BOXES * BOX, // of a slot: a strip of Q, or a chunk of K or V
        Q = 2 * CONSUMERS,
        KV = BOXES == 1 ? 24 : 10,
        BARS = 2 * Q + 3 * KV,
        SHARED = (Q + KV) * BYTES + BARS * 8,
    };
};
static_assert(Slots<128>::KV >= 2 * CHUNKS, "the chunks of a tile are there at once");
static_assert(Slots<64>::SHARED <= 227 * 1024 && Slots<128>::SHARED <= 227 * 1024, "they exist");

// What the kernel is told besides the shape.
struct Plan {
    TensorMap q, k, v;
    int parts;          // items of a sequence and key/value head
    int group, queries; // heads of a key/value head; queries of a strip, whose heads one box holds
};

// ---- items ----
// Strips first .. end - 1 of a sequence and key/value head, for one block.
struct Item {
    Span span;
    int hkv, first, end;
    bool stays; // its keys, from strip to strip
};

// An item has two strips; all, where there is one part. Later ones, which see more, come first;
// turned from head to head, so that no block gets only these.
static __device__ Item item_at(const AttentionShape *s, const Plan *plan, int index) {
    const int head = index / plan->parts, b = head / s->Hkv;
    const int part = plan->parts - 1 - (index + head) % plan->parts;
    const Span span = span_of(s, b);
    const int strips = (span.Tq + plan->queries - 1) / plan->queries;
    const int end = plan->parts == 1 ? strips : min(CONSUMERS * (part + 1), strips);
    return {span, head - b * s->Hkv, CONSUMERS * part, end, span.Tk <= KEYS3};
}

// Keys that a strip sees, and keys to load before the strips pair, pair + 1 (none where they stay).
static __device__ int reach_of(const AttentionShape *s, const Plan *plan, const Span &span,
                               int strip) {
    return visible(s, span, min((strip + 1) * plan->queries, span.Tq) - 1);
}
static __device__ int reach_of_pair(const AttentionShape *s, const Plan *plan, const Item &item,
                                    int pair) {
    const int last = item.stays ? item.end : min(pair + CONSUMERS, item.end);
    return reach_of(s, plan, item.span, last - 1);
}
static __device__ int chunks_of(int keys) {
    return min(max((keys + ROWS3 - 1) / ROWS3, 0), CHUNKS);
}

// Calls strip(item, number) and chunk(item, is_v, its first key) for what the block needs, in the
// order in which it is copied and used. The last strip may lie behind the item's end.
template <typename S, typename C>
static __device__ inline void walk(const AttentionShape *s, const Plan *plan, S strip, C chunk) {
    const int items = s->B * s->Hkv * plan->parts;
    ROLLED for (int index = blockIdx.x; index < items; index += gridDim.x) {
        const Item item = item_at(s, plan, index);
        ROLLED for (int pair = item.first; pair < item.end; pair += CONSUMERS) {
            ROLLED for (int n = pair; n < pair + CONSUMERS; n++) {
                strip(item, n);
            }
            const bool is_there = item.stays && pair > item.first;
            const int reach = is_there ? 0 : reach_of_pair(s, plan, item, pair);
            ROLLED for (int j0 = 0; j0 < reach; j0 += KEYS3) {
                const int end = min(reach, j0 + KEYS3);
                ROLLED for (int j = j0; j < end; j += ROWS3) {
                    chunk(item, false, j);
                }
                ROLLED for (int j = j0; j < end; j += ROWS3) {
                    chunk(item, true, j);
                }
            }
        }
    }
}

// ---- rings ----
// A place in a ring of COUNT slots.
template <int COUNT> struct Turn {
    int slot, phase;
    __device__ Turn after(int steps) const { // steps <= COUNT
        const bool wraps = slot + steps >= COUNT;
        return {wraps ? slot + steps - COUNT : slot + steps, phase ^ (int)wraps};
    }
};

// Shared memory as one thread sees it; addresses. Of Q and of K and V: `full` (copies have
// arrived; of a chunk that must be cleaned: it is), `empty` (all warps that used it are done).
// landed: the copies of a chunk that must be cleaned have arrived.
template <int D> struct Memory {
    using Q = Turn<Slots<D>::Q>;
    using KV = Turn<Slots<D>::KV>;
    uint32_t slots, bars;
    __device__ uint32_t at(Q t) const { return slots + t.slot * Slots<D>::BYTES; }
    __device__ uint32_t at(KV t) const { return slots + (Slots<D>::Q + t.slot) * Slots<D>::BYTES; }
    __device__ uint32_t full(Q t) const { return bars + 8 * t.slot; }
    __device__ uint32_t empty(Q t) const { return bars + 8 * (Slots<D>::Q + t.slot); }
    __device__ uint32_t full(KV t) const { return bars + 8 * (2 * Slots<D>::Q + t.slot); }
    __device__ uint32_t empty(KV t) const { return full(t) + 8 * Slots<D>::KV; }
    __device__ uint32_t landed(KV t) const { return full(t) + 16 * Slots<D>::KV; }
};

template <int D> static __device__ void bars_init(const Memory<D> &memory) {
    for (int slot = 0; slot < Slots<D>::Q; slot++) {
        const typename Memory<D>::Q t = {slot, 0};
        mbar_init(memory.full(t), 1);                // the producer, and its bytes
        mbar_init(memory.empty(t), WARPS);  // the strip's warps
    }
    for (int slot = 0; slot < Slots<D>::KV; slot++) {
        const typename Memory<D>::KV t = {slot, 0};
        mbar_init(memory.full(t), 1); // the producer, or the cleaner
        mbar_init(memory.empty(t), CONSUMERS * WARPS);
        mbar_init(memory.landed(t), 1);
    }
    mbar_init_fence();
}

// ---- the producer's group ----
static __device__ bool must_be_cleaned(const Item &item, bool is_v, int j) {
    return is_v && j + ROWS3 > item.span.Tk;
}

// One thread.
template <int D>
static __device__ void produce(const AttentionShape *s, const Plan *plan, const Memory<D> &memory) {
    typename Memory<D>::Q q = {0, 0};
    typename Memory<D>::KV kv = {0, 0};
    walk(
        s, plan,
        [&](const Item &item, int n) {
            const uint32_t full = memory.full(q);
            mbar_wait(memory.empty(q), q.phase ^ 1);
            // A consumer without a strip has a turn nevertheless: it must see every phase of its
            // slots, for a barrier that is one behind looks as if it were one ahead.
            const int bytes = Slots<D>::BOXES * plan->queries * plan->group * 128;
            mbar_arrive_expect(full, n < item.end ? bytes : 0);
            const int head = item.hkv * plan->group, row = item.span.q0 + n * plan->queries;
            ROLLED for (int box = 0; box < Slots<D>::BOXES && n < item.end; box++) {
                tma_load_heads(memory.at(q) + box * BOX, &plan->q, 64 * box, head, row, full);
            }
            q = q.after(1);
        },
        [&](const Item &item, bool is_v, int j) {
            const bool is_cleaned = must_be_cleaned(item, is_v, j);
            const uint32_t bar = is_cleaned ? memory.landed(kv) : memory.full(kv);
            mbar_wait(memory.empty(kv), kv.phase ^ 1);
            mbar_arrive_expect(bar, Slots<D>::BYTES);
            ROLLED for (int box = 0; box < Slots<D>::BOXES; box++) {
                tma_load_heads(memory.at(kv) + box * BOX, is_v ? &plan->v : &plan->k, 64 * box,
                               item.hkv, item.span.k0 + j, bar);
            }
            kv = kv.after(1);
        });
}

// One warp. chunks: the slots of K and V.
template <int D>
static __device__ void clean(const AttentionShape *s, const Plan *plan, const Memory<D> &memory,
                             uint8_t *chunks) {
    const int lane = threadIdx.x % WARP;
    typename Memory<D>::KV kv = {0, 0};
    uint32_t phases = 0; // of `landed`, a bit for each slot: not every turn uses it
    walk(
        s, plan, [](const Item &, int) {},
        [&](const Item &item, bool is_v, int j) {
            if (must_be_cleaned(item, is_v, j)) {
                const int first = (item.span.Tk - j) * 128 + 16 * lane;
                uint8_t *const slot = chunks + kv.slot * Slots<D>::BYTES;
                mbar_wait(memory.landed(kv), phases >> kv.slot & 1);
                phases ^= 1u << kv.slot;
                ROLLED for (int at = first; at < BOX; at += 16 * WARP) {
                    for (int box = 0; box < Slots<D>::BOXES; box++) {
                        st16(slot + box * BOX + at, make_uint4(0, 0, 0, 0));
                    }
                }
                fence_proxy_async(); // the products see the zeros
                __syncwarp();        // of all lanes
                if (lane == 0) {
                    mbar_arrive(memory.full(kv));
                }
            }
            kv = kv.after(1);
        });
}

// ---- the consumers ----
// A consumer's strip, as one of its warps sees it.
struct Strip {
    Rows rows;
    int first, end; // the warp's rows, at most 16
    int least;      // keys that all of them see
};

// Once all lanes of the warp are done with what `empty` guards.
static __device__ void hand_back(uint32_t empty) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
        mbar_arrive(empty);
    }
}

// x = products of a strip's queries with a tile's N chunks of keys. From 16 columns to the next:
// 32 bytes further, from 64 to the next a box; in units of descriptors.
template <int D, int N>
static __device__ inline void key_products(float (&x)[N][32], const Memory<D> &memory, uint32_t q,
                                           typename Memory<D>::KV k, bool hands_back) {
    UNROLL for (int c = 0; c < N; c++) {
        UNROLL for (int i = 0; i < 32; i++) {
            x[c][i] = 0;
        }
        wgmma_hold(x[c]);
    }
    UNROLL for (int c = 0; c < N; c++) {
        const typename Memory<D>::KV chunk = k.after(c);
        mbar_wait(memory.full(chunk), chunk.phase);
        const uint64_t q_tile = wgmma_tile(q), k_tile = wgmma_tile(memory.at(chunk));
        wgmma_fence();
        UNROLL for (int d = 0; d < D / 16; d++) {
            const int step = d / 4 * (BOX / 16) + d % 4 * 2;
            wgmma_m64k16_bf16<0, 0>(x[c], q_tile + step, k_tile + step);
        }
        wgmma_commit();
    }
    wgmma_wait<0>();
    UNROLL for (int c = 0; c < N; c++) {
        wgmma_hold(x[c]);
        if (hands_back) {
            hand_back(memory.empty(k.after(c)));
        }
    }
}

// Products to scores in units of log 2 where there is a bias; j0: first key of the tile.
template <int N>
static __device__ inline void add_bias(float (&x)[N][32], const AttentionShape *s,
                                       const Strip &strip, int j0) {
    float slope[2], position[2];
    UNROLL for (int l = 0; l < 2; l++) {
        const int r = min(strip.first + (int)threadIdx.x % WARP / 4 + 8 * l, strip.rows.count - 1);
        slope[l] = slope_of(s, head_of(strip.rows, r)) * LOG2E;
        position[l] = (float)position_of(strip.rows, r);
    }
    UNROLL for (int c = 0; c < N; c++) {
        UNROLL for (int i = 0; i < 32; i++) {
            const int key = j0 + ROWS3 * c + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2, l = i / 2 % 2;
            x[c][i] = score(x[c][i], s->scale * LOG2E, slope[l], position[l], key);
        }
    }
}

// Masked scores to -inf; top: the largest of the thread's others in each of its rows.
template <int N>
static __device__ inline void mask(float (&x)[N][32], float (&top)[2], const Lines &lines,
                                   int least, int j0) {
    top[0] = top[1] = -INFINITY;
    UNROLL for (int c = 0; c < N; c++) {
        if (j0 + ROWS3 * (c + 1) > least) {
            UNROLL for (int i = 0; i < 32; i++) {
                const int key = j0 + ROWS3 * c + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
                x[c][i] = key < lines.seen[i / 2 % 2] ? x[c][i] : -INFINITY;
            }
        }
        UNROLL for (int i = 0; i < 32; i++) {
            top[i / 2 % 2] = fmaxf(top[i / 2 % 2], x[c][i]);
        }
    }
}

// One tile of N chunks, the first of them K's at k and V's at v: adds it to the sums o and to
// lines. hands_back: nobody needs the chunks again.
template <int D, int N>
static __device__ inline void tile(float (&o)[D / 2], Lines *lines, const AttentionShape *s,
                                   const Strip &strip, const Memory<D> &memory, uint32_t q,
                                   typename Memory<D>::KV k, typename Memory<D>::KV v, int j0,
                                   bool hands_back) {
    float x[N][32], top[2], base[2];
    key_products<D, N>(x, memory, q, k, hands_back);
    // Without a bias the scale waits for exp2's argument, where it costs nothing; the largest
    // product is the largest score if it is positive.
    const bool is_scaled = s->alibi || !(s->scale > 0);
    const float unit = is_scaled ? 1.0f : s->scale * LOG2E;
    if (is_scaled) {
        add_bias<N>(x, s, strip, j0);
    }
    mask<N>(x, top, *lines, strip.least, j0);
    top[0] *= unit, top[1] *= unit;
    const float2 shrink = lines_rebase(lines, top, base);
    UNROLL for (int i = 0; i < D / 2; i++) {
        o[i] *= i / 2 % 2 ? shrink.y : shrink.x;
    }
    uint32_t e[4 * N][4]; // rounded: A of 16 keys each
    wgmma_hold(o);
    UNROLL for (int c = 0; c < N; c++) {
        UNROLL for (int i = 0; i < 32; i++) {
            x[c][i] = exp2_approx(fmaf(x[c][i], unit, -base[i / 2 % 2]));
            lines->total[i / 2 % 2] += x[c][i];
        }
        UNROLL for (int i = 0; i < 16; i++) {
            e[4 * c + i / 4][i % 4] = bf16x2_of_floats(x[c][2 * i], x[c][2 * i + 1]);
        }
        const typename Memory<D>::KV chunk = v.after(c);
        mbar_wait(memory.full(chunk), chunk.phase);
        const uint64_t v_tile = wgmma_tile_mn(memory.at(chunk), BOX);
        wgmma_fence();
        UNROLL for (int i = 0; i < 4; i++) { // the next 16 keys: 2048 bytes
            wgmma_m64k16_bf16<1>(o, e[4 * c + i], v_tile + i * (2048 / 16));
        }
        wgmma_commit();
    }
    wgmma_wait<0>();
    wgmma_hold(e);
    wgmma_hold(o);
    for (int c = 0; c < N && hands_back; c++) {
        hand_back(memory.empty(v.after(c)));
    }
}

// Hands back chunks that only the other consumer uses, once they are there: an arrival must not
// count for the turn before.
template <int D>
static __device__ void pass(const Memory<D> &memory, typename Memory<D>::KV from, int count) {
    for (int c = 0; c < count; c++) {
        const typename Memory<D>::KV chunk = from.after(c);
        mbar_wait(memory.full(chunk), chunk.phase);
        hand_back(memory.empty(chunk));
    }
}

template <int D>
static __device__ void consume(const AttentionShape *s, const Plan *plan, bf16 *out, float *lse,
                               const Memory<D> &memory) {
    const int consumer = consumer_warp() / WARPS, warp = consumer_warp() % WARPS;
    typename Memory<D>::Q q = {0, 0};
    typename Memory<D>::KV kv = {0, 0};
    const int items = s->B * s->Hkv * plan->parts;
    ROLLED for (int index = blockIdx.x; index < items; index += gridDim.x) {
        const Item item = item_at(s, plan, index);
        ROLLED for (int pair = item.first; pair < item.end; pair += CONSUMERS) {
            const int n = pair + consumer, height = plan->queries * plan->group;
            const bool is_mine = n < item.end, is_last = pair + CONSUMERS >= item.end;
            const bool hands_back = !item.stays || is_last;
            const Rows rows = {item.span, plan->group, item.hkv * plan->group,
                               item.span.Tq * plan->group};
            Strip strip = {rows, n * height + STRIP * warp, min((n + 1) * height, rows.count), 0};
            strip.least = strip.first < strip.end ? seen_by(s, rows, strip.first) : 0;
            const typename Memory<D>::Q mine = q.after(consumer);
            const int reach = reach_of_pair(s, plan, item, pair);
            const int my_reach = is_mine ? reach_of(s, plan, item.span, n) : 0;
            Lines lines = lines_of(s, rows, strip.first);
            float o[D / 2];
            UNROLL for (int i = 0; i < D / 2; i++) {
                o[i] = 0;
            }
            mbar_wait(memory.full(mine), mine.phase);
            ROLLED for (int j0 = 0; j0 < reach; j0 += KEYS3) {
                const int count = chunks_of(reach - j0), my_count = chunks_of(my_reach - j0);
                const typename Memory<D>::KV v = kv.after(count);
                const uint32_t at = memory.at(mine);
                switch (my_count) {
                case 4: tile<D, 4>(o, &lines, s, strip, memory, at, kv, v, j0, hands_back); break;
                case 3: tile<D, 3>(o, &lines, s, strip, memory, at, kv, v, j0, hands_back); break;
                case 2: tile<D, 2>(o, &lines, s, strip, memory, at, kv, v, j0, hands_back); break;
                case 1: tile<D, 1>(o, &lines, s, strip, memory, at, kv, v, j0, hands_back); break;
                default: break;
                }
                if (hands_back) {
                    pass(memory, kv.after(my_count), count - my_count);
                    pass(memory, v.after(my_count), count - my_count);
                    kv = v.after(count);
                }
            }
            hand_back(memory.empty(mine));
            if (is_mine) {
                lines_store<D>(out, lse, s, rows, strip.first, strip.end, o, lines);
            }
            q = q.after(CONSUMERS);
        }
    }
}

// ---- the kernel ----
template <int D>
static __device__ inline void block(const AttentionShape *s, const Plan *plan, bf16 *out,
                                    float *lse) {
    SMEM_CARVER(carver);
    SMEM_TAKE(carver, slots, uint8_t, (Slots<D>::Q + Slots<D>::KV) * Slots<D>::BYTES, 1024);
    SMEM_TAKE(carver, bars, uint64_t, Slots<D>::BARS, 8);
    const Memory<D> memory = {smem_u32(slots), smem_u32(bars)};
    // What a box of Q leaves of its slot, nobody writes later.
    for (int at = 16 * threadIdx.x; at < Slots<D>::Q * Slots<D>::BYTES; at += 16 * RING_BLOCK) {
        if (at % BOX >= plan->queries * plan->group * 128) {
            st16(slots + at, make_uint4(0, 0, 0, 0));
        }
    }
    fence_proxy_async();
    if (threadIdx.x == 0) {
        bars_init(memory);
    }
    __syncthreads(); // zeros and barriers are seen by all
    if (threadIdx.x < WARPGROUP) {
        registers_release<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            produce(s, plan, memory);
        } else if (threadIdx.x / WARP == 1) {
            clean(s, plan, memory, slots + Slots<D>::Q * Slots<D>::BYTES);
        }
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        consume(s, plan, out, lse, memory);
    }
}

// Launch: as many blocks as multiprocessors, or items if fewer; RING_BLOCK threads; Slots::SHARED
// bytes of shared memory. One block per multiprocessor; see setmaxnreg for the registers.
template <int D>
static __global__ void __launch_bounds__(RING_BLOCK, 1)
    attention_fwd_kernel3(const __grid_constant__ AttentionShape s,
                          const __grid_constant__ Plan plan, bf16 *out, float *lse) {
    if (IS_HOPPER) {
        block<D>(&s, &plan, out, lse);
    }
}

// ---- launcher ----
template <int D>
static void launch(Device *dev, bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                   const AttentionShape *s) {
    const size_t Nq = s->Nq > 0 ? s->Nq : 1, Nk = s->Nk > 0 ? s->Nk : 1; // a map is of something
    const int group = s->H / s->Hkv, queries = ROWS3 / group;
    Plan plan = {};
    plan.group = group, plan.queries = queries;
    tensor_map_heads(&plan.q, q, Nq, s->H, D, s->q_stride, group, queries);
    tensor_map_heads(&plan.k, k, Nk, s->Hkv, D, s->k_stride, 1, ROWS3);
    tensor_map_heads(&plan.v, v, Nk, s->Hkv, D, s->v_stride, 1, ROWS3);
    const int strips = (s->max_Tq + queries - 1) / queries, heads = s->B * s->Hkv;
    const int pairs = (strips + CONSUMERS - 1) / CONSUMERS, processors = device_processors(dev);
    // Where keys stay in shared memory and the heads fill the card, one block reads them once.
    plan.parts = s->max_Tk <= KEYS3 && heads >= processors ? 1 : pairs;
    const int items = heads * plan.parts;
    SMEM_ALLOW(attention_fwd_kernel3<D>, Slots<D>::SHARED);
    LAUNCH(attention_fwd_kernel3<D>, items < processors ? items : processors, RING_BLOCK,
           Slots<D>::SHARED, device_stream(dev), *s, plan, out, lse);
}

extern "C" bool attention_fwd_sm90(Device *dev, bf16 *out, float *lse, const bf16 *q, const bf16 *k,
                                   const bf16 *v, const AttentionShape *s) {
    if (s->H / s->Hkv > ROWS3 || (size_t)Slots<64>::SHARED > device_shared_bytes(dev)) {
        return false;
    }
    CHECK(s->D == 64 || s->D == 80 || s->D == 128, "D=%d", s->D);
    (s->D == 64 ? launch<64> : s->D == 80 ? launch<80> : launch<128>)(dev, out, lse, q, k, v, s);
    return true;
}
