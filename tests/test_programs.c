// programs: every verb end to end on a small task: exit code, files, STATUS, finite losses; and
// that the score store saves work without changing a bit.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { STEPS = 6 }; // of every stage, as the world's c.yaml says

TEST(programs_training_verbs) {
    const struct {
        const char *name, *arguments, *files[3];
    } cases[] = {
        {"pretrain", "pretrain c.yaml", {"retriever.safetensors"}},
        {"pretrain, temperature learned",
         "pretrain c.yaml pretrain.learn_temperature=true",
         {"retriever.safetensors"}},
        {"train-reader, adapter",
         "train-reader c.yaml " TOWERS,
         {"adapter/adapter_model.safetensors", "adapter/adapter_config.json"}},
        {"train-reader, all weights",
         "train-reader c.yaml " TOWERS " reader.all_weights=true",
         {"reader.safetensors"}},
        {"train-reader, pixtral, recomputing",
         "train-reader c.yaml " TOWERS " reader.preset=tiny-pixtral reader.recompute=true",
         {"adapter/adapter_model.safetensors", "adapter/adapter_config.json"}},
        {"train-retriever, text",
         "train-retriever c.yaml " TOWERS,
         {"head.safetensors", "search_head.safetensors", "scores"}},
        {"train-retriever, image",
         "train-retriever c.yaml " TOWERS " retriever.head=image",
         {"head.safetensors", "search_head.safetensors", "scores"}},
    };
    static const char *const always[] = {"argv.txt", "build.json",    "config.resolved.yaml",
                                         "env.json", "log/rank0.log", "trainer_log.jsonl"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s", cases[i].name)) {
            continue;
        }
        char run[16], file[128];
        snprintf(run, sizeof run, "run%zu", i);
        world_with_index();
        program_must_run("%s run.dir=%s", cases[i].arguments, run);
        expect_run(run, "done", STEPS);
        for (size_t f = 0; f < sizeof always / sizeof *always + 3; f++) {
            const size_t own = f - sizeof always / sizeof *always; // wraps for the common ones
            const char *name = f < sizeof always / sizeof *always ? always[f] : cases[i].files[own];
            if (name) {
                snprintf(file, sizeof file, "%s/%s", run, name);
                EXPECT(world_has(file), "%s is not there", file);
            }
        }
        // A run that is done is left as it is.
        snprintf(file, sizeof file, "%s/%s", run, cases[i].files[0]);
        program_must_run("%s run.dir=%s run.start=resume", cases[i].arguments, run);
        expect_run(run, "done", STEPS);
    }
}

// An adapter without the vision tower goes on without it; answers that are no class are taught.
TEST(programs_adapter_choices) {
    world_with_index();
    char *task = world_text_new("task.jsonl");
    for (char *at = task; at && (at = strstr(at, "\"yes\"")); at++) {
        memcpy(at, "\"six\"", 5);
    }
    world_write("task.jsonl", task, strlen(task));
    free(task);
    program_must_run("train-reader c.yaml " TOWERS " run.dir=a reader.lora_vision=false"
                     " reader.use_rslora=true reader.open_answers=true");
    char *config = world_text_new("a/adapter/adapter_config.json");
    EXPECT(config && strstr(config, "visual|vision_tower") &&
               strstr(config, "\"use_rslora\": true"), "%s", config);
    free(config);
    program_must_run("train-reader c.yaml " TOWERS " run.dir=b reader.adapter=a/adapter");
    config = world_text_new("b/adapter/adapter_config.json");
    EXPECT(config && strstr(config, "visual|vision_tower") &&
               strstr(config, "\"use_rslora\": true"), "%s", config);
    free(config);
    char *output;
    int code = program_run(&output, "train-reader c.yaml " TOWERS " run.dir=c "
                                 "reader.adapter=a/adapter reader.lora_vision=true");
    EXPECT(code == EXIT_CONFIG, "code %d", code);
    expect_error_line(output, (const char *[]){"reader.lora_vision", "a/adapter"}, 2);
    free(output);
    // Dropout is nothing to an adapter that is used, and refused where it would be trained.
    config = world_text_new("a/adapter/adapter_config.json");
    char *dropout = strstr(config, "\"lora_dropout\": 0.0");
    EXPECT(dropout, "%s", config);
    if (dropout) {
        dropout[strlen("\"lora_dropout\": 0.0") - 1] = '5';
    }
    world_write("a/adapter/adapter_config.json", config, strlen(config));
    free(config);
    code =
        program_run(&output, "train-reader c.yaml " TOWERS " run.dir=f reader.adapter=a/adapter");
    EXPECT(code == EXIT_CONFIG, "code %d", code);
    expect_error_line(output, (const char *[]){"a/adapter", "dropout 0.5"}, 2);
    free(output);
    // Without the open answers half of the queries are left out.
    char *few, *all;
    program_run(&few, "train-reader c.yaml " TOWERS " run.dir=d");
    program_run(&all, "train-reader c.yaml " TOWERS " run.dir=e "
                "reader.open_answers=true");
    EXPECT(strstr(few, " 4 train") && strstr(all, " 8 train"), "%s%s", few, all);
    free(few);
    free(all);
}

#define RECORDS                                                                                    \
    "[{\"messages\": [{\"role\": \"user\", \"content\": \"A<image>q\"}, "                          \
    "{\"role\": \"assistant\", \"content\": \"a\"}], \"images\": [\"x.png\"]}]"
// Records of LLaMA-Factory's form teach the same as the passages they were written from.
TEST(programs_records) {
    world_with_index();
    if (CASE("written, and trained on")) {
        program_must_run("train-reader c.yaml " TOWERS " run.dir=found prompt.instruction=Look."
                         " reader.write_records=task");
        char *lines = world_text_new("task_train_.json");
        int count = 0;
        for (const char *at = lines; at && (at = strchr(at, '\n')); at++) {
            count++;
        }
        EXPECT(count == 4 * WORLD_TRAIN && world_has("task_test_.json"), "%d records", count);
        free(lines);
        program_must_run("train-reader c.yaml run.dir=read reader.records=task_train_.json");
        expect_run("read", "done", STEPS);
        expect_same_file("found/losses.jsonl", "read/losses.jsonl");
        expect_same_file("found/adapter/adapter_model.safetensors",
                         "read/adapter/adapter_model.safetensors");
    }
    if (CASE("another instruction, and no such file")) {
        world_write("r.json", RECORDS, sizeof RECORDS - 1);
        char *output;
        int code = program_run(&output, "train-reader c.yaml run.dir=r reader.records=r.json "
                               "prompt.instruction=B");
        EXPECT(code == EXIT_CONFIG, "code %d", code);
        expect_error_line(output, (const char *[]){"prompt.instruction", "r.json"}, 2);
        free(output);
        code = program_run(&output, "train-reader c.yaml run.dir=s reader.records=none.json");
        EXPECT(code == EXIT_NO_INPUT, "code %d", code);
        expect_error_line(output, (const char *[]){"none.json"}, 1);
        free(output);
    }
}

TEST(programs_index_verbs) {
    const struct {
        const char *arguments, *wants[3];
    } cases[] = {
        {"index build c.yaml index.dir=other index.shard_rows=10 " TOWERS,
         {"24 rows of 64", "build"}},
        {"index info index.dir=index",
         {"rows          24", "width         64", "shards        1 per"}},
        {"index verify index.dir=index",
         {"ok   meta.json", "ok   image.00000.shard", "ok   text.00000.shard"}},
        {"index search c.yaml " TOWERS, {"query\tside\trank", "q8\timage\t0\t", "q11\ttext\t1\t"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].arguments)) {
            char *output;
            world_with_index();
            const int code = program_run(&output, "%s", cases[i].arguments);
            EXPECT(code == EXIT_OK, "code %d: %s", code, output);
            for (int w = 0; w < 3 && cases[i].wants[w]; w++) {
                EXPECT(strstr(output, cases[i].wants[w]), "no '%s' in: %s", cases[i].wants[w],
                       output);
            }
            free(output);
        }
    }
    if (CASE("shards of 10 rows")) {
        world_with_index();
        program_must_run("index build c.yaml index.dir=tens index.shard_rows=10 " TOWERS);
        EXPECT(world_has("tens/image.00002.shard") && !world_has("tens/image.00003.shard"),
               "3 shards");
    }
}

// Rows that another program made: the same index where they are the same rows.
TEST(programs_index_of_given_rows) {
#define GIVEN "index build c.yaml " TOWERS " index.dir=given "
    const struct {
        const char *arguments;
        int code;
        const char *wants[2];
    } bad[] = {
        {"index.images=rows/short.npy", EXIT_BAD_DATA, {"short.npy: rank 2, 23 rows of 64, <f4",
                                                        "24 rows of 64"}},
        {"index.texts=raw/texts.npy", EXIT_BAD_DATA, {"raw/texts.npy: row 0 has length",
                                                      "rows of length one"}},
        {"index.texts=corpus.jsonl", EXIT_BAD_DATA, {"corpus.jsonl", "magic bytes"}},
        {"index.texts=none.npy", EXIT_NO_INPUT, {"none.npy", ""}},
    };
    world_with_index();
    char *corpus = world_text_new("corpus.jsonl"), *output;
    const char *second = strchr(corpus, '\n') + 1;
    world_write("short.jsonl", second, strlen(second));
    free(corpus);
    program_must_run("embed c.yaml " TOWERS " embed.images=corpus.jsonl embed.texts=corpus.jsonl "
                     "embed.dir=rows");
    program_must_run("embed c.yaml " TOWERS " embed.images=short.jsonl embed.dir=less");
    program_must_run("embed c.yaml " TOWERS " embed.texts=corpus.jsonl embed.dir=raw "
                     "embed.unit=false");
    check_run(NULL, "cd '%s' && mv less/images.npy rows/short.npy", world_dir());
#define BOTH GIVEN "index.images=rows/images.npy index.texts=rows/texts.npy "
    int code = program_run(&output, BOTH);
    EXPECT(code == EXIT_OK &&
               strstr(output, "texts.npy: of 16 rows that the towers made again, the lowest cosine "
                              "is 1.0000\n"), "%d %s", code, output);
    free(output);
    expect_same_file("given/meta.json", "index/meta.json");
    expect_same_file("given/image.00000.shard", "index/image.00000.shard");
    // A row whose picture is bad goes, and says nothing about the others.
    world_write("images/c0.png", "", 0);
    code = program_run(&output, BOTH "data.max_bad_images=0.1");
    EXPECT(code == EXIT_OK && !strstr(output, "are these the rows of this corpus") &&
               strstr(output, "23 rows of 64, 1 skipped"), "%d %s", code, output);
    free(output);
    check_run(NULL, "cd '%s' && cp images/c2.png images/c0.png", world_dir());
    // Of other towers: built as told, with a warning.
    code = program_run(&output, GIVEN "index.images=rows/texts.npy");
    EXPECT(code == EXIT_OK && strstr(output, "are these the rows of this corpus"), "%d %s", code,
           output);
    free(output);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (CASE("%s", bad[i].arguments)) {
            code = program_run(&output, GIVEN "%s", bad[i].arguments);
            EXPECT(code == bad[i].code, "code %d: %s", code, output);
            expect_error_line(output, bad[i].wants, 2);
            free(output);
        }
    }
}

// The whole method: what one verb trains, the next one uses; evaluate and report at the end.
TEST(programs_chain) {
    world_with_index();
    program_must_run("train-reader c.yaml run.dir=reader " TOWERS);
#define READER "reader.adapter=reader/adapter"
    program_must_run("train-retriever c.yaml run.dir=text " TOWERS " " READER);
    program_must_run("train-retriever c.yaml run.dir=image retriever.head=image " TOWERS
                     " " READER);
#define ALL_PARTS                                                                                  \
    TOWERS " " READER " retriever.text_head=text/head.safetensors "                                \
           "retriever.image_head=image/head.safetensors"
    program_must_run("index search c.yaml " ALL_PARTS);
    program_must_run("evaluate c.yaml run.dir=answers evaluate.oracle_at=[4] " ALL_PARTS);
    expect_run("answers", "done", 0);
    EXPECT(world_has("answers/results.json"), "no results");
    static const char *const systems[] = {"closed-book", "random-passages", "RAG--frozen-retriever",
                                          "joint"};
    for (int s = 0; s < 4; s++) {
        char *name = xformat_new("answers/predictions/%s.jsonl", systems[s]);
        char *text = world_text_new(name);
        int lines = 0;
        for (const char *c = text; c && *c; c++) {
            lines += *c == '\n';
        }
        EXPECT(lines == WORLD_TEST, "%s: %d lines", name, lines);
        free(text);
        free(name);
    }
    program_must_run("report run.dirs=[answers] report.dir=tables");
    EXPECT(world_has("tables/report.html"), "no report");
    // A finished evaluation that is resumed is left alone; the same again gives the same bytes.
    program_must_run(
        "evaluate c.yaml run.dir=answers run.start=resume evaluate.oracle_at=[4] " ALL_PARTS);
    program_must_run("evaluate c.yaml run.dir=again evaluate.oracle_at=[4] " ALL_PARTS);
    expect_same_file("answers/results.json", "again/results.json");
    expect_same_file("answers/predictions/joint.jsonl", "again/predictions/joint.jsonl");
}

// run.start=overwrite leaves nothing of the run before.
TEST(programs_overwrite) {
    world_with_index();
    program_must_run("train-reader c.yaml run.dir=r checkpoint.every=2 " TOWERS);
    EXPECT(world_has("r/adapter") && world_has("r/checkpoints/train-reader-00000004"), "first run");
    program_must_run("pretrain c.yaml run.dir=r run.start=overwrite");
    EXPECT(!world_has("r/adapter") && !world_has("r/checkpoints"),
           "something of the first run is left");
    expect_run("r", "done", STEPS);
}

// ---- score store ----
// Forwards of the reader in the verb's last word on its store; -1 when it is not there.
static long forwards_of(const char *output) {
    unsigned long long pairs, forwards;
    const char *line = strstr(output, "score store: ");
    return line && sscanf(line, "score store: %llu pairs asked, %llu forwards", &pairs,
                          &forwards) == 2
               ? (long)forwards
               : -1;
}

TEST(programs_score_store_changes_nothing) {
    check_time_limit(300);
    char *on, *off;
    world_with_index();
    const char *verb = "train-retriever c.yaml retriever.steps=100 retriever.refresh=10 " TOWERS;
    EXPECT(program_run(&on, "%s run.dir=on score_store.enable=true", verb) == EXIT_OK, "%s", on);
    EXPECT(program_run(&off, "%s run.dir=off score_store.enable=false", verb) == EXIT_OK, "%s",
           off);
    expect_run("on", "done", 100);
    expect_same_file("on/losses.jsonl", "off/losses.jsonl");
    expect_same_file("on/head.safetensors", "off/head.safetensors");
    const long kept = forwards_of(on), all = forwards_of(off);
    fprintf(stderr, "score store: %ld reader forwards with it, %ld without\n", kept, all);
    EXPECT(all == 100 * 2 * 4, "%ld forwards without the store, want steps x batch x K", all);
    EXPECT(kept > 0 && kept < all, "%ld forwards with the store, %ld without", kept, all);
    // Another run that shares the store pays nothing.
    char *shared;
    EXPECT(program_run(&shared, "%s run.dir=shared score_store.dir=on/scores", verb) == EXIT_OK,
           "%s", shared);
    EXPECT(forwards_of(shared) == 0, "%ld forwards with a full store", forwards_of(shared));
    expect_same_file("on/losses.jsonl", "shared/losses.jsonl");
    free(on);
    free(off);
    free(shared);
}
