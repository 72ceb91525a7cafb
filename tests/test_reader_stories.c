// test_reader_stories: the reader's language model with real trained weights from their folder:
// stories260K, a small Llama that tells stories. Source: karpathy/llama2.c; the expected text is
// that of its documentation, the logits were computed in double precision.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/hub_reader.h"
#include "tests/check.h"
#include "tests/reader_check.h"

enum { VOCABULARY = 512 };

static int largest_of(const float *row) {
    int best = 0;
    for (int v = 1; v < VOCABULARY; v++) {
        best = row[v] > row[best] ? v : best;
    }
    return best;
}

// With half the smallest gap between the best and the second logit as bound, greedy choices follow.
static void expect_logits(const json_t *gold, const float *logits, double bound) {
    const char *position;
    const json_t *row;
    int rows = 0;
    json_object_foreach((json_t *)json_object_get(gold, "logits"), position, row) {
        const float *ours = logits + (size_t)atoi(position) * VOCABULARY;
        double worst = 0;
        for (int v = 0; v < VOCABULARY; v++) {
            const double gold_v = json_number_value(json_array_get(row, (size_t)v));
            worst = check_worst(worst, fabs(ours[v] - gold_v));
        }
        EXPECT(worst <= bound, "logits at %s are off by %g, allowed %g", position, worst, bound);
        rows++;
    }
    EXPECT(rows >= 9, "%d rows of logits", rows);
}

TEST(reader_stories) {
    const char *dir = check_data("weights/stories260k"),
               *expected = check_data("weights/stories260k/gold.json");
    if (!dir || !expected) {
        return;
    }
    json_t *gold;
    error_die(expected, json_read_new(&gold, expected, 1 << 20));
    const json_t *greedy = json_object_get(gold, "greedy_ids");
    const int T = (int)json_array_size(greedy) - 1;
    int32_t ids[512], wanted[512];
    CHECK(T >= 1 && T < 512, "T=%d", T);
    for (int t = 0; t <= T; t++) {
        ids[t] = (int32_t)json_integer_value(json_array_get(greedy, (size_t)t));
        wanted[t] = t;
    }
    HubFolder folder;
    ReaderConfig config;
    SafeStore store;
    Reader *reader;
    error_die(dir, hub_open_new(&folder, dir));
    error_die(dir, hub_reader_config(&config, folder.family, folder.config));
    error_die(dir, hub_reader_new(&reader, &store, check_device(), DT_F32, &config,
                                  folder.weights, false, true));
    EXPECT(config.V == VOCABULARY && device_bytes_in_use(check_device()) == 0,
           "V=%d, %zu bytes beside the mapped file", config.V,
           device_bytes_in_use(check_device()));
    ReaderBatch batch = reader_batch_new();
    reader_batch_add(&batch, &config, ids, T, NULL, 0, wanted, T);
    float *logits = reader_logits_new(reader, &batch);
    for (int t = 0; t < T; t++) {
        const int best = largest_of(logits + (size_t)t * VOCABULARY);
        EXPECT(best == ids[t + 1], "after %d tokens comes %d, not %d", t + 1, best, ids[t + 1]);
    }
    const json_t *gap = json_object_get(gold, "smallest_gap_between_best_and_second_logit");
    expect_logits(gold, logits, json_number_value(gap) / 2);
    free(logits);
    reader_batch_free(&batch);
    reader_free(reader);
    safestore_free(&store);
    hub_free(&folder);
    json_decref(gold);
}
