// world: see world.h.
#define _POSIX_C_SOURCE 200809L
#include "tests/world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/demo_world.h"
#include "tests/model_check.h"

static const char *const short_labels[] = {"label0", "label1"};
static const char *const long_labels[] = {"no", "yes it", "x"}; // bytes, as none of them is a word

static Dataset *draw(uint32_t which, int n, const char *const *classes, int C) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, classes, C);
    for (int i = 0; i < n; i++) {
        Rng rng = rng_new(check_seed(), RNG_TEST, which, (uint32_t)i);
        DemoCase drawn;
        demo_case(&drawn, &rng, 0.7, 0.1, -1);
        Record record = record_empty();
        record.text = drawn.caption;
        record.question = i % 2 ? "grade ?" : "view of region ?";
        record.label = i % C;
        record.answer = classes[record.label];
        record.image = (Image){
            .width = DEMO_SIDE, .height = DEMO_SIDE, .channels = 1, .data = drawn.pixels};
        dataset_add(ds, &record);
    }
    return ds;
}

// Towers and reader of the real forms, as small as they get.
static void make_models(World *w) {
    RetrieverConfig towers;
    CHECK(retriever_preset(&towers, "tiny"), "no preset");
    towers.image.L = towers.text.L = 1;
    towers.text.V = w->tokenizer->vocab;
    w->retriever = retriever_new(w->dev, DT_F32, &towers, w->config.is_trainable);
    tensors_init(&w->retriever->tensors, check_seed());
    tensors_disturb(&w->retriever->tensors, 0.05);
    ReaderConfig reader;
    CHECK(reader_preset(&reader, "tiny-qwen2vl"), "no preset");
    reader.L = reader.vision.L = 1;
    reader.V = w->tokenizer->vocab;
    reader.image_id = tokenizer_id(w->tokenizer, "<|image_pad|>");
    if (w->config.lora_rank) {
        const int rank = w->config.lora_rank;
        reader_set_lora(&reader, (LoraConfig){.rank = rank, .alpha = 2 * (float)rank}, true);
    }
    w->reader = reader_new(w->dev, DT_F32, &reader, w->config.is_trainable);
    tensors_init(&w->reader->tensors, check_seed());
    tensors_disturb(&w->reader->tensors, 0.05);
}

static void make_index(World *w) {
    const int n = w->corpus->n, E = w->retriever->config.image.E;
    const char **texts = xmalloc((size_t)n, sizeof *texts);
    for (int i = 0; i < n; i++) {
        texts[i] = w->corpus->records[i].text;
    }
    w->index = index_new(w->dev, n, E, DT_F32);
    for (int side = 0; side < INDEX_SIDES; side++) {
        w->rows[side] = xmalloc((size_t)n * E, sizeof(float));
    }
    encode_images(w->rows[INDEX_IMAGE], w->dev, DT_F32, &w->retriever->image, &w->tower_processor,
                  w->corpus, NULL, n);
    encode_texts(w->rows[INDEX_TEXT], w->dev, DT_F32, &w->retriever->text, w->tokenizer, texts, n,
                 64);
    for (int side = 0; side < INDEX_SIDES; side++) {
        index_set_rows(w->index, (IndexSide)side, 0, n, w->rows[side]);
    }
    w->fixed = xmalloc((size_t)w->queries->n * E, sizeof(float));
    encode_images(w->fixed, w->dev, DT_F32, &w->retriever->image, &w->tower_processor, w->queries,
                  NULL, w->queries->n);
    free(texts);
}

World *world_new(const WorldConfig *config) {
    World *w = xcalloc(1, sizeof *w);
    *w = (World){.config = *config, .dev = check_device()};
    const char *specials[16] = {"[CLS]", "[SEP]"};
    int special_count, word_count;
    const char *const *more = prompt_specials(PROMPT_QWEN2VL, &special_count);
    memcpy(specials + 2, more, (size_t)special_count * sizeof *more);
    const char *const *words = demo_words(&word_count);
    w->tokenizer = tokenizer_tiny_new(specials, special_count + 2, words, word_count);
    const int C = config->has_long_labels ? 3 : 2;
    const char *const *classes = config->has_long_labels ? long_labels : short_labels;
    w->queries = draw(1, config->queries, classes, C);
    w->corpus = draw(2, config->corpus, classes, C);
    w->labels = label_set_new(w->tokenizer, classes, C, false);
    CHECK(processor_preset("tiny", &w->tower_processor) &&
              processor_preset("tiny-reader", &w->reader_processor), "no processors");
    make_models(w);
    w->prompts = prompt_maker_new(PROMPT_TINY, w->tokenizer, &w->reader->config, 256);
    make_index(w);
    error_die("store", score_store_open(&w->store, NULL, C, true));
    return w;
}

void world_free(World *w) {
    error_die("store", score_store_close(w->store));
    index_free(w->index);
    for (int side = 0; side < INDEX_SIDES; side++) {
        free(w->rows[side]);
    }
    free(w->fixed);
    retriever_free(w->retriever);
    reader_free(w->reader);
    label_set_free(&w->labels);
    dataset_free(w->queries);
    dataset_free(w->corpus);
    tokenizer_free(w->tokenizer);
    free(w);
}

Scorer world_scorer(World *w) {
    return scorer_new(w->dev, w->reader, &w->prompts, &w->reader_processor, &w->labels, w->store);
}

int world_exit_code(void (*body)(void *ctx), void *ctx) {
    const pid_t pid = fork();
    if (pid == 0) {
        body(ctx);
        _exit(0);
    }
    int status = 0;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "pid %d", (int)pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// ---- gradients ----
float *world_values_new(const TensorList *list) {
    float *out = xmalloc(tensors_count(list, true), sizeof *out);
    size_t at = 0;
    for (int i = 0; i < list->count; i++) {
        if (list->tensor[i]->is_trainable) {
            tensor_read(list, list->tensor[i], out + at);
            at += list->tensor[i]->count;
        }
    }
    return out;
}

float *world_gradient_new(const Optim *optim) {
    const TensorList *list = optim->list;
    float *out = xmalloc(tensors_count(list, true), sizeof *out);
    size_t at = 0;
    for (int i = 0; i < list->count; i++) {
        const Tensor *tensor = list->tensor[i];
        if (tensor->is_trainable) {
            device_copy_out(list->dev, out + at, optim->m + tensor->offset,
                            tensor->count * sizeof *out);
            at += tensor->count;
        }
    }
    for (size_t i = 0; i < at; i++) {
        out[i] /= 1 - optim->config.beta1;
    }
    return out;
}

static double length(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    return sqrt(sum);
}

// Slope of the loss along the unit vector of g in one tensor.
static double slope(TensorList *list, Tensor *tensor, const float *g, double norm, double step,
                    double (*loss)(void *ctx), void *ctx) {
    float *start = xmalloc(2 * tensor->count, sizeof *start), *moved = start + tensor->count;
    tensor_read(list, tensor, start);
    double at[2];
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < tensor->count; i++) {
            moved[i] = (float)(start[i] + (k ? -step : step) * g[i] / norm);
        }
        tensor_write(list, tensor, DT_F32, moved);
        at[k] = loss(ctx);
    }
    tensor_write(list, tensor, DT_F32, start);
    free(start);
    return (at[0] - at[1]) / (2 * step);
}

void expect_list_gradient(TensorList *list, const float *gradient, double (*loss)(void *ctx),
                          void *ctx) {
    const double whole = length(gradient, tensors_count(list, true));
    EXPECT(whole > 1e-4, "the gradient is %g: nothing to see", whole);
    int tried = 0;
    for (int i = 0; i < list->count; i++) {
        Tensor *tensor = list->tensor[i];
        if (!tensor->is_trainable) {
            continue;
        }
        const double norm = length(gradient, tensor->count);
        if (!(norm <=
              0.05 * whole)) { // smaller ones drown in the noise of f32; NaN goes on to fail
            const double wide = slope(list, tensor, gradient, norm, 4e-3, loss, ctx);
            const double narrow = slope(list, tensor, gradient, norm, 2e-3, loss, ctx);
            const double got = narrow + (narrow - wide) / 3; // without the error of second order
            EXPECT(fabs(got - norm) <= 0.01 * whole, "%s: slope %g, gradient %g", tensor->name, got,
                   norm);
            tried++;
        }
        gradient += tensor->count;
    }
    EXPECT(tried >= 4, "only %d tensors have a gradient", tried);
}
