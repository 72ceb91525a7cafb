#!/usr/bin/env python3
"""Random strings through `jomed model tokenize` and through the libraries that trained the models.

    tools/fuzz_tokenizers.py [jomed=build/bin/jomed] [data=../shared/data] [count=100000] [seed=1]
                             [only=clip]

Oracles: Hugging Face's tokenizers, and tiktoken for Tekken, made from the same files. Every string
is encoded twice, with special tokens as text and recognised, and the ids are decoded twice, without
and with special tokens; then random ids are decoded. Each tokenizer is read from its published
files and, where Hugging Face has the form, once more from the tokenizer.json that the library
saves. The first strings are all assigned code points, each between two letters. Exit code 1:
something differed.

Needs Python 3.11 (its Unicode is 14: newer code points differ by the age of each library's tables),
tokenizers 0.23, tiktoken 0.14. NUL is left out, which JSON lines here do not carry.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

import tokenizer_oracles as oracles

options = dict(arg.split("=", 1) for arg in sys.argv[1:])
JOMED = options.get("jomed", "build/bin/jomed")
DATA = pathlib.Path(options.get("data", "../shared/data")) / "tokenizers"
COUNT = int(options.get("count", 100000))
SEED = int(options.get("seed", 1))
ONLY = options.get("only", "")

# ---- strings ----
ASSIGNED = [chr(c) for c in range(1, 0x110000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
BY_KIND = {}
for char in ASSIGNED:
    BY_KIND.setdefault(unicodedata.category(char), []).append(char)
MARKS = BY_KIND["Mn"] + BY_KIND["Mc"] + BY_KIND["Me"]
BLANKS = list(" \t\n\r\v\f\x85\xa0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000")
EMOJI = [chr(c) for c in range(0x1F300, 0x1F650)] + ["\u200d", "\ufe0f", "\u2640", "\U0001f3fd"]
HANGUL = [chr(c) for c in range(0xAC00, 0xD7A4)] + [chr(c) for c in range(0x1100, 0x1200)]
WORDS = ("chest radiograph showing left pleural effusion Without CONTRAST enhanced MRI "
         "T2-weighted don't we'll I'VE it'ſ camelCaseWord x-ray naïve Ångström ﬁne Straße "
         "İstanbul ΣΊΣΥΦΟΣ 3.5 cm 12/24 "
         "www.example.org/a/b ... !!! --- (arrow) [SEP] <|im_end|> </w> ## ##ing 's 'T").split()


def is_assigned(char):
    return unicodedata.category(char) != "Cn"


def piece(rng, specials):
    """A short run of one kind of characters."""
    kind = rng.randrange(13)
    n = rng.choice((1, 1, 2, 3, 5, 8))
    if kind == 0:
        return "".join(rng.choices(BLANKS, k=n))
    if kind == 1:
        return "".join(rng.choices("0123456789", k=n * rng.choice((1, 4))))
    if kind == 2:
        return "".join(rng.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=n))
    if kind == 3:
        return rng.choice("aeoAEOuяक") + "".join(rng.choices(MARKS, k=n))
    if kind == 4:
        return "".join(rng.choices(EMOJI, k=n))
    if kind == 5:
        start = rng.choice((0x4E00, 0x3040, 0x0E01, 0x0900, 0x0600, 0x0400, 0x1E00, 0x20000,
                            0xFF00))
        drawn = [chr(start + rng.randrange(90)) for _ in range(n)]
        return "".join(c for c in drawn if is_assigned(c))
    if kind == 6:
        return "".join(rng.choices(HANGUL, k=n))
    if kind == 7:
        return "".join(rng.choices(ASSIGNED, k=n))
    if kind == 8:
        return "".join(rng.choices(BY_KIND[rng.choice(sorted(BY_KIND))], k=n))
    if kind == 9:
        return rng.choice(specials)
    if kind == 10:  # bytes that are not UTF-8, as Python's surrogateescape keeps them
        return bytes(rng.choices(range(128, 256), k=n)).decode("utf-8", "surrogateescape")
    if kind == 11:
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
        return "".join(rng.choices(letters, k=n * rng.choice((1, 20))))
    return " " + rng.choice(WORDS)


def strings(specials):
    """COUNT strings; the first go through all assigned code points, some twenty to a string."""
    rng = random.Random(SEED)
    out = []
    for begin in range(0, len(ASSIGNED), 20):
        out.append("".join("a" + c + "b" for c in ASSIGNED[begin:begin + 20]))
    del out[COUNT // 2:]
    out = [text.encode() for text in out]
    while len(out) < COUNT:
        text = "".join(piece(rng, specials) for _ in range(rng.randrange(1, 12)))
        raw = text.encode("utf-8", "surrogateescape")
        if all(map(is_assigned, raw.decode("utf-8", "replace"))):  # random bytes can be anything
            out.append(raw)
    return out


# ---- comparison ----
def ours(path, rows, special):
    """Rows through our program; a list of what it says."""
    lines = b"".join(rows)
    command = [JOMED, "model", "tokenize", f"model.dir={path}",
               f"tokenize.special={str(special).lower()}", "log.level=error"]
    done = subprocess.run(command, input=lines, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode()}")
    return [json.loads(line) for line in done.stdout.split(b"\n") if line]


def quoted(raw):
    """A JSON row with the bytes as they are."""
    text = json.dumps({"text": raw.decode("utf-8", "surrogateescape")}, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def compare(what, got, want, inputs):
    wrong = [i for i in range(len(want)) if got[i] != want[i]]
    for i in wrong[:5]:
        print(f"  {what} of {inputs[i]!r}:\n    ours   {got[i]!r}\n    theirs {want[i]!r}")
    return len(wrong)


def fuzz(name, path, oracle, specials):
    if ONLY and ONLY not in name:
        return 0
    rng = random.Random(SEED)
    texts = strings(specials)
    wrong = encoded = decoded = 0
    for special in (False, True):
        read = [raw.decode("utf-8", "replace") for raw in texts]
        want = [oracle.encode(text, special) for text in read]
        got = [row["ids"] for row in ours(path, [quoted(raw) for raw in texts], special)]
        wrong += compare(f"{name}: ids, special={special}", got, want, texts)
        random_ids = [[rng.randrange(oracle.size) for _ in range(rng.randrange(1, 9))]
                      for _ in range(COUNT // 4)]
        lists = want + random_ids
        want = [oracle.decode(ids, special) for ids in lists]
        lines = [json.dumps({"ids": ids}).encode() + b"\n" for ids in lists]
        got = [row["text"] for row in ours(path, lines, special)]
        wrong += compare(f"{name}: text, special={special}", got, want, lists)
        encoded += len(texts)
        decoded += len(lists)
    print(f"{name}: {encoded} texts encoded, {decoded} lists of ids decoded, {wrong} differences",
          flush=True)
    return wrong


def saved(folder, library):
    path = pathlib.Path(folder) / "tokenizer.json"
    library.tokenizer.save(str(path))
    return path


def main():
    brackets = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[cls]"]
    marks = [f"<|{name}|>" for name in oracles.QWEN2VL]
    marks += ["<|IM_END|>", "<|im", "radiograph", " <mask> ", "<pad> \n", "<tool_call>"]
    ends = ["<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "</w>"]
    instructions = ["[INST]", "[/INST]", "[IMG]", "<s>", "</s>", "<SPECIAL_20>", "[IMG_BREAK]"]
    wrong = 0
    with tempfile.TemporaryDirectory() as tmp:
        for folder in ("bert-base-uncased", "biomedbert-abstract"):
            bert = oracles.bert(DATA / folder)
            wrong += fuzz(folder, DATA / folder, bert, brackets)
            wrong += fuzz(f"{folder}, tokenizer.json", saved(tmp, bert), bert, brackets)
        clip = oracles.clip(DATA / "clip-bpe")
        wrong += fuzz("clip", DATA / "clip-bpe", clip, ends)
        wrong += fuzz("clip, tokenizer.json", saved(tmp, clip), clip, ends)
        wrong += fuzz("qwen2", DATA / "qwen2", oracles.qwen2(DATA / "qwen2"), marks)
        odd = oracles.add_odd(oracles.qwen2(DATA / "qwen2", names=oracles.QWEN2VL))
        wrong += fuzz("qwen2-vl, tokenizer.json, odd added tokens", saved(tmp, odd), odd, marks)
        gpt2 = oracles.qwen2(DATA / "qwen2", regex=None)
        wrong += fuzz("gpt2's rule, tokenizer.json", saved(tmp, gpt2), gpt2, marks)
        wrong += fuzz("tekken", DATA / "tekken", oracles.Ranks(DATA / "tekken"), instructions)
        for rule, regex in (("tekken's", oracles.TEKKEN), ("the generic", oracles.LLAMA3)):
            tekken = oracles.tekken_json(DATA / "tekken", regex)
            wrong += fuzz(f"tekken, tokenizer.json, {rule} rule", saved(tmp, tekken), tekken,
                          instructions)
    sys.exit(1 if wrong else 0)


main()
