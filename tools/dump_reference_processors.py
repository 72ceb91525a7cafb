"""Writes what image processors make of pictures, for tests/test_processor_reference.c.

    dump_reference_processors.py DATA slow [--out DIR]    # tests/data/processors_slow.txt
    dump_reference_processors.py DATA fast [--out DIR]    # tests/data/processors_fast.npz

DATA is the folder of test data, DIR another place for what is written. "slow" wants transformers
4.48.3 (its PIL processors), open_clip_torch 3, torchvision, and a Pillow before 13: Pillow 13
chooses which pass of a resize comes first by the sizes, all before take the horizontal one, as this
project does. "fast" wants transformers 5 with torchvision, whose processors resize tensors. The
committed files were made with torchvision 0.29.2, torch 2.15.0 and

    slow: transformers 4.48.3, open_clip_torch 3.3.0, Pillow 11.1.0
    fast: transformers 5.23.0, Pillow 13.0.0

Pictures are files, or generated from a formula that the test shares. slow: per processor its
configuration as the library writes it, then lines "processor picture width height crc32-of-u8
crc32-of-f32", both of the result as (H,W,3) u8 and (3,H,W) f32, or "error". fast: a few rows of the
u8 result, and what becomes of the 256 levels. 16-bit grey is left out: Pillow clips it to 255, this
project keeps the high byte.
"""
import io
import json
import math
import os
import sys
import warnings
import zlib

import numpy as np
import torch
from PIL import Image
import dump_reference_images
from dump_reference_images import MODES, noise, write

torch.set_num_threads(1)
warnings.simplefilter("ignore")

FILES = ["pngsuite/png/basn3p08", "pngsuite/png/basn3p01", "pngsuite/png/tbbn3p08",
         "pngsuite/png/tp1n3p08", "pngsuite/png/tbrn2c08", "pngsuite/png/basi0g01",
         "pngsuite/png/basn0g02", "pngsuite/png/basn4a08", "pngsuite/png/basn6a08",
         "pngsuite/png/basn4a16", "pngsuite/png/bgan6a16", "pngsuite/png/basn2c16",
         "pngsuite/png/tbbn0g04", "jpeg/pillow/pil_sample_cmyk", "jpeg/pillow/hopper_orientation_5",
         "jpeg/pillow/hopper_gray"]
# channels, width, height: plain, crop rounding, one pixel, thin, the limit of ratios, small, ready,
# large
SIZES = [(3, 401, 300), (3, 300, 401), (1, 1, 1), (3, 1, 7), (3, 600, 30), (2, 30, 600),
         (3, 6000, 30), (1, 6001, 30), (4, 100, 37), (4, 224, 224), (3, 28, 28), (3, 392, 322),
         (3, 1500, 1009), (1, 517, 1033)]
FEW_SIZES = [(3, 401, 300), (3, 300, 401), (3, 64, 48), (4, 100, 87), (1, 517, 333), (3, 1, 3)]
FEW_FILES = ["pngsuite/png/basn3p08", "pngsuite/png/basn6a08", "pngsuite/png/tbbn3p08"]
ROWS = 3  # kept of a result: the first, the middle, the last


def generated(channels, width, height):
    """Noise over wide bands, so that neither flat parts nor edges are missing."""
    n = width * height * channels
    grain = np.frombuffer(noise(n, n), np.uint8).astype(np.int64) // 4
    y, x, c = np.indices((height, width, channels)).reshape(3, -1)
    level = (x * 3 + y * 5 + c * 40 + (x // 16 + y // 16) * 90) % 192
    data = (level + grain).astype(np.uint8).tobytes()
    return Image.frombytes(MODES[channels], (width, height), data)


def pictures(data, sizes, files):
    for size in sizes:
        yield "%dx%dx%d" % size, generated(*size)
    for name in files:
        path = next(p for p in (os.path.join(data, "images", name + e) for e in (".png", ".jpg"))
                    if os.path.exists(p))
        yield os.path.relpath(path, data), Image.open(path)


def unpatched(features, patch=14, merge=2):
    """Qwen2-VL's rows of patches as one picture (3,H,W)."""
    _, h, w = (int(v) for v in features["image_grid_thw"][0])
    rows = torch.as_tensor(features["pixel_values"])
    rows = rows.reshape(h // merge, w // merge, merge, merge, 3, 2, patch, patch)[:, :, :, :, :, 0]
    return rows.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, h * patch, w * patch).numpy()


def run(processor, picture, **options):
    """(3,H,W) of one picture by a processor of transformers."""
    # Without the layout said, pictures one or three pixels high are read as planes.
    features = processor(picture, return_tensors="pt", input_data_format="channels_last", **options)
    if "image_grid_thw" in features:
        return unpatched(features)
    pixels = features["pixel_values"]
    while isinstance(pixels, list):
        pixels = pixels[0]
    return np.asarray(pixels[0] if pixels.ndim == 4 else pixels)


def bytes_of(processor, picture):
    """(3,H,W) u8 behind the last step, which is what is left when nothing is scaled."""
    return run(processor, picture, do_rescale=False, do_normalize=False).astype(np.uint8)


# ---- slow ----
class Transform:
    """open_clip's image_transform as processors of the other kind look; jina's converts first."""

    def __init__(self, config, rgb_first):
        from open_clip.transform import image_transform
        given = {key: config[key] for key in ("mean", "std", "resize_mode", "interpolation")}
        self.compose = image_transform(config["size"], is_train=False, **given)
        self.rgb_first = rgb_first

    def both(self, picture):
        picture = picture.convert("RGB") if self.rgb_first else picture
        last = len(self.compose.transforms) - 2  # ToTensor and Normalize come behind the picture
        pixels = self.compose(picture).numpy()
        for step in self.compose.transforms[:last]:
            picture = step(picture)
        return np.asarray(picture).transpose(2, 0, 1), pixels


class Reader:
    """The original reader's own resizing, as documented, in front of a processor."""

    def __init__(self, processor, is_qwen):
        self.processor, self.is_qwen = processor, is_qwen

    def both(self, picture):
        w, h = picture.size
        if self.is_qwen:  # qwen_vl_utils: multiples of 28, at least 28, between 4 and 16384 of them
            picture = picture.convert("RGB")
            if max(w, h) / min(w, h) > 200:
                raise ValueError("ratio")
            h_bar, w_bar = (max(28, 28 * round(side / 28)) for side in (h, w))
            if h_bar * w_bar > 16384 * 784:
                beta = math.sqrt(h * w / (16384 * 784))
                h_bar, w_bar = (math.floor(side / beta / 28) * 28 for side in (h, w))
            elif h_bar * w_bar < 4 * 784:
                beta = math.sqrt(4 * 784 / (h * w))
                h_bar, w_bar = (math.ceil(side * beta / 28) * 28 for side in (h, w))
            picture = picture.resize((w_bar, h_bar))
        w, h = picture.size
        if max(w, h) > 256:
            factor = 256 / max(w, h)
            w, h = (max(int(side * factor), 28) for side in (w, h))
            picture = picture.resize((w, h), Image.NEAREST)
        if w / h > 200 or h / w > 200:
            picture = picture.resize((h * 180, h) if w > h else (w, w * 180), Image.NEAREST)
        return bytes_of(self.processor, picture), run(self.processor, picture)


def slow_processors():
    from transformers.models.clip.image_processing_clip import CLIPImageProcessor
    from transformers.models.pixtral.image_processing_pixtral import PixtralImageProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    transform = {"size": 224, "mode": "RGB", "mean": mean, "std": std, "interpolation": "bicubic",
                 "resize_mode": "shortest", "fill_color": 0}
    squash = {**transform, "size": 48, "resize_mode": "squash", "interpolation": "bilinear"}
    jina = {"image_processor_type": "JinaCLIPImageProcessor",
            **{k: v for k, v in transform.items() if k != "mode"}}
    square = CLIPImageProcessor(size={"height": 50, "width": 50}, crop_size=33, resample=2)
    small = Qwen2VLImageProcessor(min_pixels=56 * 56 * 2, max_pixels=100 * 784)
    for name, made in (("clip", CLIPImageProcessor()),
                       ("clip-square", square),
                       ("qwen2vl", Qwen2VLImageProcessor(max_pixels=12845056)),
                       ("qwen2vl-small", small),
                       ("pixtral", PixtralImageProcessor())):
        yield name, made.to_json_string(), made
    yield "qwen2vl-reader", None, Reader(Qwen2VLImageProcessor(max_pixels=12845056), True)
    yield "pixtral-reader", None, Reader(PixtralImageProcessor(), False)
    yield "open_clip", json.dumps({"preprocess_cfg": transform}), Transform(transform, False)
    yield "open_clip-squash", json.dumps({"preprocess_cfg": squash}), Transform(squash, False)
    yield "jina", json.dumps(jina), Transform(transform, True)


def dump_slow(data):
    lines = ["# config processor json | processor picture width height crc32(u8) crc32(f32) "
             "| error"]
    for name, config, made in slow_processors():
        lines.append(f"config {name} {' '.join(config.split()) if config else 'preset'}")
        for shown, picture in pictures(data, SIZES, FILES):
            if min(picture.size) < 28 and name in ("qwen2vl", "qwen2vl-small"):
                continue  # this release refuses sides below 28, later ones do not
            if picture.width == 6000 and name == "qwen2vl-small":
                continue  # this release rounds the short side down to 0, later ones to 28
            try:
                if hasattr(made, "both"):
                    u8, f32 = made.both(picture)
                else:
                    u8, f32 = bytes_of(made, picture), run(made, picture)
            except ValueError:  # a ratio above 200
                lines.append(f"{name} {shown} error")
                continue
            types = u8.dtype, f32.dtype
            assert types == (np.uint8, np.float32) and u8.shape == f32.shape, (name, shown)
            u8_crc = zlib.crc32(np.ascontiguousarray(u8.transpose(1, 2, 0)).tobytes())
            f32_crc = zlib.crc32(np.ascontiguousarray(f32).tobytes())
            lines.append(f"{name} {shown} {u8.shape[2]} {u8.shape[1]} {u8_crc:08x} {f32_crc:08x}")
    write("processors_slow.txt", lines)


# ---- fast ----
def dump_fast(data):
    from transformers import CLIPImageProcessor, PixtralImageProcessor, Qwen2VLImageProcessor
    arrays, cases = {}, []
    squares = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(14, 0).repeat(14, 1)
    levels = Image.fromarray(np.repeat(squares[:, :, None], 3, 2))  # 224 x 224: not resized here
    edges = {"shortest_edge": 3136, "longest_edge": 100 * 784}
    for name, made in (("clip", CLIPImageProcessor()),
                       ("qwen2vl", Qwen2VLImageProcessor(size=edges)),
                       ("pixtral", PixtralImageProcessor(size={"longest_edge": 272}))):
        text = json.dumps({"image_processor": made.to_dict()})
        arrays[f"{name}.config"] = np.frombuffer(text.encode(), np.uint8)
        seen = run(made, levels)[:, ::14, ::14].reshape(3, 256)
        arrays[f"{name}.levels"] = np.ascontiguousarray(seen)
        for i, (shown, picture) in enumerate(pictures(data, FEW_SIZES, FEW_FILES)):
            u8 = bytes_of(made, picture).transpose(1, 2, 0)
            rows = np.linspace(0, len(u8) - 1, ROWS).astype(int)
            arrays[f"{name}.{i}"] = np.ascontiguousarray(u8[rows])
            arrays[f"{name}.{i}.about"] = np.array([u8.shape[1], u8.shape[0], *rows], np.int32)
            cases.append(shown)
    arrays["pictures"] = np.frombuffer("\n".join(dict.fromkeys(cases)).encode(), np.uint8)
    memory = io.BytesIO()
    np.savez_compressed(memory, **arrays)
    with open(os.path.join(dump_reference_images.OUT, "processors_fast.npz"), "wb") as f:
        f.write(memory.getvalue())
    print("processors_fast.npz", len(memory.getvalue()), "bytes")


if __name__ == "__main__":
    if "--out" in sys.argv:
        dump_reference_images.OUT = sys.argv[sys.argv.index("--out") + 1]
    {"slow": dump_slow, "fast": dump_fast}[sys.argv[2]](sys.argv[1])
