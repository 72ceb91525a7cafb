// Tests of label_logprob: values against double loops, greedy tokens exactly, ties to the lower
// token.
#include <math.h>
#include <stdlib.h>

#include "tests/check.h"

static void values_case(DType t, int S, int R, int V, Rng *rng) {
    Buf logits = buf_normal(t, (size_t)R * (size_t)V, 3, rng);
    IntBuf row = ibuf_fill((size_t)S, 0), token = ibuf_fill((size_t)S, 0);
    for (int s = 0; s < S; s++) {
        row.host[s] = (int32_t)rng_below(rng, (uint32_t)R);
        token.host[s] = s ? (int32_t)rng_below(rng, (uint32_t)V) : V - 1;
    }
    IntBuf rows = ibuf_from(row.host, (size_t)S), tokens = ibuf_from(token.host, (size_t)S);
    Buf raw = buf_fill(DT_F32, (size_t)S, NAN), logprob = buf_fill(DT_F32, (size_t)S, NAN);
    Buf lse = buf_fill(DT_F32, (size_t)R, NAN);
    IntBuf greedy = ibuf_fill((size_t)R, -7);
    check_ops()->label_logprob(check_device(), t, buf_f32(&raw), buf_f32(&logprob), greedy.dev,
                               buf_f32(&lse), logits.dev, rows.dev, tokens.dev, S, R, V);
    double *want_lse = xmalloc(2 * (size_t)R + 3 * (size_t)S, sizeof(double));
    double *const plain_lse = want_lse + R, *const want = plain_lse + R;
    double *const plain = want + S, *const want_raw = plain + S;
    ibuf_read(&greedy);
    for (int r = 0; r < R; r++) {
        const double *x = logits.host + (size_t)r * (size_t)V;
        int best = 0;
        double sum = 0;
        float sum_f32 = 0;
        for (int v = 1; v < V; v++) {
            best = x[v] > x[best] ? v : best; // bf16 rows hold true ties; the first one stays
        }
        for (int v = 0; v < V; v++) {
            sum += exp(x[v] - x[best]);
            sum_f32 += expf((float)x[v] - (float)x[best]);
        }
        EXPECT(greedy.host[r] == best, "row %d: greedy %d, want %d", r, greedy.host[r], best);
        want_lse[r] = x[best] + log(sum);
        plain_lse[r] = (double)((float)x[best] + logf(sum_f32));
    }
    for (int s = 0; s < S; s++) {
        const int r = row.host[s];
        want_raw[s] = logits.host[(size_t)r * (size_t)V + (size_t)token.host[s]];
        want[s] = want_raw[s] - want_lse[r];
        plain[s] = (double)((float)want_raw[s] - (float)plain_lse[r]);
    }
    expect_exact("raw", buf_read(&raw), want_raw, (size_t)S);
    expect_sum("lse", buf_read(&lse), want_lse, plain_lse, (size_t)R);
    expect_sum("logprob", buf_read(&logprob), want, plain, (size_t)S);
    free(want_lse);
    IntBuf *const ints[] = {&row, &token, &rows, &tokens, &greedy};
    Buf *const bufs[] = {&logits, &raw, &logprob, &lse};
    for (int i = 0; i < 5; i++) {
        ibuf_free(ints[i]);
    }
    for (int i = 0; i < 4; i++) {
        buf_free(bufs[i]);
    }
}

// One row, one pick; returns the greedy token.
static int greedy_of(const double *x, int V, double *logprob_out) {
    Buf logits = buf_from(DT_F32, x, (size_t)V), raw = buf_fill(DT_F32, 1, NAN);
    Buf logprob = buf_fill(DT_F32, 1, NAN), lse = buf_fill(DT_F32, 1, NAN);
    IntBuf zero = ibuf_fill(1, 0), greedy = ibuf_fill(1, -7);
    check_ops()->label_logprob(check_device(), DT_F32, buf_f32(&raw), buf_f32(&logprob),
                               greedy.dev, buf_f32(&lse), logits.dev, zero.dev, zero.dev, 1, 1, V);
    *logprob_out = buf_read(&logprob)[0];
    const int token = ibuf_read(&greedy)[0];
    buf_free(&logits);
    buf_free(&raw);
    buf_free(&logprob);
    buf_free(&lse);
    ibuf_free(&zero);
    ibuf_free(&greedy);
    return token;
}

TEST_OP(label_logprob) {
    static const int shapes[][3] = {{1, 1, 1}, {1, 3, 2}, {5, 1, 17}, {12, 4, 1024}, {9, 3, 4099},
                                    {3, 2, 16400}};
    Rng rng = check_rng(0);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < 6; i++) {
            const int S = shapes[i][0], R = shapes[i][1], V = shapes[i][2];
            if (CASE("S=%d R=%d V=%d t=%s", S, R, V, dtype_name(t))) {
                values_case(t, S, R, V, &rng);
            }
        }
    }
    if (CASE("ties go to the lower token, in every lane and block")) {
        enum { V = 9000 };
        double *x = xcalloc(V, sizeof *x), logprob;
        x[8999] = x[1500 + 4096] = x[1500] = 1;
        EXPECT(greedy_of(x, V, &logprob) == 1500, "three blocks");
        x[17] = x[19] = x[3] = 1;
        EXPECT(greedy_of(x, V, &logprob) == 3, "three lanes");
        for (int v = 0; v < V; v++) {
            x[v] = v % 2 ? 0.0 : -0.0;
        }
        EXPECT(greedy_of(x, V, &logprob) == 0, "signed zeros are equal");
        const double want = -log(V);
        expect_within("uniform", &logprob, &want, 1, 1e-6);
        free(x);
    }
    if (CASE("masked tokens")) {
        const double x[] = {-INFINITY, -5, -INFINITY};
        double logprob;
        EXPECT(greedy_of(x, 3, &logprob) == 1, "the only token left");
        EXPECT(logprob == -INFINITY, "a masked token has log-probability %g", logprob);
    }
    if (CASE("NaN is passed over")) {
        const double x[] = {NAN, -5, NAN, -INFINITY, NAN, NAN};
        double logprob;
        EXPECT(greedy_of(x, 3, &logprob) == 1, "the only number");
        EXPECT(isnan(logprob), "beside NaN a log-probability is %g", logprob);
        EXPECT(greedy_of(x + 2, 3, &logprob) == 1, "-inf is a number");
        EXPECT(greedy_of(x + 4, 2, &logprob) == 0, "nothing but NaN");
    }
}
