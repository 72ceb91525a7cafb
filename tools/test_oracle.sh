#!/bin/sh
# test_oracle: live comparisons with the original implementations, and their record.
#
#   tools/test_oracle.sh [jina-text=DIR] [data=DIR]      make test-oracle; after a build
#
# Makes a Python environment in BUILD/oracle with the packages that the originals live in, runs them
# on the tiny configurations of tools/dump_reference_*.py (which writes fixtures anew, there), and
# holds ours against what came out: one line per case. Writes tests/results/oracle.txt, one line
# "family|column|result" per cell of the table in tests/README.md; make readme rewrites that table.
# jina-text: a folder with the code of JinaBERT (tools/jina_text.py says which);
# without it the text tower of jina-clip-v1 is held against the committed fixture. data: the test
# data with tokenizer files, default ../shared/data. Needs Python 3.11, a package index, 2 GB.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
work=$build/oracle
jina='' data=../shared/data
for argument in "$@"; do
    case $argument in
    jina-text=*) jina=${argument#*=} ;;
    data=*) data=${argument#*=} ;;
    *) echo "usage: tools/test_oracle.sh [jina-text=DIR] [data=DIR]" >&2 && exit 64 ;;
    esac
done

# ---- the originals ----
[ -x "$work/venv/bin/python" ] || python3 -m venv --system-site-packages "$work/venv"
python=$work/venv/bin/python
"$python" -m pip install -q torch torchvision numpy safetensors transformers timm open_clip_torch \
    accelerate peft einops tokenizers tiktoken pillow faiss-cpu
# Code from before transformers 5, and processors that call Pillow, in a place of its own.
[ -x "$work/venv-slow/bin/python" ] || python3 -m venv --system-site-packages "$work/venv-slow"
slow=$work/venv-slow/bin/python
"$slow" -m pip install -q transformers==4.48.3 'pillow<12' torch torchvision timm \
    open_clip_torch numpy
mkdir -p "$work/data"
cp tests/data/*.safetensors "$work/data"
export OMP_NUM_THREADS=1
dump() { # dump PYTHON SCRIPT [ARGUMENT ...]
    with=$1 script=$2
    shift 2
    echo "originals: $script"
    "$with" "tools/$script" "$@" --out "$work/data" >>"$work/originals.log" 2>&1
}
: >"$work/originals.log"
dump "$python" dump_reference_retriever.py
[ -z "$jina" ] || dump "$slow" dump_reference_retriever.py --jina-text "$jina" jina
dump "$python" dump_reference_readers.py
dump "$python" dump_reference_lora_steps.py

# ---- ours ----
code=0
: >"$work/cases"
for pattern in retriever_reference retriever_bf16_reference reader_reference retriever_export \
    lora_steps; do
    "$build/bin/test" $pattern large=1 fixtures="$work/data" >>"$work/cases" || code=1
done
# One line per case and what was compared: the worst error over the bound; above 1 it failed.
awk '$1 == "oracle" {
    key = $2 " " $3
    if (!(key in worst)) { order[++n] = key; worst[key] = 0 }
    if ($4 > worst[key]) { worst[key] = $4 }
}
END { for (i = 1; i <= n; i++) { print order[i], worst[order[i]] } }' "$work/cases" |
    tee "$work/lines"

# cell FAMILY PREFIX: a line of the record for each column that has cases of this prefix.
cell() {
    for column in forward gradients bf16 export; do
        awk -v family="$1" -v prefix="$2" -v column=$column '
        index($1, prefix) == 1 && $2 == column { n++; if ($3 > worst) { worst = $3 } }
        END {
            if (n && column == "export") { printf "%s|%s|%d cases\n", family, column, n }
            else if (n) { printf "%s|%s|%d cases, %.2f\n", family, column, n, worst }
        }' "$work/lines"
    done
}
{
    cell "jina-clip-v1" retriever_jina_
    cell "CLIP (transformers)" retriever_clip_
    cell "CLIP (open_clip)" retriever_open_clip_
    cell "BiomedCLIP" retriever_biomedclip_
    cell "all-MiniLM-L6-v2 (BERT)" retriever_bert_
    cell "Qwen2-VL" reader_qwen2vl_
    cell "Pixtral" reader_pixtral_
    cell "Llama" reader_llama_
} >"$work/cells"

# ---- tokenizers: random strings through both ----
if [ -d "$data/tokenizers" ]; then
    "$python" tools/fuzz_tokenizers.py jomed="$build/bin/jomed" data="$data" count=2000 \
        >"$work/tokenizers" 2>&1 || code=1
    cat "$work/tokenizers"
    # words FAMILY NAME: of the fuzzer's line
    # "NAME: N texts encoded, M lists of ids decoded, W ...".
    words() {
        awk -v family="$1" -v name="$2:" '$1 == name {
            printf "%s|tokenizer|%d texts, %d differ\n", family, $2, $(NF - 1)
        }' "$work/tokenizers" >>"$work/cells"
    }
    words "jina-clip-v1" bert-base-uncased
    words "CLIP (transformers)" clip
    words "CLIP (open_clip)" clip
    words "BiomedCLIP" biomedbert-abstract
    words "all-MiniLM-L6-v2 (BERT)" bert-base-uncased
    words "Qwen2-VL" qwen2
    words "Pixtral" tekken
fi

# ---- what export writes, opened by PEFT, transformers, open_clip and faiss ----
"$python" tools/verify_export.py test="$build/bin/test" jomed="$build/bin/jomed" \
    cells="$work/cells" 2>>"$work/originals.log" || code=1

# ---- what the original JOMED leaves, converted ----
"$python" tools/verify_original.py jomed="$build/bin/jomed" 2>>"$work/originals.log" || code=1

# ---- whole pipelines, pictures and texts to embeddings ----
if [ -d "$data/medical/vqa-rad" ]; then
    "$python" tools/verify_embed.py jomed="$build/bin/jomed" data="$data" cells="$work/cells" \
        2>>"$work/originals.log" || code=1
fi

# ---- image processors ----
if [ -d "$data/images" ]; then
    "$slow" tools/dump_reference_processors.py "$data" slow --out "$work/data" \
        >>"$work/originals.log" 2>&1
    "$python" tools/dump_reference_processors.py "$data" fast --out "$work/data" \
        >>"$work/originals.log" 2>&1
    for pattern in processor_slow_reference processor_fast_reference; do
        JOMED_TEST_DATA=$data "$build/bin/test" $pattern fixtures="$work/data" \
            >"$work/pictures.now" ||
            code=1
        sed -n 's/^processor /processor|/p' "$work/pictures.now"
    done >"$work/pictures"
    cat "$work/pictures"
    # pictures FAMILY NAME: of the test's line "processor|NAME: N pictures, W differ".
    pictures() { sed -n "s/^processor|$2: /$1|processor|/p" "$work/pictures" >>"$work/cells"; }
    pictures "jina-clip-v1" jina
    pictures "CLIP (transformers)" clip
    pictures "CLIP (open_clip)" open_clip
    pictures "BiomedCLIP" open_clip
    pictures "Qwen2-VL" qwen2vl
    pictures "Pixtral" pixtral
fi

{
    version=$("$build/bin/jomed" --version | sed 's/.*(\([^,]*\),.*/\1/')
    echo "# origin: $(date -u +%Y-%m-%d) at commit $version with $("$python" -c '
import open_clip, timm, torch, transformers
print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
      f"timm {timm.__version__}, open_clip {open_clip.__version__}")' 2>/dev/null)" \
        "$([ -n "$jina" ] || echo "; jina-clip-v1 against the committed fixture")"
    cat "$work/cells"
} >tests/results/oracle.txt
tail -n 3 "$work/cases"
exit $code
