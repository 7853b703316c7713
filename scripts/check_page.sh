#!/usr/bin/env bash
# Builds the page from web/ in a folder of its own and compares it with api/page/, byte by byte.
# Without Node there is nothing to build with: said, and not an error, for only who changes web/ needs it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null; then
  echo "check-page: no Node here, so the built page is not compared with its sources"
  exit 0
fi
if grep -nE '"resolved"|https?://[^"]*/-/' web/package-lock.json; then
  echo "web/package-lock.json names a registry; web/.npmrc keeps it from doing so: npm install again" >&2
  exit 1
fi
make --silent --no-print-directory web/node_modules/.package-lock.json
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
(cd web && npm run --silent types && node build.mjs "$fresh/page")
if ! diff -r "$fresh/page" api/page; then
  echo "api/page/ is not what web/ builds: run \`make page\` and commit the result" >&2
  exit 1
fi
echo "check-page: api/page/ is what web/ builds"
