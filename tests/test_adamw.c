// Tests of adamw: against a double loop over several steps, in every storage type.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static const AdamWConfig usual = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f};

// The device's count, as it stands before the call.
static IntBuf count_new(int step, int skipped) {
    return ibuf_from((const int32_t[]){step, skipped}, 2);
}
static void expect_count(IntBuf *count, int step, int skipped) {
    ibuf_read(count);
    EXPECT(count->host[0] == step && count->host[1] == skipped, "step %d, skipped %d",
           count->host[0], count->host[1]);
}

// Spans decay by a pattern that changes at every place where code may group them.
static bool decays_at(size_t i) {
    const size_t span = i / DECAY_SPAN;
    return span % 3 != 1 && span != 64;
}
static IntBuf decays_new(size_t n) {
    const size_t spans = (n + DECAY_SPAN - 1) / DECAY_SPAN, words = (spans + 3) / 4;
    int32_t *flags = xcalloc(words, sizeof *flags);
    for (size_t s = 0; s < spans; s++) {
        ((uint8_t *)flags)[s] = decays_at(s * DECAY_SPAN) ? 2 : 0; // any byte but 0
    }
    IntBuf buf = ibuf_from(flags, words);
    free(flags);
    return buf;
}

// The textbook update in double. `size` collects the magnitudes that are added up in each element
// of w and m, so that a bound in units of rounding can be stated although the terms may cancel.
typedef struct {
    double w, m, v, w_size, m_size;
} Element;

static void update_f64(Element *x, double g, const AdamWConfig *c, int step, bool decays) {
    const double lr = (double)c->lr, b1 = (double)c->beta1, b2 = (double)c->beta2;
    x->m_size = fabs(b1 * x->m) + fabs((1 - b1) * g);
    x->m = b1 * x->m + (1 - b1) * g;
    x->v = b2 * x->v + (1 - b2) * g * g;
    const double m_hat = x->m / (1 - pow(b1, step)), v_hat = x->v / (1 - pow(b2, step));
    const double delta = lr * m_hat / (sqrt(v_hat) + (double)c->eps);
    const double kept = x->w * (1 - (decays ? lr * (double)c->weight_decay : 0));
    x->w = kept - delta;
    x->w_size = fabs(kept) + fabs(delta) * (1 + x->m_size / (fabs(x->m) + 1e-300));
}

// One step from random state: no error is carried in, so each output is a few roundings away.
// shift: elements by which all tensors begin behind a multiple of 16 bytes.
static void step_case(DType t, size_t n, int step, bool has_more, size_t shift, Rng *rng) {
    const size_t all = n + shift;
    Buf master = buf_normal(DT_F32, all, 1, rng), m = buf_normal(DT_F32, all, 0.1, rng);
    Buf v = buf_normal(DT_F32, all, 0.1, rng), grad = buf_normal(DT_F32, all, 0.3, rng);
    for (size_t i = 0; i < all; i++) {
        v.host[i] = fabs(v.host[i]);
    }
    buf_write(&v);
    const double factor = 0.375; // exact in f32
    Buf scale = buf_from(DT_F32, &factor, 1), param = buf_fill(t, all, 7);
    IntBuf count = count_new(step - 1, 3), decays = decays_new(n);
    Element *want = xcalloc(all, sizeof *want);
    for (size_t i = 0; i < all; i++) {
        want[i] = (Element){.w = master.host[i], .m = m.host[i], .v = v.host[i]};
        if (i >= shift) {
            update_f64(&want[i], grad.host[i] * (has_more ? factor : 1), &usual, step,
                       !has_more || decays_at(i - shift));
        }
    }
    check_ops()->adamw(check_device(), t, dtype_at(t, param.dev, shift), buf_f32(&master) + shift,
                       buf_f32(&m) + shift, buf_f32(&v) + shift, (AdamWCount *)count.dev,
                       buf_f32(&grad) + shift, has_more ? buf_f32(&scale) : NULL,
                       has_more ? (uint8_t *)decays.dev : NULL, n, &usual);
    buf_read(&master);
    buf_read(&m);
    buf_read(&v);
    buf_read(&param);
    expect_count(&count, step, 0);
    const double unit = ldexp(1, -24); // one rounding, relative
    for (size_t i = 0; i < all; i++) {
        double rounded;
        dtype_store(t, &rounded, 0, (float)master.host[i]);
        const double in_t = i < shift ? 7 : (double)dtype_load(t, &rounded, 0);
        // Roundings on the way: m 3, v 4; the step adds quotient, root, division, eps and product.
        const bool is_right = fabs(m.host[i] - want[i].m) <= 3 * unit * want[i].m_size &&
                              fabs(v.host[i] - want[i].v) <= 4 * unit * want[i].v &&
                              fabs(master.host[i] - want[i].w) <= 10 * unit * want[i].w_size &&
                              param.host[i] == in_t;
        EXPECT(is_right, "[%zu]: w %.9g for %.9g, m %.9g for %.9g, v %.9g for %.9g, param %.9g", i,
               master.host[i], want[i].w, m.host[i], want[i].m, v.host[i], want[i].v,
               param.host[i]);
        if (!is_right) {
            break;
        }
    }
    free(want);
    buf_free(&master), buf_free(&m), buf_free(&v), buf_free(&grad);
    buf_free(&scale), buf_free(&param);
    ibuf_free(&count), ibuf_free(&decays);
}

static void many_steps_case(Rng *rng) {
    enum { N = 37, STEPS = 50 };
    Buf w = buf_normal(DT_F32, N, 1, rng), m = buf_fill(DT_F32, N, 0), v = buf_fill(DT_F32, N, 0);
    IntBuf count = count_new(0, 0);
    Element want[N];
    for (int i = 0; i < N; i++) {
        want[i] = (Element){.w = w.host[i]};
    }
    AdamWConfig config = usual;
    for (int step = 1; step <= STEPS; step++) {
        config.lr = step == 1 ? 0 : 1e-2f;
        Buf grad = buf_normal(DT_F32, N, 1, rng);
        for (int i = 0; i < N; i++) {
            update_f64(&want[i], grad.host[i], &config, step, true);
        }
        check_ops()->adamw(check_device(), DT_F32, w.dev, buf_f32(&w), buf_f32(&m), buf_f32(&v),
                           (AdamWCount *)count.dev, buf_f32(&grad), NULL, NULL, N, &config);
        buf_free(&grad);
    }
    buf_read(&w);
    double want_w[N];
    for (int i = 0; i < N; i++) {
        want_w[i] = want[i].w;
    }
    // 50 steps, each a handful of roundings of a number of size about 3.
    expect_within("w after 50 steps", w.host, want_w, N, 50 * 5 * 3 * ldexp(1, -24));
    buf_free(&w), buf_free(&m), buf_free(&v);
    ibuf_free(&count);
}

// A factor that is not finite: one more skipped, and not a bit of anything else moves.
static void skipped_case(double factor, Rng *rng) {
    enum { N = 77 };
    Buf w = buf_normal(DT_F32, N, 1, rng), m = buf_normal(DT_F32, N, 1, rng);
    Buf v = buf_fill(DT_F32, N, 0.5), grad = buf_normal(DT_F32, N, 1, rng);
    Buf scale = buf_from(DT_F32, &factor, 1), param = buf_fill(DT_BF16, N, 3);
    IntBuf count = count_new(5, 2);
    double before[3][N];
    Buf *const same[] = {&w, &m, &v};
    for (int k = 0; k < 3; k++) {
        memcpy(before[k], same[k]->host, sizeof before[k]);
    }
    check_ops()->adamw(check_device(), DT_BF16, param.dev, buf_f32(&w), buf_f32(&m), buf_f32(&v),
                       (AdamWCount *)count.dev, buf_f32(&grad), buf_f32(&scale), NULL, N, &usual);
    expect_count(&count, 5, 3);
    for (int k = 0; k < 3; k++) {
        expect_exact("state", buf_read(same[k]), before[k], N);
    }
    const double one = 3;
    for (int i = 0; i < N; i++) {
        expect_exact("param", buf_read(&param) + i, &one, 1);
    }
    buf_free(&w), buf_free(&m), buf_free(&v), buf_free(&grad), buf_free(&scale), buf_free(&param);
    ibuf_free(&count);
}

TEST_OP(adamw) {
    static const size_t sizes[] = {1, 7, 64, 4097, 50000};
    Rng rng = check_rng(0);
    for (DType t = DT_F32; t < DT_COUNT; t++) {
        for (int i = 0; i < 5; i++) {
            for (int step = 1; step <= 1000; step += 999) {
                if (CASE("n=%zu t=%s step=%d", sizes[i], dtype_name(t), step)) {
                    step_case(t, sizes[i], step, i % 2, 0, &rng);
                }
            }
        }
        if (CASE("n=200 t=%s not aligned", dtype_name(t))) {
            step_case(t, 200, 2, true, 1, &rng);
        }
    }
    if (CASE("fifty steps in place, the first with lr 0")) {
        many_steps_case(&rng);
    }
    if (CASE("a factor that is not finite")) {
        skipped_case(NAN, &rng);
        skipped_case(INFINITY, &rng);
    }
    if (CASE("lr 0 moves the moments only")) {
        const double w0 = 1.25, g0 = 3;
        Buf w = buf_from(DT_F32, &w0, 1), m = buf_fill(DT_F32, 1, 0), v = buf_fill(DT_F32, 1, 0);
        Buf grad = buf_from(DT_F32, &g0, 1);
        IntBuf count = count_new(0, 0);
        AdamWConfig config = usual;
        config.lr = 0;
        config.weight_decay = 1;
        check_ops()->adamw(check_device(), DT_F32, w.dev, buf_f32(&w), buf_f32(&m), buf_f32(&v),
                           (AdamWCount *)count.dev, buf_f32(&grad), NULL, NULL, 1, &config);
        expect_exact("w", buf_read(&w), &w0, 1);
        const double m1 = (1 - (double)0.9f) * g0, v1 = (1 - (double)0.999f) * g0 * g0;
        expect_ulp("m", buf_read(&m), &m1, 1, DT_F32, 2);
        expect_ulp("v", buf_read(&v), &v1, 1, DT_F32, 3);
        buf_free(&w), buf_free(&m), buf_free(&v), buf_free(&grad);
        ibuf_free(&count);
    }
}
