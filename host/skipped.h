// skipped: the rows of a corpus that its index leaves out because their pictures are bad.
//
// DIR/skipped.jsonl beside the shards, one line per row: {"row": 6, "id": "p7", "path": "p7.png"},
// row counted from 0 in the whole corpus, ascending. Absent: none. `index build` writes it; whoever
// opens the index drops the same rows from the corpus before anything else looks at it, so that row
// i of the index is passage i again. The corpus hash of the index is that of the rows that stay: a
// lost or changed list is noticed there.
#ifndef JOMED_HOST_SKIPPED_H
#define JOMED_HOST_SKIPPED_H

#include "dataset.h"
#include "kernels/base.h"

// Lists the rows that system_drop_bad will drop; without one, an old list is removed.
Error skipped_save(const char *dir, const Dataset *corpus);
// Marks the rows that DIR's list names as bad. EXIT_BAD_DATA: not such a list, or a row that the
// corpus does not have under that id.
Error skipped_load(const char *dir, Dataset *corpus);
Error skipped_parse(const void *text, size_t size, Dataset *corpus);

#endif
