# Reference tensors for the reader, from transformers (Qwen2-VL, Llava with a Pixtral tower and a
# Mistral language model, Llama) and PEFT, with small random configurations: logits and the gradient
# of every parameter, and the logits of a bf16 run. Writes tests/data/reader_*.safetensors, with the
# configuration as transformers saves it in the file's metadata, under "config". Weights are
# formula_weights, so they are not stored. Made with transformers 5.23.0, peft 0.21.2, torch 2.15.0.
import json
import sys

import numpy
import peft
import torch
import transformers
from transformers import modeling_rope_utils
from transformers.models.llama import modeling_llama
from transformers.models.llava import modeling_llava
from transformers.models.mistral import modeling_mistral
from transformers.models.pixtral import modeling_pixtral
from transformers.models.qwen2_vl import modeling_qwen2_vl

import reference

IMAGE, START, END = 3, 1, 2  # for Pixtral, START is [IMG_BREAK]
NO_TOKENS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)


# ---- configurations ----
# prompts: lists of texts (a number of tokens) and images (rows and columns of patches).
def qwen2vl(V, C, H, Hkv, F, L, sections, theta, vision, tied, prompts):
    c, heads, ratio, depth, patch, merge, frames = vision
    text = dict(vocab_size=V, hidden_size=C, intermediate_size=F, num_hidden_layers=L,
                num_attention_heads=H, num_key_value_heads=Hkv, rms_norm_eps=1e-6,
                hidden_act="silu", rope_parameters=dict(rope_type="default", rope_theta=theta,
                                                        mrope_section=sections), **NO_TOKENS)
    eyes = dict(depth=depth, embed_dim=c, hidden_size=C, num_heads=heads, mlp_ratio=ratio,
                in_channels=3, patch_size=patch, spatial_merge_size=merge,
                temporal_patch_size=frames)
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=eyes, image_token_id=IMAGE,
                                        vision_start_token_id=START, vision_end_token_id=END,
                                        tie_word_embeddings=tied)
    return config, prompts


def pixtral(V, C, H, Hkv, D, F, L, theta, vision, tied, prompts):
    c, heads, width, depth, patch = vision
    text = dict(model_type="mistral", vocab_size=V, hidden_size=C, intermediate_size=F,
                num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=Hkv, head_dim=D,
                rms_norm_eps=1e-5, hidden_act="silu", sliding_window=None,
                rope_parameters=dict(rope_type="default", rope_theta=theta), **NO_TOKENS)
    eyes = dict(model_type="pixtral", hidden_size=c, intermediate_size=width,
                num_hidden_layers=depth, num_attention_heads=heads, image_size=16 * patch,
                patch_size=patch, hidden_act="silu",
                rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    config = transformers.LlavaConfig(text_config=text, vision_config=eyes, image_token_id=IMAGE,
                                      projector_hidden_act="gelu", vision_feature_layer=-1,
                                      vision_feature_select_strategy="full",
                                      tie_word_embeddings=tied)
    return config, prompts


def llama(V, C, H, Hkv, D, F, L, theta, tied, prompts):
    return transformers.LlamaConfig(
        vocab_size=V, hidden_size=C, intermediate_size=F, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=Hkv, head_dim=D, rms_norm_eps=1e-5,
        hidden_act="silu", rope_parameters=dict(rope_type="default", rope_theta=theta),
        tie_word_embeddings=tied, **NO_TOKENS), prompts


CASES = {
    "qwen2vl_1": qwen2vl(11, 16, 2, 1, 12, 2, [2, 1, 1], 1e4, (8, 1, 1, 2, 4, 2, 2), False,
                         [[3, (2, 4), 2], [5], [(4, 2), 2, (2, 2), 1]]),
    "qwen2vl_2": qwen2vl(13, 16, 4, 2, 10, 1, [1, 1, 0], 1e6, (8, 2, 2, 1, 2, 2, 2), True,
                         [[1, (4, 6), 4]]),
    "qwen2vl_3": qwen2vl(9, 24, 3, 3, 8, 1, [0, 2, 2], 500.0, (12, 3, 1, 1, 3, 1, 2), False,
                         [[(1, 3), (2, 1), 1], [2, (3, 3), 2, (1, 1), 3]]),
    "qwen2vl_4": qwen2vl(17, 8, 1, 1, 24, 3, [1, 1, 2], 1e4, (4, 1, 4, 2, 2, 2, 1), True,
                         [[7], [2, (2, 2), 1], [1], [(2, 6), 5]]),
    "qwen2vl_5": qwen2vl(20, 12, 3, 1, 6, 2, [1, 0, 1], 1e3, (8, 1, 2, 1, 2, 2, 2), False,
                         [[2, (6, 2), 1, (2, 2), 1, (4, 4), 2]]),
    "qwen2vl_6": qwen2vl(10, 32, 2, 2, 5, 1, [3, 3, 2], 1e6, (4, 1, 3, 1, 1, 3, 3), True,
                         [[4, (3, 6), 3], [9]]),
    "pixtral_1": pixtral(11, 16, 4, 2, 8, 12, 2, 1e3, (16, 2, 12, 2, 4), False,
                         [[2, (2, 3), 2], [5], [(1, 2), 2, (2, 1), 1]]),
    "pixtral_2": pixtral(13, 12, 2, 2, 6, 8, 1, 1e6, (8, 2, 6, 1, 2), True,
                         [[1, (4, 5), 3]]),
    "pixtral_3": pixtral(9, 20, 3, 1, 4, 16, 1, 1e9, (8, 1, 20, 2, 3), False,
                         [[(1, 1), (3, 1), 2], [3, (1, 6), 1, (2, 2), 2]]),
    "pixtral_4": pixtral(17, 8, 1, 1, 16, 10, 3, 1e4, (4, 1, 5, 3, 2), False,
                         [[6], [1], [1, (2, 4), 3]]),
    "pixtral_5": pixtral(20, 12, 6, 3, 2, 7, 2, 100.0, (12, 3, 9, 1, 1), True,
                         [[1, (3, 3), 1, (2, 2), 1, (1, 4), 1]]),
    "pixtral_6": pixtral(10, 24, 2, 1, 10, 5, 1, 1e5, (16, 4, 4, 1, 2), False,
                         [[2, (5, 3), 4], [8]]),
    "llama_1": llama(12, 16, 4, 2, 4, 20, 2, 1e4, True, [[6], [3]]),
    "llama_2": llama(19, 12, 2, 1, 8, 9, 3, 5e5, False, [[11]]),
    "llama_3": llama(8, 24, 3, 3, 8, 16, 1, 1e4, True, [[1], [2], [9]]),
    "llama_4": llama(30, 8, 2, 2, 4, 32, 4, 100.0, False, [[5], [7]]),
    "llama_5": llama(15, 32, 8, 1, 2, 6, 1, 1e6, False, [[17]]),
    "llama_6": llama(11, 10, 1, 1, 10, 14, 2, 1e4, True, [[4], [4], [4], [4]]),
}
LORA = {"qwen2vl_1": r"(?!.*patch_embed).*\.(qkv|proj|fc1|fc2|q_proj|k_proj|v_proj|o_proj|"
                     r"gate_proj|up_proj|down_proj)",
        "pixtral_1": r".*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"}
MODELS = {"qwen2vl": modeling_qwen2_vl.Qwen2VLForConditionalGeneration,
          "pixtral": modeling_llava.LlavaForConditionalGeneration,
          "llama": modeling_llama.LlamaForCausalLM}
MODULES = {"qwen2vl": (modeling_qwen2_vl, modeling_rope_utils),
           "pixtral": (modeling_llava, modeling_mistral, modeling_pixtral, modeling_rope_utils),
           "llama": (modeling_llama, modeling_rope_utils)}


# ---- prompts ----
def image_ids(family, config, rows, columns):
    if family == "qwen2vl":
        merge = config.vision_config.spatial_merge_size
        return [START] + [IMAGE] * (rows * columns // merge**2) + [END]
    lines = [[IMAGE] * columns + [START] for _ in range(rows)]
    lines[-1][-1] = END
    return sum(lines, [])


def inputs(family, config, prompts, seed):
    """ids, pixels and wanted rows: the last, and some before it."""
    rng = numpy.random.default_rng(seed)
    vocabulary = getattr(config, "text_config", config).vocab_size
    result = {}
    for b, parts in enumerate(prompts):
        ids, images = [], 0
        for part in parts:
            if isinstance(part, tuple):
                side = config.vision_config.patch_size
                ids += image_ids(family, config, *part)
                result[f"pixels{b}.{images}"] = rng.standard_normal(
                    (3, part[0] * side, part[1] * side)).astype(numpy.float32)
                images += 1
            else:
                ids += [int(i) for i in rng.integers(4, vocabulary, part)]
        result[f"ids{b}"] = numpy.array(ids, numpy.int32)
        wanted = [t for t in range(len(ids) - 1) if rng.random() < 0.25] + [len(ids) - 1]
        result[f"wanted{b}"] = numpy.array(wanted, numpy.int32)
    return result


def images_of(given, b):
    count = 0
    while f"pixels{b}.{count}" in given:
        count += 1
    return [given[f"pixels{b}.{i}"] for i in range(count)]


def patches(image, vision):
    """The image processor's order: merge cells, and (channel, time, y, x) inside a patch."""
    side, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    gh, gw = image.shape[1] // side, image.shape[2] // side
    x = numpy.stack([image] * frames)[None].reshape(1, frames, 3, gh // merge, merge, side,
                                                    gw // merge, merge, side)
    return x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(gh * gw, -1)


def qwen2vl_extra(images, vision, ids, dtype, rounds):
    pixels = numpy.concatenate([patches(image, vision) for image in images])
    grid = [(1, i.shape[1] // vision.patch_size, i.shape[2] // vision.patch_size) for i in images]
    return dict(pixel_values=reference.tensor(rounds(pixels), dtype),
                image_grid_thw=torch.tensor(grid), mm_token_type_ids=ids.eq(IMAGE).int())


def pixtral_extra(images, vision, ids, dtype, rounds):
    sizes = [i.shape[1:] for i in images]
    pixels = numpy.zeros((len(images), 3, max(h for h, _ in sizes), max(w for _, w in sizes)),
                         numpy.float32)
    for i, image in enumerate(images):  # padded right and below, as the processor does
        pixels[i, :, :image.shape[1], :image.shape[2]] = image
    return dict(pixel_values=reference.tensor(rounds(pixels), dtype),
                image_sizes=torch.tensor(sizes))


def runner(family, config, given, rounds=lambda pixels: pixels):
    extra_of = dict(qwen2vl=qwen2vl_extra, pixtral=pixtral_extra).get(family)

    def run(model, dtype):
        logits = []
        for b in range(sum(name.startswith("ids") for name in given)):
            ids = torch.tensor(given[f"ids{b}"]).long()[None]
            images = images_of(given, b)
            extra = extra_of(images, config.vision_config, ids, dtype, rounds) if images else {}
            out = model(input_ids=ids, use_cache=False, **extra).logits[0]
            logits.append(out[torch.tensor(given[f"wanted{b}"]).long()])
        return torch.cat(logits)
    return run


# ---- names ----
def renamer(family):
    def rename(name):
        name = name.replace("base_model.model.", "").replace(".default", "")
        name = name.replace(".base_layer", "")
        if family == "qwen2vl":
            return name.replace("model.visual.", "visual.").replace("model.language_model.",
                                                                    "model.")
        if family == "llama":
            return name
        name = name.replace("model.vision_tower.", "vision_tower.")
        name = name.replace("model.multi_modal_projector.", "multi_modal_projector.")
        if name.startswith("lm_head"):
            return "language_model." + name
        return name.replace("model.language_model.", "language_model.model.")
    return rename


def dump(case, config, prompts, seed):
    family = case.split("_")[0]
    given = inputs(family, config, prompts, seed)
    text = json.dumps(json.loads(config.to_json_string(use_diff=False)))
    common = dict(modules=MODULES[family], rename=renamer(family), seed=seed, is_formula=True)

    def build(attention="eager"):
        config._attn_implementation = attention
        return MODELS[family](config)

    reference.dump(f"reader_{case}.safetensors", build, runner(family, config, given), given,
                   others=[lambda: build("sdpa")], metadata=dict(config=text), **common,
                   run_bf16=runner(family, config, given, reference.round_bf16))
    if case in LORA:
        lora = peft.LoraConfig(r=3, lora_alpha=6, target_modules=LORA[case])
        reference.dump(f"reader_{case}_lora.safetensors",
                       lambda: peft.get_peft_model(build(), lora), runner(family, config, given),
                       given, others=[lambda: peft.get_peft_model(build("sdpa"), lora)],
                       frozen=lambda name: "lora" not in name, metadata=dict(config=text),
                       **common)


for number, (name, (form, parts)) in enumerate(CASES.items()):
    if len(sys.argv) < 2 or name in sys.argv[1:]:
        dump(name, form, parts, 100 + number)
reference.on_other_kernels()
