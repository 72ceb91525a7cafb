#!/usr/bin/env python3
"""Holds host/faiss against faiss itself, in both directions. Not needed by the tests.

  check_faiss.py write     makes tests/data/{flat_ip,idmap2}.faiss (tests/test_faiss.c reads them)
  check_faiss.py read F    opens a file of ours; prints kind, size, first values and ids; a search
                           of its first row must find the row of the largest product
"""
import sys

import faiss
import numpy as np


def write():
    rows = (np.arange(35, dtype=np.float32) / 4 - 3).reshape(5, 7)
    flat = faiss.IndexFlatIP(7)
    flat.add(rows)
    faiss.write_index(flat, "tests/data/flat_ip.faiss")
    ids = faiss.IndexIDMap2(faiss.IndexFlatIP(7))
    ids.add_with_ids(rows, 10**12 - np.arange(5, dtype=np.int64))
    faiss.write_index(ids, "tests/data/idmap2.faiss")


def read(path):
    index = faiss.read_index(path)
    ids, flat = np.arange(index.ntotal), index
    if hasattr(index, "id_map"):
        ids, flat = faiss.vector_to_array(index.id_map), faiss.downcast_index(index.index)
    rows = flat.reconstruct_n(0, flat.ntotal)
    print(type(index).__name__, index.d, index.ntotal, index.metric_type, rows[:1].tolist(),
          ids[:5].tolist())
    _, found = index.search(rows[:1], 1)
    assert found[0, 0] == ids[np.argmax(rows @ rows[0])]


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    elif len(sys.argv) == 3 and sys.argv[1] == "read":
        read(sys.argv[2])
    else:
        sys.exit(__doc__)
