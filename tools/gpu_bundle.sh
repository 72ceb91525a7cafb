#!/bin/sh
# gpu_bundle: packs what a machine with a GPU needs where nothing can be installed:
# BUILD/gpu-bundle.tar.gz.
#
#   tools/gpu_bundle.sh        called by make gpu-bundle; programs are those of BUILD/bin
#
# Inside: bin/ (programs, stripped of debug information), lib/ (their libraries but for the C
# library's own, found by the programs' $ORIGIN/../lib), tests/data, small shared test data, the
# bench's peers and their drivers, run.sh. There:
#   tar xzf gpu-bundle.tar.gz && gpu-bundle/run.sh ops out=DIR
# The C library and the CUDA driver must be there; the toolkit need not. Fails when the file would
# be larger than 60 MiB.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
dir=$build/gpu-bundle
most=$((60 << 20))

if ! nm "$build"/bin/jomed | grep -q ' device_backend_cuda$'; then
    echo "gpu_bundle: this build has no CUDA backend; put nvcc on PATH, or set CUDA_HOME" >&2
    exit 69
fi
rm -rf "$dir"
mkdir -p "$dir"/bin "$dir"/lib "$dir"/tests "$dir"/bench/results "$dir"/tools "$dir"/shared
for program in jomed test bench; do
    strip --strip-debug -o "$dir"/bin/$program "$build"/bin/$program
    ldd "$build"/bin/$program
done | awk '$3 ~ /^\// && $1 !~ /^(libc|libm|libdl|librt|libpthread|ld-linux.*)\.so/ { print $3 }' |
    sort -u | while read -r library; do
    cp -L "$library" "$dir"/lib
done
cp -r tests/data "$dir"/tests
cp -r bench/peers "$dir"/bench
cp tools/*gpu*.sh "$dir"/tools
# Test data of a few megabytes; the rest of the tests that want more is skipped there, and says so.
data=${JOMED_TEST_DATA:-../shared/data}
for part in weights config images; do
    if [ -d "$data/$part" ] && [ "$(du -sk "$data/$part" | cut -f1)" -lt 8192 ]; then
        cp -r "$data/$part" "$dir"/shared
    fi
done
"$build"/bin/jomed --version >"$dir"/VERSION
cat >"$dir"/run.sh <<'EOF'
#!/bin/sh
# The stages of tools/test_gpu.sh on the programs of this folder: ./run.sh ops out=DIR
cd "$(dirname "$0")" || exit 66
BUILD=. JOMED_TEST_DATA=shared exec tools/test_gpu.sh "$@"
EOF
chmod +x "$dir"/run.sh
chmod -R u+w "$dir"
tar -C "$build" -czf "$build"/gpu-bundle.tar.gz gpu-bundle
size=$(wc -c <"$build"/gpu-bundle.tar.gz)
echo "gpu_bundle: $build/gpu-bundle.tar.gz, $((size >> 20)) MiB, $(cat "$dir"/VERSION)"
if [ "$size" -gt $most ]; then
    echo "gpu_bundle: larger than $((most >> 20)) MiB" >&2
    exit 1
fi
