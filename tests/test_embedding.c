// test_embedding: rows by id. Ids repeat, so that a lost or doubled addition is seen.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

typedef struct {
    int N, C, V; // rows moved, their width, rows of the table
} Shape;
static const Shape shapes[] = {{1, 1, 1},    {3, 15, 2},   {5, 16, 7},   {9, 17, 4},
                               {4, 257, 11}, {7, 300, 50}, {130, 600, 33},
                               {700, 8, 3},  {1030, 9, 300}};
#define SHAPES (int)(sizeof shapes / sizeof *shapes)

static IntBuf ids_new(int N, int V) {
    Rng rng = check_rng(77);
    IntBuf ids = ibuf_fill((size_t)N, 0);
    for (int n = 0; n < N; n++) {
        ids.host[n] = (int32_t)rng_below(&rng, (uint32_t)V);
    }
    IntBuf written = ibuf_from(ids.host, (size_t)N);
    ibuf_free(&ids);
    return written;
}

static void each_shape(void (*one)(Shape s, DType t)) {
    for (int k = 0; k < SHAPES * DT_COUNT; k++) {
        const Shape s = shapes[k / DT_COUNT];
        if (CASE("N=%d C=%d V=%d t=%s", s.N, s.C, s.V, dtype_name((DType)(k % DT_COUNT)))) {
            one(s, (DType)(k % DT_COUNT));
        }
    }
}

// Runs in a child: an index outside the table must be caught, not read.
static void expect_caught(const char *what, void (*run)(int32_t id), int32_t id) {
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) {
            _exit(1);
        }
        run(id);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s with id %d was not caught", what,
           (int)id);
}

static void expect_range_checked(const char *what, void (*run)(int32_t id)) {
    // A GPU does not look: it would have to tell the host.
    if (device_kind(check_device()) == DEVICE_CPU && CASE("index outside the table")) {
        expect_caught(what, run, -1);
        expect_caught(what, run, 3);
    }
}

// ---- embedding_fwd ----
static void one_fwd(Shape s, DType t) {
    const size_t n = (size_t)s.N * s.C, v = (size_t)s.V * s.C;
    Rng rng = check_rng(1);
    Buf table = buf_normal(t, v, 1, &rng), start = buf_normal(t, n, 1, &rng);
    IntBuf ids = ids_new(s.N, s.V);
    double *row = xcalloc(n, sizeof(double)), *sum = xcalloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) {
        row[i] = table.host[(size_t)ids.host[i / (size_t)s.C] * s.C + i % (size_t)s.C];
        sum[i] = check_round(t, start.host[i] + row[i]);
    }
    for (int count = 1; count <= 3; count += 2) {
        Device *dev = check_device_threads(count);
        Buf out = buf_fill(t, n, NAN), more = buf_from(t, start.host, n);
        device_ops(dev)->embedding_fwd(dev, t, out.dev, table.dev, ids.dev, s.N, s.C, s.V, false);
        device_ops(dev)->embedding_fwd(dev, t, more.dev, table.dev, ids.dev, s.N, s.C, s.V, true);
        expect_exact("assigned", buf_read(&out), row, n);
        expect_exact("accumulated", buf_read(&more), sum, n);
        buf_free(&out), buf_free(&more);
    }
    free(row), free(sum);
    buf_free(&table), buf_free(&start), ibuf_free(&ids);
}

static void fwd_of_id(int32_t id) {
    Buf table = buf_fill(DT_F32, 3 * 4, 1), out = buf_fill(DT_F32, 4, 0);
    check_ops()->embedding_fwd(check_device(), DT_F32, out.dev, table.dev, &id, 1, 4, 3, true);
}

TEST_OP(embedding_fwd) {
    each_shape(one_fwd);
    expect_range_checked("embedding_fwd", fwd_of_id);
}

// ---- embedding_bwd ----
static void reference_bwd(Precision p, double *dtable, const double *dout, const int32_t *ids,
                          int N, int C) {
    for (int n = 0; n < N; n++) {
        for (int c = 0; c < C; c++) {
            double *d = &dtable[(size_t)ids[n] * C + c];
            *d = check_step(p, *d + dout[(size_t)n * C + c]);
        }
    }
}

static void one_bwd(Shape s, DType t) {
    const size_t n = (size_t)s.N * s.C, v = (size_t)s.V * s.C;
    Rng rng = check_rng(2);
    Buf dout = buf_normal(t, n, 1, &rng), start = buf_normal(DT_F32, v, 1, &rng);
    IntBuf ids = ids_new(s.N, s.V);
    double *want = xcalloc(v, sizeof(double)), *plain = xcalloc(v, sizeof(double));
    memcpy(want, start.host, v * sizeof(double)), memcpy(plain, start.host, v * sizeof(double));
    Buf got[2] = {buf_from(DT_F32, start.host, v), buf_from(DT_F32, start.host, v)};
    for (int run = 0; run < 2; run++) { // twice: the gradient accumulates
        reference_bwd(IN_F64, want, dout.host, ids.host, s.N, s.C);
        reference_bwd(IN_F32, plain, dout.host, ids.host, s.N, s.C);
        for (int k = 0; k < 2; k++) {
            Device *dev = check_device_threads(k ? 3 : 1);
            // The second device takes the rows in two micro-batches.
            const int split = k ? (s.N + 1) / 2 : s.N;
            device_ops(dev)->embedding_bwd(dev, t, buf_f32(&got[k]), dout.dev, ids.dev, split, s.C,
                                           s.V);
            if (split < s.N) {
                device_ops(dev)->embedding_bwd(dev, t, buf_f32(&got[k]),
                                               dtype_at(t, dout.dev, (size_t)split * s.C),
                                               ids.dev + split, s.N - split, s.C, s.V);
            }
        }
        expect_sum("dtable", buf_read(&got[0]), want, plain, v);
        expect_exact("the chain of the contract", got[0].host, plain, v);
        expect_exact("two micro-batches", buf_read(&got[1]), got[0].host, v);
    }
    free(want), free(plain);
    buf_free(&dout), buf_free(&start), buf_free(&got[0]), buf_free(&got[1]), ibuf_free(&ids);
}

static void bwd_of_id(int32_t id) {
    Buf dtable = buf_fill(DT_F32, 3 * 4, 1), dout = buf_fill(DT_F32, 4, 0);
    check_ops()->embedding_bwd(check_device(), DT_F32, buf_f32(&dtable), dout.dev, &id, 1, 4, 3);
}

TEST_OP(embedding_bwd) {
    each_shape(one_bwd);
    if (CASE("threads")) { // one call with work for more threads than one
        Rng rng = check_rng(3);
        const size_t n = (size_t)130 * 600;
        Buf dout = buf_normal(DT_BF16, n, 1, &rng);
        Buf one = buf_fill(DT_F32, 5 * 600, 0), three = buf_fill(DT_F32, 5 * 600, 0);
        IntBuf ids = ids_new(130, 5);
        Device *dev1 = check_device_threads(1), *dev3 = check_device_threads(3);
        device_ops(dev1)->embedding_bwd(dev1, DT_BF16, buf_f32(&one), dout.dev, ids.dev, 130, 600,
                                        5);
        device_ops(dev3)->embedding_bwd(dev3, DT_BF16, buf_f32(&three), dout.dev, ids.dev, 130, 600,
                                        5);
        expect_exact("three threads", buf_read(&three), buf_read(&one), one.n);
        buf_free(&dout), buf_free(&one), buf_free(&three), ibuf_free(&ids);
    }
    expect_range_checked("embedding_bwd", bwd_of_id);
}

// ---- rows_gather, rows_scatter ----
static void one_gather(Shape s, DType t) {
    const size_t n = (size_t)s.N * s.C;
    Rng rng = check_rng(4);
    Buf inp = buf_normal(t, (size_t)s.V * s.C, 1, &rng);
    IntBuf index = ids_new(s.N, s.V);
    double *want = xcalloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) {
        want[i] = inp.host[(size_t)index.host[i / (size_t)s.C] * s.C + i % (size_t)s.C];
    }
    for (int count = 1; count <= 3; count += 2) {
        Device *dev = check_device_threads(count);
        Buf out = buf_fill(t, n, NAN);
        device_ops(dev)->rows_gather(dev, t, out.dev, inp.dev, index.dev, s.N, s.C, s.V);
        expect_exact("out", buf_read(&out), want, n);
        buf_free(&out);
    }
    free(want);
    buf_free(&inp), ibuf_free(&index);
}

static void gather_of_id(int32_t id) {
    Buf inp = buf_fill(DT_F32, 3 * 4, 1), out = buf_fill(DT_F32, 4, 0);
    check_ops()->rows_gather(check_device(), DT_F32, out.dev, inp.dev, &id, 1, 4, 3);
}

TEST_OP(rows_gather) {
    each_shape(one_gather);
    expect_range_checked("rows_gather", gather_of_id);
}

// s.N rows go to every second row, from the last one down, of a tensor of 2 s.N + 1.
static void one_scatter(Shape s, DType t) {
    const size_t n = (size_t)s.N * s.C, rows = 2 * (size_t)s.N + 1;
    Rng rng = check_rng(5);
    Buf inp = buf_normal(t, n, 1, &rng), start = buf_normal(t, rows * s.C, 1, &rng);
    IntBuf shape = ibuf_fill((size_t)s.N, 0);
    double *want = xcalloc(rows * s.C, sizeof(double));
    memcpy(want, start.host, rows * s.C * sizeof(double));
    for (int r = 0; r < s.N; r++) {
        shape.host[r] = 2 * (s.N - r);
        memcpy(want + (size_t)shape.host[r] * s.C, inp.host + (size_t)r * s.C,
               (size_t)s.C * sizeof(double));
    }
    IntBuf index = ibuf_from(shape.host, (size_t)s.N);
    for (int count = 1; count <= 3; count += 2) {
        Device *dev = check_device_threads(count);
        Buf out = buf_from(t, start.host, rows * s.C), back = buf_fill(t, n, NAN);
        device_ops(dev)->rows_scatter(dev, t, out.dev, inp.dev, index.dev, s.N, s.C, (int)rows);
        expect_exact("out", buf_read(&out), want, rows * s.C);
        device_ops(dev)->rows_gather(dev, t, back.dev, out.dev, index.dev, s.N, s.C, (int)rows);
        expect_exact("gathered again", buf_read(&back), inp.host, n);
        buf_free(&out), buf_free(&back);
    }
    free(want);
    buf_free(&inp), buf_free(&start), ibuf_free(&shape), ibuf_free(&index);
}

static void scatter_of_id(int32_t id) {
    Buf inp = buf_fill(DT_F32, 4, 1), out = buf_fill(DT_F32, 3 * 4, 0);
    check_ops()->rows_scatter(check_device(), DT_F32, out.dev, inp.dev, &id, 1, 4, 3);
}

TEST_OP(rows_scatter) {
    each_shape(one_scatter);
    expect_range_checked("rows_scatter", scatter_of_id);
}
