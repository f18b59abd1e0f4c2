# mrisem: `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date
DEMO ?= outputs/demo
MRISEM := $(BIN)/mrisem

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench check format clean

help: ## list the targets
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the exact versions of requirements.lock (minutes, about 6 GB)

$(STAMP): requirements.lock pyproject.toml
	@echo "== .venv is missing or out of date: installing requirements.lock (minutes, about 6 GB)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mrisem needs Python 3.11 or newer; try: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "== .venv is ready"

test: $(STAMP) ## run the tests (minutes)
	@echo "== tests"
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP) ## run the tests that take minutes each
	@$(BIN)/python -m pytest -m slow

bench: $(STAMP) ## time and memory of the prior, against a plain implementation (20 minutes, 20 GB)
	@$(BIN)/python tests/benchmarks/image_route.py
	@$(BIN)/python tests/benchmarks/bank_memory.py

check: $(STAMP) ## ruff, mypy and the import floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove outputs and caches (not .venv)
	rm -rf outputs multirun .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
