"""Peers of single ops for gpu.py: torch.mm, SDPA, norms, AdamW, search as the original does it.

PEERS maps a bench to a function (shape, type, copies, device) that yields
Peer(name, settings, build). build() returns the problems, one callable each, to be visited in turn;
a function that tells the error of what the first of them computed: the largest difference from f64
over the largest value, on a slice; and perhaps a note for the settings.
Left out: peers that need building (flash-attn, faiss-gpu, Liger).
"""
import re
from collections import namedtuple

import torch
from torch import nn
from torch._functorch import config as functorch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_timing import measure

Peer = namedtuple("Peer", "name settings build")


def sizes(shape, *names):
    return [int(re.search(rf"\b{name}=(\d+)", shape).group(1)) for name in names]


def randn(device, t, *shape):
    return torch.randn(*shape, device=device, dtype=torch.float32).to(t)


def error_of(got, want):
    return ((got.double() - want).abs().max() / want.abs().max()).item()


# ---- products ----
def matmul(product):
    def peers(shape, t, copies, device):
        M, N, K = sizes(shape, "M", "N", "K")

        def problem(is_wide):
            """A run, and its operands and result: c = a b, or c += a b for a weight's gradient."""
            if product == "fwd":
                a, b, rows, columns = randn(device, t, M, K), randn(device, t, N, K).t(), M, N
            elif product == "bwd_input":
                a, b, rows, columns = randn(device, t, M, N), randn(device, t, N, K), M, K
            else:
                a, b, rows, columns = randn(device, t, M, N).t(), randn(device, t, M, K), N, K
            c = torch.zeros(rows, columns, device=device, dtype=torch.float32 if is_wide else t)
            if product != "bwd_weight":
                return lambda: torch.mm(a, b, out=c), a, b
            if is_wide:
                return lambda: torch.mm(a, b, out_dtype=torch.float32, out=c), a, b
            return lambda: c.addmm_(a, b), a, b

        def build(is_wide):
            problems = [problem(is_wide) for _ in range(copies)]
            run, a, b = problems[0]
            return ([p[0] for p in problems],
                    lambda: error_of(run()[:8], a[:8].double() @ b.double()))
        if product != "bwd_weight":
            yield Peer("torch.mm", "into a tensor that is there", lambda: build(False))
        else:
            yield Peer("torch.addmm", "sum in the type", lambda: build(False))
            yield Peer("torch.mm f32 result", "not added to what is there", lambda: build(True))
    return peers


# ---- attention ----
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}


def attention_error(got, q, k, v, bias, is_causal, dout):
    """Of the last head of the first sequence: out, or, where there is a dout, dq."""
    q, k, v = (x.detach()[0, -1].double() for x in (q, k, v))
    q.requires_grad_(dout is not None)
    scores = q @ k.t() * q.shape[-1] ** -0.5 + (0 if bias is None else bias[0, -1].double())
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    out = scores.softmax(-1) @ v
    if dout is None:
        return error_of(got[0, -1], out)
    return error_of(got[0][0, -1], torch.autograd.grad(out, q, dout[0, -1].double())[0])


def attention(is_backward):
    def peers(shape, t, copies, device):
        B, T, H, Hkv, D = sizes(shape, "B", "T", "H", "Hkv", "D")
        is_causal, has_alibi = "causal" in shape, "alibi" in shape

        def bias_new(is_written_out):
            slopes = torch.tensor([2 ** (-8 * (h + 1) / H) for h in range(H)], device=device)
            places = torch.arange(T, device=device)
            far = (places[:, None] - places[None]).abs()
            bias = (-slopes[:, None, None] * far).to(t)[None].expand(B, H, T, T)
            return bias.contiguous() if is_written_out else bias

        def build(layout, backend, bias):
            def heads(count):
                x = randn(device, t, B, T, count, D).transpose(1, 2)
                x = x.contiguous() if layout == "heads first" else x
                return x.requires_grad_(is_backward)

            def problem():
                q, k, v = heads(H), heads(Hkv), heads(Hkv)

                def forward():
                    with sdpa_kernel(backend):
                        return F.scaled_dot_product_attention(
                            q, k, v, attn_mask=bias, is_causal=is_causal, enable_gqa=H != Hkv)
                if not is_backward:
                    return forward, q, k, v, None
                out = forward()
                dout = torch.randn_like(out)
                return (lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True),
                        q, k, v, dout)
            problems = [problem() for _ in range(copies)]
            run, q, k, v, dout = problems[0]
            return ([p[0] for p in problems],
                    lambda: attention_error(run(), q, k, v, bias, is_causal, dout))
        # flash takes no bias; the original materialises ALiBi's.
        names = ("cuDNN", "efficient") if has_alibi else ("cuDNN", "flash")
        names += ("math",) if device == "cpu" else ()
        biases = {"": None}
        if has_alibi:
            biases = {"; bias written out": True, "; bias shared": False}
        for layout in ("packed rows", "heads first"):
            for note, is_written_out in biases.items():
                for name in names:
                    yield Peer(f"SDPA {name}", layout + note,
                               lambda n=name, w=is_written_out, where=layout: build(
                                   where, BACKENDS[n], None if w is None else bias_new(w)))
    return peers


def fastest_sdpa(B, H, T, D, t, device, is_training):
    """The backend of SDPA that is fastest at a model's shape, and its name."""
    best = None
    for name, backend in BACKENDS.items():
        try:
            q, k, v = (randn(device, t, B, T, H, D).transpose(1, 2).requires_grad_(is_training)
                       for _ in range(3))

            def run():
                with sdpa_kernel(backend):
                    out = F.scaled_dot_product_attention(q, k, v)
                if is_training:
                    torch.autograd.grad(out, (q, k, v), out)
            seconds = measure([run], device, 0.05, 0.1)[0][0]
        except RuntimeError:  # not on this machine
            continue
        if not best or seconds < best[0]:
            best = seconds, backend, name
    return best[1:]


# ---- norms ----
def norm(kind, is_backward):
    def peers(shape, t, copies, device):
        N, C = sizes(shape, "N", "C")

        def call(x, weight, bias):
            if kind == "layernorm":
                return F.layer_norm(x, (C,), weight, bias, 1e-6)
            return F.rms_norm(x, (C,), weight, 1e-6)

        def problem(function):
            x, weight, bias = (randn(device, t, *size) for size in ((N, C), (C,), (C,)))
            if not is_backward:
                return lambda: function(x, weight, bias), (x, weight, bias), None
            wanted = [x, weight] + ([bias] if kind == "layernorm" else [])
            for tensor in wanted:
                tensor.requires_grad_()
            out = function(x, weight, bias)
            dout = torch.randn_like(out)
            return (lambda: torch.autograd.grad(out, wanted, dout, retain_graph=True),
                    (x, weight, bias), dout)

        def build(mode):
            functorch.donated_buffer = False  # a compiled backward is run again and again
            function = torch.compile(call, mode=mode) if mode else call
            problems = [problem(function) for _ in range(copies)]
            run, inputs, dout = problems[0]

            def error():
                x, weight, bias = (tensor.detach().double() for tensor in inputs)
                x = x[:8].requires_grad_(is_backward)
                out = call(x, weight, bias)
                if not is_backward:
                    return error_of(run()[:8], out)
                return error_of(run()[0][:8], torch.autograd.grad(out, x, dout[:8].double())[0])
            return [p[0] for p in problems], error
        yield Peer("torch", kind, lambda: build(None))
        yield Peer("torch compiled", "max-autotune-no-cudagraphs",
                   lambda: build("max-autotune-no-cudagraphs"))
    return peers


# ---- optimiser, search ----
def adamw(shape, t, copies, device):
    n, = sizes(shape, "n")

    def build():
        master = nn.Parameter(randn(device, torch.float32, n))
        master.grad = randn(device, torch.float32, n)
        optimiser = torch.optim.AdamW([master], lr=1e-4, weight_decay=0.01, fused=True)

        def error():  # the first update: m / sqrt(v) after correction is the gradient's sign
            before, grad = master.detach()[-8:].double(), master.grad[-8:].double()
            optimiser.step()
            step = 1e-4 * grad / (grad.abs() + 1e-8)
            return error_of(master.detach()[-8:], before * (1 - 1e-4 * 0.01) - step)
        return [optimiser.step], error
    yield Peer("AdamW fused", "f32 masters alone: 28 bytes a weight", build)


def topk(shape, t, copies, device):
    Q, M, E, K = sizes(shape, "Q", "M", "E", "K")
    chunk = min(1 << 18, (M + 1) // 2)

    def build(is_chunked, wide):
        queries = randn(device, torch.float32, Q, E)
        index = randn(device, t, M, E).t().contiguous()  # (E,M), as the original keeps it

        def scores(first, last):
            rows = index[:, first:last]
            if wide:
                return torch.mm(queries.to(t), rows, out_dtype=torch.float32)
            return torch.matmul(queries.to(t), rows)

        def whole():
            return torch.topk(scores(0, M), K)

        def chunked():
            values, ids = [], []
            for first in range(0, M, chunk):
                part = torch.topk(scores(first, first + chunk), min(K, M - first))
                values.append(part.values)
                ids.append(part.indices + first)
            best = torch.topk(torch.cat(values, 1), K)
            return best.values, torch.cat(ids, 1).gather(1, best.indices)
        run = chunked if is_chunked else whole

        def missed():  # the share of the last query's true hits that are not among those found
            query = queries[-1].to(t).double()
            true = torch.cat([query @ index[:, m:m + chunk].double() for m in range(0, M, chunk)])
            hits = torch.topk(true, K).indices
            return 1 - torch.isin(hits, run()[1][-1]).double().mean().item()
        return [run], missed
    yield Peer("matmul+topk", "scores in the type; as the original", lambda: build(False, False))
    if M > chunk:
        yield Peer("matmul+topk in chunks", f"of {chunk} rows", lambda: build(True, False))
    yield Peer("matmul+topk f32 scores", "exact", lambda: build(False, True))


PEERS = {"matmul_fwd": matmul("fwd"), "matmul_bwd_input": matmul("bwd_input"),
         "matmul_bwd_weight": matmul("bwd_weight"), "attention_fwd": attention(False),
         "attention_bwd": attention(True), "layernorm_fwd": norm("layernorm", False),
         "layernorm_bwd": norm("layernorm", True), "rmsnorm_fwd": norm("rmsnorm", False),
         "rmsnorm_bwd": norm("rmsnorm", True), "adamw": adamw, "topk": topk}
