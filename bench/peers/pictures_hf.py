"""Pillow and the fast CLIP processor of transformers as a peer of bench pictures; started by
bench_pictures.c, never by hand.

stdin, one line each: the number of threads and of pictures; their paths; then "run" for one round.
stdout, per round: the seconds it took and the mean of all pixels. Several threads take a picture
each, which was faster than torch's own threads inside one; neither Pillow nor torch holds the
interpreter's lock while it works.
"""
import sys
import time
from concurrent.futures import ThreadPoolExecutor

try:
    import torch
    import torchvision  # the fast processors want it
    from PIL import Image
    from transformers import CLIPImageProcessor
except ImportError as missing:
    sys.exit(f"no transformers with torchvision: {missing}")

threads, count = (int(x) for x in sys.stdin.readline().split())
paths = [sys.stdin.readline().strip() for _ in range(count)]
torch.set_num_threads(1)
clock = time.thread_time if threads == 1 else time.perf_counter
processor = CLIPImageProcessor()
pool = ThreadPoolExecutor(threads)


def prepare(path):
    return processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]


while sys.stdin.readline():
    start = clock()
    pixels = torch.cat(list(map(prepare, paths) if threads == 1 else pool.map(prepare, paths)))
    seconds = clock() - start
    print(seconds, pixels.double().mean().item(), flush=True)
