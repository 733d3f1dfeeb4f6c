#!/usr/bin/env bash
# What only a GPU machine without internet can show, in two calls there, one line each.
#
#   benchmarks/gpu/run.sh carry [SHARDS]         at home: makes what the calls take along, into .gpu; prints both calls
#   benchmarks/gpu/run.sh measure OUT DEADLINE   there: the device's laws, the GPU's tests, what sampling takes
#   benchmarks/gpu/run.sh train OUT DEADLINE     there: a model, from the bundled one
#
# DEADLINE is in seconds since 1970: $(($(date +%s) + 280)). DEVICE=cpu tries both, small, on a machine without a GPU,
# SLOW=10 with ten times the stages' limits; benchmarks/gpu/dry_run.py does so with all else as it is there.
#
# Each stage has a limit of its own and what is left until the deadline, whichever is less; one that fails or hangs is a
# line of what is printed, and the next begins. OUT gets results.tar.gz, all that the stages wrote, made anew after each
# of them, and of a training its averages and train.log, renewed as it goes: six files at most, of 16 MiB at most. The
# exit code is 1 where a stage failed or was left out.
#
# Needs Python with PyTorch and what `modules` below names, a C++ compiler, CMake and ninja; nvcc where bin/ is of other
# sources. What comes along, in CARRY (.gpu unless set), each where it is there:
#   wheels/*.whl         what `wheels` names and the machine's Python lacks
#   bin/                 the CUDA device, ONNX Runtime's backend and gpu_laws, compiled from these sources
#   onnxruntime.tar.xz   ONNX Runtime with its CUDA provider, and its headers: benchmarks/gpu/pack_onnxruntime.py
#   patients.tar         patients to train on: benchmarks/gpu/pack.py
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
carry=${CARRY:-.gpu}
wheels="nlohmann_json==3.12.0 msgspec platformdirs"
modules="numpy scipy skimage PIL onnx onnxruntime safetensors pybind11 pytest typer rich filelock tifffile psutil"
most_mib=62 # of 64 that a machine takes along
sources() { find CMakeLists.txt cmake csrc -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }

# ------------------------------------------------------------------------------------------------ at home
# What a call takes along: the checkout's files, and the paths that it names.
weigh() {
    local call=$1 bytes
    bytes=$({ git ls-files -z --cached --others --exclude-standard; find "${@:2}" -type f -print0; } |
        xargs -0 stat -c %s 2>/dev/null | awk '{ sum += $1 } END { print sum }')
    awk -v call="$call" -v bytes="$bytes" -v most=$most_mib \
        'BEGIN { printf "%s: %.1f MiB, of at most %d\n", call, bytes / 2^20, most; exit bytes > most * 2^20 }'
}
pack() {
    local python=${PYTHON:-.venv/bin/python} built=${BUILD:-build/dev} shards=${1:-} measure=("$carry/wheels" "$carry/bin") code=0
    rm -rf "$carry/wheels" "$carry/bin" && mkdir -p "$carry/bin"
    # shellcheck disable=SC2086 # words
    "$python" -m pip download -qq --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" -d "$carry/wheels" $wheels || return
    cp x2ct/lib/libx2ct_cuda.so x2ct/lib/libx2ct_onnxruntime.so "$built/gpu_laws" "$carry/bin" || return
    strip --strip-unneeded "$carry"/bin/*.so "$carry/bin/gpu_laws" && sources >"$carry/bin/sources"
    [ -z "$shards" ] || "$python" benchmarks/gpu/pack.py "$shards" -o "$carry/patients.tar" || return
    du -ch --apparent-size "$carry"/*
    [ ! -f "$carry/onnxruntime.tar.xz" ] || measure+=("$carry/onnxruntime.tar.xz")
    weigh measure "${measure[@]}" || code=1
    [ ! -f "$carry/patients.tar" ] || weigh train "$carry/wheels" "$carry/patients.tar" || code=1
    echo "Start, OUT being a folder:"
    echo "  carry ${measure[*]}:"
    echo "    benchmarks/gpu/run.sh measure OUT \$((\$(date +%s) + 280))"
    echo "  carry $carry/wheels $carry/patients.tar:"
    echo "    benchmarks/gpu/run.sh train OUT \$((\$(date +%s) + 530))"
    return $code
}
if [ "${1:-}" = carry ]; then
    pack "${@:2}"
    exit
fi
case "${1:-} $#" in "measure 3" | "train 3") ;; *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2 && exit 2 ;; esac

# ------------------------------------------------------------------------------------------------ stages
call=$1
out=$(mkdir -p "$2" && cd "$2" && pwd) || exit 2
deadline=$3
device=${DEVICE:-cuda}
python=$(command -v "${PYTHON:-python3}") || exit 2
builds=${WORK:-/tmp/x2ct-gpu} # a machine that is still warm needn't compile again
work=$builds/$call
results=$work/results
rm -rf "$results" && mkdir -p "$results"
export X2CT_BUILD=${X2CT_BUILD:-$builds/build} X2CT_CACHE=$builds/cache PYTHONUNBUFFERED=1
export OMP_WAIT_POLICY=PASSIVE
failed=0

# A line of the summary: printed at once, for a call that is killed shows what it has printed.
say() {
    echo "$1" | tee -a "$results/summary.txt"
    tar -czf "$work/results.tar.gz" -C "$work" results && cp "$work/results.tar.gz" "$out/partial" &&
        mv -f "$out/partial" "$out/results.tar.gz"
}

# stage NAME SECONDS COMMAND...: its output goes to results/NAME.log
stage() {
    local name=$1 limit=$(($2 * ${SLOW:-1})) left code began
    shift 2
    left=$((deadline - $(date +%s) - 4)) # what ending a stage and packing take
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 2 ]; then
        say "$name: left out, the deadline is too near"
        failed=1
        return 1
    fi
    began=$(date +%s)
    timeout -k 2 "$limit" "$@" >"$results/$name.log" 2>&1 </dev/null
    code=$?
    say "$name: exit code $code after $(($(date +%s) - began)) s of $limit: $(tail -n 1 "$results/$name.log" | cut -c 1-200)"
    [ $code = 0 ] || failed=1
    return $code
}

# ------------------------------------------------------------------------------------------------ what came along
unpack() {
    if compgen -G "$carry/wheels/*.whl" >/dev/null; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" "$carry"/wheels/*.whl || return
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
# By importing each, as one that is there may lack what it needs itself; but for the one that is only headers.
packages() {
    "$python" - "$@" <<'PYTHON'
import importlib, importlib.util, sys
missing = []
for name in (text.partition("=")[0] for text in sys.argv[1:]):
    try:
        (importlib.util.find_spec if name == "nlohmann_json" else importlib.import_module)(name) or missing.append(name)
    except ImportError as error:
        missing.append(f"{name} ({error})")
print("missing: " + ", ".join(missing) if missing else "none is missing")
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
# the Python and the PyTorch that are here. A training needs the module alone. Nothing needs the OpenVINO backend.
take() {
    [ "$(cat "$carry/bin/sources")" = "$(sources)" ] || { echo "bin/ is of other sources"; return 1; }
    loads "$carry"/bin/*.so || return
    mkdir -p x2ct/lib "$X2CT_BUILD"
    cp "$carry"/bin/*.so x2ct/lib/ && cp "$carry/bin/gpu_laws" "$X2CT_BUILD/" && echo "took $(ls "$carry/bin" | tr '\n' ' ')"
}
build() {
    local headers=build/onnxruntime-headers cuda=OFF target code=0
    [ ! -d "$work/onnxruntime-headers" ] || headers=$work/onnxruntime-headers
    [[ " $* " != *" x2ct_cuda "* ]] || cuda=ON
    cmake -S . -B "$X2CT_BUILD" -G Ninja -DPython_EXECUTABLE="$python" -DX2CT_OPENVINO=OFF -DX2CT_TENSORRT=OFF \
        -DX2CT_LIBRARY=OFF -DX2CT_CUDA=$cuda -DX2CT_CUDA_ARCHITECTURES="${ARCHITECTURE:-90}" -DX2CT_TESTS=$cuda \
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
# Ends by itself before its stage does. TRAIN has further options, of which a later one counts.
train() {
    # shellcheck disable=SC2086 # words
    "$python" benchmarks/gpu/train.py "$carry/patients.tar" "$out" --until $((deadline - 6)) --device "$device" --recorded \
        --config benchmarks/chest.json benchmarks/gpu/chest.json --init chest --work "$work/run" ${TRAIN:-}
}

# So that `timeout`, which runs programs, can run them.
export carry work out deadline device python results
for name in unpack machine packages libraries loads take build info laws tests measure lab check train sources; do export -f "${name?}"; done
run() { local name=$1 limit=$2; shift 2; stage "$name" "$limit" bash -uo pipefail -c '"$@"' "$name" "$@"; }

run unpack 30 unpack
[ ! -d "$work/site" ] || export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
if [ -f "$carry/onnxruntime.tar.xz" ]; then
    LD_LIBRARY_PATH=$(timeout 10 bash -c libraries 2>/dev/null)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi
run machine 15 machine
# shellcheck disable=SC2086 # words
run packages 20 packages $modules $wheels
if [ "$call" = train ]; then
    run build 90 build _core
    run train 3600 train
    exit $failed
fi
taken=0
if [ -d "$carry/bin" ] && run take 15 take; then taken=1; fi
[ $taken = 0 ] || [ "$device" != cuda ] || run laws-carried 40 laws
targets=(_core x2ct_torch)
if [ $taken = 0 ]; then
    targets+=(x2ct_onnxruntime)
    [ "$device" != cuda ] || targets+=(x2ct_cuda gpu_laws)
fi
run build 75 build "${targets[@]}"
run info 15 info
[ $taken = 1 ] || [ "$device" != cuda ] || run laws 40 laws
run tests 70 tests
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
    run measure-32 60 measure 32 --shape 32,32,32 --rounds 2 --precision f32 f16
    run lab 60 lab --shape 16,16,16 --rounds 1 --modes eager
    run check 60 check
fi
cat "$results"/measured-*.md "$results/lab.md" 2>/dev/null
exit $failed
