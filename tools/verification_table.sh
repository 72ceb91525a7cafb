#!/bin/sh
# verification_table: writes the tables of tests/README.md from recorded test runs.
#
#   tools/verification_table.sh [FILE]         default tests/README.md; rewrites what stands between
#                                              <!-- numbers:NAME --> and <!-- /numbers:NAME -->
#
# Records are what `build/bin/test record=FILE` writes, kept in tests/results: cpu.txt, emu.txt and
# gpu.txt hold runs of the three backends, nvcc.txt one line per op that nvcc compiled. How tests are
# named decides where they count:
#   <op>             an op of the OPS list against an independent loop in double precision
#   <part>_...       a model or a part of the host; what stands before the first match below
#   ..._reference    against tensors dumped from PyTorch by tools/dump_reference_*.py
# Leaves out: single cases; --list and the record of a run show them.
set -u
cd "$(dirname "$0")/.." || exit 66
file=${1:-tests/README.md}
results=tests/results
record() { if [ -f "$results/$1.txt" ]; then echo "$results/$1.txt"; fi; }

# Part of the test's name, what it is, other implementations it is compared with.
MODELS="image_tower|image tower (EVA02, CLIP, timm)|
text_tower|text tower (JinaBERT, CLIP, BERT)|
alibi|ALiBi slopes|
block|transformer block|
reader|reader (Qwen2-VL, Pixtral), with LoRA|
lora|LoRA|
retriever|retriever and query heads|
model|tensor lists|"
HOST="analysis|significance, oracles, rerankers|scipy, scikit-learn
base|random numbers, hash, number formats|published vectors
checkpoint|checkpoints and resume|
config|settings|
dataset|data sets|published data sets
demo|demo world|
determinism|same bits whatever the threads|
faiss|faiss files|faiss
file|files|
image|PNG, JPEG|Pillow, PngSuite
index|index|
json|JSON, JSONL|JSONTestSuite
keyfile|YAML|yaml-test-suite
lanes|vector arithmetic|
main|command line|
matmul|matmul as a whole|
method|the method's formulas|independent Python script
metrics|metrics|scikit-learn
npy|NumPy arrays|NumPy
npz|NumPy archives|NumPy, MedMNIST
prepare|data preparation|
processor|image processors|Pillow
report|report|
runlog|run directories, signals|
safetensors|safetensors|safetensors (Python)
sampler|sampling|
score_store|score store|
tfevents|TensorBoard events|
tokenizer|tokenizer|
weights|weights by name|"

# sum RECORD TEST PREFIX ONLY: cases of the tests named TEST, or (PREFIX=1) that begin so, and (ONLY)
# end so: "54 cases", "1 of 54 failed", or "not yet".
sum() {
    [ -n "$1" ] || { echo "not yet"; return; }
    awk -v test="$2" -v is_prefix="$3" -v only="$4" '
    /^#/ { next }
    $1 == test || (is_prefix && index($1, test "_") == 1) {
        if (only != "" && $1 !~ only "$") { next }
        passed += $2; failed += $3; skipped += $4
        date = $5; commit = $6
    }
    END {
        if (passed + failed + skipped == 0) { print "not yet"; exit }
        if (failed) { printf "**%d of %d failed**", failed, passed + failed }
        else { printf "%d case%s", passed, passed == 1 ? "" : "s" }
        if (skipped) { printf ", %d skipped", skipped }
        printf "%s\n", FILENAME ~ /gpu/ ? ", " date " " commit : ""
    }' "$1"
}

ops_table() {
    echo "| op | CPU against f64 | emulator | nvcc | GPU |"
    echo "|---|---|---|---|---|"
    sed -n 's/^ *X(\([a-z0-9_]*\)).*/\1/p' kernels/ops.h | while read -r op; do
        printf '| %s | %s | %s | %s | %s |\n' "$op" "$(sum "$(record cpu)" "$op" 0 '')" \
            "$(sum "$(record emu)" "$op" 0 '')" "$(sum "$(record nvcc)" "$op" 0 '')" \
            "$(sum "$(record gpu)" "$op" 0 '')"
    done
}
models_table() {
    echo "| model | CPU: gradients, batches, shapes | PyTorch: outputs and gradients | GPU |"
    echo "|---|---|---|---|"
    echo "$MODELS" | while IFS='|' read -r prefix what _; do
        [ "$(sum "$(record cpu)" "$prefix" 1 '')" != "not yet" ] || continue
        printf '| %s | %s | %s | %s |\n' "$what" "$(sum "$(record cpu)" "$prefix" 1 '')" \
            "$(sum "$(record cpu)" "$prefix" 1 _reference)" "$(sum "$(record gpu)" "$prefix" 1 '')"
    done
}
host_table() {
    echo "| part | cases | compared with |"
    echo "|---|---|---|"
    echo "$HOST" | while IFS='|' read -r prefix what peers; do
        [ "$(sum "$(record cpu)" "$prefix" 1 '')" != "not yet" ] || continue
        printf '| %s | %s | %s |\n' "$what" "$(sum "$(record cpu)" "$prefix" 1 '')" "$peers"
    done
}

tools/between_markers.sh "$file" ops "$(ops_table)" || exit
tools/between_markers.sh "$file" models "$(models_table)" || exit
tools/between_markers.sh "$file" host "$(host_table)" || exit
tools/between_markers.sh "$file" tests "$(tools/readme_numbers.sh --tests)"
