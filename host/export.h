// export: a checkpoint folder again, with other values in it.
//
// The folder that the weights came from is the pattern: its files, tensor names, types, shapes and
// shards stay, so that whatever opens it opens the copy. Values are put together in f32 and rounded
// once, to the type of the file. Configuration, tokenizer, processor and code are copied, other
// weights are not.
// Towers can also go into the layout of another family that has a place for them (hub_write.h).
// A folder is made beside its place under the name DIR.partial and moved there whole.
#ifndef JOMED_HOST_EXPORT_H
#define JOMED_HOST_EXPORT_H

#include "hub_write.h"
#include "index.h"
#include "models/reader.h"

typedef struct {
    const char *source;  // the folder that is the pattern
    const char *weights; // its weights: a file or an index
    const char *name;    // of the weights in the copy where they are one file; NULL: as there
    const WeightNames *names;
    const TensorList *list; // the values
    const Reader *reader;   // owner of the list, whose adapters are merged; NULL: no adapters
    bool keeps_base; // the list's base came from there: what has no adapter is copied as it is
} ExportFolder;
// dir must not exist or be empty (EXIT_NO_OUTPUT). EXIT_BAD_DATA: the list does not fit the folder.
Error export_folder(const char *dir, const ExportFolder *what);
// Towers in the layout of the family, values in type t. source: the folder whose other files
// (tokenizer, licence) come along, or NULL. dir as above; EXIT_BAD_DATA: no place for these towers.
Error export_towers(const char *dir, HubFamily family, const Retriever *from, DType t,
                    const ProcessorConfig *processor, const char *source);
// The type in which a list holds the values of the file, index or folder unrounded: the one type of
// its tensors, else f32.
Error export_type(DType *out, const char *weights);

// Opens dir for writing in its stead: *partial is the folder to fill, to be freed by the end.
Error export_begin(char **partial, const char *dir);
// Moves the folder to dir, or removes it if there was an error, which is returned.
Error export_end(char *partial, const char *dir, Error error);

// One side as faiss's IndexFlatIP over f32 rows, or with ids (count), IndexIDMap2 of it.
Error export_index(const Index *index, IndexSide side, const char *path, const int64_t *ids);

#endif
