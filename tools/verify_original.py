#!/usr/bin/env python3
"""What tools/convert_original.py makes of the original's files, held against torch.

    tools/verify_original.py [jomed=build/bin/jomed]

Makes what a run of the original leaves, small: open_clip's own towers as a pickled state dict, an
image index and a text index in shards of several ranks, and a checkpoint with two query heads.
Converts all, builds and searches the index, and compares ids and scores with the original's search
(both sides round queries to f16; two roundings move a score of unit vectors by 2^-10 at most).
Then damages the files in turn: each time the converter must say which. Exit code 1 where something
differs. Needs torch, open_clip, safetensors, pillow.
"""
import argparse
import copy
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile

import numpy
import open_clip
import torch
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
N, QUERIES, K, SHARDS, RANKS, SHARE = 23, 5, 4, 8, 2, 0.15
S, MEAN, STD = 16, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FORM = {"embed_dim": 8, "quick_gelu": True,
        "vision_cfg": {"image_size": S, "layers": 2, "width": 16, "patch_size": 8,
                       "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2,
                     "layers": 2}}


# ---- what the original leaves ----
class Holder(torch.nn.Module):
    """A module under the names that the original's wrappers give it."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def wrapped(model):
    return Holder(contriever=Holder(model=copy.deepcopy(model)))


def drawn(like, seed):
    """The same towers with an image tower of its own."""
    torch.manual_seed(seed)
    head, other = copy.deepcopy(like), open_clip.model.CLIP(**FORM).eval()
    head.visual.load_state_dict(other.visual.state_dict())
    return head


def write_index(folder, rows, passages):
    """rows (N, E) f16, passages dealt to the ranks in turn, each rank's in shards of one size."""
    os.makedirs(folder)
    order = []
    for rank in range(RANKS):
        mine = list(range(rank, N, RANKS))
        order += mine
        size = math.ceil(len(mine) / (SHARDS // RANKS))
        for k in range(0, len(mine), size):
            part, shard = mine[k:k + size], k // size + rank * (SHARDS // RANKS)
            torch.save(rows[part].T.clone(), os.path.join(folder, f"embeddings.{shard}.pt"))
            with open(os.path.join(folder, f"passages.{shard}.pt"), "wb") as file:
                pickle.dump([passages[i] for i in part], file, protocol=pickle.HIGHEST_PROTOCOL)
    return order


def write_picture(folder, name, seed):
    values = numpy.random.default_rng(seed).integers(0, 256, (S, S, 3), numpy.uint8)
    Image.fromarray(values).save(os.path.join(folder, name))
    pixels = (values.astype(numpy.float32) / 255 - numpy.float32(MEAN)) / numpy.float32(STD)
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(numpy.float32))


def unit(rows):
    return rows / torch.linalg.norm(rows, dim=-1, keepdim=True)


def write_world(where):
    """The folders; (f16 rows by side, queries by side), in the order of the original's index."""
    torch.manual_seed(0)
    base = open_clip.model.CLIP(**FORM).eval()
    heads = {"image": drawn(base, 1), "text": drawn(base, 2)}
    towers = os.path.join(where, "towers")
    os.makedirs(towers)
    torch.save(base.state_dict(), os.path.join(towers, "open_clip_pytorch_model.bin"))
    with open(os.path.join(towers, "open_clip_config.json"), "w") as file:
        json.dump({"model_cfg": FORM, "preprocess_cfg": {"mean": MEAN, "std": STD}}, file)
    shutil.copy(os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz"),
                towers)
    passages = [{"id": i, "img_path": f"p{i}.png", "text": f"caption numbér {i}",
                 "score": i / 7 if i else math.nan, "dataset_source": "roco"} for i in range(N)]
    with torch.no_grad():
        pictures = torch.stack([write_picture(where, f"p{i}.png", i) for i in range(N)])
        ids = open_clip.tokenizer.SimpleTokenizer()([p["text"] for p in passages])
        rows = {"image": unit(base.encode_image(pictures)).half(),
                "text": unit(base.encode_text(ids)).half()}
        asked = torch.stack([write_picture(where, f"q{i}.png", 100 + i) for i in range(QUERIES)])
        fixed = unit(base.encode_image(asked))
        queries = {side: SHARE * unit(head.encode_image(asked)) + (1 - SHARE) * fixed
                   for side, head in heads.items()}
    order = [write_index(os.path.join(where, side), rows[side], passages) for side in rows][0]
    with open(os.path.join(where, "task.jsonl"), "w") as file:
        for i in range(QUERIES):
            file.write(json.dumps({"id": f"q{i}", "image_path": f"q{i}.png", "answers": "no",
                                   "split": "test"}) + "\n")
    model = Holder(retriever=wrapped(heads["image"]),
                   retriever_for_q_to_text=wrapped(heads["text"]), retriever_text=wrapped(base),
                   passage_encoder_for_train=wrapped(base),
                   base_retriever=wrapped(heads["text"]), reader=torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(heads["text"].visual.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    torch.save({"step": 49600, "model": model.state_dict(), "optimizer": None,
                "retr_optimizer": optimizer.state_dict(), "scheduler": None,
                "retr_scheduler": schedule.state_dict(),
                "opt": argparse.Namespace(name="run", device=torch.device("cpu"), n_context=50)},
               os.path.join(where, "model.pth.tar"))
    return {side: rows[side][order] for side in rows}, queries


# ---- ours ----
def convert(where, *arguments):
    command = [sys.executable, os.path.join(ROOT, "tools", "convert_original.py"), *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True)


INDEX = ("index", "images=image", "texts=text", "out=converted", f"shards={SHARDS}",
         f"ranks={RANKS}")
DATA = ("retriever.model=towers", "data.corpus=converted/corpus.jsonl", "data.task=task.jsonl",
        "index.dir=index", "classes=[no, yes]", "log.level=info")


def run(jomed, where, *arguments):
    done = subprocess.run([jomed, *arguments], cwd=where, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done


def verify_search(output, side, rows, queries):
    """True when the places of one side are those of the original's search."""
    scores = torch.matmul(queries.half().float(), rows.float().T)
    best = scores.sort(dim=1, descending=True).values[:, :K]
    lines = [line.split("\t") for line in output.splitlines()]
    found = [line for line in lines if line[1] == side]
    off = 0.0
    for query, _, rank, row, score, *_ in found:
        q = int(query[1:])
        off = max(off, abs(float(score) - scores[q, int(row)].item()),
                  abs(float(score) - best[q, int(rank)].item()))
    fits = len(found) == QUERIES * K and off <= 2 ** -10
    print(f"search of the {side} index, {len(found)} places: scores off by {off:.1e}"
          + ("" if fits else " DIFFERS"))
    return fits


def verify_world(where, jomed):
    rows, queries = write_world(where)
    for arguments in (INDEX, ("weights", "file=towers/open_clip_pytorch_model.bin"),
                      ("checkpoint", "file=model.pth.tar", "out=converted", "reader=true")):
        done = convert(where, *arguments)
        print(done.stdout + done.stderr, end="")
        if done.returncode:
            return False
    os.rename(os.path.join(where, "towers", "open_clip_model.safetensors"),
              os.path.join(where, "published.safetensors"))
    shutil.copy(os.path.join(where, "converted", "towers.safetensors"),
                os.path.join(where, "towers", "open_clip_model.safetensors"))
    built = run(jomed, where, "index", "build", *DATA, "index.images=converted/images.npy",
                "index.texts=converted/texts.npy")
    cosines = [line.split()[-1] for line in built.stderr.splitlines() if "lowest cosine" in line]
    print("lowest cosines of our rows and the original's:", *cosines)
    run(jomed, where, "index", "verify", "index.dir=index")
    found = run(jomed, where, "index", "search", *DATA, f"evaluate.k={K}",
                "retriever.weights=published.safetensors",
                "retriever.text_head=converted/text_head.safetensors",
                "retriever.image_head=converted/image_head.safetensors",
                f"retriever.share={SHARE}").stdout
    return len(cosines) == 2 and all(float(c) > 0.9999 for c in cosines) and \
        all([verify_search(found, side, rows[side], queries[side]) for side in rows])


# ---- damage ----
class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)


def pickled(value):
    def put(path):
        with open(path, "wb") as file:
            pickle.dump(value, file)
    return put


def verify_damage(where):
    """True when every damage is refused by the name of the file or of what is wrong, harmlessly."""
    def bigger(path):
        torch.save(torch.zeros(8, 2), path)
    cases = (("image/embeddings.1.pt", os.remove, "image/embeddings.1.pt: missing"),
             ("image/passages.0.pt", os.remove, "image/passages.0.pt: missing"),
             ("image/embeddings.1.pt", cut, "image/embeddings.1.pt"),
             ("text/passages.5.pt", cut, "text/passages.5.pt"),
             ("text/passages.5.pt", pickled([Harmful()]), "only plain values"),
             ("text/passages.5.pt", pickled({"a": 1}), "not a list"),
             ("text/embeddings.5.pt", pickled(Harmful()),
              "text/embeddings.5.pt: holds other things"),
             ("text/passages.0.pt", pickled([{"id": 7}] * 3), "different passages from row 0 on"),
             ("text/embeddings.0.pt", bigger, "another number than 2"))
    good = True
    shutil.copytree(where, where + "/kept", ignore=lambda folder, names: [
        name for name in names if folder == where and name not in ("image", "text")])
    for path, harm, says in cases:
        harm(os.path.join(where, path))
        done = convert(where, *INDEX)
        fits = done.returncode == 1 and says in done.stderr and done.stderr.startswith("error: ")
        print(f"{harm.__name__} {path}: {done.stderr.strip()}" + ("" if fits else " DIFFERS"))
        good &= fits
        shutil.copytree(where + "/kept", where, dirs_exist_ok=True)
    for shard in (3, 7):  # the last of each rank, on both sides: only the sizes can tell
        for side in ("image", "text"):
            for what in ("embeddings", "passages"):
                os.remove(os.path.join(where, side, f"{what}.{shard}.pt"))
        done = convert(where, *INDEX)
        fits = done.returncode == 1 and "are others" in done.stderr
        print(f"without shard {shard}: {done.stderr.strip()}" + ("" if fits else " DIFFERS"))
        good &= fits
        shutil.copytree(where + "/kept", where, dirs_exist_ok=True)
    return good and not os.path.exists(os.path.join(where, "harmed"))


def main():
    torch.set_num_threads(1)
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    jomed = os.path.abspath(options.get("jomed", os.path.join(ROOT, "build", "bin", "jomed")))
    with tempfile.TemporaryDirectory() as where:
        good = verify_world(where, jomed)
        good = verify_damage(where) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
