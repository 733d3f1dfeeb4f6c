#!/usr/bin/env bash
# One call on a GPU machine without internet: build, and train the bundled model. Tests and measures: verify.sh.
#
#   benchmarks/gpu/run.sh OUT MINUTES [--steps N]        DEVICE=cpu tries the same, small, on a machine without a GPU
#
# Needs Python with PyTorch, a C++ compiler, CMake and ninja. What comes along, in CARRY (.gpu unless set), each where it
# is there:
#   wheels/*.whl         what Python lacks, by pip download
#   shards.tar.xz        to train on: benchmarks/gpu/pack.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
minutes=$2
shift 2
carry=${CARRY:-.gpu}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
work=${WORK:-/tmp/x2ct-gpu}
export X2CT_BUILD=${X2CT_BUILD:-$work/build}
mkdir -p "$work"

# ------------------------------------------------------------------------------------------------ what came along
if compgen -G "$carry/wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$work/site" "$carry"/wheels/*.whl
fi
if [ -d "$work/site" ]; then
    export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
fi
{
    date -u +%FT%TZ
    git rev-parse HEAD 2>/dev/null || true
    "$python" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
} | tee "$out/machine.txt"

# ------------------------------------------------------------------------------------------------ build
# The Python module alone, which is all that training needs; into the checkout, as `make build` does.
cmake -S . -B "$X2CT_BUILD" -G Ninja -DPython_EXECUTABLE="$(command -v "$python")" -DX2CT_OPENVINO=OFF -DX2CT_ONNXRUNTIME=OFF \
    -DX2CT_TENSORRT=OFF -DX2CT_TORCH=OFF -DX2CT_LIBRARY=OFF -DX2CT_CUDA=OFF -DX2CT_TESTS=OFF >"$out/build.log"
cmake --build "$X2CT_BUILD" --target _core >>"$out/build.log"

# ------------------------------------------------------------------------------------------------ train
if [ "$minutes" != 0 ]; then
    mkdir -p "$work/shards"
    tar -xf "$carry/shards.tar.xz" -C "$work/shards"
    save() { "$python" benchmarks/gpu/slim.py "$work/chest" -o "$out/chest" || true; }
    trap save EXIT # also when the machine's time runs out in the middle
    "$python" benchmarks/train_chest.py "$work/shards" -o "$work/chest" --config benchmarks/gpu/chest.json \
        --device "$device" --minutes "$minutes" --no-export "$@" 2>&1 | tee "$out/train.log"
    find "$work/chest" -name 'preview_*.png' | sort | tail -n 1 | xargs -r -I{} cp {} "$out/preview.png"
fi
