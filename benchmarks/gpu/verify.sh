#!/usr/bin/env bash
# One call on a GPU machine without internet: the device's laws, the tests that need a GPU, and what sampling takes.
#
#   benchmarks/gpu/verify.sh OUT DEADLINE                  DEADLINE in seconds since 1970: $(($(date +%s) + 280))
#   DEVICE=cpu benchmarks/gpu/verify.sh OUT DEADLINE       tries the same, small, on a machine without a GPU
#
# Each stage has a limit of its own and what is left until the deadline, whichever is less; one that fails or hangs is a
# line in the summary, and the next begins. Two files come back: OUT/summary.txt, a line a stage, and OUT/results.tar.gz,
# all that the stages wrote, made anew after each of them. The exit code is 1 where a stage failed or was left out.
#
# PyTorch is measured first, as it is there; ONNX Runtime where it came along. Needs Python with PyTorch; to compile what
# was not carried also a C++ compiler, CMake, ninja and nvcc. What comes along, in CARRY (.gpu unless set), each where it
# is there:
#   wheels/*.whl         what Python lacks of benchmarks/gpu/wheels.txt
#   onnxruntime.tar.xz   ONNX Runtime with its CUDA provider, and its headers: benchmarks/gpu/pack_onnxruntime.py
#   bin/                 what was compiled from these sources: benchmarks/gpu/verify.sh --pack FOLDER
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
carry=${CARRY:-.gpu}
sources() { find CMakeLists.txt cmake csrc -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

# ------------------------------------------------------------------------------------------------ packing, at home
if [ "${1:-}" = --pack ]; then
    built=${2:?a build folder} bin=$carry/bin
    rm -rf "$bin" && mkdir -p "$bin"
    cp x2ct/lib/libx2ct_cuda.so x2ct/lib/libx2ct_onnxruntime.so "$built/gpu_laws" "$bin" || exit 1
    strip --strip-unneeded "$bin"/*.so "$bin/gpu_laws"
    sources >"$bin/sources"
    du -ch "$bin"/*
    exit
fi

# ------------------------------------------------------------------------------------------------ stages
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
deadline=$2
device=${DEVICE:-cuda}
python=$(command -v "${PYTHON:-python3}") || exit 2
work=${WORK:-/tmp/x2ct-gpu}
results=$work/results
mkdir -p "$results"
export X2CT_BUILD=${X2CT_BUILD:-$work/build} X2CT_CACHE=$work/cache PYTHONUNBUFFERED=1
export OMP_WAIT_POLICY=PASSIVE
failed=0
: >"$out/summary.txt"

keep() {
    tar -czf "$work/results.tar.gz" -C "$work" results && mv -f "$work/results.tar.gz" "$out/results.tar.gz"
}

# stage NAME SECONDS COMMAND...: its output goes to results/NAME.log
stage() {
    local name=$1 limit=$2 left code began
    shift 2
    left=$((deadline - $(date +%s) - 4)) # what ending a stage and packing take
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 2 ]; then
        echo "$name: left out, the deadline is too near" >>"$out/summary.txt"
        failed=1
        return 1
    fi
    began=$(date +%s)
    timeout -k 2 "$limit" "$@" >"$results/$name.log" 2>&1 </dev/null
    code=$?
    echo "$name: exit code $code after $(($(date +%s) - began)) s of $limit: $(tail -n 1 "$results/$name.log" | cut -c 1-200)" >>"$out/summary.txt"
    keep
    [ $code = 0 ] || failed=1
    return $code
}

# ------------------------------------------------------------------------------------------------ what came along
unpack() {
    if compgen -G "$carry/wheels/*.whl" >/dev/null; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$work/site" "$carry"/wheels/*.whl || return
    fi
    [ ! -f "$carry/onnxruntime.tar.xz" ] || tar -xf "$carry/onnxruntime.tar.xz" -C "$work"
}
machine() {
    date -u +%FT%TZ
    git rev-parse HEAD 2>/dev/null
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv,noheader 2>/dev/null
    nproc
    "$python" -c 'import platform, sys; print("Python", sys.version.split()[0], platform.libc_ver())
import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
}
wheels() {
    "$python" - benchmarks/gpu/wheels.txt <<'PYTHON'
import importlib.util, sys
lines = [line.split() for line in open(sys.argv[1]) if line.strip() and not line.startswith("#")]
missing = [requirement for module, requirement in lines if importlib.util.find_spec(module) is None]
print("missing: " + ", ".join(missing) + "; put their wheels into .gpu/wheels" if missing else "none is missing")
sys.exit(bool(missing))
PYTHON
}
# CUDA's libraries, which the provider is linked to, are those of PyTorch's wheels.
libraries() {
    "$python" -c 'import glob, os, sysconfig as s
print(":".join(sorted({os.path.dirname(f) for f in glob.glob(s.get_paths()["purelib"] + "/nvidia/**/lib*.so*", recursive=True)})))'
}
loads() { "$python" -c 'import ctypes, os, sys
for path in sys.argv[1:]: ctypes.CDLL(os.path.abspath(path), os.RTLD_NOW)' "$@"; }

# ------------------------------------------------------------------------------------------------ compiled code
# Carried libraries where they are of these sources and load; the Python module and the torch backend are always made for
# the Python and the PyTorch that are here. Without the OpenVINO backend, which these stages don't use.
take() {
    [ "$(cat "$carry/bin/sources")" = "$(sources)" ] || { echo "bin/ is of other sources"; return 1; }
    loads "$carry"/bin/*.so || return
    mkdir -p x2ct/lib "$X2CT_BUILD"
    cp "$carry"/bin/*.so x2ct/lib/ && cp "$carry/bin/gpu_laws" "$X2CT_BUILD/" && echo "took $(ls "$carry/bin" | tr '\n' ' ')"
}
build() {
    local headers=build/onnxruntime-headers cuda=OFF tests=OFF target code=0
    [ ! -d "$work/onnxruntime-headers" ] || headers=$work/onnxruntime-headers
    if [ $taken = 0 ] && [ "$device" = cuda ]; then cuda=ON tests=ON; fi
    cmake -S . -B "$X2CT_BUILD" -G Ninja -DPython_EXECUTABLE="$python" -DX2CT_OPENVINO=OFF -DX2CT_TENSORRT=OFF \
        -DX2CT_LIBRARY=OFF -DX2CT_CUDA=$cuda -DX2CT_CUDA_ARCHITECTURES="${ARCHITECTURE:-90}" -DX2CT_TESTS=$tests \
        -DX2CT_ONNXRUNTIME_INCLUDE="$([ -e "$headers/onnxruntime_cxx_api.h" ] && cd "$headers" && pwd)" || return
    for target; do cmake --build "$X2CT_BUILD" --target "$target" || code=1; done # one that can't be had is no reason for none
    return $code
}
info() { "$python" -m x2ct info; }

# ------------------------------------------------------------------------------------------------ tests and measures
laws() { "$X2CT_BUILD/gpu_laws" x2ct/lib; }
tests() {
    local marker=gpu
    [ "$device" = cuda ] || marker="not gpu and not wheel"
    "$python" -m pytest -q -p no:cacheprovider -m "$marker" tests/test_gpu.py tests/test_devices.py
}
# measure NAME OPTION...
measure() { "$python" benchmarks/gpu/measure.py chest -o "$results/measured-$1" --device "$device" "${@:2}"; }
lab() { "$python" benchmarks/gpu/latency_lab.py chest -o "$results/lab" --device "$device" "$@"; }
check() { "$python" -m x2ct info --check --device "$device"; }

# So that `timeout`, which runs programs, can run them.
export carry work device python results
for name in unpack machine wheels libraries loads take build info laws tests measure lab check sources; do export -f "${name?}"; done
run() { local name=$1 limit=$2; shift 2; stage "$name" "$limit" bash -uo pipefail -c '"$@"' "$name" "$@"; }

run unpack 30 unpack
[ ! -d "$work/site" ] || export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
if [ -f "$carry/onnxruntime.tar.xz" ]; then
    LD_LIBRARY_PATH=$(timeout 10 bash -c libraries 2>/dev/null)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi
run machine 15 machine
run wheels 10 wheels
export taken=0
if [ -d "$carry/bin" ] && run take 15 take; then taken=1; fi
[ $taken = 0 ] || [ "$device" != cuda ] || run laws-carried 40 laws
targets=(_core x2ct_torch)
if [ $taken = 0 ]; then
    targets+=(x2ct_onnxruntime)
    [ "$device" != cuda ] || targets+=(x2ct_cuda gpu_laws)
fi
run build "${BUILD_LIMIT:-75}" build "${targets[@]}"
run info 15 info
[ $taken = 1 ] || [ "$device" != cuda ] || run laws 40 laws
run tests "${TEST_LIMIT:-70}" tests
if [ "$device" = cuda ]; then
    run measure-torch-128 45 measure torch-128 --shape 128,128,128 --backend torch/torchscript --precision bf16 tf32 f32
    run lab 60 lab --seconds 55
    run measure-torch-256 40 measure torch-256 --shape 256,256,160 --backend torch/torchscript --precision bf16 tf32
    run measure-ort-128 40 measure ort-128 --shape 128,128,128 --backend onnxruntime --precision bf16 tf32
    run measure-ort-256 40 measure ort-256 --shape 256,256,160 --backend onnxruntime --precision bf16 tf32
    run measure-eager 30 measure eager --shape 128,128,128 --backend torch/torchscript --precision bf16 --no-graphs
    run measure-aoti 90 measure aoti --backend torch/aoti --precision bf16
    run check 60 check
else
    run measure-32 "${MEASURE_LIMIT:-60}" measure 32 --shape 32,32,32 --rounds 2 --precision f32 f16
    run lab "${MEASURE_LIMIT:-60}" lab --shape 16,16,16 --rounds 1 --modes eager
    run check "${MEASURE_LIMIT:-60}" check
fi
cat "$out/summary.txt"
cat "$results"/measured-*.md "$results/lab.md" 2>/dev/null
exit $failed
