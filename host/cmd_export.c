// cmd_export: jomed export: what was trained, as the folders and files that other libraries open.
//
//   reader      reader.model with reader.weights' values or with reader.adapter merged into them
//   adapter     reader.adapter as PEFT's folder, held against reader.model
//   retriever   retriever.model with the values of retriever.weights
//   text-head, image-head   the same with the trained query head in place of the image tower
//                           export.layout: these three in another family's layout
//   index       index.dir as image.faiss and text.faiss, rows in f32, ids the row numbers
#include <stdlib.h>

#include "adapter.h"
#include "export.h"
#include "hub_reader.h"
#include "kernels/device.h"
#include "processor_file.h"
#include "system.h"
#include "verbs.h"

// Fails as a user's mistake where a key is not set.
static const char *needed(const char *value, const char *key, const char *what) {
    if (!value[0]) {
        die(EXIT_CONFIG, "%s: not set; name %s", key, what);
    }
    return value;
}

// Only values are moved and added: that is the CPU's.
static Device *device_of(const Config *config) {
    return device_new(DEVICE_CPU, 0, config->threads);
}

// ---- reader ----
typedef struct {
    Device *dev;
    HubFolder hub;
    SafeStore store;
    Reader *reader;
    AdapterConfig adapter;
} Opened;

// The reader of the folder in the type of its file, with masters of the adapter in f32.
static Opened open_reader(const Config *config) {
    const char *dir = needed(config->reader.model, "reader.model", "the folder of the base model"),
               *adapter = config->reader.adapter;
    Opened opened = {.dev = device_of(config)};
    ReaderConfig form;
    DType t;
    error_die(dir, hub_open_new(&opened.hub, dir));
    error_die(dir, hub_reader_config(&form, opened.hub.family, opened.hub.config));
    if (adapter[0]) {
        bool has_vision;
        error_die(adapter, adapter_read_config(&opened.adapter, adapter));
        error_die(adapter, adapter_find_vision(&has_vision, adapter));
        reader_set_lora(&form, (LoraConfig){.rank = opened.adapter.rank,
                                            .alpha = (float)opened.adapter.alpha,
                                            .is_rslora = opened.adapter.is_rslora}, has_vision);
    }
    const char *weights = config->reader.weights[0] ? config->reader.weights : opened.hub.weights;
    error_die(weights, export_type(&t, weights));
    error_die(weights, hub_reader_new(&opened.reader, &opened.store, opened.dev, t, &form, weights,
                                      false, config->weights.check_finite));
    if (adapter[0]) {
        error_die(adapter, adapter_load(&opened.reader->tensors, adapter));
    }
    return opened;
}

static void close_reader(Opened *opened) {
    reader_free(opened->reader);
    safestore_free(&opened->store);
    hub_free(&opened->hub);
    device_free(opened->dev);
}

static void export_reader(const Config *config) {
    const bool keeps_base = !config->reader.weights[0];
    if (keeps_base) {
        needed(config->reader.adapter, "reader.adapter", "the adapter to merge, or in "
               "reader.weights what was trained whole");
    }
    Opened opened = open_reader(config);
    const WeightNames names = hub_reader_names(&opened.reader->config);
    const ExportFolder what = {.source = config->reader.model, .weights = opened.hub.weights,
                               .names = &names, .list = &opened.reader->tensors,
                               .reader = opened.reader, .keeps_base = keeps_base};
    error_die(config->export.dir, export_folder(config->export.dir, &what));
    close_reader(&opened);
}

static void export_adapter(const Config *config) {
    const char *dir = config->export.dir;
    char *partial;
    needed(config->reader.adapter, "reader.adapter", "the adapter");
    Opened opened = open_reader(config);
    error_die(dir, export_begin(&partial, dir));
    const Error error = adapter_save(&opened.reader->tensors, partial, &opened.adapter);
    error_die(dir, export_end(partial, dir, error));
    close_reader(&opened);
}

// ---- retriever ----
// The head's values instead of the image tower's.
static void put_head(const Config *config, Retriever *retriever, const char *path) {
    Head *head = head_new(retriever->tensors.dev, DT_F32, &retriever->config.image, false);
    const WeightNames names = {.must_be_finite = config->weights.check_finite};
    error_die(path, weights_load(&head->tensors, path, &names, false));
    const int copied = tensors_copy(&retriever->tensors, &head->tensors);
    CHECK(copied == head->tensors.count, "%d of %d", copied, head->tensors.count);
    head_free(head);
}

// The towers of retriever.model, or without it those of retriever.preset.
typedef struct {
    Device *dev;
    HubRetriever hub; // family HUB_FAMILY_COUNT for a preset
    SafeStore store;
    Retriever retriever;
} Towers;

static void open_towers(Towers *out, const Config *config, const char *head) {
    const char *dir = config->retriever.model, *weights = config->retriever.weights;
    *out = (Towers){.dev = device_of(config)};
    error_die(dir, hub_retriever_open_new(&out->hub, dir));
    if (head && !out->hub.config.has_images) {
        die(EXIT_CONFIG, "%s: holds no image tower that a query head could replace", dir);
    }
    HubRetriever values = out->hub;
    values.weights = xstrdup(weights[0] ? weights : out->hub.weights);
    retriever_build(&out->retriever, &out->hub.config);
    // No value stays in a mapped file: a head writes over it.
    tensors_mark(&out->retriever.tensors, "", true);
    error_die(values.weights, hub_retriever_load(&out->retriever, out->dev, DT_F32, &out->store,
                                                 &values));
    free(values.weights);
}

static void open_preset(Towers *out, const Config *config, const System *system) {
    const char *preset = config->retriever.preset, *weights = config->retriever.weights;
    RetrieverConfig form;
    *out = (Towers){.dev = device_of(config), .hub.family = HUB_FAMILY_COUNT};
    if (!retriever_preset(&form, preset)) {
        die(EXIT_CONFIG, "retriever.preset: no preset '%s'; try tiny or jina-clip-v1", preset);
    }
    form.text.V = form.text.V ? form.text.V : system->tower_tokenizer->vocab;
    retriever_build(&out->retriever, &form);
    tensors_allocate(&out->retriever.tensors, out->dev, DT_F32);
    error_die(weights, weights_load(&out->retriever.tensors, weights, NULL, false));
}

static void close_towers(Towers *towers) {
    retriever_unbuild(&towers->retriever);
    safestore_free(&towers->store);
    hub_retriever_free(&towers->hub);
    device_free(towers->dev);
}

static Error export_to_source(const Config *config, const Towers *towers) {
    WeightNames names;
    error_die(config->retriever.model, hub_retriever_names(&names, &towers->hub));
    const ExportFolder what = {
        .source = config->retriever.model, .weights = towers->hub.weights, .names = &names,
        .list = &towers->retriever.tensors,
        .name = towers->hub.family == HUB_OPEN_CLIP ? "open_clip_model.safetensors" : NULL};
    return export_folder(config->export.dir, &what);
}

static Error export_to_family(const Config *config, const Towers *towers, HubFamily family,
                              const ProcessorConfig *processor) {
    const char *dir = config->retriever.model, *weights = config->retriever.weights;
    DType t;
    weights = weights[0] ? weights : towers->hub.weights;
    error_die(weights, export_type(&t, weights));
    return export_towers(config->export.dir, family, &towers->retriever, t, processor,
                         dir[0] ? dir : NULL);
}

// head: a file, or NULL.
static void export_retriever(const Config *config, const char *head) {
    static const HubFamily families[] = {
        [KEY_LAYOUT_SOURCE] = HUB_FAMILY_COUNT, [KEY_LAYOUT_CLIP] = HUB_CLIP,
        [KEY_LAYOUT_OPEN_CLIP] = HUB_OPEN_CLIP, [KEY_LAYOUT_JINA] = HUB_JINA_CLIP};
    const HubFamily family = families[config->export.layout];
    const char *dir = config->retriever.model;
    const bool has_source = dir[0], is_source = family == HUB_FAMILY_COUNT;
    if (is_source) {
        needed(dir, "retriever.model", "the towers' folder, or the layout in export.layout");
    }
    if (!head && (is_source || !has_source)) {
        needed(config->retriever.weights, "retriever.weights", "the trained towers");
    }
    Towers towers;
    System system = {0};
    ProcessorConfig processor;
    if (has_source) {
        open_towers(&towers, config, head);
    } else {
        system = system_open_models(config);
        open_preset(&towers, config, &system);
        processor = system.tower_processor;
    }
    if (head) {
        put_head(config, &towers.retriever, head);
    }
    Error error;
    if (is_source || towers.hub.family == family) {
        error = export_to_source(config, &towers);
    } else {
        if (has_source) {
            error_die(dir, processor_open(&processor, dir));
        }
        error = export_to_family(config, &towers, family, &processor);
    }
    error_die(config->export.dir, error);
    close_towers(&towers);
    if (!has_source) {
        system_close(&system);
    }
}

// ---- index ----
static void export_faiss(const Config *config) {
    const char *from = needed(config->index.dir, "index.dir", "the index"),
               *dir = config->export.dir;
    Device *dev = device_of(config);
    Index *index;
    char *partial;
    error_die(from, index_load_new(&index, dev, from, 0));
    Error error = export_begin(&partial, dir);
    error_die(dir, error);
    for (int side = 0; side < INDEX_SIDES && !error.code; side++) {
        char *name = xformat_new("%s.faiss", index_side_name((IndexSide)side)),
             *path = file_join_new(partial, name);
        error = export_index(index, (IndexSide)side, path, NULL);
        free(name);
        free(path);
    }
    error_die(dir, export_end(partial, dir, error));
    index_free(index);
    device_free(dev);
}

int cmd_export(const Config *config) {
    const char *dir = needed(config->export.dir, "export.dir", "the folder to make");
    switch (config->export.what) {
    case KEY_EXPORT_READER: export_reader(config); break;
    case KEY_EXPORT_ADAPTER: export_adapter(config); break;
    case KEY_EXPORT_RETRIEVER: export_retriever(config, NULL); break;
    case KEY_EXPORT_TEXT_HEAD:
        export_retriever(config, needed(config->retriever.text_head, "retriever.text_head",
                                        "the trained head"));
        break;
    case KEY_EXPORT_IMAGE_HEAD:
        export_retriever(config, needed(config->retriever.image_head, "retriever.image_head",
                                        "the trained head"));
        break;
    default: export_faiss(config);
    }
    LOG(INFO, "export: %s", dir);
    return EXIT_OK;
}
