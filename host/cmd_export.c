// cmd_export: jomed export: what was trained, as the folders and files that other libraries open.
//
//   reader      reader.model with reader.weights' values or with reader.adapter merged into them
//   adapter     reader.adapter as PEFT's folder, held against reader.model
//   retriever   retriever.model with the values of retriever.weights
//   text-head, image-head   the same with the trained query head in place of the image tower
//   index       index.dir as image.faiss and text.faiss, rows in f32, ids the row numbers
#include <stdlib.h>

#include "adapter.h"
#include "export.h"
#include "hub_reader.h"
#include "hub_retriever.h"
#include "kernels/device.h"
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

// head: a file, or NULL.
static void export_retriever(const Config *config, const char *head) {
    const char *dir = needed(config->retriever.model, "retriever.model", "the towers' folder");
    if (!head) {
        needed(config->retriever.weights, "retriever.weights", "the trained towers");
    }
    HubRetriever hub;
    WeightNames names;
    SafeStore store;
    Retriever retriever;
    Device *dev = device_of(config);
    error_die(dir, hub_retriever_open_new(&hub, dir));
    if (head && !hub.config.has_images) {
        die(EXIT_CONFIG, "%s: holds no image tower that a query head could replace", dir);
    }
    error_die(dir, hub_retriever_names(&names, &hub));
    HubRetriever values = hub;
    values.weights = xstrdup(config->retriever.weights[0] ? config->retriever.weights
                                                          : hub.weights);
    retriever_build(&retriever, &hub.config);
    tensors_mark(&retriever.tensors, "", true); // no value stays in a mapped file: a head writes
    error_die(values.weights, hub_retriever_load(&retriever, dev, DT_F32, &store, &values));
    if (head) {
        put_head(config, &retriever, head);
    }
    const ExportFolder what = {
        .source = dir, .weights = hub.weights, .names = &names, .list = &retriever.tensors,
        .name = hub.family == HUB_OPEN_CLIP ? "open_clip_model.safetensors" : NULL};
    error_die(config->export.dir, export_folder(config->export.dir, &what));
    retriever_unbuild(&retriever);
    safestore_free(&store);
    free(values.weights);
    hub_retriever_free(&hub);
    device_free(dev);
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
