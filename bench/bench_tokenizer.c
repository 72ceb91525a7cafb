// tokenizers on the captions of ROCO, one thread, beside the libraries that Python uses. A row is
// one pass over all captions; GB/s is bytes of text. Rows need the test data (JOMED_TEST_DATA, else
// ../shared/data), and are left out without them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/peer_process.h"
#include "host/file.h"
#include "host/jsonl.h"
#include "host/tokenizer_files.h"

#define SCRIPT "bench/peers/tokenize_texts.py"
#define CAPTIONS "medical/roco/captions_cc_by.jsonl"

// What a pass gives: the number of ids, and a sum that no other order of them is likely to have.
typedef struct {
    uint32_t count, sum;
} Digest;

typedef struct {
    const Tokenizer *tok;
    char **texts;
    size_t n, bytes;
    int32_t *ids;
    int room;
    Digest digest;
} Job;

typedef struct {
    PeerProcess process;
    Digest digest;
} Peer;

// ---- ours ----
static void read_texts(Job *job, const FileBytes *file) {
    Jsonl reader;
    jsonl_begin(&reader, CAPTIONS, file->data, file->size);
    for (json_t *row; jsonl_next(&reader, &row).code == EXIT_OK && row;) {
        const char *text = json_string_value(json_object_get(row, "caption"));
        CHECK(text, "%s:%zu: no caption", CAPTIONS, reader.line);
        job->texts = xrealloc(job->texts, job->n + 1, sizeof *job->texts);
        job->texts[job->n++] = xstrdup(text);
        job->bytes += strlen(text);
        job->room = job->room > (int)strlen(text) ? job->room : (int)strlen(text);
        json_decref(row);
    }
    jsonl_end(&reader);
    job->room *= 4;
    job->ids = xmalloc((size_t)job->room, sizeof *job->ids);
}

static void run(void *ctx) {
    Job *job = ctx;
    Digest d = {0};
    for (size_t i = 0; i < job->n; i++) {
        const int n = tokenizer_encode_special(job->tok, job->texts[i], strlen(job->texts[i]),
                                               job->ids, job->room);
        for (int k = 0; k < n; k++) {
            d.sum += ++d.count * (uint32_t)job->ids[k];
        }
    }
    job->digest = d;
}

// ---- the peer ----
static void peer_run(void *ctx) {
    Peer *peer = ctx;
    double seconds;
    fputs("run\n", peer->process.to);
    fflush(peer->process.to);
    CHECK(fscanf(peer->process.from, "%lf %u %u", &seconds, &peer->digest.count,
                 &peer->digest.sum) == 3,
          "the peer has died");
    bench_took(seconds);
}

static bool peer_load(Peer *peer, const char *kind, const char *folder, const char *captions) {
    char line[16];
    peer->process = peer_process_start(SCRIPT);
    fprintf(peer->process.to, "%s %s %s %d\n", kind, folder, captions, bench_threads());
    fflush(peer->process.to);
    return fgets(line, sizeof line, peer->process.from) && strcmp(line, "ready\n") == 0;
}

static void bench_kind(Job *job, const char *kind, const char *folder, const char *captions) {
    Tokenizer *tok;
    error_die(folder, tokenizer_open_new(&tok, folder));
    job->tok = tok;
    Peer peer;
    const bool has_peer = peer_load(&peer, kind, folder, captions);
    run(job);
    if (has_peer) {
        peer_run(&peer);
        CHECK(memcmp(&peer.digest, &job->digest, sizeof peer.digest) == 0,
              "%s: %u ids, the peer has %u; sums %u, %u", kind, job->digest.count,
              peer.digest.count, job->digest.sum, peer.digest.sum);
    }
    char shape[64];
    snprintf(shape, sizeof shape, "%s %zu captions %u ids", kind, job->n, job->digest.count);
    bench_time(shape, 0, (double)job->bytes, run, job,
               strcmp(kind, "tiktoken") == 0 ? "tiktoken" : "tokenizers",
               has_peer ? peer_run : NULL, &peer);
    peer_process_stop(&peer.process);
    tokenizer_free(tok);
}

BENCH(tokenizer) {
    static const char *const kinds[][2] = {{"wordpiece", "bert-base-uncased"},
                                           {"clip", "clip-bpe"},
                                           {"qwen2", "qwen2"},
                                           {"tekken", "tekken"},
                                           {"tiktoken", "tekken"}};
    const char *data = getenv("JOMED_TEST_DATA");
    data = data && data[0] ? data : "../shared/data";
    char *captions = file_join_new(data, CAPTIONS);
    FileBytes file;
    const Error error = file_map_new(&file, captions);
    if (error.code != EXIT_OK) {
        LOG(INFO, "bench tokenizer: %s: %s", captions, error.text);
    } else {
        Job job = {0};
        read_texts(&job, &file);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            char *folder = xformat_new("%s/tokenizers/%s", data, kinds[i][1]);
            bench_kind(&job, kinds[i][0], folder, captions);
            free(folder);
        }
        file_bytes_free(&file);
    }
    free(captions);
}
