#!/usr/bin/env bash
# Install torch, in the version of requirements/torch.txt, into the active Python.
#
#   [TORCH=auto|cpu|cuda] [PYTHON=python] scripts/install_torch.sh
#
#   auto  the CUDA build where an NVIDIA driver is present, else the CPU build (the default)
#   cpu   the CPU build: about 200 MB to download
#   cuda  the CUDA build: about 3 GB with NVIDIA's libraries
#
# On macOS there is one build only. Does nothing when the right build is already there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^torch==//p' "$root/requirements/torch.txt")
python=${PYTHON:-$(command -v python || command -v python3)}
wanted=${TORCH:-auto}

log() { printf 'install_torch: %s\n' "$*" >&2; }

nvidia_driver_is_present() {
  [ -e /proc/driver/nvidia/version ] || compgen -G '/dev/nvidia[0-9]*' >/dev/null
}

# Prints "VERSION cpu|cuda", or nothing. Reads torch/version.py alone: importing torch takes seconds.
installed_build() {
  "$python" - <<'PY'
import importlib.util
import pathlib
import runpy

spec = importlib.util.find_spec("torch")
if spec is not None and spec.origin is not None:
    facts = runpy.run_path(str(pathlib.Path(spec.origin).with_name("version.py")))
    print(str(facts["__version__"]).split("+")[0], "cuda" if facts["cuda"] else "cpu")
PY
}

pip_install() {
  "$python" -m pip install --quiet --constraint "$root/constraints.txt" "$@"
}

# uv knows where each build of torch is published; it goes into a folder that is removed again.
uv_install() { # BACKEND
  local folder status=0
  folder=$(mktemp -d)
  "$python" -m venv "$folder" && "$folder/bin/python" -m pip install --quiet uv \
    && "$folder/bin/uv" pip install --quiet --python "$python" --torch-backend="$1" --reinstall-package torch \
      --constraint "$root/constraints.txt" "torch==$version" || status=$?
  rm -rf "$folder"
  return "$status"
}

install_cpu() {
  # Found where pip is configured with a place that has the CPU wheel; else a quick "no".
  pip_install "torch==$version+cpu" 2>/dev/null && return
  log "asking uv for the CPU build"
  uv_install cpu && return
  log "no CPU build could be found: installing the package index's own build, which may be the much bigger CUDA one"
  pip_install "torch==$version"
}

install_cuda() {
  # "===" wants the version without a suffix: on Linux that is the CUDA build, never a "+cpu" one.
  pip_install "torch===$version" && return
  log "asking uv for the CUDA build that fits this machine's driver"
  uv_install auto
}

case $wanted in
  auto) if nvidia_driver_is_present; then wanted=cuda; else wanted=cpu; fi ;;
  cpu | cuda) ;;
  *) log "TORCH is '$wanted', but must be auto, cpu or cuda"; exit 2 ;;
esac
[ -n "$version" ] || { log "requirements/torch.txt pins no torch"; exit 2; }

if [ "$(uname -s)" = Darwin ]; then
  [ "$wanted" = cpu ] || { log "macOS has no CUDA build"; exit 2; }
  pip_install "torch==$version"
  exit
fi

case $(installed_build) in
  "$version $wanted") log "torch $version ($wanted) is there"; exit ;;
esac
log "installing torch $version ($wanted)"
"install_$wanted"

build=$(installed_build)
case "$build" in
  "$version $wanted") log "installed torch $build" ;;
  "$version "*) log "installed torch $build, though $wanted was asked for" ; [ "$wanted" = cpu ] ;;
  *) log "torch $version is not there after the installation (found: ${build:-nothing})"; exit 1 ;;
esac
