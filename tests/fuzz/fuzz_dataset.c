// fuzz_dataset: rows of a corpus, of a task, of records in ShareGPT's form, and of the list of rows
// left out of an index. Accepted by one of them is accepted.
#include "fuzz.h"
#include "host/dataset_files.h"
#include "host/sharegpt.h"
#include "host/skipped.h"

FUZZ(dataset) {
    static const char *const classes[] = {"yes", "no"};
    static const DatasetReading readings[] = {
        {.max_bad_lines = 0},
        {.max_bad_lines = 1 << 30, .is_utf8_strict = true, .is_multi_label = true}};
    bool is_accepted = false;
    for (int i = 0; i < 2; i++) {
        Dataset *corpus = dataset_new(), *task = dataset_new();
        dataset_set_classes(task, classes, 2);
        const bool is_corpus =
            fuzz_accepts(dataset_parse_corpus(corpus, "fuzz", data, size, &readings[i]));
        const bool is_task =
            fuzz_accepts(dataset_parse_task(task, "fuzz", data, size, &readings[i]));
        is_accepted = is_accepted || (i == 0 && (is_corpus || is_task));
        is_accepted = fuzz_accepts(skipped_parse(data, size, corpus)) || is_accepted;
        dataset_hash(corpus);
        dataset_hash(task);
        dataset_link_groups((Dataset *[]){corpus, task}, 2);
        dataset_free(corpus);
        dataset_free(task);
    }
    Sharegpt records; // freed after an error, too
    const Error error =
        sharegpt_parse_new(&records, dataset_new(), dataset_new(), "fuzz", data, size);
    sharegpt_free(&records);
    return fuzz_accepts(error) || is_accepted;
}
