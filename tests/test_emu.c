// test_emu: the emulator catches what it is there to catch: every kernel of tests/emu/bad, with one
// mistake each, must end with the message its file expects.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

// Of tests/emu/bad.cpp; not there in a build without g++.
int emu_bad_count(void) __attribute__((weak));
const char *emu_bad_name(int i) __attribute__((weak));
void emu_bad_run(int i) __attribute__((weak));
const char *emu_build(void) __attribute__((weak)); // "check", "asan" or "plain"

// The text behind "// expects: " (the check build) or "// expects in asan: " in the file's first
// line; false when the file expects nothing of this build.
static bool expected_text(char *text, size_t size, const char *name) {
    char path[256], prefix[40];
    snprintf(path, sizeof path, "tests/emu/bad/%s.cu", name);
    FILE *file = fopen(path, "r");
    CHECK(file, "'%s' is not there; run from the source directory", path);
    CHECK(fgets(text, (int)size, file), "'%s' is empty", path);
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    const bool is_asan = strcmp(emu_build(), "asan") == 0;
    snprintf(prefix, sizeof prefix, "// expects%s: ", is_asan ? " in asan" : "");
    const size_t length = strlen(prefix);
    if (strncmp(text, prefix, length) != 0 || strcmp(emu_build(), "plain") == 0) {
        return false;
    }
    memmove(text, text + length, strlen(text + length) + 1);
    return true;
}

// Runs one in a child; what it says, and "signal N" if one ended it. Returns the exit code or -1.
static int run_bad(int i, char *said, size_t size) {
    int ends[2];
    CHECK(pipe(ends) == 0, "pipe");
    fflush(NULL);
    const pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        emu_bad_run(i);
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(ends[0], said + used, size - 32 - used)) > 0;) {
        used += (size_t)n;
    }
    close(ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    said[used] = '\0';
    if (WIFSIGNALED(status)) {
        sprintf(said + used, "signal %d", WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}

TEST(emu_bad) {
    if (!emu_bad_count) {
        check_skip("built without g++: no emulator");
        return;
    }
    for (int i = 0; i < emu_bad_count(); i++) {
        char text[256], said[4096];
        if (expected_text(text, sizeof text, emu_bad_name(i)) && CASE("%s", emu_bad_name(i))) {
            const int code = run_bad(i, said, sizeof said);
            EXPECT(code != 0, "the mistake passed; it said: %s", said);
            EXPECT(strstr(said, text), "want '%s', it said: %s", text, said);
        }
    }
}
