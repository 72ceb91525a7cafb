#!/bin/sh
# verification_table: writes the tables of tests/README.md from recorded test runs.
#
#   tools/verification_table.sh [FILE] [RECORDS]         default tests/README.md bench/results
#
# It rewrites what stands between <!-- numbers:NAME --> and <!-- /numbers:NAME -->.
# Records are what `build/bin/test record=FILE` writes, kept in tests/results: cpu.txt, emu.txt and
# gpu.txt hold runs of the three backends, nvcc.txt one line per op that nvcc compiled. A test
# counts in one row, by its name:
#   <op>                a name of the OPS list: the op against an independent loop in double
#                       precision
#   <part>, <part>_...  the first part of the lists below that fits; else the first word is the part
#   ..._reference       of a model: against tensors dumped from PyTorch by tools/dump_reference_*.py
# The speed of an op is what the record of a GPU's bench that RECORDS/README.md names says.
# Leaves out: single cases; `test --list NAME/` names them.
set -u
cd "$(dirname "$0")/.." || exit 66
file=${1:-tests/README.md} benches=${2:-bench/results}
newest=$(sed -n 's/^Record: `\(.*\)`\.$/\1/p' "$benches"/README.md) # bench_bars.sh wrote it

# part|what it is|what else it is compared with
MODELS='image_tower|image tower (EVA02, CLIP, timm)
text_tower|text tower (JinaBERT, CLIP, BERT)
alibi|ALiBi slopes
block|transformer block
reader|reader (Qwen2-VL, Pixtral)
lora|LoRA
retriever|retriever and query heads
model|tensor lists'
HOST='analysis|significance, oracles, rerankers|scipy, scikit-learn
baseline|baselines of a task|brute force
base|random numbers, hash, number formats|published vectors
checkpoint|checkpoints and resume|
config|settings|
dataset|data sets|published data sets
demo|demo|
emu|emulator: kernels with a mistake it must find|
determinism|the same bits whatever the threads|
faiss|faiss files|faiss
file|files|
image|PNG, JPEG|Pillow, PngSuite
index|index|
json|JSON|JSONTestSuite
jsonl|JSONL|
keyfile|YAML|yaml-test-suite
lanes|vector arithmetic|
main|command line|
matmul|matmul: bits, threads, micro-batches|
method|formulas of the method|an independent Python script
metrics|metrics|scikit-learn
npy|NumPy arrays|NumPy
npz|NumPy archives|NumPy, MedMNIST
prepare|data preparation|
picture_feed|pictures prepared ahead|
processor|image processors|Pillow, transformers, open_clip
progress|progress line|
report|report|
results|results files|
runlog|run directories, signals|
safetensors|safetensors|safetensors (Python)
sampler|sampling|an independent Python script
score_store|score store|
stage|training stages|
summary|tables of a report|
tables|forms of a table|
tfevents|TensorBoard events|published checksums
tokenizer_gold|tokenizers, published texts|transformers.js, llama.cpp, vllm
tokenizer_splits|rules that cut text|tokenizers (Python)
tokenizer_vectors|tokenizers of every form|tokenizers (Python)
tokenizer|tokenizers: files and their faults|
weights|weights by name|'

# Prints the table called $1. Every record is read; the file name says which one a line is of.
table() {
    ops=$(sed -n 's/^ *X(\([a-z0-9_]*\)).*/\1/p' kernels/ops.h)
    set -- "$1" /dev/null
    for record in cpu emu nvcc gpu; do
        [ ! -f tests/results/$record.txt ] || set -- "$@" tests/results/$record.txt
    done
    [ -z "$newest" ] || set -- "$@" "$benches/$newest"
    which=$1
    shift
    OPS=$ops MODELS=$MODELS HOST=$HOST awk -v which="$which" "$(cat tools/bench_value.awk)"'
    function part_of(name,    i) {
        if (name in is_op) { return name }
        for (i = 1; i <= parts; i++) {
            if (name == part[i] || index(name, part[i] "_") == 1) { return part[i] }
        }
        part[++parts] = name; sub(/_.*/, "", part[parts])
        what[parts] = part[parts]
        return part[parts]
    }
    function add_parts(list,    lines, n, i, fields) {
        n = split(list, lines, "\n")
        for (i = 1; i <= n; i++) {
            split(lines[i], fields, "|")
            part[++parts] = fields[1]; what[parts] = fields[2]; peer[parts] = fields[3]
        }
    }
    function count(record, row, cases, without,    key, text) {
        key = record SUBSEP row SUBSEP cases
        if (!(key in passed)) { return without }
        text = misses[key] ? "**" misses[key] " failed**, " passed[key] " passed" : passed[key] ""
        if (skips[key]) { text = text ", " skips[key] " skipped" }
        return text (record == "gpu" ? ", " origin[key] : "")
    }
    # Shares of the ceiling over shapes and rounds of a bench on a GPU.
    function speed(name,    low) {
        if (!(name in least)) { return "not measured" }
        low = sprintf("%.0f", 100 * least[name])
        return low " to " sprintf("%.0f", 100 * most[name]) " % of the ceiling, " shapes[name] \
            (shapes[name] == 1 ? " shape" : " shapes")
    }
    BEGIN {
        op_count = split(ENVIRON["OPS"], op, "\n")
        for (i = 1; i <= op_count; i++) { is_op[op[i]] = 1 }
        add_parts(ENVIRON["MODELS"]); models = parts
        for (i = 1; i <= models; i++) { is_model[part[i]] = 1 }
        add_parts(ENVIRON["HOST"])
    }
    /^#/ { next }
    /^\{/ {
        name = value("bench"); share = value("peak_share") + 0
        if (value("backend") != "cuda" || value("side") == "peer" || !(share > 0)) { next }
        shapes[name] += !seen[name, value("shape")]++
        if (!(name in least) || share < least[name]) { least[name] = share }
        if (share > most[name]) { most[name] = share }
        next
    }
    {
        record = FILENAME; sub(/.*\//, "", record); sub(/\..*/, "", record)
        row = part_of($1)
        is_reference = $1 ~ /_reference$/ && (row in is_model)
        key = record SUBSEP row SUBSEP (is_reference ? "reference" : "own")
        passed[key] += $2; misses[key] += $3; skips[key] += $4; origin[key] = $5 " " $6
    }
    END {
        if (which == "ops") {
            print "| op | CPU against f64 | emulator | nvcc | GPU | speed |"
            print "|---|--:|---|---|---|---|"
            for (i = 1; i <= op_count; i++) {
                print "| " op[i] " | " count("cpu", op[i], "own", "none yet") " | " \
                    count("emu", op[i], "own", "not yet") " | " \
                    count("nvcc", op[i], "own", "not yet") " | " \
                    count("gpu", op[i], "own", "not yet") " | " speed(op[i]) " |"
            }
        } else if (which == "models") {
            print "| model | CPU: gradients, batches, shapes | CPU against PyTorch | GPU |"
            print "|---|--:|--:|---|"
            for (i = 1; i <= models; i++) {
                print "| " what[i] " | " count("cpu", part[i], "own", "none yet") " | " \
                    count("cpu", part[i], "reference", "-") " | " \
                    count("gpu", part[i], "own", "not yet") " |"
            }
        } else {
            print "| part | cases | compared with |\n|---|--:|---|"
            for (i = models + 1; i <= parts; i++) {
                cell = count("cpu", part[i], "own", "none yet")
                if (cell != "none yet") { print "| " what[i] " | " cell " | " peer[i] " |" }
            }
        }
    }' "$@"
}

# The table that tools/test_oracle.sh recorded: "family|column|result" by line.
oracle() {
    awk -F'|' '/^#/ { origin = substr($0, 11); next }
    { if (!($1 in seen)) { seen[$1] = ++n; family[n] = $1 } cell[$1, $2] = $3 }
    END {
        columns = split("forward gradients bf16 tokenizer processor export", column, " ")
        printf "| family"; for (c = 1; c <= columns; c++) { printf " | %s", column[c] }
        printf " |\n|---"; for (c = 1; c <= columns; c++) { printf "|---" }
        print "|"
        for (i = 1; i <= n; i++) {
            printf "| %s", family[i]
            for (c = 1; c <= columns; c++) {
                key = family[i] SUBSEP column[c]
                printf " | %s", key in cell ? cell[key] : "not yet"
            }
            print " |"
        }
        print "\nRecorded " origin "."
    }' tests/results/oracle.txt
}

text=$(oracle) && tools/between_markers.sh "$file" oracle "$text" || exit
for name in ops models host; do
    text=$(table $name) && tools/between_markers.sh "$file" $name "$text" || exit
done
tools/between_markers.sh "$file" tests "$(tools/readme_numbers.sh --tests)"
