// async: instructions of the copy engine and of the tensor cores, as late as the manual allows.
//
// cp.async: at issue the destination becomes poison, the copy is made when its group is waited for.
// What reads too early, or relies on the old content, shows every time. EMU_COPIES=early copies at
// issue instead. mma sums its 16 products in double and rounds once, so it is compared with a
// tolerance, as on hardware.
#include "core.h"

#include "kernels/dtype.h"

namespace emu {

// ---- cp.async ----
static void make_copy(const Copy &copy) {
    char *const to = (char *)shared_at(copy.to);
    memset(to, 0, 16);
    memcpy(to, copy.from, (size_t)copy.bytes);
}

void cp_async(uint32_t to, const void *from, int bytes) {
    const uintptr_t pc = HERE_PC;
    if (bytes < 0 || bytes > 16) {
        fail("cp.async at %s: %d bytes; 0 to 16", source_line(pc).c_str(), bytes);
    }
    if (to % 16 || (uintptr_t)from % 16) {
        fail("cp.async at %s: misaligned: shared address %u, global %p; multiples of 16",
             source_line(pc).c_str(), to, from);
    }
    const Copy copy = {to, (const char *)from, bytes, pc, cur->groups};
    if (bytes > 0) {
        shadow_access(from, (size_t)bytes, READ, pc);
    }
    shadow_access(shared_at(to), 16, WRITE | ASYNC, pc);
    if (copies_early) {
        make_copy(copy);
    } else {
        memset(shared_at(to), 0xFF, 16);
        shadow_unset(shared_at(to), 16);
    }
    cur->copies.push_back(copy);
}

void cp_async_commit() { cur->groups++; }

void cp_async_wait(int newest) {
    size_t kept = 0;
    for (const Copy &copy : cur->copies) {
        if (copy.group < cur->groups - newest) {
            // Written for the others from now on, whenever it was issued.
            shadow_access(shared_at(copy.to), 16, WRITE | ASYNC, copy.pc);
            if (!copies_early) {
                make_copy(copy);
            }
        } else {
            cur->copies[kept++] = copy;
        }
    }
    cur->copies.resize(kept);
}

// ---- ldmatrix ----
struct RowRecord {
    uint32_t row;
    uint32_t out[4];
};
struct RowContext {
    int count;
    bool is_transposed;
    Place place;
    uintptr_t pc;
};

static void act_ldmatrix(uint32_t, void **records, const void *context) {
    const RowContext &c = *(const RowContext *)context;
    Thread *const caller = cur;
    for (int m = 0; m < c.count; m++) {
        uint16_t element[8][8];
        for (int r = 0; r < 8; r++) {
            const int lane = 8 * m + r;
            const uint32_t row = ((const RowRecord *)records[lane])->row;
            if (row % 16) {
                fail("ldmatrix at %s:%d: lane %d gives address %u, no multiple of 16", c.place.file,
                     c.place.line, lane, row);
            }
            cur = &threads[caller->warp->index * LANES + lane]; // the row is read in its name
            shadow_access(shared_at(row), 16, READ, c.pc);
            memcpy(element[r], shared_at(row), 16);
        }
        cur = caller;
        for (int lane = 0; lane < LANES; lane++) {
            const int a = lane / 4, b = 2 * (lane % 4);
            const uint16_t low = c.is_transposed ? element[b][a] : element[a][b];
            const uint16_t high = c.is_transposed ? element[b + 1][a] : element[a][b + 1];
            ((RowRecord *)records[lane])->out[m] = low | (uint32_t)high << 16;
        }
    }
}

void ldmatrix(uint32_t *out, int count, bool is_transposed, uint32_t row, Place place) {
    RowRecord record = {row, {}};
    const RowContext context = {count, is_transposed, place, HERE_PC};
    meet(0xffffffffu, "ldmatrix", place, &record, act_ldmatrix, &context);
    memcpy(out, record.out, (size_t)count * 4);
}

// ---- mma m16n8k16 ----
struct MmaRecord {
    uint32_t a[4], b[2];
    float acc[4];
};

static double half_of(uint32_t pair, int upper, DType t) {
    const uint16_t bits = (uint16_t)(pair >> 16 * upper);
    return t == DT_BF16 ? bf16_to_float(bf16{bits}) : f16_to_float(f16{bits});
}

static void act_mma(uint32_t, void **records, const void *context) {
    const DType t = *(const DType *)context;
    double a[16][16], b[16][8];
    for (int lane = 0; lane < LANES; lane++) {
        const MmaRecord &r = *(const MmaRecord *)records[lane];
        const int g = lane / 4, i = lane % 4;
        for (int k = 0; k < 8; k++) { // register k / 2, half k % 2
            a[g + 8 * (k / 2 % 2)][2 * i + 8 * (k / 4) + k % 2] = half_of(r.a[k / 2], k % 2, t);
        }
        for (int k = 0; k < 4; k++) {
            b[2 * i + 8 * (k / 2) + k % 2][g] = half_of(r.b[k / 2], k % 2, t);
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        MmaRecord &r = *(MmaRecord *)records[lane];
        for (int k = 0; k < 4; k++) {
            const int row = lane / 4 + 8 * (k / 2), column = 2 * (lane % 4) + k % 2;
            double sum = r.acc[k];
            for (int j = 0; j < 16; j++) {
                sum += a[row][j] * b[j][column];
            }
            r.acc[k] = (float)sum;
        }
    }
}

void mma_m16n8k16(float *acc, const uint32_t *a, const uint32_t *b, DType t, Place place) {
    MmaRecord record;
    memcpy(record.a, a, sizeof record.a);
    memcpy(record.b, b, sizeof record.b);
    memcpy(record.acc, acc, sizeof record.acc);
    meet(0xffffffffu, "mma", place, &record, act_mma, &t);
    memcpy(acc, record.acc, sizeof record.acc);
}
} // namespace emu
