#!/bin/sh
# test_gpu: everything that wants a GPU, in stages that each end within a limit.
#
#   tools/test_gpu.sh [STAGE...] [only=WORD] [out=DIR] [limit=SECONDS]
#                                  defaults: all stages, BUILD/gpu, 570
#   tools/test_gpu.sh backend=emu ...
#                                  tries it on the emulated device, at small sizes; counts nowhere
#
#   ops        machine instructions, then every op at test and at real sizes
#   models     towers and readers against their originals, the device, every verb, the CPU beside it
#   demo       the embedded benchmark twice: equal bits
#   sanitizer  four tools of compute-sanitizer, where it is installed, over some ops
#   bench      kernels beside their peers, in groups with a limit each
#
# only=WORD takes the tests and groups of the bench whose name contains it, beside the instructions.
# Programs are those of BUILD/bin. DIR gets a log per part; gpu.txt, the records of the tests, each
# part's newest, that tests/results/gpu.txt is a copy of; doctor.txt; and summary.txt, a line per
# part of this run: how it went, seconds, and its last word. Exit code 0 if all passed, 1 if
# something failed or ran out of time, 69 without a GPU.
set -u
cd "$(dirname "$0")/.." || exit 66
bin=${BUILD:-build}/bin
out='' limit=570 stages='' only='' backend=cuda
for word in "$@"; do
    case $word in
    out=* | limit=* | only=*) eval "${word%%=*}=\${word#*=}" ;;
    backend=cuda | backend=emu) backend=${word#backend=} ;;
    ops | models | demo | sanitizer | bench) stages="$stages $word" ;;
    *)
        echo "test_gpu: '$word' is no stage; there are ops models demo sanitizer bench" >&2
        exit 64
        ;;
    esac
done

# What differs without a GPU: the test program is jomed on the emulated device, sizes are small.
jomed=$bin/jomed as_jomed='' large=large=1 sizes='' seeds='1 2 3' rows=''
if [ $backend = emu ]; then
    jomed=$bin/test as_jomed=jomed large='' seeds=1
    sizes='demo.seeds=[1] demo.corpus=256 demo.queries=16 demo.reader_steps=1 demo.refit_steps=1
           pretrain.steps=1 pretrain.batch=2 reader.steps=1 retriever.steps=1 retriever.batch=1
           retriever.k=2'
    rows='backend=emu shrink=65536 seconds=0.001 warm=0 rounds=1 peers=no'
fi
[ -n "$out" ] || out=${BUILD:-build}/gpu$([ $backend = cuda ] || echo -$backend)

mkdir -p "$out" || exit 73
: >"$out"/summary.txt
"$jomed" $as_jomed doctor run.dir="$out" >"$out"/doctor.txt 2>&1
if ! grep -q '^ok  GPU' "$out"/doctor.txt; then
    echo "test_gpu: $(sed -n 's/^--  GPU *//p' "$out"/doctor.txt); nothing was run" >&2
    exit 69
fi
sed -n 's/^ok  GPU */test_gpu: /p' "$out"/doctor.txt
if command -v nvidia-smi >/dev/null; then
    nvidia-smi -q >"$out"/nvidia-smi.txt
fi
failed=0

# part NAME COMMAND...: runs it in what is left of the stage's time. What does not end when it is
# told to is killed ten seconds later.
part() {
    name=$1
    shift
    start=$(date +%s)
    left=$((end - start))
    left=$((left > 0 ? left : 1))
    timeout -k 10 $left "$@" >"$out/$name.log" 2>&1
    code=$?
    took=$(($(date +%s) - start))
    [ $code -eq 0 ] || failed=1
    case $code in
    0) verdict=passed ;;
    124) verdict='OUT OF TIME' ;;
    *) verdict="FAILED, code $code$([ $took -lt $left ] || echo ', OUT OF TIME')" ;;
    esac
    echo "$name: $verdict, $took s; $(tail -n 1 "$out/$name.log")" | tee -a "$out"/summary.txt
}

# tests NAME ARGUMENTS...: a run of the test program, whose record joins gpu.txt, however it ended.
tests() {
    name=$1
    shift
    "$bin"/test --list backend=$backend "$@" | grep -q . || return 0 # only=WORD left nothing
    part "$name" "$bin"/test backend=$backend record="$out/$name.record" "$@"
    for record in "$out"/*.record; do
        ! grep -q "^# backend=$backend " "$record" || cat "$record"
    done >"$out"/gpu.txt
}

for stage in ${stages:-ops models demo sanitizer bench}; do
    end=$(($(date +%s) + limit))
    case $stage in
    ops)
        tests conformance conformance
        tests ops part=ops $large $only
        ;;
    models)
        tests models part=models $large $only
        tests programs part=programs $only
        ;;
    demo)
        rm -rf "$out"/demo-a "$out"/demo-b
        for run in a b; do # 1: the demo's own claim failed, which is no fault of the GPU
            part demo-$run sh -c '"$@"; code=$?; echo "demo ended with $code"; [ $code -le 1 ]' - \
                "$jomed" $as_jomed demo device=cuda $sizes run.dir="$out"/demo-$run
        done
        for seed in $seeds; do
            for file in losses.jsonl results.json; do
                part "same-$file-$seed" cmp "$out/demo-a/seed-$seed/$file" \
                    "$out/demo-b/seed-$seed/$file"
            done
        done
        ;;
    sanitizer)
        tool=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin command -v compute-sanitizer)
        [ $backend = cuda ] || tool='' # there is no GPU to watch
        if [ -z "$tool" ]; then
            echo "sanitizer: skipped, no compute-sanitizer on PATH or in CUDA_HOME" |
                tee -a "$out"/summary.txt
            continue
        fi
        for check in memcheck racecheck synccheck initcheck; do
            for test in conformance layernorm_fwd matmul_fwd attention_fwd topk; do
                part $check-$test "$tool" --tool $check --target-processes all \
                    --error-exitcode 99 "$bin"/test backend=cuda $test
            done
        done
        ;;
    bench)
        for group in $(tools/bench_gpu.sh list); do # a limit for each
            case $group in *"$only"*) ;; *) continue ;; esac
            end=$(($(date +%s) + limit))
            part bench-$group tools/bench_gpu.sh only=$group out="$out" $rows
        done
        ;;
    esac
done
exit $failed
