# Two set-up commands: `make demo` shows everything the project does, `make test` checks it. Nothing needs to be installed
# before: a virtual environment is made in .venv (PYTHON=python3.12 make demo chooses the interpreter).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DATA := data/microworld
DEMO_RUN := runs/demo

export TOKENIZERS_PARALLELISM = false
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: help install demo smoke test test-min nightly lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time: minutes and about 6 GB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(STAMP)

demo: $(STAMP)  ## data, training and generation with the small real model (about 15 minutes on 2 cores)
	PATH="$(abspath $(BIN)):$$PATH" sh experiments/demo/run.sh $(DEMO_DATA) $(DEMO_RUN)

smoke: $(STAMP)  ## the whole chain on random tiny weights (under 2 minutes)
	PATH="$(abspath $(BIN)):$$PATH" sh experiments/smoke/run.sh

test: $(STAMP)  ## all tests a CPU can run in minutes
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not weights"

test-min:  ## the same tests with the lowest allowed versions, in .venv-min
	@test -x .venv-min/bin/python || $(PYTHON) -m venv .venv-min
	.venv-min/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints-min.txt
	.venv-min/bin/python -m pytest -q -m "not slow and not gpu and not weights"

nightly: $(STAMP)  ## what is too long for every day
	$(BIN)/python -m pytest -q -m "not gpu and not weights"

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## caches and builds; keeps .venv, data and runs
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
