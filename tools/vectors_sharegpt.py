#!/usr/bin/env python3
"""Three records of fine-tuning as LLaMA-Factory reads them, written by Python's json.

Writes tests/data/records_train_.json. Needs nothing but Python. The samples stand in
tests/test_sharegpt.c, too: a passage with letters outside ASCII, quotes and control characters, one
beyond the first plane of Unicode, and a query without a passage.
"""
import json
from pathlib import Path

INSTRUCTION = "Answer.\n"
SAMPLES = [
    ("p/1.png", "c\u0153ur \"normal\"\\ \t2\u00d73 mm", "q/1.png", "what is it?", "no finding"),
    ("p/2.png", "\U0001f9e0 brain \x7f\x01 </s>", "q/2.png", "grade?\n", "2"),
    (None, None, "q/3.png", "is there a mass?", "yes"),
]


def record(passage, caption, query, question, answer):
    background = f"<image>background: {caption}\n\n" if passage else ""
    content = INSTRUCTION + background + "<image>" + question
    return {"messages": [{"content": content, "role": "user"},
                         {"content": answer, "role": "assistant"}],
            "images": [passage, query] if passage else [query]}


target = Path(__file__).resolve().parent.parent / "tests" / "data" / "records_train_.json"
with open(target, "w") as out:
    for sample in SAMPLES:
        json.dump(record(*sample), out)
        out.write("\n")
