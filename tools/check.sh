#!/bin/sh
# check: what can be said of the source without running it. `make check`.
#
#   layout     who includes whom (check_includes.sh)
#   sizes      functions over 60 lines (in kernels, and passes of a model: 150); files over 600, .cu
#              over 800, headers over 150. A line `// size: reason` near the top of a file, or right
#              above a function, allows one that is longer and says why
#   ops        every line of OPS has a TEST_OP and a BENCH_OP; every wrapper of an instruction
#              is in the conformance test
#   text       every source opens with what it is; no tabs or trailing blanks; no TODO without its
#              condition ("TODO when ..."); no path of one machine; lines of at most 100 columns
#   numbers    README.md, tests/README.md and bench/results/README.md are what their generators
#              write
#
# Prints file:line: problem, one per line, then a summary. Exit code 1 when there is a problem.
set -u
cd "$(dirname "$0")/.." || exit 66

out=$(mktemp) && copy=$(mktemp) || exit 73
trap 'rm -f "$out" "$copy"' EXIT
sources() {
    find kernels models host tests bench -name data -prune -o -type f -name "$1" -print | sort
}
texts() {
    sources '*.[ch]'
    sources '*.cu*'
    find tools .ci -type f \( -name '*.sh' -o -name '*.awk' -o -name '*.py' -o -name run \)
    find configs -type f -name '*.yaml' 2>/dev/null
}

# ---- layout ----
tools/check_includes.sh >>"$out"

# ---- sizes ----
# A function runs from the first line of its head, which starts in the first column, to the "}"
# there.
{ sources '*.[ch]'; sources '*.cu*'; } | xargs awk '
function file_done(    limit) {
    limit = name ~ /\.cuh?$/ ? 800 : name ~ /\.h$/ ? 150 : 600
    if (name != "" && lines > limit && !is_allowed) {
        print name ":1: " lines " lines, over " limit "; split it, or say why: // size: reason"
    }
}
FNR == 1 { file_done(); name = FILENAME; is_allowed = 0; inside = 0; head = 0; reason = "" }
{ lines = FNR }
FNR <= 40 && /^\/\/ size: ./ { is_allowed = 1 }
inside && /^}/ {
    length_ = FNR - head + 1
    limit = name ~ /^kernels\// || (name ~ /^models\// && text ~ /_(fwd|bwd)[ (]/) ? 150 : 60
    if (length_ > limit && reason != "yes") {
        print name ":" head ": function of " length_ " lines, over " limit "; " \
              "split it, or say why above it: // size: reason"
    }
    inside = 0; head = 0
    next
}
inside { next }
/^\/\/ size: ./ { pending = FNR }
/^[A-Za-z_]/ && !/^(typedef|struct|enum|union|extern|namespace)/ && head == 0 {
    head = FNR; text = $0; reason = pending == FNR - 1 ? "yes" : ""
}
/;[ \t]*(\/\/.*)?$/ && !/\{/ { head = 0 } # a declaration
/^[A-Za-z_ ].*\{[ \t]*(\/\/.*)?$/ && head { inside = 1 }
END { file_done() }' >>"$out"

# ---- ops ----
sed -n 's/^ *X(\([a-z0-9_]*\)).*/\1/p' kernels/ops.h | while read -r op; do
    grep -q "^TEST_OP($op)" tests/*.c || echo "kernels/ops.h:1: $op has no TEST_OP($op) in tests/"
    grep -q "^BENCH_OP($op)" bench/*.c || echo "kernels/ops.h:1: $op has no BENCH_OP($op) in bench/"
done >>"$out"
# Of wrappers, not of spin, which does nothing but wait.
for header in kernels/ptx.cuh kernels/ptx_hopper.cuh; do
    for name in $(sed -n 's/^.*PTX [a-z0-9_]* \([a-z0-9_]*\)(.*/\1/p' $header | sort -u); do
        [ $name = spin ] || grep -qw $name tests/emu/conformance.cu tests/emu/wgmma_tile.cuh ||
            echo "$header:1: $name is not in tests/emu/conformance.cu"
    done
done >>"$out"

# ---- text ----
texts | xargs awk '
function problem(text) { print FILENAME ":" FNR ": " text }
FNR == 1 { is_script = $0 ~ /^#!/ }
FNR == 1 + is_script && !/^(\/\/|#) [A-Za-z]|^"""/ { problem("does not open with what it is") }
/\t/ && !is_script { problem("a tab; indent by four spaces") }
/[ \t]$/ { problem("trailing blanks") }
/(\/\/|#|\/\*).*(TODO|FIXME)/ && !/TODO (when|once|if) / && FILENAME != "tools/check.sh" {
    problem("a TODO without its condition; write TODO when ...")
}
/(^|[^A-Za-z0-9_.\/])\/(work|home|mnt|Users|root)\// && FILENAME != "tools/check.sh" {
    problem("a path of one machine")
}' >>"$out"
# A column is a character: of its bytes in UTF-8 all but the first are from 128 to 191.
texts | LC_ALL=C xargs awk '
{ gsub(/[\200-\277]/, "") }
length > 100 { print FILENAME ":" FNR ": " length " columns, over 100" }' >>"$out"

# ---- numbers ----
stale() { # stale GENERATOR FILE: the generator rewrites a copy
    cp "$2" "$copy" && tools/"$1" "$copy" && cmp -s "$2" "$copy" && return
    echo "$2:1: stale numbers; make readme rewrites them"
}
{
    stale readme_numbers.sh README.md
    stale verification_table.sh tests/README.md
    stale bench_bars.sh bench/results/README.md
} >>"$out"

# ---- summary ----
cat "$out"
count=$(wc -l <"$out")
echo "check: $count problem$([ "$count" = 1 ] || echo s)"
[ "$count" = 0 ]
