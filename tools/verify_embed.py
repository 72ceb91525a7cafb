# Pictures and texts to embeddings, ours beside the originals' whole pipelines: tokenizer, processor
# and towers. Makes folders as the libraries write them, with tiny random towers, runs `jomed embed`
# on them, and compares with sentence-transformers' form of BERT, transformers' CLIP and open_clip.
#
#   python tools/verify_embed.py [jomed=build/bin/jomed] [data=../shared/data] [cells=FILE]
#
# Bound: twice the error of the original's f32 run against its f64 run, plus 1e-7 of the largest
# value. Pictures are resized by Pillow, as the originals' slow processors do. cells: lines for
# tools/test_oracle.sh. Exit code 1: beyond the bound. Needs the test data.
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import open_clip
import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file

import tokenizer_oracles

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
JOMED = pathlib.Path(options.get("jomed", "build/bin/jomed")).resolve()
DATA = pathlib.Path(options.get("data", "../shared/data")).resolve()
PICTURES = DATA / "medical/vqa-rad/images"
TEXTS = ["Chest X-ray shows no effusion.", "MRI of the brain, T2-weighted (axial)",
         "12.5 mm nodule;  right   upper lobe", "A &lt;b&gt;bold&lt;/b&gt; finding &amp; more",
         "long " * 300, "pneumothorax", "?", "CT angiogram 2019-05-01, PE excluded"]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def unit(rows):
    return torch.nn.functional.normalize(rows)


def embed(folder, names):
    """Runs jomed; rows of texts, and of pictures where there are names."""
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    (folder / "images.jsonl").write_text(
        "\n".join(json.dumps({"id": n, "img_path": n, "text": "x"}) for n in names))
    command = [JOMED, "embed", f"retriever.model={folder}", f"embed.dir={folder / 'out'}",
               f"embed.texts={folder / 'texts.jsonl'}", "log.level=warn"]
    if names:
        command += [f"embed.images={folder / 'images.jsonl'}", f"data.root={PICTURES}"]
    subprocess.run(command, check=True)
    kinds = ("texts", "images") if names else ("texts",)
    return [numpy.load(folder / "out" / f"{kind}.npy") for kind in kinds]


def ratio(ours, model, run):
    """Our error over the bound. run(model) gives the rows of the original."""
    with torch.no_grad():
        single = run(model).numpy()
        truth = run(model.double()).numpy()
        model.float()
    bound = 2 * numpy.abs(single - truth).max() + 1e-7 * numpy.abs(truth).max()
    return numpy.abs(ours - truth).max() / bound


def bert(folder):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(
        vocab_size=30522, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128)).eval()
    model.save_pretrained(folder)
    shutil.copy(DATA / "tokenizers/bert-base-uncased/vocab.txt", folder)
    inputs = transformers.BertTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")

    def run(original):
        hidden = original(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].to(hidden.dtype)
        return unit((hidden * mask).sum(1) / mask.sum(1))
    texts, = embed(folder, [])
    yield "all-MiniLM-L6-v2 (BERT)", "texts", ratio(texts, model, run)


def resized(name, S):
    """Shortest side to S, the middle from the floor, as transformers' slow CLIP processor."""
    picture = Image.open(PICTURES / name).convert("RGB")
    w, h = picture.size
    size = (S, int(S * h / w)) if w <= h else (int(S * w / h), S)
    picture = picture.resize(size, Image.BICUBIC)
    x, y = (size[0] - S) // 2, (size[1] - S) // 2
    pixels = numpy.asarray(picture.crop((x, y, x + S, y + S)))
    pixels = (pixels * (1 / 255)).astype(numpy.float32)
    pixels = (pixels - numpy.float32(MEAN)) / numpy.float32(STD)
    return torch.from_numpy(pixels.transpose(2, 0, 1))


def clip(folder, names):
    torch.manual_seed(1)
    tower = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    model = transformers.CLIPModel(transformers.CLIPConfig(
        projection_dim=32, vision_config=dict(tower, image_size=48, patch_size=8),
        text_config=dict(tower, vocab_size=49408, eos_token_id=2))).eval()
    model.save_pretrained(folder)
    tokenizer = tokenizer_oracles.clip(DATA / "tokenizers/clip-bpe").tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    transformers.CLIPImageProcessor(size={"shortest_edge": 48},
                                    crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    tokenizer.enable_truncation(77)
    lists = [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]
    longest = max(map(len, lists))
    ids = torch.tensor([one + [49407] * (longest - len(one)) for one in lists])
    pixels = torch.stack([resized(name, 48) for name in names])
    texts, images = embed(folder, names)
    yield "CLIP (transformers)", "texts", ratio(texts, model, lambda m: unit(m.text_projection(
        m.text_model(input_ids=ids).pooler_output)))
    yield "CLIP (transformers)", "pictures", ratio(images, model, lambda m: unit(
        m.visual_projection(m.vision_model(
            pixel_values=pixels.to(m.visual_projection.weight.dtype)).pooler_output)))


def of_open_clip(folder, names):
    torch.manual_seed(2)
    form = {"embed_dim": 32, "quick_gelu": True,
            "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 8,
                           "head_width": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4,
                         "layers": 2}}
    model = open_clip.model.CLIP(**form).eval()
    save_file({n: t.contiguous() for n, t in model.state_dict().items()},
              folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_config.json").write_text(json.dumps(
        {"model_cfg": form, "preprocess_cfg": {"mean": MEAN, "std": STD}}))
    shutil.copy(DATA / "tokenizers/clip-bpe/bpe_simple_vocab_16e6.txt.gz", folder)
    prepare = image_transform(48, is_train=False, mean=MEAN, std=STD)
    pixels = torch.stack([prepare(Image.open(PICTURES / name)) for name in names])
    ids = SimpleTokenizer()(TEXTS)
    texts, images = embed(folder, names)
    yield "CLIP (open_clip)", "texts", ratio(texts, model, lambda m: unit(m.encode_text(ids)))
    yield "CLIP (open_clip)", "pictures", ratio(images, model, lambda m: unit(
        m.encode_image(pixels.to(m.visual.proj.dtype))))


def main():
    torch.set_num_threads(1)
    names = sorted(path.name for path in PICTURES.iterdir())[:24]
    failed, cells = False, []
    for make in (bert, lambda f: clip(f, names), lambda f: of_open_clip(f, names)):
        with tempfile.TemporaryDirectory() as folder:
            for family, kind, result in make(pathlib.Path(folder)):
                print(f"pipeline {family}, {kind}: error {result:.2f} of the bound", flush=True)
                failed = failed or not result <= 1
                if kind == "pictures":
                    cells.append(f"{family}|processor|{len(names)} pictures embedded, {result:.2f}")
    if "cells" in options:
        with open(options["cells"], "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in cells)
    sys.exit(1 if failed else 0)


main()
