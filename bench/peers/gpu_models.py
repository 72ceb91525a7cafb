"""Peers of whole models for gpu.py: timm's ViT-B/16, transformers' Qwen2-VL-7B, PEFT's LoRA.

As gpu_ops.py; weights are random and made on the device, in the type. build()'s second value checks
that a result is finite. A row that was shrunk (T below 350, a handful of images) gets a tiny model.
"""
import inspect

import torch
from torch.nn import functional as F
from torch.nn.attention import sdpa_kernel

from gpu_ops import Peer, fastest_sdpa, randn, sizes


def finite(tensors):
    if not all(torch.isfinite(x).all() for x in tensors):
        raise ValueError("its result is not finite")
    return None


# ---- ViT-B/16 ----
def vit(shape, t, copies, device):
    B, = sizes(shape, "B")
    is_training, is_tiny = "fwd+bwd" in shape, B < 256
    side, T = (32, 5) if is_tiny else (224, 197)

    def build(mode):
        import timm
        size = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 4} if is_tiny else {}
        model = timm.create_model("vit_base_patch16_224", num_classes=512, **size).to(device, t)
        pixels = randn(device, t, B, 3, side, side)
        backend, name = fastest_sdpa(B, 4 if is_tiny else 12, T, 16 if is_tiny else 64, t, device,
                                     is_training)
        run = torch.compile(model, mode=mode) if mode else model

        def forward():
            with sdpa_kernel(backend):
                return run(pixels)
        if not is_training:
            model.eval()

            def infer():
                with torch.inference_mode():
                    return forward()
            return [infer], lambda: finite([infer()]), f"which is {name}"
        with torch.no_grad():
            dout = randn(device, t, B, 512)

        def train():
            model.zero_grad(set_to_none=True)
            forward().backward(dout)

        def check():
            train()
            return finite([p.grad for p in model.parameters()])
        return [train], check, f"which is {name}"
    note = "pure type; the fastest SDPA at its shape"
    yield Peer("timm eager", note, lambda: build(None))
    # A training step in CUDA graphs would hold its gradients in their memory.
    mode = "max-autotune-no-cudagraphs" if is_training else "max-autotune"
    yield Peer("timm compiled", f"{mode}; {note}", lambda: build(mode))


# ---- Qwen2-VL-7B ----
def reader_new(T, t, device):
    """The model by its published sizes, and its configuration."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    vision = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 3584,
              "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
            "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "mrope", "rope_type": "default",
                             "mrope_section": [16, 24, 24], "rope_theta": 1e6}}
    ids = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
           "vision_end_token_id": 151653}
    if T < 350:
        vision.update(depth=2, embed_dim=32, num_heads=4, hidden_size=64, patch_size=4)
        text.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, vocab_size=80,
                    rope_scaling={"type": "mrope", "rope_type": "default",
                                  "mrope_section": [2, 3, 3], "rope_theta": 1e4})
        ids = dict(zip(ids, (76, 77, 78, 79)))
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(t)
    try:
        with torch.device(device):
            model = Qwen2VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    return model.to(device), config


class Prompts:
    """Prompts of an image, text, an image, text; all of T tokens, so there is no padding."""

    def __init__(self, model, config, count, T, images, t, device):
        vision = config.vision_config
        side = 18 if T >= 350 else 4
        tokens = side * side // vision.spatial_merge_size ** 2
        patch = 3 * vision.temporal_patch_size * vision.patch_size ** 2
        text = T - 2 * tokens - 4
        row, half = [], text // 2
        for words in (half, text - half):
            row += [config.vision_start_token_id] + [config.image_token_id] * tokens
            row += [config.vision_end_token_id] + [w * 7 % 70 for w in range(words)]
        self.ids = torch.tensor([row] * count, device=device)
        self.is_image = self.ids == config.image_token_id
        self.pixels = randn(device, t, images * side * side, patch)
        self.grid = torch.tensor([[1, side, side]] * images, device=device)
        find = model.model.get_rope_index
        given = {"mm_token_type_ids": self.is_image.int(), "video_grid_thw": None,
                 "image_grid_thw": self.grid[:1].expand(2 * count, 3),
                 "attention_mask": torch.ones_like(self.ids)}
        known = inspect.signature(find).parameters
        self.places = find(self.ids, **{k: v for k, v in given.items() if k in known})[0]

    def plain(self):
        """What a processor hands over: images with each prompt, a mask, no places."""
        return {"input_ids": self.ids, "attention_mask": torch.ones_like(self.ids),
                "mm_token_type_ids": self.is_image.int(), "pixel_values": self.pixels,
                "image_grid_thw": self.grid}

    def lean(self):
        """The same, with what a data loader can know: places, and that nothing is masked."""
        return {"input_ids": self.ids, "mm_token_type_ids": self.is_image.int(),
                "pixel_values": self.pixels, "image_grid_thw": self.grid,
                "position_ids": self.places}


def compile_layers(model):
    """Each decoder layer by itself, so that one compiled layer serves all."""
    for module in model.modules():
        if type(module).__name__ == "Qwen2VLDecoderLayer":
            module.compile()


def score(shape, t, copies, device):
    count, T = sizes(shape, "prompts", "T")
    group = max(g for g in range(1, 26) if count % g == 0)

    def each_image():  # as the original: a batch at a time, every prompt with its two images
        model, config = reader_new(T, t, device)
        model.eval()
        batch = Prompts(model, config, group, T, 2 * group, t, device).plain()

        def run():
            with torch.inference_mode():
                for _ in range(count // group):
                    out = model(**batch, logits_to_keep=1, use_cache=False).logits
            return out
        return [run], lambda: finite([run()])

    def images_once(is_compiled):  # of prompt i: its own image, and that of its query, i modulo 2
        model, config = reader_new(T, t, device)
        model.eval()
        images = count + 2
        prompts = Prompts(model, config, group, T, images, t, device)
        if is_compiled:
            compile_layers(model)
        chosen = [torch.tensor([n for i in range(g, g + group) for n in (2 + i, i % 2)],
                               device=device) for g in range(0, count, group)]

        def run():
            with torch.inference_mode():
                features = model.model.visual(prompts.pixels, grid_thw=prompts.grid)
                features = features if torch.is_tensor(features) else features.pooler_output
                features = features.view(images, -1, features.shape[-1])
                words = model.get_input_embeddings()(prompts.ids)
                for numbers in chosen:
                    rows = words.masked_scatter(prompts.is_image[..., None], features[numbers])
                    out = model(inputs_embeds=rows, position_ids=prompts.places, logits_to_keep=1,
                                use_cache=False).logits
            return out
        return [run], lambda: finite([run()])
    batches = f"SDPA; batches of {group}; logits of the last row"
    yield Peer("transformers", f"{batches}; every image encoded; as the original", each_image)
    yield Peer("transformers images once", f"{batches}; places and mask known",
               lambda: images_once(False))
    yield Peer("transformers images once compiled", f"{batches}; decoder layers compiled",
               lambda: images_once(True))


def lora(shape, t, copies, device):
    count, T, rank = sizes(shape, "prompts", "T", "rank")
    names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|attn.proj|fc1|fc2"

    def adapted(**how):
        from peft import LoraConfig, get_peft_model
        model, config = reader_new(T, t, device)
        prompts = Prompts(model, config, count, T, 2 * count, t, device)
        labels = prompts.ids.clone()
        labels[:, :-10] = -100
        model = get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=16, target_modules=rf".*\.({names})"), **how)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:  # half begin as zeros, and with them the others' gradients
                    p.normal_(0, 0.02)
        return model.train(), prompts, labels

    def checked(model, run):
        def check():
            run()
            return finite([p.grad for p in model.parameters() if p.requires_grad])
        return [run], check

    def default():  # LLaMA-Factory's: f32 adapters under autocast
        model, prompts, labels = adapted()
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        batch = prompts.plain()

        def run():
            model.zero_grad(set_to_none=True)
            with torch.autocast(device, t):
                loss = model(**batch, labels=labels, use_cache=False).loss
            loss.backward()
        return checked(model, run)

    def best(is_compiled):
        model, prompts, labels = adapted(autocast_adapter_dtype=False)
        if is_compiled:
            compile_layers(model)
        batch, wanted = prompts.lean(), labels[:, -10:].flatten()

        def run():
            model.zero_grad(set_to_none=True)
            logits = model(**batch, use_cache=False, logits_to_keep=11).logits[:, :-1].float()
            F.cross_entropy(logits.flatten(0, 1), wanted).backward()
        return checked(model, run)
    yield Peer("PEFT", "as LLaMA-Factory: checkpointing; autocast; all logits", default)
    note = "activations kept; adapters in the type; logits of labels; places and mask known"
    yield Peer("PEFT best", note, lambda: best(False))
    yield Peer("PEFT best compiled", f"{note}; decoder layers compiled", lambda: best(True))


PEERS = {"vit_b16": vit, "qwen2vl_7b_score": score, "qwen2vl_7b_lora": lora}
