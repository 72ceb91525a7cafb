#!/usr/bin/env python3
"""Holds host/safetensors against the Python library, in both directions. Not needed by the tests.

  check_safetensors.py write     makes tests/data/python.safetensors for tests/test_safetensors.c
  check_safetensors.py read F    opens a file of ours; prints names, types, shapes, sums
"""
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FIXTURE = "tests/data/python.safetensors"


def write():
    tensors = {
        "b.weight": 0.5 * torch.arange(6, dtype=torch.float32).reshape(2, 3) - 1,
        "a.bf16": torch.tensor(1.5, dtype=torch.bfloat16),
        "a.f16": torch.tensor([-2.0, 65504.0], dtype=torch.float16),
        "ids": torch.tensor([-1, 2**40], dtype=torch.int64),
        "empty": torch.zeros(2, 0, 4),
        "mask": torch.tensor([True, False, True]),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "i32": torch.tensor([[-5]], dtype=torch.int32),
        "f64": torch.tensor([1e300], dtype=torch.float64),
    }
    save_file(tensors, FIXTURE, metadata={"format": "pt"})


def read(path):
    with safe_open(path, framework="pt") as file:
        print("metadata", file.metadata())
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            print(name, tensor.dtype, tuple(tensor.shape), tensor.double().sum().item())


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    elif len(sys.argv) == 3 and sys.argv[1] == "read":
        read(sys.argv[2])
    else:
        sys.exit(__doc__)
