// system: see system.h.
#include "system.h"

#include <stdlib.h>
#include <string.h>

#include "adapter.h"
#include "dataset_files.h"
#include "evidence.h"
#include "file.h"
#include "processor_file.h"
#include "settings.h"
#include "skipped.h"
#include "tokenizer_files.h"
#include "train_retriever.h"
#include "weights.h"

// ---- data ----
Dataset *system_set_new(const Config *config) {
    Dataset *ds = dataset_new();
    dataset_set_classes(ds, (const char *const *)config->classes.items, config->classes.count);
    dataset_set_root(ds, config->data.root, config->data.allow_absolute_paths);
    ds->policy.on_bad_image = (BadImage)config->data.on_bad_image;
    ds->policy.max_bad = config->data.max_bad_images;
    ds->policy.refuse_warnings = config->image.warnings == KEY_WARNINGS_REFUSE;
    ds->policy.limits.max_side = config->image.max_side;
    ds->policy.limits.max_pixels = (size_t)config->image.max_pixels;
    return ds;
}

// The rows of one split as a set of their own. Queries without a class have no place in a closed
// task.
static Dataset *take_split(const Config *config, const Dataset *all, Split split, bool has_open,
                           int *left_out) {
    Dataset *ds = system_set_new(config);
    for (int i = 0; i < all->n; i++) {
        Record record = all->records[i];
        if (record.split != split) {
            continue;
        }
        if (record.label < 0 && !has_open) {
            ++*left_out;
            continue;
        }
        if (!record.question[0]) {
            record.question = config->question;
        }
        dataset_add(ds, &record);
    }
    return ds;
}

// What a set holds, the bytes of its pictures too.
static uint64_t content_hash(Dataset *ds) {
    dataset_hash_images(ds);
    uint64_t hash = dataset_hash(ds);
    for (int i = 0; i < ds->n; i++) {
        hash = xxh64(&ds->records[i].image_hash, sizeof(uint64_t), hash);
    }
    return hash;
}

// The corpus as the index holds it, or will hold it.
static void suit_index(System *system, CorpusUse use) {
    const Config *config = system->config;
    Dataset *corpus = system->corpus;
    if ((use == CORPUS_INDEXED || use == CORPUS_OPEN) && config->index.dir[0]) {
        error_die(config->index.dir, skipped_load(config->index.dir, corpus));
        const int dropped = dataset_drop_bad(corpus);
        if (dropped) {
            LOG(INFO, "%s: leaves %d passages out, whose pictures were bad", config->index.dir,
                dropped);
        }
    } else if (use == CORPUS_TO_INDEX) {
        if (!config_is_set(config, "data.on_bad_image")) {
            corpus->policy.on_bad_image = BAD_IMAGE_SKIP;
        }
        corpus->policy.drops_bad = corpus->policy.on_bad_image == BAD_IMAGE_SKIP;
    }
}

static DatasetReading reading_of(const Config *config) {
    return (DatasetReading){.max_bad_lines = config->data.max_bad_lines,
                            .is_utf8_strict = config->data.non_utf8 == KEY_NON_UTF8_FAIL};
}

Dataset *system_corpus_new(const Config *config, const char *path) {
    Dataset *corpus = system_set_new(config);
    const DatasetReading reading = reading_of(config);
    dataset_read_corpus(corpus, path, &reading);
    if (corpus->n == 0) {
        die(EXIT_BAD_DATA, "%s: no passages", path);
    }
    return corpus;
}

static void read_data(System *system, CorpusUse use) {
    const Config *config = system->config;
    const DatasetReading reading = reading_of(config);
    if (!config->data.corpus[0] || !config->data.task[0]) {
        die(EXIT_CONFIG, "data.%s: not set; name the file that jomed prepare wrote",
            config->data.corpus[0] ? "task" : "corpus");
    }
    if (config->classes.count < 2) {
        die(EXIT_CONFIG,
            "classes: %d classes; list the answers of the task, such as classes=[no, yes]",
            config->classes.count);
    }
    system->corpus = system_corpus_new(config, config->data.corpus);
    Dataset *task = system_set_new(config);
    dataset_read_task(task, config->data.task, &reading);
    int left_out = 0;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        system->split[s] = take_split(config, task, (Split)s, use == CORPUS_OPEN, &left_out);
    }
    if (left_out) {
        LOG(INFO, "%s: %d queries have an answer outside the classes and are left out",
            config->data.task, left_out);
    }
    dataset_free(task);
    suit_index(system, use);
    dataset_report_duplicates(system->corpus);
    uint64_t words[1 + SPLIT_COUNT];
    Dataset *sets[1 + SPLIT_COUNT] = {system->corpus};
    for (int s = 0; s < SPLIT_COUNT; s++) {
        sets[1 + s] = system->split[s];
    }
    for (int i = 0; i <= SPLIT_COUNT; i++) {
        words[i] = content_hash(sets[i]);
    }
    dataset_link_groups(sets, 1 + SPLIT_COUNT);
    system->corpus_hash = words[0];
    system->data_hash = xxh64(words, sizeof words, 0);
    LOG(INFO, "data: %d passages; %d train, %d val, %d test queries", system->corpus->n,
        system->split[SPLIT_TRAIN]->n, system->split[SPLIT_VAL]->n, system->split[SPLIT_TEST]->n);
}

// The tiny tokenizer: special tokens, class names of one word as words, bytes for everything else.
static Tokenizer *tiny_tokenizer_new(const Config *config) {
    const char *specials[32] = {"[CLS]", "[SEP]"};
    int n = 2;
    for (int form = PROMPT_TINY; form <= PROMPT_PIXTRAL; form++) {
        int count;
        const char *const *more = prompt_specials((PromptForm)form, &count);
        for (int i = 0; i < count; i++) {
            bool is_new = true;
            for (int k = 0; k < n; k++) {
                is_new = is_new && strcmp(specials[k], more[i]) != 0;
            }
            if (is_new) {
                specials[n++] = more[i];
            }
        }
    }
    const char **words = xcalloc((size_t)config->classes.count + 1, sizeof *words);
    int word_count = 0;
    for (int c = 0; c < config->classes.count; c++) {
        if (!strpbrk(config->classes.items[c], " \t\n\v\f\r")) {
            words[word_count++] = config->classes.items[c];
        }
    }
    Tokenizer *tokenizer = tokenizer_tiny_new(specials, n, words, word_count);
    free(words);
    return tokenizer;
}

static void preset_processor(ProcessorConfig *out, const char *key, const char *name) {
    if (!processor_preset(name, out)) {
        die(EXIT_CONFIG, "%s: no processor '%s'; there are " PROCESSOR_PRESETS, key, name);
    }
}

// What a folder of towers says beside their form: tokenizer, processor, longest text.
static void open_tower_folder(System *system) {
    const Config *config = system->config;
    const char *dir = config->retriever.model;
    if (config_is_set(config, "retriever.preset")) {
        die(EXIT_CONFIG, "retriever.preset: '%s' has a form of its own; leave one of "
            "retriever.preset and retriever.model out", dir);
    }
    error_die(dir, hub_retriever_open_new(&system->tower_hub, dir));
    error_die(dir, tokenizer_open_new(&system->tower_tokenizer, dir));
    const HubRetriever *hub = &system->tower_hub;
    if (system->tower_tokenizer->vocab > hub->config.text.V) {
        die(EXIT_BAD_DATA, "%s: the tokenizer has %d ids, the embedding table %d rows; these files "
            "are of two models", dir, system->tower_tokenizer->vocab, hub->config.text.V);
    }
    if (hub->family == HUB_OPEN_CLIP) { // its captions were cleaned in training
        tokenizer_clean_texts(system->tower_tokenizer);
    }
    if (hub->config.has_images && !config_is_set(config, "retriever.processor")) {
        error_die(dir, processor_open(&system->tower_processor, dir));
    }
    if (hub->max_tokens < system->max_tokens) {
        if (config_is_set(config, "retriever.max_tokens")) {
            die(EXIT_CONFIG, "retriever.max_tokens: the text tower in '%s' takes %d", dir,
                hub->max_tokens);
        }
        system->max_tokens = hub->max_tokens;
    }
}

// The same for a folder of a reader.
static void open_reader_folder(System *system) {
    const Config *config = system->config;
    const char *dir = config->reader.model;
    if (config_is_set(config, "reader.preset")) {
        die(EXIT_CONFIG, "reader.preset: '%s' has a form of its own; leave one of reader.preset "
            "and reader.model out", dir);
    }
    ReaderConfig *form = &system->reader_form;
    error_die(dir, hub_open_new(&system->reader_hub, dir));
    error_die(dir, hub_reader_config(form, system->reader_hub.family, system->reader_hub.config));
    if (form->vision.L == 0) {
        die(EXIT_CONFIG, "reader.model: '%s' is a language model without a vision tower; a reader "
            "must see", dir);
    }
    error_die(dir, tokenizer_open_new(&system->tokenizer, dir));
    error_die(dir, hub_expect_vocabulary(system->tokenizer->vocab, form->V));
    const char *image = form->family == READER_PIXTRAL ? "[IMG]" : "<|image_pad|>";
    const int32_t id = tokenizer_id(system->tokenizer, image);
    if (id != form->image_id) {
        die(EXIT_BAD_DATA, "%s: '%s' is token %d of the tokenizer, %d in config.json", dir, image,
            id, form->image_id);
    }
    if (!config_is_set(config, "reader.processor")) {
        error_die(dir, processor_open(&system->reader_processor, dir));
    }
}

System system_open_models(const Config *config) {
    System system = {.config = config, .max_tokens = config->retriever.max_tokens};
    system.dev = device_of_keys(config, config->threads);
    system.tokenizer = system.tower_tokenizer = tiny_tokenizer_new(config);
    preset_processor(&system.tower_processor, "retriever.processor", config->retriever.processor);
    preset_processor(&system.reader_processor, "reader.processor", config->reader.processor);
    if (config->retriever.model[0]) {
        open_tower_folder(&system);
    }
    if (config->reader.model[0]) {
        Tokenizer *tiny = system.tokenizer;
        open_reader_folder(&system);
        if (system.tower_tokenizer != tiny) {
            tokenizer_free(tiny);
        }
    }
    return system;
}

System system_open(const Config *config, CorpusUse use) {
    System system = system_open_models(config);
    read_data(&system, use);
    system.labels = label_set_new(system.tokenizer, (const char *const *)config->classes.items,
                                  config->classes.count, config->exact.space_tokens);
    return system;
}

// ---- models ----
static void load_or_draw(TensorList *list, const char *path, uint64_t seed, const char *what) {
    tensors_init(list, seed);
    if (path[0]) {
        error_die(path, weights_load(list, path, NULL, false));
    } else {
        LOG(INFO, "%s: no weights named, drawn from the seed", what);
    }
}

// The form of the towers, from the folder or by its name.
static RetrieverConfig tower_form(const System *system, TowersUse use) {
    const Config *config = system->config;
    RetrieverConfig form = system->tower_hub.config;
    if (!config->retriever.model[0]) {
        if (!retriever_preset(&form, config->retriever.preset)) {
            die(EXIT_CONFIG, "retriever.preset: no preset '%s'; try tiny or jina-clip-v1",
                config->retriever.preset);
        }
        if (strcmp(config->retriever.preset, "tiny") == 0) {
            form.text.V = system->tower_tokenizer->vocab;
        }
    }
    if (!form.has_images && use != TOWERS_OF_TEXTS) {
        die(EXIT_CONFIG, "retriever.model: '%s' has no image tower; only jomed embed of texts can "
            "use it", config->retriever.model);
    }
    if (config->retriever.unfreeze >= 0) {
        form.image.unfrozen = config->retriever.unfreeze;
    }
    return form;
}

void system_open_retriever(System *system, TowersUse use) {
    const Config *config = system->config;
    const DType t = (DType)config->retriever.dtype;
    const RetrieverConfig form = tower_form(system, use);
    Retriever *retriever = system->retriever = xcalloc(1, sizeof *retriever);
    retriever_build(retriever, &form);
    tensors_mark(&retriever->tensors, "", use == TOWERS_TRAINABLE);
    if (config->retriever.model[0] && !config->retriever.weights[0]) {
        error_die(config->retriever.model, hub_retriever_load(retriever, system->dev, t,
                                                              &system->tower_store,
                                                              &system->tower_hub));
    } else {
        tensors_allocate(&retriever->tensors, system->dev, t);
        load_or_draw(&retriever->tensors, config->retriever.weights, (uint64_t)config->seed,
                     "retriever");
    }
}

// The adapter's own file says what it is; where an adapter begins, the keys do.
static void set_adapter(ReaderConfig *preset, const Config *config, ReaderUse use) {
    AdapterConfig adapter = {.rank = config->reader.lora_rank, .alpha = config->reader.lora_alpha,
                             .is_rslora = config->reader.use_rslora};
    bool has_vision = config->reader.lora_vision;
    const char *const dir = config->reader.adapter;
    if (dir[0]) {
        error_die(dir, adapter_read_config(&adapter, dir));
        error_die(dir, adapter_find_vision(&has_vision, dir));
        const bool differs[] = {adapter.rank != config->reader.lora_rank,
                                adapter.alpha != config->reader.lora_alpha,
                                adapter.is_rslora != config->reader.use_rslora,
                                has_vision != config->reader.lora_vision};
        static const char *const keys[] = {"reader.lora_rank", "reader.lora_alpha",
                                           "reader.use_rslora", "reader.lora_vision"};
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            if (differs[i] && config_is_set(config, keys[i])) {
                die(EXIT_CONFIG, "%s: the adapter in '%s' has r=%d, alpha=%g, use_rslora=%s, "
                    "lora_vision=%s; leave the key out", keys[i], dir, adapter.rank, adapter.alpha,
                    adapter.is_rslora ? "true" : "false", has_vision ? "true" : "false");
            }
        }
        if (use == READER_TRAINS_ADAPTER && adapter.dropout != 0) {
            die(EXIT_CONFIG, "%s: was trained with dropout %g, which training here does not "
                "support; begin a new adapter", dir, adapter.dropout);
        }
    }
    const LoraConfig lora = {.rank = adapter.rank, .alpha = (float)adapter.alpha,
                             .is_rslora = adapter.is_rslora};
    reader_set_lora(preset, lora, has_vision);
}

// The form of the reader, from the folder or by its name.
static ReaderConfig reader_form(const System *system) {
    const Config *config = system->config;
    ReaderConfig form = system->reader_form;
    if (config->reader.model[0]) {
        return form;
    }
    if (!reader_preset(&form, config->reader.preset)) {
        die(EXIT_CONFIG, "reader.preset: no preset '%s'; try tiny-qwen2vl or tiny-pixtral",
            config->reader.preset);
    }
    if (strncmp(config->reader.preset, "tiny", 4) == 0) {
        form.V = system->tokenizer->vocab;
        form.image_id = tokenizer_id(system->tokenizer,
                                     form.family == READER_PIXTRAL ? "[IMG]" : "<|image_pad|>");
    }
    return form;
}

// How prompts are written for the reader: as its own model wants them, or the tiny way.
static PromptForm prompt_form(const System *system) {
    return !system->config->reader.model[0]                    ? PROMPT_TINY
           : system->reader_form.family == READER_PIXTRAL ? PROMPT_PIXTRAL
                                                               : PROMPT_QWEN2VL;
}

void system_open_reader(System *system, ReaderUse use) {
    const Config *config = system->config;
    ReaderConfig form = reader_form(system);
    if (use == READER_TRAINS_ALL && config->reader.adapter[0]) {
        die(EXIT_CONFIG, "reader.adapter: an adapter cannot stay beside weights that all learn; "
            "leave it out, or set reader.all_weights=false");
    }
    if (use == READER_TRAINS_ADAPTER || config->reader.adapter[0]) {
        set_adapter(&form, config, use);
    }
    form.has_flat_positions = config->exact.sft_positions && use != READER_FROZEN;
    const DType t = (DType)config->reader.dtype;
    if (system->reader_hub.weights && !config->reader.weights[0]) {
        error_die(config->reader.model,
                  hub_reader_new(&system->reader, &system->reader_store, system->dev, t, &form,
                                 system->reader_hub.weights, use == READER_TRAINS_ALL,
                                 config->weights.check_finite));
        tensors_init_adapters(&system->reader->tensors, (uint64_t)config->seed);
    } else {
        system->reader = reader_new(system->dev, t, &form, use == READER_TRAINS_ALL);
        load_or_draw(&system->reader->tensors, config->reader.weights, (uint64_t)config->seed,
                     "reader");
    }
    if (config->reader.adapter[0]) {
        error_die(config->reader.adapter,
                  adapter_load(&system->reader->tensors, config->reader.adapter));
    }
    tensors_pack(&system->reader->tensors, PACK_LIMIT);
    // exact.sft_caps: the original prepared images and prompts of the fine-tuning otherwise.
    const bool is_sft = config->exact.sft_caps && use != READER_FROZEN;
    if (is_sft) {
        processor_cap_for_sft(&system->reader_processor);
    }
    system->prompts = prompt_maker_new(prompt_form(system), system->tokenizer,
                                       &system->reader->config, config->prompt.max_tokens);
    PromptMaker *const prompts = &system->prompts;
    const bool is_pixtral = prompts->form == PROMPT_PIXTRAL;
    prompts->instruction = config->prompt.instruction;
    prompts->has_blanks = is_sft && is_pixtral;
    prompts->is_literal = config->exact.pixtral_literal && is_pixtral && use == READER_FROZEN &&
                          !config->question[0];
}

ChoiceConfig system_choice(const System *system) {
    static const char name[] = "generation_config.json";
    const char *dir = system->config->reader.model;
    ChoiceConfig choice = choice_greedy();
    json_t *file = NULL;
    if (dir[0]) {
        char *path = file_join_new(dir, name);
        error_die(path, hub_json_new(&file, dir, name));
        if (file) {
            error_die(path, choice_config_read(&choice, file));
            json_decref(file);
        }
        free(path);
    }
    if (choice.end_count == 0 && system->prompts.answer_end >= 0) {
        choice.ends[choice.end_count++] = system->prompts.answer_end;
    }
    return choice;
}

void system_open_heads(System *system) {
    const char *const paths[INDEX_SIDES] = {system->config->retriever.image_head,
                                            system->config->retriever.text_head};
    for (int side = 0; side < INDEX_SIDES; side++) {
        if (paths[side][0]) {
            system->heads[side] = head_new(system->dev, (DType)system->config->retriever.dtype,
                                           &system->retriever->config.image, false);
            error_die(paths[side],
                      weights_load(&system->heads[side]->tensors, paths[side], NULL, false));
        }
    }
}

void system_drop_bad(System *system, float *const rows[INDEX_SIDES], int E) {
    Dataset *corpus = system->corpus;
    if (!corpus->policy.drops_bad) {
        return;
    }
    int kept = 0;
    for (int i = 0; i < corpus->n; i++) {
        for (int side = 0; side < INDEX_SIDES && !corpus->is_bad[i]; side++) {
            memmove(rows[side] + (size_t)kept * E, rows[side] + (size_t)i * E,
                    (size_t)E * sizeof **rows);
        }
        kept += !corpus->is_bad[i];
    }
    if (dataset_drop_bad(corpus)) {
        system->corpus_hash = content_hash(corpus);
    }
}

uint64_t system_encoder_hash(const System *system) {
    const uint64_t words[] = {tensors_hash(&system->retriever->tensors),
                              processor_hash(&system->tower_processor),
                              system->tower_tokenizer->hash, (uint64_t)system->max_tokens};
    return xxh64(words, sizeof words, 0);
}

void system_open_index(System *system) {
    const char *dir = system->config->index.dir;
    if (!dir[0]) {
        die(EXIT_CONFIG, "index.dir: not set; name the directory that jomed index build wrote");
    }
    error_die(dir, index_load_new(&system->index, system->dev, dir, system->corpus_hash));
    if (system->index->count != system->corpus->n) {
        die(EXIT_BAD_DATA, "%s: %d rows for %d passages; run jomed index build", dir,
            system->index->count, system->corpus->n);
    }
    if (system->index->encoder_hash != system_encoder_hash(system)) {
        die(EXIT_BAD_DATA, "%s: made by other towers than retriever.weights, or with another "
            "retriever.processor or retriever.max_tokens; run jomed index build", dir);
    }
    int32_t *group = xmalloc((size_t)system->corpus->n, sizeof *group);
    for (int i = 0; i < system->corpus->n; i++) {
        group[i] = system->corpus->records[i].group_id;
    }
    index_set_groups(system->index, group);
    free(group);
}

// exact.retina6: the loss of the five-class retina task has a label '5' that no image carries.
static void add_loss_labels(System *system, int count) {
    const TextList *classes = &system->config->classes;
    const char **names = xcalloc((size_t)count, sizeof *names);
    for (int c = 0; c < count; c++) {
        names[c] = c < classes->count ? classes->items[c] : "5";
    }
    label_set_free(&system->labels);
    system->labels = label_set_new(system->tokenizer, names, count,
                                   system->config->exact.space_tokens);
    free(names);
}

void system_open_scorer(System *system, const char *run_dir, bool is_loss) {
    const Config *config = system->config;
    const int loss_labels = evidence_label_count(config->classes.count, config->exact.retina6);
    if (is_loss && loss_labels > config->classes.count) {
        add_loss_labels(system, loss_labels);
    }
    char *dir = config->score_store.dir[0] ? xstrdup(config->score_store.dir)
                                           : file_join_new(run_dir, "scores");
    error_die(dir,
              score_store_open(&system->store, dir, system->labels.C, config->score_store.enable));
    free(dir);
    system->scorer = scorer_new(system->dev, system->reader, &system->prompts,
                                &system->reader_processor, &system->labels, system->store);
    scorer_set_own(&system->scorer, config->exact.greedy_prefix,
                   config->exact.rep_penalty ? system_choice(system).penalty : 1);
}

void system_close(System *system) {
    if (system->scorer.reader) {
        scorer_free(&system->scorer);
        error_die("score store", score_store_close(system->store));
    }
    index_free(system->index);
    for (int side = 0; side < INDEX_SIDES; side++) {
        if (system->heads[side]) {
            head_free(system->heads[side]);
        }
    }
    if (system->retriever) {
        retriever_free(system->retriever);
    }
    safestore_free(&system->tower_store);
    hub_retriever_free(&system->tower_hub);
    if (system->reader) {
        reader_free(system->reader);
    }
    safestore_free(&system->reader_store);
    hub_free(&system->reader_hub);
    label_set_free(&system->labels);
    if (system->tower_tokenizer != system->tokenizer) {
        tokenizer_free(system->tower_tokenizer);
    }
    tokenizer_free(system->tokenizer);
    dataset_free(system->corpus);
    for (int s = 0; s < SPLIT_COUNT; s++) {
        dataset_free(system->split[s]);
    }
    device_free(system->dev);
}

// ---- queries and captions ----
float *system_fixed_new(System *system, Dataset *queries) {
    const int E = system->retriever->config.image.E;
    float *out = xmalloc((size_t)queries->n * E, sizeof *out);
    encode_images(out, system->dev, system->retriever->tensors.t, &system->retriever->image,
                  &system->tower_processor, queries, NULL, queries->n);
    return out;
}

float *system_queries_new(System *system, Dataset *queries, const float *fixed, IndexSide side) {
    const int n = queries->n, E = system->retriever->config.image.E;
    float *out = xmalloc((size_t)n * E, sizeof *out);
    memcpy(out, fixed, (size_t)n * E * sizeof *out);
    Head *head = system->heads[side];
    if (head) {
        encode_images(out, system->dev, head->tensors.t, &head->tower, &system->tower_processor,
                      queries, NULL, n);
        mix_queries(out, out, fixed, (float)system->config->retriever.share, n, E);
    }
    return out;
}

const char **system_captions_new(const System *system) {
    const char **out = xmalloc((size_t)system->corpus->n, sizeof *out);
    for (int i = 0; i < system->corpus->n; i++) {
        out[i] = system->corpus->records[i].text;
    }
    return out;
}
