// dataset: corpus and task in memory, one form for every stage.
//
// A corpus row is an image with its caption; a task row is an image with a question, an answer and
// a class. Both are a Record. Pixels are either embedded (a generator, an npz) or decoded from the
// file each time they are asked for. The key of a row is its index in the Dataset, never its id:
// ids of real corpora are not unique.
#ifndef JOMED_HOST_DATASET_H
#define JOMED_HOST_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image.h"

typedef enum { SPLIT_TEST, SPLIT_VAL, SPLIT_TRAIN, SPLIT_COUNT } Split; // SPLIT_COUNT: not said

// Strings are never NULL inside a Dataset: what is unknown is "".
typedef struct {
    const char *id;       // as in the file, for people
    const char *title;    // of a passage: title, or "title: section"
    const char *text;     // caption or report
    const char *question; // of a task
    const char *answer;   // of a task, as written
    int label;            // class 0..C-1, or -1
    uint32_t labels;      // multi-label tasks: bit c is class c
    Split split;
    const char *group;    // patient or study, "" none; the same string is the same one everywhere
    int group_id;         // dataset_link_groups; -1 none
    const char *source;   // corpus or file the row came from
    int line;             // of that file, from 1; 0 none
    const char *path;     // image file below the Dataset's root, "" when the pixels are embedded
    Image image;          // embedded pixels, empty when path is set
    uint64_t image_hash;  // of the file's bytes or of the pixels; 0: see dataset_image_hash
} Record;

typedef enum { BAD_IMAGE_FAIL, BAD_IMAGE_SKIP, BAD_IMAGE_BLANK } BadImage;

typedef struct {
    BadImage on_bad_image; // die; say no; hand out a mid-grey square
    double max_bad;        // die when more than this share of rows (at least one) had a bad image
    bool drops_bad;        // skipped rows will be dropped: encode_images gives them any embedding
    bool refuse_warnings;  // a JPEG that decodes with warnings is a bad image
    ImageLimits limits;
} ImagePolicy;
ImagePolicy image_policy_default(void); // fail, 0.001, accept warnings, default limits

typedef struct DatasetText DatasetText; // blocks that hold the strings
typedef struct {
    Record *records;    // (n)
    int n, room;
    char **class_names; // (C)
    int C;
    ImagePolicy policy;
    char *root;         // directory that image paths start from; "." at first
    bool allow_absolute_paths;
    uint8_t *is_bad;    // (room) rows whose image was found bad
    int bad_images, image_warnings;
    DatasetText *text;
} Dataset;

// ---- making one ----
Dataset *dataset_new(void);
void dataset_free(Dataset *ds);
// Copies the names. At most 32 classes where rows use the labels mask.
void dataset_set_classes(Dataset *ds, const char *const *names, int C);
// Index of the class with exactly this name, or -1.
int dataset_class(const Dataset *ds, const char *name);
// Copies the record, its strings (NULL reads as "") and its pixels; returns its row. Pixels are
// hashed. Start from record_empty, in which nothing is known.
int dataset_add(Dataset *ds, const Record *record);
Record record_empty(void);
// Absolute paths and such that leave the root are refused unless allowed.
void dataset_set_root(Dataset *ds, const char *root, bool allow_absolute_paths);

// ---- reading one ----
// The picture of row i, by value; the caller frees *out. False when it is bad and the policy is
// skip; bad ones are counted once per row. Rows may be read from several threads at a time.
bool dataset_image(Dataset *ds, int i, Image *out);
// The same in two halves, for threads that read ahead: the picture or why there is none (then *out
// is empty), and what the policy makes of that.
Error dataset_read_image(Dataset *ds, int i, Image *out);
bool dataset_accept_image(Dataset *ds, int i, Error error, Image *out);
// The image_hash of row i, taken now where it was not: XXH64 of the file's bytes. 0: the row has no
// image, or one that cannot be read, which is treated as the policy says.
uint64_t dataset_image_hash(Dataset *ds, int i);
// Removes the rows marked bad; those behind move up. Returns how many went.
int dataset_drop_bad(Dataset *ds);
void dataset_hash_images(Dataset *ds); // of all rows, on as many threads as OpenMP has
// Of all that makes rows what they are, in their order: id, texts, answer, labels, path or embedded
// pixels. Not of the bytes of image files, which would have to be read.
uint64_t dataset_hash(const Dataset *ds);

// ---- who may not meet whom ----
// Gives all rows of all sets the same group_id exactly when they are joined by a chain of equal
// group names or equal image hashes: a query must not retrieve its own patient, study or picture.
// Ids are 0.., in order of first appearance; a row with neither name nor hash gets -1. Returns the
// number of groups.
int dataset_link_groups(Dataset *const *sets, int set_count);
// Logs how many rows repeat the id, or the picture, of an earlier row of the same source, with an
// example of each; returns how many repeat an id. Rows without an id or a hash do not count.
int dataset_report_duplicates(const Dataset *ds);

#endif
