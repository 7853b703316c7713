#!/usr/bin/env bash
# Install or upgrade both charts on the kind cluster, wait until they answer, and print how to reach them.
#
#   k8s/deploy.sh [ARGUMENTS FOR HELM…]
#
#   CLUSTER_NAME   name of the kind cluster, default qna
#   NAMESPACE      namespace of both releases, default qna; it is made with Pod Security "restricted"
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need docker kind kubectl helm
cluster_exists || die "there is no cluster $CLUSTER_NAME: run k8s/cluster.sh up first"

kube create namespace "$NAMESPACE" --dry-run=client -o yaml | kube apply -f - >/dev/null
kube label namespace "$NAMESPACE" --overwrite \
  pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted >/dev/null

release() { # NAME IMAGE [ARGUMENTS…]
  local name=$1 image=$2 id
  shift 2
  # The tag stays the same while the code changes; the image's id makes the pods follow it.
  id=$(docker image inspect --format '{{.Id}}' "$image:$version") || die "$image:$version is missing: run k8s/images.sh first"
  # Again, should KServe's webhook or the API server be away for a moment; wrong values fail at once.
  helm template "$name" "$root/charts/$name" --values "$root/charts/$name/values-kind.yaml" "$@" >/dev/null || die "$name has wrong values"
  retry 90 helm_ upgrade --install "$name" "$root/charts/$name" --namespace "$NAMESPACE" --values "$root/charts/$name/values-kind.yaml" \
    --set-string "podAnnotations.qna-image-id=$id" "$@" || die "$name could not be installed"
}
release model-host qna-model-host "$@"
release api-server qna-api-server "$@"
log "both charts are installed"

# An InferenceService that was ready before an upgrade still says so at first, hence also the rollout.
kube -n "$NAMESPACE" wait --for=create deployment/model-host-predictor --timeout=120s >/dev/null
kube -n "$NAMESPACE" rollout status deployment/model-host-predictor --timeout=300s >/dev/null \
  || die "the model host did not become ready: kubectl -n $NAMESPACE describe pod -l app.kubernetes.io/name=model-host"
kube -n "$NAMESPACE" wait --for=condition=Ready inferenceservice/model-host --timeout=120s >/dev/null
kube -n "$NAMESPACE" rollout status deployment/api-server --timeout=300s >/dev/null \
  || die "the API server did not become ready: kubectl -n $NAMESPACE describe pod -l app.kubernetes.io/name=api-server"
log "both are ready"
cat <<TEXT

  kubectl --context $context -n $NAMESPACE port-forward svc/api-server 8000:80

  curl -s http://127.0.0.1:8000/chat -H 'Content-Type: application/json' \\
    -d '{"chat_id": "1", "system_prompt": "You are a helpful assistant.", "user_prompt": "Capital of India?"}'

TEXT
