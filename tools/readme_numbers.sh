#!/bin/sh
# readme_numbers: writes the numbers of README.md from recorded runs.
#
#   tools/readme_numbers.sh [FILE]     default README.md; between <!-- numbers:NAME --> markers
#   tools/readme_numbers.sh --tests    prints the line about the tests
#
# The records come from `make record-demo`, `make record-bench` and `make record-test` (record.sh),
# and say on which machine, at which commit, by which compiler they were made. What is not recorded
# is said to be missing.
set -u
cd "$(dirname "$0")/.." || exit 66

# The line of a record that says where it comes from: "<!-- origin: TEXT -->" or {"origin":"TEXT"}.
origin() { sed -n 's/^<!-- origin: \(.*\) -->$/\1/p; s/^{"origin":"\(.*\)"}$/\1/p' "$1"; }

demo() {
    record=bench/results/demo.md
    [ -f $record ] || { echo "Not recorded yet: \`make record-demo\`."; return; }
    sed 1d $record
    echo
    echo "Recorded $(origin $record)."
}

real() {
    record=bench/results/real.md
    [ -f $record ] || { echo "Not recorded yet: \`make record-real\`."; return; }
    sed 1d $record
    echo "Accuracy, percent, mean and sample sd over seeds 1 to 3. Recorded $(origin $record)."
}

bench() {
    record=bench/results/bench.json
    [ -f $record ] || { echo "Not recorded yet: \`make record-bench\`."; return; }
    echo "| bench | shape | median | GFLOP/s | of the peak | beside | ratio |"
    echo "|---|---|--:|--:|--:|---|--:|"
    awk "$(cat tools/bench_value.awk)"'
    # The headlines: of the many products only the forward of ViT-B/16 and 1024^3, weights packed
    # once.
    function is_headline(bench, shape) {
        if (bench ~ /^matmul/) {
            return bench == "matmul_fwd" && shape ~ /packed/ && shape ~ /M=(197|1024) / &&
                   value("peer") ~ /OpenBLAS/
        }
        return bench ~ /^(vit_b16|block|topk|attention|layernorm|pictures)/
    }
    /"bench":/ && value("peer") != "" && is_headline(value("bench"), value("shape")) {
        us = value("median_us") + 0
        time = sprintf("%.1f us", us)
        if (us >= 1e3) { time = sprintf("%.2f ms", us / 1e3) }
        if (us >= 1e6) { time = sprintf("%.2f s", us / 1e6) }
        flops = value("flops") + 0
        rate = flops > 0 ? sprintf("%.1f", flops / us / 1e3) : ""
        share = value("peak_share")
        printf "| %s | %s | %s | %s | %s | %s | %.2f |\n", value("bench"), value("shape"), time,
               rate, share != "" ? sprintf("%.0f%%", 100 * share) : "", value("peer"),
               value("ratio")
    }' $record
    echo
    echo "Ratio: the peer's time over ours, measured in turns in the same run; above 1 we are" \
        "faster. All rows:"
    echo "\`bench/results/bench.json\`."
    echo "Recorded $(origin $record)."
}

tests() {
    record=tests/results/cpu.txt
    [ -f $record ] || { echo "Not recorded yet: \`make record-test\`."; return; }
    awk '/^# origin: / { origin = substr($0, 11); next }
    /^#/ { next }
    { passed += $2; failed += $3; skipped += $4 }
    END {
        printf "%d cases in %d tests passed, %d failed, %d skipped. Recorded %s.\n", passed, NR - 2,
               failed, skipped, origin
    }' $record
}

[ "${1:-}" != --tests ] || { tests; exit; }
file=${1:-README.md}
tools/between_markers.sh "$file" demo "$(demo)" || exit
tools/between_markers.sh "$file" real "$(real)" || exit
tools/between_markers.sh "$file" bench "$(bench)" || exit
tools/between_markers.sh "$file" tests "$(tests)"
