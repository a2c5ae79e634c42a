# `make run` and `make test` do all the set-up they need.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
DATA ?= data
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# programs that tests run, and the Debian packages that have them
PROGRAMS := redis-server prometheus chromium faketime
PACKAGES := redis-server prometheus chromium faketime

# the tests start hundreds of processes, which need not compile every module again
unexport PYTHONDONTWRITEBYTECODE

# processes that tests run in: one more than cores, for many of them wait
JOBS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

CHECKS := check-format check-style check-mypy check-pyright check-layers

.PHONY: run test test-all check $(CHECKS) system bench train train-smoke docs clean

run: $(VENV)/.run  ## start the server on the embedded model and rerank a real example
	@exec env TAMIS_SERVER__PORT=$(PORT) $(BIN)/python examples/serve_and_rerank.py --end-with-parent

test: check system  ## everything that must hold, in minutes
	$(PYTEST)

test-all: check system  ## that and what is slow, with many examples of each property: once a week
	HYPOTHESIS_PROFILE=nightly $(PYTEST) -m "slow or not slow" --timeout 1800

check: $(VENV)/.dev  ## style, types, layers
	@$(MAKE) --no-print-directory --jobs 2 --output-sync $(CHECKS)

check-format:
	$(BIN)/ruff format --check .

check-style:
	$(BIN)/ruff check .

check-mypy:
	$(BIN)/mypy

check-pyright:
	$(BIN)/pyright --pythonpath $(BIN)/python

check-layers:
	$(BIN)/lint-imports --no-logo

system:  ## the programs that tests run
	@missing=""; for program in $(PROGRAMS); do \
		command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -qq --no-install-recommends $(PACKAGES) >/dev/null; \
	else \
		echo "the tests run$$missing, which are not here: install $(PACKAGES) (Debian's names)" >&2; \
		exit 1; \
	fi

bench: $(VENV)/.dev  ## how fast the embedded model is here, alone and behind a server; figures go to build/
	@mkdir -p build
	$(BIN)/tamis bench --output build/bench-engine.json --plot build/bench-engine.png
	$(BIN)/tamis bench --server --workload short --documents 8 --rounds 10 \
		--output build/bench-server.json --plot build/bench-server.png
	@echo "build/bench-engine.png and build/bench-server.png show it; benchmarks/README.md has the rest"

train: $(VENV)/.dev  ## rebuild the embedded model from DATA: hours; resumes where it stopped
	$(BIN)/python -m training.build --data $(DATA)

train-smoke: $(VENV)/.dev  ## train and export a toy, in a minute or two
	$(BIN)/python -m training.smoke build/toy

docs: $(VENV)/.dev  ## write the parts of docs/ that are printed by the program itself
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tamis needs Python 3.11 or newer; make PYTHON=python3.12 names another")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.run
