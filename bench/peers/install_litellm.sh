#!/usr/bin/env bash
# Install LiteLLM's proxy into an environment of its own: install_litellm.sh FOLDER
#
# Does nothing when the version of versions.env is there.
set -euo pipefail

folder=${1:?usage: install_litellm.sh FOLDER}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/peers/versions.env
. "$here/versions.env"
target="$folder/litellm"

[ "$(cat "$target/.done" 2>/dev/null)" != "$LITELLM_VERSION" ] || exit 0
echo "Installing LiteLLM $LITELLM_VERSION in $target" >&2
rm -rf "$target"
"${PYTHON:-python3}" -m venv "$target"
"$target/bin/python" -m pip install --quiet --disable-pip-version-check "litellm[proxy]==$LITELLM_VERSION"
echo "$LITELLM_VERSION" >"$target/.done"
