// reader: a vision-language model from packed prompts with images to logits of the wanted rows.
//   h = embed[id], with the rows of image tokens replaced by the vision tower's, in reading order
//   h = blocks(h), causal;   logits = head(norm(h[wanted]))
// Families: Qwen2-VL (M-RoPE, biases on q, k, v), Pixtral (Mistral, 1-D RoPE), and Llama, which is
// Pixtral's language model without eyes. LoRA on every linear layer of the blocks of vision tower
// and language model (LLaMA-Factory's "all": not on merger, projector or head), or training of all
// weights. Leaves out video. Sources: Wang et al. 2024 (Qwen2-VL);
// Agrawal et al. 2024 (Pixtral 12B); Touvron et al. 2023 (Llama).
#ifndef JOMED_MODELS_READER_H
#define JOMED_MODELS_READER_H

#include "vision_tower.h"

typedef struct {
    ReaderFamily family;
    VisionConfig vision;
    BlockConfig block; // of the language model
    int L, V;
    bool is_tied;      // the head is the embedding table
    double theta;
    int sections[3];   // M-RoPE: pairs turned by t, h, w; sum D/2
    bool has_flat_positions; // Qwen2-VL: image tokens are numbered like text (exact.sft_positions)
    int image_id;      // token whose embedding an image row replaces: <|image_pad|>, [IMG]; or -1
    float embed_sd;
} ReaderConfig;
// Presets: "tiny-qwen2vl", "tiny-pixtral", "qwen2-vl-2b", "qwen2-vl-7b", "pixtral-12b". The tiny
// ones leave V = 0 and image_id = -1: set them from the tokenizer. False: no such preset.
bool reader_preset(ReaderConfig *config, const char *name);
// Sets the adapters of all blocks, those of the vision tower only where they are wanted there.
void reader_set_lora(ReaderConfig *config, LoraConfig lora, bool has_vision_lora);

typedef struct {
    ReaderConfig config;
    TensorList tensors;
    VisionTower vision;
    Tensor *embed;
    BlockStack blocks;
    Norm norm;
    Linear head; // weight == embed when tied
    size_t logits_limit; // bytes of logits at once: READER_LOGITS; tests set others
    HostIds scratch;
} Reader;
// The structure alone, without memory for values, and its end: for listing tensors, or for marking
// them otherwise than reader_new does before tensors_allocate.
void reader_build(Reader *reader, const ReaderConfig *config);
void reader_unbuild(Reader *reader);
// Adapters, where there are any, are trainable; the base is if is_base_trainable.
Reader *reader_new(Device *dev, DType t, const ReaderConfig *config, bool is_base_trainable);
void reader_free(Reader *reader);

// ---- batches, on the host ----
// Owns its arrays, which grow while prompts are added; images are borrowed until the pass is over.
typedef struct {
    int B, N, max_T, images, R;
    int32_t *ids;        // (N) all prompts, packed
    int32_t *cu_seqlens; // (B+1)
    int32_t *positions;  // (3,capacity_N): axis a of row n at a * capacity_N + n
    int32_t *wanted;     // (R) rows of N whose logits are wanted
    int32_t *slot;       // (B) of a cache, where there is one: b at first
    ReaderImage *image;  // (images) in reading order
    int capacity_B, capacity_N, capacity_images, capacity_R;
} ReaderBatch;
ReaderBatch reader_batch_new(void);
void reader_batch_free(ReaderBatch *batch);
void reader_batch_clear(ReaderBatch *batch);
// Appends a prompt of T ids with its images, and the rows of it (0..T-1, ascending) that are
// wanted. The number of image tokens must equal the sum of vision_tokens (CHECK). Computes
// positions. Returns its first row.
int reader_batch_add(ReaderBatch *batch, const ReaderConfig *config, const int32_t *ids, int T,
                     const ReaderImage *image, int images, const int32_t *wanted, int wanted_count);
// Appends one token of text that continues a slot of a cache; its row is wanted.
void reader_batch_continue(ReaderBatch *batch, const KvCache *cache, int slot, int32_t id);
// Positions of one prompt: three axes, axis a at positions + a * stride. All but Qwen2-VL, and
// where positions are flat: 0..T-1 on all axes. Qwen2-VL: a text run advances all axes; an image of
// g x k tokens starting at s gets (s, s + r, s + c), and what follows starts at s + max(1, g, k).
// Returns the largest position + 1.
int reader_positions(const ReaderConfig *config, int32_t *positions, int stride,
                     const int32_t *ids, int T, const ReaderImage *image, int images);

// ---- passes ----
// The blocks first, over the whole batch; then the head, over as many of the wanted rows at once as
// logits fit READER_LOGITS, each time with what reads them, so that (R,V) logits never exist:
//   reader_hidden_fwd(run, reader, &state, hidden, batch);
//   for (int first = 0, rows; first < R; first += rows) {
//       rows = reader_head_rows(run, reader, R - first);
//       reader_head_fwd(...);   // rows of hidden to logits
//       ...                     // logits to dlogits, in place
//       reader_head_bwd(...);   // dlogits to rows of dhidden
//   }
//   reader_hidden_bwd(run, reader, &state, dhidden);
// On the CPU all bits are those of one piece; on a GPU, all but those of the head's own gradient,
// whose order of adding depends on the number of rows.
#define READER_LOGITS ((size_t)64 << 20) // 220 rows of Qwen2-VL in bf16
typedef struct {
    const ReaderBatch *batch;
    int computed, given, texts; // rows from the vision tower, from given features, from the table
    int32_t *image_rows;        // (computed + given): the computed ones first; on the device, as
    int32_t *text_rows, *text_ids, *wanted; // (texts), (texts), (R)
    void *picked;               // (R,C): wanted rows before the norm
    NormState norm;
    VisionState vision;
    StackState blocks;
} ReaderState;
// Features only, for the cache. out: (sum of vision_tokens, C) t
void reader_vision_fwd(Run *run, Reader *reader, void *out, const ReaderImage *image, int images);
// hidden: (R,C) t, the wanted rows after the norm. The batch stays as it is until the backward is
// done.
void reader_hidden_fwd(Run *run, Reader *reader, ReaderState *state, void *hidden,
                       const ReaderBatch *batch);
// The same with a cache: prompts go into empty slots, tokens of reader_batch_continue follow what
// their slots hold. The rows have the bits that they have without one, in the whole sequence.
void reader_hidden_fwd_cached(Run *run, Reader *reader, ReaderState *state, void *hidden,
                              const ReaderBatch *batch, KvCache *cache);
// How many of `left` wanted rows may have logits at once; at least one.
int reader_head_rows(const Run *run, const Reader *reader, int left);
// logits: (rows,V) t   hidden: (rows,C) t
void reader_head_fwd(Run *run, const Reader *reader, void *logits, const void *hidden, int rows);
// dhidden (rows,C) t =, the head's own gradient +=, from dlogits (rows,V) t.
void reader_head_bwd(Run *run, const Reader *reader, void *dhidden, const void *dlogits,
                     const void *hidden, int rows);
// Parameter gradients of the rest from dhidden (R,C), which is spoiled. Given features get none,
// nor do table rows under images.
void reader_hidden_bwd(Run *run, Reader *reader, ReaderState *state, void *dhidden);
// An empty cache of the reader's size for B sequences of at most `room` tokens.
KvCache *reader_cache_new(const Reader *reader, int B, int room);

#endif
