// dataset: corpus and task in memory, one form for every stage.
//
// A corpus row is an image with its caption; a task row is an image with a question, an answer and a
// class. Both are a Record. Pixels are either embedded (a generator, an npz) or decoded from the file
// each time they are asked for. The key of a row is its index in the Dataset, never its id: ids of real
// corpora are not unique.
#ifndef JOMED_HOST_DATASET_H
#define JOMED_HOST_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image.h"

// Strings are never NULL inside a Dataset: what is unknown is "".
typedef struct {
    const char *id;       // as in the file, for people
    const char *text;     // caption or report
    const char *question; // of a task
    const char *answer;   // of a task, as written
    int label;            // class 0..C-1, or -1
    uint32_t labels;      // multi-label tasks: bit c is class c
    const char *group;    // patient or study, "" none
    int group_id;         // dataset_link_groups; -1 none
    const char *source;   // corpus or file the row came from
    const char *path;     // image file, "" when the pixels are embedded
    Image image;          // embedded pixels, empty when path is set
    uint64_t image_hash;  // of the file's bytes or of the pixels; 0 not taken yet
} Record;

typedef enum { BAD_IMAGE_FAIL, BAD_IMAGE_SKIP, BAD_IMAGE_BLANK } BadImage;

typedef struct {
    BadImage on_bad_image; // die; say no; hand out a mid-grey square
    double max_bad;        // die when more than this share of the rows had a bad image
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
    int group_count;    // group ids are 0 .. group_count-1
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
// Copies the record, its strings (NULL reads as "") and its pixels; returns its row. Pixels are hashed.
// Of a Record that is empty but for what is known, label = -1 and group_id = -1 must be said.
int dataset_add(Dataset *ds, const Record *record);
Record record_empty(void); // label -1, group_id -1, the rest nothing

// ---- reading one ----
// The picture of row i, by value; the caller frees *out. False when it is bad and the policy is skip;
// bad ones are counted once per row. Rows may be read from several threads at a time.
bool dataset_image(Dataset *ds, int i, Image *out);

#endif
