# The only entrance to the project. `make help` lists what there is.
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What a user may change on the command line or in the environment.
MODEL ?=
DEVICE ?= auto
API_PORT ?= 8000
MODEL_PORT ?= 8001
TORCH ?= auto
CLUSTER_NAME ?= qna
NAMESPACE ?= qna
PYTEST_ARGS ?=
BENCH_ARGS ?=
URL ?= http://127.0.0.1:$(API_PORT)
SMOKE_ARGS ?=
export TORCH CLUSTER_NAME NAMESPACE

.PHONY: help run test check format openapi dashboards page check-page test-tools demo-model demo-eval bench bench-peers bench-api \
	cluster cluster-down images package deploy smoke e2e clean

help: ## List every target
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# ---- environment ------------------------------------------------------------------------------
$(VENV)/bin/python:
	@$(PYTHON) scripts/check_python.py
	@echo "Making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements/torch.txt requirements/model.txt requirements/api.txt constraints.txt scripts/install_torch.sh | $(VENV)/bin/python
	@echo "Installing torch ($(TORCH)): the largest part, a few minutes at most"
	@PYTHON=$(PY) bash scripts/install_torch.sh
	@echo "Installing the model host and the API server"
	@$(PIP) -r requirements/model.txt -r requirements/api.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.run
	@echo "Installing what the measurements need"
	@$(PIP) -r requirements/bench.txt
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.bench $(VENV)/.package
	@echo "Installing what the tests need"
	@$(PIP) -r requirements/test.txt
	@touch $@

$(VENV)/.package: requirements/package.txt $(VENV)/.run
	@echo "Installing what packages a release"
	@$(PIP) -r requirements/package.txt
	@touch $@

$(VENV)/.check: requirements/check.txt $(VENV)/.test
	@echo "Installing what the checks need"
	@$(PIP) -r requirements/check.txt
	@touch $@

# ---- on a laptop ------------------------------------------------------------------------------
run: $(VENV)/.run ## Start both servers and print where to ask (MODEL=, DEVICE=, API_PORT=, MODEL_PORT=)
	@[ "$(TORCH)" = auto ] || PYTHON=$(PY) bash scripts/install_torch.sh
	@MODEL="$(MODEL)" MODEL_HOST_DEVICE="$(DEVICE)" exec $(PY) scripts/run.py --api-port "$(API_PORT)" --model-port "$(MODEL_PORT)"

test: $(VENV)/.test ## Run every test that needs no cluster, in four processes (PYTEST_ARGS="-n 0 …" for one)
	@$(PY) -m pytest -m "not e2e" -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/.check check-page ## Format, lint, types, import rules, charts, Dockerfiles, the page
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" lint-imports
	@bash scripts/check_charts.sh

format: $(VENV)/.check ## Write the code in the project's format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

openapi: $(VENV)/.run ## Write both OpenAPI documents to docs/openapi/
	@$(PY) -m model.openapi
	@$(PY) -m api openapi

dashboards: $(VENV)/.run ## Write the Grafana dashboards that the charts carry
	@$(PY) -m scripts.dashboards

page: web/node_modules/.package-lock.json ## Build the chat page from web/ into api/page/ (needs Node 20 or newer)
	@cd web && npm run --silent types && npm run --silent build

check-page: ## Check that the built page in the repository is what web/ builds (where Node is)
	@bash scripts/check_page.sh

test-tools: $(VENV)/.test ## Install Redis, Prometheus and Chromium, which the tests drive
	@PYTHON="$(PY)" bash scripts/install_test_tools.sh

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@cd web && npm ci --silent --no-audit --no-fund
	@touch $@

demo-model: $(VENV)/.run ## Train the bundled demo model again (up to an hour on two cores)
	@$(PY) -m model.demo.train

demo-eval: $(VENV)/.run ## Measure the demo model's accuracy, category by category
	@$(PY) -m model.demo.evaluate

bench: $(VENV)/.bench ## Measure the engine and transformers' own ways (BENCH_ARGS=)
	@$(PY) -m bench run $(BENCH_ARGS)

bench-peers: $(VENV)/.bench ## The same with vLLM and llama.cpp, installed apart (BENCH_ARGS=)
	@PYTHON=$(PY) bash bench/peers/install_vllm.sh .cache/bench/peers
	@PYTHON=$(PY) bash bench/peers/install_llama_cpp.sh .cache/bench/peers
	@$(PY) -m bench run --peers $(BENCH_ARGS)

bench-api: $(VENV)/.bench ## Measure the API server, beside LiteLLM, installed apart (BENCH_ARGS=)
	@PYTHON=$(PY) bash bench/peers/install_litellm.sh .cache/bench/peers
	@$(PY) -m bench api $(BENCH_ARGS)

# ---- on a cluster -----------------------------------------------------------------------------
cluster: ## Make the kind cluster with KServe and what it needs
	@bash k8s/cluster.sh up

cluster-down: ## Remove the kind cluster and everything in it
	@bash k8s/cluster.sh down

images: ## Build both images and load each into the nodes that run it
	@bash k8s/images.sh

package: $(VENV)/.package ## Both charts as archives, both images' bills of materials, their versions (build/package/)
	@bash k8s/images.sh build
	@$(PY) -m scripts.package

deploy: ## Install both charts into the namespace NAMESPACE=qna
	@bash k8s/deploy.sh

smoke: ## Ask an installation everything that it has to answer (URL=, API_KEY=)
	@bash k8s/smoke.sh "$(URL)" $(SMOKE_ARGS)

e2e: export METRICS_SERVER = 1
e2e: export KEDA = 1
e2e: export IMAGES = 1
e2e: $(VENV)/.test cluster ## From nothing: cluster, images, charts, cluster tests and a report
	@$(PY) -m pytest -m e2e tests/e2e $(PYTEST_ARGS)

clean: ## Remove what the targets above have made here (not your chats in data/)
	@rm -rf $(VENV) web/node_modules build reports .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
