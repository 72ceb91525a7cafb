// prepare: a public data set becomes a corpus and a task that every other verb reads.
//
//   DIR/corpus.jsonl   passages: one per row of the training split (dataset_files.h says the form)
//   DIR/task.jsonl     queries of all splits
//   DIR/images/        pictures as PNG, where the source holds pixels and not files, or where
//                      prepare.max_side is set: then larger ones are scaled down to it (bicubic)
//   DIR/prepare.json   what was read and written (the facts below); its is_complete is set last
//
// medmnist   prepare.source is an .npz; `classes` names its labels in order. A passage's text is
//            prepare.caption with the class in place of {class}; queries carry no question, so the
//            key `question` holds. data.root = prepare.dir.
// vqa-rad    prepare.source is a directory with trainset.json, testset.json and images. Queries are
//            the questions answered by exactly yes or no (case and blanks aside), written so. A
//            passage's text is question and answer of any training row, open ones too. The splits
//            are ours, by picture (prepare_split): all pictures of the original's test set are in
//            its training set too. group is the picture's name, so that no query finds its own.
//            Without prepare.max_side pictures are not copied: data.root = prepare.source.
//
// A query never meets its own picture as a passage because dataset_link_groups joins equal pictures
// and equal groups; a medmnist picture that two splits share is counted and joined likewise.
// Left out: several labels a row, splits by patient (neither source names patients).
#ifndef JOMED_HOST_PREPARE_H
#define JOMED_HOST_PREPARE_H

#include "config.h"
#include "dataset.h"

typedef struct {
    int rows;                 // in the source, all splits
    int left_out;             // of them, beyond prepare.max_rows
    int bad_images;           // of them, whose picture cannot be had (data.on_bad_image not fail)
    int passages;             // written
    int queries[SPLIT_COUNT]; // written
    int dropped;              // rows that became neither passage nor query
    int test_images;          // distinct pictures of the source's own test split
    int overlap;              // of them, those that its training split has too
} PrepareFacts;

// Reads, writes, reports. Dies: EXIT_NO_INPUT without the source, EXIT_BAD_DATA when it is not what
// prepare.format says, EXIT_NO_OUTPUT when the directory cannot be written or holds something that
// prepare did not write. What an earlier prepare wrote is replaced.
PrepareFacts prepare_run(const Config *config);

// What data.root must be to read what was written.
const char *prepare_root(const Config *config);
// Split of a picture: 70% train, 10% val, 20% test of the hash's range.
Split prepare_split(uint64_t image_hash);
// Is row i of n taken when at most `most` are wanted (0: all)? Exactly `most` are, spread evenly:
// the rows of a file may be sorted by class.
bool prepare_takes(int i, int n, int most);

#endif
