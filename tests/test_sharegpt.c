// test_sharegpt: records of fine-tuning, byte for byte as Python writes them, and read again;
// records of another form are refused by number.
#include "host/sharegpt.h"

#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "tests/check.h"

#define INSTRUCTION "Answer.\n"

// The samples of tools/vectors_sharegpt.py.
static const struct {
    const char *passage, *caption, *query, *question, *answer; // passage NULL: none
} samples[3] = {
    {"p/1.png", "c\xc5\x93ur \"normal\"\\ \t2\xc3\x97" "3 mm", "q/1.png", "what is it?",
     "no finding"},
    {"p/2.png", "\xf0\x9f\xa7\xa0 brain \x7f\x01 </s>", "q/2.png", "grade?\n", "2"},
    {NULL, NULL, "q/3.png", "is there a mass?", "yes"}};

static FileBytes read_fixture(void) {
    FileBytes bytes;
    error_die("fixture", file_read_new(&bytes, check_fixture("records_train_.json"), 1 << 16));
    return bytes;
}

static Dataset *with_record(const char *path, const char *text, const char *question,
                            const char *answer) {
    Dataset *ds = dataset_new();
    Record record = record_empty();
    record.path = path;
    record.text = text;
    record.question = question;
    record.answer = answer;
    dataset_add(ds, &record);
    return ds;
}

TEST(sharegpt_write) {
    FileBytes want = read_fixture();
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        Dataset *queries = with_record(samples[i].query, "", samples[i].question,
                                       samples[i].answer);
        Dataset *corpus = with_record(samples[i].passage ? samples[i].passage : "x",
                                      samples[i].caption, "", "");
        const int32_t passage = samples[i].passage ? 0 : -1;
        char *line;
        error_die("line", sharegpt_lines_new(&line, INSTRUCTION, queries, 0, corpus, &passage, 1));
        const size_t size = strlen(line);
        EXPECT(at + size <= want.size && memcmp(want.data + at, line, size) == 0,
               "record %d: %s", i, line);
        at += size;
        free(line);
        dataset_free(queries);
        dataset_free(corpus);
    }
    EXPECT(at == want.size, "%zu bytes of %zu", at, want.size);
    file_bytes_free(&want);
}

TEST(sharegpt_write_refused) {
    static const struct {
        const char *name, *path, *text, *question, *want;
    } cases[] = {{"no file", "", "t", "q", "image file"},
                 {"tag in a caption", "p.png", "a <image> b", "q", "<image>"},
                 {"tag in a question", "p.png", "t", "<image>", "<image>"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].name)) {
            Dataset *queries = with_record("q.png", "", cases[i].question, "a");
            Dataset *corpus = with_record(cases[i].path, cases[i].text, "", "");
            const int32_t passage = 0;
            char *line;
            const Error error = sharegpt_lines_new(&line, "", queries, 0, corpus, &passage, 1);
            EXPECT(error.code == EXIT_BAD_DATA && !line && strstr(error.text, cases[i].want),
                   "%d: %s", error.code, error.text);
            dataset_free(queries);
            dataset_free(corpus);
        }
    }
}

static void expect_records(const char *text, size_t size) {
    Sharegpt records;
    error_die("records", sharegpt_parse_new(&records, dataset_new(), dataset_new(), "records", text,
                                            size));
    EXPECT(records.queries->n == 3 && records.corpus->n == 2, "%d records, %d passages",
           records.queries->n, records.corpus->n);
    EXPECT(strcmp(records.instruction, INSTRUCTION) == 0, "'%s'", records.instruction);
    for (int i = 0; i < 3 && records.queries->n == 3; i++) {
        const Record *query = &records.queries->records[i];
        EXPECT(strcmp(query->question, samples[i].question) == 0 &&
                   strcmp(query->answer, samples[i].answer) == 0 &&
                   strcmp(query->path, samples[i].query) == 0 && query->label == -1,
               "query %d", i);
        EXPECT((records.passages[i] >= 0) == (samples[i].passage != NULL), "passage of %d", i);
        if (records.passages[i] >= 0) {
            const Record *passage = &records.corpus->records[records.passages[i]];
            EXPECT(strcmp(passage->text, samples[i].caption) == 0 &&
                       strcmp(passage->path, samples[i].passage) == 0, "passage %d", i);
        }
    }
    sharegpt_free(&records);
}

TEST(sharegpt_read) {
    FileBytes bytes = read_fixture();
    if (CASE("lines")) {
        expect_records((const char *)bytes.data, bytes.size);
    }
    if (CASE("array")) {
        char *array = xformat_new(" [%.*s]", (int)bytes.size, (const char *)bytes.data);
        for (char *end = strchr(array, '\n'); end && end[1] == '{'; end = strchr(end + 1, '\n')) {
            *end = ',';
        }
        expect_records(array, strlen(array));
        free(array);
    }
    file_bytes_free(&bytes);
}

// Whatever is in the file, reading ends in records or in an error.
TEST(sharegpt_damaged) {
    FileBytes bytes = read_fixture();
    char *text = xmalloc(bytes.size, 1);
    Rng rng = check_rng(0);
    int refused = 0;
    for (int i = 0; i < 2000; i++) {
        memcpy(text, bytes.data, bytes.size);
        for (int k = i % 4; k > 0; k--) {
            text[rng_below(&rng, (uint32_t)bytes.size)] = (char)rng_below(&rng, 256);
        }
        if (i % 2) {
            text[0] = '[';
        }
        Sharegpt records;
        const Error error = sharegpt_parse_new(&records, dataset_new(), dataset_new(), "records",
                                               text, rng_below(&rng, (uint32_t)bytes.size + 1));
        EXPECT(error.code == EXIT_OK || error.code == EXIT_BAD_DATA, "code %d", error.code);
        refused += error.code != EXIT_OK;
        sharegpt_free(&records);
    }
    EXPECT(refused > 1000 && refused < 2000, "%d of 2000 refused", refused);
    free(text);
    file_bytes_free(&bytes);
}

#define RECORD(content, answer, images)                                                            \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"" content                                 \
    "\"}, {\"role\": \"assistant\", \"content\": \"" answer "\"}], \"images\": [" images "]}\n"
#define GOOD RECORD("I<image>q", "a", "\"q.png\"")

TEST(sharegpt_read_refused) {
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"nothing", "", "no records"},
        {"empty array", "[]", "no records"},
        {"no JSON", "{\"messages\": ", "column"},
        {"an array of numbers", "[1]", "record 1: wants two messages"},
        {"no messages", GOOD "{\"images\": [\"a\"]}\n", "record 2: wants two messages"},
        {"no answer", RECORD("<image>q", "", "\"q.png\""), "wants two messages"},
        {"no image", RECORD("q", "a", ""), "one or two images"},
        {"three images", RECORD("<image>q", "a", "\"1\", \"2\", \"3\""), "one or two images"},
        {"a number for an image", RECORD("<image>q", "a", "1"), "one or two images"},
        {"no tag", RECORD("q", "a", "\"q.png\""), "content is not"},
        {"one tag, two images", RECORD("<image>q", "a", "\"1\", \"2\""), "content is not"},
        {"two tags, one image", RECORD("<image>q<image>", "a", "\"1\""), "content is not"},
        {"no background", RECORD("<image>c\\n\\n<image>q", "a", "\"1\", \"2\""), "content is not"},
        {"no blank line", RECORD("<image>background: c\\n<image>q", "a", "\"1\", \"2\""),
         "content is not"},
        {"short background", RECORD("<image>background: \\n<image>q", "a", "\"1\", \"2\""),
         "content is not"},
        {"three tags", RECORD("<image>background: c\\n\\n<image>q<image>", "a", "\"1\", \"2\""),
         "content is not"},
        {"another instruction", GOOD RECORD("J<image>q", "a", "\"q.png\""),
         "record 2: another instruction"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].name)) {
            Sharegpt records;
            const char *const text = cases[i].text;
            const Error error = sharegpt_parse_new(&records, dataset_new(), dataset_new(),
                                                   "records", text, strlen(text));
            EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, cases[i].want), "%d: %s",
                   error.code, error.text);
            sharegpt_free(&records);
        }
    }
}
