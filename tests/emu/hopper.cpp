// hopper: mbarriers, the copy engine and the products of a warpgroup; see ptx_hopper.cuh.
//
// All is as late as allowed. A tensor copy arrives only when no thread can go on (EMU_COPIES=early:
// at once); until then its destination is poison. A product keeps its descriptors, its accumulators
// are NaN, as are registers that hold its A, and it reads shared memory when it is waited for: a
// stage that was released too early has been written by then, which is a race. Each thread computes
// its own elements, so what is not seen is a warp of the group that never issues the product.
#include <map>

#include "core.h"

#include "kernels/dtype.h"

namespace emu {
enum : uint32_t { ROW_BYTES = 128, ATOM_BYTES = 1024, POISON = 0xffffffff };

// ---- mbarriers ----
struct Waiter {
    Thread *thread;
    int parity;
};
struct Mbar {
    int count, pending, phase;
    long bytes; // of copies still expected
    Known coming, over; // what those of this phase, and of the last one, had done
    std::vector<Waiter> waiters;
};
static std::map<uint32_t, Mbar> mbars;
static std::vector<Thread *> claimants; // of registers, that found too few

static Mbar &mbar_at(uint32_t bar, uintptr_t pc) {
    const auto found = mbars.find(bar);
    if (found == mbars.end()) {
        fail("mbarrier %u at %s was never initialised", bar, source_line(pc).c_str());
    }
    // Its initialisation must be ordered before; uses need no order among themselves.
    shadow_access(shared_at(bar), 8, READ | WRITE | ATOMIC, pc);
    return found->second;
}

static void mbar_advance(Mbar *m) {
    if (m->pending > 0 || m->bytes != 0) {
        return;
    }
    m->phase ^= 1;
    m->pending = m->count;
    m->over = m->coming; // a phase comes after all before it
    std::vector<Waiter> still;
    for (const Waiter &w : m->waiters) {
        if (m->phase != w.parity) {
            wake(w.thread);
        } else {
            still.push_back(w);
        }
    }
    m->waiters = still;
}

static void arrive(uint32_t bar, int bytes, uintptr_t pc) {
    Mbar &m = mbar_at(bar, pc);
    if (m.pending == 0) {
        fail("mbarrier %u at %s: more than %d arrivals in one phase", bar, source_line(pc).c_str(),
             m.count);
    }
    m.bytes += bytes;
    m.pending--;
    tell(&m.coming, cur);
    mbar_advance(&m);
}

// ---- tensor copies ----
struct Tile {
    uint32_t to, bar;
    TensorMap map;
    int column, head, row;
    Known known; // of the thread that issued it
    int box_rows() const { return map.box_rows * (map.heads ? map.box_heads : 1); }
};
static std::vector<Tile> tiles; // under way

static uint32_t swizzle(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// Calls visit(shared address of the box's row, first column of the row that is inside, how many
// are, where the first of them lies). Rows outside have none.
template <typename F> static void each_row(const Tile &tile, F visit) {
    const long width = ROW_BYTES / 2, columns = (long)tile.map.columns;
    const long first = tile.column < 0 ? -(long)tile.column : 0;
    const long last = columns - tile.column < width ? columns - tile.column : width;
    const int heads = tile.map.heads ? tile.map.heads : 1;
    for (int r = 0; r < tile.box_rows(); r++) {
        const int box_heads = tile.map.heads ? tile.map.box_heads : 1;
        const long row = (long)tile.row + r / box_heads, head = tile.head + r % box_heads;
        const bool is_inside = row >= 0 && row < (long)tile.map.rows && head >= 0 &&
                               head < heads && first < last;
        const long at = row * (long)tile.map.stride + head * columns + tile.column + first;
        visit(tile.to + (uint32_t)r * ROW_BYTES, first, is_inside ? last - first : 0,
              tile.map.base + 2 * at);
    }
}

static void deliver(const Tile &tile) {
    each_row(tile, [](uint32_t to, long first, long count, const char *from) {
        char row[ROW_BYTES] = {};
        if (count > 0) {
            memcpy(row + 2 * first, from, 2 * (size_t)count);
        }
        for (uint32_t piece = 0; piece < ROW_BYTES; piece += 16) {
            memcpy(shared_at(swizzle(to + piece)), row + piece, 16);
        }
    });
    const size_t bytes = (size_t)tile.box_rows() * ROW_BYTES;
    shadow_map(shared_at(tile.to), bytes, true, true);
    Mbar &m = mbars.at(tile.bar);
    m.bytes -= (long)bytes;
    merge(&m.coming, tile.known);
    mbar_advance(&m);
}

bool async_deliver() {
    if (tiles.empty()) {
        return false;
    }
    const size_t i = order == Order::RANDOM     ? random_word() % tiles.size()
                     : order == Order::REVERSE ? tiles.size() - 1
                                               : 0;
    const Tile tile = tiles[i];
    tiles.erase(tiles.begin() + (long)i);
    deliver(tile);
    return true;
}

void hopper_start() {
    if (!tiles.empty()) {
        fail("the last block ended with %zu tensor copies under way", tiles.size());
    }
    mbars.clear();
    claimants.clear();
}

// ---- products ----
// Where a tile's element (row, k) lies, row being the kept index.
static uint32_t address_of(uint64_t descriptor, bool is_mn, uint32_t row, uint32_t k) {
    const uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4;
    const uint32_t leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4;
    const uint32_t stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    if (is_mn) {
        return swizzle(start + row / 64 * leading + k / 8 * stride + k % 8 * ROW_BYTES +
                       row % 64 * 2);
    }
    return swizzle(start + row / 8 * stride + row % 8 * ROW_BYTES + k * 2);
}

// The 16 elements of a row, widened.
static void row_of(float *x, DType t, uint64_t descriptor, bool is_mn, int row) {
    uint16_t bits[16];
    for (uint32_t k = 0; k < 16; k += is_mn ? 1 : 8) { // along k, 8 neighbours are a piece
        memcpy(bits + k, shared + address_of(descriptor, is_mn, (uint32_t)row, k), is_mn ? 2 : 16);
    }
    dtype_widen(x, t, bits, 16);
}

// For the shadow: what a warp reads of a tile's rows, in pieces of 16 bytes, shared out to lanes.
static void touch(uint64_t descriptor, bool is_mn, int first, int rows, uintptr_t pc) {
    for (int piece = cur->lane; piece < 2 * rows; piece += LANES) {
        const int row = first + (is_mn ? piece / 16 * 8 : piece / 2);
        const int k = is_mn ? piece % 16 : piece % 2 * 8;
        const uint32_t at = address_of(descriptor, is_mn, (uint32_t)row, (uint32_t)k);
        shadow_access(shared_at(at), 16, READ | ASYNC, pc);
    }
}

// Rows g and g + 8 of A for this thread: from shared memory, or from registers of its four lanes.
static void rows_of_a(float (&a)[2][16], const Product &p) {
    const int first = cur->warp->index % 4 * 16, row = first + cur->lane / 4;
    if (!p.fragment) {
        touch(p.a, p.a_mn, first, 16, p.pc);
        row_of(a[0], p.t, p.a, p.a_mn, row);
        row_of(a[1], p.t, p.a, p.a_mn, row + 8);
        return;
    }
    for (int n = 0; n < 16; n++) { // lane n / 4 of the four, register n % 4
        uint16_t bits[2];
        memcpy(bits, &p.quad[n / 4][n % 4], sizeof bits);
        dtype_widen(&a[n % 2][n / 4 * 2 + n % 4 / 2 * 8], p.t, bits, 2);
    }
}

static void compute(const Product &p, float *sum) {
    const int i = cur->lane % 4;
    touch(p.b, p.b_mn, 0, p.columns, p.pc);
    float a[2][16], b[16];
    rows_of_a(a, p);
    for (int pair = 0; pair < p.columns / 4; pair++) { // columns 2i and 2i + 1 of every 8
        const int at = pair / 2 * 4 + pair % 2;
        row_of(b, p.t, p.b, p.b_mn, pair / 2 * 8 + 2 * i + pair % 2);
        double total[2] = {sum[at], sum[at + 2]};
        for (int j = 0; j < 16; j++) {
            total[0] += (double)a[0][j] * b[j];
            total[1] += (double)a[1][j] * b[j];
        }
        sum[at] = (float)total[0];
        sum[at + 2] = (float)total[1];
    }
}

// Descriptors are told apart by their leading offset, which a K-major tile does not use.
static void check_tile(uint64_t descriptor, bool is_mn, uintptr_t pc) {
    if (descriptor >> 62 != 1) {
        fail("wgmma at %s: operands come from wgmma_tile", source_line(pc).c_str());
    }
    if ((descriptor >> 16 & 0x3fff) == 1 && is_mn) {
        fail("wgmma at %s: a K-major tile as an MN-major operand", source_line(pc).c_str());
    }
    if ((descriptor >> 16 & 0x3fff) != 1 && !is_mn) {
        fail("wgmma at %s: an MN-major tile as a K-major operand", source_line(pc).c_str());
    }
}

// The registers of A of a product must still hold what its issue put there.
static void check_fragment(const Product &p) {
    for (int k = 0; k < 4; k++) {
        if (p.fragment[k] != POISON) {
            fail("wgmma at %s: registers of A were changed before wgmma_wait",
                 source_line(p.pc).c_str());
        }
    }
}

// Takes the values out of its registers, unless products under way did so before.
static void issue(Product p) {
    if (!cur->is_fenced) {
        fail("wgmma at %s without wgmma_fence since its registers were touched",
             source_line(p.pc).c_str());
    }
    check_tile(p.b, p.b_mn, p.pc);
    bool is_first = true; // of those under way on these accumulators
    for (const Product &other : cur->products) {
        is_first = is_first && other.acc != p.acc;
    }
    if (is_first) {
        p.start.assign(p.acc, p.acc + p.columns / 2);
    }
    for (int k = 0; k < p.columns / 2; k++) {
        p.acc[k] = __builtin_nanf("");
    }
    for (int k = 0; k < 4 && p.fragment; k++) {
        p.fragment[k] = POISON;
    }
    cur->products.push_back(p);
}

void wgmma(float *acc, int columns, DType t, uint64_t a, bool a_mn, uint64_t b, bool b_mn) {
    const uintptr_t pc = HERE_PC;
    check_tile(a, a_mn, pc);
    issue({acc, columns, t, a, b, a_mn, b_mn, pc, cur->product_groups, {}});
}

static void act_exchange(uint32_t, void **records, const void *) {
    for (int lane = 0; lane < LANES; lane++) {
        for (int mate = 0; mate < 4; mate++) {
            const Product *const from = (const Product *)records[lane / 4 * 4 + mate];
            memcpy(((Product *)records[lane])->quad[mate], from->held, sizeof from->held);
        }
    }
}

void wgmma(float *acc, int columns, DType t, const uint32_t *a, uint64_t b, bool b_mn,
           Place place) {
    Product p = {acc, columns, t, 0, b, false, b_mn, HERE_PC, cur->product_groups, {}};
    p.fragment = const_cast<uint32_t *>(a); // to see who touches it
    memcpy(p.held, a, sizeof p.held);
    for (const Product &other : cur->products) { // the same A once more
        if (other.fragment == a) {
            check_fragment(other);
            memcpy(p.held, other.held, sizeof p.held);
        }
    }
    meet(0xffffffffu, "wgmma", place, &p, act_exchange, nullptr);
    issue(p);
}

void wgmma_wait(int newest) {
    Thread *const self = cur;
    std::vector<Product> kept;
    for (size_t i = 0; i < self->products.size(); i++) {
        Product &p = self->products[i];
        if (p.group >= self->product_groups - newest) {
            kept.push_back(p);
            continue;
        }
        compute(p, p.start.data());
        Product *next = nullptr; // goes on with these accumulators
        bool is_last = true;     // of those with this A
        for (size_t j = i + 1; j < self->products.size(); j++) {
            Product &other = self->products[j];
            next = !next && other.acc == p.acc ? &other : next;
            is_last = is_last && other.fragment != p.fragment;
        }
        if (p.fragment) {
            check_fragment(p);
        }
        if (p.fragment && is_last) {
            memcpy(p.fragment, p.held, sizeof p.held);
        }
        if (next) {
            next->start = p.start;
        } else {
            memcpy(p.acc, p.start.data(), p.start.size() * sizeof(float));
        }
    }
    self->products = kept;
    self->is_fenced = !kept.empty();
}

// ---- registers ----
static void registers_check(const char *what, int count, bool is_less, Place place) {
    if (is_less ? count > cur->registers : count < cur->registers) {
        fail("%s at %s:%d: %d registers, but the thread has %d", what, place.file, place.line,
             count, cur->registers);
    }
}

void registers_release(int count, Place place) {
    registers_check("registers_release", count, true, place);
    block.registers += cur->registers - count;
    cur->registers = count;
    for (Thread *thread : claimants) {
        wake(thread);
    }
    claimants.clear();
}

void registers_claim(int count, Place place) {
    registers_check("registers_claim", count, false, place);
    while (block.registers < count - cur->registers) {
        claimants.push_back(cur);
        wait("registers_claim", place, 0);
    }
    block.registers -= count - cur->registers;
    cur->registers = count;
}
} // namespace emu

// ---- the wrappers ----
using namespace emu;

void mbar_init(uint32_t bar, int count) {
    if (bar % 8 || count < 1) {
        fail("mbarrier %u for %d arrivals: a multiple of 8, and at least one", bar, count);
    }
    shadow_access(shared_at(bar), 8, WRITE, HERE_PC);
    mbars[bar] = {count, count, 0, 0, {}, {}, {}};
}
void mbar_arrive(uint32_t bar) { arrive(bar, 0, HERE_PC); }
void mbar_arrive_expect(uint32_t bar, int bytes) { arrive(bar, bytes, HERE_PC); }
void mbar_wait(uint32_t bar, int parity, Place place) {
    Mbar &m = mbar_at(bar, HERE_PC);
    if (m.phase == parity) {
        m.waiters.push_back({cur, parity});
        wait("mbar_wait", place, 0);
    }
    learn(cur, m.over);
}
void fence_proxy_async() { cur->proxy_clock = cur->clock++; }

static void load(Tile tile, uintptr_t pc) {
    if (tile.to % ATOM_BYTES) {
        fail("tma_load at %s to %u, no multiple of 1024", source_line(pc).c_str(), tile.to);
    }
    mbar_at(tile.bar, pc);
    each_row(tile, [pc](uint32_t, long, long count, const char *from) {
        if (count > 0) {
            shadow_access(from, 2 * (size_t)count, READ, pc);
        }
    });
    const size_t bytes = (size_t)tile.box_rows() * ROW_BYTES;
    shadow_access(shared_at(tile.to), bytes, WRITE | ASYNC | PROXY, pc);
    memset(shared_at(tile.to), 0xFF, bytes);
    shadow_unset(shared_at(tile.to), bytes);
    tell(&tile.known, cur);
    if (copies_early) {
        deliver(tile);
    } else {
        tiles.push_back(tile);
    }
}
void tma_load(uint32_t to, const TensorMap *map, int column, int row, uint32_t bar) {
    if (map->heads) {
        fail("tma_load at %s: a map of heads", source_line(HERE_PC).c_str());
    }
    load({to, bar, *map, column, 0, row, {}}, HERE_PC);
}
void tma_load_heads(uint32_t to, const TensorMap *map, int column, int head, int row,
                    uint32_t bar) {
    if (!map->heads) {
        fail("tma_load_heads at %s: a map without heads", source_line(HERE_PC).c_str());
    }
    load({to, bar, *map, column, head, row, {}}, HERE_PC);
}

static void map_check(const void *base, size_t stride, int box_rows, int box_heads, int D) {
    if ((uintptr_t)base % 16 || stride % 8 || D % 8 || box_rows < 1 || box_rows > 256 ||
        box_heads < 1 || box_heads > 256) {
        fail("tensor_map: base %p, stride %zu, box of %d rows and %d heads of %d: multiples of 16 "
             "bytes, 1..256 of each", base, stride, box_rows, box_heads, D);
    }
}
void tensor_map(TensorMap *map, const void *base, size_t rows, size_t columns, size_t stride,
                int box_rows) {
    map_check(base, stride, box_rows, 1, 0);
    *map = {(const char *)base, rows, columns, stride, box_rows, 0, 0};
}
void tensor_map_heads(TensorMap *map, const void *base, size_t rows, int heads, int D,
                      size_t stride, int box_heads, int box_rows) {
    map_check(base, stride, box_rows, box_heads, D);
    *map = {(const char *)base, rows, (size_t)D, stride, box_rows, heads, box_heads};
}

static uint64_t descriptor_of(uint32_t at, uint32_t leading) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(ATOM_BYTES >> 4) << 32 | (uint64_t)1 << 62;
}
uint64_t wgmma_tile(uint32_t at) { return descriptor_of(at, 16); }
uint64_t wgmma_tile_mn(uint32_t at, uint32_t chunk_bytes) { return descriptor_of(at, chunk_bytes); }
void wgmma_fence() { cur->is_fenced = true; }
void wgmma_commit() { cur->product_groups++; }
