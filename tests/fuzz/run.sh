#!/usr/bin/env bash
# Runs each fuzz target of the Python readers for a number of seconds, after `pip install atheris`: part of `make fuzz`.
#
#   tests/fuzz/run.sh SECONDS [TARGET ...]       PYTHON=.venv/bin/python
#
# Exit code 0: nothing found; 1: something found, its input is in build/fuzz-readers; 3: there is no atheris for this
# Python (0 where WITHOUT_CLANG=skip).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:?seconds for each target}
shift
python=${PYTHON:-.venv/bin/python}
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
if ! "$python" -c 'import atheris' 2> /dev/null && ! "$python" -m pip install -qq atheris 2> /dev/null; then
    echo "fuzz: NOT RUN: pip finds no atheris for $("$python" --version)" >&2
    [ "${WITHOUT_CLANG:-}" = skip ] && exit 0 || exit 3
fi
readers=$PWD/tests/fuzz/readers.py
targets=("$@")
[ $# -gt 0 ] || targets=(nifti nifti_gz nrrd mha series xray geometry manifest model_json onnx)
mkdir -p build/fuzz-readers && cd build/fuzz-readers
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    "$python" "$readers" --seeds "$target" "corpus/$target"
    "$python" "$readers" "$target" "corpus/$target" -max_total_time="$seconds" -rss_limit_mb=3000 -timeout=60 \
        -max_len=16384 -print_final_stats=1 > "$target.log" 2>&1 || { tail -40 "$target.log"; exit 1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$target.log")
    covered=$(grep -oE 'cov: [0-9]+' "$target.log" | tail -1)
    echo "reader $target: $runs inputs in $seconds s, $covered edges, nothing found"
done
