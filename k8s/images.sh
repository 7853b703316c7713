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

# What `kind load` does, without a copy on the disk in between, and read once for all nodes.
load() { # IMAGE NODE…
  local image=$1 id node name wanting=() pipes=() loading=()
  shift
  id=$(docker image inspect --format '{{.Id}}' "$image") || die "$image is not here"
  name=${image//[\/:]/-}
  for node in "$@"; do
    if [ "$(id_on_node "$node" "$image")" = "$id" ]; then log "$image is in $node already"; else wanting+=("$node"); fi
  done
  [ "${#wanting[@]}" -gt 0 ] || return 0
  for node in "${wanting[@]}"; do
    mkfifo "$logs/$name-$node.tar" && pipes+=("$logs/$name-$node.tar")
    import "$image" "$node" "$logs/$name-$node" & loading+=($!)
  done
  docker save "$image" | tee "${pipes[@]}" >/dev/null & loading+=($!)
  all_of "${loading[@]}"
}

import() { # IMAGE NODE PATH
  docker exec --privileged --interactive "$2" ctr --namespace=k8s.io images import --all-platforms --digests - \
    <"$3.tar" >"$3.log" 2>&1 || { cat "$3.log" >&2; die "$1 could not be loaded into $2"; }
  log "$1 is loaded into $2"
}

load_api() { # NODE…
  # Where this fails, the node pulls it itself when it needs it.
  (load "$POSTGRES_IMAGE" "$@") || log "$POSTGRES_IMAGE is left to $*"
  load "qna-api-server:$version" "$@"
}

load_both() {
  need docker kind kubectl
  cluster_exists || die "there is no cluster $CLUSTER_NAME: run k8s/cluster.sh up first"
  docker image inspect "$POSTGRES_IMAGE" >/dev/null 2>&1 || docker pull --quiet "$POSTGRES_IMAGE" >/dev/null || die "$POSTGRES_IMAGE cannot be had"
  local api_nodes gpu_nodes loading=()
  mapfile -t api_nodes < <(nodes_of_pool api)
  mapfile -t gpu_nodes < <(nodes_of_pool gpu)
  [ "${#api_nodes[@]}" -gt 0 ] || die "the cluster $CLUSTER_NAME has no node with the label pool=api"
  [ "${#gpu_nodes[@]}" -gt 0 ] || die "the cluster $CLUSTER_NAME has no node with the label pool=gpu"
  load_api "${api_nodes[@]}" & loading+=($!)
  load "qna-model-host:$version" "${gpu_nodes[@]}" & loading+=($!)
  all_of "${loading[@]}"
}

case ${1:-all} in
  build) build_both ;;
  load) load_both ;;
  all) build_both; load_both ;;
  *) sed -n '2,/^\. /{/^\. /!s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
