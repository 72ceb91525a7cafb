// gpu_script: tools/test_gpu.sh before there is a GPU: its parts on the emulated device, and what
// it says of parts that fail or never end, with scripts in the programs' place. And what the
// table of the ops makes of a bench on a GPU.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check.h"

#define SCRIPT "tools/test_gpu.sh"

static bool skips(void) {
    if (access(SCRIPT, X_OK) != 0) {
        check_skip("no source tree here");
        return true;
    }
    return false;
}

static void write_file(const char *name, const char *text) {
    char *path = xformat_new("%s/%s", check_tmpdir(), name);
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
    CHECK(chmod(path, 0755) == 0, "%s", path);
    free(path);
}

static void expect_texts(const char *output, const char *const *wants, int count) {
    for (int i = 0; i < count; i++) {
        EXPECT(strstr(output, wants[i]), "no '%s' in: %s", wants[i], output);
    }
}

// The test program as its parts see it: the ops fail, the models never end; all leave a record.
static const char fake_test[] =
    "#!/bin/sh\n"
    "case $* in\n"
    "--list*) echo something; exit ;;\n"
    "esac\n"
    "for word; do case $word in record=*) record=${word#record=} ;; esac; done\n"
    "echo '# backend=cuda seed=1' >$record\n"
    "case $* in\n"
    "*part=ops*) echo 'cast 1 2 0' >>$record; echo '1 passed, 2 failed'; exit 3 ;;\n"
    "*part=models*) echo 'lora 1 0 0' >>$record; echo begun; sleep 60 ;;\n"
    "*) echo 'conformance 5 0 0' >>$record; echo '5 passed' ;;\n"
    "esac\n";

TEST(gpu_script_failures) {
    if (skips()) {
        return;
    }
    const char *dir = check_tmpdir();
    char *output;
    check_run(NULL, "mkdir -p '%s/bin' '%s/out' && echo old >'%s/out/summary.txt'", dir, dir, dir);
    write_file("bin/jomed", "#!/bin/sh\necho 'ok  GPU  gpu 0, a script'\n");
    write_file("bin/test", fake_test);
    if (CASE("a part that fails, one that never ends")) {
        int code = check_run(&output, "BUILD='%s' " SCRIPT " ops models limit=2 out='%s/out'", dir,
                             dir);
        EXPECT(code == 1, "code %d: %s", code, output);
        free(output);
        check_run(&output, "cat '%s/out/summary.txt'", dir);
        static const char *const parts[] = {"conformance: passed, ", " s; 5 passed\n",
                                            "ops: FAILED, code 3, ", " s; 1 passed, 2 failed\n",
                                            "models: OUT OF TIME, ", " s; begun\n",
                                            "programs: passed, "};
        expect_texts(output, parts, 7);
        EXPECT(!strstr(output, "old"), "the summary of an earlier run is there: %s", output);
        free(output);
        check_run(&output, "cat '%s/out/gpu.txt'", dir);
        static const char *const records[] = {"conformance 5 0 0\n", "cast 1 2 0\n",
                                              "lora 1 0 0\n"};
        expect_texts(output, records, 3);
        free(output);
    }
    if (CASE("no GPU")) {
        write_file("bin/jomed", "#!/bin/sh\necho '--  GPU  no driver'\n");
        int code = check_run(&output, "BUILD='%s' " SCRIPT " ops out='%s/none'", dir, dir);
        EXPECT(code == EXIT_NO_DEPENDENCY && strstr(output, "test_gpu: no driver; nothing was run"),
               "code %d: %s", code, output);
        free(output);
    }
    if (CASE("a stage that is none")) {
        int code = check_run(&output, SCRIPT " opps");
        EXPECT(code == EXIT_SYNTAX && strstr(output, "'opps' is no stage"), "code %d: %s", code,
               output);
        free(output);
    }
}

// The real programs: instructions, the tests and the bench of one op.
TEST(gpu_script_emulated) {
    char *bin = xstrdup(check_program()), *output;
    *strrchr(bin, '/') = '\0';
    char *emulated = xformat_new("%s/bench-emu", bin);
    if (access(emulated, X_OK) != 0) {
        check_skip("no emulator in this build");
    } else if (!skips()) {
        int code = check_run(&output, "BUILD='%s/..' " SCRIPT " backend=emu ops bench only=adamw "
                             "out='%s'", bin, check_tmpdir());
        EXPECT(code == 0, "code %d: %s", code, output);
        static const char *const parts[] = {"conformance: passed", "ops: passed", " 0 failed",
                                            "bench-adamw: passed"};
        expect_texts(output, parts, 4);
        free(output);
        check_run(&output, "cat '%s'/gpu.txt '%s'/emu-20*.json", check_tmpdir(), check_tmpdir());
        expect_texts(output, (const char *const[]){"conformance ", "adamw ", "\"bench\":\"adamw\""},
                     3);
        free(output);
    }
    free(bin);
    free(emulated);
}

// ---- the column of speeds ----
// Two shapes of which one ran twice; not a GPU's; a peer's; an op without a share.
static const char rows[] =
    "{\"origin\":\"2026-01-02 at commit abc on H200\"}\n"
    "{\"round\":1,\"bench\":\"adamw\",\"shape\":\"n=1\",\"peak_share\":0.61,\"backend\":\"cuda\"}\n"
    "{\"round\":2,\"bench\":\"adamw\",\"shape\":\"n=1\",\"peak_share\":0.58,\"backend\":\"cuda\"}\n"
    "{\"round\":1,\"bench\":\"adamw\",\"shape\":\"n=2\",\"peak_share\":0.87,\"backend\":\"cuda\"}\n"
    "{\"round\":1,\"bench\":\"topk\",\"shape\":\"Q=1\",\"peak_share\":0.9,\"backend\":\"cuda\"}\n"
    "{\"round\":1,\"bench\":\"adamw\",\"shape\":\"n=3\",\"peak_share\":0.99,\"backend\":\"emu\"}\n"
    "{\"round\":1,\"side\":\"peer\",\"bench\":\"adamw\",\"shape\":\"n=4\",\"peak_share\":0.98,"
    "\"backend\":\"cuda\"}\n"
    "{\"round\":1,\"bench\":\"cast\",\"shape\":\"n=1\",\"backend\":\"cuda\"}\n";

TEST(verification_speed) {
    if (skips()) {
        return;
    }
    const char *dir = check_tmpdir();
    static const char *const records[] = {"", "Record: `h200-2026-01-02-abc.json`.\n"};
    static const char *const wants[][3] = {
        {"| not measured |\n| global_norm", "| not measured |\n| cast |", "| GPU | speed |\n"},
        {"| 58 to 87 % of the ceiling, 2 shapes |\n| global_norm",
         "| 90 to 90 % of the ceiling, 1 shape |\n| adamw", "| GPU | speed |\n"}};
    write_file("h200-2026-01-02-abc.json", rows);
    for (int i = 0; i < 2; i++) {
        if (CASE("%s", i ? "the share of the ceiling" : "no record")) {
            char *output;
            write_file("README.md", records[i]);
            const int code = check_run(
                &output, "cp tests/README.md '%s/table' && tools/verification_table.sh "
                "'%s/table' '%s' && cat '%s/table'", dir, dir, dir, dir);
            EXPECT(code == 0, "code %d: %s", code, output);
            expect_texts(output, wants[i], 3);
            const char *cast = strstr(output, "\n| cast |");
            cast = cast ? strchr(cast + 1, '\n') : NULL;
            EXPECT(cast && memcmp(cast - 14, "not measured |", 14) == 0, "%s", output);
            free(output);
        }
    }
}
