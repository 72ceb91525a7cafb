"""faiss IndexFlatIP as a peer of bench topk; started by bench_topk.c, never by hand.

stdin: five int32 (Q, M, E, K, threads), queries (Q,E) f32, rows (M,E) f32; then one byte per
search.
stdout: one byte when ready; then, per search, ids (Q,K) int32 and the seconds it took as f64.
"""
import struct
import sys
import time

try:
    import faiss
    import numpy as np
except ImportError as missing:
    sys.exit(f"no faiss: {missing}")

inp, out = sys.stdin.buffer, sys.stdout.buffer


def read(count, kind):
    """count elements from stdin; a short read means that the bench has gone."""
    data = inp.read(count * np.dtype(kind).itemsize)
    if len(data) != count * np.dtype(kind).itemsize:
        sys.exit(0)
    return np.frombuffer(data, kind)


Q, M, E, K, threads = (int(x) for x in read(5, "int32"))
faiss.omp_set_num_threads(threads)
clock = time.thread_time if threads == 1 else time.perf_counter
queries = read(Q * E, "float32").reshape(Q, E)
index = faiss.IndexFlatIP(E)
for begin in range(0, M, 10000):  # in pieces, so that the rows are not held twice
    count = min(10000, M - begin)
    index.add(read(count * E, "float32").reshape(count, E))
out.write(b"r")
out.flush()
while inp.read(1):
    start = clock()
    _, ids = index.search(queries, K)
    seconds = clock() - start
    out.write(ids.astype("int32").tobytes() + struct.pack("d", seconds))
    out.flush()
