#!/usr/bin/env python3
"""Vectors for host/choice from transformers' logits processors, in f32, one after the other.

usage: tools/vectors_choice.py > tests/data/choice.json
Written with transformers 5.23.0, torch 2.15.0. Scores are f32, exact in JSON; "-inf" is null.
"""
import json
import sys

import torch
from transformers import (LogitsProcessorList, RepetitionPenaltyLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

CASES = [  # width, seen ids, penalty, temperature, top_k, top_p
    (12, [3, 3, 0, 11], 1.3, 1.0, 0, 1.0),
    (12, [], 1.0, 0.7, 0, 1.0),
    (12, [], 1.0, 1.0, 4, 1.0),
    (12, [], 1.0, 1.0, 0, 0.8),
    (12, [], 1.0, 1.0, 12, 0.999),
    (12, [5], 1.05, 0.01, 1, 0.001),
    (24, [1, 2, 9], 0.8, 1.7, 9, 0.6),
    (24, list(range(24)), 1.2, 2.5, 30, 0.3),
    (24, [7], 1.1, 0.5, 3, 1.0),
]


def numbers(scores):
    return [None if x == float("-inf") else x for x in scores.tolist()]


def main():
    generator = torch.Generator().manual_seed(7)
    out = []
    for number, (width, seen, penalty, temperature, top_k, top_p) in enumerate(CASES):
        logits = 3 * torch.randn(1, width, generator=generator)
        if number in (2, 8):  # several equal to the last that top_k keeps
            logits[0, 2] = logits[0, 5] = logits[0, 6] = logits[0].sort().values[-3]
        ids = torch.tensor([seen], dtype=torch.long)
        penalized = logits
        if penalty != 1.0:
            penalized = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
        chain = LogitsProcessorList()
        if temperature != 1.0:
            chain.append(TemperatureLogitsWarper(temperature))
        if top_k:
            chain.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            chain.append(TopPLogitsWarper(top_p))
        out.append({"seen": seen, "penalty": penalty, "temperature": temperature, "top_k": top_k,
                    "top_p": top_p, "logits": numbers(logits[0]),
                    "penalized": numbers(penalized[0]),
                    "warped": numbers(chain(ids, penalized.clone())[0])})
    json.dump(out, sys.stdout, indent=None, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
