"""PyTorch as a peer of the benches; started by peer_torch.c, never by hand.

stdin, one line each: the number of threads; then "NAME SIZE SIZE ..." to prepare a problem (the
functions below), or "run" to do it once.
stdout, one line each: "ready" after the number and after a problem; the seconds after "run".
"""
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as missing:
    sys.exit(f"no PyTorch: {missing}")


class Block(nn.Module):
    """A pre-norm transformer block as timm's ViT has it."""

    def __init__(self, C, H, hidden):
        super().__init__()
        self.H = H
        self.norm1, self.norm2 = nn.LayerNorm(C, eps=1e-6), nn.LayerNorm(C, eps=1e-6)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc1, self.fc2 = nn.Linear(C, hidden), nn.Linear(hidden, C)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.H, C // self.H).permute(2, 0, 3, 1, 4)
        attn = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, C)
        x = x + self.proj(attn)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """ViT-B/16 at 224 pixels with a projection to 512, as BiomedCLIP's image tower."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 768, 16, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, 768))
        self.pos = nn.Parameter(torch.zeros(1, 197, 768))
        self.blocks = nn.Sequential(*(Block(768, 12, 3072) for _ in range(12)))
        self.norm, self.proj = nn.LayerNorm(768, eps=1e-6), nn.Linear(768, 512, bias=False)

    def forward(self, pixels):
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.proj(self.norm(self.blocks(x)[:, 0]))


def forward(module, *inputs):
    def run():
        with torch.inference_mode():
            module(*inputs)
    return run


def training(module, x):
    dout = torch.randn_like(module(x))
    return lambda: module(x).backward(dout)  # gradients accumulate, as ours


def backward(module, *inputs):
    """The gradients of the inputs (and of a module's parameters) alone."""
    inputs = [x.requires_grad_() for x in inputs]
    out = module(*inputs)
    dout = torch.randn_like(out)
    wanted = inputs + (list(module.parameters()) if isinstance(module, nn.Module) else [])
    return lambda: torch.autograd.grad(out, wanted, dout, retain_graph=True)


# ---- problems ----
def vit_fwd(B):
    return forward(ViT(), torch.randn(B, 3, 224, 224))


def vit_train(B):
    return training(ViT(), torch.randn(B, 3, 224, 224))


def block_fwd(B, T, C, H, hidden):
    return forward(Block(C, H, hidden), torch.randn(B, T, C))


def block_train(B, T, C, H, hidden):
    return training(Block(C, H, hidden), torch.randn(B, T, C, requires_grad=True))


def layernorm_fwd(N, C):
    return forward(nn.LayerNorm(C), torch.randn(N, C))


def layernorm_bwd(N, C):
    return backward(nn.LayerNorm(C), torch.randn(N, C))


def rmsnorm_fwd(N, C):
    return forward(nn.RMSNorm(C), torch.randn(N, C))


def rmsnorm_bwd(N, C):
    return backward(nn.RMSNorm(C), torch.randn(N, C))


def heads(B, T, H, D):
    """(B,H,T,D) as a view of packed rows."""
    return torch.randn(B, T, H, D).transpose(1, 2)


def attention(is_causal):
    return lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, is_causal=bool(is_causal), enable_gqa=True)


def attention_fwd(B, T, H, Hkv, D, is_causal):
    kv = heads(B, T, Hkv, D), heads(B, T, Hkv, D)
    return forward(attention(is_causal), heads(B, T, H, D), *kv)


def attention_bwd(B, T, H, Hkv, D, is_causal):
    kv = heads(B, T, Hkv, D), heads(B, T, Hkv, D)
    return backward(attention(is_causal), heads(B, T, H, D), *kv)


def activations(kind):  # numbered as in activation.h
    return (F.gelu, lambda x: F.gelu(x, approximate="tanh"),
            lambda x: x * torch.sigmoid(1.702 * x), F.silu)[kind]


def activation_fwd(n, kind):
    return forward(activations(kind), torch.randn(n))


def activation_bwd(n, kind):
    return backward(activations(kind), torch.randn(n))


threads = int(sys.stdin.readline() or sys.exit(0))
torch.set_num_threads(threads)
clock = time.thread_time if threads == 1 else time.perf_counter
problem = None
print("ready", flush=True)
for line in sys.stdin:
    name, *sizes = line.split()
    if name == "run":
        start = clock()
        problem()
        print(clock() - start, flush=True)
    else:
        problem = None  # its memory goes first
        problem = globals()[name](*(int(size) for size in sizes))
        problem()
        print("ready", flush=True)
