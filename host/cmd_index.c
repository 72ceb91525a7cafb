// cmd_index: jomed index build | search | info | verify.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"
#include "faiss.h"
#include "file.h"
#include "npy.h"
#include "skipped.h"
#include "system.h"
#include "verbs.h"

#define SHOWN_TEXT 60     // characters of a caption in a search result
#define COMPARED_ROWS 16  // of a given array, made again by the towers
#define LOW_COSINE 0.99   // below it such a row is probably another tower's
#define MAX_OFF_UNIT 0.01 // of a given row's length; rounding to f16 moves it by 5e-4 at most

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

// rows (n,E) from an array file, as jomed embed and other programs write them.
static void read_rows(float *rows, const char *path, int n, int E) {
    FileBytes bytes;
    NpyArray array;
    error_die(path, file_map_new(&bytes, path));
    error_die(path, npy_parse(&array, bytes.data, bytes.size));
    if (array.rank != 2 || array.shape[0] != (size_t)n || array.shape[1] != (size_t)E ||
        (array.type != NPY_F2 && array.type != NPY_F4)) {
        die(EXIT_BAD_DATA, "%s: rank %d, %zu rows of %zu, %s; corpus and towers want rank 2, %d "
            "rows of %d, <f2 or <f4", path, array.rank, array.shape[0],
            array.rank > 1 ? array.shape[1] : 1, npy_type_name(array.type), n, E);
    }
    for (int i = 0; i < n; i++) {
        double squares = 0;
        for (int e = 0; e < E; e++) {
            const double x = npy_number(&array, (size_t)i * E + e);
            rows[(size_t)i * E + e] = (float)x;
            squares += x * x;
        }
        if (!(fabs(sqrt(squares) - 1) <= MAX_OFF_UNIT)) {
            die(EXIT_BAD_DATA, "%s: row %d has length %.3g; an index wants rows of length one",
                path, i, sqrt(squares));
        }
    }
    npy_free(&array);
    file_bytes_free(&bytes);
}

// Rows from a file are only as good as the towers they came from: some of them are made again, and
// the lowest cosine is told. picks (count): rows; made (count,E): what our towers give for them,
// but nothing for bad pictures.
static void compare_rows(const char *path, const Dataset *corpus, const float *rows,
                         const int *picks, const float *made, int count, int E) {
    double lowest = 1;
    for (int i = 0; i < count; i++) {
        if (corpus->is_bad[picks[i]]) {
            continue;
        }
        double dot = 0, squares = 0;
        for (int e = 0; e < E; e++) {
            const double x = (double)rows[(size_t)picks[i] * E + e];
            dot += x * (double)made[(size_t)i * E + e];
            squares += x * x;
        }
        lowest = fmin(lowest, dot / sqrt(squares)); // a row in f16 has a length of nearly one
    }
    LOG(INFO, "%s: of %d rows that the towers made again, the lowest cosine is %.4f", path, count,
        lowest);
    if (!(lowest >= LOW_COSINE)) {
        LOG(WARN, "%s: are these the rows of this corpus and these towers?", path);
    }
}

// The rows of a side, (n,E): from the file that is set, else by the tower.
static float *make_rows_new(System *system, IndexSide side, int n) {
    const Config *config = system->config;
    const Retriever *retriever = system->retriever;
    const DType t = retriever->tensors.t;
    const int E = retriever->config.image.E, count = n < COMPARED_ROWS ? n : COMPARED_ROWS;
    const char *path = side == INDEX_IMAGE ? config->index.images : config->index.texts;
    const bool is_given = path[0];
    const char **texts = system_captions_new(system), *picked_texts[COMPARED_ROWS];
    int picks[COMPARED_ROWS];
    for (int i = 0; i < count; i++) {
        picks[i] = (int)((size_t)i * n / count);
        picked_texts[i] = texts[picks[i]];
    }
    float *rows = xmalloc((size_t)n * E, sizeof *rows),
          *made = is_given ? xmalloc((size_t)count * E, sizeof *made) : rows;
    if (is_given) {
        read_rows(rows, path, n, E);
    } else {
        LOG(INFO, "index: embedding %d %ss", n, side == INDEX_IMAGE ? "image" : "caption");
    }
    if (side == INDEX_IMAGE) {
        encode_images(made, system->dev, t, &system->retriever->image, &system->tower_processor,
                      system->corpus, is_given ? picks : NULL, is_given ? count : n);
    } else {
        encode_texts(made, system->dev, t, &system->retriever->text, system->tower_tokenizer,
                     is_given ? picked_texts : texts, is_given ? count : n, system->max_tokens);
    }
    if (is_given) {
        compare_rows(path, system->corpus, rows, picks, made, count, E);
        free(made);
    }
    free(texts);
    return rows;
}

int cmd_index_build(const Config *config) {
    const char *dir = index_dir(config);
    error_die(dir, file_check_writable(dir));
    System system = system_open(config, CORPUS_TO_INDEX);
    system_open_retriever(&system, TOWERS_FROZEN);
    Retriever *retriever = system.retriever;
    const int all = system.corpus->n, E = retriever->config.image.E;
    float *rows[INDEX_SIDES];
    for (int side = 0; side < INDEX_SIDES; side++) {
        rows[side] = make_rows_new(&system, (IndexSide)side, all);
    }
    error_die(dir, skipped_save(dir, system.corpus));
    system_drop_bad(&system, rows, E);
    const int n = system.corpus->n;
    Index *index = index_new(system.dev, n, E, (DType)config->index.dtype);
    index->corpus_hash = system.corpus_hash;
    index->encoder_hash = system_encoder_hash(&system);
    for (int side = 0; side < INDEX_SIDES; side++) {
        index_set_rows(index, (IndexSide)side, 0, n, rows[side]);
        free(rows[side]);
    }
    error_die(dir, index_save(index, dir, config->index.shard_rows));
    for (int side = 0; config->index.faiss && side < INDEX_SIDES; side++) {
        write_faiss(index, (IndexSide)side, system.corpus, dir);
    }
    LOG(INFO, "index: %s: %d rows of %d, %d skipped, build %016" PRIx64, dir, n, E, all - n,
        index->build_id);
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
