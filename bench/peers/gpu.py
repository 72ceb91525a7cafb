"""Peers of the benches on a GPU: PyTorch, timm, transformers and PEFT on the shapes of our rows.

  python3 bench/peers/gpu.py rows=FILE json=FILE [only=WORD] [device=cuda|cpu] [seconds=S] [warm=S]
                             [limit=S]

rows is what `build/bin/bench backend=cuda json=FILE` wrote: a row's bench and shape say what the
peer is run on, its copies how many problems are visited in turn, so that there is one list of
shapes. A peer's row has the same bench, shape, FLOPs and bytes, "side":"peer", which settings it
had, its error against f64 (gpu_ops.py), and "launch_us", what the host needs to launch it. A peer
that cannot run a shape, or is not right, has a row that says why in "failed" and no time; so have
those not done when limit seconds (default 230) are over. The first line of json tells the versions.

Timing (gpu_timing.py) is bench.c's: normal deviates, events around batches of launches, at least 30
samples, 15 where a call takes over a quarter of a second, 3 s of warm-up before the first row.
Best known settings: SDPA by cuDNN and by flash-attention, packed rows (a view) or heads first;
torch.compile beside eager where that is usual; fused AdamW on the f32 masters; no TF32, no
reduction in 16 bits. Work a peer does beyond the row's is in its settings: it counts as none.
device=cpu is for trying this script on shrunk rows: tools/bench_gpu.sh backend=cpu shrink=4096.
"""
import gc
import importlib.metadata
import json
import platform
import signal
import statistics
import sys
import time

try:
    import torch
except ImportError as missing:
    sys.exit(f"no PyTorch: {missing}")

import gpu_models
import gpu_ops
from gpu_timing import measure

PEERS = gpu_ops.PEERS | gpu_models.PEERS
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
UNITS = {"f32": 2.0 ** -24, "bf16": 2.0 ** -8, "f16": 2.0 ** -11}
settings = {"only": "", "device": "cuda", "seconds": "1", "warm": "3", "limit": "230"}


def out_of_time(*_):
    raise TimeoutError(f"limit={settings['limit']} is over")


def most_error(row):
    """A peer that is farther from f64 does something else: 16 roundings to its type, of the largest
    value. A search's scores are rounded before they are compared: it may miss hits near ties.
    """
    return 0.5 if row["bench"] == "topk" else 16 * UNITS[row["dtype"]]


# ---- rows ----
def text_of(value):
    """For a flat row without commas in values but shapes."""
    return value.replace(",", ";").replace('"', "'") if isinstance(value, str) else value


def time_peer(row, peer, warm):
    """What a peer's row says beside its names."""
    device = settings["device"]
    runs, error_of, *notes = peer.build()
    error = error_of()
    if error is not None and not error <= most_error(row):
        raise ValueError(f"its error is {error:.2g} of the largest value")
    seconds, launch = measure(runs, device, float(settings["seconds"]), warm)
    n = len(seconds)
    return {"settings": "; ".join([peer.settings, *notes]), "samples": n,
            "median_us": round(1e6 * statistics.median(seconds), 3),
            "p5_us": round(1e6 * seconds[n // 20], 3),
            "p95_us": round(1e6 * seconds[n - 1 - n // 20], 3),
            "launch_us": round(1e6 * launch, 3), "flops": row["flops"], "bytes": row["bytes"],
            "copies": len(runs), **({} if error is None else {"error": float(f"{error:.3g}")}),
            "memory": torch.cuda.max_memory_allocated() if device == "cuda" else 0}


def run_peer(row, peer, warm, start):
    """A peer's row; {"failed": why} among it where it could not."""
    if settings["device"] == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    said = {"side": "peer", "bench": row["bench"], "shape": row["shape"], "dtype": row["dtype"],
            "peer": peer.name, "settings": peer.settings}
    left = float(settings["limit"]) - (time.monotonic() - start)
    signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))
    try:
        said |= time_peer(row, peer, warm)
    except Exception as error:  # a peer that cannot is no reason to lose the others
        lines = str(error).splitlines() or [""]
        said["failed"] = f"{type(error).__name__}: {lines[0][:150]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()  # a model and its compiled forms hold each other
    return {key: value if key == "shape" else text_of(value) for key, value in said.items()}


def is_lost(said):
    """Whether nothing runs on that GPU any more."""
    why = said.get("failed", "")
    return "CUDA error" in why and "out of memory" not in why


def versions():
    said = [f"Python {platform.python_version()}"]
    for name in ("torch", "triton", "timm", "transformers", "peft"):
        try:
            said.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            said.append(f"no {name}")
    if settings["device"] == "cuda":
        said += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}",
                 torch.cuda.get_device_name()]
    return "; ".join(said)


# ---- the program ----
def main():
    for argument in sys.argv[1:]:
        key, equals, value = argument.partition("=")
        if not equals or key not in (*settings, "rows", "json"):
            sys.exit(f"{argument}: not a setting; see the top of {sys.argv[0]}")
        settings[key] = value
    if "rows" not in settings or "json" not in settings:
        sys.exit("rows=FILE and json=FILE are wanted")
    device, start, warm = settings["device"], time.monotonic(), float(settings["warm"])
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU for PyTorch")
    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    signal.signal(signal.SIGALRM, out_of_time)
    with open(settings["rows"]) as file:
        rows = [row for row in map(json.loads, file) if row.get("bench") in PEERS]
    with open(settings["json"], "w") as out:
        print(versions())
        out.write(json.dumps({"versions": text_of(versions())}, separators=(",", ":")) + "\n")
        is_first = True
        for row in rows:
            if settings["only"] not in row["bench"] or row.get("side") == "peer":
                continue
            t, copies = DTYPES[row["dtype"]], row.get("copies", 1)
            for peer in PEERS[row["bench"]](row["shape"], t, copies, device):
                said = run_peer(row, peer, warm if is_first else warm / 6, start)
                is_first = is_first and "failed" in said
                out.write(json.dumps(said, separators=(",", ":")) + "\n")
                out.flush()
                print(f"{said['bench']:18} {said['shape']:44} {said['peer']:24} "
                      f"{said.get('failed', str(said.get('median_us')) + ' us')}", flush=True)
                if is_lost(said):
                    sys.exit("the GPU is lost")


if __name__ == "__main__":
    main()
