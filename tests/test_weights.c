// test_weights: what is saved comes back, under the names and in the shapes of the original
// checkpoints, and a file that is not the model's is refused with every difference.
#include "host/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "models/reader.h"
#include "models/retriever.h"
#include "tests/check.h"
#include "tests/model_check.h"

static Reader *reader_of(const char *preset, int rank, DType t, uint64_t seed) {
    ReaderConfig config;
    CHECK(reader_preset(&config, preset), "no preset '%s'", preset);
    config.L = config.vision.L = 1;
    config.V = 30;
    config.image_id = 3;
    if (rank) {
        reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 16}, true);
    }
    Reader *reader = reader_new(check_device(), t, &config, false);
    tensors_init(&reader->tensors, seed);
    if (rank) {
        tensors_disturb(&reader->tensors, 0.1);
    }
    return reader;
}

// How many tensors of one kind differ in a bit.
static int differing(const TensorList *a, const TensorList *b, bool is_adapter) {
    int count = 0;
    for (int i = 0; i < a->count; i++) {
        const Tensor *x = a->tensor[i], *y = b->tensor[i];
        float *values = xmalloc(2 * x->count, sizeof *values);
        tensor_read(a, x, values);
        tensor_read(b, y, values + x->count);
        count += x->is_adapter == is_adapter &&
                 memcmp(values, values + x->count, x->count * sizeof *values) != 0;
        free(values);
    }
    return count;
}

static char *path_new(const char *name) { return file_join_new(check_tmpdir(), name); }

static const WeightNames peft = {.prefix = "base_model.model."};
static const char *const presets[] = {"tiny-qwen2vl", "tiny-pixtral"};

TEST(weights_round_trip) {
    for (int k = 0; k < 2; k++) {
        for (int is_half = 0; is_half < 2; is_half++) {
            if (!CASE("%s %s", presets[k], is_half ? "bf16" : "f32")) {
                continue;
            }
            const DType t = is_half ? DT_BF16 : DT_F32;
            Reader *from = reader_of(presets[k], 4, t, 1), *to = reader_of(presets[k], 4, t, 2);
            char *base = path_new("base.safetensors"), *adapter = path_new("adapter.safetensors");
            const int before = differing(&from->tensors, &to->tensors, true);
            error_die(base, weights_save(&from->tensors, base, "", false, false));
            error_die(adapter,
                      weights_save(&from->tensors, adapter, "base_model.model.", true, true));
            Error error = weights_load(&to->tensors, base, NULL, false);
            EXPECT(error.code == 0, "base: %s", error.text);
            EXPECT(differing(&from->tensors, &to->tensors, false) == 0, "base tensors differ");
            EXPECT(differing(&from->tensors, &to->tensors, true) == before && before > 0,
                   "the base brought adapters");
            error = weights_load(&to->tensors, adapter, &peft, true);
            EXPECT(error.code == 0, "adapter: %s", error.text);
            EXPECT(differing(&from->tensors, &to->tensors, true) == 0, "adapters differ");
            free(base);
            free(adapter);
            reader_free(from);
            reader_free(to);
        }
    }
}

// A fused tensor is whole in the file: its rows are those of q, k and v, in this order.
static void expect_fused(const SafeTensors *file, const TensorList *list, const char *name,
                         int rank) {
    const SafeTensor *whole = safetensors_find(file, name);
    EXPECT(whole && whole->rank == rank, "no '%s' of rank %d", name, rank);
    size_t covered = 0;
    for (int i = 0; whole && i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (strncmp(name + (strncmp(name, "base_model.model.", 17) ? 0 : 17), tensor->file,
                    TENSOR_NAME) != 0) {
            continue;
        }
        const size_t row = tensor->count / (size_t)tensor->shape[0];
        float *values = xmalloc(tensor->count, sizeof *values);
        tensor_read(list, tensor, values);
        EXPECT(whole->shape[0] ==
                   (size_t)(tensor->file_rows ? tensor->file_rows : tensor->shape[0]),
               "rows of '%s'", name);
        EXPECT(memcmp((const char *)whole->data + (size_t)tensor->file_row * row * sizeof *values,
                      values, tensor->count * sizeof *values) == 0,
               "'%s' is not at its rows", tensor->name);
        covered += tensor->count;
        free(values);
    }
    EXPECT(whole && covered == safe_count(whole), "%zu values of '%s' are ours", covered, name);
}

TEST(weights_names) {
    Reader *qwen = reader_of("tiny-qwen2vl", 2, DT_F32, 1),
           *pixtral = reader_of("tiny-pixtral", 2, DT_F32, 1);
    char *path = path_new("names.safetensors");
    // Names as published with Qwen2-VL-7B-Instruct and the community's pixtral-12b, and PEFT's of
    // an adapter.
    const struct {
        Reader *reader;
        bool is_adapter;
        const char *names[6];
        int ranks[6];
    } cases[] = {
        {qwen,
         false,
         {"visual.blocks.0.attn.qkv.weight", "visual.blocks.0.attn.qkv.bias",
          "visual.patch_embed.proj.weight", "model.layers.0.self_attn.q_proj.weight",
          "model.embed_tokens.weight", "visual.merger.mlp.2.bias"},
         {2, 1, 5, 2, 2, 1}},
        {qwen,
         true,
         {"base_model.model.visual.blocks.0.attn.qkv.lora_A.weight",
          "base_model.model.visual.blocks.0.attn.qkv.lora_B.weight",
          "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
          "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight",
          "base_model.model.visual.blocks.0.mlp.fc1.lora_A.weight",
          "base_model.model.visual.blocks.0.attn.proj.lora_B.weight"},
         {2, 2, 2, 2, 2, 2}},
        {pixtral,
         true,
         {"base_model.model.language_model.model.layers.0.mlp.down_proj.lora_A.weight",
          "base_model.model.vision_tower.transformer.layers.0.attention.q_proj.lora_A.weight",
          "base_model.model.language_model.model.layers.0.self_attn.k_proj.lora_B.weight",
          "base_model.model.language_model.model.layers.0.mlp.gate_proj.lora_B.weight",
          "base_model.model.vision_tower.transformer.layers.0.feed_forward.up_proj.lora_A.weight",
          "base_model.model.vision_tower.transformer.layers.0.attention.o_proj.lora_B.weight"},
         {2, 2, 2, 2, 2, 2}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (!CASE("%s%s", cases[k].reader == qwen ? "qwen2vl" : "pixtral",
                  cases[k].is_adapter ? " adapter" : "")) {
            continue;
        }
        const TensorList *list = &cases[k].reader->tensors;
        error_die(path, weights_save(list, path, cases[k].is_adapter ? "base_model.model." : "",
                                     cases[k].is_adapter, true));
        SafeStore store;
        error_die(path, safestore_open_new(&store, path));
        for (int i = 0; i < 6; i++) {
            expect_fused(&store.all, list, cases[k].names[i], cases[k].ranks[i]);
        }
        safestore_free(&store);
    }
    free(path);
    reader_free(qwen);
    reader_free(pixtral);
}

enum {
    FAULT_NONE,
    FAULT_MISSING,
    FAULT_SURPLUS,
    FAULT_SHAPE,
    FAULT_TYPE,
    FAULT_TWO,
    FAULT_FUSED,
    FAULTS
};

// Writes the file's tensors again with one fault.
static void write_with_fault(const char *path, const char *to, int fault) {
    SafeStore store;
    error_die(path, safestore_open_new(&store, path));
    SafeTensor *tensors = xcalloc((size_t)store.all.count + 1, sizeof *tensors);
    int n = 0;
    for (int i = 0; i < store.all.count; i++) {
        SafeTensor tensor = store.all.tensors[i];
        const bool is_norm = strcmp(tensor.name, "model.norm.weight") == 0;
        const bool is_qkv = strcmp(tensor.name, "visual.blocks.0.attn.qkv.weight") == 0;
        if (is_norm && (fault == FAULT_MISSING || fault == FAULT_TWO)) {
            continue;
        }
        if ((is_norm && fault == FAULT_SHAPE) || (is_qkv && fault == FAULT_FUSED)) {
            tensor.shape[0]--;
        }
        if (is_norm && fault == FAULT_TYPE) {
            tensor.type = SAFE_I32;
        }
        tensors[n++] = tensor;
    }
    if (fault == FAULT_SURPLUS || fault == FAULT_TWO) {
        static const float zero;
        tensors[n++] = (SafeTensor){.name = "model.layers.9.mlp.bias", .type = SAFE_F32, .rank = 1,
                                    .shape = {1}, .data = &zero};
    }
    error_die(to, safetensors_write(to, tensors, n, NULL, 0));
    free(tensors);
    safestore_free(&store);
}

TEST(weights_differences) {
    static const struct {
        const char *name, *count, *first;
    } want[FAULTS] = {{"none", "", ""}, {"missing", "1 tensors differ", "model.norm.weight"},
                      {"surplus", "1 tensors differ", "model.layers.9.mlp.bias"},
                      {"shape", "1 tensors differ", "model.norm.weight"},
                      {"type", "1 tensors differ", "model.norm.weight"},
                      {"missing and surplus", "2 tensors differ", "model.norm.weight"},
                      {"fused", "3 tensors differ", "visual.blocks.0.attn.qkv.weight"}};
    Reader *from = reader_of("tiny-qwen2vl", 0, DT_F32, 1);
    char *whole = path_new("whole.safetensors"), *path = path_new("fault.safetensors");
    error_die(whole, weights_save(&from->tensors, whole, "", false, true));
    for (int fault = 0; fault < FAULTS; fault++) {
        if (!CASE("%s", want[fault].name)) {
            continue;
        }
        Reader *to = reader_of("tiny-qwen2vl", 0, DT_F32, 2);
        write_with_fault(whole, path, fault);
        const Error error = weights_load(&to->tensors, path, NULL, false);
        EXPECT(error.code == (fault ? EXIT_BAD_DATA : EXIT_OK), "code %d: %s", error.code,
               error.text);
        EXPECT(!fault ||
                   (strstr(error.text, want[fault].count) && strstr(error.text, want[fault].first)),
               "'%s'", error.text);
        reader_free(to);
    }
    // The adapter's prefix is part of the names.
    EXPECT(weights_load(&from->tensors, whole, &peft, false).code == EXIT_BAD_DATA,
           "prefix");
    EXPECT(weights_load(&from->tensors, "/nonexistent", NULL, false).code == EXIT_NO_INPUT,
           "no file");
    free(whole);
    free(path);
    reader_free(from);
}

// ---- mapped files ----
static void build_unallocated(Reader *reader, bool is_trainable) {
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-qwen2vl"), "no preset");
    config.L = config.vision.L = 1;
    config.V = 30;
    config.image_id = 3;
    reader_set_lora(&config, (LoraConfig){.rank = 4, .alpha = 16}, true);
    reader_build(reader, &config);
    tensors_mark_adapters(&reader->tensors, true, true);
    tensors_mark(&reader->tensors, "model.norm", is_trainable);
}

static bool lies_in(const SafeStore *store, const void *data) {
    const uint8_t *at = data, *from = store->files[0].data;
    return at >= from && at < from + store->files[0].size;
}

// Frozen tensors of the file's type are read where they lie; the others are copied.
TEST(weights_map) {
    for (int is_half = 0; is_half < 2; is_half++) {
        if (!CASE("reader in %s", is_half ? "bf16" : "f32")) {
            continue;
        }
        Reader *from = reader_of("tiny-qwen2vl", 4, DT_BF16, 1), to;
        char *path = path_new("half.safetensors");
        error_die(path, weights_save(&from->tensors, path, "", false, false));
        build_unallocated(&to, true);
        TensorList *list = &to.tensors;
        SafeStore store;
        const size_t before = device_bytes_in_use(check_device());
        const Error error = weights_map(list, check_device(), is_half ? DT_BF16 : DT_F32, &store,
                                        path, NULL);
        EXPECT(error.code == 0, "%s", error.text);
        EXPECT(differing(&from->tensors, list, false) == 0, "base tensors differ");
        size_t frozen = 0;
        for (int i = 0; i < list->count; i++) {
            const Tensor *tensor = list->tensor[i];
            const bool is_mapped = is_half && !tensor->is_trainable;
            EXPECT(tensor->is_borrowed == is_mapped && lies_in(&store, tensor->data) == is_mapped,
                   "%s: borrowed %d", tensor->name, tensor->is_borrowed);
            frozen += tensor->is_trainable ? 0 : tensor->count * dtype_size(list->t);
        }
        const size_t used = device_bytes_in_use(check_device()) - before;
        EXPECT(is_half ? used < frozen / 2 : used > frozen, "%zu bytes for %zu of frozen tensors",
               used, frozen);
        tensors_init_adapters(list, 1); // and leaves what is mapped alone
        tensors_pack(list, SIZE_MAX);
        EXPECT((to.blocks.block[0].q.weight->packed_fwd == NULL) == is_half, "packed, t=%s",
               dtype_name(list->t));
        reader_unbuild(&to);
        safestore_free(&store);
        reader_free(from);
        free(path);
    }
}

// A file whose data begins at an odd byte is not read in place.
TEST(weights_map_unaligned) {
    char *path = path_new("odd.safetensors");
    static const char header[] =
        "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}";
    const size_t length = (sizeof header - 1) | 1, at = 8 + length; // a blank behind, if need be
    uint8_t bytes[8 + sizeof header + 4] = {(uint8_t)length};
    memset(bytes + 8, ' ', length);
    memcpy(bytes + 8, header, sizeof header - 1);
    memcpy(bytes + at, (uint8_t[]){0x80, 0x3f, 0x00, 0xc0}, 4); // 1, -2
    CHECK(at % 2 == 1, "at=%zu", at);
    error_die(path, file_replace(path, bytes, at + 4));
    TensorList list = tensors_new();
    Tensor *tensor = tensors_add(&list, "a", init_constant(0), 1, (int[]){2});
    SafeStore store;
    const Error error = weights_map(&list, check_device(), DT_BF16, &store, path, NULL);
    EXPECT(error.code == 0 && !tensor->is_borrowed, "%s, borrowed %d", error.text,
           tensor->is_borrowed);
    float values[2];
    tensor_read(&list, tensor, values);
    EXPECT(values[0] == 1 && values[1] == -2, "%g, %g", values[0], values[1]);
    tensors_free(&list);
    safestore_free(&store);
    free(path);
}

// ---- rules ----
// One tensor a.w of two elements in the list; the file has what a case says.
TEST(weights_rules) {
    static const NamePair alias[] = {{"a.", "new.a."}, {0}}, twin = {"a.w", "copy"};
    static const char *const ignored[] = {".inv_freq", NULL};
    static const float one[2] = {1, 2}, two[2] = {1, 3}, bad[2] = {1, NAN};
    static const struct {
        const char *name, *files[3];
        const float *values[3];
        WeightNames names;
        const char *error; // NULL: none
    } cases[] = {
        {"renamed", {"new.a.w"}, {one}, {.renamed = alias}, NULL},
        {"not renamed", {"new.a.w"}, {one}, {0}, "2 tensors differ"},
        {"both names", {"a.w", "new.a.w"}, {one, one}, {.renamed = alias}, NULL},
        {"both names, two values", {"a.w", "new.a.w"}, {one, two}, {.renamed = alias},
         "not part of this model 'new.a.w'"},
        {"twin", {"a.w", "copy"}, {one, one}, {.twin = &twin}, NULL},
        {"other twin", {"a.w", "copy"}, {one, two}, {.twin = &twin}, "'copy'"},
        {"ignored", {"a.w", "rope.inv_freq"}, {one, two}, {.ignored = ignored}, NULL},
        {"not ignored", {"a.w", "inv_freq"}, {one, two}, {.ignored = ignored}, "'inv_freq'"},
        {"nan", {"a.w"}, {bad}, {.must_be_finite = true}, "NaN or infinity in 'a.w'"},
        {"nan allowed", {"a.w"}, {bad}, {0}, NULL},
    };
    char *path = path_new("rules.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!CASE("%s", cases[i].name)) {
            continue;
        }
        SafeTensor stored[3];
        int n = 0;
        for (; n < 3 && cases[i].files[n]; n++) {
            stored[n] = (SafeTensor){.name = cases[i].files[n], .type = SAFE_F32, .rank = 1,
                                     .shape = {2}, .data = cases[i].values[n]};
        }
        error_die(path, safetensors_write(path, stored, n, NULL, 0));
        TensorList list = tensors_new();
        Tensor *tensor = tensors_add(&list, "a.w", init_constant(0), 1, (int[]){2});
        tensors_allocate(&list, check_device(), DT_F32);
        const Error error = weights_load(&list, path, &cases[i].names, false);
        const char *want = cases[i].error;
        EXPECT(want ? error.code == EXIT_BAD_DATA && strstr(error.text, want) : error.code == 0,
               "%d: '%s'", error.code, error.text);
        float values[2];
        tensor_read(&list, tensor, values);
        EXPECT(values[0] == (want ? 0 : 1), "the value is %g", values[0]);
        tensors_free(&list);
    }
    free(path);
}

// Every value is looked at, in every type that ops know.
TEST(weights_finite) {
    enum { COUNT = 2500 };
    char *path = path_new("finite.safetensors");
    for (int t = DT_F32; t < DT_COUNT; t++) {
        for (int last = 0; last < 3; last++) {
            if (!CASE("%s %d", dtype_name((DType)t), last)) {
                continue;
            }
            float wide[COUNT] = {0};
            char values[COUNT * sizeof(float)];
            wide[COUNT - 1] = last == 0 ? 1 : last == 1 ? NAN : -INFINITY;
            dtype_narrow((DType)t, values, wide, COUNT);
            const SafeTensor stored = {.name = "a", .type = safe_type_of((DType)t), .rank = 1,
                                       .shape = {COUNT}, .data = values};
            error_die(path, safetensors_write(path, &stored, 1, NULL, 0));
            TensorList list = tensors_new();
            tensors_add(&list, "a", init_constant(0), 1, (int[]){COUNT});
            size_t mapped;
            const WeightNames names = {.must_be_finite = true};
            const Error error = weights_check(&list, (DType)t, path, &names, &mapped);
            EXPECT((error.code == EXIT_OK) == (last == 0), "%d: %s", error.code, error.text);
            EXPECT(mapped == (last ? 0 : COUNT * dtype_size((DType)t)), "%zu mapped", mapped);
            tensors_free(&list);
        }
    }
    free(path);
}
