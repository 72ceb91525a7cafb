# Reference tensors for the reader, from transformers' Llava with a Pixtral tower and a Mistral
# language model, tiny and random. Writes tests/data/pixtral.safetensors. The numbers of the
# configuration are repeated in tests/test_reader_reference.c.
import numpy
import torch
import transformers
from transformers import modeling_rope_utils
from transformers.models.llava import modeling_llava
from transformers.models.mistral import modeling_mistral
from transformers.models.pixtral import modeling_pixtral

import reference

V, IMAGE, BREAK, END, PATCH = 11, 7, 8, 9, 4
IDS = [[1, 2, IMAGE, IMAGE, IMAGE, BREAK, IMAGE, IMAGE, IMAGE, END, 3, 4], [5, 6, 1, 2, 0],
       [IMAGE, IMAGE, END, 4, 3, IMAGE, BREAK, IMAGE, END, 10]]
GRIDS = [[(2, 3)], [], [(1, 2), (2, 1)]]  # rows and columns of patches
WANTED = [[1, 11], [4], [3, 4, 9]]


def config():
    text = dict(model_type="mistral", vocab_size=V, hidden_size=16, intermediate_size=12,
                num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                rms_norm_eps=1e-5, hidden_act="silu", sliding_window=None,
                rope_parameters=dict(rope_type="default", rope_theta=1000.0),
                bos_token_id=None, eos_token_id=None, pad_token_id=None)
    vision = dict(model_type="pixtral", hidden_size=16, intermediate_size=12, num_hidden_layers=2,
                  num_attention_heads=2, head_dim=8, image_size=16, patch_size=PATCH,
                  hidden_act="silu", rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    c = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE,
                                 image_token_id=IMAGE, projector_hidden_act="gelu",
                                 vision_feature_layer=-1, vision_feature_select_strategy="full",
                                 tie_word_embeddings=False)
    c._attn_implementation = "eager"
    return c


def inputs():
    rng = numpy.random.default_rng(6)
    result = {}
    for b, grids in enumerate(GRIDS):
        result[f"ids{b}"] = numpy.array(IDS[b], numpy.int32)
        result[f"wanted{b}"] = numpy.array(WANTED[b], numpy.int32)
        for i, (rows, columns) in enumerate(grids):
            result[f"pixels{b}.{i}"] = rng.standard_normal(
                (3, rows * PATCH, columns * PATCH)).astype(numpy.float32)
    return result


def run(model, dtype, rounds=lambda pixels: pixels):
    given, logits = inputs(), []
    for b, grids in enumerate(GRIDS):
        extra = {}
        if grids:
            height = PATCH * max(r for r, _ in grids)
            width = PATCH * max(c for _, c in grids)
            pixels = numpy.zeros((len(grids), 3, height, width), numpy.float32)
            for i, (rows, columns) in enumerate(grids):  # padded right and below, as HF does
                pixels[i, :, :rows * PATCH, :columns * PATCH] = given[f"pixels{b}.{i}"]
            extra = dict(pixel_values=reference.tensor(rounds(pixels), dtype),
                         image_sizes=torch.tensor([(r * PATCH, c * PATCH) for r, c in grids]))
        out = model(input_ids=torch.tensor([IDS[b]]), use_cache=False, **extra).logits[0]
        logits.append(out[WANTED[b]])
    return torch.cat(logits)


def rename(name):
    name = name.replace("model.vision_tower.", "vision_tower.")
    name = name.replace("model.multi_modal_projector.", "multi_modal_projector.")
    if name.startswith("lm_head"):
        return "language_model." + name
    return name.replace("model.language_model.", "language_model.model.")


reference.dump("pixtral.safetensors",
               lambda: modeling_llava.LlavaForConditionalGeneration(config()), run, inputs(),
               (modeling_llava, modeling_mistral, modeling_pixtral, modeling_rope_utils), rename,
               run_bf16=lambda model, dtype: run(model, dtype, reference.round_bf16))
