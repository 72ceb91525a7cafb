# What the dump_reference_*.py scripts share: one model run in f32 and in f64, and the fixture file.
#
# A fixture holds, as safetensors: weight/NAME f32 under the checkpoint's names, input/..., the loss
# weights dout (the loss is sum dout * out), out and grad/NAME in f64, and error/NAME, the largest
# |f32 - f64| over four f32 runs of the original implementation (see dump): ours may be at most
# about twice as far from f64.
import contextlib
import itertools
import os
import subprocess
import sys

import numpy
import torch
from safetensors.numpy import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)
FURTHER = "REFERENCE_FURTHER_PASS"
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data")
ARGUMENTS = list(sys.argv)  # all of them, for on_other_kernels
if "--out" in sys.argv:  # every script that writes fixtures takes it: another folder for them
    _at = sys.argv.index("--out")
    DATA = sys.argv[_at + 1]
    del sys.argv[_at:_at + 2]


class _Float64Torch:
    """Stands for the module torch inside a modeling file: what it calls float is f64."""

    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


class _RefuseFloat32(TorchDispatchMode):
    """An f64 run that falls back to f32 anywhere would be a false truth."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                raise TypeError(f"{func} gave f32 in the f64 run")
        return out


class _Reorder(TorchDispatchMode):
    """Sums of products and of norms in another order, drawn from the seed: the same computation in
    exact arithmetic, with rounding errors of its own, forward and backward."""

    def __init__(self, seed):
        super().__init__()
        self.rng = numpy.random.default_rng(seed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func in (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default):
            *first, a, b = args
            order = torch.from_numpy(self.rng.permutation(a.shape[-1]))
            args = (*first, a[..., order], b[..., order, :])
        elif func is aten.native_layer_norm.default and len(args[1]) == 1:
            x, shape, weight, bias, eps = args
            order = torch.from_numpy(self.rng.permutation(x.shape[-1]))
            out, mean, rstd = func(x[..., order], shape, weight[order], bias[order], eps)
            return out[..., torch.argsort(order)].contiguous(), mean, rstd
        return func(*args, **(kwargs or {}))


def _functions(module):
    for thing in list(vars(module).values()):
        for member in vars(thing).values() if isinstance(thing, type) else (thing,):
            while member is not None and callable(member):
                if hasattr(member, "__kwdefaults__"):
                    yield member
                member = getattr(member, "__wrapped__", None)


def _swap_defaults(modules, old, new):
    """Arguments whose default is a type were bound when the module was loaded."""
    for function in (f for module in modules for f in _functions(module)):
        if function.__defaults__:
            function.__defaults__ = tuple(new if d is old else d for d in function.__defaults__)
        for name, value in (function.__kwdefaults__ or {}).items():
            if value is old:
                function.__kwdefaults__[name] = new


@contextlib.contextmanager
def precision(dtype, modules):
    """Models cast to float32 here and there on purpose; in the f64 run that must mean float64."""
    old_default, old_float = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(dtype)
    if dtype == torch.float64:
        for module in modules:
            module.torch = _Float64Torch()
        _swap_defaults(modules, torch.float32, torch.float64)
        torch.Tensor.float = torch.Tensor.double
    try:
        with _RefuseFloat32() if dtype == torch.float64 else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(old_default)
        torch.Tensor.float = old_float
        for module in modules:
            module.torch = torch
        if dtype == torch.float64:
            _swap_defaults(modules, torch.float64, torch.float32)


def random_weights(shapes, seed):
    """Matrices with sd 1/sqrt(fan_in), norm weights around 1, the rest around 0; all f32."""
    rng = numpy.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        if "lora_B" in name:
            values *= 0.2
        elif len(shape) >= 2 and "embed" not in name:
            values /= numpy.sqrt(numpy.prod(shape[1:]))
        elif len(shape) == 1:
            values = 0.2 * values + (1 if name.endswith("weight") else 0)
        else:
            values *= 0.5
        weights[name] = values.astype(numpy.float32)
    return weights


def formula(name, count, centre=0.0, spread=1.0):
    """count values of a name in 64 bits: the formula of tests/model_check.h."""
    mask, golden = (1 << 64) - 1, numpy.uint64(0x9e3779b97f4a7c15)
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001b3) & mask
    z = numpy.uint64(h) + numpy.arange(1, count + 1, dtype=numpy.uint64) * golden
    z = (z ^ z >> numpy.uint64(30)) * numpy.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ z >> numpy.uint64(27)) * numpy.uint64(0x94d049bb133111eb)
    u = ((z ^ z >> numpy.uint64(31)) >> numpy.uint64(40)).astype(numpy.float64) / 2**23 - 1
    return centre + spread * u


def formula_weights(shapes):
    """The same values as tensors_formula in tests/model_check.c, where the formula stands: a
    fixture made with them need not hold weights. shapes: by the checkpoint's names."""
    weights = {}
    for name, shape in shapes.items():
        count = int(numpy.prod(shape, dtype=numpy.int64))
        centre, spread = 0.0, 0.3
        if len(shape) >= 2:
            is_table = len(shape) <= 3 and "embed" in name
            spread = (0.35 if "lora_B" in name else 0.8 if is_table
                      else numpy.sqrt(3.0 / (count // shape[0])))
        elif name.endswith("weight"):
            centre = 1.0
        values = formula(name, count, centre, spread)
        weights[name] = values.astype(numpy.float32).reshape(shape)
    return weights


def measure(build, run, weights, inputs, frozen, seed, dtype, modules, scale=1):
    """Output and gradients of one run, the loss times scale and the gradients divided by it."""
    with precision(dtype, modules):
        model = build().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensor(weights[name], dtype))
                parameter.requires_grad_(not frozen(name))
        out = run(model, dtype)
        if "dout" not in inputs:
            inputs["dout"] = numpy.random.default_rng(seed + 1).standard_normal(
                tuple(out.shape)).astype(numpy.float32)
        (out * tensor(inputs["dout"], dtype) * scale).sum().backward()
        result = {"out": out.detach().numpy()}
        for name, parameter in model.named_parameters():
            if not frozen(name):
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                result["grad/" + name] = grad.numpy() / grad.numpy().dtype.type(scale)
    return result


def measure_f32(build, run, weights, inputs, frozen, seed, modules, reorders=8):
    """f32 runs that differ only in rounding: as they come; with and without oneDNN, the loss
    multiplied by 1 and by 0.7; and with sums in other orders."""
    for has_mkldnn, scale in itertools.product((True, False), (1, 0.7)):
        with torch.backends.mkldnn.flags(enabled=has_mkldnn):
            yield measure(build, run, weights, inputs, frozen, seed, torch.float32, modules, scale)
    for k in range(reorders):
        with _Reorder(k):
            yield measure(build, run, weights, inputs, frozen, seed, torch.float32, modules)


def round_bf16(values):
    """f32 values rounded to bf16, to nearest, ties to even; still f32."""
    bits = values.view(numpy.uint32).astype(numpy.uint64)
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000
    return bits.astype(numpy.uint32).view(numpy.float32)


def tensor(values, dtype):
    """values (f32) as a tensor of dtype, without a detour by way of f32 in the f64 run."""
    values = values.astype(numpy.float64 if dtype == torch.float64 else numpy.float32)
    return torch.from_numpy(values).to(dtype)


def measure_bf16(builds, run, weights, rename, modules):
    """The output from weights rounded to bf16: in f64 (the truth), and the largest error of bf16
    runs: of each build, with and without oneDNN."""
    def output(build, dtype):
        with precision(dtype, modules), torch.no_grad():
            model = build().eval()
            for name, parameter in model.named_parameters():
                parameter.copy_(tensor(round_bf16(weights[rename(name)]), dtype))
            return run(model, dtype).double().numpy()

    truth, errors = output(builds[0], torch.float64), []
    for build, has_mkldnn in itertools.product(builds, (True, False)):
        with torch.backends.mkldnn.flags(enabled=has_mkldnn):
            errors.append(numpy.abs(output(build, torch.bfloat16) - truth).max())
    return {"bf16/out": truth, "error/bf16/out": numpy.array([max(errors)])}


def dump(file, build, run, inputs, modules=(), rename=lambda name: name, frozen=lambda name: False,
         seed=1, given=None, keep=lambda name: True, run_bf16=None, is_formula=False,
         metadata=None, others=()):
    """build() makes the model, run(model, dtype) its output. rename maps a parameter's name to the
    checkpoint's. given: weights that another fixture already holds; they are used and not stored.
    keep: whose gradients are stored. run_bf16: run for bf16, where that is wanted; it rounds its
    inputs in the f64 run, too. is_formula: weights by formula_weights, which are not stored.
    metadata: texts kept in the file. others: make the same model with other kernels.

    The f32 error is the largest of f32 runs of the original on these very weights, which differ in
    rounding alone: those of measure_f32, four of them again with `others`, such as another
    implementation of attention, and as many again for each pass of on_other_kernels. (The fixtures
    of readers were made before measure_f32 had sums in other orders.) One run alone may be lucky
    with a tensor of a few elements: held to twice the error of a single other run, one run of torch
    fails for 5 in 100 tensors of these sizes (tests/reference.h has the numbers)."""
    with precision(torch.float32, modules):
        shapes = {n: tuple(p.shape) for n, p in build().named_parameters()}
    if is_formula:
        made = formula_weights({rename(name): shape for name, shape in shapes.items()})
        weights = {name: made[rename(name)] for name in shapes}
        given = made
    else:
        weights = random_weights(shapes, seed)
    for name in weights:
        if given and rename(name) in given:
            weights[name] = given[rename(name)]
    truths = measure(build, run, weights, inputs, frozen, seed, torch.float64, modules)
    error = {}
    runs = [measure_f32(build, run, weights, inputs, frozen, seed, modules)]
    runs += [measure_f32(other, run, weights, inputs, frozen, seed, modules, 0) for other in others]
    for values in itertools.chain(*runs):
        for name, value in values.items():
            off = numpy.abs(value.astype(numpy.float64) - truths[name]).max()
            error[name] = max(error.get(name, 0), off)
    tensors = {"input/" + name: value for name, value in inputs.items()}
    for name, value in weights.items():
        if not given or rename(name) not in given:
            tensors["weight/" + rename(name)] = value
    for name, truth in truths.items():
        assert truth.dtype == numpy.float64, name
        if name == "out" or keep(name):
            stored = "out" if name == "out" else "grad/" + rename(name[5:])
            tensors[stored] = truth
            tensors["error/" + stored] = numpy.array([error[name]])
    if run_bf16:
        renamed = {rename(n): w for n, w in weights.items()}
        tensors.update(measure_bf16([build, *others], run_bf16, renamed, rename, modules))
    path = os.path.join(DATA, file)
    if FURTHER in os.environ:
        stored = load_file(path)
        tensors = {name: numpy.maximum(value, tensors[name])
                   if name.startswith("error/") and "bf16" not in name else value
                   for name, value in stored.items()}
    save_file({n: numpy.ascontiguousarray(t) for n, t in tensors.items()}, path,
              metadata={"format": "pt", "torch": torch.__version__, **(metadata or {})})
    print(f"{file}: {os.path.getsize(path)} bytes, {len(weights)} parameters, out "
          f"{truths['out'].shape}, f32 error {error['out']:.2g} of "
          f"{numpy.abs(truths['out']).max():.3g}")
    return {rename(n): w for n, w in weights.items()}


def on_other_kernels():
    """Last line of a script: runs it again with the kernels that torch and MKL have for other CPUs.
    The fixtures stay; their f32 errors become the largest of all passes."""
    if FURTHER not in os.environ:
        for kernels in (dict(MKL_CBWR="COMPATIBLE"),
                        dict(MKL_CBWR="COMPATIBLE", ATEN_CPU_CAPABILITY="default")):
            subprocess.run([sys.executable, *ARGUMENTS], check=True,
                           env={**os.environ, **kernels, FURTHER: "1"})
