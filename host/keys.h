// keys: the list of all settings, a row each; struct Config, the parser, help and the dump of a run
// come from it (config.h).
//
//   X(section, name, TYPE, default as text, range, help)     section ends with a dot, or is empty
//
// TYPE: BOOL bool, INT int, SIZE int64_t, FLOAT double, TEXT const char *, CHOICE int (an
// enumerator), TEXTS TextList, INTS IntList. Range: BETWEEN(low, high), ONE_OF(choices), ANY.
// To add a key, add a row; to add a section, BEGIN and END around it.
// size: one list of all keys, one row each; it must not fall apart.
#ifndef JOMED_HOST_KEYS_H
#define JOMED_HOST_KEYS_H

// ---- choices: C(enumerator, "text"), in this order ----
// Those that name enumerators of another module (DType, DeviceKind, LogLevel, BadImage) keep its
// order.
#define START_CHOICES(C) \
    C(KEY_START_NEW, "new") C(KEY_START_RESUME, "resume") C(KEY_START_OVERWRITE, "overwrite")
#define LOG_CHOICES(C) \
    C(KEY_LEVEL_ERROR, "error") C(KEY_LEVEL_WARN, "warn") C(KEY_LEVEL_INFO, "info") \
    C(KEY_LEVEL_DEBUG, "debug")
#define COMM_CHOICES(C) \
    C(KEY_COMM_AUTO, "auto") C(KEY_COMM_SINGLE, "single") C(KEY_COMM_TCP, "tcp") \
    C(KEY_COMM_NCCL, "nccl")
#define NON_UTF8_CHOICES(C) C(KEY_NON_UTF8_REPLACE, "replace") C(KEY_NON_UTF8_FAIL, "fail")
#define BAD_IMAGE_CHOICES(C) \
    C(KEY_BAD_IMAGE_FAIL, "fail") C(KEY_BAD_IMAGE_SKIP, "skip") C(KEY_BAD_IMAGE_BLANK, "blank")
#define WARNINGS_CHOICES(C) C(KEY_WARNINGS_ACCEPT, "accept") C(KEY_WARNINGS_REFUSE, "refuse")
#define HEAD_CHOICES(C) C(KEY_HEAD_TEXT, "text") C(KEY_HEAD_IMAGE, "image")
#define SCHEDULE_CHOICES(C) \
    C(KEY_SCHEDULE_COSINE, "cosine") C(KEY_SCHEDULE_LINEAR, "linear") \
    C(KEY_SCHEDULE_CONSTANT, "constant")
#define LOSS_CHOICES(C)                                                                            \
    C(KEY_LOSS_MARGINAL, "marginal") C(KEY_LOSS_JOMED, "jomed") C(KEY_LOSS_PDIST, "pdist")         \
    C(KEY_LOSS_EMDR2, "emdr2") C(KEY_LOSS_LEGACY1, "legacy1") C(KEY_LOSS_LEGACY2, "legacy2")       \
    C(KEY_LOSS_LEGACY3, "legacy3")
#define SPLIT_CHOICES(C) \
    C(KEY_SPLIT_TEST, "test") C(KEY_SPLIT_VAL, "val") C(KEY_SPLIT_TRAIN, "train")
#define ON_ERROR_CHOICES(C) C(KEY_ON_ERROR_STOP, "stop") C(KEY_ON_ERROR_WARN, "warn")
#define FORMAT_CHOICES(C) C(KEY_FORMAT_MEDMNIST, "medmnist") C(KEY_FORMAT_VQA_RAD, "vqa-rad")
#define EXPORT_CHOICES(C)                                                                          \
    C(KEY_EXPORT_READER, "reader") C(KEY_EXPORT_ADAPTER, "adapter")                                \
    C(KEY_EXPORT_RETRIEVER, "retriever") C(KEY_EXPORT_TEXT_HEAD, "text-head")                      \
    C(KEY_EXPORT_IMAGE_HEAD, "image-head") C(KEY_EXPORT_INDEX, "index")
#define LAYOUT_CHOICES(C)                                                                          \
    C(KEY_LAYOUT_SOURCE, "source") C(KEY_LAYOUT_CLIP, "clip")                                      \
    C(KEY_LAYOUT_OPEN_CLIP, "open_clip") C(KEY_LAYOUT_JINA, "jina_clip")
#define DTYPE_CHOICES(C) C(KEY_F32, "f32") C(KEY_BF16, "bf16") C(KEY_F16, "f16")
#define ARCH_CHOICES(C) C(KEY_ARCH_AUTO, "auto") C(KEY_ARCH_SM80, "sm80")
#define MATMUL_CHOICES(C) C(KEY_OWN, "own") C(KEY_CUBLASLT, "cublaslt")
#define DEVICE_CHOICES(C) C(KEY_CPU, "cpu") C(KEY_CUDA, "cuda") C(KEY_AUTO, "auto")

// ---- the list ----
// clang-format off
#define CONFIG(BEGIN, X, END) \
X(, seed, INT, "1", BETWEEN(0, 2147483647), "key of every random number") \
X(, threads, INT, "0", BETWEEN(0, 4096), \
  "CPU threads; 0: what OpenMP says; results do not depend on it") \
X(, device, CHOICE, "cpu", ONE_OF(DEVICE_CHOICES), \
  "where ops run; cuda never falls back to cpu; auto: cuda if it is there") \
X(, matmul, CHOICE, "own", ONE_OF(MATMUL_CHOICES), \
  "products on a GPU: our kernels, or cuBLASLt, whose bits may depend on the batch") \
X(, comm, CHOICE, "auto", ONE_OF(COMM_CHOICES), "how several processes talk") \
X(, world, INT, "0", BETWEEN(0, 65536), "number of processes expected; 0: what the launcher says") \
X(, question, TEXT, "", ANY, "question of the task, put before the answer") \
X(, classes, TEXTS, "[]", ANY, "answers of the task, in label order") \
BEGIN(kernels) \
X(kernels., arch, CHOICE, "auto", ONE_OF(ARCH_CHOICES), \
  "bodies of the CUDA kernels; auto: the card's own; sm80: the older ones on a newer card, too") \
END(kernels) \
BEGIN(run) \
X(run., dir, TEXT, "", ANY, "directory of the run; empty: runs/VERB") \
X(run., dirs, TEXTS, "[]", ANY, "runs to report on; empty: all seed-* below run.dir") \
X(run., start, CHOICE, "new", ONE_OF(START_CHOICES), \
  "new refuses a used directory; a Slurm restart resumes") \
X(run., deterministic, BOOL, "false", ANY, \
  "also write losses.jsonl, without times, for comparison byte by byte") \
END(run) \
BEGIN(log) \
X(log., level, CHOICE, "info", ONE_OF(LOG_CHOICES), "lines above this level are dropped") \
X(log., every, INT, "10", BETWEEN(1, 1000000), "steps between progress lines") \
END(log) \
BEGIN(data) \
X(data., root, TEXT, ".", ANY, "directory that relative paths in data files start from") \
X(data., task, TEXT, "", ANY, "JSONL file of queries") \
X(data., corpus, TEXT, "", ANY, "JSONL file of passages") \
X(data., allow_absolute_paths, BOOL, "false", ANY, \
  "allow data files to name files outside data.root") \
X(data., max_bad_lines, INT, "0", BETWEEN(0, 2147483647), \
  "lines that may be skipped as unreadable") \
X(data., non_utf8, CHOICE, "replace", ONE_OF(NON_UTF8_CHOICES), \
  "bytes that are not UTF-8: U+FFFD, or an error") \
X(data., on_bad_image, CHOICE, "fail", ONE_OF(BAD_IMAGE_CHOICES), \
  "an image that cannot be decoded; index build, not told, skips the row") \
X(data., max_bad_images, FLOAT, "0.001", BETWEEN(0, 1), \
  "share of rows whose image may be skipped or blank, rounded up; more stop the run") \
END(data) \
BEGIN(image) \
X(image., warnings, CHOICE, "accept", ONE_OF(WARNINGS_CHOICES), \
  "images that decode with warnings") \
X(image., max_side, INT, "32768", BETWEEN(1, 1000000), \
  "pixels; larger images are refused from the header") \
X(image., max_pixels, SIZE, "67108864", BETWEEN(1, 4294967296), "width times height, likewise") \
END(image) \
BEGIN(prepare) \
X(prepare., format, CHOICE, "medmnist", ONE_OF(FORMAT_CHOICES), "what prepare.source is") \
X(prepare., source, TEXT, "", ANY, \
  "MedMNIST .npz file, or directory of VQA-RAD (trainset.json, testset.json, images)") \
X(prepare., dir, TEXT, "", ANY, "where corpus.jsonl, task.jsonl and images go") \
X(prepare., caption, TEXT, "an image that shows {class}", ANY, \
  "caption of a passage; {class} is its class") \
X(prepare., max_side, INT, "0", BETWEEN(0, 32768), \
  "pixels; larger pictures are scaled down to it and written below prepare.dir; 0: as they are") \
X(prepare., max_rows, INT, "0", BETWEEN(0, 2147483647), "rows taken of each split; 0: all") \
END(prepare) \
BEGIN(limits) \
X(limits., max_array_bytes, SIZE, "4294967296", BETWEEN(1, 1e15), \
  "largest array taken from an .npz file") \
END(limits) \
BEGIN(retriever) \
X(retriever., model, TEXT, "", ANY, \
  "folder of a checkpoint: form, weights, tokenizer and processor of the towers") \
X(retriever., preset, TEXT, "tiny", ANY, \
  "form of the towers; weights from retriever.weights or the seed") \
X(retriever., weights, TEXT, "", ANY, \
  "safetensors file or directory; before what retriever.model holds") \
X(retriever., processor, TEXT, "tiny", ANY, "how pictures become pixels for the towers") \
X(retriever., text_head, TEXT, "", ANY, \
  "trained query head for the text index; empty: the frozen tower") \
X(retriever., image_head, TEXT, "", ANY, \
  "trained query head for the image index; empty: the frozen tower") \
X(retriever., search_head, TEXT, "", ANY, \
  "search head of the text stage, for exact.stale_search_head") \
X(retriever., max_tokens, INT, "256", BETWEEN(4, 1048576), \
  "longest caption, in tokens of the text tower") \
X(retriever., dtype, CHOICE, "f32", ONE_OF(DTYPE_CHOICES), "storage type of the towers") \
X(retriever., head, CHOICE, "text", ONE_OF(HEAD_CHOICES), \
  "which query head is trained: text or image index") \
X(retriever., image_size, INT, "0", BETWEEN(0, 4096), "pixels; 0: what the preset says") \
X(retriever., unfreeze, INT, "-1", BETWEEN(-1, 64), \
  "last groups of layers that a query head trains; 0: all; -1: all, of BiomedCLIP four") \
X(retriever., k, INT, "50", BETWEEN(1, 1024), "passages per training query, K") \
X(retriever., share, FLOAT, "0.15", BETWEEN(0, 1), \
  "weight a of the trained query in the mixed query") \
X(retriever., temperature, FLOAT, "0.02", BETWEEN(1e-6, 1e3), "T_s: scores are divided by it") \
X(retriever., evidence_temperature, FLOAT, "1", BETWEEN(1e-6, 1e6), \
  "T_g: the reader's evidence is divided by it") \
X(retriever., refresh, INT, "10", BETWEEN(1, 1000000), \
  "steps between refreshes of the search head") \
X(retriever., steps, INT, "400", BETWEEN(0, 99999999), "training steps") \
X(retriever., batch, INT, "8", BETWEEN(1, 1048576), "queries per step, over all processes") \
X(retriever., lr, FLOAT, "1e-4", BETWEEN(0, 10), "learning rate") \
X(retriever., warmup, INT, "20", BETWEEN(0, 2147483647), \
  "steps of linear warm-up; the first has rate 0") \
X(retriever., schedule, CHOICE, "cosine", ONE_OF(SCHEDULE_CHOICES), \
  "learning rate after the warm-up") \
X(retriever., weight_decay, FLOAT, "0.01", BETWEEN(0, 10), "on tensors of two or more dimensions") \
X(retriever., beta2, FLOAT, "0.999", BETWEEN(0, 0.9999999), "AdamW's second moment") \
X(retriever., clip, FLOAT, "1", BETWEEN(0, 1e9), "limit of the gradient's norm; 0: none") \
X(retriever., loss, CHOICE, "marginal", ONE_OF(LOSS_CHOICES), "gold scores and objective") \
END(retriever) \
BEGIN(reader) \
X(reader., model, TEXT, "", ANY, \
  "folder of a checkpoint: form, weights, tokenizer and processor of the reader") \
X(reader., preset, TEXT, "tiny-qwen2vl", ANY, "form of the vision-language model") \
X(reader., weights, TEXT, "", ANY, "safetensors file or directory") \
X(reader., adapter, TEXT, "", ANY, "PEFT directory with a LoRA adapter") \
X(reader., processor, TEXT, "tiny", ANY, "how pictures become pixels for the reader") \
X(reader., recompute, BOOL, "false", ANY, \
  "compute activations again in the backward instead of keeping them") \
X(reader., dtype, CHOICE, "f32", ONE_OF(DTYPE_CHOICES), "storage type of the frozen weights") \
X(reader., steps, INT, "150", BETWEEN(0, 99999999), "training steps") \
X(reader., batch, INT, "64", BETWEEN(1, 1048576), "prompts per step, over all processes") \
X(reader., micro_batch, INT, "0", BETWEEN(0, 1048576), \
  "prompts per pass, several of which make a step; 0: one pass") \
X(reader., lr, FLOAT, "1e-4", BETWEEN(0, 10), "learning rate") \
X(reader., warmup, INT, "15", BETWEEN(0, 2147483647), \
  "steps of linear warm-up; the first has rate 0") \
X(reader., schedule, CHOICE, "cosine", ONE_OF(SCHEDULE_CHOICES), \
  "learning rate after the warm-up") \
X(reader., weight_decay, FLOAT, "0", BETWEEN(0, 10), "on tensors of two or more dimensions") \
X(reader., beta2, FLOAT, "0.999", BETWEEN(0, 0.9999999), "AdamW's second moment") \
X(reader., clip, FLOAT, "1", BETWEEN(0, 1e9), "limit of the gradient's norm; 0: none") \
X(reader., lora_rank, INT, "8", BETWEEN(1, 4096), "r of the adapter") \
X(reader., lora_alpha, FLOAT, "16", BETWEEN(1e-6, 1e6), \
  "the adapter is scaled by lora_alpha / lora_rank") \
X(reader., use_rslora, BOOL, "false", ANY, "scale by lora_alpha / sqrt(lora_rank) instead") \
X(reader., lora_vision, BOOL, "true", ANY, "adapters on the vision tower, too") \
X(reader., lora_dropout, FLOAT, "0", BETWEEN(0, 0), "only 0: dropout is not supported") \
X(reader., open_answers, BOOL, "false", ANY, \
  "train-reader also teaches answers that are none of the classes") \
X(reader., records, TEXT, "", ANY, \
  "train-reader: LLaMA-Factory's records to train on, instead of what the retriever finds") \
X(reader., write_records, TEXT, "", ANY, \
  "train-reader: also write PREFIX_train_.json and so on, for LLaMA-Factory") \
X(reader., closed_book_share, FLOAT, "0.15", BETWEEN(0, 1), "share of prompts without passages") \
X(reader., all_weights, BOOL, "false", ANY, "train every weight instead of an adapter") \
END(reader) \
BEGIN(pretrain) \
X(pretrain., steps, INT, "300", BETWEEN(0, 99999999), "contrastive steps of the towers") \
X(pretrain., batch, INT, "128", BETWEEN(2, 1048576), "pairs per step, over all processes") \
X(pretrain., lr, FLOAT, "1e-3", BETWEEN(0, 10), "learning rate") \
X(pretrain., warmup, INT, "20", BETWEEN(0, 2147483647), "steps of linear warm-up") \
X(pretrain., weight_decay, FLOAT, "0.01", BETWEEN(0, 10), "on tensors of two or more dimensions") \
X(pretrain., temperature, FLOAT, "0.07", BETWEEN(1e-6, 1e3), "of the InfoNCE loss") \
X(pretrain., learn_temperature, BOOL, "false", ANY, "train the temperature too") \
END(pretrain) \
BEGIN(embed) \
X(embed., texts, TEXT, "", ANY, \
  "texts: JSON objects with a member text (the file begins with a brace), or one text per line") \
X(embed., images, TEXT, "", ANY, "JSONL file of pictures, of the form of data.corpus") \
X(embed., dir, TEXT, "", ANY, "where texts.npy and images.npy go") \
X(embed., unit, BOOL, "true", ANY, "rows of length one; else as the towers give them") \
X(embed., faiss, BOOL, "false", ANY, "also write texts.faiss and images.faiss") \
END(embed) \
BEGIN(index) \
X(index., dir, TEXT, "", ANY, "directory of the index shards") \
X(index., dtype, CHOICE, "f16", ONE_OF(DTYPE_CHOICES), "storage type of the rows") \
X(index., faiss, BOOL, "false", ANY, "index build also writes image.faiss and text.faiss") \
X(index., images, TEXT, "", ANY, \
  "index build takes the rows of the pictures from this .npy; empty: the image tower makes them") \
X(index., texts, TEXT, "", ANY, \
  "index build takes the rows of the captions from this .npy; empty: the text tower makes them") \
X(index., shard_rows, INT, "1000000", BETWEEN(1, 2147483647), "rows per shard file") \
END(index) \
BEGIN(score_store) \
X(score_store., enable, BOOL, "true", ANY, "keep the reader's scores of (query, passage) pairs") \
X(score_store., dir, TEXT, "", ANY, "directory of the store; empty: inside the run") \
END(score_store) \
BEGIN(prompt) \
X(prompt., instruction, TEXT, "", ANY, "text in front of the first image") \
X(prompt., max_tokens, INT, "4096", BETWEEN(8, 1048576), \
  "captions, and only they, are cut to fit") \
END(prompt) \
BEGIN(model) \
X(model., dir, TEXT, "", ANY, "folder of a published model; a folder on the command line sets it") \
END(model) \
BEGIN(tokenize) \
X(tokenize., special, BOOL, "false", ANY, \
  "special tokens that a text spells are recognised, and written in texts") \
X(tokenize., clean, BOOL, "false", ANY, "texts are cleaned first, as open_clip does") \
X(tokenize., around, BOOL, "false", ANY, "ids with what the model wants before and after a text") \
END(tokenize) \
BEGIN(generate) \
X(generate., prompt, TEXT, "", ANY, \
  "what the user says, behind the pictures; the answer goes to standard output") \
X(generate., image, TEXTS, "[]", ANY, "pictures before the prompt") \
X(generate., system, TEXT, "", ANY, "system message; empty: what the model's template puts there") \
X(generate., chats, TEXT, "", ANY, \
  "JSONL file of chats instead: {id, messages}; out come lines {id, text, tokens, ended}") \
X(generate., batch, INT, "8", BETWEEN(1, 4096), \
  "chats answered at once; the answers do not depend on it") \
X(generate., max_tokens, INT, "256", BETWEEN(1, 1048576), "longest answer") \
X(generate., stop, TEXTS, "[]", ANY, "texts before which an answer ends") \
X(generate., sample, BOOL, "false", ANY, \
  "draw tokens, by seed and number of the chat; else the likeliest. This and those below: " \
  "generation_config.json's, unless set") \
X(generate., temperature, FLOAT, "1", BETWEEN(1e-6, 1e6), \
  "scores are divided by it before a draw") \
X(generate., top_k, INT, "0", BETWEEN(0, 2147483647), \
  "draw from so many likeliest tokens; 0: all") \
X(generate., top_p, FLOAT, "1", BETWEEN(1e-6, 1), \
  "draw from the likeliest tokens of this much probability") \
X(generate., repetition_penalty, FLOAT, "1", BETWEEN(1e-6, 1e6), \
  "tokens of prompt and answer so far are less likely by it; 1: not") \
END(generate) \
BEGIN(export) \
X(export., what, CHOICE, "reader", ONE_OF(EXPORT_CHOICES), \
  "reader: reader.adapter merged into reader.model; a head takes the place of the image tower " \
  "in retriever.model") \
X(export., layout, CHOICE, "source", ONE_OF(LAYOUT_CHOICES), \
  "of towers: that of retriever.model; clip (transformers), open_clip: one CLIP as the other; " \
  "jina_clip: the tiny towers") \
X(export., dir, TEXT, "", ANY, "folder to make; it must not exist, or be empty") \
END(export) \
BEGIN(demo) \
X(demo., seeds, INTS, "[1, 2, 3]", BETWEEN(0, 2147483647), "one run of all stages each") \
X(demo., corpus, INT, "2304", BETWEEN(256, 1000000), "passages drawn") \
X(demo., queries, INT, "400", BETWEEN(16, 1000000), \
  "queries drawn to train on, and as many to test") \
X(demo., reader_steps, INT, "300", BETWEEN(0, 99999999), \
  "steps that make the reader, before its adapter") \
X(demo., refit_steps, INT, "100", BETWEEN(0, 99999999), \
  "steps of the adapter on what the trained heads retrieve") \
END(demo) \
BEGIN(evaluate) \
X(evaluate., k, INT, "2", BETWEEN(1, 1024), "passages per head") \
X(evaluate., split, CHOICE, "test", ONE_OF(SPLIT_CHOICES), "which rows of the task") \
X(evaluate., rerankers, TEXTS, "[]", ANY, "analyses that reorder the retrieved passages") \
X(evaluate., oracle_at, INTS, "[]", BETWEEN(1, 1024), \
  "passages per head at which the oracle is reported") \
END(evaluate) \
BEGIN(weights) \
X(weights., check_finite, BOOL, "false", ANY, "look at every weight and refuse NaN and infinity") \
END(weights) \
BEGIN(report) \
X(report., dir, TEXT, "", ANY, "where report.html and tables/ go; empty: run.dir") \
X(report., baseline, TEXT, "RAG, frozen retriever", ANY, "system that gains are measured against") \
X(report., system, TEXT, "joint", ANY, "system shown beside the baseline") \
END(report) \
BEGIN(checkpoint) \
X(checkpoint., every, INT, "1000", BETWEEN(1, 2147483647), "steps between checkpoints") \
X(checkpoint., keep, INT, "2", BETWEEN(1, 100000), "newest checkpoints that stay") \
X(checkpoint., on_error, CHOICE, "stop", ONE_OF(ON_ERROR_CHOICES), "when one cannot be written") \
END(checkpoint) \
BEGIN(exact) \
X(exact., all, BOOL, "false", ANY, "sets every exact.* that is not set by itself") \
X(exact., double_softmax, BOOL, "false", ANY, "cross-entropy applied to probabilities") \
X(exact., wd1, BOOL, "false", ANY, "weight decay 1.0 on all tensors, biases and norms too") \
X(exact., clip_before_backward, BOOL, "false", ANY, \
  "gradients are clipped while still empty: not at all") \
X(exact., micro_mean, BOOL, "false", ANY, \
  "a step's loss is the mean of the passes' means, whatever their tokens") \
X(exact., kl_mean, BOOL, "false", ANY, "element mean of the divergence times 1000") \
X(exact., prior_t1, BOOL, "false", ANY, "prior in the target at temperature 1") \
X(exact., stale_search_head, BOOL, "false", ANY, \
  "the image stage starts with the text head as search head") \
X(exact., recompute_fp32, BOOL, "false", ANY, "loss scores from f32 rows, search in f16") \
X(exact., max_norm, BOOL, "false", ANY, \
  "scores of each head divided by their maximum before fusion") \
X(exact., sft_positions, BOOL, "false", ANY, \
  "train-reader numbers image tokens of Qwen2-VL like text") \
X(exact., min_class, BOOL, "false", ANY, "epochs cut to the rarest class") \
X(exact., reseed, BOOL, "false", ANY, \
  "every epoch in the same order, drawn by Python's random from the seed") \
X(exact., sft_caps, BOOL, "false", ANY, \
  "train-reader prepares images and Pixtral's prompt as LLaMA-Factory of October 2024") \
X(exact., pixtral_literal, BOOL, "false", ANY, \
  "Pixtral is asked \"<image>Question: ... Answer:\", where a sample has its own question") \
X(exact., retina6, BOOL, "false", ANY, "a sixth retina label that does not exist") \
X(exact., space_tokens, BOOL, "false", ANY, "labels as space-prefixed tokens") \
X(exact., fusion, BOOL, "false", ANY, \
  "answers by fused logits at the first position instead of the mixture; evaluate also fuses " \
  "all positions to a text") \
X(exact., greedy_prefix, BOOL, "false", ANY, \
  "a label's tokens are scored along the reader's own greedy answer") \
X(exact., rep_penalty, BOOL, "false", ANY, \
  "label logits with the repetition penalty of generation_config.json") \
X(exact., tail_decode, BOOL, "false", ANY, \
  "evaluate parses the last 8 tokens of prompt and answer together") \
X(exact., parser, BOOL, "false", ANY, \
  "evaluate takes the first class whose name is anywhere in a text") \
X(exact., saved_logits, BOOL, "false", ANY, \
  "predictions hold, for every passage, the first token's score summed over all positions") \
END(exact)
// clang-format on

// ---- refused by name: R(key, value or "" for any bad one, why) ----
// Consulted when a key is unknown or its value does not pass.
#define CONFIG_REFUSED(R)                                                                          \
    R("reader.lora_dropout", "", "dropout is not supported; 0 is the only value")                  \
    R("reader.dropout", "", "dropout is not supported; leave it out")                              \
    R("retriever.dropout", "", "dropout is not supported; leave it out")                           \
    R("reader.quantization", "", "quantised weights are not supported; use reader.dtype=bf16")     \
    R("reader.load_in_4bit", "", "quantised weights are not supported; use reader.dtype=bf16")     \
    R("reader.load_in_8bit", "", "quantised weights are not supported; use reader.dtype=bf16")     \
    R("reader.dtype", "int8", "quantised weights are not supported; use reader.dtype=bf16")        \
    R("reader.dtype", "int4", "quantised weights are not supported; use reader.dtype=bf16")        \
    R("reader.dtype", "nf4", "quantised weights are not supported; use reader.dtype=bf16")         \
    R("reader.use_dora", "", "DoRA is not supported; plain LoRA is")                               \
    R("reader.dora", "", "DoRA is not supported; plain LoRA is")                                   \
    R("retriever.loss", "loop", "leave-one-out evidence is not built; loss=marginal is")           \
    R("retriever.loss", "adist", "attention evidence is not built; loss=marginal is")              \
    R("exact.modes", "", "the original's dropout is not built")

#endif
