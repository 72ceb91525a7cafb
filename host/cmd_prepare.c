// cmd_prepare: jomed prepare: a public data set becomes corpus.jsonl and task.jsonl.
#include <stdio.h>

#include "prepare.h"
#include "verbs.h"

int cmd_prepare(const Config *config) {
    const char *dir = config->prepare.dir, *source = config->prepare.source;
    if (!source[0] || !dir[0]) {
        die(EXIT_CONFIG, "prepare.%s: not set; name %s", source[0] ? "dir" : "source",
            source[0] ? "the directory to write" : "the data set to read");
    }
    const PrepareFacts facts = prepare_run(config);
    printf("%s: %d rows: %d passages, queries %d train, %d val, %d test; %d rows in neither\n",
           source, facts.rows, facts.passages, facts.queries[SPLIT_TRAIN], facts.queries[SPLIT_VAL],
           facts.queries[SPLIT_TEST], facts.dropped);
    printf("the source's own test pictures: %d, of which its training split has %d\n",
           facts.test_images, facts.overlap);
    printf("read them with data.root=%s data.corpus=%s/corpus.jsonl data.task=%s/task.jsonl\n",
           prepare_root(config), dir, dir);
    return EXIT_OK;
}
