"""Peers of the benches on a GPU: PyTorch, timm, transformers and PEFT on the shapes of our rows.

  python3 bench/peers/gpu.py rows=FILE json=FILE [only=WORD] [device=cuda|cpu] [seconds=S] [warm=S]

rows is what `build/bin/bench backend=cuda json=FILE` wrote: a row's bench and shape say what the
peer is run on, its copies how many problems are visited in turn, so that there is one list of
shapes. A peer's row has the same bench and shape, "side":"peer", and says which settings it had.
Timing is bench.c's: CUDA events around batches of launches, normal deviates, at least 30 samples,
3 s before the first row. A peer that cannot run a shape says so on stderr and has no row.

Best known settings: SDPA by cuDNN and by flash-attention, packed rows (a view) or heads first;
torch.compile beside eager where that is usual; fused AdamW on the f32 masters; no TF32, no reduction
in bf16. Left out: peers that need building (flash-attn, faiss-gpu, Liger, Unsloth).
device=cpu is for trying this script on shrunk rows.
"""
import json
import re
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as missing:
    sys.exit(f"no PyTorch: {missing}")

BATCH_SECONDS, SAMPLES = 2e-3, 30
settings = {"only": "", "device": "cuda", "seconds": "1", "warm": "3"}
for argument in sys.argv[1:]:
    key, equals, value = argument.partition("=")
    if not equals or key not in (*settings, "rows", "json"):
        sys.exit(f"{argument}: not a setting; see the top of {sys.argv[0]}")
    settings[key] = value
if "rows" not in settings or "json" not in settings:
    sys.exit("rows=FILE and json=FILE are wanted")
device, is_gpu = settings["device"], settings["device"] == "cuda"
if is_gpu and not torch.cuda.is_available():
    sys.exit("no GPU for PyTorch")
torch.manual_seed(1)
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


# ---- timing ----
def sync():
    if is_gpu:
        torch.cuda.synchronize()


def seconds_of(runs, times, turn):
    """Seconds of one call, in a batch of `times`, beginning at problem `turn`."""
    sync()
    if not is_gpu:
        start = time.perf_counter()
        for i in range(times):
            runs[(turn + i) % len(runs)]()
        return (time.perf_counter() - start) / times
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for i in range(times):
        runs[(turn + i) % len(runs)]()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e-3 / times


def measure(runs, warm):
    """Sorted seconds of one call of the problems in turn."""
    begin, once, turn = time.perf_counter(), 0, 0
    while True:
        once = seconds_of(runs, 1, turn)
        turn += 1
        if time.perf_counter() - begin >= warm:
            break
    batch = int(BATCH_SECONDS / (once + 1e-7)) + 1 if is_gpu and once < BATCH_SECONDS else 1
    samples, begin = [], time.perf_counter()
    least = SAMPLES if is_gpu else 3
    while len(samples) < least or time.perf_counter() - begin < float(settings["seconds"]):
        samples.append(seconds_of(runs, batch, turn))
        turn += batch
    return sorted(samples)


# ---- products ----
def sizes(shape, *names):
    return [int(re.search(rf"\b{name}=(\d+)", shape).group(1)) for name in names]


def randn(t, *shape):
    return torch.randn(*shape, device=device, dtype=torch.float32).to(t)


def matmul(product):
    def peers(shape, t, copies):
        M, N, K = sizes(shape, "M", "N", "K")

        def problem():
            inp, dout, weight = randn(t, M, K), randn(t, M, N), randn(t, N, K)
            if product == "fwd":
                return lambda: torch.mm(inp, weight.t())
            if product == "bwd_input":
                return lambda: torch.mm(dout, weight)
            dweight = randn(t, N, K)
            return lambda: torch.addmm(dweight, dout.t(), inp)
        yield ("torch.mm" if product != "bwd_weight" else "torch.addmm", "sum in the type",
               [problem() for _ in range(copies)])
    return peers


# ---- attention ----
def attention(is_backward):
    def peers(shape, t, copies):
        B, T, H, Hkv, D = sizes(shape, "B", "T", "H", "Hkv", "D")
        is_causal, has_alibi = "causal" in shape, "alibi" in shape
        bias = None
        if has_alibi:  # torch wants it written out
            slopes = torch.tensor([2 ** (-8 * (h + 1) / H) for h in range(H)], device=device)
            places = torch.arange(T, device=device)
            far = (places[:, None] - places[None]).abs()
            bias = (-slopes[:, None, None] * far).to(t)[None].expand(B, H, T, T).contiguous()
        backends = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
        if has_alibi:
            backends = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
        if not is_gpu:
            backends = {"math": SDPBackend.MATH}
        for layout in ("packed rows", "heads first"):
            def heads(count):
                x = randn(t, B, T, count, D).transpose(1, 2)
                return x.contiguous() if layout == "heads first" else x

            def problem(backend):
                q, k, v = (heads(n).requires_grad_(is_backward) for n in (H, Hkv, Hkv))

                def forward():
                    with sdpa_kernel(backend):
                        return F.scaled_dot_product_attention(
                            q, k, v, attn_mask=bias, is_causal=is_causal, enable_gqa=H != Hkv)
                if not is_backward:
                    return forward
                out = forward()
                dout = torch.randn_like(out)
                return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
            for name, backend in backends.items():
                yield (f"SDPA {name}", layout,
                       lambda b=backend: [problem(b) for _ in range(copies)])
    return peers


# ---- norms, optimiser, search ----
def norm(kind, is_backward):
    def peers(shape, t, copies):
        N, C = sizes(shape, "N", "C")

        def call(x, weight, bias):
            if kind == "layernorm":
                return F.layer_norm(x, (C,), weight, bias, 1e-6)
            return F.rms_norm(x, (C,), weight, 1e-6)
        compiled = torch.compile(call) if is_gpu else call

        def problem(function):
            x, weight, bias = randn(t, N, C), randn(t, C), randn(t, C)
            if not is_backward:
                return lambda: function(x, weight, bias)
            wanted = [x, weight] + ([bias] if kind == "layernorm" else [])
            for tensor in wanted:
                tensor.requires_grad_()
            out = function(x, weight, bias)
            dout = torch.randn_like(out)
            return lambda: torch.autograd.grad(out, wanted, dout, retain_graph=True)
        for name, function in (("torch", call), ("torch compiled", compiled)):
            yield name, kind, lambda f=function: [problem(f) for _ in range(copies)]
    return peers


def adamw(shape, t, copies):
    n, = sizes(shape, "n")
    master = nn.Parameter(randn(torch.float32, n))
    master.grad = randn(torch.float32, n)
    optimiser = torch.optim.AdamW([master], lr=1e-4, weight_decay=0.01, fused=True)
    yield "AdamW fused", "f32 masters alone: 28 bytes a weight", [optimiser.step]


def topk(shape, t, copies):
    Q, M, E, K = sizes(shape, "Q", "M", "E", "K")
    queries = randn(torch.float32, Q, E)
    index = randn(t, M, E).t().contiguous()  # (E,M), as the original keeps it
    chunk = 1 << 18

    def whole():
        return torch.topk(torch.matmul(queries.to(t), index), K)

    def chunked():
        parts = [torch.topk(torch.matmul(queries.to(t), index[:, m:m + chunk]), min(K, M - m))
                 for m in range(0, M, chunk)]
        return torch.topk(torch.cat([part.values for part in parts], 1), K)
    yield "matmul+topk", "scores in the type; as the original", [whole]
    if M > chunk:
        yield "matmul+topk in chunks", f"of {chunk} rows", [chunked]


# ---- models ----
def vit(shape, t, copies):
    B, = sizes(shape, "B")
    is_training, is_tiny = "fwd+bwd" in shape, not is_gpu
    size = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 4} if is_tiny else {}

    def build(name):
        if name == "timm":
            import timm
            return timm.create_model("vit_base_patch16_224", num_classes=512, **size)
        from transformers import ViTConfig, ViTModel
        config = ViTConfig(attn_implementation="sdpa")
        if is_tiny:
            config = ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                               intermediate_size=128, image_size=32)
        return ViTModel(config, add_pooling_layer=False)

    def problem(name, mode):
        model = build(name).to(device, t)
        pixels = randn(t, B, 3, 32 if is_tiny else 224, 32 if is_tiny else 224)
        run = torch.compile(model, mode=mode) if mode else model

        def forward():
            out = run(pixels)
            return out if torch.is_tensor(out) else out.last_hidden_state[:, 0]
        if not is_training:
            model.eval()

            def infer():
                with torch.inference_mode():
                    forward()
            return [infer]
        dout = torch.randn_like(forward())

        def train():
            model.zero_grad(set_to_none=True)
            forward().backward(dout)
        return [train]
    for name in ("timm", "transformers"):
        yield f"{name} eager", "pure type", lambda n=name: problem(n, None)
        if is_gpu:
            mode = "max-autotune-no-cudagraphs" if is_training else "max-autotune"
            yield f"{name} compiled", mode, lambda n=name, m=mode: problem(n, m)


def reader_new(T, t):
    """Qwen2-VL-7B by its published sizes, with random weights; tiny where T is."""
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
    return model, config


def prompts_of(config, count, T, t):
    """A batch of prompts: an image, text, an image, text; all of T tokens, so there is no padding."""
    vision = config.vision_config
    side = 18 if T >= 350 else 4
    tokens, patch = side * side // 4, 3 * vision.temporal_patch_size * vision.patch_size ** 2
    text = T - 2 * tokens - 4
    vocabulary = config.text_config.vocab_size
    start, image, end = (config.vision_start_token_id, config.image_token_id,
                         config.vision_end_token_id)
    row, half = [], text // 2
    for words in (half, text - half):
        row += [start] + [image] * tokens + [end] + [w * 7 % min(vocabulary, 70)
                                                      for w in range(words)]
    ids = torch.tensor([row] * count, device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == image).int(),
            "pixel_values": randn(t, 2 * count * side * side, patch),
            "image_grid_thw": torch.tensor([[1, side, side]] * (2 * count), device=device)}


def score(shape, t, copies):
    count, T = sizes(shape, "prompts", "T")

    def problem():
        model, config = reader_new(T, t)
        model.eval()
        group = max(g for g in range(1, 26) if count % g == 0)
        batch = prompts_of(config, group, T, t)

        def run():
            with torch.inference_mode():
                for _ in range(count // group):
                    model(**batch, logits_to_keep=1, use_cache=False)
        return [run]
    yield "transformers", "SDPA, batches of at most 25, last row's logits, every image encoded", problem


def lora(shape, t, copies):
    count, T, rank = sizes(shape, "prompts", "T", "rank")

    def problem(recomputes):
        from peft import LoraConfig, get_peft_model
        model, config = reader_new(T, t)
        names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|attn.proj|fc1|fc2"
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=16,
                                                 target_modules=rf".*\.({names})"))
        if recomputes:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        batch = prompts_of(config, count, T, t)
        labels = batch["input_ids"].clone()
        labels[:, :-10] = -100
        kept = {} if recomputes else {"logits_to_keep": 11}

        def run():
            model.zero_grad(set_to_none=True)
            if recomputes:  # LLaMA-Factory's way: logits of every position
                model(**batch, labels=labels, use_cache=False).loss.backward()
            else:
                logits = model(**batch, use_cache=False, **kept).logits[:, :-1].float()
                F.cross_entropy(logits.flatten(0, 1), labels[:, -10:].flatten()).backward()
        return [run]
    yield "PEFT", "checkpointing, all logits", lambda: problem(True)
    yield "PEFT, kept activations", "no checkpointing, logits of labels", lambda: problem(False)


PEERS = {"matmul_fwd": matmul("fwd"), "matmul_bwd_input": matmul("bwd_input"),
         "matmul_bwd_weight": matmul("bwd_weight"), "attention_fwd": attention(False),
         "attention_bwd": attention(True), "layernorm_fwd": norm("layernorm", False),
         "layernorm_bwd": norm("layernorm", True), "rmsnorm_fwd": norm("rmsnorm", False),
         "rmsnorm_bwd": norm("rmsnorm", True), "adamw": adamw, "topk": topk, "vit_b16": vit,
         "qwen2vl_7b_score": score, "qwen2vl_7b_lora": lora}


# ---- the program ----
def run_row(row, warm, out):
    """Runs the peers of a row of ours; returns whether any ran."""
    done = False
    peers = PEERS[row["bench"]](row["shape"], DTYPES[row["dtype"]], row.get("copies", 1))
    while True:
        if is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            try:
                name, note, problems = next(peers)
            except StopIteration:
                return done
            runs = problems() if callable(problems) else problems
            seconds = measure(runs, warm)
        except Exception as error:  # a peer that cannot is no reason to lose the others
            print(f"{row['bench']} {row['shape']}: {type(error).__name__}: "
                  f"{str(error).splitlines()[0][:150] if str(error) else ''}", file=sys.stderr)
            if is_gpu and "out of memory" not in str(error) and "CUDA error" in str(error):
                raise  # nothing runs on that GPU any more
            continue
        finally:
            runs = problems = None
        n = len(seconds)
        text = {"side": "peer", "bench": row["bench"], "shape": row["shape"], "dtype": row["dtype"],
                "peer": name, "settings": f"{note}; torch {torch.__version__}", "samples": n,
                "median_us": round(1e6 * statistics.median(seconds), 3),
                "p5_us": round(1e6 * seconds[n // 20], 3),
                "p95_us": round(1e6 * seconds[n - 1 - n // 20], 3),
                "flops": row["flops"], "bytes": row["bytes"],
                "memory": torch.cuda.max_memory_allocated() if is_gpu else 0,
                "machine": torch.cuda.get_device_name() if is_gpu else "cpu"}
        out.write(json.dumps({k: v.replace(",", ";") if isinstance(v, str) and k != "shape" else v
                              for k, v in text.items()}, separators=(",", ":")) + "\n")
        out.flush()
        print(f"{row['bench']:20} {row['shape']:44} {name:24} {text['median_us']:12.1f} us")
        done = True


def main():
    with open(settings["rows"]) as file:
        rows = [row for row in map(json.loads, file) if row.get("bench") in PEERS]
    warm, first = float(settings["warm"]), True
    with open(settings["json"], "w") as out:
        for row in rows:
            if settings["only"] in row["bench"] and row.get("side") != "peer":
                if run_row(row, warm if first else warm / 6, out):
                    first = False


if __name__ == "__main__":
    torch.set_num_threads(torch.get_num_threads() if is_gpu else 1)
    main()
