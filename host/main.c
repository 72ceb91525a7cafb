// main: one program, one verb at a time.   jomed VERB [SUBVERB] [config.yaml] [key=value ...]
#include <stdio.h>
#include <string.h>

#include "kernels/base.h"

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        puts("usage: jomed VERB [SUBVERB] [config.yaml] [key=value ...]");
        return argc < 2 ? EXIT_SYNTAX : EXIT_OK;
    }
    die(EXIT_SYNTAX, "unknown verb '%s'; jomed --help lists them", argv[1]);
}
