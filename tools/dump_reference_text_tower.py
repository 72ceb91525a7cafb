# Reference tensors for the text tower in its forms: BERT with mean pooling (MiniLM) and with an MLP
# head on the first token (BiomedCLIP), OpenAI CLIP's causal text tower, all three from
# transformers, and JinaBERT. No package carries JinaBERT, so it is written here in plain torch from
# its description (fused Wqkv, symmetric ALiBi, post-norm, bias-free GLU with the gate first,
# padded batches with -10000 masks and a masked mean): an independent form of the same equations,
# not the original's code. Writes tests/data/text_tower_*.safetensors; the numbers are repeated in
# tests/test_tower_reference.c.
import math

import numpy
import torch
import transformers
from transformers.models.bert import modeling_bert
from transformers.models.clip import modeling_clip

import reference

V, C, H, F, L, E = 13, 12, 3, 20, 2, 5
TEXTS = [[3, 1, 12, 5], [3], [7, 6, 9, 9, 2, 11]]  # never 0, which BERT would not train
TEXTS_CLIP = [[3, 1, 5, 12], [12], [7, 6, 9, 12, 2, 12]]  # the largest id ends a text
INPUTS = {"ids": numpy.array(sum(TEXTS, []), numpy.int32),
          "cu_seqlens": numpy.array([0, 4, 5, 11], numpy.int32)}


class JinaLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear, norm = torch.nn.Linear, torch.nn.LayerNorm
        self.mixer = torch.nn.ModuleDict({"Wqkv": linear(C, 3 * C), "out_proj": linear(C, C)})
        self.norm1, self.norm2 = norm(C, eps=1e-12), norm(C, eps=1e-12)
        self.mlp = torch.nn.ModuleDict({"gated_layers": linear(C, 2 * F, bias=False),
                                        "wo": linear(F, C)})

    def forward(self, h, bias):
        B, T, _ = h.shape
        q, k, v = self.mixer["Wqkv"](h).view(B, T, 3, H, C // H).unbind(2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k / math.sqrt(C // H)) + bias
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(B, T, C)
        h = self.norm1(self.mixer["out_proj"](mixed) + h)
        gate, value = self.mlp["gated_layers"](h).split(F, dim=-1)
        return self.norm2(self.mlp["wo"](torch.nn.functional.gelu(gate) * value) + h)


class Jina(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = torch.nn.ModuleDict({
            "word_embeddings": torch.nn.Embedding(V, C),
            "token_type_embeddings": torch.nn.Embedding(2, C)})
        self.emb_ln = torch.nn.LayerNorm(C, eps=1e-12)
        self.encoder = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(
            JinaLayer() for _ in range(L))})

    def forward(self, ids, mask):
        where = torch.arange(ids.shape[1])
        slopes = torch.tensor([2.0 ** -4, 2.0 ** -8, 2.0 ** -2])  # of 3 heads: 2 of 2, then 1 of 4
        distance = (where[:, None] - where[None, :]).abs()
        bias = -slopes[:, None, None] * distance + (mask[:, None, None, :] - 1) * 10000.0
        h = self.embeddings["word_embeddings"](ids)
        h = self.emb_ln(h + self.embeddings["token_type_embeddings"](torch.zeros_like(ids)))
        for layer in self.encoder["layers"]:
            h = layer(h, bias)
        return (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def run_jina(model, dtype):
    longest = max(map(len, TEXTS))
    ids = torch.tensor([t + [0] * (longest - len(t)) for t in TEXTS])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in TEXTS]).to(dtype)
    return model(ids, mask)


def bert(head):
    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            config = transformers.BertConfig(
                vocab_size=V, hidden_size=C, num_hidden_layers=L, num_attention_heads=H,
                intermediate_size=F, max_position_embeddings=8, hidden_act="gelu",
                layer_norm_eps=1e-12)
            config._attn_implementation = "eager"
            self.transformer = transformers.BertModel(config, add_pooling_layer=False)
            if head:
                self.proj = torch.nn.Sequential(torch.nn.Linear(C, 10, bias=False),
                                                torch.nn.GELU(), torch.nn.Linear(10, E, bias=False))

        def forward(self, ids):
            hidden = self.transformer(ids).last_hidden_state
            return self.proj(hidden[:, 0]) if head else hidden.mean(1)
    return Tower()


def clip():
    config = transformers.CLIPTextConfig(
        vocab_size=V, hidden_size=C, intermediate_size=F, projection_dim=E, num_hidden_layers=L,
        num_attention_heads=H, max_position_embeddings=8, hidden_act="quick_gelu",
        layer_norm_eps=1e-5, eos_token_id=2, bos_token_id=None, pad_token_id=None)
    config._attn_implementation = "eager"
    return transformers.CLIPTextModelWithProjection(config)


def one_by_one(texts, call):
    return lambda model, dtype: torch.cat([call(model, torch.tensor([t])) for t in texts])


reference.dump("text_tower_jina.safetensors", Jina, run_jina, dict(INPUTS), (),
               lambda n: "text_model.transformer." + n)
reference.dump("text_tower_minilm.safetensors", lambda: bert(False),
               one_by_one(TEXTS, lambda m, ids: m(ids)), dict(INPUTS), (modeling_bert,),
               lambda n: n.replace("transformer.", ""))
reference.dump("text_tower_biomedclip.safetensors", lambda: bert(True),
               one_by_one(TEXTS, lambda m, ids: m(ids)), dict(INPUTS), (modeling_bert,),
               lambda n: "text." + n)
reference.dump("text_tower_clip.safetensors", clip,
               one_by_one(TEXTS_CLIP, lambda m, ids: m(input_ids=ids).text_embeds),
               dict(INPUTS, ids=numpy.array(sum(TEXTS_CLIP, []), numpy.int32)), (modeling_clip,))
