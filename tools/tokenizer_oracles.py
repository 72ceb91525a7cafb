"""Tokenizers of published models, made by the libraries themselves from the files that we read too.

Oracles of tools/fuzz_tokenizers.py and peers of bench/peers/tokenize_texts.py. A folder is one of
the test data's tokenizers/. Needs tokenizers 0.23 and tiktoken 0.14.
"""
import base64
import gzip
import json

import tiktoken
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors)

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + ENDS
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LEAD = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = (f"{LEAD}{UPPER}*{LOWER}+|{LEAD}{UPPER}+{LOWER}*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + ENDS)
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QWEN2VL = ["endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start",
           "box_end", "quad_start", "quad_end", "vision_start", "vision_end", "vision_pad",
           "image_pad", "video_pad"]


class Library:
    """A tokenizer of Hugging Face's library."""

    def __init__(self, tokenizer, has_word_ends=False):
        self.tokenizer, self.has_word_ends = tokenizer, has_word_ends
        self.size = tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text, special):
        self.tokenizer.encode_special_tokens = not special
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts):
        """As fast as the library can on one thread (TOKENIZERS_PARALLELISM=false)."""
        self.tokenizer.encode_special_tokens = False
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode(self, ids, special):
        text = self.tokenizer.decode(ids, skip_special_tokens=not special)
        return text.replace("</w>", " ").strip() if self.has_word_ends else text


class Ranks:
    """Tekken by tiktoken."""

    def __init__(self, folder):
        ranks, names = tekken_ranks(folder), tekken_names(folder)
        self.first = 1000
        self.ids = {f"<SPECIAL_{i}>": i for i in range(1000) if i not in names.values()} | names
        moved = {token: rank + self.first for token, rank in ranks.items()}
        self.encoding = tiktoken.Encoding("tekken", pat_str=TEKKEN, mergeable_ranks=moved,
                                          special_tokens=self.ids)
        self.size = self.first + len(ranks)

    def encode(self, text, special):
        allowed = "all" if special else set()
        return self.encoding.encode(text, allowed_special=allowed, disallowed_special=())

    def encode_all(self, texts):
        return [self.encoding.encode(text, allowed_special="all") for text in texts]

    def decode(self, ids, special):
        return self.encoding.decode([i for i in ids if special or i >= self.first])


def wordpiece(words, **switches):
    """BERT's form; words: {token: id}, switches: of the normalizer."""
    t = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(**switches)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])])
    t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return Library(t)


def bert(folder):
    lines = open(folder / "vocab.txt", encoding="utf-8")
    return wordpiece({line.rstrip("\n"): i for i, line in enumerate(lines)})


def byte_symbols():
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in own]
    return {b: chr(b) for b in own} | {b: chr(256 + k) for k, b in enumerate(moved)}


def clip_form(merges):
    """CLIP's form, whose vocabulary follows from the merges."""
    symbols = list(byte_symbols().values())
    names = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges]
    names += ["<|startoftext|>", "<|endoftext|>"]
    t = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges,
                             unk_token="<|endoftext|>", continuing_subword_prefix="",
                             end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP), "removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", len(names) - 1), ("<|startoftext|>", len(names) - 2), False, False)
    t.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return Library(t, has_word_ends=True)


def clip(folder):
    file = gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8")
    lines = file.read().split("\n")
    return clip_form([tuple(line.split()) for line in lines[1:48895]])


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


def qwen2(folder, regex=QWEN2, names=("endoftext", "im_start", "im_end")):
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    t = byte_level(model, regex, normalizers.NFC() if regex else None)
    t.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False) for name in names])
    return Library(t)


def add_odd(library):
    """Added tokens of every kind."""
    library.tokenizer.add_tokens([
        AddedToken("<tool_call>"), AddedToken("radiograph", single_word=True, normalized=False),
        AddedToken("Ångström"), AddedToken("<mask>", lstrip=True, normalized=False),
        AddedToken("<pad>", rstrip=True, normalized=False), AddedToken("<|im", normalized=False)])
    return Library(library.tokenizer)


def tekken_ranks(folder):
    lines = open(folder / "tekken_v3.tiktoken").read().split("\n")
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}


def tekken_names(folder):
    return json.load(open(folder / "special_tokens.json"))["pixtral_240911_ids"]


def tekken_json(folder, regex):
    """Tekken as transformers converts it: merges made from ranks."""
    symbols, ranks = byte_symbols(), tekken_ranks(folder)
    names = {"".join(symbols[b] for b in token): 1000 + rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [(token[:i], token[i:]) for i in range(1, len(token))]
        parts = [(a, b) for a, b in parts if a in ranks and b in ranks]
        merges += sorted(parts, key=lambda p: (ranks[p[0]], ranks[p[1]]))
    merges = [tuple("".join(symbols[b] for b in part) for part in pair) for pair in merges]
    special = tekken_names(folder)
    special |= {f"<SPECIAL_{i}>": i for i in range(1000) if i not in special.values()}
    t = byte_level(models.BPE(names | special, merges, ignore_merges=True), regex)
    t.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return Library(t)
