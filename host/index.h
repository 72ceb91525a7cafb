// index: the embeddings of a corpus, image and text side by side, searched exactly.
//
// Row i of both sides is passage i of the corpus, whatever the number of shards. On disk, a
// directory:
//
//   meta.json            dim, count, dtype, hashes of corpus and encoder, build id, list of shards
//   image.00000.shard    a 64-byte header, then rows x dim values, row-major
//   text.00000.shard     the same for the captions
//
// Every shard carries the build id and the XXH64 of its rows; meta.json repeats both and is written
// last. A missing, short, damaged or foreign shard is refused by name: a corpus never shrinks
// unnoticed. Bytes are little-endian. Left out: approximate search, updates in place.
#ifndef JOMED_HOST_INDEX_H
#define JOMED_HOST_INDEX_H

#include "kernels/arena.h"
#include "kernels/base.h"
#include "kernels/device.h"
#include "kernels/dtype.h"

typedef enum { INDEX_IMAGE, INDEX_TEXT, INDEX_SIDES } IndexSide;
const char *index_side_name(IndexSide side); // "image", "text"

typedef struct {
    Device *dev;
    int count, dim;        // rows of each side, width of a row
    DType dtype;           // storage type of the rows
    void *rows[INDEX_SIDES]; // (count, dim) dtype, on the device
    int32_t *group; // (count) int32 on the device: the group of each passage, -1 none; or NULL
    uint64_t corpus_hash;  // of the corpus the rows were made from
    uint64_t encoder_hash; // of the towers that made them
    uint64_t build_id;     // of this build: both hashes and all rows
    Arena *gathered;       // rows on their way to the host
} Index;

// Empty rows (zeros) on the device.
Index *index_new(Device *dev, int count, int dim, DType dtype);
void index_free(Index *index);
// The group of each passage, (count) on the host, -1 none: known from the corpus, not from the
// index.
void index_set_groups(Index *index, const int32_t *group);
// Rows first .. first+n-1 of a side from f32 on the host, rounded once to the index's type.
void index_set_rows(Index *index, IndexSide side, int first, int n, const float *rows);
// out (n, dim) f32 on the host: the stored rows ids[0..n-1] (0 <= id < count), widened exactly.
// Waits for the device, once for all rows.
void index_get_rows(const Index *index, IndexSide side, const int32_t *ids, int n, float *out);

// The K best rows of a side for each of Q queries (host f32, (Q,dim)), by op topk: score
// descending, row ascending. scores, ids: (Q,K) on the host; places left over hold -inf and -1.
// query_group: (Q) or NULL; a row of the query's own group is no candidate.
void index_search(const Index *index, IndexSide side, float *scores, int32_t *ids,
                  const float *queries, const int32_t *query_group, int Q, int K);

// ---- on disk ----
// Writes shards of at most shard_rows rows, then meta.json. An index already in dir is replaced
// only by the last step. EXIT_IO, EXIT_NO_OUTPUT. The text of an error names the shard.
Error index_save(Index *index, const char *dir, int shard_rows);
// Loads and checks all of it. corpus_hash: what the corpus in use has, or 0 not to compare.
// EXIT_NO_INPUT (no index, a shard missing), EXIT_BAD_DATA (damaged, foreign, of another corpus).
Error index_load_new(Index **out, Device *dev, const char *dir, uint64_t corpus_hash);

// What meta.json says, without reading the shards.
typedef struct {
    int count, dim, shards; // shards per side
    DType dtype;
    uint64_t corpus_hash, encoder_hash, build_id;
} IndexInfo;
Error index_info(IndexInfo *out, const char *dir);
// Checks every shard of dir; calls report (may be NULL) once per shard with an Error (code 0:
// sound). Returns the first fault.
typedef void index_report_fn(const char *shard, Error error, void *ctx);
Error index_verify(const char *dir, index_report_fn *report, void *ctx);

#endif
