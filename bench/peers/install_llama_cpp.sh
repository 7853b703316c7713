#!/usr/bin/env bash
# Build llama.cpp from the source that llama-cpp-python's archive carries: install_llama_cpp.sh FOLDER
#
# Needs cmake and a C++ compiler; about ten minutes on two cores. Does nothing when the version of
# versions.env is there.
set -euo pipefail

folder=${1:?usage: install_llama_cpp.sh FOLDER}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/peers/versions.env
. "$here/versions.env"
target="$folder/llama.cpp"
wanted=$LLAMA_CPP_PYTHON_VERSION

[ "$(cat "$target/.done" 2>/dev/null)" != "$wanted" ] || exit 0
for tool in cmake c++; do
  command -v "$tool" >/dev/null || { echo "$tool is not there; on Debian and Ubuntu: apt install cmake g++" >&2; exit 1; }
done
rm -rf "$target"
mkdir -p "$target"
echo "Building llama.cpp (llama-cpp-python $wanted) in $target" >&2
# A build environment of its own, because pip prepares even an archive that it only downloads.
"${PYTHON:-python3}" -m venv "$target/venv"
"$target/venv/bin/python" -m pip download --quiet --no-deps --no-binary llama-cpp-python \
  --dest "$target" "llama-cpp-python==$wanted"
tar -xzf "$target/llama_cpp_python-$wanted.tar.gz" -C "$target"
source="$target/llama_cpp_python-$wanted/vendor/llama.cpp"
# Static, and for this machine's own instructions, which is what it is fastest with.
cmake -S "$source" -B "$target/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >"$target/build.log"
cmake --build "$target/build" --parallel "$(nproc)" \
  --target llama-server llama-batched-bench llama-quantize >>"$target/build.log" \
  || { tail -20 "$target/build.log" >&2; exit 1; }
mv "$target/build/bin" "$target/bin"
mv "$source/gguf-py" "$target/gguf-py"
rm -rf "$target/build" "$target/venv" "$target/llama_cpp_python-$wanted" "$target"/*.tar.gz
echo "$wanted" >"$target/.done"
