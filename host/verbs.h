// verbs: the list of what jomed can do. One row each; the dispatch and the help come from it.
//
//   V(function, "words on the command line", "keys it reads: sections or whole names", "help")
//
// cmd_<function> lives in host/cmd_<verb>.c; what it returns is the exit code.
#ifndef JOMED_HOST_VERBS_H
#define JOMED_HOST_VERBS_H

#include "config.h"

// Sections that verbs share.
#define MACHINE_KEYS "threads device kernels log "
#define TASK_KEYS "seed threads device kernels data image classes question retriever "
#define READER_KEYS "reader weights index prompt "

#define VERBS(V)                                                                                   \
    V(demo, "demo",                                                                                \
      "demo run threads device kernels "                                                           \
      "retriever reader pretrain index score_store evaluate exact",                                \
      "the embedded benchmark: every stage of the method on a small world")                        \
    V(prepare, "prepare", "prepare classes data.on_bad_image log limits",                          \
      "a public data set becomes a corpus and a task: corpus.jsonl, task.jsonl")                   \
    V(pretrain, "pretrain", TASK_KEYS "run log pretrain checkpoint",                               \
      "contrastive training of the towers on the corpus's pairs")                                  \
    V(index_build, "index build", TASK_KEYS "index", "embed the corpus into a sharded index")      \
    V(index_search, "index search", TASK_KEYS "index evaluate",                                    \
      "the nearest passages of the task's queries")                                                \
    V(index_info, "index info", "index", "what an index says of itself")                           \
    V(index_verify, "index verify", "index", "check every shard of an index")                      \
    V(embed, "embed", MACHINE_KEYS "seed data image retriever embed",                              \
      "texts and pictures to rows of numbers: .npy and faiss files")                               \
    V(train_reader, "train-reader", TASK_KEYS READER_KEYS "run log evaluate checkpoint exact",     \
      "fine-tune the reader on retrieved passages")                                                \
    V(train_retriever, "train-retriever",                                                          \
      TASK_KEYS READER_KEYS "run log score_store checkpoint exact",                                \
      "train a query head through the frozen reader")                                              \
    V(evaluate, "evaluate", TASK_KEYS READER_KEYS "run log score_store evaluate exact",            \
      "answers of every system that can be built, as results.json")                                \
    V(generate, "generate",                                                                        \
      MACHINE_KEYS "seed data.root data.allow_absolute_paths data.max_bad_lines data.non_utf8 "    \
      "image reader.model reader.preset reader.weights reader.adapter reader.processor "           \
      "reader.dtype weights prompt.max_tokens generate",                                           \
      "the reader answers in its own words: one prompt with pictures, or a file of chats")         \
    V(export, "export",                                                                            \
      "threads log reader.model reader.weights reader.adapter retriever.model "                    \
      "retriever.weights retriever.text_head retriever.image_head index.dir weights export",       \
      "trained weights as the folders that other libraries open: reader, adapter, retriever, "     \
      "heads, index")                                                                              \
    V(model_info, "model info",                                                                    \
      MACHINE_KEYS "model weights reader.dtype reader.lora_rank reader.recompute",                 \
      "what a checkpoint folder holds, what is missing, and the memory it takes")                  \
    V(model_tokenize, "model tokenize", "model tokenize log",                                      \
      "JSON lines with a text become token ids, lines with ids become text")                       \
    V(doctor, "doctor", MACHINE_KEYS "run index score_store",                                      \
      "what this machine has, and what it lacks")                                                  \
    V(report, "report", "run.dir run.dirs report log",                                             \
      "tables and a page from the results of runs, mean and sd over seeds")

#define VERB_FUNCTION(function, words, sections, help) int cmd_##function(const Config *config);
VERBS(VERB_FUNCTION)
#undef VERB_FUNCTION

// The program itself: finds the verb, reads the settings, runs it. Returns the exit code.
int command_line_run(int argc, char **argv);

#endif
