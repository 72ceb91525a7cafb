#!/bin/sh
# bootstrap: from a bare Debian 12 to a running jomed, in one command.
#
#   tools/bootstrap.sh          the libraries, then a build
#   tools/bootstrap.sh demo     ... then the embedded benchmark
#   tools/bootstrap.sh test     ... then every test
#   tools/bootstrap.sh bench    ... then the kernels beside their peers
#   tools/bootstrap.sh deps     only the libraries
#
# It looks for what the build needs, not for packages, so that libraries from elsewhere count. What
# is missing is installed by apt, as root or through sudo where that asks no password; otherwise it
# prints the command and stops with 69. Nothing but apt touches the network, and apt is not called
# when nothing is missing. Exit code: 2 where the build fails, which is make's; the demo's own; 1
# where a test or a bench fails.
set -u
cd "$(dirname "$0")/.." || exit 66

# ---- what is needed: "package:probe"; a probe without a slash is a module of pkg-config ----
BUILD_NEEDS="build-essential:/compiler pkg-config:/pkg-config libyaml-dev:yaml-0.1 libpng-dev:libpng
             zlib1g-dev:zlib libjpeg62-turbo-dev:libjpeg libjansson-dev:jansson
             libutf8proc-dev:libutf8proc"
TEST_NEEDS="strace:/strace" # faults in system calls

has() {
    case $1 in
    # The compiler counts when it finds the C library, OpenMP and a linker.
    /compiler) command -v make && echo '#include <omp.h>
                int main(void) { return !stdin || omp_get_num_procs() < 1; }' |
        "${CC:-cc}" -include stdio.h -fopenmp -x c -o /dev/null - ;;
    /*) command -v "${1#/}" ;;
    *) pkg-config --exists "$1" ;;
    esac >/dev/null 2>&1
}

# ---- install ----
install_missing() {
    missing=
    for need in "$@"; do
        has "${need#*:}" || missing="$missing ${need%%:*}"
    done
    [ -n "$missing" ] || return 0
    echo "bootstrap: missing:$missing" >&2
    if ! command -v apt-get >/dev/null; then
        echo "bootstrap: no apt-get here; install what these packages hold, then run me again" >&2
        exit 69
    fi
    if [ "$(id -u)" = 0 ]; then
        root="env"
    elif sudo -n true 2>/dev/null; then
        root="sudo env"
    else
        echo "bootstrap: neither root nor sudo without a password; run this, then run me again:" >&2
        echo "  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
        exit 69
    fi
    # shellcheck disable=SC2086 # the lists are words
    $root DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update -qq &&
         apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@"' \
        sh $missing >&2 || {
        echo "bootstrap: apt-get failed; its message is above" >&2
        exit 69
    }
    for need in "$@"; do
        has "${need#*:}" || {
            echo "bootstrap: ${need%%:*} is installed, yet it is not found" >&2
            exit 69
        }
    done
}

# ---- main ----
what=${1:-all}
case $# in 0 | 1) ;; *) what=too-many-words ;; esac
case $what in
# shellcheck disable=SC2086
all | demo | bench | deps) install_missing $BUILD_NEEDS ;;
# shellcheck disable=SC2086
test) install_missing $BUILD_NEEDS $TEST_NEEDS ;;
*)
    echo "usage: tools/bootstrap.sh [deps|demo|test|bench]" >&2
    exit 64
    ;;
esac
[ "$what" != deps ] || exit 0
make -j"$(nproc)" all || exit
case $what in
demo) exec "${BUILD:-build}/bin/jomed" demo ;;
test | bench) make "$what" || exit 1 ;;
esac
