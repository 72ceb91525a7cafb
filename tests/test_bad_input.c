// bad_input: what a program does with input that is wrong: the right exit code, one line that says
// what is wrong where and how to mend it, and nothing lost.
//
// The list of faults, and where each is tested. Formats have one test per rule beside their parser;
// here is what a user sees of them.
//
//   missing file                            bad_input_files, main_surface (configuration)
//   unknown, duplicate, out-of-range key    bad_input_keys, config_problems, main_config_file
//   classes: [yes, no] stays text           bad_input_keys, config_values, keyfile_scalars
//   truncated, oversized, wrong-dtype,      bad_input_weights, safetensors_rejects,
//     overlapping, duplicate safetensors    safetensors_length_word, safetensors_damaged
//   corrupt PNG and JPEG                    bad_input_pictures, image_truncated, image_pngsuite,
//                                           dataset_bad_images, dataset_bad_image_stops
//   npz bomb                                bad_input_npz, npz_bombs, npz_lies
//   gigantic image header                   bad_input_pictures, image_gigantic_header
//   bad JSONL line (file:line)              bad_input_lines, jsonl_bad_lines,
//                                           dataset_files_bad_rows
//   non-UTF-8 text                          bad_input_lines, jsonl_non_utf8, safetensors_rejects
//   duplicate ids                           bad_input_lines, dataset_in_memory
//   empty data set                          bad_input_empty, dataset_files_medmnist_empty
//   fewer rows than K                       bad_input_index
//   missing shard                           bad_input_index, index_damage_is_refused_by_name
//   index and corpus of different builds    bad_input_index, index_round_trip
//   second job on a run directory           bad_input_run_directory, runlog_lock
//   read-only run directory                 bad_input_read_only_directory, runlog_foreign_directory
//   wrong verb                              main_surface
//   closed standard output                  bad_input_closed_output
//   disk full, kill -9                      resume_disk_full, resume_after_kill_at_each_call
#define _GNU_SOURCE // flock
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "program.h"

// A command, the code it must end with, and what its error line must hold.
typedef struct {
    const char *name, *arguments;
    int code;
    const char *wants[3];
} Fault;

static void expect_fault(const Fault *fault) {
    char *output;
    const int code = program_run(&output, "%s", fault->arguments);
    EXPECT(code == fault->code, "code %d, want %d: %s", code, fault->code, output);
    expect_error_line(output, fault->wants, 3);
    free(output);
}

// ---- missing files ----
TEST(bad_input_files) {
    static const Fault faults[] = {
        {"corpus",
         "pretrain c.yaml run.dir=a data.corpus=absent.jsonl",
         EXIT_NO_INPUT,
         {"absent.jsonl: cannot open", "No such file"}},
        {"corpus not named",
         "pretrain c.yaml run.dir=b data.corpus=",
         EXIT_CONFIG,
         {"data.corpus: not set", "name the file"}},
        {"towers",
         "index build c.yaml index.dir=x retriever.weights=absent",
         EXIT_NO_INPUT,
         {"absent: cannot open"}},
        {"adapter",
         "evaluate c.yaml run.dir=c " TOWERS " reader.adapter=images",
         EXIT_NO_INPUT,
         {"images:", "adapter_config.json"}},
        {"index",
         "evaluate c.yaml run.dir=d index.dir=absent " TOWERS,
         EXIT_NO_INPUT,
         {"absent: ", "meta.json"}},
        {"index not named",
         "evaluate c.yaml run.dir=e index.dir= " TOWERS,
         EXIT_CONFIG,
         {"index.dir: not set", "jomed index build"}},
        {"a GPU's products on the CPU",
         "pretrain c.yaml run.dir=g matmul=cublaslt",
         EXIT_CONFIG,
         {"matmul: cublaslt is for a GPU", "device=cuda, or matmul=own"}},
        {"source of prepare",
         "prepare prepare.source=absent.npz prepare.dir=p 'classes=[a, b]'",
         EXIT_NO_INPUT,
         {"absent.npz: cannot open"}},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        if (CASE("%s", faults[i].name)) {
            world_with_index();
            expect_fault(&faults[i]);
        }
    }
    if (CASE("picture")) {
        world();
        check_run(NULL, "rm '%s/images/c7.png'", world_dir());
        expect_fault(
            &(Fault){"picture", "pretrain c.yaml run.dir=f", EXIT_NO_INPUT, {"images/c7.png"}});
        char *status = world_text_new("f/STATUS");
        EXPECT(status && strncmp(status, "failed ", 7) == 0, "%s", status ? status : "");
        free(status);
    }
}

// ---- keys ----
TEST(bad_input_keys) {
    if (CASE("all problems are listed")) {
        world();
        static const char text[] = "retreiver: {lr: 1}\nseed: 1\nseed: 2\nreader.lora_rank: 0\n";
        world_write("bad.yaml", text, sizeof text - 1);
        char *output;
        const int code = program_run(&output, "pretrain bad.yaml run.dir=k pretrain.batsh=2");
        EXPECT(code == EXIT_CONFIG, "code %d: %s", code, output);
        static const char *const wants[] = {
            "error: bad.yaml:1:1: unknown key 'retreiver'; did you mean 'retriever'",
            "error: bad.yaml:3:1: duplicate key 'seed', first in line 2",
            "error: bad.yaml:4:1: reader.lora_rank: 0 is outside 1 .. 4096",
            "error: command line: unknown key 'pretrain.batsh'; did you mean 'pretrain.batch'"};
        for (int i = 0; i < 4; i++) {
            EXPECT(strstr(output, wants[i]), "no '%s' in: %s", wants[i], output);
        }
        EXPECT(!world_has("k"), "a run directory was made for settings that are wrong");
        free(output);
    }
    if (CASE("classes yes and no")) {
        world();
        program_must_run("pretrain c.yaml run.dir=y pretrain.steps=0"); // classes: [no, yes]
        char *text = world_text_new("y/config.resolved.yaml");
        EXPECT(text && strstr(text, "classes: [\"no\", \"yes\"]"), "%s", text ? text : "");
        free(text);
    }
}

// ---- weights ----
// A safetensors file: header, then size bytes of zeros.
static void write_weights(const char *header, size_t size) {
    const size_t length = strlen(header);
    uint8_t *bytes = xcalloc(8 + length + size, 1);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(length >> (8 * i));
    }
    memcpy(bytes + 8, header, length);
    world_write("bad.safetensors", bytes, 8 + length + size);
    free(bytes);
}

// The world's towers with `change` more bytes at the end, or fewer.
static void resize_weights(long change) {
    char *path = file_join_new(world_dir(), "towers/retriever.safetensors");
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, (size_t)1 << 30));
    uint8_t *copy = xcalloc(bytes.size + 64, 1);
    memcpy(copy, bytes.data, bytes.size);
    world_write("bad.safetensors", copy, (size_t)((long)bytes.size + change));
    free(copy);
    file_bytes_free(&bytes);
    free(path);
}

TEST(bad_input_weights) {
    static const struct {
        const char *name, *header; // NULL: the world's towers, resized
        long size;
        const char *wants[3];
    } faults[] = {
        {"truncated", NULL, -64, {"bad.safetensors:", "tensor '", "outside the file"}},
        {"oversized", NULL, 64, {"bad.safetensors:", "64 bytes behind the last tensor"}},
        {"only a length", "", 0, {"bad.safetensors:"}},
        {"wrong type",
         "{\"logit_scale\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}",
         4,
         {"bad.safetensors: ", "tensors differ from the model", "first: missing"}},
        {"unknown type",
         "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4,
         {"bad.safetensors:", "'a'", "unknown dtype"}},
        {"overlapping",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3,
         {"bad.safetensors:", "'b'", "overlapping"}},
        {"duplicate name",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1,
         {"bad.safetensors:", "duplicate", "\"a\""}},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        if (!CASE("%s", faults[i].name)) {
            continue;
        }
        world_with_index();
        if (faults[i].header) {
            write_weights(faults[i].header, (size_t)faults[i].size);
        } else {
            resize_weights(faults[i].size);
        }
        Fault fault = {faults[i].name,
                       "index build c.yaml index.dir=x retriever.weights=bad.safetensors",
                       EXIT_BAD_DATA,
                       {faults[i].wants[0], faults[i].wants[1], faults[i].wants[2]}};
        expect_fault(&fault);
        EXPECT(!world_has("x/meta.json"), "an index of towers that were refused");
    }
    if (CASE("type of one tensor")) { // F32 in the header becomes I32: sound, but not this model's
        world_with_index();
        check_run(NULL,
                  "cd '%s' && sed '1s/\"F32\"/\"I32\"/' towers/retriever.safetensors > "
                  "bad.safetensors",
                  world_dir());
        expect_fault(&(Fault){"type",
                              "index build c.yaml index.dir=x retriever.weights=bad.safetensors",
                              EXIT_BAD_DATA,
                              {"1 tensors differ", "first: another type or shape '",
                               "name a checkpoint of this preset"}});
    }
}

// ---- pictures ----
static void write_gigantic_png(const char *name) {
    // Signature, IHDR of 60000 x 60000 pixels (8 bits, RGB), and the beginning of an IDAT.
    uint8_t bytes[1024] = {0x89, 'P', 'N', 'G',  13,   10, 26, 10,   0,    0, 0, 13, 'I', 'H', 'D',
                           'R',  0,   0,   0xea, 0x60, 0,  0,  0xea, 0x60, 8, 2, 0,  0,   0};
    const uint32_t crc = (uint32_t)crc32(0, bytes + 12, 17);
    for (int i = 0; i < 4; i++) {
        bytes[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    }
    memcpy(bytes + 33, "\0\0\xff\xffIDAT", 8);
    world_write(name, bytes, sizeof bytes);
}

static void cut_picture(const char *name) {
    char *path = file_join_new(world_dir(), name);
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, 1 << 20));
    world_write(name, bytes.data, bytes.size / 2);
    file_bytes_free(&bytes);
    free(path);
}

TEST(bad_input_pictures) {
    static const char *const kinds[] = {"png cut in half", "jpeg that ends in its header",
                                        "a web page", "gigantic header"};
    static const char *const says[] = {"c3.png", "c3.png", "neither png nor jpeg", "60000"};
    for (int i = 0; i < 4; i++) {
        if (!CASE("%s", kinds[i])) {
            continue;
        }
        world();
        static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F', 0, 1, 1};
        if (i == 0) {
            cut_picture("images/c3.png");
        } else if (i == 1) {
            world_write("images/c3.png", jpeg, sizeof jpeg);
        } else if (i == 2) {
            world_write("images/c3.png", "<html>not found</html>", 22);
        } else {
            write_gigantic_png("images/c3.png");
        }
        const Fault fail = {"fail",
                            "pretrain c.yaml run.dir=fail pretrain.batch=24",
                            EXIT_BAD_DATA,
                            {"images/c3.png", says[i], "data.on_bad_image="}};
        expect_fault(&fail);
        // Training wants every row: one cannot be left out here, but be blank.
        const Fault skip = {"skip",
                            "pretrain c.yaml run.dir=skip pretrain.batch=24 "
                            "data.on_bad_image=skip",
                            EXIT_BAD_DATA,
                            {"images/c3.png", "data.on_bad_image=blank"}};
        expect_fault(&skip);
        char *output;
        const int code = program_run(&output, "pretrain c.yaml run.dir=blank pretrain.batch=24 "
                                              "data.on_bad_image=blank");
        EXPECT(code == EXIT_OK && strstr(output, "blank instead"), "code %d: %s", code, output);
        expect_run("blank", "done", 6);
        free(output);
    }
    if (CASE("two bad of 24 are too many")) {
        world();
        cut_picture("images/c3.png");
        cut_picture("images/c4.png");
        expect_fault(&(Fault){"share",
                              "pretrain c.yaml run.dir=two pretrain.batch=24 "
                              "data.on_bad_image=blank",
                              EXIT_BAD_DATA,
                              {"2 bad images among 24 rows", "mend the data"}});
    }
}

TEST(bad_input_npz) {
    const char *path = check_data("medical/pneumoniamnist/pneumoniamnist_balanced.npz");
    if (path) {
        char arguments[4300], *whole = realpath(path, NULL);
        snprintf(arguments, sizeof arguments,
                 "prepare 'prepare.source=%s' prepare.dir=p "
                 "'classes=[normal, pneumonia]' limits.max_array_bytes=100000",
                 whole);
        free(whole);
        world();
        expect_fault(&(Fault){"bomb",
                              arguments,
                              EXIT_BAD_DATA,
                              {"train_images", "limits.max_array_bytes is 100000"}});
    }
}

// ---- rows of text ----
// The corpus with its third line replaced, and a line added at the end.
static void change_corpus(const char *third, size_t third_size, const char *last) {
    char *text = world_text_new("corpus.jsonl");
    const char *at = strchr(strchr(text, '\n') + 1, '\n') + 1, *rest = strchr(at, '\n');
    const size_t head = (size_t)(at - text), tail = strlen(rest);
    char *out = xmalloc(head + third_size + tail + strlen(last) + 1, 1);
    memcpy(out, text, head);
    memcpy(out + head, third, third_size);
    memcpy(out + head + third_size, rest, tail);
    memcpy(out + head + third_size + tail, last, strlen(last) + 1);
    world_write("other.jsonl", out, head + third_size + tail + strlen(last));
    free(out);
    free(text);
}

#define OTHER "pretrain c.yaml data.corpus=other.jsonl "

TEST(bad_input_lines) {
    char *output;
    static const char bad_line[] = "{\"id\": \"c2\", \"img_path\": }";
    static const char odd_text[] =
        "{\"id\": \"c2\", \"img_path\": \"images/c2.png\", \"text\": \"a\xff\"}";
    static const char sound[] =
        "{\"id\": \"c1\", \"img_path\": \"images/c2.png\", \"text\": \"a\"}";
    if (CASE("bad JSON")) {
        world();
        change_corpus(bad_line, sizeof bad_line - 1, "");
        expect_fault(
            &(Fault){"json", OTHER "run.dir=a", EXIT_BAD_DATA, {"other.jsonl:3: ", "column 2"}});
        program_must_run(OTHER "run.dir=b data.max_bad_lines=1");
    }
    if (CASE("not UTF-8")) {
        world();
        change_corpus(odd_text, sizeof odd_text - 1, "");
        expect_fault(&(Fault){"utf8",
                              OTHER "run.dir=a data.non_utf8=fail",
                              EXIT_BAD_DATA,
                              {"other.jsonl:3: ", "UTF-8"}});
        const int code = program_run(&output, OTHER "run.dir=b");
        EXPECT(code == EXIT_OK && strstr(output, "UTF-8"), "code %d: %s", code, output);
        free(output);
    }
    if (CASE("duplicate ids")) {
        world();
        change_corpus(sound, sizeof sound - 1, "");
        const int code = program_run(&output, OTHER "run.dir=a");
        EXPECT(code == EXIT_OK && strstr(output, "1 of 24 rows repeat the id of another, as 'c1'"),
               "code %d: %s", code, output);
        free(output);
    }
}

TEST(bad_input_empty) {
    if (CASE("empty sets")) {
        world();
        world_write("empty.jsonl", "\n", 1);
        expect_fault(&(Fault){"corpus",
                              "pretrain c.yaml run.dir=a data.corpus=empty.jsonl",
                              EXIT_BAD_DATA,
                              {"empty.jsonl: no row in this file", "at least one"}});
        expect_fault(&(Fault){"task",
                              "pretrain c.yaml run.dir=b data.task=empty.jsonl",
                              EXIT_BAD_DATA,
                              {"empty.jsonl: no row in this file", "at least one"}});
    }
    if (CASE("empty split")) {
        world_with_index();
        check_run(NULL,
                  "cd '%s' && grep '\"train\"' task.jsonl > train.jsonl && grep '\"test\"' "
                  "task.jsonl > test.jsonl",
                  world_dir());
        expect_fault(&(Fault){"split",
                              "evaluate c.yaml run.dir=a data.task=train.jsonl " TOWERS,
                              EXIT_BAD_DATA,
                              {"train.jsonl: no queries", "set evaluate.split"}});
        expect_fault(&(Fault){"split",
                              "train-reader c.yaml run.dir=b data.task=test.jsonl " TOWERS,
                              EXIT_BAD_DATA,
                              {"test.jsonl: no training queries"}});
        expect_fault(&(Fault){"split",
                              "train-retriever c.yaml run.dir=d data.task=test.jsonl " TOWERS,
                              EXIT_BAD_DATA,
                              {"test.jsonl: no training queries"}});
    }
}

// ---- index ----
TEST(bad_input_index) {
    static const Fault few[] = {
        {"train-retriever, K",
         "train-retriever c.yaml run.dir=a retriever.k=30 " TOWERS,
         EXIT_BAD_DATA,
         {"24 rows are fewer than retriever.k=30", "lower retriever.k"}},
        {"train-reader, k",
         "train-reader c.yaml run.dir=b evaluate.k=30 " TOWERS,
         EXIT_BAD_DATA,
         {"fewer than 30 passages", "lower evaluate.k"}},
        {"evaluate, k",
         "evaluate c.yaml run.dir=c evaluate.k=30 " TOWERS,
         EXIT_BAD_DATA,
         {"fewer than", "lower evaluate.k"}},
        {"evaluate, oracle",
         "evaluate c.yaml run.dir=d evaluate.oracle_at=[30] " TOWERS,
         EXIT_BAD_DATA,
         {"fewer than 30 passages", "evaluate.oracle_at"}},
    };
    for (size_t i = 0; i < sizeof few / sizeof *few; i++) {
        if (CASE("fewer rows than asked, %s", few[i].name)) {
            world_with_index();
            expect_fault(&few[i]);
        }
    }
    if (CASE("missing shard")) {
        world_with_index();
        program_must_run("index build c.yaml index.dir=tens index.shard_rows=10 " TOWERS);
        check_run(NULL, "rm '%s/tens/text.00001.shard'", world_dir());
        const char *const verbs[] = {"evaluate c.yaml run.dir=e index.dir=tens " TOWERS,
                                     "index verify index.dir=tens"};
        for (int v = 0; v < 2; v++) {
            expect_fault(&(Fault){
                "shard", verbs[v], EXIT_NO_INPUT, {"tens: text.00001.shard: cannot open"}});
        }
    }
    if (CASE("another corpus")) {
        world_with_index();
        static const char line[] =
            "{\"id\": \"c2\", \"img_path\": \"images/c2.png\", \"text\": \"new\"}";
        change_corpus(line, sizeof line - 1, "");
        expect_fault(&(Fault){"corpus",
                              "evaluate c.yaml run.dir=f data.corpus=other.jsonl " TOWERS,
                              EXIT_BAD_DATA,
                              {"index: meta.json: built from corpus", "run jomed index build"}});
    }
    if (CASE("other towers")) {
        world_with_index();
        expect_fault(&(Fault){"towers",
                              "evaluate c.yaml run.dir=g",
                              EXIT_BAD_DATA,
                              {"index: made by other towers", "run jomed index build"}});
    }
}

// ---- run directory ----
TEST(bad_input_run_directory) {
    if (CASE("second job")) {
        world();
        program_must_run("pretrain c.yaml run.dir=r checkpoint.every=2");
        char *path = file_join_new(world_dir(), "r/lock");
        const int lock = open(path, O_RDWR | O_CLOEXEC);
        CHECK(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0, "lock of %s", path);
        const char *const starts[] = {"new", "resume", "overwrite"};
        for (int i = 0; i < 3; i++) {
            char arguments[64];
            snprintf(arguments, sizeof arguments, "pretrain c.yaml run.dir=r run.start=%s",
                     starts[i]);
            expect_fault(&(Fault){
                "job",
                arguments,
                EXIT_NO_OUTPUT,
                {"r/lock: the run directory is in use by host ", "choose another run.dir"}});
        }
        close(lock);
        expect_run("r", "done", 6); // what was there is as it was
        EXPECT(world_has("r/checkpoints/pretrain-00000004"), "the checkpoint is gone");
        free(path);
    }
    if (CASE("used before")) {
        world();
        program_must_run("pretrain c.yaml run.dir=r");
        expect_fault(
            &(Fault){"used",
                     "pretrain c.yaml run.dir=r",
                     EXIT_NO_OUTPUT,
                     {"r: a run was here (done)", "run.start=resume", "run.start=overwrite"}});
    }
    if (CASE("cannot be made")) {
        world();
        expect_fault(&(Fault){"file",
                              "pretrain c.yaml run.dir=c.yaml/x",
                              EXIT_NO_OUTPUT,
                              {"c.yaml/x: cannot create the directory"}});
        expect_fault(
            &(Fault){"file", "index build c.yaml index.dir=c.yaml", EXIT_NO_OUTPUT, {"c.yaml: "}});
    }
}

TEST(bad_input_read_only_directory) { // root may write anywhere, so the program runs as nobody
    const char *dir = world(), *as = geteuid() == 0 ? "setpriv --reuid=65534 --clear-groups" : "";
    char *output;
    check_run(NULL,
              "cd '%s' && mkdir read && cp '%s' jomed && chmod 755 . && chmod -R a+rX . && "
              "chmod 555 read",
              dir, check_program());
    if (check_run(&output, "cd '%s' && %s ./jomed --version", dir, as) != EXIT_OK) {
        check_skip("cannot run as another user: %.*s", (int)strcspn(output, "\n"), output);
    } else {
        free(output);
        const int code =
            check_run(&output, "cd '%s' && %s ./jomed pretrain c.yaml run.dir=read", dir, as);
        EXPECT(code == EXIT_NO_OUTPUT, "code %d: %s", code, output);
        const char *wants[] = {"read: cannot create a file in the directory", "Permission denied"};
        expect_error_line(output, wants, 2);
    }
    free(output);
}

// ---- standard output ----
TEST(bad_input_closed_output) {
    if (CASE("results that are lost")) {
        static const char *const ways[] = {">/dev/full", ">&-"};
        world_with_index();
        for (int i = 0; i < 2; i++) {
            char arguments[128];
            snprintf(arguments, sizeof arguments, "index search c.yaml " TOWERS " %s", ways[i]);
            expect_fault(&(Fault){"lost",
                                  arguments,
                                  EXIT_IO,
                                  {"standard output: ", "the results printed are not complete"}});
        }
    }
    if (CASE("training goes on, and its files stay clean")) {
        char *output;
        world();
        program_must_run("pretrain c.yaml run.dir=open");
        program_must_run("pretrain c.yaml run.dir=closed <&- >&- 2>&-");
        expect_run("closed", "done", 6);
        expect_same_file("open/losses.jsonl", "closed/losses.jsonl");
        expect_same_file("open/retriever.safetensors", "closed/retriever.safetensors");
        // A reader that goes away after one line.
        const int code = program_run(&output, "pretrain c.yaml run.dir=head 2>&1 | head -1");
        EXPECT(code == EXIT_OK, "code %d", code);
        expect_run("head", "done", 6);
        expect_same_file("open/losses.jsonl", "head/losses.jsonl");
        free(output);
    }
}
