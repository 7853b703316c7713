# Sourced by the scripts in this folder: names, versions and the commands bound to our cluster. Never touches
# another cluster, whatever the current context is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=k8s/versions.env
. "$here/versions.env"

CLUSTER_NAME=${CLUSTER_NAME:-qna}
NAMESPACE=${NAMESPACE:-qna}
context=kind-$CLUSTER_NAME
version=$(cat "$root/VERSION")

log() { printf '%s: %s (%ss)\n' "$(basename "$0" .sh)" "$*" "$SECONDS" >&2; }
die() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

need() { # PROGRAM…
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is not on the PATH; the README says how to get it"
  done
}

kube() { kubectl --context "$context" "$@"; }
helm_() { helm --kube-context "$context" "$@"; }

cluster_exists() { kind get clusters 2>/dev/null | grep -qx "$CLUSTER_NAME"; }

nodes_of_pool() { # POOL: the names of its nodes, one on each line
  kube get nodes -l "pool=$1" -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}'
}

# Runs a command until it succeeds; shows what it said last when it never does.
retry() { # SECONDS COMMAND…
  local deadline=$((SECONDS + $1)) said
  shift
  until said=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] || { printf '%s\n' "$said" >&2; return 1; }
    sleep 1
  done
}

# Waits for all of them, and fails where one has failed.
all_of() { # PROCESS…
  local process failed=0
  for process in "$@"; do
    wait "$process" || failed=1
  done
  [ "$failed" = 0 ] || exit 1
}
