"""How gpu.py times a peer: as bench.c times ours.

CUDA events around batches of launches, long enough that the two events cost nothing; the problems
of a list in turn; a warm-up first. On a CPU, the wall's clock around single calls.
"""
import time

import torch

BATCH_SECONDS, SAMPLES = 2e-3, 30
LONG_SECONDS, LONG_SAMPLES = 0.25, 15  # a call so long is timed so often, in each of the rounds


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(runs, times, turn, device):
    """Seconds of one call, in a batch of `times` that begins at problem `turn`, and the seconds
    that the host took to launch it: near the first, the peer is bound by its launches.
    """
    sync(device)
    begin = time.perf_counter()
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
    for i in range(times):
        runs[(turn + i) % len(runs)]()
    launched = (time.perf_counter() - begin) / times
    if device != "cuda":
        return launched, launched
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e-3 / times, launched


def measure(runs, device, seconds, warm):
    """Sorted seconds of one call of the problems in turn, and the median of its launch."""
    begin, once, turn = time.perf_counter(), 0, 0
    while True:
        once = seconds_of(runs, 1, turn, device)[0]
        turn += 1
        if time.perf_counter() - begin >= warm:
            break
    is_short = device == "cuda" and once < BATCH_SECONDS
    batch = int(BATCH_SECONDS / (once + 1e-7)) + 1 if is_short else 1
    least = 3 if device == "cpu" else LONG_SAMPLES if once > LONG_SECONDS else SAMPLES
    samples, begin = [], time.perf_counter()
    while len(samples) < least or time.perf_counter() - begin < seconds:
        samples.append(seconds_of(runs, batch, turn, device))
        turn += batch
    return sorted(s[0] for s in samples), sorted(s[1] for s in samples)[len(samples) // 2]
