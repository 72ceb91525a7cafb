#!/bin/sh
# check_ptxas: what ptxas says of a file's kernels: registers, spills, stack. check_ptxas.sh SOURCE
# LOG
#
# Fails when a kernel spills registers to memory or keeps an array there, unless a line
# "SOURCE KERNEL ARCH" of tests/ptxas_allow.txt (KERNEL: part of the mangled name, with the reason
# behind it) allows it; or when ptxas takes the asynchronous products of a warpgroup one by one,
# waits for them where the source does not, or ignores setmaxnreg (its remarks C75xx). A kernel of
# 256 threads may use all 255 registers; LAUNCH bounds are its own.
allow=$(dirname "$0")/../tests/ptxas_allow.txt
awk -v source="$1" -v allow="$allow" '
BEGIN {
    while ((getline line < allow) > 0) {
        if (line !~ /^(#|$)/) {
            split(line, word, " ")
            if (word[1] == source) { kernel[++count] = word[2]; arch[count] = word[3] }
        }
    }
}
function is_allowed(    i) {
    for (i = 1; i <= count; i++) {
        if (index(name, kernel[i]) && target == arch[i]) { return 1 }
    }
    return 0
}
/Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2]; target = quoted[4] }
/bytes stack frame/ {
    if ($0 !~ /^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/ &&
        !is_allowed()) {
        sub(/^ */, "")
        print source ": " name " (" target "): " $0 "; see tests/ptxas_allow.txt"
        found = 1
    }
}
/\(C75[0-9][0-9]\)/ {
    sub(/^ptxas[^(]*/, "")
    print source ": " $0
    found = 1
}
END { exit found }' "$2"
