#!/bin/sh
# bench_gpu: our benches on a GPU and their peers, in turns, twice, into one record.
#
#   tools/bench_gpu.sh [only=WORD] [seconds=S] [warm=S] [rounds=N] [peers=yes|no] [out=DIR]
#   tools/bench_gpu.sh backend=cpu|emu shrink=4096 out=DIR  tries it without a GPU; counts nowhere
#
# `make bench backend=cuda` calls it. It works from a source tree and from a bundle (bin/bench or
# build/bin/bench). Rows are added to DIR/<gpu>-<date>-<commit>.json, one object per line after a
# line {"origin":"..."} that tells machine, clocks and temperature; only=matmul, attention, norm,
# adamw, topk, vit or qwen2vl runs one group, each of which ends within ten minutes on an H200 if
# our kernels are near their bars. Peers need python3 with PyTorch; without it our rows come alone.
# A group that fails leaves the rows it had; the others run, and the exit code is 1; without a GPU
# it is 69. tools/bench_bars.sh makes tables of the records.
set -eu
cd "$(dirname "$0")/.."
only='' seconds=0.5 warm=3 rounds=2 peers=yes out=bench/results backend=cuda shrink='' failed=0
for argument; do
    case $argument in
    only=* | seconds=* | warm=* | rounds=* | peers=* | out=* | backend=* | shrink=*)
        eval "${argument%%=*}=\${argument#*=}" ;;
    *)
        echo "$argument: not a setting; see the top of tools/bench_gpu.sh" >&2
        exit 64
        ;;
    esac
done
bin=${BUILD:-build}/bin
[ -x "$bin"/bench ] || bin=bin
bench=$bin/bench
[ "$backend" != emu ] || bench=$bin/bench-emu
[ -x "$bench" ] || { echo "no $bench here; make" >&2; exit 66; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- where it runs ----
commit=$("$bin"/jomed --version | sed 's/.*(//; s/,.*//')
today=$(date -u +%Y-%m-%d)
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
[ "$backend" = cuda ] || gpu=$backend
name=$(echo "${gpu:-gpu}" | tr 'A-Z ' 'a-z-' | sed 's/^nvidia-//')
state() { # clocks and heat under load are not those at rest, so each group tells its own
    nvidia-smi --format=csv,noheader \
        --query-gpu=driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu 2>/dev/null |
        head -n 1 | tr ',"' ';  ' || true
}
# cuBLASLt and cuDNN as PyTorch brings them, where the machine has none of its own.
libraries=$(python3 -c '
import glob, importlib.util
spec = importlib.util.find_spec("nvidia")
for root in spec.submodule_search_locations if spec else []:
    print(*glob.glob(root + "/*/lib"), sep=":", end=":")' 2>/dev/null || true)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries"

# ---- rows ----
record=$out/$name-$today-$commit.json
mkdir -p "$out"
ours() { # ours GROUP FILE
    "$bench" "$1" backend="$backend" seconds="$seconds" warm="$warm" ${shrink:+shrink=$shrink} \
        json="$2"
}
theirs() { # theirs GROUP FILE, on the rows of $work/ours
    [ "$peers" = yes ] && command -v python3 >/dev/null || return 0
    python3 bench/peers/gpu.py rows="$work"/ours json="$2" only="$1" seconds="$seconds" \
        warm="$warm" device="$backend" || echo "peers of $1: not run, or not all" >&2
}
for group in ceiling matmul attention norm adamw topk vit qwen2vl; do
    case $group in *"$only"*) ;; *) [ $group = ceiling ] || continue ;; esac
    for round in $(seq "$rounds"); do
        : >"$work"/ours
        : >"$work"/theirs
        ours $group "$work"/ours || {
            code=$? failed=1
            [ $group != ceiling ] || exit $code # no GPU, or none that works
            echo "bench of $group ended with $code" >&2
        }
        printf '{"origin":"%s at commit %s on %s; %s; %s; round %s"}\n' "$(date -u +%Y-%m-%dT%H:%M)" \
            "$commit" "${gpu:-an unnamed GPU}" "$(state)" "$group" "$round" >>"$record"
        [ $group = ceiling ] || theirs $group "$work"/theirs
        sed "s/^{/{\"round\":$round,/" "$work"/ours "$work"/theirs >>"$record"
    done
done
echo "rows are in $record; tools/bench_bars.sh makes tables of them"
exit $failed
