#!/bin/sh
# record: runs something and keeps its summary, with where it comes from, for README and
# tests/README.
#
#   tools/record.sh demo|bench|test|real    after a build; real wants the test data
#
# Writes bench/results/demo.md, bench/results/bench.json, bench/results/real.md, and in
# tests/results cpu.txt, emu.txt (the CUDA kernels in the emulator), nvcc.txt (which of them nvcc
# compiled). Run it on a clean tree: a commit that ends in "+changes" names no source anybody else
# has.
set -eu
cd "$(dirname "$0")/.."
bin=${BUILD:-build}/bin
mkdir -p bench/results tests/results
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "2026-01-31 at commit 0123abc on CPU NAME, N cores, gcc 12.2.0 -march=..., load 0.3 before"; times
# mean little where others were at work, and the load says so.
load=$(cut -d' ' -f1 /proc/loadavg)
origin() {
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr -d '"\\')
    version=$("$bin"/jomed --version | sed 's/.*(\(.*\))$/\1/; s/ *$//')
    echo "$(date -u +%Y-%m-%d) at commit ${version%%,*} on ${cpu:-an unnamed CPU}," \
        "$(nproc) core$([ "$(nproc)" = 1 ] || echo s),${version#*,}, load $load before"
}

case ${1:-} in
demo)
    start=$(date +%s)
    "$bin"/jomed demo run.dir="$work"/demo >"$work"/out || code=$?
    cat "$work"/out
    minutes=$(awk -v s=$(($(date +%s) - start)) 'BEGIN { printf "%.1f", s / 60 }')
    tables=$(find "$work"/demo -path '*tables/main.md' | head -n 1)
    {
        echo "<!-- origin: $(origin), $minutes minutes -->"
        if [ -n "$tables" ]; then
            cat "$tables"
            echo
            grep -E '^(joint - RAG|PASS|FAIL)' "$work"/out
        else
            printf '```\n'
            grep -vE '^$' "$work"/out
            printf '```\n'
        fi
    } >bench/results/demo.md
    exit "${code:-0}"
    ;;
bench)
    "$bin"/bench seconds=0.2 json="$work"/rows
    { printf '{"origin":"%s"}\n' "$(origin)" && cat "$work"/rows; } >bench/results/bench.json
    ;;
real)
    for name in pneumonia breast skin vqa_rad; do
        tools/real/$name.sh 1 2 3
    done
    {
        echo "<!-- origin: $(origin) -->"
        for name in pneumonia breast skin vqa_rad; do
            echo "**$name**"
            echo
            # System, the four ways to answer, the oracle: all queries.
            grep '^|' runs/$name/tables/main.md | cut -d'|' -f1-7 | sed 's/$/|/'
            echo
        done
    } >bench/results/real.md
    ;;
test)
    "$bin"/test record="$work"/rows || code=$?
    { echo "# origin: $(origin)" && cat "$work"/rows; } >tests/results/cpu.txt
    if nm "$bin"/test | grep -q ' device_backend_emu$'; then
        "$bin"/test backend=emu record="$work"/emu || code=$?
        { echo "# origin: $(origin)" && cat "$work"/emu; } >tests/results/emu.txt
    fi
    if nm "$bin"/test | grep -q ' device_backend_cuda$'; then
        commit=$("$bin"/jomed --version | sed 's/.*(//; s/,.*//')
        { echo "# origin: $(origin); $(nvcc --version | tail -n 1)"
          for op in $(sed -n 's/^ *X(\([a-z0-9_]*\)).*/\1/p' kernels/ops.h); do
              nm "$bin"/test | grep -q " T ${op}_cuda\$" &&
                    echo "$op 1 0 0 $(date -u +%Y-%m-%d) $commit"
          done; } >tests/results/nvcc.txt
    fi
    exit "${code:-0}"
    ;;
*)
    echo "usage: tools/record.sh demo|bench|test|real" >&2
    exit 64
    ;;
esac
