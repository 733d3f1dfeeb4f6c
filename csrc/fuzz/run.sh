#!/usr/bin/env bash
# Builds the fuzz targets with Clang, installing it where apt can, and runs each for a number of seconds: `make fuzz`.
#
#   csrc/fuzz/run.sh SECONDS CMAKE_OPTION...       SEED=1 for the same inputs each time
#
# Exit code 0: nothing found; 1: something found, its input is in build/fuzz; 3: there is no Clang to be had (0 where
# WITHOUT_CLANG=skip).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:?seconds for each target}
shift

# 16 is the first that knows C++20 well enough.
find_clang() { compgen -c clang++- | awk -F- '$2 ~ /^[0-9]+$/ && $2 >= 16' | sort -t- -k2 -n | tail -1 || true; }
install_clang() { apt-get install -qq --yes --no-install-recommends clang-16 libclang-rt-16-dev > /dev/null 2>&1; }
clang=$(find_clang)
if [ -z "$clang" ] && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    install_clang || { apt-get update -qq > /dev/null 2>&1 && install_clang; } || true
    clang=$(find_clang)
fi
if [ -z "$clang" ]; then
    echo "fuzz: NOT RUN: found no clang++-16 or newer, and apt can't install one here (it needs root and a mirror)" >&2
    [ "${WITHOUT_CLANG:-}" = skip ] && exit 0 || exit 3
fi

cmake -S . -B build/fuzz "$@" -DCMAKE_CXX_COMPILER="$clang" -DX2CT_FUZZ=ON -DX2CT_SANITIZE=address -DX2CT_TESTS=OFF \
    -DX2CT_WERROR=OFF > /dev/null  # the warnings that count are those of the other builds' compiler
cmake --build build/fuzz --parallel "${JOBS:-$(nproc)}" -- --quiet
. tests/fuzz/libfuzzer.sh
cd build/fuzz
for target in fuzz_bundle fuzz_options; do
    corpus=$(corpus_of "$target")
    if [ "$target" = fuzz_bundle ]; then ./seeds "$corpus"; fi
    fuzz_target "$target" "$seconds" "./$target" "$corpus" -rss_limit_mb=2048 -max_len=8192
done
