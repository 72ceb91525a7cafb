"""Writes what Pillow makes of pictures, for the image tests: tests/data/image_*.txt.

Run it with a Pillow that uses Debian's own libjpeg62-turbo (apt-get install python3-pil, then
/usr/bin/python3 tools/dump_reference_images.py DATA), because a JPEG decode equals only that of the
same library. DATA is the folder of test data.
"""
import os
import sys
import zlib

import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


def noise(n, seed):
    """Byte i of a picture: a hash of i and seed, as tests/test_image_resize.c computes it."""
    x = (np.arange(n, dtype=np.uint32) + np.uint32(seed)) * np.uint32(2654435761)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    return (x >> np.uint32(24)).astype(np.uint8).tobytes()


def resize_cases():
    """C, W, H, outW, outH: up, down, one pixel, 32:1, equal sides, primes, tall and wide."""
    sizes = [(7, 5, 14, 10), (31, 17, 13, 29), (64, 64, 2, 2), (1, 1, 9, 4), (9, 7, 1, 1),
             (12, 12, 12, 12), (40, 20, 40, 7), (20, 40, 7, 40), (3, 5, 224, 224),
             (320, 200, 358, 224)]
    seed = 1
    for width, height, out_width, out_height in sizes:
        for channels in (1, 2, 3, 4):
            for name in ("nearest", "bilinear", "bicubic"):
                if channels in (2, 4) and name == "bilinear":
                    continue
                yield channels, width, height, out_width, out_height, name, seed
                seed += 1


def dump_resize():
    lines = ["# channels width height out_width out_height filter seed crc32 "
             "pixels (or - when many)"]
    for channels, width, height, out_width, out_height, name, seed in resize_cases():
        data = noise(width * height * channels, seed)
        picture = Image.frombytes(MODES[channels], (width, height), data)
        out = picture.resize((out_width, out_height), FILTERS[name]).tobytes()
        shown = out.hex() if len(out) <= 64 else "-"
        lines.append(f"{channels} {width} {height} {out_width} {out_height} {name} {seed} "
                     f"{zlib.crc32(out):08x} {shown}")
    write("image_resize.txt", lines)


def dump_decode(data):
    """Every picture of the test data: size and crc32 of its RGB pixels, or the word error."""
    lines = ["# file width height crc32 of convert('RGB') | file error"]
    for folder in ("images/jpeg", "images/jpeg-corrupt", "images/png-extra",
                   "medical/vqa-rad/images", "medical/skin-ham10000/images",
                   "medical/breast-ultrasound/images",
                   "medical/covid-chestxray/images", "medical/retina"):
        for root, _, files in sorted(os.walk(os.path.join(data, folder))):
            for name in sorted(files):
                if not name.lower().endswith((".jpg", ".jpeg", ".png")):
                    continue
                path = os.path.join(root, name)
                shown = os.path.relpath(path, data)
                try:
                    picture = Image.open(path).convert("RGB")
                    lines.append(f"{shown} {picture.width} {picture.height} "
                                 f"{zlib.crc32(picture.tobytes()):08x}")
                except Exception:  # Pillow refuses in many ways
                    lines.append(f"{shown} error")
    write("image_decode.txt", lines)


def write(name, lines):
    with open(os.path.join(OUT, name), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(name, len(lines) - 1)


if __name__ == "__main__":
    dump_resize()
    dump_decode(sys.argv[1])
