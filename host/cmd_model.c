// cmd_model: jomed model info DIR: what a checkpoint folder holds, whether it is whole, and what
// running it will take. What is missing or wrong is said line by line; the exit code is the first
// one's kind. jomed model tokenize DIR: texts to ids and back.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub_reader.h"
#include "hub_retriever.h"
#include "jsonl.h"
#include "memory_plan.h"
#include "processor_file.h"
#include "scorer.h"
#include "settings.h"
#include "tokenizer_files.h"
#include "verbs.h"

static const char *model_dir(const Config *config) {
    if (!config->model.dir[0]) {
        die(EXIT_CONFIG, "model.dir: not set; name the folder of the model");
    }
    return config->model.dir;
}

// The prompt that memory is planned for: two pictures of 512 x 512 pixels at most, and text.
enum { PLAN_TEXTS = 512, PLAN_PIXELS = 512 };

// ---- info ----
typedef struct {
    const Config *config;
    const char *dir;
    Device *dev;
    HubFolder folder;
    DType t;      // of the weights in memory: the file's, or a reader's reader.dtype if it is set
    int code;     // of the first problem, or EXIT_OK
} Info;

static void say(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const char *what, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = xformat_args_new(fmt, args);
    va_end(args);
    printf("%-11s %s\n", what, text);
    free(text);
}

// A part with an error: said where its line stands. Returns whether there is none.
static bool is_fine(Info *info, const char *what, Error error) {
    if (error.code) {
        say(what, "%s: %s", error.code == EXIT_NO_INPUT ? "missing" : "wrong", error.text);
        info->code = info->code ? info->code : (int)error.code;
    }
    return !error.code;
}

// ---- weights ----
// "1,234,567"
static char *grouped(char out[32], size_t n) {
    char digits[32];
    const int length = snprintf(digits, sizeof digits, "%zu", n);
    int used = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) {
            out[used++] = ',';
        }
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

static void say_parameters(const TensorList *list) {
    char all[32], part[32];
    size_t used = 0;
    char *parts = xstrdup("");
    // Parts are told by the first word of a name: visual, model, lm_head.
    for (int i = 0; i < list->count;) {
        const char *name = list->tensor[i]->file;
        const size_t length = strcspn(name, ".");
        size_t count = 0;
        for (; i < list->count && strncmp(list->tensor[i]->file, name, length) == 0 &&
               strchr(".", list->tensor[i]->file[length]);
             i++) {
            count += list->tensor[i]->is_adapter ? 0 : list->tensor[i]->count;
        }
        char *longer = xformat_new("%s%s%.*s %s", parts, used ? ", " : "", (int)length, name,
                                   grouped(part, count));
        free(parts);
        parts = longer;
        used += count;
    }
    say("parameters", "%s (%s)", grouped(all, used), parts);
    free(parts);
}

// The types in the file, and the most frequent one among those that ops know.
static bool say_types(Info *info) {
    SafeStore store;
    if (!is_fine(info, "weights", safestore_open_new(&store, info->folder.weights))) {
        return false;
    }
    size_t bytes = 0, of_type[SAFE_TYPE_COUNT] = {0};
    SafeType most = SAFE_F32;
    for (int i = 0; i < store.all.count; i++) {
        const SafeTensor *tensor = &store.all.tensors[i];
        of_type[tensor->type] += tensor->bytes;
        bytes += tensor->bytes;
        if (safe_type_to_dtype(tensor->type) >= 0 && of_type[tensor->type] > of_type[most]) {
            most = tensor->type;
        }
    }
    say("weights", "%s, %d tensors in %d file%s, %.1f MiB", safe_type_name(most), store.all.count,
        store.file_count, store.file_count == 1 ? "" : "s", (double)bytes / (1 << 20));
    info->t = (DType)safe_type_to_dtype(most);
    safestore_free(&store);
    return true;
}

// ---- memory ----
// A prompt of the planned size.
static ReaderBatch planned_batch(const ReaderConfig *config) {
    const VisionConfig *vision = &config->vision;
    ReaderBatch batch = reader_batch_new();
    ReaderImage image[2] = {{0}, {0}};
    int images = 0, tokens = 0;
    if (vision->L > 0) {
        const int cell = vision->P * vision->merge, cells = PLAN_PIXELS / cell;
        images = 2;
        image[0].rows = image[0].columns = (cells ? cells : 1) * vision->merge;
        image[1] = image[0];
        tokens = 2 * vision_tokens(vision, &image[0]);
    }
    const int T = PLAN_TEXTS + tokens, last = T - 1;
    int32_t *ids = xcalloc((size_t)T, sizeof *ids);
    for (int t = 0; t < T; t++) { // any text token: the one after or before the image's
        const int text = config->image_id > 0 ? config->image_id - 1 : config->V - 1;
        const bool is_image = (t >= 1 && t < 1 + tokens / 2) ||
                              (t >= 2 + tokens / 2 && t < 2 + tokens);
        ids[t] = is_image ? config->image_id : text;
    }
    reader_batch_add(&batch, config, ids, T, image, images, &last, 1);
    free(ids);
    return batch;
}

// For inference (rank 0), or for training an adapter.
static void say_plan(Info *info, const ReaderConfig *form, int rank) {
    ReaderConfig config = *form;
    Reader reader;
    MemoryPlan plan = {0};
    size_t mapped;
    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 1}, true);
    reader_build(&reader, &config);
    tensors_mark_adapters(&reader.tensors, true, true);
    ReaderBatch batch = planned_batch(&config);
    const WeightNames names = hub_reader_names(&config);
    error_die(info->folder.weights, weights_check(&reader.tensors, info->t, info->folder.weights,
                                                  &names, &mapped));
    const bool reads_files = device_kind(info->dev) == DEVICE_CPU; // others get copies
    memory_plan_tensors(&plan, &reader.tensors, info->t, reads_files ? mapped : 0);
    memory_plan_reader(&plan, &reader, info->dev, info->t, &batch, rank > 0,
                       info->config->reader.recompute);
    if (rank) {
        printf("\nmemory for training an adapter of rank %d in %s, one prompt of %d tokens a pass"
               "%s\n", rank, dtype_name(info->t), batch.N,
               info->config->reader.recompute ? ", recomputing" : "");
    } else {
        const int answers = info->config->generate.batch, most = info->config->generate.max_tokens;
        plan.caches = config.vision.L > 0 ? SCORER_FEATURE_LIMIT : 0;
        plan.keys = kv_cache_bytes(info->t, config.L, config.block.Hkv * config.block.D, answers,
                                   batch.N + most);
        printf("\nmemory for inference in %s, one prompt of %d tokens a pass; "
               "generate: %d at once, %d tokens more\n",
               dtype_name(info->t), batch.N, answers, most);
    }
    memory_plan_print(stdout, &plan);
    reader_batch_free(&batch);
    reader_unbuild(&reader);
}

// ---- the families ----
static void say_blocks(const char *what, const BlockConfig *block, int L) {
    say(what, "%d layers, %d wide, %d heads (%d for keys) of %d, MLP %d", L, block->C, block->H,
        block->Hkv, block->D, block->F);
}

// The tokenizer must not name rows that the embedding does not have.
static void say_tokenizer(Info *info, int V) {
    Tokenizer *tokenizer = NULL;
    if (is_fine(info, "tokenizer", tokenizer_open_new(&tokenizer, info->dir))) {
        is_fine(info, "tokenizer", hub_expect_vocabulary(tokenizer->vocab, V));
        say("tokenizer", "%d ids, the embedding has %d rows", tokenizer->vocab, V);
        tokenizer_free(tokenizer);
    }
}

static void say_processor(Info *info) {
    ProcessorConfig processor;
    if (is_fine(info, "processor", processor_open(&processor, info->dir))) {
        int width = 0, height = 0;
        const Error error = processor_size(&processor, 512, 512, &width, &height);
        say("processor", "a picture of 512 x 512 becomes %d x %d%s", width, height,
            error.code ? " (refused)" : "");
    }
}

static void say_reader(Info *info) {
    ReaderConfig config;
    Reader reader;
    if (!is_fine(info, "form",
                 hub_reader_config(&config, info->folder.family, info->folder.config))) {
        return;
    }
    say_blocks("language", &config.block, config.L);
    if (config.vision.L > 0) {
        say_blocks("vision", &config.vision.block, config.vision.L);
    }
    say("vocabulary", "%d rows, the head %s", config.V, config.is_tied ? "is the embedding"
                                                                       : "has its own");
    reader_build(&reader, &config);
    say_parameters(&reader.tensors);
    size_t mapped;
    WeightNames names = hub_reader_names(&config);
    names.must_be_finite = info->config->weights.check_finite;
    const bool has_types = say_types(info);
    if (config_is_set(info->config, "reader.dtype")) {
        info->t = (DType)info->config->reader.dtype;
    }
    const bool is_whole =
        has_types && is_fine(info, "tensors",
                             weights_check(&reader.tensors, info->t, info->folder.weights, &names,
                                           &mapped));
    if (is_whole) {
        say("tensors", "all are there%s", names.must_be_finite ? ", all values are finite" : "");
    }
    say_tokenizer(info, config.V);
    if (config.vision.L > 0) {
        say_processor(info);
    }
    if (is_whole) {
        say_plan(info, &config, 0);
        say_plan(info, &config, info->config->reader.lora_rank);
    }
    reader_unbuild(&reader);
}

// For embedding, and for a training step of a query head beside the frozen towers.
static void say_tower_plans(Info *info, const HubRetriever *hub, Retriever *retriever) {
    enum { PICTURES = 8, TEXTS = 8 };
    const RetrieverConfig *config = &hub->config;
    const int T = hub->max_tokens < 256 ? hub->max_tokens : 256;
    int32_t *ids = xcalloc((size_t)TEXTS * T, sizeof *ids), ends[TEXTS + 1];
    for (int b = 0; b <= TEXTS; b++) {
        ends[b] = b * T;
    }
    const TextBatch texts = {.B = TEXTS, .N = TEXTS * T, .max_T = T, .ids = ids,
                             .cu_seqlens = ends};
    MemoryPlan plan = {0};
    size_t mapped = 0;
    for (int i = 0; i < retriever->tensors.count; i++) {
        const Tensor *tensor = retriever->tensors.tensor[i];
        mapped += tensor->is_borrowed ? tensor->count * dtype_size(info->t) : 0;
    }
    memory_plan_tensors(&plan, &retriever->tensors, info->t, mapped);
    memory_plan_texts(&plan, &retriever->text, info->dev, info->t, &texts, false);
    if (config->has_images) {
        memory_plan_images(&plan, &retriever->image, info->dev, info->t, PICTURES, false);
    }
    printf("\nmemory for embedding in %s, %d pictures or texts of %d tokens a pass\n",
           dtype_name(info->t), PICTURES, T);
    memory_plan_print(stdout, &plan);
    if (config->has_images) {
        TensorList list = tensors_new();
        ImageTower head = image_tower_new(&list, &config->image);
        image_tower_unfreeze(&list, &head);
        memory_plan_tensors(&plan, &list, info->t, 0);
        memory_plan_images(&plan, &head, info->dev, info->t, PICTURES, true);
        printf("\nmemory for training a query head in %s, %d pictures a step, towers frozen\n",
               dtype_name(info->t), PICTURES);
        memory_plan_print(stdout, &plan);
        image_tower_free(&head);
        tensors_free(&list);
    }
    free(ids);
}

static void say_retriever(Info *info) {
    HubRetriever hub;
    Retriever retriever;
    SafeStore store;
    if (!is_fine(info, "form", hub_retriever_open_new(&hub, info->dir))) {
        return;
    }
    retriever_build(&retriever, &hub.config);
    if (hub.config.has_images) {
        say_blocks("vision", &hub.config.image.block, hub.config.image.L);
    }
    say_blocks("text", &hub.config.text.block, hub.config.text.L);
    say_parameters(&retriever.tensors);
    const bool is_whole =
        say_types(info) &&
        is_fine(info, "tensors",
                hub_retriever_load(&retriever, info->dev, info->t, &store, &hub));
    if (is_whole) {
        say("tensors", "%s", "all are there");
        safestore_free(&store);
    }
    say_tokenizer(info, hub.config.text.V);
    if (hub.config.has_images) {
        say_processor(info);
    }
    if (is_whole) {
        say_tower_plans(info, &hub, &retriever);
    }
    retriever_unbuild(&retriever);
    hub_retriever_free(&hub);
}

int cmd_model_info(const Config *config) {
    Info info = {.config = config, .dir = model_dir(config), .code = EXIT_OK};
    error_die(info.dir, hub_open_new(&info.folder, info.dir));
    info.dev = device_of_keys(config, config->threads);
    const HubFamily family = info.folder.family;
    say("folder", "%s", info.dir);
    say("family", "%s", hub_family_name(family));
    if (family == HUB_QWEN2_VL || family == HUB_LLAVA || family == HUB_LLAMA) {
        say_reader(&info);
    } else {
        say_retriever(&info);
    }
    hub_free(&info.folder);
    device_free(info.dev);
    return info.code;
}

// ---- tokenize ----
static char *read_stdin_new(size_t *size) {
    size_t room = 1 << 16;
    char *text = xmalloc(room, 1);
    *size = 0;
    for (size_t got; (got = fread(text + *size, 1, room - *size, stdin)) > 0;) {
        *size += got;
        if (*size == room) {
            room *= 2;
            text = xrealloc(text, room, 1);
        }
    }
    if (ferror(stdin)) {
        die(EXIT_IO, "standard input: %s", strerror(errno));
    }
    return text;
}

static void print_ids(const char **comma, const int32_t *ids, int n) {
    for (int i = 0; i < n; i++, *comma = ", ") {
        printf("%s%d", *comma, (int)ids[i]);
    }
}

static void tokenize_text(const Config *config, const Tokenizer *tok, const char *text) {
    const size_t size = strlen(text);
    int (*const encode)(const Tokenizer *, const char *, size_t, int32_t *, int) =
        config->tokenize.special ? tokenizer_encode_special : tokenizer_encode;
    const int n = encode(tok, text, size, NULL, 0);
    int32_t *ids = xmalloc((size_t)n + 1, sizeof *ids);
    encode(tok, text, size, ids, n);
    const char *comma = "";
    printf("{\"ids\": [");
    print_ids(&comma, tok->before, config->tokenize.around ? tok->before_count : 0);
    print_ids(&comma, ids, n);
    print_ids(&comma, tok->after, config->tokenize.around ? tok->after_count : 0);
    puts("]}");
    free(ids);
}

static void untokenize(const Config *config, const Tokenizer *tok, const json_t *row, size_t line) {
    const json_t *items = json_object_get(row, "ids");
    const size_t n = json_array_size(items);
    int32_t *ids = xmalloc(n + 1, sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(items, i);
        const json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= tok->vocab) {
            die(EXIT_BAD_DATA, "standard input:%zu: item %zu of ids is no integer from 0 to %d",
                line, i, tok->vocab - 1);
        }
        ids[i] = (int32_t)id;
    }
    size_t size;
    char *text = tokenizer_decode_new(
        tok, ids, (int)n, config->tokenize.special ? DECODE_SPECIAL : DECODE_TEXT, &size);
    json_t *value = json_stringn(text, size); // may hold NUL
    json_t *out = json_pack("{so}", "text", value);
    CHECK(out, "text of %zu bytes is not UTF-8", size);
    json_dumpf(out, stdout, 0);
    puts("");
    json_decref(out);
    free(text);
    free(ids);
}

int cmd_model_tokenize(const Config *config) {
    Tokenizer *tok;
    error_die(model_dir(config), tokenizer_open_new(&tok, model_dir(config)));
    if (config->tokenize.clean) {
        tokenizer_clean_texts(tok);
    }
    size_t size;
    char *input = read_stdin_new(&size);
    Jsonl reader;
    jsonl_begin(&reader, "standard input", input, size);
    for (json_t *row;;) {
        error_die(reader.name, jsonl_next(&reader, &row));
        if (!row) {
            break;
        }
        const char *text = json_string_value(json_object_get(row, "text"));
        if (text) {
            tokenize_text(config, tok, text);
        } else if (json_is_array(json_object_get(row, "ids"))) {
            untokenize(config, tok, row, reader.line);
        } else {
            die(EXIT_BAD_DATA, "standard input:%zu: neither a text 'text' nor an array 'ids'",
                reader.line);
        }
        json_decref(row);
    }
    jsonl_end(&reader);
    free(input);
    tokenizer_free(tok);
    return EXIT_OK;
}
