#!/usr/bin/env python3
"""jomed generate beside transformers' generate: tiny Qwen2-VL and Pixtral models with random
weights, two pictures, greedy answers with and without a repetition penalty. Texts must be equal.

    tools/verify_generate.py TOKENIZERS     the folder that tools/vectors_prompts.py reads

Checked with transformers 5.23.0, tokenizers 0.23.3, torch 2.15.0. Weights that another
version of torch draws may hold two scores closer than f32 rounding, where either text is right.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers
from PIL import Image

import vectors_prompts

PROGRAM = os.path.join(vectors_prompts.ROOT, "build", "bin", "jomed")
SIZES = ((56, 84), (140, 56))
QUESTION = "What differs?"
TOKENS = 40
LANGUAGE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2)
PIXELS = dict(image_mean=[0.48145466, 0.4578275, 0.40821073],
              image_std=[0.26862954, 0.26130258, 0.27577711])


def qwen(where):
    tokenizer = vectors_prompts.qwen_tokenizer(where)
    model = transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(
        text_config=dict(vocab_size=151700, rms_norm_eps=1e-6, tie_word_embeddings=True, **LANGUAGE,
                         rope_parameters=dict(rope_type="default", rope_theta=1e4,
                                              mrope_section=[2, 1, 1])),
        vision_config=dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2),
        image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
        vision_end_token_id=151653, tie_word_embeddings=True))
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(), tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=vectors_prompts.QWEN_TEMPLATE)
    pictures = dict(image_processor_type="Qwen2VLImageProcessor", min_pixels=3136,
                    max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2)
    return model, processor, pictures, False, dict(eos_token_id=151645, pad_token_id=151643)


def pixtral(where):
    tokenizer = vectors_prompts.tekken_tokenizer(where)
    model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(
        text_config=dict(model_type="mistral", vocab_size=131072, head_dim=8, sliding_window=None,
                         tie_word_embeddings=True, **LANGUAGE),
        vision_config=dict(model_type="pixtral", hidden_size=16, intermediate_size=24,
                           num_hidden_layers=2, num_attention_heads=2, hidden_act="silu",
                           patch_size=16, image_size=1024, head_dim=8),
        image_token_index=10, vision_feature_layer=-1, vision_feature_select_strategy="full",
        projector_hidden_act="gelu", multimodal_projector_bias=True, tie_word_embeddings=True))
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(), tokenizer=tokenizer, patch_size=16,
        chat_template=vectors_prompts.PIXTRAL_TEMPLATE, image_token="[IMG]",
        image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    pictures = dict(image_processor_type="PixtralImageProcessor", size=dict(longest_edge=1024),
                    patch_size=dict(height=16, width=16))
    return model, processor, pictures, True, dict(eos_token_id=2, pad_token_id=2)


def draw(model):
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() >= 2:
                value.normal_(0, 0.3 if "embed" in name else (2 / value[0].numel()) ** 0.5)


def write_folder(folder, model, processor, pictures):
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as out:
        json.dump({**pictures, **PIXELS}, out)
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    if config["model_type"] == "llava":  # what equals a default is not written
        config.update(multimodal_projector_bias=True, vision_feature_layer=-1,
                      vision_feature_select_strategy="full")
        json.dump(config, open(path, "w"))


def ours(folder, images, penalty):
    done = subprocess.run(
        [PROGRAM, "generate", "log.level=error", "reader.model=" + folder, "generate.sample=false",
         "generate.prompt=" + QUESTION, f"generate.image=[{','.join(images)}]",
         f"generate.max_tokens={TOKENS}", f"generate.repetition_penalty={penalty}"],
        capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


def compare(name, made, folder):
    model, processor, pictures, nests, special = made
    model.eval()
    draw(model)
    write_folder(folder, model, processor, pictures)
    random = numpy.random.default_rng(0)
    shown, paths = [], []
    for number, (width, height) in enumerate(SIZES):
        shown.append(Image.fromarray(random.integers(0, 255, (height, width, 3), dtype="uint8")))
        paths.append(os.path.join(folder, f"{number}.png"))
        shown[-1].save(paths[-1])
    turns = [("user", [*SIZES, QUESTION])]
    prompt = processor.apply_chat_template(vectors_prompts.chat(turns), tokenize=False,
                                           add_generation_prompt=True)
    batch = processor(text=[prompt], images=[shown] if nests else shown, return_tensors="pt")
    equal = True
    for penalty in (1.0, 1.2):
        out = model.generate(**batch, do_sample=False, max_new_tokens=TOKENS,
                             repetition_penalty=penalty, **special)
        want = processor.tokenizer.decode(out[0][batch["input_ids"].shape[1]:],
                                          skip_special_tokens=True)
        got = ours(folder, paths, penalty)
        equal &= got == want
        print(f"{name} penalty {penalty}: {'equal' if got == want else 'DIFFERENT'}")
        if got != want:
            print(f"  transformers {want!r}\n  jomed        {got!r}")
    return equal


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    equal = True
    for name, make in (("qwen2vl", qwen), ("pixtral", pixtral)):
        with tempfile.TemporaryDirectory() as folder:
            equal &= compare(name, make(sys.argv[1]), folder)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
