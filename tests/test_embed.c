// test_embed: jomed embed end to end: texts and pictures to .npy and faiss files, by the tiny
// towers and by a checkpoint folder; the rows are those of the towers called here; misuse in one
// line.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/encode.h"
#include "host/faiss.h"
#include "host/file.h"
#include "host/hub_retriever.h"
#include "host/npy.h"
#include "host/tokenizer_files.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/program.h"

static void put(const char *name, const char *text) { world_write(name, text, strlen(text)); }

// The array of a file of the world; npy_free and file_bytes_free end it.
static NpyArray array_of(FileBytes *bytes, const char *name) {
    char *path = file_join_new(world_dir(), name);
    NpyArray array = {0};
    error_die(path, file_read_new(bytes, path, 1 << 24));
    error_die(path, npy_parse(&array, bytes->data, bytes->size));
    free(path);
    return array;
}

static void expect_shape(const NpyArray *array, size_t rows, size_t E) {
    EXPECT(array->type == NPY_F4 && array->rank == 2 && array->shape[0] == rows &&
               array->shape[1] == E, "%s, rank %d, %zu x %zu", npy_type_name(array->type),
           array->rank, array->shape[0], array->shape[1]);
}

static double length_of(const NpyArray *array, size_t row) {
    double squares = 0;
    for (size_t e = 0; e < array->shape[1]; e++) {
        const double x = npy_number(array, row * array->shape[1] + e);
        squares += x * x;
    }
    return sqrt(squares);
}

static const char lines[] = "a lung\n\nan image of two words\r\nthe end";
static const char objects[] = "{\"text\": \"a lung\"}\n{\"text\": \"\"}\n\n"
                              "{\"id\": 3, \"text\": \"an image of two words\"}\n"
                              "{\"text\": \"the end\"}\n";

TEST(embed_tiny) {
    world();
    put("lines.txt", lines);
    put("objects.jsonl", objects);
    program_must_run("embed c.yaml embed.texts=lines.txt embed.images=corpus.jsonl embed.dir=a "
                     "embed.faiss=true");
    program_must_run("embed c.yaml embed.texts=objects.jsonl embed.dir=b embed.unit=false");
    FileBytes texts_bytes, images_bytes, raw_bytes;
    NpyArray texts = array_of(&texts_bytes, "a/texts.npy"),
             images = array_of(&images_bytes, "a/images.npy"),
             raw = array_of(&raw_bytes, "b/texts.npy");
    expect_shape(&texts, 4, 64);
    expect_shape(&images, WORLD_PASSAGES, 64);
    expect_shape(&raw, 4, 64);
    for (size_t i = 0; i < 4; i++) {
        EXPECT(fabs(length_of(&texts, i) - 1) <= 64 * 0x1p-24, "length %g", length_of(&texts, i));
        const double length = length_of(&raw, i);
        EXPECT(fabs(length - 1) > 0.01, "a row as the tower gives it has length %g", length);
        for (size_t e = 0; e < 64; e++) { // two roundings of the quotient, some of the norm
            EXPECT(fabs(npy_number(&raw, i * 64 + e) / length - npy_number(&texts, i * 64 + e)) <=
                       64 * 0x1p-24, "row %zu is not the unit row times %g", i, length);
        }
    }
    EXPECT(length_of(&images, 23) > 0.99 && !world_has("b/images.npy"), "images");
    char *path = file_join_new(world_dir(), "a/images.faiss");
    FileBytes bytes;
    FaissIndex index;
    error_die(path, file_read_new(&bytes, path, 1 << 24));
    error_die(path, faiss_parse(&index, bytes.data, bytes.size));
    float rows[WORLD_PASSAGES * 64];
    EXPECT(index.M == WORLD_PASSAGES && index.E == 64 && !index.ids, "%zu rows", index.M);
    faiss_rows(&index, rows, 0, WORLD_PASSAGES);
    EXPECT(memcmp(rows, images.data, sizeof rows) == 0, "faiss has other rows");
    file_bytes_free(&bytes);
    free(path);
    file_bytes_free(&texts_bytes);
    file_bytes_free(&images_bytes);
    file_bytes_free(&raw_bytes);
}

// ---- a folder ----
static const char bert[] =
    "{\"model_type\": \"bert\", \"hidden_size\": 8, \"intermediate_size\": 12, \"vocab_size\": 9,"
    " \"max_position_embeddings\": 6, \"num_attention_heads\": 2, \"num_hidden_layers\": 1}";
static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nlung\n##s\na\nthe\nend\n";

// The world's folder "bert"; its path, to be freed.
static char *folder_new(void) {
    char *dir = file_join_new(world_dir(), "bert"), *path = file_join_new(dir, "model.safetensors");
    error_die(dir, file_make_directories(dir));
    put("bert/config.json", bert);
    put("bert/vocab.txt", vocab);
    HubRetriever hub;
    error_die(dir, hub_retriever_parse(&hub, bert, sizeof bert - 1, false));
    Retriever *retriever = retriever_new(check_device(), DT_F32, &hub.config, false);
    tensors_formula(&retriever->tensors);
    error_die(path, weights_save(&retriever->tensors, path, "", false, true));
    free(path);
    retriever_free(retriever);
    return dir;
}

TEST(embed_folder) {
    world();
    char *dir = folder_new();
    put("lines.txt", "a lung\nthe end of the lungs\nA LUNG");
    program_must_run("embed retriever.model=bert embed.texts=lines.txt embed.dir=a");
    FileBytes bytes;
    NpyArray rows = array_of(&bytes, "a/texts.npy");
    expect_shape(&rows, 3, 8);

    HubRetriever hub;
    error_die(dir, hub_retriever_open_new(&hub, dir));
    Retriever retriever;
    SafeStore store;
    retriever_build(&retriever, &hub.config);
    error_die(dir, hub_retriever_load(&retriever, check_device(), DT_F32, &store, &hub));
    // [CLS] a lung [SEP]; the second text is cut to six tokens; the third is the first.
    static const int32_t ids[] = {2, 6, 4, 3, 2, 7, 8, 1, 7, 3, 2, 6, 4, 3},
                         ends[] = {0, 4, 10, 14};
    const TextBatch batch = {.B = 3, .N = 14, .max_T = 6, .ids = ids, .cu_seqlens = ends};
    float want[3 * 8];
    Run run = run_new(check_device(), DT_F32, NULL, false);
    Arena arena = arena_new(check_device(), "test", 1 << 20);
    run.arena = &arena;
    EmbedTextsState state;
    embed_texts_fwd(&run, &retriever.text, &state, want, &batch);
    EXPECT(memcmp(want, rows.data, sizeof want) == 0, "first value %g, not %g",
           npy_number(&rows, 0), (double)want[0]);
    char *output;
    const int code = program_run(&output, "model info model.dir=bert");
    EXPECT(code == EXIT_OK && strstr(output, "1 layers, 8 wide") &&
               strstr(output, "memory for embedding in f32, 8 pictures or texts of 6 tokens"),
           "code %d: %s", code, output);
    free(output);
    arena_free(&arena);
    retriever_unbuild(&retriever);
    safestore_free(&store);
    hub_retriever_free(&hub);
    file_bytes_free(&bytes);
    free(dir);
}

TEST(embed_refusals) {
    world();
    char *dir = folder_new();
    put("lines.txt", lines);
    put("empty.txt", "");
    put("numbers.jsonl", "{\"text\": 7}\n");
    static const struct {
        const char *arguments;
        int code;
        const char *wants[2];
    } cases[] = {
        {"embed.dir=a", EXIT_CONFIG, {"embed.texts", "embed.images"}},
        {"embed.texts=lines.txt", EXIT_CONFIG, {"embed.dir", "not set"}},
        {"embed.dir=a embed.texts=none.txt", EXIT_NO_INPUT, {"none.txt", ""}},
        {"embed.dir=a embed.texts=empty.txt", EXIT_BAD_DATA, {"empty.txt", "no texts"}},
        {"embed.dir=a embed.texts=numbers.jsonl", EXIT_BAD_DATA, {"numbers.jsonl:1", "text"}},
        {"embed.dir=a embed.texts=lines.txt retriever.model=none", EXIT_NO_INPUT, {"none", ""}},
        {"embed.dir=a embed.images=corpus.jsonl retriever.model=bert", EXIT_CONFIG,
         {"retriever.model", "no image tower"}},
        {"embed.dir=a embed.texts=lines.txt retriever.model=bert retriever.preset=tiny",
         EXIT_CONFIG, {"retriever.preset", "leave one"}},
        {"embed.dir=a embed.texts=lines.txt retriever.model=bert retriever.max_tokens=7",
         EXIT_CONFIG, {"retriever.max_tokens", "takes 6"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s", cases[i].arguments)) {
            continue;
        }
        char *output;
        const int code = program_run(&output, "embed %s", cases[i].arguments);
        EXPECT(code == cases[i].code, "code %d: %s", code, output);
        expect_error_line(output, cases[i].wants, 2);
        free(output);
    }
    if (CASE("a vocabulary larger than the table")) {
        put("bert/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nlung\n##s\na\nthe\nend\nmore\n");
        char *output;
        const int code = program_run(&output, "embed embed.dir=a embed.texts=lines.txt "
                                              "retriever.model=bert");
        const char *const wants[] = {"10 ids", "9 rows"};
        EXPECT(code == EXIT_BAD_DATA, "code %d: %s", code, output);
        expect_error_line(output, wants, 2);
        free(output);
    }
    free(dir);
}
