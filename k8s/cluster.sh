#!/usr/bin/env bash
# The kind cluster with KServe and what it needs. Can be run again at any time: it does only what is missing.
#
#   k8s/cluster.sh up       make it (METRICS_SERVER=1 adds metrics-server, for HorizontalPodAutoscalers; KEDA=1 adds KEDA;
#                           IMAGES=1 builds and loads the images meanwhile, as k8s/images.sh does)
#   k8s/cluster.sh down     remove it and everything in it
#   k8s/cluster.sh status   nodes, and what is installed
#
#   CLUSTER_NAME     name of the kind cluster, default qna
#   SIMULATED_GPUS   GPUs of each node of the GPU pool, default 2
#   OFFLINE_CHARTS   folder with charts and manifests, instead of their public addresses
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Prints the arguments by which helm finds a chart.
chart() { # NAME ADDRESS VERSION
  if [ -z "${OFFLINE_CHARTS:-}" ]; then
    printf '%s\n' "$2" --version "$3"
    return
  fi
  local file="$OFFLINE_CHARTS/$1-$3.tgz"
  [ -e "$file" ] || file=$(compgen -G "$OFFLINE_CHARTS/$1-*.tgz" | sort -V | tail -1) || true
  [ -n "$file" ] || die "OFFLINE_CHARTS ($OFFLINE_CHARTS) holds no chart $1"
  printf '%s\n' "$file"
}

install_chart() { # RELEASE NAMESPACE ADDRESS VERSION [ARGUMENTS…]
  local release=$1 namespace=$2 where
  mapfile -t where < <(chart "$1" "$3" "$4")
  [ "${#where[@]}" -gt 0 ] || exit 1
  shift 4
  helm_ upgrade --install "$release" "${where[@]}" --namespace "$namespace" --create-namespace \
    --wait --timeout 5m "$@" >/dev/null || die "$release could not be installed"
  log "$release is installed"
}

make_nodes() {
  if cluster_exists; then
    kind export kubeconfig --name "$CLUSTER_NAME" >/dev/null 2>&1
    kube get --raw /readyz >/dev/null 2>&1 \
      || die "the cluster $CLUSTER_NAME exists but does not answer: run '$0 down' first"
  else
    kind create cluster --name "$CLUSTER_NAME" --config "$here/kind.yaml" --image "$KIND_NODE_IMAGE" --quiet
    log "nodes are made"
  fi
  kube wait --for=condition=Ready nodes --all --timeout=180s >/dev/null
  local node gpus=${SIMULATED_GPUS:-2}
  for node in $(kube get nodes -l pool=gpu -o name); do
    kube patch "$node" --subresource=status --type=json \
      -p "[{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$gpus\"}]" >/dev/null
  done
  log "nodes are ready, $gpus GPUs are simulated"
}

# helm --wait returns while KServe's webhook still refuses connections; this asks it for real.
wait_for_webhook() {
  retry 120 kube apply --dry-run=server -f "$here/webhook-probe.yaml" \
    || die "KServe's webhook does not answer"
  log "KServe answers"
}

# Prints where kubectl finds a manifest.
manifest() { # NAME ADDRESS
  if [ -z "${OFFLINE_CHARTS:-}" ]; then
    printf '%s\n' "$2"
    return
  fi
  local file
  file=$(compgen -G "$OFFLINE_CHARTS/$1-*.yaml" | sort -V | tail -1) || true
  [ -n "$file" ] || die "OFFLINE_CHARTS ($OFFLINE_CHARTS) holds no $1 manifest"
  printf '%s\n' "$file"
}

install_metrics_server() {
  local file
  file=$(manifest metrics-server "$METRICS_SERVER_MANIFEST") || exit 1
  kube apply -f "$file" >/dev/null
  # kind's kubelets have certificates that nobody signed.
  kube -n kube-system get deployment metrics-server -o jsonpath='{..args}' | grep -q kubelet-insecure-tls \
    || kube -n kube-system patch deployment metrics-server --type=json \
      -p '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]' >/dev/null
  kube -n kube-system rollout status deployment/metrics-server --timeout=180s >/dev/null
  log "metrics-server is installed"
}

install_keda() {
  local file
  file=$(manifest keda "$KEDA_MANIFEST") || exit 1
  # Its definitions are too large for the annotation that a plain apply leaves.
  kube apply --server-side --force-conflicts -f "$file" >/dev/null
  local name
  for name in $(kube -n keda get deployments -o name); do
    kube -n keda rollout status "$name" --timeout=240s >/dev/null
  done
  kube wait --for=condition=Available apiservice/v1beta1.external.metrics.k8s.io --timeout=120s >/dev/null
  log "KEDA is installed"
}

install_kserve() {
  install_chart cert-manager cert-manager "$CERT_MANAGER_CHART" "$CERT_MANAGER_VERSION" --set crds.enabled=true
  install_chart kserve-crd kserve "$KSERVE_CHARTS/kserve-crd" "$KSERVE_VERSION"
  install_chart kserve-resources kserve "$KSERVE_CHARTS/kserve-resources" "$KSERVE_VERSION" --values "$here/kserve-values.yaml"
  wait_for_webhook
}

up() {
  need docker kind kubectl helm
  docker info >/dev/null 2>&1 || die "the Docker engine does not answer"
  local installing=() building=
  [ "${IMAGES:-0}" != 1 ] || { bash "$here/images.sh" build & building=$!; }
  make_nodes
  [ "${METRICS_SERVER:-0}" != 1 ] || { install_metrics_server & installing+=($!); }
  [ "${KEDA:-0}" != 1 ] || { install_keda & installing+=($!); }
  install_kserve & installing+=($!)
  if [ -n "$building" ]; then
    all_of "$building"
    bash "$here/images.sh" load & installing+=($!)
  fi
  all_of "${installing[@]}"
  log "the cluster $CLUSTER_NAME is ready"
}

down() {
  need kind
  if cluster_exists; then
    kind delete cluster --name "$CLUSTER_NAME" --quiet
    log "the cluster $CLUSTER_NAME is gone"
  else
    log "there is no cluster $CLUSTER_NAME"
  fi
}

status() {
  need kind kubectl helm
  cluster_exists || { log "there is no cluster $CLUSTER_NAME"; return 1; }
  kube get nodes -L pool -o wide
  helm_ list --all-namespaces
}

case ${1:-} in
  up | down | status) "$1" ;;
  *) sed -n '2,/^\. /{/^\. /!s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
