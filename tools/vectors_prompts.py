#!/usr/bin/env python3
"""Prompts of both readers by transformers' processors, and what fine-tuning makes of them.

    tools/vectors_prompts.py TOKENIZERS     the folder with qwen2/ (vocab.json, merges.txt,
                                            added_tokens_qwen2.5.json) and tekken/

Writes tests/data/vectors_prompts.json: token ids of prompt and answer, positions on three axes
(Qwen2-VL). Images are only sizes: the image processors say how many tokens they give. The chat
templates below behave as those published with Qwen2-VL-7B-Instruct and pixtral-12b do for turns
of text and pictures. The targets of fine-tuning are LLaMA-Factory's: the answer and the token that
ends it. Made with transformers 5.23.0, tokenizers 0.23.3, torch 2.15.0.
"""
import base64
import json
import os
import sys

import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
PIXTRAL_TEMPLATE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content[0].text %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
    "<s>{% for m in turns %}{% if m.role == 'user' %}[INST]"
    "{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
    "{% for c in m.content %}"
    "{% if c.type == 'image' %}[IMG]{% else %}{{ c.text }}{% endif %}{% endfor %}[/INST]"
    "{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}</s>{% endif %}{% endfor %}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+")
# passage size or None, query size, instruction, caption, question, answer
CASES = [
    ((56, 84), (84, 56), "", "chest radiograph, no effusion",
     "what is the severity of diabetic retinopathy?", "3"),
    (None, (112, 56), "", "", "Does this breast ultrasound image show signs of cancer?", "Yes"),
    ((60, 100), (224, 224), "", "Cœur normal – café\u0301, 2.5 mm × 3 mm\n(IV)",
     "is there a mass?", "no"),
    ((64, 64), (64, 64), "Answer briefly.\n", "  leading and trailing  ",
     "where is the lesion? ", "left upper lobe"),
    ((28, 200), (200, 28), "", "", "0 - 'Melanoma'\n1 - 'Nevus'\n\nWhat type?", "12,14"),
]


# role and parts: a text, or the size of a picture
CHATS = [
    [("user", ["hello"])],
    [("system", ["Answer in one word."]), ("user", [(56, 84), (84, 56), "which is  larger? "])],
    [("user", ["first ", (64, 64), "and", " second", (28, 112)]), ("assistant", [" A lung.\n"]),
     ("user", ["\nsure?"])],
    [("system", ["Short.\n"]), ("user", ["a"]), ("assistant", ["b"]), ("user", [(56, 56)]),
     ("assistant", ["d"]), ("user", ["e", "f"])],
]


def byte_letters():
    """The letters that stand for bytes in byte-level vocabularies."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(other)}}


def wrap(tokenizer, specials):
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def qwen_tokenizer(where):
    added = json.load(open(os.path.join(where, "qwen2", "added_tokens_qwen2.5.json")))
    made = Tokenizer(models.BPE.from_file(os.path.join(where, "qwen2", "vocab.json"),
                                          os.path.join(where, "qwen2", "merges.txt")))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    tokenizer = wrap(made, sorted(added, key=added.get))
    assert all(tokenizer.convert_tokens_to_ids(t) == i for t, i in added.items())
    return tokenizer


def tekken_tokenizer(where):
    letters, ranks = byte_letters(), {}
    for line in open(os.path.join(where, "tekken", "tekken_v3.tiktoken")):
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    spell = lambda token: "".join(letters[b] for b in token)
    named = json.load(open(os.path.join(where, "tekken", "special_tokens.json")))
    specials = {i: t for t, i in named["pixtral_240911_ids"].items()}
    vocab = {specials.get(i, f"<SPECIAL_{i}>"): i for i in range(1000)}
    vocab.update({spell(t): 1000 + r for t, r in ranks.items()})
    merges = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            if token[:cut] in ranks and token[cut:] in ranks:
                merges.append((rank, ranks[token[:cut]], ranks[token[cut:]],
                               (spell(token[:cut]), spell(token[cut:]))))
    merges.sort(key=lambda m: m[:3])
    made = Tokenizer(models.BPE(vocab, [m[3] for m in merges], ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(TEKKEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return wrap(made, [t for t, i in vocab.items() if i < 1000])


def messages(case):
    passage, _, instruction, caption, question, _ = case
    content = [dict(type="text", text=instruction)] if instruction else []
    if passage:
        content += [dict(type="image"), dict(type="text", text=f"background: {caption}\n\n")]
    content += [dict(type="image"), dict(type="text", text=question)]
    return [dict(role="user", content=content)]


def chat(turns):
    return [dict(role=role, content=[dict(type="text", text=p) if isinstance(p, str)
                                     else dict(type="image", image="x.png") for p in parts])
            for role, parts in turns]


def chat_ids(processor, nests):
    """Ids of every chat; nests: this processor wants a list of pictures per text."""
    out = []
    for turns in CHATS:
        prompt = processor.apply_chat_template(chat(turns), add_generation_prompt=True,
                                               tokenize=False)
        shown = [Image.new("RGB", p) for _, parts in turns for p in parts if isinstance(p, tuple)]
        batch = processor(text=[prompt], images=([shown] if nests else shown) if shown else None,
                          return_tensors="pt")
        out.append(torch.as_tensor(batch["input_ids"])[0].tolist())
    return out


def images(case):
    return [Image.new("RGB", size) for size in case[:2] if size]


def qwen(where):
    tokenizer = qwen_tokenizer(where)
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(), tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
    text = dict(vocab_size=151700, hidden_size=16, intermediate_size=8, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1,
                rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 1, 1]))
    vision = dict(depth=1, embed_dim=8, hidden_size=16, num_heads=1, mlp_ratio=1)
    model = transformers.Qwen2VLModel(transformers.Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=151655, video_token_id=151656,
        vision_start_token_id=151652, vision_end_token_id=151653))
    out = []
    for case in CASES:
        prompt = processor.apply_chat_template(messages(case), add_generation_prompt=True,
                                               tokenize=False)
        batch = processor(text=[prompt], images=images(case), return_tensors="pt")
        ids = batch["input_ids"][0].tolist()
        answer = tokenizer.encode(case[5] + "<|im_end|>", add_special_tokens=False)
        whole = torch.tensor([ids + answer])
        positions, _ = model.get_rope_index(
            input_ids=whole, image_grid_thw=batch["image_grid_thw"],
            mm_token_type_ids=(whole == 151655).int(), attention_mask=torch.ones_like(whole))
        out.append(dict(ids=ids, answer=answer, positions=positions[:, 0].tolist()))
    return out, chat_ids(processor, False)


def pixtral(where):
    tokenizer = tekken_tokenizer(where)
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(), tokenizer=tokenizer, patch_size=16,
        chat_template=PIXTRAL_TEMPLATE, image_token="[IMG]", image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]")
    out = []
    for case in CASES:
        prompt = processor.apply_chat_template(messages(case), tokenize=False)
        batch = processor(text=[prompt], images=[images(case)], return_tensors="pt")
        out.append(dict(ids=torch.as_tensor(batch["input_ids"])[0].tolist(),
                        answer=tokenizer.encode(case[5] + "</s>", add_special_tokens=False)))
    return out, chat_ids(processor, True)


def main():
    where = sys.argv[1]
    names = ("passage", "query", "instruction", "caption", "question", "answer")
    vectors = dict(cases=[dict(zip(names, case)) for case in CASES],
                   chats=[dict(messages=chat(turns)) for turns in CHATS],
                   sizes=[[p for _, parts in turns for p in parts if isinstance(p, tuple)]
                          for turns in CHATS])
    vectors["qwen2vl"], vectors["chats_qwen2vl"] = qwen(where)
    vectors["pixtral"], vectors["chats_pixtral"] = pixtral(where)
    with open(os.path.join(ROOT, "tests", "data", "vectors_prompts.json"), "w") as out:
        json.dump(vectors, out)
        out.write("\n")


if __name__ == "__main__":
    main()
