# Reference tensors for the reader, from transformers' Qwen2-VL with a tiny random configuration,
# and its LoRA gradients from PEFT. Writes tests/data/qwen2vl*.safetensors. The numbers of the
# configuration are repeated in tests/test_reader_reference.c.
import numpy
import torch
import peft
import transformers
from transformers import modeling_rope_utils
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen

import reference

V, IMAGE, PATCH, MERGE = 11, 7, 4, 2
IDS = [[1, 2, 8, IMAGE, IMAGE, 9, 3, 4], [5, 6, 1, 2, 0],
       [8, IMAGE, IMAGE, 9, 4, 3, 8, IMAGE, 9, 10]]
GRIDS = [[(2, 4)], [], [(4, 2), (2, 2)]]  # rows and columns of patches
WANTED = [[1, 7], [4], [4, 5, 9]]


def config(tied):
    text = dict(vocab_size=V, hidden_size=16, intermediate_size=12, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6, hidden_act="silu",
                rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                     mrope_section=[2, 1, 1]),
                bos_token_id=None, eos_token_id=None, pad_token_id=None)
    vision = dict(depth=2, embed_dim=8, hidden_size=16, num_heads=1, mlp_ratio=1, in_channels=3,
                  patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=2)
    c = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE,
                                   vision_start_token_id=8, vision_end_token_id=9,
                                   tie_word_embeddings=tied)
    c._attn_implementation = "eager"
    return c


def patches(image):
    """The image processor's order: merge cells, and (channel, time, y, x) inside a patch."""
    gh, gw = image.shape[1] // PATCH, image.shape[2] // PATCH
    x = numpy.stack([image, image])[None].reshape(1, 2, 3, gh // MERGE, MERGE, PATCH, gw // MERGE,
                                                  MERGE, PATCH)
    return x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(gh * gw, -1)


def inputs():
    rng = numpy.random.default_rng(5)
    result = {}
    for b, grids in enumerate(GRIDS):
        result[f"ids{b}"] = numpy.array(IDS[b], numpy.int32)
        result[f"wanted{b}"] = numpy.array(WANTED[b], numpy.int32)
        for i, (rows, columns) in enumerate(grids):
            result[f"pixels{b}.{i}"] = rng.standard_normal(
                (3, rows * PATCH, columns * PATCH)).astype(numpy.float32)
    return result


def run(given, rounds=lambda pixels: pixels):
    def run_model(model, dtype):
        logits = []
        for b, grids in enumerate(GRIDS):
            extra = {}
            if grids:
                pixels = numpy.concatenate(
                    [patches(given[f"pixels{b}.{i}"]) for i in range(len(grids))])
                extra = dict(
                    pixel_values=reference.tensor(rounds(pixels), dtype),
                    image_grid_thw=torch.tensor([(1, r, c) for r, c in grids]),
                    mm_token_type_ids=torch.tensor([IDS[b]]).eq(IMAGE).int())
            out = model(input_ids=torch.tensor([IDS[b]]), use_cache=False, **extra).logits[0]
            logits.append(out[WANTED[b]])
        return torch.cat(logits)
    return run_model


def rename(name):
    name = name.replace("base_model.model.", "").replace(".default", "").replace(".base_layer", "")
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def with_lora():
    model = qwen.Qwen2VLForConditionalGeneration(config(False))
    return peft.get_peft_model(model, peft.LoraConfig(
        r=3, lora_alpha=6, target_modules=r"(?!.*patch_embed).*\.(qkv|proj|fc1|fc2|q_proj|k_proj|"
        r"v_proj|o_proj|gate_proj|up_proj|down_proj)"))


modules = (qwen, modeling_rope_utils)
whole = reference.dump("qwen2vl.safetensors",
                       lambda: qwen.Qwen2VLForConditionalGeneration(config(False)), run(inputs()),
                       inputs(), modules, rename,
                       run_bf16=run(inputs(), reference.round_bf16))
reference.dump("qwen2vl_tied.safetensors",
               lambda: qwen.Qwen2VLForConditionalGeneration(config(True)), run(inputs()), inputs(),
               modules, rename, given=whole,
               keep=lambda name: "embed_tokens" in name or "layers.1.mlp" in name)
reference.dump("qwen2vl_lora.safetensors", with_lora, run(inputs()), inputs(), modules, rename,
               frozen=lambda name: "lora" not in name, seed=3, given=whole)
