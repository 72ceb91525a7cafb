// prepare: what it writes loads back as what was in the source, splits are clean, and nothing of
// anybody else's is overwritten.
#define _POSIX_C_SOURCE 200809L
#include "host/prepare.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/dataset_files.h"
#include "host/file.h"
#include "host/json.h"
#include "host/png.h"
#include "tests/check.h"

// ---- helpers ----
static char *below(const char *name) { return file_join_new(check_tmpdir(), name); }

static void put(const char *name, const char *text) {
    error_die(name, file_replace(below(name), text, strlen(text)));
}

// A grey picture of one level.
static void put_picture(const char *name, uint8_t level, int width, int height) {
    Image image = image_new(width, height, 1);
    memset(image.data, level, image_bytes(&image));
    size_t size;
    uint8_t *png = png_encode_new(&image, &size);
    error_die(name, file_replace(below(name), png, size));
    free(png);
    image_free(&image);
}

// The configuration of these blank-separated arguments.
static Config configure(const char *const *arguments, int count) {
    Config config;
    ConfigProblems problems = {0};
    config_init(&config);
    for (int i = 0; i < count; i++) {
        config_override(&config, &problems, arguments[i]);
    }
    config_finish(&config);
    EXPECT(problems.count == 0, "%s", problems.count ? problems.lines[0] : "");
    return config;
}

typedef struct {
    Dataset *corpus, *task;
} Loaded;

static Loaded load(const Config *config, const char *const *classes, int C) {
    Loaded loaded = {dataset_new(), dataset_new()};
    const DatasetReading reading = {0};
    Dataset *const sets[] = {loaded.corpus, loaded.task};
    for (int s = 0; s < 2; s++) {
        dataset_set_classes(sets[s], classes, C);
        dataset_set_root(sets[s], prepare_root(config), false);
    }
    dataset_read_corpus(loaded.corpus, file_join_new(config->prepare.dir, "corpus.jsonl"),
                        &reading);
    dataset_read_task(loaded.task, file_join_new(config->prepare.dir, "task.jsonl"), &reading);
    dataset_hash_images(loaded.corpus);
    dataset_hash_images(loaded.task);
    dataset_link_groups(sets, 2);
    return loaded;
}

static void loaded_free(Loaded *loaded) {
    dataset_free(loaded->corpus);
    dataset_free(loaded->task);
}

static const Record *with_id(const Dataset *ds, const char *id) {
    for (int i = 0; i < ds->n; i++) {
        if (strcmp(ds->records[i].id, id) == 0) {
            return &ds->records[i];
        }
    }
    return NULL;
}

// Every training query must share a group with a passage (itself, which it then cannot retrieve),
// and no query of another split may, unless its picture really is in the training split.
static void expect_clean_groups(const Loaded *loaded, int shared_expected) {
    int alone = 0, shared = 0;
    for (int q = 0; q < loaded->task->n; q++) {
        const Record *query = &loaded->task->records[q];
        bool is_met = false;
        for (int d = 0; d < loaded->corpus->n; d++) {
            is_met = is_met || loaded->corpus->records[d].group_id == query->group_id;
        }
        alone += query->split == SPLIT_TRAIN && !is_met;
        shared += query->split != SPLIT_TRAIN && is_met;
    }
    EXPECT(alone == 0, "%d training queries do not know their own passage", alone);
    EXPECT(shared == shared_expected, "%d other queries meet their picture, want %d", shared,
           shared_expected);
}

// ---- pure parts ----
TEST(prepare_takes_evenly) {
    for (int n = 1; n <= 40; n++) {
        for (int most = 0; most <= n + 2; most++) {
            int taken = 0, longest = 0, gap = 0;
            for (int i = 0; i < n; i++) {
                const bool is_taken = prepare_takes(i, n, most);
                taken += is_taken;
                gap = is_taken ? 0 : gap + 1;
                longest = gap > longest ? gap : longest;
            }
            const int want = most == 0 || most > n ? n : most;
            EXPECT(taken == want, "%d of %d, want %d", taken, n, want);
            EXPECT(longest <= (n + want - 1) / want, "%d of %d: %d in a row left out", taken, n,
                   longest);
        }
    }
}

TEST(prepare_split_shares) {
    int counts[SPLIT_COUNT] = {0};
    for (uint64_t i = 0; i < 20000; i++) {
        counts[prepare_split(xxh64(&i, sizeof i, 0))]++;
    }
    // Three standard deviations of 20000 draws are below 200.
    EXPECT(abs(counts[SPLIT_TRAIN] - 14000) < 200, "%d train", counts[SPLIT_TRAIN]);
    EXPECT(abs(counts[SPLIT_VAL] - 2000) < 200, "%d val", counts[SPLIT_VAL]);
    EXPECT(abs(counts[SPLIT_TEST] - 4000) < 200, "%d test", counts[SPLIT_TEST]);
}

// ---- MedMNIST ----
// The real archives: rows, captions and pixels come back; the one picture that breast's splits
// share is counted and linked.
TEST(prepare_medmnist) {
    static const struct {
        const char *file, *classes;
        int C, channels, overlap, met; // met: queries of other splits whose picture is trained on
    } sets[] = {
        {"medical/breast-ultrasound/busi_28_medmnist_form.npz", "classes=[malignant, benign]", 2, 1,
         1, 1},
        {"medical/skin-ham10000/ham_28_medmnist_form.npz", "classes=[a, b, c, d, e, f, g]", 7, 3, 0,
         0},
    };
    for (int s = 0; s < 2; s++) {
        if (!CASE("%s", sets[s].file)) {
            continue;
        }
        const char *file = check_data(sets[s].file);
        if (!file) {
            continue;
        }
        char *source = xformat_new("prepare.source=%s", file);
        char *dir = xformat_new("prepare.dir=%s", below("out"));
        const char *const arguments[] = {source, dir, sets[s].classes,
                                         "prepare.caption=<{class}|{class}>"};
        Config config = configure(arguments, 4);
        const PrepareFacts facts = prepare_run(&config);
        Dataset *original = dataset_new();
        dataset_set_classes(original, (const char *const *)config.classes.items, sets[s].C);
        dataset_read_medmnist(original, file, SIZE_MAX);
        Loaded loaded = load(&config, (const char *const *)config.classes.items, sets[s].C);
        EXPECT(facts.rows == original->n && loaded.task->n == original->n, "%d rows of %d",
               loaded.task->n, original->n);
        EXPECT(facts.overlap == sets[s].overlap, "overlap %d", facts.overlap);
        EXPECT(facts.dropped == 0 && facts.bad_images == 0, "%d dropped", facts.dropped);
        int passages = 0;
        for (int i = 0; i < original->n && i < loaded.task->n; i++) {
            const Record *want = &original->records[i], *got = &loaded.task->records[i];
            Image image;
            EXPECT(got->label == want->label && got->split == want->split, "row %d", i);
            EXPECT(dataset_image(loaded.task, i, &image) &&
                       image_hash(&image) == want->image_hash && image.channels == sets[s].channels,
                   "row %d has other pixels", i);
            image_free(&image);
            if (want->split == SPLIT_TRAIN) {
                const Record *passage = &loaded.corpus->records[passages++];
                char *text = xformat_new("<%s|%s>", want->answer, want->answer);
                EXPECT(strcmp(passage->text, text) == 0, "text '%s', want '%s'", passage->text,
                       text);
                EXPECT(strcmp(passage->path, got->path) == 0, "passage shows '%s'", passage->path);
                free(text);
            }
        }
        EXPECT(passages == facts.passages && passages == loaded.corpus->n, "%d passages", passages);
        expect_clean_groups(&loaded, sets[s].met);
        loaded_free(&loaded);
        dataset_free(original);
        config_free(&config);
    }
}

// ---- VQA-RAD ----
// A small set of the same form: pictures 0..9 with three questions each, and one of the test file
// that shows picture 0 again.
static void put_small_vqa(void) {
    char *train = xstrdup("[");
    error_die("vqa", file_make_directories(below("vqa/images")));
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "vqa/images/%d.png", i);
        put_picture(name, (uint8_t)(20 * i + 5), 40, 20);
        char *more = xformat_new(
            "%s%s{\"qid\":%d,\"image_name\":\"%d.png\",\"question\":\" Is it %d? "
            "\",\"answer\":\"%s\"},"
            "{\"qid\":\"n%d\",\"image_name\":\"%d.png\",\"question\":\"How many\",\"answer\":%d},"
            "{\"qid\":\"c%d\",\"image_name\":\"%d.png\",\"question\":\"Which?\",\"answer\":\"yes, "
            "both\"}",
            train, i ? "," : "", i, i, i, i % 2 ? " YES\\n" : "no", i, i, i, i, i);
        free(train);
        train = more;
    }
    char *whole = xformat_new("%s]", train);
    put("vqa/trainset.json", whole);
    put("vqa/testset.json", "[{\"qid\":90,\"image_name\":\"0.png\",\"question\":\"Is it?\","
                            "\"answer\":\"Yes\"}]");
    free(train);
    free(whole);
}

TEST(prepare_vqa_rad_small) {
    put_small_vqa();
    static const char *const no_yes[] = {"no", "yes"};
    for (int max_side = 0; max_side <= 16; max_side += 16) {
        if (!CASE("max_side=%d", max_side)) {
            continue;
        }
        char *source = xformat_new("prepare.source=%s", below("vqa"));
        char *dir = xformat_new("prepare.dir=%s", below(max_side ? "scaled" : "plain"));
        char *side = xformat_new("prepare.max_side=%d", max_side);
        const char *const arguments[] = {"prepare.format=vqa-rad", source, dir, side};
        Config config = configure(arguments, 4);
        const PrepareFacts facts = prepare_run(&config);
        Loaded loaded = load(&config, no_yes, 2);
        EXPECT(facts.rows == 31 && facts.overlap == 1 && facts.test_images == 1,
               "rows %d overlap %d of %d", facts.rows, facts.overlap, facts.test_images);
        EXPECT(loaded.task->n == 11, "%d queries", loaded.task->n); // 10, and that of the test file
        EXPECT(facts.dropped == 2 * (10 - loaded.corpus->n / 3), "%d dropped, %d passages",
               facts.dropped, loaded.corpus->n);
        const Record *first = with_id(loaded.task, "1");
        EXPECT(first && first->label == 1 && strcmp(first->question, "Is it 1?") == 0, "row 1");
        EXPECT(!with_id(loaded.task, "c1"), "'yes, both' is not yes");
        for (int d = 0; d < loaded.corpus->n; d++) {
            const Record *passage = &loaded.corpus->records[d];
            EXPECT(passage->id[0] != 'n' || strstr(passage->text, "How many ") == passage->text,
                   "text '%s'", passage->text);
        }
        // Splits go by picture.
        for (int q = 0; q < loaded.task->n; q++) {
            Image image;
            EXPECT(dataset_image(loaded.task, q, &image), "query %d has no picture", q);
            EXPECT(image.width == (max_side ? 16 : 40) && image.height == (max_side ? 8 : 20),
                   "picture of %dx%d", image.width, image.height);
            image_free(&image);
        }
        EXPECT(with_id(loaded.task, "0")->split == with_id(loaded.task, "90")->split,
               "picture 0 is split");
        expect_clean_groups(&loaded, 0);
        loaded_free(&loaded);
        config_free(&config);
    }
}

TEST(prepare_vqa_rad) {
    const char *found = check_data("medical/vqa-rad");
    if (!found) {
        return;
    }
    static const char *const no_yes[] = {"no", "yes"};
    char *source = xformat_new("prepare.source=%s", found);
    char *dir = xformat_new("prepare.dir=%s", below("out"));
    const char *const arguments[] = {"prepare.format=vqa-rad", source, dir};
    Config config = configure(arguments, 3);
    const PrepareFacts facts = prepare_run(&config);
    Loaded loaded = load(&config, no_yes, 2);
    EXPECT(facts.overlap > 0 && facts.overlap == facts.test_images,
           "%d of %d test pictures are trained on", facts.overlap, facts.test_images);
    int counts[SPLIT_COUNT] = {0};
    for (int q = 0; q < loaded.task->n; q++) {
        counts[loaded.task->records[q].split]++;
        EXPECT(loaded.task->records[q].label >= 0, "query %d is open", q);
    }
    for (int s = 0; s < SPLIT_COUNT; s++) {
        EXPECT(counts[s] == facts.queries[s] && counts[s] > 0, "split %d: %d queries", s,
               counts[s]);
    }
    EXPECT(loaded.corpus->n == facts.passages && facts.passages > counts[SPLIT_TRAIN],
           "%d passages: open questions are passages too", facts.passages);
    expect_clean_groups(&loaded, 0);
    loaded_free(&loaded);
    config_free(&config);
}

// What prepare writes is what another verb reads, also with a class name of several words.
TEST(prepare_feeds_pretrain) {
    const char *file = check_data("medical/breast-ultrasound/busi_28_medmnist_form.npz");
    if (!file) {
        return;
    }
    char *output, *dir = below("out"), *run = below("run");
    const char *classes = "'classes=[malignant, normal or benign]'";
    int code = check_run(&output,
                         "%s prepare prepare.source=%s prepare.dir=%s prepare.max_rows=9 %s",
                         check_program(), file, dir, classes);
    EXPECT(code == EXIT_OK && strstr(output, "9 passages"), "code %d: %s", code, output);
    free(output);
    code = check_run(
        &output,
        "%s pretrain %s data.root=%s data.corpus=%s/corpus.jsonl data.task=%s/task.jsonl "
        "run.dir=%s pretrain.steps=2 pretrain.batch=4",
        check_program(), classes, dir, dir, dir, run);
    EXPECT(code == EXIT_OK && file_exists(below("run/retriever.safetensors")), "code %d: %s", code,
           output);
    free(output);
}

// ---- again, and by mistake ----
TEST(prepare_replaces_its_own_only) {
    put_small_vqa();
    char *source = xformat_new("prepare.source=%s", below("vqa"));
    char *dir = xformat_new("prepare.dir=%s", below("out"));
    const char *const arguments[] = {"prepare.format=vqa-rad", source, dir, "prepare.max_rows=2"};
    Config config = configure(arguments, 3);
    prepare_run(&config);
    put("out/images.txt", "mine");
    Config fewer = configure(arguments, 4);
    const PrepareFacts facts = prepare_run(&fewer); // an earlier prepare's directory is taken again
    EXPECT(facts.left_out == 31 - facts.passages - (facts.dropped - facts.left_out) -
                                 facts.queries[SPLIT_VAL] - facts.queries[SPLIT_TEST],
           "%d left out of 31, %d passages", facts.left_out, facts.passages);
    EXPECT(facts.passages == 2, "%d passages", facts.passages);
    EXPECT(file_exists(below("out/images.txt")), "a foreign file is gone");
    json_t *marker = NULL;
    error_die("marker", json_read_new(&marker, below("out/prepare.json"), 1 << 20));
    EXPECT(json_is_true(json_object_get(marker, "is_complete")), "not complete");
    EXPECT(json_integer_value(json_object_get(marker, "source_overlap")) == 1 &&
               json_integer_value(json_object_get(marker, "passages")) == 2,
           "facts of the marker");
    json_decref(marker);
    config_free(&config);
    config_free(&fewer);
}

TEST(prepare_misuse) {
    put_small_vqa();
    error_die("dirs", file_make_directories(below("mine")));
    error_die("dirs", file_make_directories(below("bad")));
    put("mine/notes.txt", "keep");
    put("mine/prepare.json", "{\"version\":1,\"format\":5}");
    put("file", "no directory");
    put("bad.npz", "PK\003\004 this is no archive");
    put("bad/trainset.json",
        "[{\"qid\":1,\"image_name\":\"0.png\",\"question\":\"  \",\"answer\":\"no\"}]");
    put("bad/testset.json", "[]");
    static const struct {
        const char *arguments, *says;
        int code;
    } cases[] = {
        {"prepare.dir=T/o", "prepare.source: not set", 78},
        {"prepare.source=T/vqa", "prepare.dir: not set", 78},
        {"prepare.source=T/none.npz prepare.dir=T/o 'classes=[a, b]'", "none.npz", 66},
        {"prepare.source=T/bad.npz prepare.dir=T/o 'classes=[a, b]'", "bad.npz", 65},
        {"prepare.source=T/bad.npz prepare.dir=T/o", "name the labels", 78},
        {"prepare.format=vqa-rad prepare.source=T/none prepare.dir=T/o", "trainset.json", 66},
        {"prepare.format=vqa-rad prepare.source=T/bad prepare.dir=T/o", "row 0: member 'question'",
         65},
        {"prepare.format=vqa-rad prepare.source=T/vqa prepare.dir=T/mine", "not written by prepare",
         73},
        {"prepare.format=vqa-rad prepare.source=T/vqa prepare.dir=T/file/o", "prepare.dir", 73},
        {"prepare.format=vqa-rad prepare.source=T/vqa prepare.dir=T/vqa", "holds prepare.source",
         78},
        {"prepare.format=vqa-rad prepare.source=T/vqa prepare.dir=T", "holds prepare.source", 78},
        {"prepare.format=vqa-rad prepare.source=T/vqa prepare.dir=T/o 'classes=[a, b]'",
         "[no, yes]", 78},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s", cases[i].arguments)) {
            continue;
        }
        char *output, *line = xstrdup("");
        for (const char *c = cases[i].arguments; *c; c++) { // T/ is the temporary directory
            const bool is_dir = *c == 'T' && (c[1] == '/' || c[1] == '\0' || c[1] == ' ');
            char *longer = is_dir ? xformat_new("%s%s", line, check_tmpdir())
                                  : xformat_new("%s%c", line, *c);
            free(line);
            line = longer;
        }
        const int code = check_run(&output, "%s prepare %s", check_program(), line);
        EXPECT(code == cases[i].code, "code %d, want %d: %s", code, cases[i].code, output);
        EXPECT(strstr(output, cases[i].says), "'%s' does not say '%s'", output, cases[i].says);
        const char *error = strstr(output, "error: ");
        EXPECT(error && strchr(error, '\n') == output + strlen(output) - 1, "more than a line: %s",
               output);
        EXPECT(!file_exists(below("o/corpus.jsonl")), "something was written");
        free(output);
        free(line);
    }
    EXPECT(file_exists(below("mine/notes.txt")) && file_exists(below("vqa/trainset.json")),
           "files are gone");
}

// A picture that is not there: fail names it, skip drops its rows and counts them.
TEST(prepare_missing_picture) {
    put_small_vqa();
    unlink(below("vqa/images/3.png"));
    char *output, *source = below("vqa"), *dir = below("out");
    int code = check_run(&output,
                         "%s prepare prepare.format=vqa-rad prepare.source=%s prepare.dir=%s",
                         check_program(), source, dir);
    EXPECT(code == EXIT_NO_INPUT && strstr(output, "3.png"), "code %d: %s", code, output);
    free(output);
    char *set_source = xformat_new("prepare.source=%s", source),
         *set_dir = xformat_new("prepare.dir=%s", dir);
    const char *const arguments[] = {"prepare.format=vqa-rad", set_source, set_dir,
                                     "data.on_bad_image=skip"};
    Config config = configure(arguments, 4);
    const PrepareFacts facts = prepare_run(&config);
    EXPECT(facts.bad_images == 3 && facts.rows == 31, "%d bad of %d", facts.bad_images, facts.rows);
    Loaded loaded = load(&config, (const char *const[]){"no", "yes"}, 2);
    EXPECT(!with_id(loaded.task, "3") && with_id(loaded.task, "4"), "query 3 is there");
    loaded_free(&loaded);
    config_free(&config);
}
