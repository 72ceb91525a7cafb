// test_retriever_reference: retrievers from checkpoint folders against timm, transformers,
// open_clip and JinaBERT (tools/dump_reference_retriever.py): the folder is written as the
// original names and shapes its tensors, with the original's configuration file, and opened; then
// embeddings and the gradient of every parameter must agree in f32, and embeddings in bf16. The f32
// bound is twice the error of the original plus 1e-7 of the largest value. The original's error is
// the largest of twelve f32 runs that differ in rounding alone, because one run is a lottery for
// tensors of a few elements: held to one another's single runs, the original's own fail 5.7 of 100
// times.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/export.h"
#include "host/file.h"
#include "host/hub_retriever.h"
#include "tests/model_check.h"
#include "tests/reference.h"

enum { CASES = 6, MOST_TENSORS = 200 };
static const char *const families[] = {"jina", "clip", "open_clip", "biomedclip", "bert"};
enum { FAMILIES = sizeof families / sizeof *families };

// ---- one case of a fixture ----
typedef struct {
    Reference reference;
    const char *family;
    int k;
    char *dir;
    HubRetriever hub;
    Retriever *retriever;
    SafeStore store; // frozen tensors lie in it
    TextBatch texts;
    int32_t *ids, *cu_seqlens;
    float *pixels; // (images,3,S,S) on the device
    int images;
} Fixture;

static char *entry(char out[64], const Fixture *fixture, const char *name) {
    snprintf(out, 64, "%d/%s", fixture->k, name);
    return out;
}

static const char *about(const Fixture *fixture, const char *name) {
    char full[64];
    return safetensors_metadata(&fixture->reference.store.all, entry(full, fixture, name));
}

static double *numbers_new(const Fixture *fixture, const char *name, size_t *count) {
    char full[64];
    return reference_f64_new(&fixture->reference, entry(full, fixture, name), count);
}

static void write_text(const char *dir, const char *name, const char *text) {
    char *path = file_join_new(dir, name);
    error_die(path, file_replace(path, text, strlen(text)));
    free(path);
}

// model.safetensors with the tensors the original lists, by the formula.
static void write_weights(const Fixture *fixture) {
    static SafeTensor tensors[MOST_TENSORS];
    int count = 0;
    char *lines = xstrdup(about(fixture, "tensors")), *rest = lines;
    for (char *line; (line = strtok_r(rest, "\n", &rest)); count++) {
        CHECK(count < MOST_TENSORS, "%d tensors", count);
        SafeTensor *tensor = &tensors[count];
        char *fields = line;
        *tensor = (SafeTensor){.type = SAFE_F32, .name = strtok_r(fields, " ", &fields)};
        tensor->rank = atoi(strtok_r(fields, " ", &fields));
        for (int i = 0; i < tensor->rank; i++) {
            tensor->shape[i] = (size_t)atoi(strtok_r(fields, " ", &fields));
        }
        const size_t n = safe_count(tensor);
        float *values = xmalloc(n, sizeof *values);
        formula_rows(values, tensor->name, tensor->rank, tensor->rank ? n / tensor->shape[0] : 1, 0,
                     n);
        tensor->data = values;
    }
    char *path = file_join_new(fixture->dir, "model.safetensors");
    error_die(path, safetensors_write(path, tensors, count, NULL, 0));
    for (int i = 0; i < count; i++) {
        free((void *)tensors[i].data);
    }
    free(path);
    free(lines);
}

// BiomedCLIP's configuration names its towers, whose sizes are built in; the fixture's are tiny.
static void set_sizes(RetrieverConfig *config, const char *text) {
    json_t *sizes;
    error_die("sizes", json_parse_new(&sizes, text, strlen(text)));
    ImageTowerConfig *image = &config->image;
    TextTowerConfig *tower = &config->text;
    BlockConfig *block = &image->block, *text_block = &tower->block;
    const HubInt fields[] = {
        {"S", &image->image_size, 1, 99}, {"P", &image->P, 1, 99}, {"C", &block->C, 1, 99},
        {"H", &block->H, 1, 99}, {"F", &block->F, 1, 99}, {"L", &image->L, 1, 99},
        {"V", &tower->V, 1, 99}, {"textC", &text_block->C, 1, 99}, {"E", &tower->E, 1, 99},
        {"textH", &text_block->H, 1, 99}, {"textF", &text_block->F, 1, 99},
        {"textL", &tower->L, 1, 99}, {"max_T", &tower->max_T, 1, 99},
        {"head", &tower->head_hidden, 1, 99},
    };
    error_die("sizes", hub_ints(sizes, fields, sizeof fields / sizeof *fields));
    image->E = tower->E;
    for (int i = 0; i < 2; i++) {
        BlockConfig *one = i ? text_block : block;
        one->Hkv = one->H;
        one->D = one->C / one->H;
    }
    json_decref(sizes);
}

static void fixture_open(Fixture *fixture, const char *family, int k, DType t,
                         bool is_trainable) {
    char file[64], name[64];
    snprintf(file, sizeof file, "retriever_%s.safetensors", family);
    *fixture = (Fixture){.reference = reference_open(file), .family = family, .k = k};
    snprintf(file, sizeof file, "%s-%d-%d", family, k, (int)t);
    fixture->dir = file_join_new(check_tmpdir(), file);
    char *pooling = file_join_new(fixture->dir, "1_Pooling");
    error_die(pooling, file_make_directories(pooling));
    const char *config = about(fixture, "config");
    write_text(fixture->dir, strstr(config, "model_cfg") ? "open_clip_config.json" : "config.json",
               config);
    if (about(fixture, "pooling")) {
        write_text(pooling, "config.json", about(fixture, "pooling"));
    }
    free(pooling);
    write_weights(fixture);
    error_die(fixture->dir, hub_retriever_open_new(&fixture->hub, fixture->dir));
    if (about(fixture, "sizes")) {
        set_sizes(&fixture->hub.config, about(fixture, "sizes"));
    }
    fixture->retriever = xcalloc(1, sizeof *fixture->retriever);
    retriever_build(fixture->retriever, &fixture->hub.config);
    tensors_mark(&fixture->retriever->tensors, "", is_trainable);
    error_die(fixture->dir, hub_retriever_load(fixture->retriever, check_device(), t,
                                               &fixture->store, &fixture->hub));

    size_t N, ends, rows;
    fixture->ids = reference_ids_new(&fixture->reference, entry(name, fixture, "ids"), &N);
    fixture->cu_seqlens = reference_ids_new(&fixture->reference, entry(name, fixture, "cu_seqlens"),
                                            &ends);
    fixture->texts = (TextBatch){.B = (int)ends - 1, .N = (int)N, .ids = fixture->ids,
                                 .cu_seqlens = fixture->cu_seqlens};
    for (size_t b = 0; b + 1 < ends; b++) {
        const int T = fixture->cu_seqlens[b + 1] - fixture->cu_seqlens[b];
        fixture->texts.max_T = T > fixture->texts.max_T ? T : fixture->texts.max_T;
    }
    free(numbers_new(fixture, "out", &rows));
    fixture->images = (int)rows / fixture->hub.config.text.E - fixture->texts.B;
    if (fixture->images) { // multiples of 1/64 in [-2, 2), which bf16 holds too
        const int S = fixture->hub.config.image.image_size;
        const size_t n = (size_t)fixture->images * 3 * S * S;
        float *host = xmalloc(n, sizeof *host);
        snprintf(name, sizeof name, "pixels/%s/%d", family, k);
        formula_fill(host, name, 0, n, 0, 1);
        for (size_t i = 0; i < n; i++) {
            host[i] = (float)(floor((double)host[i] * 128) / 64);
        }
        fixture->pixels = device_alloc(check_device(), n * sizeof *host, "pixels");
        device_copy_in(check_device(), fixture->pixels, host, n * sizeof *host);
        free(host);
    }
}

static void fixture_close(Fixture *fixture) {
    device_release(check_device(), fixture->pixels);
    free(fixture->ids);
    free(fixture->cu_seqlens);
    free(fixture->dir);
    retriever_free(fixture->retriever);
    safestore_free(&fixture->store);
    hub_retriever_free(&fixture->hub);
    reference_free(&fixture->reference);
}

// Images, then texts: out (images + B, E).
static void both_towers(void *ctx, Run *run, void *out, const void *dout) {
    Fixture *fixture = ctx;
    const size_t split = (size_t)fixture->images * fixture->hub.config.text.E;
    ImageTowerState image;
    TextTowerState text;
    if (fixture->images) {
        image_tower_fwd(run, &fixture->retriever->image, &image, out, fixture->pixels,
                        fixture->images);
    }
    text_tower_fwd(run, &fixture->retriever->text, &text, run_at(run, out, split), &fixture->texts);
    if (dout) {
        text_tower_bwd(run, &fixture->retriever->text, &text, run_at(run, dout, split));
    }
    if (dout && fixture->images) {
        image_tower_bwd(run, &fixture->retriever->image, &image, dout);
    }
}

// ---- agreement ----
static double largest(const double *values, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(values[i]));
    }
    return most;
}

static double distance(const float *got, const double *truth, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        worst = check_worst(worst, fabs(got[i] - truth[i]));
    }
    return worst;
}

// Fails above a ratio of one; *most becomes the largest ratio.
static void expect_ratio(double *most, const char *what, double worst, double bound, double error) {
    const double ratio = worst == 0 ? 0 : worst / bound;
    EXPECT(ratio <= 1, "%s: off by %.3g, allowed %.3g (the original's error: %.3g)", what, worst,
           bound, error);
    *most = check_worst(*most, ratio);
}

// Outputs of images and texts against truth (rows,E), each with its own bound.
static void expect_outputs(const Fixture *fixture, double *most, const float *got,
                           const double *truth, const double *error, double floor_share) {
    const size_t E = (size_t)fixture->hub.config.text.E,
                 rows[] = {(size_t)fixture->images, (size_t)fixture->texts.B};
    for (int side = 0; side < 2; side++) {
        const size_t first = side ? rows[0] * E : 0, n = rows[side] * E;
        const double bound = 2 * error[side] + floor_share * largest(truth + first, n);
        expect_ratio(most, side ? "texts" : "images", distance(got + first, truth + first, n),
                     bound, error[side]);
    }
}

// The gradient of the file's tensor `first` belongs to, as the file has it.
static float *gradient_new(const TensorList *list, const Tensor *first) {
    const size_t row = first->rank ? first->count / (size_t)first->shape[0] : 1;
    float *out = xmalloc((size_t)first->file_rows * row, sizeof *out);
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (strcmp(tensor->file, first->file) == 0) {
            device_copy_out(list->dev, out + (size_t)tensor->file_row * row, tensor->grad,
                            tensor->count * sizeof *out);
        }
    }
    if (!first->is_transposed) {
        return out;
    }
    float *turned = xmalloc(first->count, sizeof *turned);
    const int rows = first->shape[0], columns = first->shape[1];
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < columns; c++) {
            turned[c * rows + r] = out[r * columns + c];
        }
    }
    free(out);
    return turned;
}

static int by_file(const void *a, const void *b) {
    return strcmp((*(Tensor *const *)a)->file, (*(Tensor *const *)b)->file);
}

// Every gradient of the towers, in the order of the fixture. Returns how many there were.
static int expect_gradients(const Fixture *fixture, double *most, const double *error, size_t n) {
    const TensorList *list = &fixture->retriever->tensors;
    const Tensor *order[MOST_TENSORS];
    size_t count, at = 0;
    int files = 0;
    for (int i = 0; i < list->count; i++) {
        if (list->tensor[i]->file_row == 0 && list->tensor[i] != fixture->retriever->logit_scale) {
            order[files++] = list->tensor[i];
        }
    }
    qsort(order, (size_t)files, sizeof *order, by_file);
    double *truth = numbers_new(fixture, "grad", &count);
    const double all = largest(truth, count);
    EXPECT((size_t)files == n, "%d tensors, the original trains %zu", files, n);
    for (int i = 0; i < files && (size_t)i < n; i++) {
        const Tensor *tensor = order[i];
        const size_t rows = tensor->rank ? (size_t)tensor->file_rows : 1,
                     size = tensor->count / (tensor->rank ? (size_t)tensor->shape[0] : 1) * rows;
        CHECK(at + size <= count, "'%s' ends at %zu of %zu", tensor->file, at + size, count);
        float *got = gradient_new(list, tensor);
        // What is zero in exact arithmetic (a key bias under softmax) has no scale of its own.
        const double own = largest(truth + at, size), scale = own < 1e-12 * all ? all : own;
        expect_ratio(most, tensor->file, distance(got, truth + at, size),
                     2 * error[i] + 1e-7 * scale, error[i]);
        at += size;
        free(got);
    }
    EXPECT(at == count, "%zu of %zu gradients", at, count);
    free(truth);
    return files;
}

static void say(const Fixture *fixture, const char *what, double most) {
    char name[64];
    snprintf(name, sizeof name, "retriever_%s_%d", fixture->family, fixture->k);
    reference_say(name, what, most);
}

TEST_DEVICE(retriever_reference) {
    for (int f = 0; f < FAMILIES; f++) {
        for (int k = 0; k < CASES; k++) {
            if (!CASE("%s %d", families[f], k)) {
                continue;
            }
            Fixture fixture;
            fixture_open(&fixture, families[f], k, DT_F32, true);
            size_t count, errors;
            double *truth = numbers_new(&fixture, "out", &count), forward = 0, backward = 0;
            double *error = numbers_new(&fixture, "error", &errors);
            float *out = xmalloc(2 * count, sizeof *out), *dout = out + count;
            char name[64];
            snprintf(name, sizeof name, "dout/%s/%d", families[f], k);
            formula_fill(dout, name, 0, count, 0, 1.7);
            const ModelUnderTest model = {.list = &fixture.retriever->tensors, .ctx = &fixture,
                                          .pass = both_towers, .count = count};
            tensors_zero_grad(model.list);
            model_run(&model, out, dout, false);
            expect_outputs(&fixture, &forward, out, truth, error, 1e-7);
            const int files = expect_gradients(&fixture, &backward, error + 2, errors - 2);
            say(&fixture, "forward", forward);
            say(&fixture, "gradients", backward);
            EXPECT(files > 10, "%d gradients", files);
            free(truth);
            free(error);
            free(out);
            fixture_close(&fixture);
        }
    }
}

// In bf16 the error may be twice the original's own.
TEST(retriever_bf16_reference) {
    for (int f = 0; f < FAMILIES; f++) {
        for (int k = 0; k < CASES; k++) {
            if (!CASE("%s %d", families[f], k)) {
                continue;
            }
            Fixture fixture;
            fixture_open(&fixture, families[f], k, DT_BF16, false);
            size_t count;
            double *truth = numbers_new(&fixture, "bf16", &count), most = 0;
            double *error = numbers_new(&fixture, "bf16_error", NULL);
            float *out = xmalloc(count, sizeof *out);
            const ModelUnderTest model = {.list = &fixture.retriever->tensors, .ctx = &fixture,
                                          .pass = both_towers, .count = count};
            model_run(&model, out, NULL, false);
            expect_outputs(&fixture, &most, out, truth, error, 0);
            say(&fixture, "bf16", most);
            free(truth);
            free(error);
            free(out);
            fixture_close(&fixture);
        }
    }
}

// ---- export ----
// What we write opens as the original's: the tensors of the towers under their names, in their
// shapes, to the bit. worst counts those that differ.
TEST(retriever_export) {
    for (int f = 0; f < FAMILIES; f++) {
        for (int k = 0; k < CASES; k++) {
            if (!CASE("%s %d", families[f], k)) {
                continue;
            }
            Fixture fixture;
            fixture_open(&fixture, families[f], k, DT_F32, k % 2 == 0);
            char *path = file_join_new(fixture.dir, "export.safetensors");
            error_die(path, weights_save(&fixture.retriever->tensors, path, "", false, true));
            SafeStore ours, theirs;
            error_die(path, safestore_open_new(&ours, path));
            error_die(path, safestore_open_new(&theirs, fixture.hub.weights));
            int differ = 0;
            for (int i = 0; i < theirs.all.count; i++) {
                const SafeTensor *a = &theirs.all.tensors[i],
                                 *b = safetensors_find(&ours.all, a->name);
                const bool is_unused = strstr(a->name, "pooler") != NULL; // a BERT's, not read
                const bool is_same = b && a->rank == b->rank && a->bytes == b->bytes &&
                                     memcmp(a->shape, b->shape, sizeof a->shape) == 0 &&
                                     memcmp(a->data, b->data, a->bytes) == 0;
                EXPECT(is_same != is_unused, "%s", a->name);
                differ += is_same == is_unused;
            }
            EXPECT(ours.all.count > 10, "%d tensors", ours.all.count);
            say(&fixture, "export", differ);
            safestore_free(&ours);
            safestore_free(&theirs);
            free(path);
            fixture_close(&fixture);
        }
    }
}

// The folder `dir`, opened again, holds of the text tower and of logit_scale what texts has, and of
// the image tower what images has; and its file is laid out as the fixture's.
static void expect_folder(const Fixture *fixture, const char *dir, const TensorList *texts,
                          const TensorList *images) {
    HubRetriever hub;
    Retriever back;
    SafeStore store, ours, theirs;
    error_die(dir, hub_retriever_open_new(&hub, dir));
    retriever_build(&back, &fixture->hub.config);
    const Error error = hub_retriever_load(&back, check_device(), DT_F32, &store, &hub);
    EXPECT(error.code == 0, "%s: %s", dir, error.text);
    for (int i = 0; i < back.tensors.count && !error.code; i++) {
        const Tensor *a = back.tensors.tensor[i], *b = tensors_find(images, a->name);
        const TensorList *list = b ? images : texts;
        b = b ? b : tensors_find(texts, a->name);
        float *got = xmalloc(a->count, sizeof *got), *want = xmalloc(a->count, sizeof *want);
        tensor_read(&back.tensors, a, got);
        tensor_read(list, b, want);
        EXPECT(memcmp(got, want, a->count * sizeof *got) == 0, "%s differs", a->name);
        free(got);
        free(want);
    }
    error_die(dir, safestore_open_new(&ours, hub.weights));
    error_die(dir, safestore_open_new(&theirs, fixture->hub.weights));
    EXPECT(ours.all.count == theirs.all.count, "%d tensors", ours.all.count);
    for (int i = 0; i < ours.all.count && i < theirs.all.count; i++) {
        const SafeTensor *a = &ours.all.tensors[i], *b = &theirs.all.tensors[i];
        EXPECT(strcmp(a->name, b->name) == 0 && a->type == b->type && a->rank == b->rank &&
                   memcmp(a->shape, b->shape, sizeof a->shape) == 0,
               "%s and %s", a->name, b->name);
        EXPECT(!strstr(a->name, "pooler") || memcmp(a->data, b->data, a->bytes) == 0, "%s changed",
               a->name);
    }
    safestore_free(&ours);
    safestore_free(&theirs);
    retriever_unbuild(&back);
    safestore_free(&store);
    hub_retriever_free(&hub);
}

// Trained towers in the folder they came from, of every family.
TEST(retriever_folder) {
    for (int f = 0; f < FAMILIES; f++) {
        if (!CASE("%s", families[f])) {
            continue;
        }
        Fixture fixture;
        fixture_open(&fixture, families[f], 0, DT_F32, true);
        TensorList *list = &fixture.retriever->tensors;
        tensors_disturb(list, 0.1);
        WeightNames names;
        error_die(fixture.dir, hub_retriever_names(&names, &fixture.hub));
        char name[64];
        snprintf(name, sizeof name, "%s-out/", families[f]);
        char *out = file_join_new(check_tmpdir(), name);
        const ExportFolder what = {.source = fixture.dir, .weights = fixture.hub.weights,
                                   .names = &names, .list = list};
        Error error = export_folder(out, &what);
        EXPECT(error.code == 0, "%s", error.text);
        expect_folder(&fixture, out, list, list);
        error = export_folder(out, &what);
        EXPECT(error.code == EXIT_NO_OUTPUT, "%d: a folder was written over", error.code);
        free(out);
        fixture_close(&fixture);
    }
}

// The verb: trained towers, and a query head in the image tower's place.
TEST(retriever_export_verb) {
    static const char *const some[] = {"jina", "clip", "open_clip"};
    for (int f = 0; f < 3; f++) {
        if (!CASE("%s", some[f])) {
            continue;
        }
        Fixture fixture;
        fixture_open(&fixture, some[f], 0, DT_F32, true);
        TensorList *list = &fixture.retriever->tensors;
        Head *head = head_new(check_device(), DT_F32, &fixture.hub.config.image, true);
        tensors_formula(&head->tensors);
        tensors_disturb(&head->tensors, 0.1);
        char *weights = file_join_new(fixture.dir, "trained"),
             *query = file_join_new(fixture.dir, "head"), *out = file_join_new(fixture.dir, "out");
        error_die(query, weights_save(&head->tensors, query, "", false, true));
        char *output;
        int code = check_run(&output, "'%s' export log.level=error export.what=image-head "
                             "retriever.model='%s' retriever.image_head='%s' export.dir='%s'",
                             check_program(), fixture.dir, query, out);
        EXPECT(code == 0, "code %d: %s", code, output);
        expect_folder(&fixture, out, list, &head->tensors);
        char *inside = file_join_new(out, "out.partial");
        EXPECT(!file_exists(inside), "the folder holds itself");
        free(inside);
        free(output);
        tensors_disturb(list, 0.1);
        error_die(weights, weights_save(list, weights, "", false, true));
        error_die(out, file_remove_tree(out));
        code = check_run(&output, "'%s' export log.level=error export.what=retriever "
                         "retriever.model='%s' retriever.weights='%s' export.dir='%s'",
                         check_program(), fixture.dir, weights, out);
        EXPECT(code == 0, "code %d: %s", code, output);
        expect_folder(&fixture, out, list, list);
        free(output);
        free(weights);
        free(query);
        free(out);
        head_free(head);
        fixture_close(&fixture);
    }
}
