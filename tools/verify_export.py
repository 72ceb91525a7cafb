#!/usr/bin/env python3
"""What this program writes, opened by the libraries it is meant for.

    tools/verify_export.py [test=build/bin/test] [jomed=build/bin/jomed] [cells=FILE]

Adapters: the test lora_steps writes tiny readers, an adapter trained on each, and its own logits;
PEFT opens the adapter on transformers' model of the same files, whose logits must agree, as they
are and merged, by PEFT and by `jomed export`, whose folder transformers opens. Runs under
transformers 4.45.0 with peft 0.12.0 as well as under recent ones, whichever is installed; what
follows runs under recent ones alone.
Towers and query heads: tiny random models of transformers and of open_clip, other random weights
exported into their folders; the library that wrote the folder opens the result, whose tensors must
be those weights, to the bit. Layouts: the CLIP of either library exported as the other's, which
opens it and must make the same of pictures and texts; exported back, its tensors are the first
ones to the bit. Index: faiss opens what the test export_index wrote.
cells: lines for the table of tests/README.md are appended there. Exit code 1 where one differs.
"""
import json
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.dont_write_bytecode = True

import numpy
import peft
import torch
import transformers
from safetensors.numpy import load_file
from safetensors.torch import save_file

import tiny_reader

if not tiny_reader.IS_OLD:
    import faiss
    import open_clip

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
BOUND = 1e-5  # of the largest logit; both sides are in f32, where errors are near 1e-6


def logits(family, model):
    rows = []
    for prompt in tiny_reader.PROMPTS:
        batch = family.collate([prompt], tiny_reader.pixels())
        length = len(family.ids(family.texts(prompt)[0]))
        batch.pop("labels")
        with torch.no_grad():
            rows.append(model(use_cache=False, **batch).logits[0, length - 1])
    return torch.stack(rows).numpy()


def compare(what, got, want):
    off = numpy.abs(got - want).max() / numpy.abs(want).max()
    print(f"{what}: {off:.2g} of the largest logit{'' if off <= BOUND else ' DIFFERS'}")
    return off <= BOUND


def export(jomed, out, *keys):
    """Runs jomed export; the folder it made."""
    subprocess.run([jomed, "export", "log.level=warn", f"export.dir={out}", *keys], check=True)
    return out


def verify_adapter(family, where, jomed):
    """True when PEFT's model says what ours said, and says otherwise without the adapter."""
    want = load_file(os.path.join(where, "logits.safetensors"))["logits"]
    made = family.model()
    made.config.save_pretrained(where)
    base = type(made).from_pretrained(where, torch_dtype=torch.float32,
                                      attn_implementation="eager").eval()
    plain = logits(family, base)
    model = peft.PeftModel.from_pretrained(base, os.path.join(where, "adapter")).eval()
    stored = load_file(os.path.join(where, "adapter", "adapter_model.safetensors"))
    ours = {family.rename(n) for n, _ in model.named_parameters() if "lora" in n}
    fits = ours <= {family.rename(n) for n in stored} and len(stored) == 2 * len(ours)
    title = f"{family.name}, peft {peft.__version__}"
    print(f"{title}: {len(ours)} adapter tensors, {len(stored)} in the file"
          + ("" if fits else " DIFFERS"))
    fits &= compare(title, logits(family, model), want)
    fits &= compare(title + ", merged", logits(family, model.merge_and_unload()), want)
    merged = export(jomed, os.path.join(where, "out"), f"reader.model={where}",
                    f"reader.adapter={where}/adapter")
    opened = type(made).from_pretrained(merged, torch_dtype=torch.float32,
                                        attn_implementation="eager").eval()
    fits &= compare(f"{family.name}, export read by transformers {transformers.__version__}",
                    logits(family, opened), want)
    has_effect = numpy.abs(plain - want).max() > 0.01 * numpy.abs(want).max()
    return fits and has_effect


# ---- towers ----
def clip_form():
    tower = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    return transformers.CLIPConfig(projection_dim=8, vision_config=dict(tower, image_size=16,
                                   patch_size=8), text_config=dict(tower, vocab_size=99,
                                                                   eos_token_id=2))


def clip_of(where):
    if where is None:
        return transformers.CLIPModel(clip_form())
    return transformers.CLIPModel.from_pretrained(where)


def write_clip(model, where):
    model.save_pretrained(where)


OPEN_CLIP = {"embed_dim": 8, "quick_gelu": True,
             "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8,
                            "head_width": 8},
             "text_cfg": {"context_length": 7, "vocab_size": 99, "width": 16, "heads": 2,
                          "layers": 2}}


def open_clip_of(where):
    if where is None:
        return open_clip.model.CLIP(**OPEN_CLIP)
    return open_clip.create_model(f"local-dir:{where}")


def write_open_clip(model, where):
    os.makedirs(where)
    with open(os.path.join(where, "open_clip_config.json"), "w") as file:
        json.dump({"model_cfg": OPEN_CLIP, "preprocess_cfg": {}}, file)
    write_tensors(model.state_dict(), os.path.join(where, "open_clip_model.safetensors"))


def write_tensors(tensors, path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path,
              metadata={"format": "pt"})


def verify_towers(title, make, write, is_image, where, jomed):
    """True when the library opens both exports and finds the new tensors, all or the image's."""
    torch.manual_seed(1)
    base, new = make(None), make(None)
    folder = os.path.join(where, "base")
    write(base, folder)
    tensors = new.state_dict()
    head = {name: tensor for name, tensor in tensors.items() if is_image(name)}
    write_tensors(tensors, os.path.join(where, "new.safetensors"))
    write_tensors(head, os.path.join(where, "head.safetensors"))
    fits = 0 < len(head) < len(tensors)
    for what, key, names in (("retriever", "weights=new", set(tensors)),
                             ("text-head", "text_head=head", set(head))):
        out = export(jomed, os.path.join(where, what), f"export.what={what}",
                     f"retriever.model={folder}", f"retriever.{key.replace('=', '=' + where + '/')}"
                     ".safetensors")
        opened, old = make(out).state_dict(), base.state_dict()
        wrong = [name for name in tensors
                 if not torch.equal(opened[name], (tensors if name in names else old)[name])]
        print(f"{title}, {what}: {len(tensors)} tensors, {len(wrong)} wrong"
              + (" DIFFERS" if wrong else ""))
        fits &= not wrong
    return fits


# ---- layouts ----
def outputs(model):
    """What the towers of either library make of two pictures and two texts, which end in id 98."""
    torch.manual_seed(3)
    pixels = torch.randn(2, 3, 16, 16)
    ids = torch.tensor([[5, 7, 98, 0, 0, 0, 0], [6, 9, 3, 2, 11, 4, 98]])
    model.eval()
    with torch.no_grad():
        if isinstance(model, open_clip.model.CLIP):
            rows = model.encode_image(pixels), model.encode_text(ids)
        else:
            rows = (model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
                    model.text_projection(model.text_model(input_ids=ids).pooler_output))
    return torch.cat(rows).numpy()


def clip_to_open_clip(act):
    """transformers' CLIP of the sizes that OPEN_CLIP has, but for the MLPs'."""
    tower = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                 hidden_act=act)
    return transformers.CLIPModel(transformers.CLIPConfig(
        projection_dim=8, vision_config=dict(tower, image_size=16, patch_size=8),
        text_config=dict(tower, vocab_size=99, max_position_embeddings=7, eos_token_id=2)))


def draw(model):
    """Values of every tensor, norms and biases too, which are 1 and 0 otherwise."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def verify_layouts(title, model, write, make, make_other, layouts, where, jomed):
    """True when the other library says what the first one said and the way back changes nothing."""
    folder, there, back = (os.path.join(where, name) for name in ("base", *layouts))
    os.makedirs(where, exist_ok=True)
    write(model, folder)
    if layouts[0] == "open_clip":
        transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={
            "height": 16, "width": 16}).save_pretrained(folder)
    export(jomed, there, "export.what=retriever", f"export.layout={layouts[0]}",
           f"retriever.model={folder}")
    export(jomed, back, "export.what=retriever", f"export.layout={layouts[1]}",
           f"retriever.model={there}")
    fits = compare(f"{title} as {layouts[0]}", outputs(make_other(there)), outputs(model))
    first, last = model.state_dict(), make(back).state_dict()
    wrong = [name for name in first if not torch.equal(first[name], last[name])]
    print(f"{title} as {layouts[0]} and back: {len(first)} tensors, {len(wrong)} wrong"
          + (" DIFFERS" if wrong else ""))
    return fits and not wrong


# ---- index ----
def verify_index(world):
    """True when faiss finds the rows of the shards, which are f16 behind 64 bytes of header."""
    good = True
    for side in ("image", "text"):
        index = faiss.read_index(os.path.join(world, "out", f"{side}.faiss"))
        with open(os.path.join(world, "index", f"{side}.00000.shard"), "rb") as file:
            rows = numpy.frombuffer(file.read()[64:], numpy.float16).reshape(index.ntotal, -1)
        same = (index.metric_type == faiss.METRIC_INNER_PRODUCT and index.ntotal > 10
                and numpy.array_equal(index.reconstruct_n(0, index.ntotal),
                                      rows.astype(numpy.float32)))
        print(f"faiss {faiss.__version__}, {side}: {index.ntotal} rows"
              + ("" if same else " DIFFERS"))
        good &= same
    return good


def main():
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    test, jomed = (os.path.abspath(options.get(name, os.path.join(ROOT, "build", "bin", name)))
                   for name in ("test", "jomed"))
    with tempfile.TemporaryDirectory() as where:
        for cases in ("lora_steps", "export_index"):
            subprocess.run([test, cases, f"keep={where}"], check=True, cwd=ROOT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        era = "old" if tiny_reader.IS_OLD else "new"
        good = {name: verify_adapter(tiny_reader.Family(name), os.path.join(
            where, "lora_steps", f"lora_steps_{name}_{era}"), jomed)
            for name in tiny_reader.SPECIALS}
        if not tiny_reader.IS_OLD:
            good["clip"] = verify_towers(
                f"CLIP, transformers {transformers.__version__}", clip_of, write_clip,
                lambda name: name.startswith("vis"), os.path.join(where, "clip"), jomed)
            good["open_clip"] = verify_towers(
                f"CLIP, open_clip {open_clip.__version__}", open_clip_of, write_open_clip,
                lambda name: name.startswith("visual."), os.path.join(where, "open_clip"), jomed)
            for act in ("quick_gelu", "gelu"):
                good["clip as open_clip, " + act] = verify_layouts(
                    "CLIP of transformers, " + act, draw(clip_to_open_clip(act)), write_clip,
                    clip_of, open_clip_of, ("open_clip", "clip"),
                    os.path.join(where, "clip_" + act), jomed)
            good["open_clip as clip"] = verify_layouts(
                "CLIP of open_clip", draw(open_clip_of(None)), write_open_clip, open_clip_of,
                clip_of, ("clip", "open_clip"), os.path.join(where, "open_clip_layout"), jomed)
            good["index"] = verify_index(os.path.join(where, "export_index", "world"))
    if "cells" in options:
        cell = dict(qwen2vl="Qwen2-VL|export|adapter in PEFT " + peft.__version__,
                    pixtral="Pixtral|export|adapter in PEFT " + peft.__version__)
        with open(options["cells"], "a") as cells:
            for name, text in cell.items():
                cells.write(text + ("" if good[name] else " DIFFERS") + "\n")
    sys.exit(0 if all(good.values()) else 1)


if __name__ == "__main__":
    main()
