#!/bin/sh
# bench_gpu: our benches on a GPU and their peers, in turns, twice, into one record.
#
#   tools/bench_gpu.sh [only=WORD] [seconds=S] [warm=S] [limit=S] [rounds=N] [peers=yes|no]
#                      [out=DIR]
#   tools/bench_gpu.sh list                                 the groups, one per line
#   tools/bench_gpu.sh backend=cpu|emu shrink=4096 out=DIR  tries it without a GPU; counts nowhere
#
# `make bench backend=cuda` calls it. It works from a source tree and from a bundle (bin/bench or
# build/bin/bench). Rows are added to DIR/<gpu>-<date>-<commit>.json, one object per line after a
# line {"origin":"..."} that tells machine, clocks and temperature; only=WORD runs the groups whose
# name holds it. A group ends within ten minutes on an H200 if our kernels are near their bars: its
# peers stop after limit seconds in each round, and those not done have rows that say so. Peers need
# python3 with PyTorch; without it our rows come alone. A group that fails leaves the rows it had;
# the others run, and the exit code is 1; without a GPU it is 69. tools/bench_bars.sh makes tables
# of the records.
set -eu
cd "$(dirname "$0")/.."
groups='matmul_fwd matmul_bwd_input matmul_bwd_weight attention norm adamw topk vit qwen2vl_7b_score
qwen2vl_7b_lora'
only='' seconds=0.5 warm=3 limit=200 rounds=2 peers=yes out=bench/results backend=cuda shrink=''
failed=0
for argument; do
    case $argument in
    only=* | seconds=* | warm=* | limit=* | rounds=* | peers=* | out=* | backend=* | shrink=*)
        eval "${argument%%=*}=\${argument#*=}" ;;
    list)
        printf '%s\n' $groups
        exit ;;
    *)
        echo "$argument: not a setting; see the top of tools/bench_gpu.sh" >&2
        exit 64
        ;;
    esac
done
wanted=$(printf '%s\n' $groups | grep -e "$only") || {
    echo "only=$only: no group; tools/bench_gpu.sh list shows them" >&2
    exit 64
}
bin=${BUILD:-build}/bin
[ -x "$bin"/bench ] || bin=bin
program=$bin/bench peers_device=$backend
[ "$backend" != emu ] || program=$bin/bench-emu peers_device=cpu
[ -x "$program" ] || { echo "no $program here; make" >&2; exit 66; }
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
    "$program" "$1" backend="$backend" seconds="$seconds" warm="$warm" ${shrink:+shrink=$shrink} \
        json="$2"
}
theirs() { # theirs GROUP FILE, on the rows of $work/ours
    [ "$peers" = yes ] && command -v python3 >/dev/null || return 0
    python3 bench/peers/gpu.py rows="$work"/ours json="$2" only="$1" seconds="$seconds" \
        warm="$warm" limit="$limit" device="$peers_device" ||
        echo "peers of $1: not run, or not all" >&2
}
for group in ceiling $wanted; do
    for round in $(seq "$rounds"); do
        : >"$work"/ours
        : >"$work"/theirs
        ours $group "$work"/ours || {
            code=$? failed=1
            [ $group != ceiling ] || exit $code # no GPU, or none that works
            echo "bench of $group ended with $code" >&2
        }
        printf '{"origin":"%s at commit %s on %s; %s; %s; round %s"}\n' \
            "$(date -u +%Y-%m-%dT%H:%M)" "$commit" "${gpu:-an unnamed GPU}" "$(state)" "$group" \
            "$round" >>"$record"
        sed "s/^{/{\"round\":$round,/" "$work"/ours >>"$record"
        [ $group = ceiling ] || theirs $group "$work"/theirs
        sed "s/^{/{\"round\":$round,/" "$work"/theirs >>"$record"
    done
done
echo "rows are in $record; tools/bench_bars.sh makes tables of them"
exit $failed
