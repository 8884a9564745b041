# Each target does its own set-up; the second time there is nothing to do.
#
#   make train                     train the default agent; flags go in ARGS, e.g. ARGS="--seed 3 --core mingru"
#   make test                      the whole check, as CI runs it; pytest's flags go in PYTEST_ARGS
#   make docs                      build the documentation into site/; a warning is an error
#   make format                    format the code and mend what ruff can mend
#   make clean                     remove the environment, caches and builds; runs are kept

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# More workers than this cost more memory and start-up (each imports torch) than they save.
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
PIP    = $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help train test docs format clean

help:
	@sed -n 's/^#   //p' Makefile

# Torch comes first, by its exact version, so that the resolver settles the largest download before all else. The
# build backend is installed, not fetched into an isolated build, so that its version is pinned too.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modelnative needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	@echo "[set-up 1/4] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[set-up 2/4] torch (the largest download)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "[set-up 3/4] build backend"
	@$(PIP) hatchling editables
	@echo "[set-up 4/4] modelnative, editable, with its development tools"
	@$(PIP) --no-build-isolation --editable '.[dev,docs]'
	@touch $@

train: $(READY)
	@$(BIN)/modelnative train $(ARGS)

test: $(READY)
	@echo "[test 1/5] ruff format"
	@$(BIN)/ruff format --check . || { echo "Not formatted; run: make format"; exit 1; }
	@echo "[test 2/5] ruff check"
	@$(BIN)/ruff check .
	@echo "[test 3/5] mypy"
	@$(BIN)/mypy
	@echo "[test 4/5] import direction"
	@$(BIN)/lint-imports --no-logo
	@echo "[test 5/5] pytest: tests, doctests, examples"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(READY)
	@$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

format: $(READY)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
