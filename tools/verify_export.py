#!/usr/bin/env python3
"""What this program writes, opened by the libraries it is meant for.

    tools/verify_export.py [test=build/bin/test] [cells=FILE]

Adapters: the test lora_steps writes tiny readers, an adapter trained on each, and its own logits;
PEFT opens the adapter on transformers' model of the same files, whose logits must agree, as they are
and merged. Runs under transformers 4.45.0 with peft 0.12.0 as well as under recent ones, whichever
is installed. cells: lines for the table of tests/README.md are appended there. Exit code 1 when
something differs.
"""
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

import tiny_reader

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


def verify_adapter(family, where):
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
    has_effect = numpy.abs(plain - want).max() > 0.01 * numpy.abs(want).max()
    return fits and has_effect


def main():
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    test = os.path.abspath(options.get("test", os.path.join(ROOT, "build", "bin", "test")))
    with tempfile.TemporaryDirectory() as where:
        subprocess.run([test, "lora_steps", f"keep={where}"], check=True, cwd=ROOT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        era = "old" if tiny_reader.IS_OLD else "new"
        good = {name: verify_adapter(tiny_reader.Family(name), os.path.join(
            where, "lora_steps", f"lora_steps_{name}_{era}")) for name in tiny_reader.SPECIALS}
    if "cells" in options:
        titles = dict(qwen2vl="Qwen2-VL", pixtral="Pixtral")
        with open(options["cells"], "a") as cells:
            for name, is_good in good.items():
                cells.write(f"{titles[name]}|export|adapter in PEFT {peft.__version__}"
                            f"{'' if is_good else ' DIFFERS'}\n")
    sys.exit(0 if all(good.values()) else 1)


if __name__ == "__main__":
    main()
