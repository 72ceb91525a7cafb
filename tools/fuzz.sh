#!/bin/sh
# fuzz: libFuzzer on every target in turn, so many seconds in all. `make fuzz SECONDS=600`.
#
#   tools/fuzz.sh BUILD SECONDS [TARGET...]
#
# Each target starts from its committed corpus (tests/data/fuzz/NAME), from what earlier runs found
# worth keeping (BUILD/corpus/NAME), and from test data of its format where that is there
# ($JOMED_TEST_DATA, else ../shared/data). An input that crashes, hangs for 10 s or takes 2 GB is
# left in BUILD/found: mend the parser, then keep it as tests/data/fuzz/NAME/bad-WHAT. Prints a line
# per target; exit code 1 when something was found.
set -u
cd "$(dirname "$0")/.." || exit 66
[ $# -ge 2 ] || { echo "usage: tools/fuzz.sh BUILD SECONDS [TARGET...]" >&2; exit 64; }
build=$1 seconds=$2
shift 2
[ $# -gt 0 ] || set -- $(ls tests/data/fuzz)
each=$((seconds / $#))
[ "$each" -gt 0 ] || { echo "fuzz: $# targets want a second each at least" >&2; exit 64; }
data=${JOMED_TEST_DATA:-../shared/data}

more() { # folders of test data for a target
    case $1 in
    png) echo images/pngsuite images/png-extra ;;
    jpeg) echo images/jpeg images/jpeg-corrupt ;;
    yaml) echo config/yaml ;;
    hub | jsonl | processor | results) echo config/json ;;
    esac
}

found=0
mkdir -p "$build/found"
for target; do
    corpus=$build/corpus/$target log=$build/found/$target.log
    mkdir -p "$corpus"
    set -- "$corpus" "tests/data/fuzz/$target"
    for folder in $(more "$target"); do
        [ ! -d "$data/$folder" ] || set -- "$@" "$data/$folder"
    done
    if OMP_NUM_THREADS=1 nice "$build/bin/fuzz_$target" -max_total_time="$each" -max_len=16384 \
        -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/found/$target-" "$@" >"$log" 2>&1
    then verdict=clean
    else
        verdict="FOUND $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1); see $log"
        found=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    printf '%-16s %10s runs %6s edges  %s\n' "$target" "${runs:-?}" "${edges:-?}" "$verdict"
done
exit $found
