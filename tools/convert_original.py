#!/usr/bin/env python3
"""What the originals keep as pickles, in formats that need no Python.

    tools/convert_original.py index images=DIR texts=DIR out=DIR [shards=128] [ranks=1]
    tools/convert_original.py checkpoint file=model.pth.tar out=DIR [reader=true]
    tools/convert_original.py weights file=FILE.bin

index: the shards of the original JOMED, embeddings.N.pt and passages.N.pt, of its image index and
of its text index, become corpus.jsonl, images.npy and texts.npy in out. Row i of all three is
passage i, in the order of the original. What follows is `jomed index build data.corpus=...
index.images=... index.texts=...`. shards, ranks: what the original was run with. Its loader passes
over shards that are missing or unreadable; here they are an error, and so are two indexes of
different passages.
checkpoint: the query heads as image_head.safetensors and text_head.safetensors, for
retriever.image_head and retriever.text_head; the frozen towers as towers.safetensors, for
retriever.weights; the merged reader as reader.safetensors, for reader.weights, where reader=true.
weights: a state dict, such as BiomedCLIP's open_clip_pytorch_model.bin or an adapter_model.bin, as
safetensors beside it, under its own names.

Pickles run no code here: torch loads with weights_only, passages are read by an unpickler that
knows no classes. Needs torch, numpy and safetensors.
"""
import argparse
import collections
import json
import math
import os
import pickle
import sys
import warnings

import numpy
import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
BUFFERS = ("rope.freqs_cos", "rope.freqs_sin")  # of jina's image tower; no weights


def fail(text):
    sys.exit("error: " + text)


# ---- pickles ----
class Plain(pickle.Unpickler):
    """Lists, dicts, texts, numbers; nothing that would have to be imported."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"holds a {module}.{name}, and only plain values are read")


def passages_of(path):
    try:
        with open(path, "rb") as file:
            rows = Plain(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError,
            UnicodeDecodeError) as error:
        fail(f"{path}: {error or 'damaged'}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        fail(f"{path}: not a list of passages")
    # NaN, which a column of scores may hold, equals nothing and is no JSON.
    return [{name: None if isinstance(value, float) and not math.isfinite(value) else value
             for name, value in row.items()} for row in rows]


def tensors_of(path):
    # The original's checkpoints also hold its options.
    with torch.serialization.safe_globals([argparse.Namespace, collections.defaultdict, dict]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            fail(f"{path}: holds other things than tensors and plain values, or is damaged")
        except (EOFError, RuntimeError, ValueError) as error:
            fail(f"{path}: {str(error).split('. ')[0] or 'damaged'}")


# ---- index ----
def columns_of(path):
    rows = tensors_of(path)
    if not isinstance(rows, torch.Tensor) or rows.dim() != 2:
        fail(f"{path}: not a matrix")
    if not torch.isfinite(rows).all():
        fail(f"{path}: holds values that are not finite")
    return rows.T.contiguous().numpy()


def read_index(folder, shards, ranks):
    """The rows and the passages of all shards; dies where some must be missing."""
    if not os.path.isdir(folder):
        fail(f"{folder}: no such folder")
    per_rank, rows, passages, sizes = shards // ranks, [], [], []
    for rank in range(ranks):
        size = []
        for shard in range(rank * per_rank, (rank + 1) * per_rank):
            paths = [os.path.join(folder, f"{what}.{shard}.pt")
                     for what in ("embeddings", "passages")]
            there = [os.path.exists(path) for path in paths]
            if not any(there):
                continue
            if not all(there):
                fail(f"{paths[there.index(False)]}: missing, though {paths[there.index(True)]} "
                     "is there")
            if len(size) != shard - rank * per_rank:
                fail(f"{folder}: shard {rank * per_rank + len(size)} is missing, though {shard} "
                     "is there")
            rows.append(columns_of(paths[0]))
            passages += passages_of(paths[1])
            size.append(len(rows[-1]))
            if len(passages) != sum(map(len, rows)):
                fail(f"{paths[1]}: passages for another number than {size[-1]} embeddings")
        # A rank cuts its passages into shards of one size, the last one smaller.
        total = sum(size)
        if any(n != math.ceil(total / per_rank) for n in size[:-1]) or \
                (size and not 0 < size[-1] <= math.ceil(total / per_rank)):
            fail(f"{folder}: the shards of rank {rank} hold {sorted(set(size))} rows, which is no "
                 f"cut into {per_rank}: some are missing, or shards= and ranks= are others")
        sizes.append(total)
    # Passages are dealt to the ranks in turn.
    if sizes != [(sum(sizes) - rank + ranks - 1) // ranks for rank in range(ranks)] or not rows:
        fail(f"{folder}: {sizes} rows on {ranks} ranks: some shards are missing, or shards= and "
             "ranks= are others")
    widths = {row.shape[1] for row in rows}
    if len(widths) != 1:
        fail(f"{folder}: shards of widths {sorted(widths)}")
    return numpy.concatenate(rows), passages


def convert_index(images, texts, out, shards="128", ranks="1"):
    shards, ranks = int(shards), int(ranks)
    if ranks < 1 or shards < 1 or shards % ranks:
        fail(f"ranks={ranks} does not divide shards={shards}")
    image_rows, passages = read_index(images, shards, ranks)
    text_rows, others = read_index(texts, shards, ranks)
    if passages != others:
        where = next((i for i, (a, b) in enumerate(zip(passages, others)) if a != b),
                     min(len(passages), len(others)))
        fail(f"{images} and {texts}: different passages from row {where} on")
    if image_rows.shape != text_rows.shape:
        fail(f"{images} and {texts}: rows of widths {image_rows.shape[1]} and {text_rows.shape[1]}")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "corpus.jsonl"), "w", encoding="utf-8", errors="replace") as file:
        for i, passage in enumerate(passages):
            if not all(isinstance(passage.get(name), str) for name in ("img_path", "text")):
                fail(f"{images}: passage {i} has no img_path or no text")
            file.write(json.dumps(passage, ensure_ascii=False) + "\n")
    numpy.save(os.path.join(out, "images.npy"), image_rows)
    numpy.save(os.path.join(out, "texts.npy"), text_rows)
    print(f"{out}: {len(passages)} passages, rows of {image_rows.shape[1]}, {image_rows.dtype}")


# ---- checkpoints ----
def below(state, prefix):
    return {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}


def is_image(name):
    return name.startswith(("vision_model.", "visual.")) and not name.endswith(BUFFERS)


def write(tensors, path):
    """Tensors that share memory are stored once each."""
    others = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others or not tensors:
        fail(f"{path}: not tensors: {', '.join(others[:5]) or 'nothing there'}")
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path,
              metadata={"format": "pt"})
    print(f"{path}: {len(tensors)} tensors, {sum(v.numel() for v in tensors.values())} values")


def convert_checkpoint(file, out, reader="false"):
    state = tensors_of(file)
    state = state.get("model") if isinstance(state, dict) else None
    if not isinstance(state, dict):
        fail(f"{file}: no checkpoint of the original: member 'model' is missing")
    # Parts that ran on several devices carry one name more.
    state = {name.replace(".module.", ".", 1): value for name, value in state.items()}
    fixed = {name: value for name, value in
             below(state, "passage_encoder_for_train.contriever.model.").items() if is_image(name)}
    towers = below(state, "retriever_text.contriever.model.")
    os.makedirs(out, exist_ok=True)
    found = 0
    for title, prefix in (("image_head", "retriever."), ("text_head", "retriever_for_q_to_text.")):
        head = {name: value for name, value in below(state, prefix + "contriever.model.").items()
                if is_image(name)}
        if head:
            found += 1
            write(head, os.path.join(out, title + ".safetensors"))
            if fixed.keys() == head.keys():
                moved = sum(not torch.equal(head[name], fixed[name]) for name in head)
                print(f"{title}: {moved} tensors differ from the frozen tower's")
    if not found:
        fail(f"{file}: no query head of the original (retriever.contriever.model.*)")
    if towers:
        wrong = [name for name, value in fixed.items() if not torch.equal(towers[name], value)]
        if wrong:
            fail(f"{file}: two frozen image towers that differ in {wrong[0]}")
        write({name: value for name, value in towers.items() if not name.endswith(BUFFERS)},
              os.path.join(out, "towers.safetensors"))
    if reader == "true":
        write(below(state, "reader."), os.path.join(out, "reader.safetensors"))


def convert_weights(file):
    name = os.path.splitext(file)[0].replace("pytorch_model", "model") + ".safetensors"
    state = tensors_of(file)
    if not isinstance(state, dict):
        fail(f"{file}: not a state dict")
    write(state.get("state_dict", state), name)


VERBS = {"index": convert_index, "checkpoint": convert_checkpoint, "weights": convert_weights}


def main():
    try:
        options = dict(argument.split("=", 1) for argument in sys.argv[2:])
        convert = VERBS[sys.argv[1]]
        names = convert.__code__.co_varnames[:convert.__code__.co_argcount]
        needed = names[:len(names) - len(convert.__defaults__ or ())]
        if not set(needed) <= set(options) <= set(names):
            raise ValueError
    except (IndexError, KeyError, ValueError):
        sys.exit(__doc__)
    convert(**options)


if __name__ == "__main__":
    main()
