# Reference tensors of whole retrievers, as their checkpoint folders describe them: six tiny random
# configurations of each family. Both towers run in f32 and f64, with the gradient of every
# parameter, and in bf16. The originals: timm's Eva and JinaBERT for jina-clip-v1 (see jina_text.py
# for --jina-text, without which this family is left out), transformers for CLIP and for BERT
# with mean or first-token pooling, open_clip for its own towers and for BiomedCLIP's (timm's ViT
# and a BERT behind its head). Weights, pixels and loss weights are made by a formula (reference.py,
# tests/model_check.h), so that a fixture holds what cannot be made again: tests/data/
# retriever_FAMILY.safetensors, read by tests/test_retriever_reference.c, has for case K
#   metadata  K/config        the folder's configuration file
#             K/tensors       "name rank side side ..." of every tensor of the checkpoint, by line
#             K/sizes         for BiomedCLIP, whose configuration names its sizes instead of saying
#                             them: the tiny sizes, as JSON
#   K/ids, K/cu_seqlens       the texts, packed
#   K/out, K/bf16             (images then texts, E) f64; bf16: weights rounded to bf16, the same
#   K/grad                    f64, of all tensors that the towers use, one after the other by name
#   K/error                   largest |f32 - f64| over the runs of reference.measure_f32: of images,
#                             of texts, then of each of those tensors
#   K/bf16_error              |bf16 - f64| of images, of texts
# Made with torch 2.15.0, transformers 5.23.0, timm 1.0.31, open_clip 3.3.0; jina with
# transformers 4.48.3.
import argparse
import json
import os

import numpy
import torch
import timm.layers.pos_embed_sincos
import timm.models.eva
import timm.models.vision_transformer
import transformers
from safetensors.numpy import save_file
from transformers.models.bert import modeling_bert
from transformers.models.clip import modeling_clip

import jina_text
import reference

VIT = (timm.models.eva, timm.layers.pos_embed_sincos, timm.models.vision_transformer)


# ---- texts and pixels ----
def texts_of(case, lengths, V, end=None):
    """Ragged texts without id 0, which some originals do not train; `end` closes each and is in
    none, as EOT is."""
    texts = []
    for i, length in enumerate(lengths):
        u = reference.formula(f"text/{case}/{i}", length)
        text = [1 + int((value + 1) / 2 * (V - 2)) for value in u]
        texts.append(text[:-1] + [end] if end else text)
    return texts


def padded(texts, pad, longest=None):
    longest = longest or max(map(len, texts))
    ids = torch.tensor([t + [pad] * (longest - len(t)) for t in texts])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts])
    return ids, mask


def pixels_of(case, B, S, dtype):
    """Multiples of 1/64 in [-2, 2): also bf16 holds them."""
    values = numpy.floor(reference.formula(f"pixels/{case}", B * 3 * S * S) * 128) / 64
    return torch.from_numpy(values.reshape(B, 3, S, S)).to(dtype)


def mean_of(hidden, mask):
    mask = mask.to(hidden.dtype)
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


# ---- families: the towers as one module, its run, the checkpoint's names, the configuration ----
class Both(torch.nn.Module):
    def __init__(self, **parts):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.ones([]))
        for name, part in parts.items():
            setattr(self, name, part)


class Family:
    modules = ()
    pooling = None
    sizes = None

    def text(self, model, dtype, texts):
        raise NotImplementedError

    def image(self, model, pixels):
        raise NotImplementedError

    def name(self, name):
        return name


class Jina(Family):
    modules = VIT
    PAIRS = (("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.norm", "mlp.ffn_ln"),
             ("mlp.fc2", "mlp.w3"), ("attn.norm", "attn.inner_attn_ln"),
             ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"))

    def __init__(self, S, P, C, H, L, ratio, V, textH, textF, textL):
        code, text_of = jina_text.original(options.jina_text)
        self.modules = VIT + (code,)
        self.S, self.V = S, V
        self.config = {
            "model_type": "jina_clip", "add_projections": False, "logit_scale_init_value": 2.6592,
            "projection_dim": C, "torch_dtype": "float32",
            "text_config": {
                "embed_dim": C, "hf_model_name_or_path": "jinaai/jina-bert-flash-implementation",
                "hf_model_config_kwargs": {
                    "use_flash_attn": False, "vocab_size": V, "hidden_size": C,
                    "num_attention_heads": textH, "intermediate_size": textF,
                    "num_hidden_layers": textL},
                "model_type": "jina_clip_text", "pooler_type": "mean_pooler", "proj_bias": False,
                "proj_type": None, "pad_token_id": None},
            "vision_config": {
                "embed_dim": C, "fused_layer_norm": False, "head_width": C // H, "image_size": S,
                "intp_freq": False, "layers": L, "ls_init_value": None, "mlp_ratio": ratio,
                "model_type": "jina_clip_vision", "naive_swiglu": True, "patch_dropout": 0.1,
                "patch_size": P, "post_norm": False, "pt_hw_seq_len": S // P, "qkv_bias": True,
                "rope_embeddings": True, "subln": True, "width": C, "x_attention": True}}
        self.build = lambda: Both(
            vision_model=timm.models.eva.Eva(
                img_size=S, patch_size=P, num_classes=0, global_pool="token", embed_dim=C, depth=L,
                num_heads=H, qkv_fused=False, mlp_ratio=ratio, swiglu_mlp=True, scale_mlp=True,
                scale_attn_inner=True, use_rot_pos_emb=True, rope_type="cat",
                norm_layer=lambda d, **k: torch.nn.LayerNorm(d, eps=1e-6)),
            text_model=text_of(V, C, textL, textH, textF, 16))

    def image(self, model, pixels):
        return model.vision_model(pixels)

    def text(self, model, dtype, texts):
        ids, mask = padded(texts, 0)
        return mean_of(model.text_model(ids, attention_mask=mask)[0], mask)

    def name(self, name):
        if name.startswith("text_model."):
            return jina_text.checkpoint_name(name).replace("text_model.", "text_model.transformer.")
        for theirs, ours in self.PAIRS:
            name = name.replace(theirs, ours)
        return name


class Clip(Family):
    modules = (modeling_clip,)

    def __init__(self, S, P, C, H, F, L, V, textC, textH, textF, textL, E, context, act, has_eos):
        self.S, self.V, self.end = S, V, V - 1
        shared = {"hidden_act": act, "layer_norm_eps": 1e-5}
        vision = dict(shared, hidden_size=C, intermediate_size=F, num_hidden_layers=L,
                      num_attention_heads=H, image_size=S, patch_size=P)
        text = dict(shared, vocab_size=V, hidden_size=textC, intermediate_size=textF,
                    num_hidden_layers=textL, num_attention_heads=textH,
                    max_position_embeddings=context, eos_token_id=V - 1 if has_eos else 2)
        self.config = {"model_type": "clip", "projection_dim": E, "logit_scale_init_value": 2.6592,
                       "vision_config": vision, "text_config": text}
        config = transformers.CLIPConfig(
            projection_dim=E, vision_config=dict(vision, projection_dim=E),
            text_config=dict(text, projection_dim=E, bos_token_id=None, pad_token_id=None))
        config._attn_implementation = "sdpa"
        self.build = lambda: transformers.CLIPModel(config)

    def image(self, model, pixels):
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return model.visual_projection(pooled)

    def text(self, model, dtype, texts):
        pooled = model.text_model(input_ids=padded(texts, self.end)[0]).pooler_output
        return model.text_projection(pooled)


class OpenClip(Family):
    def __init__(self, S, P, C, D, ratio, L, V, textC, textH, textL, E, context, is_quick):
        import open_clip.model
        import open_clip.transformer
        self.modules = (open_clip.transformer, open_clip.model)
        self.S, self.V, self.end, self.context = S, V, V - 1, context
        model = {"embed_dim": E, "quick_gelu": is_quick,
                 "vision_cfg": {"image_size": S, "layers": L, "width": C, "patch_size": P,
                                "head_width": D, "mlp_ratio": ratio},
                 "text_cfg": {"context_length": context, "vocab_size": V, "width": textC,
                              "heads": textH, "layers": textL}}
        self.config = {"model_cfg": model, "preprocess_cfg": {}}
        self.build = lambda: open_clip.model.CLIP(**model)

    def image(self, model, pixels):
        return model.encode_image(pixels)

    def text(self, model, dtype, texts):
        return model.encode_text(padded(texts, 0, self.context)[0])


class BiomedClip(Family):
    def __init__(self, S, P, C, H, L, V, textC, textH, textF, textL, E, pooler):
        import open_clip.hf_model
        import open_clip.timm_model
        self.modules = VIT + (modeling_bert, open_clip.hf_model, open_clip.timm_model)
        self.S, self.V = S, V
        self.sizes = dict(S=S, P=P, C=C, H=H, F=4 * C, L=L, V=V, textC=textC, textH=textH,
                          textF=textF, textL=textL, max_T=16, E=E, head=(textC + E) // 2)
        self.config = {
            "model_cfg": {
                "embed_dim": 512,
                "vision_cfg": {"timm_model_name": "vit_base_patch16_224",
                               "timm_model_pretrained": False, "timm_pool": "",
                               "timm_proj": "linear", "image_size": 224},
                "text_cfg": {"hf_model_name":
                                 "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                             "hf_tokenizer_name":
                                 "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                             "hf_proj_type": "mlp", "hf_pooler_type": pooler,
                             "context_length": 256}},
            "preprocess_cfg": {}}
        bert = transformers.BertConfig(
            vocab_size=V, hidden_size=textC, num_hidden_layers=textL, num_attention_heads=textH,
            intermediate_size=textF, max_position_embeddings=16, hidden_act="gelu",
            layer_norm_eps=1e-12)
        bert._attn_implementation = "sdpa"

        def build():
            def create_model(name, pretrained=False, **options):
                tower = timm.models.vision_transformer.VisionTransformer(
                    patch_size=P, embed_dim=C, depth=L, num_heads=H, **dict(options, img_size=S))
                tower.default_cfg = {}
                return tower
            open_clip.timm_model.timm.create_model = create_model
            return Both(
                visual=open_clip.timm_model.TimmModel("tiny", E, image_size=S, pool="",
                                                      proj="linear"),
                text=open_clip.hf_model.HFTextEncoder("tiny", E, config=bert, pooler_type=pooler,
                                                      proj_type="mlp"))
        self.build = build

    def image(self, model, pixels):
        return model.visual(pixels)

    def text(self, model, dtype, texts):
        return model.text(padded(texts, 0)[0])


class Bert(Family):
    modules = (modeling_bert,)
    S = 0

    def __init__(self, V, C, H, F, L, types, max_T, is_first):
        self.V, self.is_first = V, is_first
        self.config = {"model_type": "bert", "hidden_act": "gelu", "vocab_size": V,
                       "hidden_size": C, "num_attention_heads": H, "num_hidden_layers": L,
                       "intermediate_size": F, "type_vocab_size": types, "layer_norm_eps": 1e-12,
                       "max_position_embeddings": max_T, "position_embedding_type": "absolute"}
        if is_first:
            self.pooling = {"word_embedding_dimension": C, "pooling_mode_cls_token": True,
                            "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
        config = transformers.BertConfig(**self.config)
        config._attn_implementation = "sdpa"
        self.build = lambda: transformers.BertModel(config)

    def text(self, model, dtype, texts):
        ids, mask = padded(texts, 0)
        hidden = model(ids, attention_mask=mask).last_hidden_state
        return hidden[:, 0] if self.is_first else mean_of(hidden, mask)


# ---- measuring ----
def run_of(family, case, B, texts):
    def run(model, dtype):
        outs = [family.image(model, pixels_of(case, B, family.S, dtype))] if family.S else []
        outs.append(family.text(model, dtype, texts))
        return torch.cat(outs)
    return run


def worst(values, truth):
    return numpy.abs(values.astype(numpy.float64) - truth).max()


def measure_case(family, key, B, lengths):
    """The tensors and the metadata of one case."""
    texts = texts_of(key, lengths, family.V, getattr(family, "end", None))
    run = run_of(family, key, B, texts)
    with reference.precision(torch.float32, family.modules):
        shapes = {n: tuple(p.shape) for n, p in family.build().named_parameters()}
    made = reference.formula_weights({family.name(n): s for n, s in shapes.items()})
    weights = {n: made[family.name(n)] for n in shapes}
    rows = B * bool(family.S) + len(texts)
    with reference.precision(torch.float32, family.modules), torch.no_grad():
        E = run(family.build().eval(), torch.float32).shape[1]
    dout = reference.formula(f"dout/{key}", rows * E, 0.0, 1.7).astype(numpy.float32)
    inputs = {"dout": dout.reshape(rows, E)}
    nothing = lambda name: False
    truth = reference.measure(family.build, run, weights, inputs, nothing, 1, torch.float64,
                              family.modules)
    # A parameter that nothing reads (a pooler, logit_scale) has no part in the towers.
    used = sorted((n for n in shapes if not is_unused(family, n)), key=family.name)
    split = B * bool(family.S)
    errors = []
    for values in reference.measure_f32(family.build, run, weights, inputs, nothing, 1,
                                        family.modules):
        off = [worst(values["out"][:split], truth["out"][:split]) if split else 0,
               worst(values["out"][split:], truth["out"][split:])]
        errors.append(off + [worst(values["grad/" + n], truth["grad/" + n]) for n in used])
    error = numpy.max(errors, axis=0)
    rounded = {}
    for dtype in (torch.bfloat16, torch.float64):
        with reference.precision(dtype, family.modules), torch.no_grad():
            model = family.build().eval()
            for n, parameter in model.named_parameters():
                values = reference.round_bf16(weights[n].ravel()).reshape(weights[n].shape)
                parameter.copy_(reference.tensor(values, dtype))
            rounded[dtype] = run(model, dtype).double().numpy()
    exact = rounded[torch.float64]
    tensors = {
        "ids": numpy.array(sum(texts, []), numpy.int32),
        "cu_seqlens": numpy.cumsum([0] + list(lengths)).astype(numpy.int32),
        "out": truth["out"], "bf16": exact,
        "grad": numpy.concatenate([truth["grad/" + n].ravel() for n in used]),
        "error": error,
        "bf16_error": numpy.array(
            [worst(rounded[torch.bfloat16][:split], exact[:split]) if split else 0,
             worst(rounded[torch.bfloat16][split:], exact[split:])])}
    lines = [" ".join([family.name(n), str(len(s)), *map(str, s)]) for n, s in shapes.items()]
    metadata = {"config": json.dumps(family.config), "tensors": "\n".join(sorted(lines))}
    if family.sizes:
        metadata["sizes"] = json.dumps(family.sizes)
    if family.pooling:
        metadata["pooling"] = json.dumps(family.pooling)
    print(f"  {key}: {len(used)} tensors, {tensors['grad'].size} parameters, f32 error "
          f"{error[:2]} of {numpy.abs(truth['out']).max():.3g}, bf16 {tensors['bf16_error']}")
    return tensors, metadata


def is_unused(family, name):
    return "pooler" in name or name == "logit_scale"


def dump(file, cases):
    tensors, metadata = {}, {"format": "pt", "torch": torch.__version__}
    for k, (family, B, lengths) in enumerate(cases):
        one, about = measure_case(family, f"{file}/{k}", B, lengths)
        tensors.update({f"{k}/{n}": numpy.ascontiguousarray(t) for n, t in one.items()})
        metadata.update({f"{k}/{n}": text for n, text in about.items()})
    path = os.path.join(reference.DATA, f"retriever_{file}.safetensors")
    save_file(tensors, path, metadata=metadata)
    os.chmod(path, 0o644)
    print(f"{path}: {os.path.getsize(path)} bytes")


parser = argparse.ArgumentParser()
parser.add_argument("--jina-text", metavar="DIR")
parser.add_argument("families", nargs="*")
options = parser.parse_args()
CASES = {
    "clip": lambda: [
        (Clip(12, 4, 8, 2, 12, 2, 13, 6, 3, 10, 2, 5, 8, "quick_gelu", False), 2, [4, 1, 6]),
        (Clip(8, 4, 4, 1, 16, 1, 30, 8, 2, 10, 1, 8, 12, "quick_gelu", True), 1, [12]),
        (Clip(15, 5, 6, 3, 20, 1, 9, 6, 1, 8, 2, 3, 7, "gelu", True), 3, [7, 2]),
        (Clip(8, 2, 16, 4, 20, 1, 17, 12, 4, 16, 1, 12, 9, "quick_gelu", False), 1, [3, 9, 2, 5]),
        (Clip(6, 6, 6, 2, 9, 3, 11, 8, 4, 12, 2, 7, 6, "gelu", False), 4, [2, 6]),
        (Clip(14, 7, 8, 2, 10, 1, 24, 16, 2, 18, 1, 9, 10, "quick_gelu", True), 2, [10, 5, 7]),
    ],
    "open_clip": lambda: [
        (OpenClip(12, 4, 8, 4, 1.5, 2, 13, 6, 3, 2, 5, 8, True), 2, [4, 1, 6]),
        (OpenClip(8, 4, 8, 8, 2.0, 1, 30, 8, 2, 1, 8, 12, True), 1, [12]),
        (OpenClip(15, 5, 6, 2, 3.0, 1, 9, 6, 1, 2, 3, 7, False), 3, [7, 2]),
        (OpenClip(8, 2, 16, 4, 1.25, 1, 17, 8, 4, 1, 10, 9, True), 1, [3, 9, 2, 5]),
        (OpenClip(6, 6, 6, 3, 1.51, 3, 11, 8, 4, 2, 7, 6, False), 4, [2, 6]),
        (OpenClip(14, 7, 8, 4, 2.0, 1, 24, 12, 2, 1, 9, 10, True), 2, [10, 5, 7]),
    ],
    "biomedclip": lambda: [
        (BiomedClip(12, 4, 4, 2, 2, 13, 6, 3, 12, 2, 5, "cls_last_hidden_state_pooler"), 2,
         [4, 1, 6]),
        (BiomedClip(8, 4, 8, 1, 1, 30, 8, 2, 10, 1, 8, "cls_last_hidden_state_pooler"), 1, [12]),
        (BiomedClip(15, 5, 6, 3, 1, 9, 6, 1, 8, 2, 3, "mean_pooler"), 3, [7, 2]),
        (BiomedClip(8, 2, 8, 2, 1, 17, 16, 4, 20, 1, 12, "cls_last_hidden_state_pooler"), 1,
         [3, 9, 2, 5]),
        (BiomedClip(6, 6, 6, 2, 3, 11, 8, 4, 12, 2, 7, "cls_last_hidden_state_pooler"), 4, [2, 6]),
        (BiomedClip(14, 7, 8, 2, 1, 24, 12, 2, 18, 1, 17, "cls_last_hidden_state_pooler"), 2,
         [10, 5, 7]),
    ],
    "bert": lambda: [
        (Bert(13, 12, 3, 20, 2, 2, 8, False), 0, [4, 1, 6]),
        (Bert(30, 8, 2, 10, 1, 2, 12, False), 0, [12]),
        (Bert(9, 6, 1, 8, 3, 1, 7, True), 0, [7, 2]),
        (Bert(17, 20, 4, 24, 1, 3, 9, False), 0, [3, 9, 2, 5]),
        (Bert(11, 8, 4, 24, 2, 2, 6, True), 0, [2, 6]),
        (Bert(24, 24, 2, 18, 1, 2, 16, False), 0, [10, 16, 7]),
    ],
    "jina": lambda: [
        (Jina(12, 4, 8, 2, 2, 0.75, 13, 4, 12, 2), 2, [4, 1, 6]),
        (Jina(8, 4, 8, 1, 1, 2.6667, 30, 1, 12, 1), 1, [12]),
        (Jina(15, 5, 12, 3, 1, 0.6667, 9, 3, 8, 1), 3, [7, 2]),
        (Jina(8, 2, 12, 1, 1, 1.5, 17, 6, 8, 1), 1, [3, 9, 2, 5]),
        (Jina(6, 3, 8, 2, 3, 1.5, 11, 2, 16, 2), 4, [2, 6]),
        (Jina(14, 7, 16, 2, 1, 0.6667, 24, 8, 10, 1), 2, [10, 5, 7]),
    ],
}
for family in options.families or (n for n in CASES if n != "jina" or options.jina_text):
    dump(family, CASES[family]())
