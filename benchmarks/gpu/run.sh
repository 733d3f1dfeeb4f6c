#!/usr/bin/env bash
# One call on a GPU machine without internet: build, test, measure, train the bundled model; results as they come.
#
#   benchmarks/gpu/run.sh OUT MINUTES [--steps N]        DEVICE=cpu tries the same, small, on a machine without a GPU
#
# MINUTES are for training; 0 leaves it out. Needs Python with PyTorch, a C++ compiler, CMake and ninja, and nvcc for the
# CUDA device. What comes along, in CARRY (.gpu unless set), each where it is there:
#   wheels/*.whl         what Python lacks, by pip download
#   onnxruntime.tar.xz   ONNX Runtime with its CUDA provider, and its headers: benchmarks/gpu/pack_onnxruntime.py
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
headers=build/onnxruntime-headers
if [ -f "$carry/onnxruntime.tar.xz" ]; then
    tar -xf "$carry/onnxruntime.tar.xz" -C "$work"
    headers=$work/onnxruntime-headers
    # CUDA's libraries, which the provider is linked to, are those of PyTorch's wheels.
    libraries=$("$python" -c 'import glob, os, sysconfig as s; print(":".join(sorted({os.path.dirname(f) for f in glob.glob(s.get_paths()["purelib"] + "/nvidia/**/lib*.so*", recursive=True)})))')
    export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
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
# Without the OpenVINO backend, which only inference on a CPU needs; into the checkout, as `make build` does.
cuda=AUTO tests=OFF
if [ "$device" = cuda ]; then
    cuda=ON tests=ON # gpu_laws is one of them
fi
cmake -S . -B "$X2CT_BUILD" -G Ninja -DPython_EXECUTABLE="$(command -v "$python")" -DX2CT_OPENVINO=OFF -DX2CT_CUDA=$cuda -DX2CT_TESTS=$tests \
    -DX2CT_ONNXRUNTIME_INCLUDE="$([ -e "$headers/onnxruntime_cxx_api.h" ] && cd "$headers" && pwd)" >"$out/build.log"
cmake --build "$X2CT_BUILD" >>"$out/build.log"
"$python" -m x2ct info | tee "$out/info.txt"

# ------------------------------------------------------------------------------------------------ test and measure
# A failure is kept in its log and in the exit code, and what follows is run all the same.
failed=0
marker=gpu
small=()
if [ "$device" != cuda ]; then
    marker="not gpu and not wheel"
    small=(--shape 32,32,32 --rounds 2 --precision f32)
fi
"$python" -m pytest -q -m "$marker" tests/test_gpu.py tests/test_devices.py 2>&1 | tee "$out/tests.log" || failed=1
"$python" benchmarks/gpu/measure.py chest -o "$out/measured" --device "$device" "${small[@]}" 2>&1 |
    tee "$out/measure.log" || failed=1

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
exit $failed
