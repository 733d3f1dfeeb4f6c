#!/usr/bin/env bash
# One call on a GPU machine without internet: build, test, train the bundled model, leave the results as they come.
#
#   benchmarks/gpu/run.sh OUT MINUTES [--steps N]        DEVICE=cpu tries the same on a machine without a GPU
#
# Needs Python with PyTorch, a C++ compiler, CMake and ninja. What else Python lacks comes as wheels in $CARRY/wheels,
# the shards as $CARRY/shards.tar.xz (benchmarks/gpu/pack.py). CARRY is .gpu unless set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
minutes=$2
shift 2
carry=${CARRY:-.gpu}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
work=${WORK:-/tmp/x2ct-gpu}
mkdir -p "$work"

if compgen -G "$carry/wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$work/site" "$carry"/wheels/*.whl
    export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
fi
{
    date -u +%FT%TZ
    git rev-parse HEAD 2>/dev/null || true
    "$python" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || true
} | tee "$out/machine.txt"

# The core without the OpenVINO backend, which only inference on a CPU needs; into the checkout, as `make build` does.
cmake -S . -B "$work/build" -G Ninja -DPython_EXECUTABLE="$(command -v "$python")" -DX2CT_OPENVINO=OFF >"$out/build.log"
cmake --build "$work/build" >>"$out/build.log"

if [ "$device" = cuda ]; then
    "$python" -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.log" || [ $? -eq 5 ] # 5: no test is marked so yet
fi

mkdir -p "$work/shards"
tar -xf "$carry/shards.tar.xz" -C "$work/shards"
save() { "$python" benchmarks/gpu/slim.py "$work/chest" -o "$out/chest" || true; }
trap save EXIT # also when the machine's time runs out in the middle
"$python" benchmarks/train_chest.py "$work/shards" -o "$work/chest" --config benchmarks/gpu/chest.json \
    --device "$device" --minutes "$minutes" --no-export "$@" 2>&1 | tee "$out/train.log"
find "$work/chest" -name 'preview_*.png' | sort | tail -n 1 | xargs -r -I{} cp {} "$out/preview.png"
