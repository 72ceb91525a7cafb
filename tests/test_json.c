// Tests of host/json and host/jsonl: the JSON test suite, members, and lines written by many hands.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/file.h"
#include "host/json.h"
#include "host/jsonl.h"

// ---- json ----
// Two files that must be accepted hold \u0000, which no C string can; one holds a key twice.
static bool is_refused_by_design(const char *name) {
    return strcmp(name, "y_object_escaped_null_in_key.json") == 0 ||
           strcmp(name, "y_string_null_escape.json") == 0 ||
           strcmp(name, "y_object_duplicated_key.json") == 0 ||
           strcmp(name, "y_object_duplicated_key_and_value.json") == 0;
}

TEST(json_suite) {
    const char *folder = check_data("config/json/test_parsing");
    if (!folder) {
        return;
    }
    char **names;
    int count;
    EXPECT(file_list_new(&names, &count, folder).code == EXIT_OK && count > 200, "list");
    for (int i = 0; i < count; i++) {
        if (CASE("%s", names[i])) {
            char *path = file_join_new(folder, names[i]);
            FileBytes bytes;
            EXPECT(file_read_new(&bytes, path, 1 << 24).code == EXIT_OK, "read");
            json_t *value;
            const Error error = json_parse_new(&value, bytes.data, bytes.size);
            EXPECT((value != NULL) == (error.code == EXIT_OK), "a value or an error");
            if (names[i][0] == 'y' && !is_refused_by_design(names[i])) {
                EXPECT(value, "%s", error.text);
            } else if (names[i][0] == 'n' || is_refused_by_design(names[i])) {
                EXPECT(!value && error.code == EXIT_BAD_DATA, "accepted");
            }
            json_decref(value);
            file_bytes_free(&bytes);
            free(path);
        }
    }
    file_list_free(names, count);
}

TEST(json_members) {
    const char *text =
        "{\"t\": \"a\", \"i\": 5, \"r\": 2.5, \"b\": true, \"o\": {}, \"a\": [1], \"n\": null}";
    json_t *object;
    EXPECT(json_parse_new(&object, text, strlen(text)).code == EXIT_OK, "parse");
    const char *t = "", *unchanged = "default";
    int64_t i = 0;
    double r = 0;
    bool b = false;
    const json_t *o = NULL, *a = NULL;
    EXPECT(json_member_text(object, "t", true, &t).code == EXIT_OK && strcmp(t, "a") == 0, "text");
    EXPECT(json_member_int(object, "i", true, 0, 5, &i).code == EXIT_OK && i == 5, "int");
    EXPECT(json_member_number(object, "r", true, &r).code == EXIT_OK && r == 2.5, "number");
    EXPECT(json_member_number(object, "i", true, &r).code == EXIT_OK && r == 5,
           "an integer is a number");
    EXPECT(json_member_bool(object, "b", true, &b).code == EXIT_OK && b, "bool");
    EXPECT(json_member_object(object, "o", true, &o).code == EXIT_OK && o, "object");
    EXPECT(json_member_array(object, "a", true, &a).code == EXIT_OK && json_array_size(a) == 1,
           "array");
    EXPECT(json_member_text(object, "x", false, &unchanged).code == EXIT_OK &&
               strcmp(unchanged, "default") == 0,
           "absent");
    EXPECT(json_member_text(object, "n", false, &unchanged).code == EXIT_OK, "null is absent");
    Error error = json_member_text(object, "n", true, &t);
    EXPECT(strcmp(error.text, "member 'n' wants a text, got null") == 0, "%s", error.text);
    error = json_member_text(object, "x", true, &t);
    EXPECT(strcmp(error.text, "member 'x' is missing, a text is wanted") == 0, "%s", error.text);
    error = json_member_int(object, "r", false, 0, 5, &i);
    EXPECT(strcmp(error.text, "member 'r' wants an integer, got a number") == 0, "%s", error.text);
    error = json_member_int(object, "i", false, 0, 4, &i);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "5 is outside 0 .. 4"), "%s",
           error.text);
    EXPECT(json_member_text(NULL, "x", true, &t).code == EXIT_BAD_DATA, "no object");
    json_decref(object);
}

TEST(json_errors_name_the_place) {
    const char *text = "{\n \"a\": 1,\n \"a\": 2}";
    json_t *value;
    const Error error = json_parse_new(&value, text, strlen(text));
    EXPECT(strstr(error.text, "line 3 column") && strstr(error.text, "duplicate"), "%s",
           error.text);
}

TEST(json_writing) {
    const struct {
        const char *text, *want;
    } cases[] = {{"", "\"\""},
                 {"a\"b\\c/\n\x01", "\"a\\\"b\\\\c/\\u000a\\u0001\""},
                 {"\xc3\xa9", "\"\xc3\xa9\""},
                 {"\xff x", "\"\xef\xbf\xbd x\""},
                 {"\xe2\x82", "\"\xef\xbf\xbd\""}, // a cut character: one replacement
                 {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, // a surrogate: three
                 {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""}};                // overlong
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = json_quote_new(cases[i].text);
        EXPECT(strcmp(got, cases[i].want) == 0, "case %zu: %s", i, got);
        free(got);
    }
    char room[JSON_NUMBER_ROOM];
    const double numbers[] = {0, 0.1, 1.0 / 3, 1e300, -2, 123456789};
    for (size_t i = 0; i < 6; i++) {
        EXPECT(strtod(json_number(room, numbers[i]), NULL) == numbers[i], "%s", room);
    }
    EXPECT(strcmp(json_number(room, NAN), "null") == 0, "%s", room);
    EXPECT(strcmp(json_number(room, -INFINITY), "null") == 0, "%s", room);
    EXPECT(strcmp(json_number(room, 0.1), "0.1") == 0, "%s", room);
}

// ---- jsonl ----
static Jsonl begin(const char *text) {
    Jsonl reader;
    jsonl_begin(&reader, "f.jsonl", text, strlen(text));
    return reader;
}

// The next row's member "a" as text, or "" when there is none.
static const char *next_text(Jsonl *reader, json_t **row) {
    const Error error = jsonl_next(reader, row);
    EXPECT(error.code == EXIT_OK && *row, "line %zu: %s", reader->line, error.text);
    const char *text = "";
    json_member_text(*row, "a", false, &text);
    return text;
}

TEST(jsonl_lines) {
    Jsonl reader = begin("\xef\xbb\xbf{\"a\": \"1\"}\r\n\n  \t\r\n{\"a\": \"2\"}\n{\"a\": \"3\"}");
    const char *wants[] = {"1", "2", "3"};
    const size_t lines[] = {1, 4, 5}, starts[] = {3, 21, 32};
    json_t *row;
    for (int i = 0; i < 3; i++) {
        const char *text = next_text(&reader, &row);
        EXPECT(strcmp(text, wants[i]) == 0, "row %d: '%s'", i, text);
        EXPECT(reader.line == lines[i] && reader.line_start == starts[i], "row %d: line %zu at %zu",
               i, reader.line, reader.line_start);
        json_decref(row);
    }
    EXPECT(jsonl_next(&reader, &row).code == EXIT_OK && !row && reader.rows == 3, "end");
    EXPECT(jsonl_next(&reader, &row).code == EXIT_OK && !row, "end again");
    jsonl_end(&reader);
    reader = begin("");
    EXPECT(jsonl_next(&reader, &row).code == EXIT_OK && !row, "an empty file");
    jsonl_end(&reader);
}

TEST(jsonl_numbers_of_python) {
    Jsonl reader =
        begin("{\"x\": NaN, \"y\": [-Infinity, Infinity,-1], \"a\": \"NaN \\\"Infinity\\\" -\"}\n");
    json_t *row;
    const char *text = next_text(&reader, &row);
    EXPECT(strcmp(text, "NaN \"Infinity\" -") == 0, "texts stay: %s", text);
    EXPECT(json_is_null(json_object_get(row, "x")), "x");
    const json_t *y = json_object_get(row, "y");
    EXPECT(json_is_null(json_array_get(y, 0)) && json_is_null(json_array_get(y, 1)), "y");
    EXPECT(json_integer_value(json_array_get(y, 2)) == -1, "-1");
    EXPECT(reader.replaced_numbers == 3, "%zu", reader.replaced_numbers);
    json_decref(row);
    log_set_level(LOG_ERROR);
    jsonl_end(&reader);
}

TEST(jsonl_non_utf8) {
    const struct {
        const char *line, *want;
        size_t count;
    } cases[] = {
        {"{\"a\": \"\xff\xfe\"}", "\xef\xbf\xbd\xef\xbf\xbd", 2},
        {"{\"a\": \"\xe2\x82 x\"}", "\xef\xbf\xbd x", 1},
        {"{\"a\": \"\\ud800 x\"}", "\xef\xbf\xbd x", 1},
        {"{\"a\": \"\\udc00\\ud800\"}", "\xef\xbf\xbd\xef\xbf\xbd", 2},
        {"{\"a\": \"x\\u0000y\"}", "x\xef\xbf\xbdy", 1},
        {"{\"a\": \"\\ud83d\\ude00 \\u00e9 \\\\u0000\"}", "\xf0\x9f\x98\x80 \xc3\xa9 \\u0000", 0},
        {"{\"a\": \"\xf0\x9f\x98\x80\xc3\xa9\"}", "\xf0\x9f\x98\x80\xc3\xa9", 0},
    };
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Jsonl reader = begin(cases[i].line);
        json_t *row;
        const char *text = next_text(&reader, &row);
        EXPECT(strcmp(text, cases[i].want) == 0, "case %zu: '%s'", i, text);
        EXPECT(reader.replaced_texts == cases[i].count, "case %zu: %zu", i, reader.replaced_texts);
        json_decref(row);
        jsonl_end(&reader);
        reader = begin(cases[i].line);
        reader.is_utf8_strict = true;
        const Error error = jsonl_next(&reader, &row);
        EXPECT((error.code == EXIT_BAD_DATA) == (cases[i].count > 0), "strict case %zu: %s", i,
               error.text);
        json_decref(row);
        jsonl_end(&reader);
    }
}

TEST(jsonl_bad_lines) {
    const char *text = "{\"a\": \"1\"}\n{bad\n[1]\n{\"a\": \"2\"}\n{\"a\": 1, \"a\": 2}\n";
    Jsonl reader = begin(text);
    json_t *row;
    log_set_level(LOG_ERROR);
    json_decref((next_text(&reader, &row), row));
    Error error = jsonl_next(&reader, &row);
    EXPECT(error.code == EXIT_BAD_DATA && error.offset == 2 && !row, "line %zu: %s", error.offset,
           error.text);
    EXPECT(strncmp(error.text, "column ", 7) == 0, "%s", error.text);
    error = jsonl_next(&reader, &row);
    EXPECT(error.offset == 3 && strstr(error.text, "an object {...} is wanted, got an array"), "%s",
           error.text);
    jsonl_end(&reader);

    reader = begin(text);
    reader.max_bad_lines = 2;
    json_decref((next_text(&reader, &row), row));
    EXPECT(strcmp(next_text(&reader, &row), "2") == 0, "two bad lines are skipped");
    json_decref(row);
    error = jsonl_next(&reader, &row);
    EXPECT(error.code == EXIT_BAD_DATA && error.offset == 5 && strstr(error.text, "duplicate"),
           "the third is too much: %s", error.text);
    EXPECT(reader.bad_lines == 3 && reader.rows == 2, "%zu bad", reader.bad_lines);
    jsonl_end(&reader);
}

TEST(jsonl_long_line) {
    const size_t size = (16 << 20) + 100;
    char *text = xmalloc(size, 1);
    memset(text, 'x', size);
    memcpy(text, "{\"a\": \"", 7);
    memcpy(text + size - 3, "\"}\n", 3);
    Jsonl reader;
    json_t *row;
    jsonl_begin(&reader, "f", text, size);
    const Error error = jsonl_next(&reader, &row);
    EXPECT(error.code == EXIT_BAD_DATA && strstr(error.text, "16 MiB"), "%s", error.text);
    jsonl_end(&reader);
    jsonl_begin(&reader, "f", text + 100, size - 100); // garbage of exactly 16 MiB with its newline
    EXPECT(jsonl_next(&reader, &row).code == EXIT_BAD_DATA && !row, "no JSON");
    jsonl_end(&reader);
    free(text);
}

// Any damage gives rows or errors, never a crash; and the reader always comes to the end.
TEST(jsonl_damaged) {
    const char *good = "{\"a\": \"x\\ud83d\\ude00\\u0041\", \"b\": [NaN, -Infinity, 1.5e3], \"c\": "
                       "\"\xc3\xa9\"}\r\n";
    const size_t one = strlen(good), size = 4 * one;
    Rng rng = check_rng(0);
    log_set_level(LOG_ERROR);
    for (int i = 0; i < 2000; i++) {
        const size_t cut = i % 2 ? size : 1 + rng_below(&rng, (uint32_t)size - 1);
        char *bad = xmalloc(cut, 1);
        for (size_t k = 0; k < cut; k++) {
            bad[k] = good[k % one];
        }
        for (int k = 0; k < 4; k++) {
            bad[rng_below(&rng, (uint32_t)cut)] = (char)rng_below(&rng, 256);
        }
        Jsonl reader;
        jsonl_begin(&reader, "f", bad, cut);
        reader.is_utf8_strict = i % 3 == 0;
        reader.max_bad_lines = 1000;
        json_t *row;
        size_t rows = 0;
        do {
            EXPECT(jsonl_next(&reader, &row).code == EXIT_OK, "bad lines are allowed");
            rows += row != NULL;
            json_decref(row);
        } while (row);
        EXPECT(rows == reader.rows && reader.at == reader.end, "%zu rows", rows);
        jsonl_end(&reader);
        free(bad);
    }
}
