#!/bin/sh
# run: every stage of the method on one real data set, from the source file to the report.
#
#   tools/real/run.sh NAME SOURCE [SEED ...]     SEED: default 1
#   tools/real/pneumonia.sh 1 2 3                the same with NAME and SOURCE filled in
#
# configs/real/NAME.yaml holds the settings. SOURCE is below JOMED_TEST_DATA, else ../shared/data.
# Everything goes to runs/NAME: data (prepared once per call), seed-N with its stages and
# results.json, report.html over all seeds there. A seed that is run again replaces what it wrote.
# Exit code: that of the first verb that fails; 66 without the data.
set -eu
cd "$(dirname "$0")/../.."

jomed=build/bin/jomed
[ -x "$jomed" ] || { echo "error: $jomed is not built; run make" >&2; exit 69; }
[ $# -ge 2 ] || { echo "usage: tools/real/run.sh NAME SOURCE [SEED ...]" >&2; exit 64; }
name=$1 source=${JOMED_TEST_DATA:-../shared/data}/$2
shift 2
[ $# -gt 0 ] || set -- 1
[ -e "$source" ] || { echo "error: no '$source'; set JOMED_TEST_DATA" >&2; exit 66; }
config=configs/real/$name.yaml base=runs/$name

"$jomed" prepare "$config" prepare.source="$source" prepare.dir="$base/data"

run_seed() { # run_seed SEED
    dir=$base/seed-$1
    verb() { # verb "VERB" OUTPUT [KEY=VALUE ...]; OUTPUT "" for a verb without a run directory
        words=$1 out=$2
        shift 2
        # $words is one or two words.
        "$jomed" $words "$config" seed="$seed" data.root="$base/data" \
            data.corpus="$base/data/corpus.jsonl" data.task="$base/data/task.jsonl" \
            index.dir="$dir/index" score_store.dir="$dir/scores" \
            ${out:+run.dir="$out" run.start=overwrite} "$@"
    }
    seed=$1
    towers=retriever.weights=$dir/towers/retriever.safetensors
    reader=reader.weights=$dir/reader/reader.safetensors
    verb pretrain "$dir/towers"
    verb "index build" "" "$towers"
    verb train-reader "$dir/reader" "$towers"
    verb train-retriever "$dir/text-head" "$towers" "$reader" retriever.head=text
    verb train-retriever "$dir/image-head" "$towers" "$reader" retriever.head=image
    verb evaluate "$dir" "$towers" "$reader" retriever.text_head="$dir/text-head/head.safetensors" \
        retriever.image_head="$dir/image-head/head.safetensors"
}
for seed in "$@"; do
    run_seed "$seed"
done
"$jomed" report run.dir="$base"
