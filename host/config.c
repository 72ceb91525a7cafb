// config: the table made from the list of keys; what sets, prints and explains them; see config.h.
#define _POSIX_C_SOURCE 200809L
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "keyfile.h"

// ---- the table ----
typedef enum {
    TYPE_BOOL,
    TYPE_INT,
    TYPE_SIZE,
    TYPE_FLOAT,
    TYPE_TEXT,
    TYPE_CHOICE,
    TYPE_TEXTS,
    TYPE_INTS
} Type;

typedef struct {
    const char *name;
    Type type;
    size_t offset;        // in struct Config
    const char *fallback; // the default, as it would be written on the command line
    double low, high;     // of a number, or of each item
    const char *choices;  // "new|resume|overwrite|", or NULL
    const char *help;
} Key;

#define ANY .low = 0
#define BETWEEN(least, most) .low = (least), .high = (most)
#define CHOICE_TEXT(enumerator, text) text "|"
#define ONE_OF(list) .choices = list(CHOICE_TEXT)
#define ROW(section, leaf, kind, default_text, range, help_text) \
    {.name = #section #leaf,                                     \
     .type = TYPE_##kind,                                        \
     .offset = offsetof(Config, section leaf),                   \
     .fallback = default_text,                                   \
     .help = help_text,                                          \
     range},
static const Key keys[CONFIG_COUNT] = {CONFIG(CONFIG_NOTHING, ROW, CONFIG_NOTHING)};

#define REFUSED_ROW(key, value, why) {key, value, why},
static const struct { const char *key, *value, *why; } refused[] = {CONFIG_REFUSED(REFUSED_ROW)};

static const Key *find_key(const char *name) {
    for (int i = 0; i < CONFIG_COUNT; i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static bool is_section(const char *name) {
    const size_t length = strlen(name);
    for (int i = 0; i < CONFIG_COUNT; i++) {
        if (strncmp(keys[i].name, name, length) == 0 && keys[i].name[length] == '.') {
            return true;
        }
    }
    return false;
}

static const char *refusal(const char *key, const char *value) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (strcmp(refused[i].key, key) == 0 &&
            (!refused[i].value[0] || strcmp(refused[i].value, value) == 0)) {
            return refused[i].why;
        }
    }
    return NULL;
}

// ---- the nearest name ----
// Edits (insert, delete, replace, swap of neighbours) from a to b: optimal string alignment.
static int edit_distance(const char *a, const char *b) {
    enum { MOST = 64 };
    int rows[3][MOST + 1];
    const int la = (int)strlen(a), lb = (int)strlen(b);
    if (la > MOST || lb > MOST) {
        return MOST;
    }
    for (int j = 0; j <= lb; j++) {
        rows[0][j] = j;
    }
    for (int i = 1; i <= la; i++) {
        int *row = rows[i % 3];
        const int *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= lb; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < best) {
                best = above2[j - 2] + 1;
            }
            row[j] = best;
        }
    }
    return rows[la % 3][lb];
}

const char *config_nearest(const char *text, const char *const *names, int count) {
    const char *best = NULL;
    int least = (int)strlen(text) / 3 + 2; // farther away it is another word
    for (int i = 0; i < count; i++) {
        const char *dot = strrchr(names[i], '.');
        int distance = edit_distance(text, names[i]);
        if (dot && strcmp(dot + 1, text) == 0) {
            distance = 1; // the section was forgotten
        }
        if (distance < least) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}

static const char *nearest_key(const char *text) {
    const char *names[CONFIG_COUNT];
    for (int i = 0; i < CONFIG_COUNT; i++) {
        names[i] = keys[i].name;
    }
    return config_nearest(text, names, CONFIG_COUNT);
}

// The section closest to a map's key, or NULL; the text lives until the next call.
static const char *nearest_section(const char *name) {
    static char sections[CONFIG_COUNT][24];
    const char *names[CONFIG_COUNT];
    int count = 0;
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const size_t length = strcspn(keys[i].name, ".");
        if (keys[i].name[length] && length < sizeof *sections) {
            snprintf(sections[count], sizeof *sections, "%.*s", (int)length, keys[i].name);
            names[count] = sections[count];
            count++;
        }
    }
    return config_nearest(name, names, count);
}

// ---- problems ----
static void add_problem(ConfigProblems *problems, char *line) {
    problems->lines = xrealloc(problems->lines, (size_t)problems->count + 1, sizeof(char *));
    problems->lines[problems->count++] = line;
}

void config_problems_free(ConfigProblems *problems) {
    for (int i = 0; i < problems->count; i++) {
        free(problems->lines[i]);
    }
    free(problems->lines);
    *problems = (ConfigProblems){0};
}

// ---- values ----
static void *field_of(Config *config, const Key *key) { return (char *)config + key->offset; }
static const void *field_of_const(const Config *config, const Key *key) {
    return (const char *)config + key->offset;
}

static void free_value(Config *config, const Key *key) {
    void *field = field_of(config, key);
    if (key->type == TYPE_TEXT) {
        free(*(char **)field);
        *(char **)field = NULL;
    } else if (key->type == TYPE_TEXTS) {
        TextList *list = field;
        for (int i = 0; i < list->count; i++) {
            free(list->items[i]);
        }
        free(list->items);
        *list = (TextList){0};
    } else if (key->type == TYPE_INTS) {
        free(((IntList *)field)->items);
        *(IntList *)field = (IntList){0};
    }
}

// Place of text in "a|b|c|", or -1.
static int choice_index(const char *choices, const char *text) {
    const size_t length = strlen(text);
    int index = 0;
    for (const char *p = choices; *p; p = strchr(p, '|') + 1, index++) {
        if (strncmp(p, text, length) == 0 && p[length] == '|') {
            return index;
        }
    }
    return -1;
}

// NULL, and the value stored, or what is wrong with it (caller frees).
static char *store_number(const Key *key, const KeyScalar *scalar, void *field) {
    const bool is_int = key->type != TYPE_FLOAT;
    double value = 0;
    int64_t integer = 0;
    if (is_int ? !keyfile_get_int(scalar, &integer) : !keyfile_get_float(scalar, &value)) {
        return xformat_new("wants %s, got %s'%.80s'", is_int ? "an integer" : "a number",
                           scalar->is_quoted ? "the text " : "", scalar->text);
    }
    value = is_int ? (double)integer : value;
    if (!(value >= key->low && value <= key->high)) { // NaN fails here too
        return xformat_new("%s is outside %.10g .. %.10g", scalar->text, key->low, key->high);
    }
    if (key->type == TYPE_SIZE) {
        *(int64_t *)field = integer;
    } else if (is_int) {
        *(int *)field = (int)integer;
    } else {
        *(double *)field = value;
    }
    return NULL;
}

static char *store_scalar(const Key *key, const KeyScalar *scalar, void *field) {
    if (keyfile_is_null(scalar)) {
        return xformat_new("has no value; write one, '' for an empty text");
    }
    switch (key->type) {
    case TYPE_BOOL:
        if (!keyfile_get_bool(scalar, field)) {
            return xformat_new("wants true or false, got '%.80s'", scalar->text);
        }
        return NULL;
    case TYPE_TEXT: *(char **)field = xstrdup(scalar->text); return NULL;
    case TYPE_CHOICE: {
        const int index = choice_index(key->choices, scalar->text);
        if (index < 0) {
            return xformat_new("wants %.*s, got '%.80s'", (int)strlen(key->choices) - 1,
                               key->choices, scalar->text);
        }
        *(int *)field = index;
        return NULL;
    }
    default: return store_number(key, scalar, field);
    }
}

static char *store_list(const Key *key, const KeyEntry *entry, void *field) {
    TextList *texts = field;
    IntList *ints = field;
    for (int i = 0; i < entry->count; i++) {
        const KeyScalar *item = &entry->items[i];
        char *what = NULL;
        if (keyfile_is_null(item)) {
            what = xformat_new("item %d has no value", i + 1);
        } else if (key->type == TYPE_TEXTS) {
            texts->items = xrealloc(texts->items, (size_t)i + 1, sizeof(char *));
            texts->items[i] = xstrdup(item->text);
            texts->count = i + 1;
        } else {
            ints->items = xrealloc(ints->items, (size_t)i + 1, sizeof(int));
            ints->count = i + 1;
            what = store_number(key, item, &ints->items[i]);
        }
        if (what) {
            return what;
        }
    }
    return NULL;
}

// Sets one key from its entry; on a problem the key keeps an empty or old value and stays unset.
static char *store(Config *config, const Key *key, const KeyEntry *entry) {
    const bool wants_list = key->type == TYPE_TEXTS || key->type == TYPE_INTS;
    if (entry->kind == KEY_MAP) {
        return xformat_new("wants %s, got keys below it", wants_list ? "a list" : "one value");
    }
    if (wants_list != (entry->kind == KEY_LIST)) {
        return xformat_new(wants_list ? "wants a list, [a, b]" : "wants one value, got a list");
    }
    Config scratch = {0}; // so that a bad value does not overwrite a good one halfway
    char *what = wants_list ? store_list(key, entry, field_of(&scratch, key))
                            : store_scalar(key, &entry->items[0], field_of(&scratch, key));
    if (what) {
        free_value(&scratch, key);
        return what;
    }
    free_value(config, key);
    static const size_t sizes[] = {sizeof(bool),   sizeof(int), sizeof(int64_t),  sizeof(double),
                                   sizeof(char *), sizeof(int), sizeof(TextList), sizeof(IntList)};
    memcpy(field_of(config, key), field_of(&scratch, key), sizes[key->type]);
    config->is_set[key - keys] = true;
    return NULL;
}

// ---- reading ----
// Handles one entry of a file or the command line; place is put in front of problems.
static void apply(Config *config, ConfigProblems *problems, const char *place,
                  const KeyEntry *entry) {
    const Key *key = find_key(entry->path);
    const char *value = entry->kind == KEY_SCALAR ? entry->items[0].text : "";
    if (!key && is_section(entry->path)) {
        if (entry->kind == KEY_LIST ||
            (entry->kind == KEY_SCALAR && !keyfile_is_null(entry->items))) {
            add_problem(problems, xformat_new("%s: '%s' is a section, give its keys values", place,
                                              entry->path));
        }
        return;
    }
    char *wrong = key ? store(config, key, entry) : NULL;
    if (key && !wrong) {
        return;
    }
    const char *reason = refusal(entry->path, value), *why = reason ? reason : wrong;
    const char *near =
        entry->kind == KEY_MAP ? nearest_section(entry->path) : nearest_key(entry->path);
    if (why) {
        add_problem(problems, xformat_new("%s: %s: %s", place, entry->path, why));
    } else if (near) {
        add_problem(problems, xformat_new("%s: unknown key '%.100s'; did you mean '%s'", place,
                                          entry->path, near));
    } else {
        add_problem(problems, xformat_new("%s: unknown key '%.100s'; jomed VERB --help lists them",
                                          place, entry->path));
    }
    free(wrong);
}

static void warn_old_bools(const char *name, const KeyEntry *entry) {
    for (int i = 0; i < entry->count; i++) {
        if (keyfile_is_old_bool(&entry->items[i])) {
            LOG(WARN, "%s:%d:%d: %s: unquoted %s is the text '%s' here; quote it to say so", name,
                entry->items[i].line, entry->items[i].column, entry->path, entry->items[i].text,
                entry->items[i].text);
        }
    }
}

void config_read_yaml(Config *config, ConfigProblems *problems, const char *name, const void *text,
                      size_t size) {
    KeyFile file;
    const Error error = keyfile_parse_new(&file, text, size);
    if (error.code != EXIT_OK) {
        add_problem(problems, xformat_new("%s:%zu:%s", name, error.offset, error.text));
        return;
    }
    for (int i = 0; i < file.count; i++) {
        const KeyEntry *entry = &file.entries[i];
        bool is_below_unknown = false; // the unknown section itself is told, not all it holds
        for (int k = 0; k < i && !is_below_unknown; k++) {
            const size_t length = strlen(file.entries[k].path);
            is_below_unknown = file.entries[k].kind == KEY_MAP &&
                               !is_section(file.entries[k].path) &&
                               strncmp(entry->path, file.entries[k].path, length) == 0 &&
                               entry->path[length] == '.';
        }
        char *place = xformat_new("%s:%d:%d", name, entry->line, entry->column);
        if (entry->first_line) {
            add_problem(problems, xformat_new("%s: duplicate key '%.80s', first in line %d", place,
                                              entry->path, entry->first_line));
        } else if (!is_below_unknown) {
            apply(config, problems, place, entry);
            warn_old_bools(name, entry);
        }
        free(place);
    }
    keyfile_free(&file);
}

// value as an entry: through YAML where the key wants a list, else the text as it stands.
static void apply_text(Config *config, ConfigProblems *problems, const char *place, char *path,
                       const char *value) {
    const Key *key = find_key(path);
    if (key && (key->type == TYPE_TEXTS || key->type == TYPE_INTS)) {
        char *text = xformat_new("x: %s", value);
        KeyFile file;
        const Error error = keyfile_parse_new(&file, text, strlen(text));
        free(text);
        if (error.code != EXIT_OK || file.count != 1) {
            add_problem(problems, xformat_new("%s: %s: wants a list, [a, b]", place, path));
        } else {
            KeyEntry entry = file.entries[0];
            entry.path = path;
            apply(config, problems, place, &entry);
        }
        keyfile_free(&file);
        return;
    }
    char *copy = xstrdup(value);
    const bool is_text = key && key->type == TYPE_TEXT; // whatever the shell passed
    KeyScalar scalar = {.text = copy, .is_quoted = is_text};
    const KeyEntry entry = {.path = path, .kind = KEY_SCALAR, .items = &scalar, .count = 1};
    apply(config, problems, place, &entry);
    free(copy);
}

void config_override(Config *config, ConfigProblems *problems, const char *argument) {
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument) {
        add_problem(problems, xformat_new("'%.100s': wants key=value", argument));
        return;
    }
    char *path = xformat_new("%.*s", (int)(equals - argument), argument);
    apply_text(config, problems, "command line", path, equals + 1);
    free(path);
}

void config_init(Config *config) {
    *config = (Config){0};
    ConfigProblems problems = {0};
    for (int i = 0; i < CONFIG_COUNT; i++) {
        char *path = xstrdup(keys[i].name);
        apply_text(config, &problems, "default", path, keys[i].fallback);
        free(path);
        config->is_set[i] = false;
    }
    CHECK(problems.count == 0, "%s", problems.lines[0]);
}

void config_free(Config *config) {
    for (int i = 0; i < CONFIG_COUNT; i++) {
        free_value(config, &keys[i]);
    }
}

void config_finish(Config *config) {
    for (int i = 0; i < CONFIG_COUNT; i++) {
        if (config->exact.all && !config->is_set[i] && strncmp(keys[i].name, "exact.", 6) == 0) {
            *(bool *)field_of(config, &keys[i]) = true;
        }
    }
}

void config_from_arguments(Config *config, int count, char **arguments) {
    config_init(config);
    ConfigProblems problems = {0};
    const char *path = NULL;
    for (int i = 0; i < count; i++) {
        if (strchr(arguments[i], '=')) {
            continue;
        }
        if (file_is_directory(arguments[i])) {
            char *const argument = xformat_new("model.dir=%s", arguments[i]);
            config_override(config, &problems, argument);
            free(argument);
            continue;
        }
        if (path) {
            die(EXIT_SYNTAX, "'%s': one configuration file is enough, '%s' came first; overrides "
                "are key=value", arguments[i], path);
        }
        path = arguments[i];
        FileBytes bytes;
        error_die(path, file_read_new(&bytes, path, (size_t)1 << 20));
        config_read_yaml(config, &problems, path, bytes.data, bytes.size);
        file_bytes_free(&bytes);
    }
    for (int i = 0; i < count; i++) {
        if (strchr(arguments[i], '=')) {
            config_override(config, &problems, arguments[i]);
        }
    }
    for (int i = 0; i + 1 < problems.count; i++) {
        fprintf(stderr, "error: %s\n", problems.lines[i]);
    }
    if (problems.count > 0) {
        die(EXIT_CONFIG, "%s", problems.lines[problems.count - 1]);
    }
    config_finish(config);
    log_set_level((LogLevel)config->log.level);
}

// ---- asking ----
bool config_is_set(const Config *config, const char *name) {
    const Key *key = find_key(name);
    CHECK(key, "no key '%s'", name);
    return config->is_set[key - keys];
}

// Is the key, or its section, one of the words of a blank-separated list?
static bool is_listed(const char *name, const char *words) {
    if (!words) {
        return true;
    }
    const char *dot = strchr(name, '.');
    const size_t section = dot ? (size_t)(dot - name) : strlen(name);
    for (const char *p = words; *p; p += *p == ' ') {
        const size_t length = strcspn(p, " ");
        if ((length == section && strncmp(p, name, section) == 0) ||
            (length == strlen(name) && strncmp(p, name, length) == 0)) {
            return true;
        }
        p += length;
    }
    return false;
}

void config_print_help(FILE *out, const char *sections) {
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const Key *key = &keys[i];
        if (!is_listed(key->name, sections)) {
            continue;
        }
        fprintf(out, "  %s=%s\n      ", key->name, key->fallback);
        if (key->choices) {
            fprintf(out, "%.*s: ", (int)strlen(key->choices) - 1, key->choices);
        } else if (key->type == TYPE_BOOL) {
            fputs("true|false: ", out);
        } else if (key->type != TYPE_TEXT && key->type != TYPE_TEXTS) {
            fprintf(out, "%.10g .. %.10g: ", key->low, key->high);
        }
        fprintf(out, "%s\n", key->help);
    }
}

// Text as a YAML scalar: plain where that is safe, else double-quoted.
static void print_text(FILE *out, const char *text) {
    if (keyfile_is_plain_safe(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            fprintf(out, "\\%c", *p);
        } else if (*p < 0x20 || *p == 0x7f) {
            fprintf(out, "\\x%02x", *p);
        } else {
            fputc(*p, out);
        }
    }
    fputc('"', out);
}

static void print_float(FILE *out, double value) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) { // the shortest that reads back equal
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    fputs(text, out);
}

static void print_value(FILE *out, const Key *key, const void *field) {
    const TextList *texts = field;
    const IntList *ints = field;
    switch (key->type) {
    case TYPE_BOOL: fputs(*(const bool *)field ? "true" : "false", out); break;
    case TYPE_INT: fprintf(out, "%d", *(const int *)field); break;
    case TYPE_SIZE: fprintf(out, "%lld", (long long)*(const int64_t *)field); break;
    case TYPE_FLOAT: print_float(out, *(const double *)field); break;
    case TYPE_TEXT: print_text(out, *(char *const *)field); break;
    case TYPE_CHOICE: {
        const char *p = key->choices;
        for (int i = 0; i < *(const int *)field; i++) {
            p = strchr(p, '|') + 1;
        }
        fprintf(out, "%.*s", (int)strcspn(p, "|"), p);
        break;
    }
    case TYPE_TEXTS:
    case TYPE_INTS:
        fputc('[', out);
        for (int i = 0; i < (key->type == TYPE_TEXTS ? texts->count : ints->count); i++) {
            fputs(i ? ", " : "", out);
            if (key->type == TYPE_TEXTS) {
                print_text(out, texts->items[i]);
            } else {
                fprintf(out, "%d", ints->items[i]);
            }
        }
        fputc(']', out);
    }
}

char *config_dump_new(const Config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(out, "open_memstream");
    size_t section = 0; // length of the current section's name, with the dot
    for (int i = 0; i < CONFIG_COUNT; i++) {
        const char *name = keys[i].name, *dot = strchr(name, '.');
        const size_t length = dot ? (size_t)(dot - name) + 1 : 0;
        if (length &&
            (i == 0 || length != section || strncmp(name, keys[i - 1].name, length) != 0)) {
            fprintf(out, "%.*s:\n", (int)length - 1, name);
        }
        section = length;
        fprintf(out, "%s%s: ", length ? "  " : "", name + length);
        print_value(out, &keys[i], field_of_const(config, &keys[i]));
        fputc('\n', out);
    }
    fclose(out);
    return text;
}
