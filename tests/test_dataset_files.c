// Corpora and tasks from JSONL text: what each member becomes, and which rows are refused how.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/dataset_files.h"
#include "host/file.h"
#include "host/json.h"
#include "tests/check.h"

static Error parse_task(Dataset *ds, const char *text, DatasetReading reading) {
    return dataset_parse_task(ds, "task.jsonl", text, strlen(text), &reading);
}

static void expect_text(const char *what, const char *got, const char *want) {
    EXPECT(strcmp(got, want) == 0, "%s is '%s', want '%s'", what, got, want);
}

TEST(dataset_files_corpus) {
    const char text[] =
        "\xef\xbb\xbf"
        "{\"id\": 12, \"img_path\": \"a/1.png\", \"text\": \"two\\nlines\", \"dataset_source\": \"roco\"}\r\n"
        "\n"
        "{\"id\":\"x\",\"img_path\":\"2.jpg\",\"text\":\"\",\"title\":\"T\",\"section\":\"S\",\"group\":7,\"Edema\":1}\n"
        "{\"img_path\":\"3.jpg\",\"text\":\"t\",\"title\":\"T\",\"group\":\"p9\",\"split\":\"val\",\"id\":null}";
    Dataset *ds = dataset_new();
    const DatasetReading reading = {0};
    const Error error = dataset_parse_corpus(ds, "c.jsonl", text, sizeof text - 1, &reading);
    EXPECT(error.code == EXIT_OK && ds->n == 3, "%d rows, %s", ds->n, error.text);
    const Record *r = ds->records;
    expect_text("id", r[0].id, "12");
    expect_text("text", r[0].text, "two\nlines");
    expect_text("source", r[0].source, "roco");
    expect_text("title", r[0].title, "");
    expect_text("title", r[1].title, "T: S");
    expect_text("group", r[1].group, "7");
    expect_text("source", r[1].source, "c.jsonl");
    expect_text("title", r[2].title, "T");
    expect_text("group", r[2].group, "p9");
    expect_text("id", r[2].id, "");
    expect_text("path", r[2].path, "3.jpg");
    EXPECT(r[1].line == 3 && r[2].line == 4, "lines %d and %d", r[1].line, r[2].line);
    EXPECT(r[2].split == SPLIT_VAL && r[0].split == SPLIT_COUNT, "splits");
    EXPECT(r[0].label == -1 && r[0].group_id == -1, "nothing is known");
    dataset_free(ds);
}

TEST(dataset_files_task) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const[]){"no", "yes", "2"}, 3);
    const Error error = parse_task(ds,
        "{\"image_path\":\"1.png\",\"answers\":\"yes\"}\n"
        "{\"image_path\":\"1.png\",\"answers\":2,\"split\":\"test\"}\n"
        "{\"image_path\":\"1.png\",\"answers\":[\"no\",\"yes\"]}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Where?\",\"answer\":\"left lung\"}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Is it?\",\"answer\":\"Yes\"}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Is it?\",\"answer\":\"no\",\"answers\":null}\n", (DatasetReading){0});
    EXPECT(error.code == EXIT_OK && ds->n == 6, "%d rows, %s", ds->n, error.text);
    static const int labels[] = {1, 2, 0, -1, -1, 0};
    for (int i = 0; i < ds->n; i++) {
        EXPECT(ds->records[i].label == labels[i], "row %d: label %d", i, ds->records[i].label);
    }
    expect_text("answer", ds->records[1].answer, "2");
    expect_text("answer", ds->records[2].answer, "no");
    expect_text("answer", ds->records[3].answer, "left lung");
    expect_text("question", ds->records[3].question, "Where?");
    EXPECT(ds->records[1].split == SPLIT_TEST, "split");
    dataset_free(ds);
}

TEST(dataset_files_multi_label) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const[]){"0", "1", "2", "14"}, 4);
    const DatasetReading reading = {.is_multi_label = true};
    Error error = parse_task(ds, "{\"image_path\":\"1\",\"question\":\"q\",\"answer\":\"0, 14\"}\n"
                                 "{\"image_path\":\"1\",\"question\":\"q\",\"answer\":\"\"}\n"
                                 "{\"image_path\":\"1\",\"answers\":[1,\"2\"]}\n", reading);
    EXPECT(error.code == EXIT_OK && ds->n == 3, "%d rows, %s", ds->n, error.text);
    static const uint32_t masks[] = {9, 0, 6};
    for (int i = 0; i < ds->n; i++) {
        EXPECT(ds->records[i].labels == masks[i] && ds->records[i].label == -1, "row %d: mask %u", i,
               ds->records[i].labels);
    }
    expect_text("answer", ds->records[2].answer, "1,2");
    error = parse_task(ds, "{\"image_path\":\"1\",\"answer\":\"0,3\"}", reading);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "'3'"), "'%s'", error.text);
    dataset_free(ds);
}

// Each text is bad in its third line; it is refused there, or skipped when one bad line is allowed.
TEST(dataset_files_bad_rows) {
    static const struct {
        const char *row, *says;
    } bad[] = {
        {"{\"image_path\":\"1.png\"}", "'answers'"},
        {"{\"image_path\":\"1.png\",\"answer\":null}", "'answers'"},
        {"{\"answers\":\"yes\"}", "'image_path'"},
        {"{\"image_path\":\"\",\"answers\":\"yes\"}", "empty"},
        {"{\"image_path\":3,\"answers\":\"yes\"}", "'image_path' wants"},
        {"{\"image_path\":\"1.png\",\"answers\":\"maybe\"}", "'maybe' is none of the 2 classes"},
        {"{\"image_path\":\"1.png\",\"answers\":\"Yes\"}", "'Yes'"},
        {"{\"image_path\":\"1.png\",\"answers\":1.5}", "wants a text or an integer"},
        {"{\"image_path\":\"1.png\",\"answers\":[]}", "'answers'"},
        {"{\"image_path\":\"1.png\",\"answers\":\"yes\",\"split\":\"dev\"}", "'dev'"},
        {"{\"image_path\":\"1.png\",\"answers\":\"yes\",\"group\":[1]}", "'group'"},
        {"{\"image_path\":\"1.png\",\"answers\":\"yes\"", "column"},
    };
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!CASE("%s", bad[i].row)) {
            continue;
        }
        char text[400];
        snprintf(text, sizeof text, "{\"image_path\":\"0\",\"answers\":\"no\"}\n\n%s\n"
                                    "{\"image_path\":\"2\",\"answers\":\"yes\"}\n", bad[i].row);
        for (int allowed = 0; allowed < 2; allowed++) {
            Dataset *ds = dataset_new();
            dataset_set_classes(ds, (const char *const[]){"no", "yes"}, 2);
            const Error error = parse_task(ds, text, (DatasetReading){.max_bad_lines = allowed});
            EXPECT(ds->n == 1 + allowed, "%d rows", ds->n);
            EXPECT(error.code == (allowed ? EXIT_OK : EXIT_BAD_DATA), "code %d", (int)error.code);
            EXPECT(allowed || error.offset == 3, "line %zu", error.offset);
            EXPECT(allowed || strstr(error.text, bad[i].says), "'%s' does not say %s", error.text,
                   bad[i].says);
            dataset_free(ds);
        }
    }
}

// Random damage to sound text: no crash, and never more rows than lines.
TEST(dataset_files_survive_damage) {
    static const char sound[] =
        "{\"image_path\":\"1.png\",\"answers\":[\"yes\"],\"id\":1,\"group\":\"a\",\"split\":\"val\"}\n"
        "{\"image_path\":\"2.png\",\"question\":\"q\",\"answer\":\"no\",\"group\":2}\n";
    log_set_level(LOG_ERROR);
    Rng rng = check_rng(0);
    int refused = 0;
    for (int round = 0; round < 3000; round++) {
        char *text = malloc(sizeof sound - 1); // no zero byte behind it
        memcpy(text, sound, sizeof sound - 1);
        for (uint32_t k = 1 + rng_below(&rng, 3); k > 0; k--) {
            text[rng_below(&rng, sizeof sound - 1)] = (char)rng_below(&rng, 256);
        }
        Dataset *ds = dataset_new();
        dataset_set_classes(ds, (const char *const[]){"no", "yes"}, 2);
        const DatasetReading reading = {.is_multi_label = round % 2};
        const Error error = dataset_parse_task(ds, "t", text, sizeof sound - 1, &reading);
        refused += error.code != EXIT_OK;
        EXPECT(ds->n <= 4, "%d rows", ds->n);
        dataset_free(ds);
        free(text);
    }
    EXPECT(refused > 1000, "only %d of 3000 damaged texts were refused", refused);
}

// The real thing: questions of VQA-RAD as JSONL, every image of them decoded.
TEST(dataset_files_vqa_rad) {
    const char *records = check_data("medical/vqa-rad/testset.json");
    json_t *list;
    if (!records) {
        return;
    }
    char path[300], *root = xstrdup(check_data("medical/vqa-rad/images"));
    EXPECT(json_read_new(&list, records, 1 << 24).code == EXIT_OK, "cannot read '%s'", records);
    snprintf(path, sizeof path, "%s/vqa.jsonl", check_tmpdir());
    FILE *out = fopen(path, "w");
    size_t i, yes_or_no = 0;
    json_t *item;
    json_array_foreach(list, i, item) {
        json_t *row = json_pack("{s:O, s:O, s:O, s:O}", "image_path", json_object_get(item, "image_name"),
                                "question", json_object_get(item, "question"), "answer",
                                json_object_get(item, "answer"), "id", json_object_get(item, "qid"));
        const char *answer = json_string_value(json_object_get(item, "answer"));
        yes_or_no += answer && (strcmp(answer, "yes") == 0 || strcmp(answer, "no") == 0);
        json_dumpf(row, out, JSON_COMPACT);
        fputc('\n', out);
        json_decref(row);
    }
    fclose(out);
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const[]){"no", "yes"}, 2);
    dataset_set_root(ds, root, false);
    log_set_level(LOG_ERROR);
    const int rows = dataset_read_task(ds, path, &(DatasetReading){0});
    EXPECT(rows == (int)json_array_size(list), "%d rows of %zu", rows, json_array_size(list));
    size_t labelled = 0;
    for (int r = 0; r < rows; r++) {
        labelled += ds->records[r].label >= 0;
        Image image;
        if (r == 0 || strcmp(ds->records[r].path, ds->records[r - 1].path) != 0) {
            EXPECT(dataset_image(ds, r, &image), "row %d", r);
            image_free(&image);
        }
    }
    EXPECT(labelled == yes_or_no && labelled > 0, "%zu labels, %zu yes or no", labelled, yes_or_no);
    dataset_hash_images(ds);
    const int groups = dataset_link_groups(&ds, 1);
    EXPECT(groups > 1 && groups < rows, "%d pictures for %d questions", groups, rows);
    EXPECT(ds->bad_images == 0 && ds->image_warnings == 0, "%d bad, %d with warnings", ds->bad_images,
           ds->image_warnings);
    fprintf(stderr, "vqa-rad: %d questions, %zu yes or no, %d pictures\n", rows, labelled, groups);
    dataset_free(ds);
    json_decref(list);
    free(root);
}
