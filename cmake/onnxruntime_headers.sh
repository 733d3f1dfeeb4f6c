#!/bin/sh
# Puts the ONNX Runtime C and C++ headers (MIT) into DEST, from Debian's libonnxruntime-dev, without installing anything:
#
#   cmake/onnxruntime_headers.sh DEST
#
# Takes the package of this machine's own release, or of a newer Debian where it has none: the headers need nothing of
# it. Asks apt's own configuration where packages come from. Says in one line why it can't, with exit code 1.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DEST" >&2; exit 2; }
dest=$1
newer="trixie"
fail() {
    echo "onnxruntime_headers.sh: $1; without headers x2ct is built without its ONNX Runtime backend." \
        "ONNX Runtime's release archives have them: name their folder include in X2CT_ONNXRUNTIME_INCLUDE" >&2
    exit 1
}
for there in "$dest" /usr/include/onnxruntime "${X2CT_ONNXRUNTIME_INCLUDE:-/usr/local/include/onnxruntime}"; do
    [ ! -f "$there/onnxruntime_cxx_api.h" ] || exit 0
done
command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "this is no Debian"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! (cd "$work" && apt-get -qq download libonnxruntime-dev) >"$work/log" 2>&1; then
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v -i security | head -n 1)
    [ -n "$uri" ] || fail "apt knows no source of packages"
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    echo "deb $uri $newer main" >"$work/sources.list"
    apt() {
        apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" \
            -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@"
    }
    apt update >"$work/log" 2>&1 && (cd "$work" && apt download libonnxruntime-dev) >"$work/log" 2>&1 ||
        fail "libonnxruntime-dev can't be had: $(tail -n 1 "$work/log")"
fi
dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/unpacked"
mkdir -p "$dest"
cp "$(dirname "$(find "$work/unpacked" -name onnxruntime_c_api.h | head -n 1)")"/*.h "$dest"/
