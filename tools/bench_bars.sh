#!/bin/sh
# bench_bars: writes bench/results/README.md: what the kernels are to reach on a GPU, and what the
# newest record of tools/bench_gpu.sh says. Part of `make readme`.
#
#   tools/bench_bars.sh [FILE] [RECORDS]      default bench/results/README.md bench/results
#
# The newest record is the one with the latest date in its name, DIR/<gpu>-<date>-<commit>.json.
# Only rows that ran on a GPU count. Of several rounds the slowest of ours stands against the
# fastest of the peer. What not all of its rows show is `not measured`.
set -u
cd "$(dirname "$0")/.." || exit 66
file=${1:-bench/results/README.md} records=${2:-bench/results}

newest=$(find "$records" -maxdepth 1 -name '*-20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]-*.json' |
    sed 's/.*\(20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]\)-[^/]*$/\1 &/' | sort | tail -n 1 |
    cut -d' ' -f2-)

{
    echo "# Benches"
    echo
    echo "Written by \`make readme\` (tools/bench_bars.sh) from records; \`bench.json\` holds"
    echo "the CPU's rows, \`make bench backend=cuda\` makes a GPU's, beside its peers. Ours is"
    echo "the slowest of the rounds, in brackets the fastest; a peer the fastest, in brackets the"
    echo "slowest; one that takes the host as long to launch as the GPU to run is said to be"
    echo "bound by launches. Spread within a round and memory are in the record."
    echo
    if [ -n "$newest" ]; then
        echo "Record: \`${newest##*/}\`."
    else
        echo "No run on a GPU is recorded yet."
    fi
    echo
    awk -f tools/bench_value.awk -f tools/bench_bars.awk "${newest:-/dev/null}"
} >"$file.new" && mv "$file.new" "$file"
