// Tests of host/config: precedence, every kind of problem with its place, and a dump that reads
// back.
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/config.h"
#include "host/dataset.h"
#include "host/file.h"
#include "host/processor.h"
#include "models/reader.h"

static ConfigProblems read_yaml(Config *config, const char *text) {
    ConfigProblems problems = {0};
    config_init(config);
    config_read_yaml(config, &problems, "f.yaml", text, strlen(text));
    return problems;
}

TEST(config_values) {
    Config config;
    ConfigProblems problems = read_yaml(&config, "seed: 7\n"
                                                 "run: {dir: a b/c, start: resume}\n"
                                                 "retriever.lr: 1e-4\n"
                                                 "retriever:\n  k: 0x20\n  share: 1\n"
                                                 "classes: ['yes', \"no\", 0]\n"
                                                 "evaluate.oracle_at: [1, 2, 50]\n"
                                                 "exact.wd1: true\n"
                                                 "image:\n"
                                                 "limits.max_array_bytes: 5000000000\n");
    EXPECT(problems.count == 0, "%s", problems.lines[0]);
    config_override(&config, &problems, "retriever.k=5");
    config_override(&config, &problems, "retriever.k=6");
    config_override(&config, &problems, "question=is it: a=b? null");
    config_override(&config, &problems, "evaluate.rerankers=[a, 'b c']");
    EXPECT(problems.count == 0, "%s", problems.lines[0]);
    EXPECT(config.seed == 7 && config.run.start == KEY_START_RESUME, "seed=%d", config.seed);
    EXPECT(strcmp(config.run.dir, "a b/c") == 0, "%s", config.run.dir);
    EXPECT(config.retriever.lr == 1e-4 && config.retriever.k == 6, "k=%d", config.retriever.k);
    EXPECT(config.retriever.share == 1, "an integer is a number");
    EXPECT(config.classes.count == 3 && strcmp(config.classes.items[1], "no") == 0 &&
               strcmp(config.classes.items[2], "0") == 0,
           "classes=%d", config.classes.count);
    EXPECT(config.evaluate.oracle_at.count == 3 && config.evaluate.oracle_at.items[2] == 50,
           "ints");
    EXPECT(strcmp(config.question, "is it: a=b? null") == 0, "%s", config.question);
    EXPECT(strcmp(config.evaluate.rerankers.items[1], "b c") == 0, "texts");
    EXPECT(config.limits.max_array_bytes == 5000000000, "64-bit size");
    EXPECT(config_is_set(&config, "seed") && !config_is_set(&config, "threads"), "is_set");
    EXPECT(config.reader.lora_rank == 8 && config.retriever.temperature == 0.02, "defaults");

    // The dump gives the same values, and the same dump again.
    char *dump = config_dump_new(&config), *again;
    Config copy;
    ConfigProblems none = read_yaml(&copy, dump);
    EXPECT(none.count == 0, "%s", none.lines[0]);
    again = config_dump_new(&copy);
    EXPECT(strcmp(dump, again) == 0, "%s\n---\n%s", dump, again);
    EXPECT(strcmp(copy.question, config.question) == 0 && copy.retriever.k == 6, "values");
    free(dump), free(again);
    config_free(&config), config_free(&copy);
}

TEST(config_dump_of_odd_texts) {
    const char *texts[] = {
        "",     "no",  "1e-4", "null", "a: b", "#x", "\"q\" \\", "tab\tnew\nline", "~", "true",
        "0x10", "- a", "é ß",  " x ",  "[a]",  ".5", "\x01"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Config config, copy;
        config_init(&config);
        free((void *)(uintptr_t)config.question);
        config.question = xstrdup(texts[i]);
        config.retriever.temperature = 0.1 + 0.2 * (double)i;
        char *dump = config_dump_new(&config);
        ConfigProblems problems = read_yaml(&copy, dump);
        EXPECT(problems.count == 0, "%s", problems.lines[0]);
        EXPECT(strcmp(copy.question, texts[i]) == 0, "'%s' became '%s'", texts[i], copy.question);
        EXPECT(copy.retriever.temperature == config.retriever.temperature, "0.1 + 0.2 * %zu", i);
        free(dump);
        config_problems_free(&problems);
        config_free(&config), config_free(&copy);
    }
}

TEST(config_problems) {
    const struct {
        const char *text, *want;
    } cases[] = {
        {"retreiver.lr: 1\n",
         "f.yaml:1:1: unknown key 'retreiver.lr'; did you mean 'retriever.lr'"},
        {"retreiver: {lr: 1}\n", "f.yaml:1:1: unknown key 'retreiver'; did you mean 'retriever'"},
        {"temprature: 1\n", "f.yaml:1:1: unknown key 'temprature'"},
        {"refresh: 1\n", "did you mean 'retriever.refresh'"},
        {"reader: {lr: fast}\n", "f.yaml:1:10: reader.lr: wants a number, got 'fast'"},
        {"seed: 1.5\n", "seed: wants an integer, got '1.5'"},
        {"seed: '1'\n", "seed: wants an integer, got the text '1'"},
        {"seed: -1\n", "seed: -1 is outside 0 .. 2147483647"},
        {"retriever.lr: .nan\n", "retriever.lr: .nan is outside"},
        {"seed: 99999999999999999999\n", "seed: wants an integer"},
        {"seed:\n", "seed: has no value"},
        {"seed: [1]\n", "seed: wants one value, got a list"},
        {"seed: {a: 1}\n", "seed: wants one value, got keys below it"},
        {"classes: yes\n", "classes: wants a list, [a, b]"},
        {"classes: [a, null]\n", "classes: item 2 has no value"},
        {"evaluate.oracle_at: [1, 0]\n", "0 is outside 1 .. 1024"},
        {"run.start: maybe\n", "run.start: wants new|resume|overwrite, got 'maybe'"},
        {"run.start: ne\n", "got 'ne'"},
        {"exact.all: yes\n", "exact.all: wants true or false, got 'yes'"},
        {"reader: 5\n", "'reader' is a section"},
        {"reader.lora_dropout: 0.1\n", "reader.lora_dropout: dropout is not supported"},
        {"reader.dtype: int8\n", "quantised weights are not supported"},
        {"reader.dtype: f8\n", "wants f32|bf16|f16, got 'f8'"},
        {"reader.use_dora: true\n", "DoRA is not supported"},
        {"retriever.loss: loop\n", "leave-one-out evidence is not built"},
        {"retriever.loss: adist\n", "attention evidence is not built"},
        {"a: 'x\n", "f.yaml:2:1: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%.30s", cases[i].text)) {
            Config config;
            log_set_level(LOG_ERROR);
            ConfigProblems problems = read_yaml(&config, cases[i].text);
            const char *got = problems.count ? problems.lines[0] : "(no problem)";
            EXPECT(strstr(got, cases[i].want), "got '%s', wanted '%s'", got, cases[i].want);
            int set = 0;
            for (int k = 0; k < CONFIG_COUNT; k++) {
                set += config.is_set[k];
            }
            EXPECT(set == 0, "%d keys were set by a bad file", set);
            config_problems_free(&problems);
            config_free(&config);
        }
    }
}

TEST(config_duplicate_keys) {
    const struct {
        const char *text, *want;
    } cases[] = {
        {"seed: 1\nseed: 2\n", "f.yaml:2:1: duplicate key 'seed', first in line 1"},
        {"reader.lr: 1\nreader: {lr: 2}\n",
         "f.yaml:2:10: duplicate key 'reader.lr', first in line 1"},
        {"reader: {lr: 1}\nreader: {clip: 2}\n",
         "f.yaml:2:1: duplicate key 'reader', first in line 1"},
    };
    for (int i = 0; i < 3; i++) {
        Config config;
        log_set_level(LOG_ERROR);
        ConfigProblems problems = read_yaml(&config, cases[i].text);
        EXPECT(problems.count == 1 && strcmp(problems.lines[0], cases[i].want) == 0,
               "%d problems: %s", problems.count, problems.count ? problems.lines[0] : "");
        config_problems_free(&problems);
        config_free(&config);
    }
}

TEST(config_lists_all_problems) {
    Config config;
    ConfigProblems problems = read_yaml(&config, "sede: 1\nthreads: 2\nreader: {lr: -1, rnak: 2}\n"
                                                 "nothing: {like: 1, this: 2}\n");
    EXPECT(problems.count == 4, "%d problems", problems.count);
    EXPECT(config.threads == 2, "good keys are set beside bad ones");
    config_override(&config, &problems, "seed");
    config_override(&config, &problems, "classes=a");
    config_override(&config, &problems, "classes=[a");
    config_override(&config, &problems, "seed=");
    EXPECT(problems.count == 8, "%d problems", problems.count);
    config_problems_free(&problems);
    config_free(&config);
}

TEST(config_exact_all) {
    Config config;
    ConfigProblems problems = read_yaml(&config, "exact: {all: true, fusion: false}\n");
    config_finish(&config);
    EXPECT(problems.count == 0, "%s", problems.lines[0]);
    EXPECT(config.exact.wd1 && config.exact.retina6, "set by exact.all");
    EXPECT(!config.exact.fusion, "an explicit key wins");
    config_free(&config);
}

// These choices are used as enumerators of other modules.
TEST(config_choices_agree) {
    EXPECT((int)KEY_F32 == (int)DT_F32 && (int)KEY_BF16 == (int)DT_BF16 &&
               (int)KEY_F16 == (int)DT_F16,
           "DType");
    EXPECT((int)KEY_LEVEL_ERROR == (int)LOG_ERROR && (int)KEY_LEVEL_DEBUG == (int)LOG_DEBUG,
           "LogLevel");
    EXPECT((int)KEY_BAD_IMAGE_FAIL == (int)BAD_IMAGE_FAIL &&
               (int)KEY_BAD_IMAGE_SKIP == (int)BAD_IMAGE_SKIP &&
               (int)KEY_BAD_IMAGE_BLANK == (int)BAD_IMAGE_BLANK,
           "BadImage");
}

// Any damage to a good file gives values or problems, never a crash.
TEST(config_damaged) {
    Config config;
    config_init(&config);
    char *dump = config_dump_new(&config);
    config_free(&config);
    const size_t size = strlen(dump);
    Rng rng = check_rng(0);
    log_set_level(LOG_ERROR);
    for (int i = 0; i < 300; i++) {
        char *bad = xmalloc(size, 1); // exact size: the sanitizer sees a read behind the end
        memcpy(bad, dump, size);
        for (int k = 0; k < 3; k++) {
            bad[rng_below(&rng, (uint32_t)size)] = (char)rng_below(&rng, 256);
        }
        ConfigProblems problems = {0};
        config_init(&config);
        config_read_yaml(&config, &problems, "f", bad,
                         i % 2 ? size : rng_below(&rng, (uint32_t)size));
        config_problems_free(&problems);
        config_free(&config);
        free(bad);
    }
    free(dump);
}

// Every row of the paper has its file, and every file is one that this version understands.
TEST(config_paper_files) {
    char **names;
    int count;
    error_die("configs/paper", file_list_new(&names, &count, "configs/paper"));
    for (int i = 0; i < count; i++) {
        if (!CASE("%s", names[i])) {
            continue;
        }
        char *path = file_join_new("configs/paper", names[i]);
        FileBytes text;
        error_die(path, file_read_new(&text, path, 1 << 16));
        Config config;
        ConfigProblems problems = {0};
        config_init(&config);
        config_read_yaml(&config, &problems, path, text.data, text.size);
        config_finish(&config);
        EXPECT(problems.count == 0, "%s", problems.count ? problems.lines[0] : "");
        if (strncmp(names[i], "reader_", 7) == 0) {
            const int passes = config.reader.batch / config.reader.micro_batch;
            EXPECT(passes == 8 && config.reader.batch % 8 == 0 && config.reader.steps == 2160 &&
                       config.reader.warmup == 216 && config.reader.lr == 1e-4 &&
                       config.reader.lora_rank == 8 && config.reader.lora_alpha == 16,
                   "not the settings of the original");
            EXPECT(config.question[0] || config.reader.open_answers, "whose question?");
            EXPECT(config.classes.count >= 2, "%d classes", config.classes.count);
            ReaderConfig reader;
            ProcessorConfig processor;
            EXPECT(reader_preset(&reader, config.reader.preset) &&
                       processor_preset(config.reader.processor, &processor), "no such reader");
        }
        config_problems_free(&problems);
        config_free(&config);
        file_bytes_free(&text);
        free(path);
    }
    if (CASE("every reader with every data set")) {
        int readers = 0;
        for (int i = 0; i < count; i++) {
            readers += strncmp(names[i], "reader_", 7) == 0;
        }
        EXPECT(readers == 16, "%d files", readers);
    }
    file_list_free(names, count);
}
