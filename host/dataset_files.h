// dataset_files: the files datasets come from.
//
//   corpus JSONL   id, img_path, text; optional title, section, dataset_source, group, split
//   task JSONL     image_path and answers (classification), or image_path, question, answer;
//                  optional id, split, group
//   MedMNIST npz   {train,val,test}_{images,labels}, uint8: pixels become embedded pictures
//
// The JSONL members are those of the original's files (spec of the method, 3.2 and 4.1). id and
// group may be texts or integers. Unknown members are ignored: corpora carry many. Paths are not
// looked at here, but when a picture is asked for.
#ifndef JOMED_HOST_DATASET_FILES_H
#define JOMED_HOST_DATASET_FILES_H

#include "dataset.h"

typedef struct {
    int max_bad_lines;   // lines that may be skipped, unreadable or lacking a member
    bool is_utf8_strict; // text that is not UTF-8 makes a line bad, else it becomes U+FFFD
    bool is_multi_label; // the answer is a list of classes with commas between, or a JSON list
} DatasetReading;

// Append the rows of a file to ds, whose classes must be set before (none: labels stay -1).
// `answers` must be one of the classes exactly; an `answer` that is none keeps label -1, as open
// questions have them. name is the file's: it becomes the source of rows that name none. Error:
// EXIT_BAD_DATA, offset = line; rows read so far stay.
Error dataset_parse_corpus(Dataset *ds, const char *name, const void *data, size_t size,
                           const DatasetReading *reading);
Error dataset_parse_task(Dataset *ds, const char *name, const void *data, size_t size,
                         const DatasetReading *reading);

// Appends the rows of a MedMNIST archive: images (N,H,W) or (N,H,W,3), labels (N,1), or (N,L) of 0
// and 1 for several labels, which needs L classes. Splits that are not there are passed over, but
// one must be. Ids are "train-0" and so on; source is name. With no classes set, labels are kept up
// to 255 and answers are empty. An array beyond max_array_bytes (the key limits.max_array_bytes) is
// refused. Error: EXIT_BAD_DATA, naming the array; rows read so far stay.
Error dataset_parse_medmnist(Dataset *ds, const char *name, const void *data, size_t size,
                             size_t max_array_bytes);

// The same for a file, which is mapped meanwhile; die on an error. Return the rows added.
int dataset_read_corpus(Dataset *ds, const char *path, const DatasetReading *reading);
int dataset_read_task(Dataset *ds, const char *path, const DatasetReading *reading);
int dataset_read_medmnist(Dataset *ds, const char *path, size_t max_array_bytes);

#endif
