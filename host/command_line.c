// command_line: one program, one verb at a time.
//   jomed VERB [SUBVERB] [config.yaml] [key=value ...]
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "file.h"
#include "verbs.h"
#include "version.h"

// ---- the verbs ----
typedef struct {
    int (*run)(const Config *config);
    const char *words, *sections, *help;
} Verb;
#define VERB_ROW(function, words, sections, help) {cmd_##function, words, sections, help},
static const Verb verbs[] = {VERBS(VERB_ROW)};
enum { VERB_COUNT = sizeof verbs / sizeof *verbs };

// The verb that the first one or two arguments name, and how many they were; NULL: none.
static const Verb *find_verb(int argc, char **argv, int *used) {
    for (*used = 2; *used >= 1; --*used) {
        char words[128];
        if (argc < 1 + *used) {
            continue;
        }
        snprintf(words, sizeof words, "%s%s%s", argv[1], *used == 2 ? " " : "",
                 *used == 2 ? argv[2] : "");
        for (int i = 0; i < VERB_COUNT; i++) {
            if (strcmp(verbs[i].words, words) == 0) {
                return &verbs[i];
            }
        }
    }
    return NULL;
}

_Noreturn static void refuse_verb(int argc, char **argv) {
    const char *words[VERB_COUNT];
    const size_t length = strlen(argv[1]);
    for (int i = 0; i < VERB_COUNT; i++) {
        words[i] = verbs[i].words;
        if (strncmp(words[i], argv[1], length) == 0 && words[i][length] == ' ') {
            die(EXIT_SYNTAX, "'%s' wants a second word, such as '%s'; jomed --help lists them",
                argv[1], words[i]);
        }
    }
    char both[128];
    snprintf(both, sizeof both, "%s %s", argv[1], argc > 2 ? argv[2] : "");
    const char *near = config_nearest(argv[1], words, VERB_COUNT);
    near = near ? near : config_nearest(both, words, VERB_COUNT);
    if (near) {
        die(EXIT_SYNTAX, "unknown verb '%s'; did you mean '%s'", argv[1], near);
    }
    die(EXIT_SYNTAX, "unknown verb '%s'; jomed --help lists them", argv[1]);
}

// ---- help ----
static void print_usage(FILE *out) {
    fputs("usage: jomed VERB [SUBVERB] [config.yaml] [key=value ...]\n"
          "       jomed VERB --help     the keys of a verb, with defaults\n"
          "       jomed --version\n\nverbs:\n",
          out);
    for (int i = 0; i < VERB_COUNT; i++) {
        fprintf(out, "  %-16s %s\n", verbs[i].words, verbs[i].help);
    }
    fputs("\nThe exit code says why it stopped: 64 wrong verb, 65 bad data, 66 missing input, 69 "
          "missing\n"
          "library, 71 memory or GPU, 73 output or run directory, 74 input or output failed, 75 "
          "preempted\n"
          "with a safe checkpoint, 76 another process was lost, 77 diverged, 78 a key or its "
          "value.\n",
          out);
}

static void print_verb_help(const Verb *verb) {
    printf("usage: jomed %s [config.yaml] [key=value ...]\n%s\n\nkeys:\n", verb->words, verb->help);
    config_print_help(stdout, verb->sections);
}

// ---- standard streams ----
// Descriptors 0 to 2 that nobody opened for us would go to the first files we open, and what is
// printed would land in them. What is written to these places fails instead.
static void fill_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0) {
            exit(EXIT_IO); // and nowhere to say it
        }
    }
}

// What was printed must have arrived: results that are cut off look whole.
static int after_printing(int code) {
    const bool is_lost = fflush(stdout) != 0 || ferror(stdout);
    if (is_lost && code == EXIT_OK) {
        die(EXIT_IO, "standard output: %s; the results printed are not complete", strerror(errno));
    }
    return code;
}

static int run_program(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        print_usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_SYNTAX : EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("jomed %s (%s, %s)\n", version_text, version_commit, version_build);
        return EXIT_OK;
    }
    int used;
    const Verb *verb = find_verb(argc, argv, &used);
    if (!verb) {
        refuse_verb(argc, argv);
    }
    for (int i = 1 + used; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            print_verb_help(verb);
            return EXIT_OK;
        }
        if (argv[i][0] == '-') {
            die(EXIT_SYNTAX,
                "'%s': the only flags are --help and --version; settings are key=value", argv[i]);
        }
        if (strncmp(verb->words, "model ", 6) != 0 && file_is_directory(argv[i])) {
            die(EXIT_SYNTAX, "'%s' is a folder; %s wants a configuration file", argv[i],
                verb->words);
        }
    }
    Config config;
    config_from_arguments(&config, argc - 1 - used, argv + 1 + used);
    config.verb = verb->words;
    config.argc = argc;
    config.argv = argv;
    const int code = verb->run(&config);
    config_free(&config);
    return code;
}

int command_line_run(int argc, char **argv) {
    fill_descriptors();
    signal(SIGPIPE, SIG_IGN); // a closed stdout must not end a training; write errors are checked
    return after_printing(run_program(argc, argv));
}
