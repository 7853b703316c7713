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
  local failed=0
  wait "$api" || failed=1
  wait "$model" || failed=1
  [ "$failed" = 0 ] || exit 1
}

# The image that a node's container runtime knows under this name; nothing when there is none.
id_on_node() { # NODE IMAGE
  docker exec "$1" crictl inspecti --output go-template --template '{{.status.id}}' "$2" 2>/dev/null || true
}

load() { # IMAGE POOL
  local nodes node id
  id=$(docker image inspect --format '{{.Id}}' "$1") || die "$1 is not here"
  nodes=$(nodes_of_pool "$2")
  [ -n "$nodes" ] || die "the cluster $CLUSTER_NAME has no node with the label pool=$2"
  for node in ${nodes//,/ }; do
    [ "$(id_on_node "$node" "$1")" != "$id" ] || { log "$1 is in $node already"; continue; }
    # What `kind load` does, without a copy on the disk in between.
    docker save "$1" | docker exec --privileged --interactive "$node" \
      ctr --namespace=k8s.io images import --all-platforms --digests - >"$logs/load" 2>&1 \
      || { cat "$logs/load" >&2; die "$1 could not be loaded into $node"; }
    log "$1 is loaded into $node"
  done
}

load_both() {
  need docker kind kubectl
  cluster_exists || die "there is no cluster $CLUSTER_NAME: run k8s/cluster.sh up first"
  docker image inspect "$POSTGRES_IMAGE" >/dev/null 2>&1 || docker pull --quiet "$POSTGRES_IMAGE" >/dev/null || die "$POSTGRES_IMAGE cannot be had"
  # Where this fails, the nodes pull it themselves when they need it.
  (load "$POSTGRES_IMAGE" api) || log "$POSTGRES_IMAGE is left to the nodes"
  load "qna-api-server:$version" api
  load "qna-model-host:$version" gpu
}

case ${1:-all} in
  build) build_both ;;
  load) load_both ;;
  all) build_both; load_both ;;
  *) sed -n '2,/^\. /{/^\. /!s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
