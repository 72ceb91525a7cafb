// fuzz_yaml: configuration files. What a file sets must come back from its own dump.
#include <stdlib.h>

#include "fuzz.h"
#include "host/config.h"
#include "host/keyfile.h"

static void expect_dump_reads_back(const Config *config) {
    Config again;
    ConfigProblems problems = {0};
    char *dump = config_dump_new(config);
    config_init(&again);
    config_read_yaml(&again, &problems, "dump", dump, strlen(dump));
    char *second = config_dump_new(&again);
    CHECK(problems.count == 0 && strcmp(dump, second) == 0, "%s",
          problems.count ? problems.lines[0] : second);
    free(dump);
    free(second);
    config_problems_free(&problems);
    config_free(&again);
}

FUZZ(yaml) {
    KeyFile file;
    const bool is_accepted = fuzz_accepts(keyfile_parse_new(&file, data, size));
    CHECK(is_accepted || file.count == 0, "a refused file left keys");
    for (int i = 0; i < file.count; i++) {
        for (int j = 0; j < file.entries[i].count; j++) {
            const KeyScalar *const scalar = &file.entries[i].items[j];
            bool truth;
            int64_t whole;
            double number;
            keyfile_get_bool(scalar, &truth);
            keyfile_get_int(scalar, &whole);
            keyfile_get_float(scalar, &number);
            keyfile_is_plain_safe(scalar->text);
        }
    }
    keyfile_free(&file);

    Config config;
    ConfigProblems problems = {0};
    config_init(&config);
    config_read_yaml(&config, &problems, "fuzz.yaml", data, size);
    if (problems.count == 0) { // else most of the time would go into dumping defaults
        expect_dump_reads_back(&config);
    }
    config_problems_free(&problems);
    config_free(&config);
    return is_accepted;
}
