// Corpora, tasks and MedMNIST archives: what each member becomes, and which rows are refused how.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

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
    const char text[] = "\xef\xbb\xbf"
                        "{\"id\": 12, \"img_path\": \"a/1.png\", \"text\": \"two\\nlines\", "
                        "\"dataset_source\": \"roco\"}\r\n"
                        "\n"
                        "{\"id\":\"x\",\"img_path\":\"2.jpg\",\"text\":\"\",\"title\":\"T\","
                        "\"section\":\"S\",\"group\":7,\"Edema\":1}\n"
                        "{\"img_path\":\"3.jpg\",\"text\":\"t\",\"title\":\"T\",\"group\":\"p9\","
                        "\"split\":\"val\",\"id\":null}";
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
    const Error error = parse_task(
        ds,
        "{\"image_path\":\"1.png\",\"answers\":\"yes\"}\n"
        "{\"image_path\":\"1.png\",\"answers\":2,\"split\":\"test\"}\n"
        "{\"image_path\":\"1.png\",\"answers\":[\"no\",\"yes\"]}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Where?\",\"answer\":\"left lung\"}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Is it?\",\"answer\":\"Yes\"}\n"
        "{\"image_path\":\"1.png\",\"question\":\"Is it?\",\"answer\":\"no\",\"answers\":null}\n",
        (DatasetReading){0});
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
        EXPECT(ds->records[i].labels == masks[i] && ds->records[i].label == -1, "row %d: mask %u",
               i, ds->records[i].labels);
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
        "{\"image_path\":\"1.png\",\"answers\":[\"yes\"],\"id\":1,\"group\":\"a\",\"split\":"
        "\"val\"}\n"
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
        json_t *row =
            json_pack("{s:O, s:O, s:O, s:O}", "image_path", json_object_get(item, "image_name"),
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
    EXPECT(ds->bad_images == 0 && ds->image_warnings == 0, "%d bad, %d with warnings",
           ds->bad_images, ds->image_warnings);
    fprintf(stderr, "vqa-rad: %d questions, %zu yes or no, %d pictures\n", rows, labelled, groups);
    dataset_free(ds);
    json_decref(list);
    free(root);
}

// ---- MedMNIST ----
TEST(dataset_files_medmnist) {
    // Counts, and the sum of the pixels of test row 7, as NumPy reads them.
    static const struct {
        const char *path;
        int C, rows[SPLIT_COUNT], channels, sum, label, train_of_first;
    } sets[] = {
        {"medical/pneumoniamnist/pneumoniamnist_balanced.npz",
         2,
         {468, 270, 2428},
         1,
         116543,
         1,
         1214},
        {"medical/breast-ultrasound/busi_28_medmnist_form.npz",
         2,
         {126, 63, 436},
         1,
         73870,
         1,
         114},
        {"medical/skin-ham10000/ham_28_medmnist_form.npz", 7, {145, 71, 501}, 3, 408136, 5, 84}};
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        const char *path = CASE("%s", sets[s].path) ? check_data(sets[s].path) : NULL;
        if (!path) {
            continue;
        }
        Dataset *ds = dataset_new();
        dataset_set_classes(ds, names, sets[s].C);
        dataset_read_medmnist(ds, path, SIZE_MAX);
        int rows[SPLIT_COUNT + 1] = {0}, first = 0;
        for (int i = 0; i < ds->n; i++) {
            rows[ds->records[i].split]++;
            first += ds->records[i].split == SPLIT_TRAIN && ds->records[i].label == 0;
        }
        for (int k = 0; k < SPLIT_COUNT; k++) {
            EXPECT(rows[k] == sets[s].rows[k], "split %d: %d rows, want %d", k, rows[k],
                   sets[s].rows[k]);
        }
        EXPECT(first == sets[s].train_of_first, "%d training rows of class 0", first);
        const int row = rows[SPLIT_TRAIN] + rows[SPLIT_VAL] + 7;
        const Record *record = &ds->records[row];
        EXPECT(strcmp(record->id, "test-7") == 0 && record->label == sets[s].label,
               "'%s' has label %d", record->id, record->label);
        expect_text("answer", record->answer, names[sets[s].label]);
        Image image;
        int sum = 0;
        EXPECT(dataset_image(ds, row, &image), "image of row %d", row);
        for (size_t k = 0; k < image_bytes(&image); k++) {
            sum += image.data[k];
        }
        EXPECT(image.channels == sets[s].channels && sum == sets[s].sum, "%d channels, sum %d",
               image.channels, sum);
        image_free(&image);
        dataset_free(ds);
    }
}

// A stored archive in the making: local headers and data, then the directory.
typedef struct {
    uint8_t bytes[8192], directory[2048];
    size_t size, directory_size;
    int count;
} Archive;

static void put(uint8_t *to, uint32_t v, int n) {
    for (int i = 0; i < n; i++) {
        to[i] = (uint8_t)(v >> 8 * i);
    }
}

// Adds the array called name of a type and shape, bytes of data all `value`.
static void add_array(Archive *zip, const char *name, const char *descr, const char *shape,
                      int value, size_t bytes) {
    uint8_t member[4096]; // ___ becomes minor version 0 and the length of the text behind it
    int size = snprintf((char *)member, sizeof member,
                        "\x93NUMPY\x01___{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n",
                        descr, shape);
    member[7] = 0;
    put(member + 8, (uint32_t)size - 10, 2);
    memset(member + size, value, bytes);
    size += (int)bytes;
    char file[64];
    const size_t length = (size_t)snprintf(file, sizeof file, "%s.npy", name);
    uint8_t *local = zip->bytes + zip->size;
    uint8_t *entry = zip->directory + zip->directory_size;
    memset(local, 0, 30);
    memset(entry, 0, 46);
    memcpy(local, "PK\x03\x04", 4);
    memcpy(entry, "PK\x01\x02", 4);
    put(entry + 42, (uint32_t)zip->size, 4);
    uint8_t *const common[2] = {local + 4, entry + 6}; // the same fields stand at both places
    for (int i = 0; i < 2; i++) {
        put(common[i], 20, 2);
        put(common[i] + 10, (uint32_t)crc32(0, member, (uInt)size), 4);
        put(common[i] + 14, (uint32_t)size, 4);
        put(common[i] + 18, (uint32_t)size, 4);
        put(common[i] + 22, (uint32_t)length, 2);
    }
    memcpy(local + 30, file, length);
    memcpy(local + 30 + length, member, (size_t)size);
    memcpy(entry + 46, file, length);
    zip->size += 30 + length + (size_t)size;
    zip->directory_size += 46 + length;
    zip->count++;
}

static void end_archive(Archive *zip) {
    memcpy(zip->bytes + zip->size, zip->directory, zip->directory_size);
    uint8_t *end = zip->bytes + zip->size + zip->directory_size;
    memset(end, 0, 22);
    memcpy(end, "PK\x05\x06", 4);
    put(end + 8, (uint32_t)zip->count, 2);
    put(end + 10, (uint32_t)zip->count, 2);
    put(end + 12, (uint32_t)zip->directory_size, 4);
    put(end + 16, (uint32_t)zip->size, 4);
    zip->size += zip->directory_size + 22;
}

TEST(dataset_files_medmnist_forms) {
    static const struct {
        const char *images, *labels, *type, *says; // shapes, type of both, "" when it is fine
        size_t image_bytes, label_bytes;
        int label, rows;
    } forms[] = {
        {"(2, 3, 4)", "(2, 1)", "|u1", "", 24, 2, 1, 2},
        {"(2, 3, 4, 3)", "(2, 1)", "|u1", "", 72, 2, 2, 2},
        {"(2, 3, 4)", "(2, 3)", "|u1", "", 24, 6, 1, 2},
        {"(0, 3, 4)", "(0, 1)", "|u1", "", 0, 0, 0, 0},
        {"(2, 3, 4)", "(2, 3)", "|u1", "not 0 or 1", 24, 6, 2, 0},
        {"(2, 3, 4)", "(2, 2)", "|u1", "'train_labels' has another number", 24, 4, 1, 0},
        {"(2, 3, 4)", "(2, 1)", "|u1", "beyond the 3 classes", 24, 2, 3, 0},
        {"(2, 3, 4)", "(3, 1)", "|u1", "'train_labels' is not", 24, 3, 1, 0},
        {"(2, 3, 4)", "(2,)", "|u1", "'train_labels' is not", 24, 2, 1, 0},
        {"(2, 12)", "(2, 1)", "|u1", "'train_images' is not", 24, 2, 1, 0},
        {"(2, 3, 4, 2)", "(2, 1)", "|u1", "'train_images' is not", 48, 2, 1, 0},
        {"(2, 3, 0)", "(2, 1)", "|u1", "no allowed size", 0, 2, 1, 0},
        {"(2, 3, 4)", "(2, 1)", "<i2", "'train_images' is not", 48, 4, 1, 0},
    };
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        if (!CASE("%s %s %s", forms[f].images, forms[f].labels, forms[f].says)) {
            continue;
        }
        static Archive zip;
        zip = (Archive){.size = 0};
        add_array(&zip, "train_images", forms[f].type, forms[f].images, 9, forms[f].image_bytes);
        add_array(&zip, "train_labels", forms[f].type, forms[f].labels, forms[f].label,
                  forms[f].label_bytes);
        end_archive(&zip);
        Dataset *ds = dataset_new();
        dataset_set_classes(ds, (const char *const[]){"x", "y", "z"}, 3);
        const Error error = dataset_parse_medmnist(ds, "m.npz", zip.bytes, zip.size, SIZE_MAX);
        EXPECT((error.code == EXIT_OK) == (forms[f].says[0] == '\0'), "code %d: %s",
               (int)error.code, error.text);
        EXPECT(strstr(error.text, forms[f].says), "'%s' does not say '%s'", error.text,
               forms[f].says);
        EXPECT(ds->n == forms[f].rows, "%d rows", ds->n);
        if (ds->n > 0 && strchr(forms[f].labels, '3')) {
            EXPECT(ds->records[0].labels == 7 && ds->records[0].label == -1, "mask");
        } else if (ds->n > 0) {
            EXPECT(ds->records[1].label == forms[f].label, "label %d", ds->records[1].label);
        }
        dataset_free(ds);
    }
}

TEST(dataset_files_medmnist_empty) {
    static Archive zip;
    add_array(&zip, "weights", "|u1", "(4,)", 1, 4);
    end_archive(&zip);
    Dataset *ds = dataset_new();
    const Error error = dataset_parse_medmnist(ds, "m.npz", zip.bytes, zip.size, SIZE_MAX);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "train_images"), "'%s'", error.text);
    dataset_free(ds);
}
