#!/usr/bin/env bash
# Runs each fuzz target of the Python readers for a number of seconds, after `pip install atheris`: part of `make fuzz`.
#
#   tests/fuzz/run.sh SECONDS [TARGET ...]       PYTHON=.venv/bin/python; SEED=1 for the same inputs each time
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
. tests/fuzz/libfuzzer.sh
mkdir -p build/fuzz-readers && cd build/fuzz-readers
for target in "${targets[@]}"; do
    corpus=$(corpus_of "$target")
    "$python" "$readers" --seeds "$target" "$corpus"
    fuzz_target "$target" "$seconds" "$python" "$readers" "$target" "$corpus" -rss_limit_mb=3000 -max_len=16384
done
