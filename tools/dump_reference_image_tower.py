# Reference tensors for the image tower in its three forms: jina-clip-v1's EVA02 (timm's Eva with
# both sub-norms, SwiGLU, separate q, k, v and rotary positions), OpenAI CLIP (transformers) and
# timm's ViT (BiomedCLIP's). Tiny and random. Writes tests/data/image_tower_*.safetensors; the
# numbers of the configurations are repeated in tests/test_tower_reference.c.
import numpy
import torch
import timm.layers.mlp
import timm.layers.norm
import timm.layers.pos_embed_sincos
import timm.models.eva
import timm.models.vision_transformer
import transformers

import reference

PIXELS = numpy.random.default_rng(7).standard_normal((2, 3, 12, 12)).astype(numpy.float32)


def pixels(dtype):
    return reference.tensor(PIXELS, dtype)


def eva():
    return timm.models.eva.Eva(img_size=12, patch_size=4, num_classes=0, global_pool="token",
                               embed_dim=16, depth=2, num_heads=2, qkv_fused=False, mlp_ratio=0.75,
                               swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True,
                               norm_layer=lambda d, **k: torch.nn.LayerNorm(d, eps=1e-6),
                               use_rot_pos_emb=True, rope_type="cat")


def vit():
    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = timm.models.vision_transformer.VisionTransformer(
                img_size=12, patch_size=4, num_classes=0, embed_dim=8, depth=2, num_heads=2,
                mlp_ratio=1.5)
            self.head = torch.nn.ModuleDict({"proj": torch.nn.Linear(8, 5, bias=False)})

        def forward(self, x):
            return self.head["proj"](self.trunk(x))
    return Tower()


def clip():
    config = transformers.CLIPVisionConfig(hidden_size=8, intermediate_size=12, projection_dim=5,
                                           num_hidden_layers=2, num_attention_heads=2,
                                           image_size=12, patch_size=4, hidden_act="quick_gelu",
                                           layer_norm_eps=1e-5)
    config._attn_implementation = "eager"
    return transformers.CLIPVisionModelWithProjection(config)


modules = (timm.models.eva, timm.layers.pos_embed_sincos, timm.models.vision_transformer)
reference.dump("image_tower_jina.safetensors", eva, lambda m, t: m(pixels(t)), {"pixels": PIXELS},
               modules, lambda n: "vision_model." + n.replace("mlp.fc1_g", "mlp.w1").replace(
                   "mlp.fc1_x", "mlp.w2").replace("mlp.norm", "mlp.ffn_ln").replace(
                   "mlp.fc2", "mlp.w3").replace("attn.norm", "attn.inner_attn_ln").replace(
                   "q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias"))
reference.dump("image_tower_timm.safetensors", vit, lambda m, t: m(pixels(t)), {"pixels": PIXELS},
               modules, lambda n: "visual." + n)
from transformers.models.clip import modeling_clip
reference.dump("image_tower_clip.safetensors", clip,
               lambda m, t: m(pixel_values=pixels(t)).image_embeds, {"pixels": PIXELS},
               (modeling_clip,))
