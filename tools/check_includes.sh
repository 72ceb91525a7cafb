#!/bin/sh
# check_includes: who may include whom (kernels <- models <- host <- tests, bench).
#
#   - a quoted include names a file of its own folder or of one to the left; tests and bench do not
#     include each other
#   - the first quoted include of x.c is x.h, where there is one: it shows that x.h stands alone
#   - CUDA, cuDNN and NCCL headers appear only in .cu, .cuh and comm_nccl.c
# Prints file:line: problem; exit code 1 when there is one.
cd "$(dirname "$0")/.." || exit 66

find kernels models host tests bench -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort |
    xargs awk '
function problem(text) {
    print FILENAME ":" FNR ": " text
    found = 1
}
function exists(path,    line, is_there) {
    is_there = (getline line < path) > 0
    close(path)
    return is_there
}
BEGIN {
    rank["kernels"] = 0; rank["models"] = 1; rank["host"] = 2; rank["tests"] = rank["bench"] = 3
}
FNR == 1 {
    folder = FILENAME; sub(/\/.*/, "", folder)
    within = FILENAME; sub(/[^\/]*$/, "", within) # its own directory
    base = FILENAME; sub(/.*\//, "", base); sub(/\.[^.]*$/, "", base)
    is_first = 1
}
!/^[ \t]*#[ \t]*include/ { next }
/<(cuda|cublas|cudnn|nccl|curand|cooperative_groups|nvtx)[^>]*>/ {
    if (FILENAME !~ /\.cuh?$/ && FILENAME !~ /comm_nccl\.c$/) {
        problem("a CUDA or NCCL header; only .cu, .cuh and comm_nccl.c may include one")
    }
}
/"/ {
    name = $0; sub(/^[^"]*"/, "", name); sub(/".*/, "", name)
    if (FILENAME ~ /\.c$/ && is_first && exists(within base ".h") &&
        name != base ".h" && name != within base ".h") {
        problem("includes \"" name "\" before its own header \"" base ".h\"")
    }
    is_first = 0
    if (name ~ /\//) {
        other = name; sub(/\/.*/, "", other)
        if (!(other in rank)) {
            problem("includes \"" name "\", which is in no folder of ours")
        } else if (other != folder && rank[other] >= rank[folder]) {
            problem(folder " may not include " other ": \"" name "\"")
        } else if (!exists(name)) {
            problem("\"" name "\" is not there")
        }
    } else if (!exists(within name)) {
        problem("\"" name "\" is not in " within "; write the folder: \"kernels/x.h\"")
    }
}
END { exit found }'
