#!/usr/bin/env python3
"""Random strings through `jomed model tokenize` and through the libraries that trained the models.

    tools/fuzz_tokenizers.py [jomed=build/bin/jomed] [data=../shared/data] [count=100000] [seed=1] [only=clip]

Oracles: Hugging Face's tokenizers, and tiktoken for Tekken, made from the same files. Every string is
encoded twice, with special tokens as text and recognised, and the ids are decoded twice, without and
with special tokens; then random ids are decoded. Each tokenizer is read from its published files and,
where Hugging Face has the form, once more from the tokenizer.json that the library saves. The first
strings are all assigned code points, each between two letters. Exit code 1: something differed.

Needs Python 3.11 (whose Unicode is 14: newer code points differ by the age of each library's tables),
tokenizers 0.23, tiktoken 0.14. NUL is left out, which JSON lines here do not carry.
"""
import base64
import gzip
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

options = dict(arg.split("=", 1) for arg in sys.argv[1:])
JOMED = options.get("jomed", "build/bin/jomed")
DATA = pathlib.Path(options.get("data", "../shared/data")) / "tokenizers"
COUNT = int(options.get("count", 100000))
SEED = int(options.get("seed", 1))
ONLY = options.get("only", "")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = f"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + ENDS
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QWEN2VL = ["endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end",
           "quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]


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
WORDS = ("chest radiograph showing left pleural effusion Without CONTRAST enhanced MRI T2-weighted don't "
         "we'll I'VE it'ſ camelCaseWord x-ray naïve Ångström ﬁne Straße İstanbul ΣΊΣΥΦΟΣ 3.5 cm 12/24 "
         "www.example.org/a/b ... !!! --- (arrow) [SEP] <|im_end|> </w> ## ##ing 's 'T").split()


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
        start = rng.choice((0x4E00, 0x3040, 0x0E01, 0x0900, 0x0600, 0x0400, 0x1E00, 0x20000, 0xFF00))
        return "".join(c for c in (chr(start + rng.randrange(90)) for _ in range(n)) if unicodedata.category(c) != "Cn")
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
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", k=n * rng.choice((1, 20))))
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
        raw = "".join(piece(rng, specials) for _ in range(rng.randrange(1, 12))).encode("utf-8", "surrogateescape")
        if all(unicodedata.category(c) != "Cn" for c in raw.decode("utf-8", "replace")):  # random bytes can be anything
            out.append(raw)
    return out


# ---- oracles ----
class Library:
    """A tokenizer of Hugging Face's library."""

    def __init__(self, tokenizer, has_word_ends=False):
        self.tokenizer, self.has_word_ends = tokenizer, has_word_ends
        self.size = tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text, special):
        self.tokenizer.encode_special_tokens = not special
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids, special):
        text = self.tokenizer.decode(ids, skip_special_tokens=not special)
        return text.replace("</w>", " ").strip() if self.has_word_ends else text


class Ranks:
    """Tekken by tiktoken."""

    def __init__(self, ranks, names):
        self.first = 1000
        self.ids = {f"<SPECIAL_{i}>": i for i in range(1000) if i not in names.values()} | names
        moved = {token: rank + self.first for token, rank in ranks.items()}
        self.encoding = tiktoken.Encoding("tekken", pat_str=TEKKEN, mergeable_ranks=moved, special_tokens=self.ids)
        self.size = self.first + len(ranks)

    def encode(self, text, special):
        return self.encoding.encode(text, allowed_special="all" if special else set(), disallowed_special=())

    def decode(self, ids, special):
        return self.encoding.decode([i for i in ids if special or i >= self.first])


def bert(folder):
    words = {line.rstrip("\n"): i for i, line in enumerate(open(DATA / folder / "vocab.txt", encoding="utf-8"))}
    t = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])])
    t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return Library(t)


def byte_symbols():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + k) for k, b in enumerate(moved)}


def clip():
    lines = gzip.open(DATA / "clip-bpe/bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8").read().split("\n")
    merges = [tuple(line.split()) for line in lines[1:48895]]
    symbols = list(byte_symbols().values())
    names = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    t = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token="<|endoftext|>",
                             continuing_subword_prefix="", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.RobertaProcessing(("<|endoftext|>", 49407), ("<|startoftext|>", 49406), False, False)
    t.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return Library(t, has_word_ends=True)


def byte_level(model, regex, normalizer=None):
    t = Tokenizer(model)
    if normalizer:
        t.normalizer = normalizer
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not regex)
    if regex:
        split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), split])
    t.pre_tokenizer = split
    t.decoder = decoders.ByteLevel()
    return t


def qwen2(regex=QWEN2, names=("endoftext", "im_start", "im_end")):
    model = models.BPE.from_file(str(DATA / "qwen2/vocab.json"), str(DATA / "qwen2/merges.txt"))
    t = byte_level(model, regex, normalizers.NFC() if regex else None)
    t.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False) for name in names])
    return t


def qwen2_odd():
    """Qwen2-VL with added tokens of every kind."""
    t = qwen2(names=QWEN2VL)
    t.add_tokens([AddedToken("<tool_call>"), AddedToken("radiograph", single_word=True, normalized=False),
                  AddedToken("Ångström"), AddedToken("<mask>", lstrip=True, normalized=False),
                  AddedToken("<pad>", rstrip=True, normalized=False), AddedToken("<|im", normalized=False)])
    return Library(t)


def tekken_ranks():
    lines = open(DATA / "tekken/tekken_v3.tiktoken").read().split("\n")
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}


def tekken_names():
    return json.load(open(DATA / "tekken/special_tokens.json"))["pixtral_240911_ids"]


def tekken_json(regex):
    """Tekken as transformers converts it: merges made from ranks."""
    symbols, ranks = byte_symbols(), tekken_ranks()
    names = {"".join(symbols[b] for b in token): 1000 + rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [(token[:i], token[i:]) for i in range(1, len(token))]
        parts = [(a, b) for a, b in parts if a in ranks and b in ranks]
        merges += sorted(parts, key=lambda p: (ranks[p[0]], ranks[p[1]]))
    merges = [tuple("".join(symbols[b] for b in part) for part in pair) for pair in merges]
    special = tekken_names()
    special |= {f"<SPECIAL_{i}>": i for i in range(1000) if i not in special.values()}
    t = byte_level(models.BPE(names | special, merges, ignore_merges=True), regex)
    t.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return Library(t)


# ---- comparison ----
def ours(path, rows, special):
    """Rows through our program; a list of what it says."""
    lines = b"".join(rows)
    command = [JOMED, "model", "tokenize", f"model.dir={path}", f"tokenize.special={str(special).lower()}", "log.level=error"]
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
        random_ids = [[rng.randrange(oracle.size) for _ in range(rng.randrange(1, 9))] for _ in range(COUNT // 4)]
        lists = want + random_ids
        want = [oracle.decode(ids, special) for ids in lists]
        got = [row["text"] for row in ours(path, [json.dumps({"ids": ids}).encode() + b"\n" for ids in lists], special)]
        wrong += compare(f"{name}: text, special={special}", got, want, lists)
        encoded += len(texts)
        decoded += len(lists)
    print(f"{name}: {encoded} texts encoded, {decoded} lists of ids decoded, {wrong} differences", flush=True)
    return wrong


def saved(folder, name, library):
    path = pathlib.Path(folder) / f"{name}.json"
    library.tokenizer.save(str(path))
    return path


def main():
    brackets = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[cls]"]
    marks = [f"<|{name}|>" for name in QWEN2VL] + ["<|IM_END|>", "<|im", "radiograph", " <mask> ", "<pad> \n", "<tool_call>"]
    ends = ["<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "</w>"]
    instructions = ["[INST]", "[/INST]", "[IMG]", "<s>", "</s>", "<SPECIAL_20>", "[IMG_BREAK]"]
    wrong = 0
    with tempfile.TemporaryDirectory() as tmp:
        for folder in ("bert-base-uncased", "biomedbert-abstract"):
            wrong += fuzz(folder, DATA / folder, bert(folder), brackets)
        wrong += fuzz("bert tokenizer.json", saved(tmp, "bert", bert("bert-base-uncased")), bert("bert-base-uncased"), brackets)
        wrong += fuzz("clip", DATA / "clip-bpe", clip(), ends)
        wrong += fuzz("clip tokenizer.json", saved(tmp, "clip", clip()), clip(), ends)
        wrong += fuzz("qwen2", DATA / "qwen2", Library(qwen2()), marks)
        odd = qwen2_odd()
        wrong += fuzz("qwen2-vl tokenizer.json, odd added tokens", saved(tmp, "qwen2", odd), odd, marks)
        gpt2 = Library(qwen2(regex=None))
        wrong += fuzz("gpt2's rule, tokenizer.json", saved(tmp, "gpt2", gpt2), gpt2, marks)
        wrong += fuzz("tekken", DATA / "tekken", Ranks(tekken_ranks(), tekken_names()), instructions)
        for rule, regex in (("tekken's", TEKKEN), ("the generic", LLAMA3)):
            tekken = tekken_json(regex)
            wrong += fuzz(f"tekken tokenizer.json, {rule} rule", saved(tmp, "tekken", tekken), tekken, instructions)
    sys.exit(1 if wrong else 0)


main()
