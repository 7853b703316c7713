#!/usr/bin/env bash
# Ask an installation of the API server everything that it has to answer, and give a verdict within a minute.
#
#   k8s/smoke.sh URL [--key-file FILE] [--model NAME] [--json FILE] [--time-limit SECONDS]
#
# The key is taken from API_KEY, or from the first line of FILE. Needs bash, and Python 3.9 or newer without any package.
# Ends with 0 when everything held, 1 when something did not, 2 when what it was told makes no sense.
set -euo pipefail
command -v python3 >/dev/null || { echo "smoke: python3 is not on the PATH" >&2; exit 2; }
exec python3 "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/smoke.py" "$@"
