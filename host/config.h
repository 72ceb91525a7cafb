// config: the settings of a run, from defaults, one YAML file and key=value arguments; later wins.
//
// The struct is generated from the list in keys.h: section `retriever.`, name `lr` is
// config->retriever.lr and the key "retriever.lr". Nested maps and dotted keys in YAML mean the
// same. All problems of a file and a command line are collected and shown together; exit code 78.
// Left out: what several keys mean together (the verbs check that), environment variables.
// Source: redis config.c (one table row per setting), OmegaConf's key=value lists.
#ifndef JOMED_HOST_CONFIG_H
#define JOMED_HOST_CONFIG_H

#include <stdio.h>

#include "kernels/base.h"
#include "keys.h"

// ---- struct Config and its enumerators ----
typedef struct {
    char **items;
    int count;
} TextList;
typedef struct {
    int *items;
    int count;
} IntList;

#define CONFIG_ENUMERATOR(name, text) name,
enum { START_CHOICES(CONFIG_ENUMERATOR) };
enum { LOG_CHOICES(CONFIG_ENUMERATOR) };
enum { COMM_CHOICES(CONFIG_ENUMERATOR) };
enum { NON_UTF8_CHOICES(CONFIG_ENUMERATOR) };
enum { BAD_IMAGE_CHOICES(CONFIG_ENUMERATOR) };
enum { WARNINGS_CHOICES(CONFIG_ENUMERATOR) };
enum { HEAD_CHOICES(CONFIG_ENUMERATOR) };
enum { SCHEDULE_CHOICES(CONFIG_ENUMERATOR) };
enum { LOSS_CHOICES(CONFIG_ENUMERATOR) };
enum { SPLIT_CHOICES(CONFIG_ENUMERATOR) };
enum { ON_ERROR_CHOICES(CONFIG_ENUMERATOR) };
enum { FORMAT_CHOICES(CONFIG_ENUMERATOR) };
enum { EXPORT_CHOICES(CONFIG_ENUMERATOR) };
enum { LAYOUT_CHOICES(CONFIG_ENUMERATOR) };
enum { DTYPE_CHOICES(CONFIG_ENUMERATOR) };
enum { DEVICE_CHOICES(CONFIG_ENUMERATOR) };
enum { ARCH_CHOICES(CONFIG_ENUMERATOR) };
enum { MATMUL_CHOICES(CONFIG_ENUMERATOR) };
#undef CONFIG_ENUMERATOR

#define CONFIG_C_BOOL bool
#define CONFIG_C_INT int
#define CONFIG_C_SIZE int64_t
#define CONFIG_C_FLOAT double
#define CONFIG_C_TEXT const char *
#define CONFIG_C_CHOICE int
#define CONFIG_C_TEXTS TextList
#define CONFIG_C_INTS IntList
#define CONFIG_NOTHING(section)
#define CONFIG_PLUS_ONE(section, name, type, fallback, range, help) +1
enum { CONFIG_COUNT = 0 CONFIG(CONFIG_NOTHING, CONFIG_PLUS_ONE, CONFIG_NOTHING) };

#define CONFIG_OPEN(section) struct {
#define CONFIG_FIELD(section, name, type, fallback, range, help) CONFIG_C_##type name;
#define CONFIG_CLOSE(section) \
    }                         \
    section;
typedef struct {
    CONFIG(CONFIG_OPEN, CONFIG_FIELD, CONFIG_CLOSE)
    bool is_set[CONFIG_COUNT]; // by the file or the command line; in the order of the list
    const char *verb;          // no key: the words of the verb, "index build"; set by main
    int argc;                  // no key: the whole command line
    char **argv;
} Config;
#undef CONFIG_OPEN
#undef CONFIG_FIELD
#undef CONFIG_CLOSE

// ---- reading ----
typedef struct {
    char **lines; // "file:line:column: what; remedy"
    int count;
} ConfigProblems;
void config_init(Config *config); // every key at its default
void config_free(Config *config);
// Sets what the text of a YAML file says; name is used in messages. Good keys are set beside bad
// ones.
void config_read_yaml(Config *config, ConfigProblems *problems, const char *name, const void *text,
                      size_t size);
// One argument "key=value". Lists are written [a, b].
void config_override(Config *config, ConfigProblems *problems, const char *argument);
// After the last override: what one key says about others (exact.all).
void config_finish(Config *config);
void config_problems_free(ConfigProblems *problems);
// All of the above for [config.yaml] [folder] [key=value ...]; a folder is model.dir. Dies with
// EXIT_CONFIG after listing every problem, with EXIT_SYNTAX for two files.
void config_from_arguments(Config *config, int count, char **arguments);

// ---- asking ----
bool config_is_set(const Config *config, const char *key);
// Prints key, default, range and help of every key whose section (or whole name) is in the blank-
// separated list; NULL: all.
void config_print_help(FILE *out, const char *sections);
// The whole configuration as YAML, which reads back to the same values.
char *config_dump_new(const Config *config);
// The name closest to text by edit distance, or NULL when none is near.
const char *config_nearest(const char *text, const char *const *names, int count);

#endif
