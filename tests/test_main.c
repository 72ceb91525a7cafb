// Tests of the program's surface: verbs, help, version, exit codes.
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "host/file.h"

TEST(main_surface) {
    const struct {
        const char *arguments;
        int code;
        const char *want;
    } cases[] = {
        {"", EXIT_SYNTAX, "usage: jomed VERB"},
        {"--help", EXIT_OK, "doctor"},
        {"--version", EXIT_OK, "jomed "},
        {"docter", EXIT_SYNTAX, "unknown verb 'docter'; did you mean 'doctor'"},
        {"zzzzzzzz", EXIT_SYNTAX, "jomed --help lists them"},
        {"doctor --help", EXIT_OK, "run.start=new"},
        {"doctor --verbose", EXIT_SYNTAX, "the only flags are"},
        {"doctor sede=1", EXIT_CONFIG, "did you mean 'seed'"},
        {"doctor seed=x threads=-1", EXIT_CONFIG, "threads: -1 is outside"},
        {"doctor seed=x threads=-1", EXIT_CONFIG, "seed: wants an integer, got 'x'"},
        {"doctor absent.yaml", EXIT_NO_INPUT, "absent.yaml: cannot open"},
        {"doctor a.yaml b.yaml", EXIT_NO_INPUT, "a.yaml"},
        {"doctor run.dir=/dev/null/x", EXIT_NO_OUTPUT, "!!  run.dir"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (CASE("%s", cases[i].arguments)) {
            char *output;
            const int code = check_run(&output, "%s %s", check_program(), cases[i].arguments);
            EXPECT(code == cases[i].code, "code %d: %s", code, output);
            EXPECT(strstr(output, cases[i].want), "no '%s' in: %s", cases[i].want, output);
            free(output);
        }
    }
}

TEST(main_config_file) {
    char *path = file_join_new(check_tmpdir(), "c.yaml");
    const char *bad = "reader:\n  lr: 2\n  sede: 1\nlora_dropout: 0.5\nreader.lora_dropout: 0.5\n";
    EXPECT(file_replace(path, bad, strlen(bad)).code == EXIT_OK, "write");
    char *output;
    const int code = check_run(&output, "%s doctor %s reader.rank=3", check_program(), path);
    EXPECT(code == EXIT_CONFIG, "code %d", code);
    const char *wants[] = {
        "c.yaml:3:3: unknown key 'reader.sede'",
        "c.yaml:4:1: unknown key 'lora_dropout'; did you mean 'reader.lora_dropout'",
        "c.yaml:5:1: reader.lora_dropout: dropout is not supported",
        "command line: unknown key 'reader.rank'"};
    for (int i = 0; i < 4; i++) {
        EXPECT(strstr(output, wants[i]), "no '%s' in: %s", wants[i], output);
    }
    free(output);
    free(path);
}

// A locale with a decimal comma, or no environment at all, changes nothing.
TEST(main_odd_environment) {
    char *output;
    const char *directory = check_tmpdir();
    EXPECT(check_run(&output, "env -i LC_ALL=de_DE.UTF-8 %s doctor retriever.lr=0.5 run.dir=%s",
                     check_program(), directory) == EXIT_OK,
           "%s", output);
    EXPECT(strstr(output, "can be written"), "%s", output);
    free(output);
}

// GNU's OpenMP runtime says for how many turns its threads spin; what the user sets stays.
TEST(main_threads_sleep) {
    const struct {
        const char *variables;
        bool spins;
    } cases[] = {{"-u OMP_WAIT_POLICY -u GOMP_SPINCOUNT", false}, {"OMP_WAIT_POLICY=active", true}};
    for (int i = 0; i < 2; i++) {
        if (CASE("%s", cases[i].variables)) {
            char *output;
            const int code = check_run(&output, "env %s OMP_DISPLAY_ENV=verbose %s --version",
                                       cases[i].variables, check_program());
            EXPECT(code == EXIT_OK, "code %d: %s", code, output);
            const char *last = NULL, *key = "GOMP_SPINCOUNT = '"; // last: the program started over
            for (const char *at = output; (at = strstr(at, key)) != NULL; last = at) {
                at += strlen(key);
            }
            if (last) {
                EXPECT((strtod(last, NULL) > 0) == cases[i].spins, "%s", output);
            } else {
                check_skip("this OpenMP runtime does not say whether its threads spin");
            }
            free(output);
        }
    }
}
