// Tests of the sampler: orders of an independent script for one seed, shares of classes, resume.
#include "host/sampler.h"

#include <jansson.h>
#include <stdlib.h>

#include "tests/check.h"

typedef enum { PLAIN, BALANCED, MIN_CLASS } Order;

static Sampler *open_order(Order order, const int *label, int n, int C, uint64_t seed) {
    return order == PLAIN      ? sampler_new(n, seed)
           : order == BALANCED ? sampler_balanced_new(label, n, C, seed)
                               : sampler_min_class_new(label, n, C, seed);
}

static void vectors_case(Order order, const char *name) {
    json_error_t error;
    json_t *const root = json_load_file(check_fixture("vectors_method.json"), 0, &error);
    CHECK(root, "vectors_method.json: %s", error.text);
    const json_t *const section = json_object_get(root, "sampler");
    const json_t *const labels = json_object_get(section, "labels");
    const uint64_t seed = (uint64_t)json_integer_value(json_object_get(section, "seed"));
    int label[64];
    const int n = (int)json_array_size(labels);
    CHECK(n >= 1 && n <= 64, "n=%d", n);
    for (int i = 0; i < n; i++) {
        label[i] = (int)json_integer_value(json_array_get(labels, (size_t)i));
    }
    Sampler *const sampler = open_order(order, label, n, 3, seed);
    const json_t *const epochs = json_object_get(section, name), *epoch;
    EXPECT(json_array_size(epochs) == 3, "%s: %zu epochs", name, json_array_size(epochs));
    size_t e;
    json_array_foreach(epochs, e, epoch) {
        const int size = sampler->epoch_size;
        EXPECT((int)json_array_size(epoch) == size, "epoch of %d", size);
        for (int i = 0; i < size; i++) {
            const int want = (int)json_integer_value(json_array_get(epoch, (size_t)i));
            const int got = sampler_item(sampler, (int64_t)e * size + i);
            EXPECT(got == want, "%s epoch %zu place %d: %d, want %d", name, e, i, got, want);
        }
    }
    sampler_free(sampler);
    json_decref(root);
}

// Labels of a data set given how many samples each class has; caller frees.
static int *labels_new(const int *count, int C, int *n) {
    *n = 0;
    for (int c = 0; c < C; c++) {
        *n += count[c];
    }
    int *const label = xmalloc((size_t)*n, sizeof *label);
    for (int c = 0, i = 0; c < C; c++) {
        for (int k = 0; k < count[c]; k++) {
            label[i++] = c;
        }
    }
    return label;
}

// Epoch sizes of the original: classes times the rarest class.
static void min_class_case(const int *count, int C, int want) {
    int n;
    int *const label = labels_new(count, C, &n);
    Sampler *const sampler = sampler_min_class_new(label, n, C, 10);
    EXPECT(sampler->epoch_size == want, "epoch of %d, want %d", sampler->epoch_size, want);
    int *const seen = xcalloc((size_t)n, sizeof *seen);
    for (int p = 0; p < sampler->epoch_size; p++) {
        const int i = sampler_item(sampler, p);
        EXPECT(label[i] == p % C, "place %d has class %d", p, label[i]);
        EXPECT(!seen[i]++, "sample %d twice", i);
    }
    free(seen);
    free(label);
    sampler_free(sampler);
}

TEST(sampler_min_class) {
    static const int breast[] = {147, 399}, retina[] = {486, 128, 206, 194, 66};
    static const int derma[] = {228, 359, 769, 80, 779, 4693, 99};
    if (CASE("breast")) {
        min_class_case(breast, 2, 294);
    }
    if (CASE("retina")) {
        min_class_case(retina, 5, 330);
    }
    if (CASE("derma")) {
        min_class_case(derma, 7, 560);
    }
    if (CASE("classes without samples take no turn")) {
        const int label[] = {7, 2, 7, 2, 2};
        Sampler *const sampler = sampler_min_class_new(label, 5, 9, 1);
        EXPECT(sampler->C == 2 && sampler->epoch_size == 4, "C=%d, epoch of %d", sampler->C,
               sampler->epoch_size);
        for (int p = 0; p < 4; p++) {
            EXPECT(label[sampler_item(sampler, p)] == (p % 2 ? 7 : 2), "place %d", p);
        }
        sampler_free(sampler);
    }
}

// Every item once per epoch, and another order in the next.
static void plain_case(void) {
    enum { N = 57 };
    Sampler *const sampler = sampler_new(N, check_seed());
    int seen[N] = {0}, moved = 0;
    for (int p = 0; p < N; p++) {
        seen[sampler_item(sampler, p)]++;
    }
    for (int p = 0; p < N; p++) {
        const int first = sampler_item(sampler, p);
        moved += sampler_item(sampler, p + N) != first;
    }
    for (int i = 0; i < N; i++) {
        EXPECT(seen[i] == 1, "sample %d appears %d times", i, seen[i]);
    }
    EXPECT(moved > N / 2, "epochs differ in %d places of %d", moved, N);
    sampler_free(sampler);
}

static void balanced_case(void) {
    static const int count[] = {3, 40, 200};
    int n, total[3] = {0};
    int *const label = labels_new(count, 3, &n);
    Sampler *const sampler = sampler_balanced_new(label, n, 3, 3);
    int *const seen = xcalloc((size_t)n, sizeof *seen);
    EXPECT(sampler->epoch_size == n, "epoch of %d", sampler->epoch_size);
    for (int p = 0; p < n; p++) {
        const int i = sampler_item(sampler, p);
        total[label[i]]++;
        seen[i]++;
    }
    EXPECT(total[0] == 81 && total[1] == 81 && total[2] == 81, "%d %d %d", total[0], total[1],
           total[2]);
    for (int i = 0; i < n; i++) { // 81 = 27 * 3 = 2 * 40 + 1; 81 of 200 at most once
        const bool is_even = label[i] == 0   ? seen[i] == 27
                             : label[i] == 1 ? seen[i] == 2 || seen[i] == 3
                                             : seen[i] <= 1;
        EXPECT(is_even, "sample %d of class %d appears %d times", i, label[i], seen[i]);
    }
    free(seen);
    free(label);
    sampler_free(sampler);
}

TEST(sampler_orders) {
    static const char *const names[] = {"plain", "balanced", "min_class"};
    for (Order order = PLAIN; order <= MIN_CLASS; order++) {
        if (CASE("vectors, %s", names[order])) {
            vectors_case(order, names[order]);
        }
    }
    if (CASE("plain epochs are permutations, and differ")) {
        plain_case();
    }
    if (CASE("balanced: equal shares, every class gone through evenly")) {
        balanced_case();
    }
    // What stands at a position depends on it alone: runs resume, ranks take what is theirs.
    for (Order order = PLAIN; order <= MIN_CLASS; order++) {
        if (CASE("any position at any time, %s", names[order])) {
            enum { N = 23, END = 200 };
            int label[N], forward[END];
            for (int i = 0; i < N; i++) {
                label[i] = i % 4 ? 0 : 1;
            }
            Sampler *const sampler = open_order(order, label, N, 2, 5);
            for (int p = 0; p < END; p++) {
                forward[p] = sampler_item(sampler, p);
            }
            for (int p = END - 1; p >= 0; p -= 7) {
                Sampler *const resumed = open_order(order, label, N, 2, 5);
                EXPECT(sampler_item(resumed, p) == forward[p], "resumed at %d", p);
                EXPECT(sampler_item(sampler, p) == forward[p], "back at %d", p);
                sampler_free(resumed);
            }
            sampler_free(sampler);
        }
    }
}
