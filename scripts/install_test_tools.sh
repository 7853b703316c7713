#!/usr/bin/env bash
# Puts what the tests drive and pip does not have where they find it: a Redis server, a Prometheus, a Chromium.
# Run again, it does nothing.
#   usage: PYTHON=.venv/bin/python install_test_tools.sh
set -euo pipefail

sudo="$([ "$(id -u)" = 0 ] || command -v sudo || true)"
may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || [ -n "$sudo" ]; }; }
install() {
  echo "Installing $*"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if found="$(command -v redis-server)"; then
  echo "The tests will start $found"
elif may_install; then
  install redis-server
else
  echo "Redis is missing: install redis-server (brew install redis; apt install redis-server)" >&2
  exit 1
fi

# promtool comes with it.
if found="$(command -v prometheus)"; then
  echo "The tests will start $found"
elif may_install; then
  install prometheus
else
  echo "Prometheus is missing: install prometheus (brew install prometheus; apt install prometheus)" >&2
  exit 1
fi

for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  if found="$(command -v "$name")"; then
    echo "The page's tests will drive $found"
    exit 0
  fi
done
# Ubuntu's package of this name is an empty one that leads to a snap: Playwright's own does better there.
if may_install && ! grep -q '^ID=ubuntu' /etc/os-release; then
  # It costs half of what the whole browser does.
  install chromium-headless-shell fonts-dejavu-core
else
  echo "Installing Playwright's own Chromium"
  "${PYTHON:-python3}" -m playwright install --with-deps --only-shell chromium
fi
