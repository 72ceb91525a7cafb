// Tests of host/keyfile: what is read, what is refused and where, and the YAML test suite as
// hostile input.
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "check.h"
#include "host/file.h"
#include "host/keyfile.h"

TEST(keyfile_flattens) {
    const char *text = "\xef\xbb\xbf# comment\n"
                       "a: 1\n"
                       "b: {c: 'x y', d.e: [1, \"no\", no]}\n"
                       "f:\n  g:\n    h: |\n      two\n      lines\n"
                       "i:\n";
    KeyFile file;
    const Error error = keyfile_parse_new(&file, text, strlen(text));
    EXPECT(error.code == EXIT_OK, "%zu:%s", error.offset, error.text);
    const struct {
        const char *path;
        KeyKind kind;
        int count, line, column;
    } want[] = {{"a", KEY_SCALAR, 1, 2, 1},     {"b", KEY_MAP, 0, 3, 1},
                {"b.c", KEY_SCALAR, 1, 3, 5},   {"b.d.e", KEY_LIST, 3, 3, 15},
                {"f", KEY_MAP, 0, 4, 1},        {"f.g", KEY_MAP, 0, 5, 3},
                {"f.g.h", KEY_SCALAR, 1, 6, 5}, {"i", KEY_SCALAR, 1, 9, 1}};
    EXPECT(file.count == 8, "count=%d", file.count);
    for (int i = 0; i < 8 && i < file.count; i++) {
        const KeyEntry *e = &file.entries[i];
        EXPECT(strcmp(e->path, want[i].path) == 0 && e->kind == want[i].kind &&
                   e->count == want[i].count && e->line == want[i].line &&
                   e->column == want[i].column,
               "entry %d: %s kind %d count %d at %d:%d", i, e->path, (int)e->kind, e->count,
               e->line, e->column);
    }
    const KeyEntry *list = &file.entries[3];
    EXPECT(!keyfile_is_old_bool(&list->items[1]) && keyfile_is_old_bool(&list->items[2]),
           "quoting");
    EXPECT(strcmp(file.entries[6].items[0].text, "two\nlines\n") == 0, "block scalar");
    EXPECT(keyfile_is_null(&file.entries[7].items[0]), "an empty value is null");
    keyfile_free(&file);
}

static bool has_duplicate(const KeyFile *file) {
    for (int i = 0; i < file->count; i++) {
        if (file->entries[i].first_line) {
            return true;
        }
    }
    return false;
}

TEST(keyfile_marks_duplicates) {
    const char *texts[] = {"a: 1\na: 2\n", "a.b: 1\na: {b: 2}\n", "a: 1\na: {b: 2}\n",
                           "a: 1\nb: 1\n"};
    const int first[] = {1, 1, 1, 0};
    for (int i = 0; i < 4; i++) {
        KeyFile file;
        const Error error = keyfile_parse_new(&file, texts[i], strlen(texts[i]));
        int found = 0;
        for (int k = 0; k < file.count; k++) {
            found = found ? found : file.entries[k].first_line;
        }
        EXPECT(error.code == EXIT_OK && found == first[i] && has_duplicate(&file) == (first[i] > 0),
               "'%s': first in line %d: %s", texts[i], found, error.text);
        keyfile_free(&file);
    }
}

TEST(keyfile_refuses) {
    char deep[200] = "", *at = deep;
    for (int i = 0; i < 20; i++) {
        at += sprintf(at, "{a: ");
    }
    const struct {
        const char *text;
        size_t line;
        const char *what;
    } cases[] = {
        {"a: &x 1\nb: *x\n", 1, "4: anchors"},
        {"a: 1\nb: *x\n", 2, "4: aliases"},
        {"a: !!str 1\n", 1, "4: tags"},
        {"a: 1\n---\nb: 2\n", 2, "1: a second document"},
        {"- a\n- b\n", 1, "1: the file must hold"},
        {"just text\n", 1, "1: the file must hold"},
        {"a: [[1]]\n", 1, "5: a list holds plain values only"},
        {"a: [{b: 1}]\n", 1, "5: a list holds plain values only"},
        {"? [a]\n: 1\n", 1, "3: a key must be a name"},
        {"a: \"x\\0y\"\n", 1, "4: a zero character"},
        {"a: 'x\n", 2, "found unexpected end of stream"},
        {"a: 1\n b: 2\n", 2, "mapping values are not allowed"},
        {"a: \xff\n", 1, "invalid leading UTF-8"},
        {deep, 1, "nested more than 16 levels"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%.20s", cases[i].text)) {
            KeyFile file;
            const Error error = keyfile_parse_new(&file, cases[i].text, strlen(cases[i].text));
            EXPECT(error.code == EXIT_CONFIG && error.offset == cases[i].line &&
                       strstr(error.text, cases[i].what),
                   "code %d, %zu:%s", (int)error.code, error.offset, error.text);
            EXPECT(file.count == 0 && !file.entries, "nothing comes with an error");
        }
    }
}

TEST(keyfile_scalars) {
    const struct {
        const char *text;
        bool is_int, is_float;
        double value;
    } cases[] = {
        {"0", true, true, 0},
        {"-12", true, true, -12},
        {"+7", true, true, 7},
        {"0x1F", true, true, 31},
        {"0o17", true, true, 15},
        {"007", true, true, 7},
        {"1e-4", false, true, 1e-4},
        {"1E5", false, true, 1e5},
        {".5", false, true, 0.5},
        {"5.", false, true, 5},
        {"-1.5e+3", false, true, -1500},
        {"-.inf", false, true, -INFINITY},
        {"", false, false, 0},
        {".", false, false, 0},
        {"e5", false, false, 0},
        {"1e", false, false, 0},
        {"1_000", false, false, 0},
        {"0x", false, false, 0},
        {"0b1", false, false, 0},
        {"1 2", false, false, 0},
        {"nan", false, false, 0},
        {"inf", false, false, 0},
        {"0x1p3", false, false, 0},
        {"-0x1", false, false, 0},
        {"9223372036854775807", true, true, 9223372036854775807.0},
        {"9223372036854775808", false, true, 9223372036854775808.0},
        {"1:30", false, false, 0},
        {"12e03", false, true, 12000},
        {"--1", false, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const KeyScalar s = {.text = (char *)(uintptr_t)cases[i].text};
        int64_t integer = 0;
        double value = 0;
        EXPECT(keyfile_get_int(&s, &integer) == cases[i].is_int, "'%s' as int", s.text);
        EXPECT(keyfile_get_float(&s, &value) == cases[i].is_float, "'%s' as float", s.text);
        EXPECT(!cases[i].is_float || value == cases[i].value, "'%s' gave %g", s.text, value);
        EXPECT(!cases[i].is_int || (double)integer == cases[i].value, "'%s' gave %lld", s.text,
               (long long)integer);
    }
    double value;
    EXPECT(keyfile_get_float(&(KeyScalar){.text = (char[]){".nan"}}, &value) && isnan(value),
           ".nan");
    bool flag;
    EXPECT(keyfile_get_bool(&(KeyScalar){.text = (char[]){"True"}}, &flag) && flag, "True");
    EXPECT(!keyfile_get_bool(&(KeyScalar){.text = (char[]){"yes"}}, &flag), "yes is a text");
    EXPECT(!keyfile_get_bool(&(KeyScalar){.text = (char[]){"true"}, .is_quoted = true}, &flag),
           "quoted");
}

// ---- the YAML test suite ----
// Each file is a YAML list of cases with the fields `yaml` and perhaps `fail: true`.
typedef struct {
    char *yaml;
    bool is_bad;
} SuiteCase;

static int read_suite_file(const FileBytes *bytes, SuiteCase *cases, int most) {
    yaml_parser_t parser;
    yaml_event_t event;
    CHECK(yaml_parser_initialize(&parser), "memory");
    yaml_parser_set_input_string(&parser, bytes->data, bytes->size);
    int depth = 0, count = 0;
    bool is_key = true, is_over = false;
    char key[32] = "";
    while (!is_over && yaml_parser_parse(&parser, &event)) {
        const yaml_event_type_t type = event.type;
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT) {
            if (++depth == 2 && count < most) {
                cases[count++] = (SuiteCase){0};
            }
            is_key = true;
        } else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT) {
            depth--;
            is_key = true;
        } else if (type == YAML_SCALAR_EVENT && depth == 2) {
            const char *text = (const char *)event.data.scalar.value;
            if (is_key) {
                snprintf(key, sizeof key, "%s", text);
            } else if (strcmp(key, "yaml") == 0 && !cases[count - 1].yaml) {
                cases[count - 1].yaml = xstrdup(text);
            } else if (strcmp(key, "fail") == 0) {
                cases[count - 1].is_bad = strcmp(text, "true") == 0;
            }
            is_key = !is_key;
        }
        is_over = type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return count;
}

// The suite writes blanks, tabs and line ends visibly; turned back in place.
static void unmark(char *text) {
    static const struct {
        const char *mark, *real;
    } marks[] = {{"\xe2\x90\xa3", " "}, {"\xe2\x86\xb5", ""}, {"\xe2\x86\x90", "\r"},
                 {"\xe2\x80\x94", ""},  {"\xc2\xbb", "\t"},   {"\xe2\x87\x94", "\xef\xbb\xbf"},
                 {"\xe2\x88\x8e\n", ""}};
    char *out = text;
    while (*text) {
        size_t i = 0;
        while (i < sizeof marks / sizeof *marks &&
               strncmp(text, marks[i].mark, strlen(marks[i].mark))) {
            i++;
        }
        if (i < sizeof marks / sizeof *marks) {
            const size_t length = strlen(marks[i].real);
            const size_t skip = strlen(marks[i].mark);
            memmove(out, marks[i].real, length);
            out += length;
            text += skip;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

// libyaml reads YAML 1.1 and is laxer than the suite in these files; nothing else may be let
// through.
static bool is_known_lax(const char *name) {
    static const char *const names[] = {"9C9N", "MUS6", "QB6E", "S98Z", "SU5Z", "X4QW"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(name, names[i], 4) == 0) {
            return true;
        }
    }
    return false;
}

TEST(keyfile_yaml_suite) {
    const char *folder = check_data("config/yaml");
    if (!folder) {
        return;
    }
    char **names;
    int count, accepted = 0, refused = 0;
    EXPECT(file_list_new(&names, &count, folder).code == EXIT_OK, "list");
    for (int i = 0; i < count; i++) {
        if (!strstr(names[i], ".yaml") || !CASE("%s", names[i])) {
            continue;
        }
        char *path = file_join_new(folder, names[i]);
        FileBytes bytes;
        EXPECT(file_read_new(&bytes, path, 1 << 20).code == EXIT_OK, "read %s", path);
        SuiteCase cases[64];
        const int n = read_suite_file(&bytes, cases, 64);
        EXPECT(n > 0, "no cases in %s", path);
        for (int k = 0; k < n; k++) {
            if (cases[k].yaml) {
                unmark(cases[k].yaml);
                KeyFile file;
                const Error error = keyfile_parse_new(&file, cases[k].yaml, strlen(cases[k].yaml));
                EXPECT(!cases[k].is_bad || error.code != EXIT_OK || has_duplicate(&file) ||
                           is_known_lax(names[i]),
                       "%s case %d is bad YAML but was accepted", names[i], k);
                EXPECT(error.code == EXIT_OK || error.offset >= 1, "no line: %s", error.text);
                accepted += error.code == EXIT_OK;
                refused += error.code != EXIT_OK;
                keyfile_free(&file);
                free(cases[k].yaml);
            }
        }
        file_bytes_free(&bytes);
        free(path);
    }
    LOG(INFO, "yaml suite: %d accepted, %d refused", accepted, refused);
    file_list_free(names, count);
}
