# Reference tensors for the text tower in its forms: BERT with mean pooling (MiniLM) and with an MLP
# head on the first token (BiomedCLIP), OpenAI CLIP's causal text tower, all three from
# transformers, and JinaBERT (--jina-text DIR, see jina_text.py; without it its fixture stays as it
# is), to which the mean over the tokens is added that JinaBERT's callers take.
# Writes tests/data/text_tower_*.safetensors; the numbers are repeated in
# tests/test_tower_reference.c.
import argparse

import numpy
import torch
import transformers
from transformers.models.bert import modeling_bert
from transformers.models.clip import modeling_clip

import jina_text
import reference

V, C, H, F, L, E = 13, 12, 3, 20, 2, 5
TEXTS = [[3, 1, 12, 5], [3], [7, 6, 9, 9, 2, 11]]  # never 0, which BERT would not train
TEXTS_CLIP = [[3, 1, 5, 12], [12], [7, 6, 9, 12, 2, 12]]  # the largest id ends a text
INPUTS = {"ids": numpy.array(sum(TEXTS, []), numpy.int32),
          "cu_seqlens": numpy.array([0, 4, 5, 11], numpy.int32)}


def dump_jina(folder):
    code, tower_of = jina_text.original(folder)

    def run(model, dtype):
        longest = max(map(len, TEXTS))
        ids = torch.tensor([t + [0] * (longest - len(t)) for t in TEXTS])
        mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in TEXTS])
        hidden = model(ids, attention_mask=mask)[0]
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    reference.dump("text_tower_jina.safetensors", lambda: tower_of(V, C, L, H, F, 8), run,
                   dict(INPUTS), (code,),
                   lambda name: "text_model.transformer." + jina_text.checkpoint_name(name))


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


parser = argparse.ArgumentParser()
parser.add_argument("--jina-text", metavar="DIR")
options = parser.parse_args()
if options.jina_text:
    dump_jina(options.jina_text)
reference.dump("text_tower_minilm.safetensors", lambda: bert(False),
               one_by_one(TEXTS, lambda m, ids: m(ids)), dict(INPUTS), (modeling_bert,),
               lambda n: n.replace("transformer.", ""))
reference.dump("text_tower_biomedclip.safetensors", lambda: bert(True),
               one_by_one(TEXTS, lambda m, ids: m(ids)), dict(INPUTS), (modeling_bert,),
               lambda n: "text." + n)
reference.dump("text_tower_clip.safetensors", clip,
               one_by_one(TEXTS_CLIP, lambda m, ids: m(input_ids=ids).text_embeds),
               dict(INPUTS, ids=numpy.array(sum(TEXTS_CLIP, []), numpy.int32)), (modeling_clip,))
