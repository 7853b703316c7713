#!/usr/bin/env bash
# Install or upgrade both charts on the kind cluster, wait until they answer, and print how to reach them.
#
#   k8s/deploy.sh [ARGUMENTS FOR HELM…]
#
#   CLUSTER_NAME   name of the kind cluster, default qna
#   NAMESPACE      namespace of both releases, default qna; it is made with Pod Security "restricted"
#   CHARTS         folder with both charts, default those of this repository
#   REPLICAS       pods of each part, default 2, with the chats in a PostgreSQL beside them; with 1 they are in a SQLite file
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need docker kind kubectl helm
cluster_exists || die "there is no cluster $CLUSTER_NAME: run k8s/cluster.sh up first"
charts=${CHARTS:-$root/charts}
replicas=${REPLICAS:-2}

kube create namespace "$NAMESPACE" --dry-run=client -o yaml | kube apply -f - >/dev/null
kube label namespace "$NAMESPACE" --overwrite \
  pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted >/dev/null

# The user that PostgreSQL runs as: images of this name differ in its number.
id_in_postgres() { docker run --rm --entrypoint id "$POSTGRES_IMAGE" "$1" postgres; }

install_postgres() {
  local password url user group
  if ! kube -n "$NAMESPACE" get secret chats-database >/dev/null 2>&1; then
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    url=postgresql://postgres:$password@chats-database.$NAMESPACE.svc:5432/chats
    kube -n "$NAMESPACE" create -f - >/dev/null <<SECRET
{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chats-database"}, "stringData": {"password": "$password", "url": "$url"}}
SECRET
  fi
  user=$(id_in_postgres -u) && group=$(id_in_postgres -g) || die "$POSTGRES_IMAGE does not run: run k8s/images.sh first"
  sed "s|POSTGRES_USER|$user|; s|POSTGRES_GROUP|$group|; s|POSTGRES_IMAGE|$POSTGRES_IMAGE|" "$here/postgres.yaml" \
    | kube -n "$NAMESPACE" apply -f - >/dev/null
  kube -n "$NAMESPACE" rollout status deployment/chats-database --timeout=180s >/dev/null \
    || die "PostgreSQL did not become ready: kubectl -n $NAMESPACE describe pod -l app.kubernetes.io/name=chats-database"
  log "PostgreSQL is ready"
}

of_api=()
if [ "$replicas" -gt 1 ]; then
  install_postgres
  of_api=(--set database.existingSecret=chats-database
    --set-json 'database.peers=[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"chats-database"}}}]')
fi

release() { # NAME IMAGE [ARGUMENTS…]
  local name=$1 image=$2 id
  shift 2
  # The tag stays the same while the code changes; the image's id makes the pods follow it.
  id=$(docker image inspect --format '{{.Id}}' "$image:$version") || die "$image:$version is missing: run k8s/images.sh first"
  # Again, should KServe's webhook or the API server be away for a moment; wrong values fail at once.
  helm template "$name" "$charts/$name" --values "$charts/$name/values-kind.yaml" "$@" >/dev/null || die "$name has wrong values"
  retry 90 helm_ upgrade --install "$name" "$charts/$name" --namespace "$NAMESPACE" --values "$charts/$name/values-kind.yaml" \
    --set-string "podAnnotations.qna-image-id=$id" "$@" || die "$name could not be installed"
}
release model-host qna-model-host --set "replicas=$replicas" "$@"
release api-server qna-api-server --set "replicas=$replicas" "${of_api[@]}" "$@"
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

  KEY=\$(kubectl --context $context -n $NAMESPACE get secret api-server-keys -o go-template='{{index .data "admin-key" | base64decode}}')
  curl -s http://127.0.0.1:8000/chat -H 'Content-Type: application/json' -H "Authorization: Bearer \$KEY" \\
    -d '{"chat_id": "1", "system_prompt": "You are a helpful assistant.", "user_prompt": "Capital of India?"}'

TEXT
