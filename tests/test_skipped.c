// test_skipped: passages whose pictures are bad are left out of the index, listed, and left out by
// everyone who opens it: the same bytes as if the corpus had never had them.
#define _POSIX_C_SOURCE 200809L // strtok_r
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/skipped.h"
#include "tests/check.h"
#include "tests/program.h"

// The corpus of the small world without two of its lines.
static void write_corpus_without(const char *name, int first, int second) {
    char *text = world_text_new("corpus.jsonl"), *out = xstrdup("");
    int row = 0;
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest), row++) {
        if (row != first && row != second) {
            char *longer = xformat_new("%s%s\n", out, line);
            free(out);
            out = longer;
        }
    }
    world_write(name, out, strlen(out));
    free(out);
    free(text);
}

// Runs the verb over the index that skipped rows and over the one of the shorter corpus.
static void expect_same_output(const char *verb) {
    char *output[2];
    const int code[2] = {
        program_run(&output[0], "%s index.dir=less " TOWERS, verb),
        program_run(&output[1], "%s index.dir=kept data.corpus=short.jsonl " TOWERS, verb)};
    EXPECT(code[0] == 0 && code[1] == 0, "codes %d, %d: %s", code[0], code[1], output[0]);
    const char *table[2] = {strstr(output[0], "query\t"), strstr(output[1], "query\t")};
    EXPECT(table[0] && table[1] && strcmp(table[0], table[1]) == 0, "'%s' and '%s'", output[0],
           output[1]);
    EXPECT(!strstr(output[0], "images/c3.png") && !strstr(output[0], "case 3\n"), "%s", output[0]);
    free(output[0]);
    free(output[1]);
}

TEST(index_skips_bad_pictures) {
    world_with_index();
    world_write("images/c3.png", "", 0);
    check_run(NULL, "rm '%s/images/c5.png'", world_dir());
    write_corpus_without("short.jsonl", 3, 5);
    program_must_run("index build c.yaml index.dir=kept data.corpus=short.jsonl " TOWERS);
    // A row that an earlier build skipped is not skipped for ever: the list is made anew.
    program_must_run("index build c.yaml index.dir=less data.on_bad_image=blank "
                     "data.max_bad_images=0.1 " TOWERS);
    EXPECT(!world_has("less/skipped.jsonl"), "blank rows are listed");
    for (int round = 0; round < 2; round++) {
        char *output;
        const int code = program_run(&output, "index build c.yaml index.dir=less "
                                              "data.max_bad_images=0.1 " TOWERS);
        EXPECT(code == EXIT_OK && strstr(output, "22 rows of 64, 2 skipped"), "%s", output);
        free(output);
        expect_same_file("less/image.00000.shard", "kept/image.00000.shard");
        expect_same_file("less/text.00000.shard", "kept/text.00000.shard");
        expect_same_file("less/meta.json", "kept/meta.json");
        char *list = world_text_new("less/skipped.jsonl");
        EXPECT(strcmp(list, "{\"row\": 3, \"id\": \"c3\", \"path\": \"images/c3.png\"}\n"
                            "{\"row\": 5, \"id\": \"c5\", \"path\": \"images/c5.png\"}\n") == 0,
               "'%s'", list);
        free(list);
    }
    expect_same_output("index search c.yaml evaluate.k=22");
    program_must_run("evaluate c.yaml run.dir=a index.dir=less " TOWERS);
    program_must_run("evaluate c.yaml run.dir=b index.dir=kept data.corpus=short.jsonl " TOWERS);
    expect_same_file("a/results.json", "b/results.json");
    program_must_run("train-retriever c.yaml run.dir=t index.dir=less " TOWERS);
    expect_run("t", "done", 6);
    program_must_run("train-retriever c.yaml run.dir=u index.dir=kept data.corpus=short.jsonl "
                     TOWERS);
    expect_same_file("t/losses.jsonl", "u/losses.jsonl");
}

static void expect_refused(const char *arguments, const char *const *says, int count) {
    char *output;
    const int code = program_run(&output, "%s", arguments);
    EXPECT(code == EXIT_BAD_DATA, "code %d: %s", code, output);
    expect_error_line(output, says, count);
    free(output);
}

TEST(index_skips_refused) {
    if (CASE("too many")) {
        world_with_index();
        world_write("images/c3.png", "", 0);
        world_write("images/c4.png", "<html>", 6);
        const char *const says[] = {"2 bad images among 24 rows", "data.max_bad_images=0.001"};
        expect_refused("index build c.yaml index.dir=x " TOWERS, says, 2);
        EXPECT(!world_has("x/meta.json"), "an index all the same");
    }
    if (CASE("told to fail")) {
        world_with_index();
        world_write("images/c3.png", "", 0);
        const char *const says[] = {"corpus.jsonl:4", "images/c3.png"};
        expect_refused("index build c.yaml index.dir=x data.on_bad_image=fail " TOWERS, says, 2);
    }
    if (CASE("list lost or changed")) {
        world_with_index();
        world_write("images/c3.png", "", 0);
        program_must_run("index build c.yaml " TOWERS);
        static const struct {
            const char *list, *says;
        } lists[] = {
            {"", "built from corpus"},
            {"{\"row\": 4, \"id\": \"c4\"}\n", "built from corpus"},
            {"{\"row\": 3, \"id\": \"c4\"}\n", "skipped.jsonl:1: the corpus has no row 3"}};
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
            world_write("index/skipped.jsonl", lists[i].list, strlen(lists[i].list));
            const char *const says[] = {lists[i].says, "run jomed index build"};
            expect_refused("evaluate c.yaml run.dir=e run.start=overwrite " TOWERS, says, 2);
        }
    }
}

TEST(skipped_parse) {
    static const struct {
        const char *text;
        int line; // of the fault; 0: none
    } cases[] = {{"", 0},
                 {"{\"row\": 1, \"id\": \"b\"}\n\n{\"row\": 2, \"id\": \"c\"}", 0},
                 {"{\"row\": 1, \"id\": \"b\"}\n{\"row\": 1, \"id\": \"b\"}\n", 2},
                 {"{\"row\": 3, \"id\": \"d\"}\n", 1},
                 {"{\"row\": -1, \"id\": \"\"}\n", 1},
                 {"{\"row\": 9223372036854775807, \"id\": \"\"}\n", 1},
                 {"{\"row\": 1}\n", 1},
                 {"{\"id\": \"b\"}\n", 1},
                 {"[1]\n", 1},
                 {"{\"row\": 1, \"id\"", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dataset *corpus = dataset_new();
        for (const char *id = "a\0b\0c"; corpus->n < 3; id += 2) {
            Record record = record_empty();
            record.id = id;
            dataset_add(corpus, &record);
        }
        const Error error = skipped_parse(cases[i].text, strlen(cases[i].text), corpus);
        EXPECT((error.code == EXIT_BAD_DATA) == (cases[i].line > 0), "'%s': %s", cases[i].text,
               error.text);
        EXPECT(!error.code || error.offset == (size_t)cases[i].line, "'%s': line %zu",
               cases[i].text, error.offset);
        if (i == 1) {
            EXPECT(dataset_drop_bad(corpus) == 2 && corpus->n == 1 &&
                       strcmp(corpus->records[0].id, "a") == 0, "%d rows stay", corpus->n);
        }
        dataset_free(corpus);
    }
}
