#!/usr/bin/env python3
"""Small tokenizers of every form with texts, ids and texts back, by Hugging Face's tokenizers
0.23.3. Writes tests/data/tokenizers.json, and tests/data/splits.json: texts cut by each rule
(tests/test_tokenizer_vectors.c reads both).

The vocabularies are made here, from the texts: bytes, and the merges of the most frequent pairs.
"""
import collections
import json

import tokenizer_oracles as oracles
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

TEXTS = ["", " ", "Chest radiograph: no effusion, 12/24 mm.", "chest  x-ray\n\nwith\t a \r\n line ",
         "We'LL don't I'VE it'ſ 'tis", "camelCaseWord HTTPServer ABCdef", "1234567 ٣٤٥ ½ Ⅷ",
         "naïve ﬁne Straße İstanbul ΣΊΣΥΦΟΣ", "A\u030angstro\u0308m Ångström e\u0323\u0301x",
         "漢字かな한국어 ไทย हिन्दी", "👩🏽\u200d⚕️ ❤️ \ufeff\u00adsoft", "a\u00a0b\u2003c\u3000d\u0085e",
         "...!!! --- /path/to //x/\n/", "[CLS] text [SEP] [cls] [MASK]",
         "<|im_start|>user\n<|im_end|> <|IM_END|>", "<|startoftext|> a <|endoftext|>",
         "x <mask> y <pad>  z <|im", "radiograph radiographs a radiograph.",
         "<tool_call> </w> ## ##ing", "effusioneffusion" * 8,
         "\u0301\u0301 \u1df6\u0301 a\u1df6\u0301", "x\x01\x7f\x1f\u0378y", "𐊠𐊡 𞤀𞤁 𑄀",
         "tab\tvertical\vfeed\fend", "Ends with blanks   ", "it's 'S 'Re 'd."]
CORPUS = " ".join(TEXTS).split()
CORPUS += ("chest radiograph chest effusion radiograph small lesion the lesion of the left the "
           "right").split()


def trained(suffix, count=60):
    """Merges of the most frequent pairs of symbols in the words of CORPUS."""
    symbols = oracles.byte_symbols()
    words = collections.Counter()
    for word in CORPUS:
        for form in (word, word.lower(), " " + word) if not suffix else (word.lower(),):
            parts = [symbols[b] for b in form.encode()]
            words[(*parts[:-1], parts[-1] + suffix)] += 1
    merges = []
    for _ in range(count):
        pairs = collections.Counter()
        for parts, n in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        renewed = collections.Counter()
        for parts, n in words.items():
            out = []
            for part in parts:
                if out and (out[-1], part) == best:
                    out[-1] += part
                else:
                    out.append(part)
            renewed[tuple(out)] += n
        words = renewed
    return merges


def bytes_and(merges):
    names = [*oracles.byte_symbols().values(), *dict.fromkeys(a + b for a, b in merges)]
    return {name: i for i, name in enumerate(names)}


def rule(regex, normalizer=None, **model):
    merges = trained("")
    t = oracles.byte_level(models.BPE(bytes_and(merges), merges, **model), regex, normalizer)
    t.add_special_tokens([AddedToken(name, normalized=False)
                          for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")])
    return oracles.Library(t)


def words():
    letters = [chr(c) for c in [*range(33, 127), 0xE9, 0x4E2D, 0x6F22, 0x301, 0x3C3, 0xFB01]]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    tokens += ("chest radio ##graph ##graphs effusion no text with naive strasse ##ing ##fine "
               "Chest a\u030angstro\u0308m").split()
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


TOKENIZERS = {
    "bert": oracles.wordpiece(words()),
    "bert, cased": oracles.wordpiece(words(), lowercase=False, handle_chinese_chars=False,
                                     clean_text=False),
    "bert, accents kept": oracles.wordpiece(words(), strip_accents=False),
    "clip": oracles.clip_form(trained("</w>")),
    "gpt2": rule(None),
    "qwen2, odd added tokens": oracles.add_odd(rule(oracles.QWEN2, normalizers.NFC())),
    "llama3": rule(oracles.LLAMA3),
    "tekken": rule(oracles.TEKKEN, ignore_merges=True),
}


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLITS = ["a\nb", "a\n  b \n\t c\n \n", " \n", "\n\n x", "  two", "\t\ttab", "end  ",
          "\u00a0\u00a0x\u3000y", "12345 1234\u0661\u0662 x9", "I'Ve don't we'LL 's'T it'ſx 'r 're",
          " 'd", "x/y// /\n/ !?\r\n.", "aBc ABc ABC abcDEF XMLHttp ÀÉî ǅx",
          "कि\u093fA aकA Aकa \u0301\u0301a A\u0301b", "漢字ABC漢 ABC漢字", "(word) (WORD)-x _a_ $5",
          "don't.Stop 'tis", "word\u200dword ½Ⅷ²", "中。、x", "<|endoftext|>s", " \u2028 a"]


def cut(rule):
    """Pieces of a text by a rule."""
    if rule is None:
        pre = pre_tokenizers.BertPreTokenizer()
    elif rule == oracles.CLIP:
        pre = pre_tokenizers.Split(Regex(rule), "removed", invert=True)
    else:
        pre = pre_tokenizers.Split(Regex(rule), "isolated")
    return [[text, [piece for piece, _ in pre.pre_tokenize_str(text)]] for text in TEXTS + SPLITS]


def main():
    out = []
    for name, library in TOKENIZERS.items():
        rows = []
        for text in TEXTS:
            plain, special = library.encode(text, False), library.encode(text, True)
            row = {"text": text, "plain": plain, "special": special,
                   "back": library.decode(special, False),
                   "back_special": library.decode(special, True)}
            if special == plain:  # the same again is left out
                del row["special"]
            if row["back_special"] == row["back"]:
                del row["back_special"]
            rows.append(row)
        tokenizer = json.loads(library.tokenizer.to_str())
        out.append({"name": name, "tokenizer": tokenizer, "rows": rows})
    rules = {"": None, GPT2: GPT2, oracles.CLIP: oracles.CLIP, oracles.QWEN2: oracles.QWEN2,
             oracles.LLAMA3: oracles.LLAMA3, oracles.TEKKEN: oracles.TEKKEN}
    splits = [{"regex": regex, "texts": cut(rule)} for regex, rule in rules.items()]
    for name, value in (("tokenizers", out), ("splits", splits)):
        with open(f"tests/data/{name}.json", "w", encoding="utf-8") as file:
            json.dump(value, file, separators=(",", ":"), ensure_ascii=False)
            file.write("\n")


main()
