#!/bin/sh
# test_gpu: everything that wants a GPU, in stages that each end within a limit.
#
#   tools/test_gpu.sh [STAGE...] [out=DIR] [limit=SECONDS]     defaults: all stages, build/gpu, 570
#
#   ops        machine instructions on small integers, then every op at test and at real sizes
#   models     towers and readers against their originals, the device itself, every verb, CPU beside
#              it
#   demo       the embedded benchmark twice: equal bits
#   sanitizer  four tools of compute-sanitizer, where it is installed, over some ops
#   bench      kernels beside their peers, in seven groups with a limit each
#
# Programs are those of BUILD/bin. DIR gets a log per part; gpu.txt, the record of the tests that
# tests/results/gpu.txt is a copy of; doctor.txt; and summary.txt, a line per part: how it went,
# seconds, and its last word. Exit code 0 if all passed, 1 if something failed or ran out of time,
# 69 without a GPU.
set -u
cd "$(dirname "$0")/.." || exit 66
bin=${BUILD:-build}/bin
out=${BUILD:-build}/gpu
limit=570
stages=
for word in "$@"; do
    case $word in
    out=*) out=${word#out=} ;;
    limit=*) limit=${word#limit=} ;;
    ops | models | demo | sanitizer | bench) stages="$stages $word" ;;
    *)
        echo "test_gpu: '$word' is no stage; there are ops models demo sanitizer bench" >&2
        exit 64
        ;;
    esac
done

mkdir -p "$out" || exit 73
"$bin"/jomed doctor run.dir="$out" >"$out"/doctor.txt 2>&1
if ! grep -q '^ok  GPU' "$out"/doctor.txt; then
    echo "test_gpu: $(sed -n 's/^--  GPU *//p' "$out"/doctor.txt); nothing was run" >&2
    exit 69
fi
sed -n 's/^ok  GPU */test_gpu: /p' "$out"/doctor.txt
if command -v nvidia-smi >/dev/null; then
    nvidia-smi -q >"$out"/nvidia-smi.txt
fi
failed=0

# part NAME COMMAND...: runs it in what is left of the stage's time.
part() {
    name=$1
    shift
    start=$(date +%s)
    left=$((end - start))
    timeout $((left > 0 ? left : 1)) "$@" >"$out/$name.log" 2>&1
    code=$?
    [ $code -eq 0 ] || failed=1
    case $code in
    0) verdict=passed ;;
    124) verdict='OUT OF TIME' ;;
    *) verdict="FAILED, code $code" ;;
    esac
    echo "$name: $verdict, $(($(date +%s) - start)) s; $(tail -n 1 "$out/$name.log")" |
        tee -a "$out"/summary.txt
}

# tests NAME ARGUMENTS...: a run of the test program, whose record joins gpu.txt.
tests() {
    name=$1
    shift
    part "$name" "$bin"/test backend=cuda record="$out/$name.record" "$@"
    cat "$out/$name.record" >>"$out"/gpu.txt
}

for stage in ${stages:-ops models demo sanitizer bench}; do
    end=$(($(date +%s) + limit))
    case $stage in
    ops)
        tests conformance conformance
        tests ops part=ops large=1
        ;;
    models)
        tests models part=models large=1
        tests programs part=programs
        ;;
    demo)
        rm -rf "$out"/demo-a "$out"/demo-b
        for run in a b; do # 1: the demo's own claim failed, which is no fault of the GPU
            part demo-$run sh -c '"$1" demo device=cuda run.dir="$2"; code=$?
                echo "demo ended with $code"; [ $code -le 1 ]' - "$bin"/jomed "$out"/demo-$run
        done
        for seed in 1 2 3; do
            for file in losses.jsonl results.json; do
                part "same-$file-$seed" cmp "$out/demo-a/seed-$seed/$file" \
                    "$out/demo-b/seed-$seed/$file"
            done
        done
        ;;
    sanitizer)
        tool=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin command -v compute-sanitizer)
        if [ -z "$tool" ]; then
            echo "sanitizer: skipped, no compute-sanitizer on PATH or in CUDA_HOME" |
                tee -a "$out"/summary.txt
            continue
        fi
        for check in memcheck racecheck synccheck initcheck; do
            for test in conformance layernorm_fwd matmul_fwd attention_fwd topk; do
                part $check-$test "$tool" --tool $check --target-processes all --error-exitcode 99 \
                    "$bin"/test backend=cuda $test
            done
        done
        ;;
    bench)
        for group in matmul attention norm adamw topk vit qwen2vl; do # a limit for each
            end=$(($(date +%s) + limit))
            part bench-$group tools/bench_gpu.sh only=$group out="$out"
        done
        ;;
    esac
done
exit $failed
