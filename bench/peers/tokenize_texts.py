"""Hugging Face's tokenizers and tiktoken as peers of bench tokenizer; started by bench_tokenizer.c,
never by hand.

stdin: a line "kind folder captions threads", then a line per run. stdout: a line "ready", then per
run a line with the seconds it took, the number of ids and the sum of ids times their places modulo
2^32, from 1. The work is one thread's; `threads` only says which clock the bench uses.
"""
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, "tools")
try:
    import tokenizer_oracles as oracles
except ImportError as missing:
    sys.exit(f"no {missing.name}: {missing}")

kind, folder, captions, threads = sys.stdin.readline().split()
maker = {"wordpiece": oracles.bert, "clip": oracles.clip, "qwen2": oracles.qwen2,
         "tekken": lambda place: oracles.tekken_json(place, oracles.TEKKEN),
         "tiktoken": oracles.Ranks}[kind]
tokenizer = maker(pathlib.Path(folder))
with open(captions, encoding="utf-8") as file:
    texts = [json.loads(line)["caption"] for line in file]
clock = time.thread_time if threads == "1" else time.perf_counter
print("ready", flush=True)
for line in sys.stdin:
    start = clock()
    lists = tokenizer.encode_all(texts)
    seconds = clock() - start
    ids = [i for one in lists for i in one]
    print(seconds, len(ids), sum(place * i for place, i in enumerate(ids, 1)) % 2**32, flush=True)
