// test_export: jomed export on tiny folders: an adapter merged into shards of the original layout,
// trained weights in them, adapters, indexes, and what is refused. Retrievers: see
// test_retriever_reference, which has their folders; PEFT, transformers and faiss open the same in
// tools/verify_export.py.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/adapter.h"
#include "host/faiss.h"
#include "host/file.h"
#include "host/hub_reader.h"
#include "host/index.h"
#include "tests/check.h"
#include "tests/model_check.h"
#include "tests/program.h"
#include "tests/reader_folder.h"

enum { RANK = 3 };
#define ALPHA 5.0

// ---- a base and an adapter ----
static ReaderConfig form_of(void) {
    json_t *root;
    ReaderConfig form;
    error_die("form", json_parse_new(&root, TINY_QWEN2VL, strlen(TINY_QWEN2VL)));
    error_die("form", hub_reader_config(&form, HUB_QWEN2_VL, root));
    json_decref(root);
    return form;
}

static char *path_of_new(const char *name) { return file_join_new(world_dir(), name); }

static void write_base(void) {
    world();
    const ReaderConfig form = form_of();
    char *dir = path_of_new("base");
    error_die(dir, file_make_directories(dir));
    Reader *base = reader_new(check_device(), DT_BF16, &form, false);
    tensors_formula(&base->tensors);
    reader_folder_write(dir, TINY_QWEN2VL, base);
    reader_free(base);
    free(dir);
    world_write("base/tokenizer.json", "{}", 2);
    world_write("base/pytorch_model.bin", "old", 3);
}

// A reader with adapters of the formula's values, saved as adapter/.
static Reader *adapted_new(void) {
    ReaderConfig form = form_of();
    reader_set_lora(&form, (LoraConfig){.rank = RANK, .alpha = (float)ALPHA}, true);
    Reader *reader = reader_new(check_device(), DT_F32, &form, false);
    tensors_formula(&reader->tensors);
    char *dir = path_of_new("adapter");
    const AdapterConfig config = {.rank = RANK, .alpha = ALPHA};
    error_die(dir, adapter_save(&reader->tensors, dir, &config));
    free(dir);
    return reader;
}

static SafeStore open_store(const char *name) {
    SafeStore store;
    char *path = path_of_new(name);
    const Error error = safestore_open_new(&store, path);
    EXPECT(error.code == 0, "%s: %s", name, error.text);
    free(path);
    return store;
}

static const char *const shards[] = {"a.safetensors", "b.safetensors"};

// Both shards of the folder have the tensors of the base's: names, types, shapes.
static void expect_layout(const char *folder) {
    for (int s = 0; s < 2; s++) {
        char *name = xformat_new("%s/%s", folder, shards[s]),
             *base = xformat_new("base/%s", shards[s]);
        SafeStore ours = open_store(name), theirs = open_store(base);
        EXPECT(ours.all.count == theirs.all.count && ours.all.count > 5, "%s: %d tensors", name,
               ours.all.count);
        for (int i = 0; i < ours.all.count && i < theirs.all.count; i++) {
            const SafeTensor *a = &ours.all.tensors[i], *b = &theirs.all.tensors[i];
            EXPECT(strcmp(a->name, b->name) == 0 && a->type == b->type && a->rank == b->rank &&
                       memcmp(a->shape, b->shape, sizeof a->shape) == 0,
                   "%s: %s and %s", name, a->name, b->name);
        }
        safestore_free(&ours);
        safestore_free(&theirs);
        free(name);
        free(base);
    }
    char *index = xformat_new("%s/model.safetensors.index.json", folder),
         *config = xformat_new("%s/config.json", folder),
         *tokenizer = xformat_new("%s/tokenizer.json", folder),
         *bin = xformat_new("%s/pytorch_model.bin", folder),
         *partial = xformat_new("%s.partial", folder);
    expect_same_file(index, "base/model.safetensors.index.json");
    expect_same_file(config, "base/config.json");
    expect_same_file(tokenizer, "base/tokenizer.json");
    EXPECT(!world_has(bin) && !world_has(partial), "%s holds too much", folder);
    free(index);
    free(config);
    free(tokenizer);
    free(bin);
    free(partial);
}

// ---- merging ----
// What the stored tensor `name` of (rows, in) should hold: w + s B A, in f32, rounded once.
// Written down here from the files alone.
static void expect_merged(const SafeStore *merged, const SafeStore *base, const SafeStore *adapter,
                          const SafeTensor *stored, int *changed) {
    const SafeTensor *old = safetensors_find(&base->all, stored->name);
    const size_t module = strlen(stored->name) - strlen(".weight"), n = safe_count(stored);
    char name[300];
    snprintf(name, sizeof name, "base_model.model.%.*s.lora_A.weight", (int)module, stored->name);
    const SafeTensor *a = safetensors_find(&adapter->all, name);
    snprintf(name, sizeof name, "base_model.model.%.*s.lora_B.weight", (int)module, stored->name);
    const SafeTensor *b = safetensors_find(&adapter->all, name);
    CHECK(old && merged->all.count == base->all.count, "%s", stored->name);
    if (!a || !b) {
        EXPECT(memcmp(stored->data, old->data, old->bytes) == 0, "%s changed", stored->name);
        return;
    }
    const size_t in = stored->shape[1];
    float *wide = xmalloc(n, sizeof *wide), *A = xmalloc(a->bytes, 1), *B = xmalloc(b->bytes, 1);
    bf16 *want = xmalloc(n, sizeof *want);
    memcpy(want, old->data, old->bytes);
    memcpy(A, a->data, a->bytes);
    memcpy(B, b->data, b->bytes);
    dtype_widen(wide, DT_BF16, want, n);
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t r = 0; r < RANK; r++) {
            sum = fmaf(B[i / in * RANK + r], A[r * in + i % in], sum);
        }
        wide[i] += (float)(ALPHA / RANK) * sum;
    }
    dtype_narrow(DT_BF16, want, wide, n);
    EXPECT(memcmp(stored->data, want, old->bytes) == 0, "%s is not w + s B A", stored->name);
    *changed += memcmp(want, old->data, old->bytes) != 0;
    free(wide);
    free(want);
    free(A);
    free(B);
}

#define EXPORT "export log.level=error reader.model=base export.dir=out "

TEST(export_merged) {
    write_base();
    reader_free(adapted_new());
    program_must_run(EXPORT "reader.adapter=adapter");
    expect_layout("out");
    SafeStore merged = open_store("out"), base = open_store("base"),
              adapter = open_store("adapter");
    int changed = 0;
    for (int i = 0; i < merged.all.count; i++) {
        expect_merged(&merged, &base, &adapter, &merged.all.tensors[i], &changed);
    }
    EXPECT(changed == 4 + 7, "%d tensors changed: the 4 of a vision block, 7 of a text block",
           changed);
    safestore_free(&merged);
    safestore_free(&base);
    safestore_free(&adapter);
}

// Weights that were trained whole go into the pattern, rounded to its type; a second export of the
// result changes nothing.
TEST(export_weights) {
    write_base();
    const ReaderConfig form = form_of();
    Reader *trained = reader_new(check_device(), DT_F32, &form, true);
    tensors_formula(&trained->tensors);
    tensors_disturb(&trained->tensors, 0.1);
    char *path = path_of_new("trained.safetensors"), *out = path_of_new("out");
    error_die(path, weights_save(&trained->tensors, path, "", false, true));
    program_must_run(EXPORT "reader.weights=trained.safetensors");
    expect_layout("out");
    Reader *back = reader_new(check_device(), DT_F32, &form, false);
    const WeightNames names = hub_reader_names(&form);
    error_die(out, weights_load(&back->tensors, out, &names, false));
    for (int i = 0; i < back->tensors.count; i++) {
        const Tensor *a = back->tensors.tensor[i], *b = trained->tensors.tensor[i];
        float *got = xmalloc(a->count, sizeof *got), *want = xmalloc(a->count, sizeof *want);
        bf16 *narrow = xmalloc(a->count, sizeof *narrow);
        tensor_read(&back->tensors, a, got);
        tensor_read(&trained->tensors, b, want);
        dtype_narrow(DT_BF16, narrow, want, a->count);
        dtype_widen(want, DT_BF16, narrow, a->count);
        EXPECT(memcmp(got, want, a->count * sizeof *got) == 0, "%s differs", a->name);
        free(got);
        free(want);
        free(narrow);
    }
    program_must_run("export log.level=error reader.model=out reader.weights=out export.dir=again");
    expect_same_file("out/a.safetensors", "again/a.safetensors");
    expect_same_file("out/b.safetensors", "again/b.safetensors");
    reader_free(trained);
    reader_free(back);
    free(path);
    free(out);
}

// A tied head that the file holds beside the table stays its copy.
TEST(export_tied) {
    write_base();
    const ReaderConfig form = form_of();
    Reader *trained = reader_new(check_device(), DT_F32, &form, true);
    tensors_formula(&trained->tensors);
    tensors_disturb(&trained->tensors, 0.1);
    char *path = path_of_new("trained.safetensors"), *dir = path_of_new("tied"),
         *tied = file_join_new(dir, "model.safetensors");
    error_die(path, weights_save(&trained->tensors, path, "", false, true));
    error_die(dir, file_make_directories(dir));
    world_write("tied/config.json", TINY_QWEN2VL, strlen(TINY_QWEN2VL));
    static const char table[] = "model.language_model.embed_tokens.weight";
    SafeStore base = open_store("base");
    const int count = base.all.count;
    SafeTensor *tensors = xmalloc((size_t)count + 1, sizeof *tensors);
    memcpy(tensors, base.all.tensors, (size_t)count * sizeof *tensors);
    tensors[count] = *safetensors_find(&base.all, table);
    tensors[count].name = "lm_head.weight";
    error_die(tied, safetensors_write(tied, tensors, count + 1, NULL, 0));
    program_must_run(EXPORT "reader.model=tied reader.weights=trained.safetensors");
    SafeStore out = open_store("out");
    const SafeTensor *head = safetensors_find(&out.all, "lm_head.weight"),
                     *rows = safetensors_find(&out.all, table);
    EXPECT(out.all.count == count + 1 && head && rows && head->bytes == rows->bytes &&
               memcmp(head->data, rows->data, rows->bytes) == 0,
           "the head is no copy of the table");
    EXPECT(rows && memcmp(rows->data, tensors[count].data, rows->bytes) != 0, "nothing changed");
    safestore_free(&out);
    safestore_free(&base);
    reader_free(trained);
    free(tensors);
    free(path);
    free(tied);
    free(dir);
}

TEST(export_adapter) {
    write_base();
    reader_free(adapted_new());
    program_must_run(EXPORT "export.what=adapter reader.adapter=adapter");
    expect_same_file("out/adapter_model.safetensors", "adapter/adapter_model.safetensors");
    expect_same_file("out/adapter_config.json", "adapter/adapter_config.json");
}

// ---- index ----
TEST(export_index) {
    world_with_index();
    program_must_run("export c.yaml log.level=error export.what=index export.dir=out");
    char *dir = path_of_new("index");
    Index *index;
    error_die(dir, index_load_new(&index, check_device(), dir, 0));
    for (int side = 0; side < INDEX_SIDES; side++) {
        char *name = xformat_new("out/%s.faiss", index_side_name((IndexSide)side)),
             *path = path_of_new(name);
        FileBytes bytes;
        FaissIndex faiss;
        error_die(path, file_map_new(&bytes, path));
        error_die(path, faiss_parse(&faiss, bytes.data, bytes.size));
        const size_t n = (size_t)index->count * (size_t)index->dim;
        float *got = xmalloc(n, sizeof *got), *want = xmalloc(n, sizeof *want);
        EXPECT(faiss.M == WORLD_PASSAGES && faiss.E == index->dim && !faiss.ids, "%zu rows",
               faiss.M);
        faiss_rows(&faiss, got, 0, faiss.M);
        for (int32_t i = 0; i < index->count; i++) {
            index_get_rows(index, (IndexSide)side, &i, 1, want + (size_t)i * (size_t)index->dim);
        }
        EXPECT(memcmp(got, want, n * sizeof *got) == 0, "%s differs", name);
        free(got);
        free(want);
        file_bytes_free(&bytes);
        free(path);
        free(name);
    }
    index_free(index);
    free(dir);
}

// ---- refusals ----
TEST(export_refused) {
    write_base();
    reader_free(adapted_new());
    const int made = check_run(
        NULL, "cd '%s' && mkdir full && echo x > full/file && cp -r base other && cp -r base torn "
        "&& cp -r adapter wide && rm torn/b.safetensors && sed -i 's/\"r\": 3/\"r\": 4/' "
        "wide/adapter_config.json && sed -i 's/\"vocab_size\":11/\"vocab_size\":12/' "
        "other/config.json", world_dir());
    CHECK(made == 0, "code %d", made);
    static const struct {
        const char *arguments, *wants[2];
        int code;
    } bad[] = {
        {EXPORT "", {"reader.adapter", "not set"}, EXIT_CONFIG},
        {"export reader.model=base reader.adapter=adapter", {"export.dir", "not set"}, EXIT_CONFIG},
        {"export export.dir=out reader.adapter=adapter", {"reader.model", "not set"}, EXIT_CONFIG},
        {EXPORT "reader.adapter=adapter export.what=all", {"export.what", "all"}, EXIT_CONFIG},
        {EXPORT "reader.adapter=adapter export.dri=x", {"export.dri", "export.dir"}, EXIT_CONFIG},
        {EXPORT "reader.adapter=none", {"none", "adapter_config.json"}, EXIT_NO_INPUT},
        {EXPORT "reader.adapter=wide", {"wide", "tensors differ"}, EXIT_BAD_DATA},
        {EXPORT "reader.adapter=adapter reader.model=none", {"none", ""}, EXIT_NO_INPUT},
        {EXPORT "reader.adapter=adapter reader.model=other", {"other", ""}, EXIT_BAD_DATA},
        {EXPORT "reader.model=torn reader.weights=base", {"b.safetensors", "out"}, EXIT_NO_INPUT},
        {EXPORT "reader.adapter=adapter export.dir=full", {"full", "there already"},
         EXIT_NO_OUTPUT},
        {EXPORT "reader.adapter=adapter export.dir=base/config.json", {"config.json", "already"},
         EXIT_NO_OUTPUT},
        {EXPORT "export.what=retriever", {"retriever.model", "not set"}, EXIT_CONFIG},
        {EXPORT "export.what=text-head", {"retriever.text_head", "not set"}, EXIT_CONFIG},
        {EXPORT "export.what=index index.dir=none", {"none", ""}, EXIT_NO_INPUT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (CASE("%s", bad[i].arguments)) {
            char *output;
            const int code = program_run(&output, "%s", bad[i].arguments);
            EXPECT(code == bad[i].code, "code %d: %s", code, output);
            expect_error_line(output, bad[i].wants, 2);
            EXPECT(!world_has("out") && !world_has("out.partial"), "something was left");
            free(output);
        }
    }
}
