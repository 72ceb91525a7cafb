// cmd_index: jomed index build | search | info | verify.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "export.h"
#include "faiss.h"
#include "file.h"
#include "skipped.h"
#include "system.h"
#include "verbs.h"

#define SHOWN_TEXT 60 // characters of a caption in a search result

static const char *index_dir(const Config *config) {
    if (!config->index.dir[0]) {
        die(EXIT_CONFIG, "index.dir: not set; name the directory of the index");
    }
    return config->index.dir;
}

// ---- build ----
// One side as faiss's IndexFlatIP over f32 rows (index.faiss=true), or IndexIDMap2 of it where all
// ids of the corpus are integers.
static void write_faiss(const Index *index, IndexSide side, const Dataset *corpus,
                        const char *dir) {
    int64_t *ids = xmalloc((size_t)index->count, sizeof *ids);
    bool has_ids = true;
    for (int i = 0; i < index->count; i++) {
        char *end;
        ids[i] = strtoll(corpus->records[i].id, &end, 10);
        has_ids = has_ids && corpus->records[i].id[0] && *end == '\0';
    }
    char *name = xformat_new("%s.faiss", index_side_name(side)), *path = file_join_new(dir, name);
    error_die(path, export_index(index, side, path, has_ids ? ids : NULL));
    LOG(INFO, "index: %s: %s", path, has_ids ? "IndexIDMap2 of IndexFlatIP" : "IndexFlatIP");
    free(ids);
    free(name);
    free(path);
}

int cmd_index_build(const Config *config) {
    const char *dir = index_dir(config);
    error_die(dir, file_check_writable(dir));
    System system = system_open(config, CORPUS_TO_INDEX);
    system_open_retriever(&system, TOWERS_FROZEN);
    Retriever *retriever = system.retriever;
    const int all = system.corpus->n, E = retriever->config.image.E;
    float *rows = xmalloc((size_t)all * E, sizeof *rows);
    LOG(INFO, "index: embedding %d images", all);
    encode_images(rows, system.dev, retriever->tensors.t, &retriever->image,
                  &system.tower_processor, system.corpus, NULL, all);
    error_die(dir, skipped_save(dir, system.corpus));
    system_drop_bad(&system, rows, E);
    const int n = system.corpus->n;
    Index *index = index_new(system.dev, n, E, (DType)config->index.dtype);
    index->corpus_hash = system.corpus_hash;
    index->encoder_hash = system_encoder_hash(&system);
    const char **texts = system_captions_new(&system);
    index_set_rows(index, INDEX_IMAGE, 0, n, rows);
    LOG(INFO, "index: embedding %d captions", n);
    encode_texts(rows, system.dev, retriever->tensors.t, &retriever->text, system.tower_tokenizer,
                 texts, n, system.max_tokens);
    index_set_rows(index, INDEX_TEXT, 0, n, rows);
    error_die(dir, index_save(index, dir, config->index.shard_rows));
    for (int side = 0; config->index.faiss && side < INDEX_SIDES; side++) {
        write_faiss(index, (IndexSide)side, system.corpus, dir);
    }
    LOG(INFO, "index: %s: %d rows of %d, %d skipped, build %016" PRIx64, dir, n, E, all - n,
        index->build_id);
    free(rows);
    free(texts);
    index_free(index);
    system_close(&system);
    return EXIT_OK;
}

// ---- search ----
// The K best passages of both sides for every query of evaluate.split, one line each.
int cmd_index_search(const Config *config) {
    System system = system_open(config, CORPUS_INDEXED);
    system_open_retriever(&system, TOWERS_FROZEN);
    system_open_index(&system);
    system_open_heads(&system);
    Dataset *queries = system.split[config->evaluate.split];
    const int Q = queries->n, K = config->evaluate.k;
    float *fixed = system_fixed_new(&system, queries),
          *scores = xmalloc((size_t)Q * K, sizeof *scores);
    int32_t *ids = xmalloc((size_t)Q * K, sizeof *ids), *group = xmalloc((size_t)Q, sizeof *group);
    for (int q = 0; q < Q; q++) {
        group[q] = queries->records[q].group_id;
    }
    printf("query\tside\trank\trow\tscore\tid\ttext\n");
    for (int side = 0; side < INDEX_SIDES; side++) {
        float *vectors = system_queries_new(&system, queries, fixed, (IndexSide)side);
        index_search(system.index, (IndexSide)side, scores, ids, vectors, group, Q, K);
        for (int i = 0; i < Q * K; i++) {
            if (ids[i] >= 0) {
                const Record *passage = &system.corpus->records[ids[i]];
                printf("%s\t%s\t%d\t%d\t%.6f\t%s\t%.*s\n", queries->records[i / K].id,
                       index_side_name((IndexSide)side), i % K, ids[i], (double)scores[i],
                       passage->id, SHOWN_TEXT, passage->text);
            }
        }
        free(vectors);
    }
    free(fixed);
    free(scores);
    free(ids);
    free(group);
    system_close(&system);
    return EXIT_OK;
}

// ---- info and verify ----
// A faiss file instead of a directory.
static void print_faiss(const char *path) {
    FileBytes bytes;
    FaissIndex index;
    error_die(path, file_map_new(&bytes, path));
    error_die(path, faiss_parse(&index, bytes.data, bytes.size));
    printf("rows          %zu\nwidth         %d\ntype          f32, faiss flat inner product\nids  "
           "         %s\n",
           index.M, index.E, index.ids ? "in the file" : "row numbers");
    file_bytes_free(&bytes);
}

int cmd_index_info(const Config *config) {
    const char *dir = index_dir(config);
    if (file_exists(dir) && !file_is_directory(dir)) {
        print_faiss(dir);
        return EXIT_OK;
    }
    IndexInfo info;
    error_die(dir, index_info(&info, dir));
    printf("rows          %d\nwidth         %d\ntype          %s\nshards        %d per side\n"
           "corpus        %016" PRIx64 "\nencoder       %016" PRIx64 "\nbuild         %016" PRIx64
           "\n",
           info.count, info.dim, dtype_name(info.dtype), info.shards, info.corpus_hash,
           info.encoder_hash, info.build_id);
    return EXIT_OK;
}

static void report_shard(const char *shard, Error error, void *ctx) {
    (void)ctx;
    printf("%s  %s\n", error.code ? "BAD" : "ok ", error.code ? error.text : shard);
}

int cmd_index_verify(const Config *config) {
    const char *dir = index_dir(config);
    const Error error = index_verify(dir, report_shard, NULL);
    error_die(dir, error);
    return EXIT_OK;
}
