#!/usr/bin/env bash
# Check both charts and both Dockerfiles: lint, every values file against the schemas of Kubernetes and KServe, the charts' unit
# tests, the READMEs. Part of `make check`.
#
#   KUBECONFORM_SCHEMAS   where kubeconform finds schemas; without it the public ones
#   CI                    when set, a program that is missing is an error; else what it checks is left out, and said so
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. k8s/versions.env

failed=0
fail() { printf 'charts: %s\n' "$*" >&2; failed=1; }
missing() {
  printf 'charts: NOT CHECKED, %s\n' "$*" >&2
  [ -z "${CI:-}" ] || failed=1
}
has() { command -v "$1" >/dev/null; }

schemas=(-schema-location "${KUBECONFORM_SCHEMAS:-default}")
[ -n "${KUBECONFORM_SCHEMAS:-}" ] || schemas+=(-schema-location
  'https://raw.githubusercontent.com/datreeio/CRDs-catalog/main/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json')

check_chart() { # FOLDER
  local chart=$1 values arguments rendered
  helm lint --strict --quiet "$chart" >/dev/null || { helm lint --strict "$chart" >&2 || true; fail "$chart: lint"; }
  for values in "" "$chart"/values-*.yaml "$chart"/ci/*-values.yaml; do
    arguments=()
    [ -z "$values" ] || arguments=(--values "$values")
    rendered=$(helm template "$(basename "$chart")" "$chart" --namespace qna "${arguments[@]}") \
      || { fail "$chart: ${values:-no values} does not render"; continue; }
    has kubeconform || continue
    kubeconform -strict "${schemas[@]}" <<<"$rendered" >&2 || fail "$chart: ${values:-no values} is not valid"
  done
}

unit_tests() {
  helm plugin list 2>/dev/null | grep -q '^unittest' \
    || helm plugin install https://github.com/helm-unittest/helm-unittest --version "$HELM_UNITTEST_VERSION" >/dev/null 2>&1 \
    || { missing "no unit tests: the helm plugin unittest cannot be installed"; return; }
  local said
  said=$(helm unittest --strict charts/model-host charts/api-server 2>&1) || { printf '%s\n' "$said" >&2; fail "unit tests"; }
}

readmes() {
  local copy chart
  copy=$(mktemp -d)
  cp -r charts "$copy"
  helm-docs --chart-search-root "$copy/charts" --log-level error
  for chart in charts/*/; do
    diff -u "$chart/README.md" "$copy/$chart/README.md" >&2 || fail "$chart/README.md is not current: run helm-docs -c charts"
  done
  rm -rf "$copy"
}

python3 scripts/check_dockerfiles.py || failed=1
if docker build --help 2>/dev/null | grep -q -- --check && docker info >/dev/null 2>&1; then
  for file in Dockerfile.*; do docker build --check --file "$file" . >&2 || fail "$file"; done
fi

if has helm; then
  has kubeconform || missing "kubeconform is not on the PATH: nothing is validated against schemas"
  for chart in charts/*/; do check_chart "${chart%/}"; done
  unit_tests
else
  missing "helm is not on the PATH"
fi
if has helm-docs; then readmes; else missing "helm-docs is not on the PATH: the charts' READMEs may be old"; fi
exit "$failed"
