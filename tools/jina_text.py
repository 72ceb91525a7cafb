"""The text tower of jina-clip-v1, JinaBERT, from public code that the user has a copy of.

    --jina-text DIR    of tools/dump_reference_text_tower.py and dump_reference_retriever.py

DIR is one of two folders; the code in it runs unchanged:
- Jina AI's own JinaBERT, modeling_bert.py and configuration_bert.py as huggingface.co/jinaai/
  jina-bert-implementation has them. The fixtures are made with the copy in models/jinabert of
  github.com/veya2ztn/sci-bert-finetune, 09cc4c7, which adds kernels of attention; they are off.
  It wants transformers before 5.
- MosaicBERT, which JinaBERT took its blocks from: examples/benchmarks/bert/src of
  github.com/mosaicml/examples, daddaeff7a53, on its PyTorch path. It wants einops.
jina-clip-v1 holds q, k and v of a layer as one tensor, as MosaicBERT does; JinaBERT's three
projections are made to read their thirds of it.
"""
import importlib
import os
import sys

import torch

# The names of both to those of jina-clip-v1, which keeps them where it can.
NAMES = (("embeddings.LayerNorm", "emb_ln"), ("encoder.layer.", "encoder.layers."),
         ("attention.self.Wqkv", "mixer.Wqkv"), ("attention.output.dense", "mixer.out_proj"),
         ("attention.output.LayerNorm", "norm1"), ("mlp.layernorm", "norm2"))


def checkpoint_name(name):
    for theirs, ours in NAMES:
        name = name.replace(theirs, ours)
    return name


class Third(torch.nn.Module):
    """One of q, k, v: a third of the rows of a fused linear layer, which is not its child."""

    def __init__(self, fused, which):
        super().__init__()
        self.whole, self.which = (fused,), which

    def forward(self, x):
        fused, = self.whole
        return torch.nn.functional.linear(x, fused.weight.chunk(3)[self.which],
                                          fused.bias.chunk(3)[self.which])


def original(folder):
    """The module of the code, and what makes a tower of (V, C, L, H, F, max_T)."""
    folder = os.path.abspath(folder)
    if os.path.exists(os.path.join(folder, "bert_layers.py")):
        sys.path.insert(0, folder)
        import bert_layers
        import configuration_bert
        bert_layers.flash_attn_qkvpacked_func = None  # its Triton kernel computes in f16
        code, config_of, tower_of = (bert_layers, configuration_bert.BertConfig,
                                     bert_layers.BertModel)
        fixed = {}
    else:
        sys.path.insert(0, os.path.dirname(folder))
        code = importlib.import_module(os.path.basename(folder) + ".modeling_bert")
        config_of, tower_of = code.JinaBertConfig, code.JinaBertModel
        fixed = dict(position_embedding_type="alibi", feed_forward_type="geglu",
                     attn_implementation=None)

    def build(V, C, L, H, F, max_T):
        tower = tower_of(config_of(
            vocab_size=V, hidden_size=C, num_hidden_layers=L, num_attention_heads=H,
            intermediate_size=F, max_position_embeddings=max_T, alibi_starting_size=max_T,
            layer_norm_eps=1e-12, pad_token_id=0, **fixed), add_pooling_layer=False)
        for layer in tower.encoder.layer if fixed else ():
            attention = layer.attention.self
            attention.Wqkv = torch.nn.Linear(C, 3 * C)
            for which, name in enumerate(("query", "key", "value")):
                setattr(attention, name, Third(attention.Wqkv, which))
        return tower
    return code, build
