#!/usr/bin/env bash
# Build both images and load each into the nodes that run it: the model host into the GPU pool, the API server into the
# API pool, with the PostgreSQL that k8s/deploy.sh puts beside it. Nodes that hold an image already are left alone.
#
#   k8s/images.sh           build and load
#   k8s/images.sh build     build only
#   k8s/images.sh load      load only
#
#   CLUSTER_NAME   name of the kind cluster, default qna
#   TORCH          build of torch in the model host's image: cpu (default) or cuda
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

torch=${TORCH:-cpu}
[ "$torch" != auto ] || torch=cpu   # "auto" asks about the machine that computes, and that is not this one

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

build() { # DOCKERFILE NAME ARGUMENTS…
  local file=$1 name=$2
  shift 2
  DOCKER_BUILDKIT=1 docker build --file "$root/$file" --tag "$name:$version" --build-arg "VERSION=$version" "$@" "$root" \
    >"$logs/$name" 2>&1 || { tail -40 "$logs/$name" >&2; die "$name could not be built"; }
  log "$name:$version is built, $(($(docker image inspect --format '{{.Size}}' "$name:$version") / 1000000)) MB"
}

build_both() {
  need docker
  build Dockerfile.api qna-api-server & local api=$!
  build Dockerfile.model qna-model-host --build-arg "TORCH=$torch" & local model=$!
  all_of "$api" "$model"
}

# The image that a node's container runtime knows under this name; nothing when there is none.
id_on_node() { # NODE IMAGE
  docker exec "$1" crictl inspecti --output go-template --template '{{.status.id}}' "$2" 2>/dev/null || true
}

load() { # IMAGE NODE
  local id said="$logs/$2-${1//[\/:]/-}"
  id=$(docker image inspect --format '{{.Id}}' "$1") || die "$1 is not here"
  [ "$(id_on_node "$2" "$1")" != "$id" ] || { log "$1 is in $2 already"; return; }
  # What `kind load` does, without a copy on the disk in between.
  docker save "$1" | docker exec --privileged --interactive "$2" \
    ctr --namespace=k8s.io images import --all-platforms --digests - >"$said" 2>&1 \
    || { cat "$said" >&2; die "$1 could not be loaded into $2"; }
  log "$1 is loaded into $2"
}

load_api() { # NODE
  # Where this fails, the node pulls it itself when it needs it.
  (load "$POSTGRES_IMAGE" "$1") || log "$POSTGRES_IMAGE is left to $1"
  load "qna-api-server:$version" "$1"
}

load_both() {
  need docker kind kubectl
  cluster_exists || die "there is no cluster $CLUSTER_NAME: run k8s/cluster.sh up first"
  docker image inspect "$POSTGRES_IMAGE" >/dev/null 2>&1 || docker pull --quiet "$POSTGRES_IMAGE" >/dev/null || die "$POSTGRES_IMAGE cannot be had"
  local pool nodes node loading=()
  for pool in api gpu; do
    nodes=$(nodes_of_pool "$pool")
    [ -n "$nodes" ] || die "the cluster $CLUSTER_NAME has no node with the label pool=$pool"
    for node in ${nodes//,/ }; do
      if [ "$pool" = api ]; then load_api "$node" & else load "qna-model-host:$version" "$node" & fi
      loading+=($!)
    done
  done
  all_of "${loading[@]}"
}

case ${1:-all} in
  build) build_both ;;
  load) load_both ;;
  all) build_both; load_both ;;
  *) sed -n '2,/^\. /{/^\. /!s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
