# Each target does its own set-up; the second time there is nothing to do.
#
#   make train                     train the default agent; flags go in ARGS, e.g. ARGS="--seed 3 --core mingru"
#   make test                      the whole check, as CI runs it; pytest's flags go in PYTEST_ARGS
#   make docs                      build the documentation into site/; a warning is an error
#   make browser-test              the studio and the report in a real Chromium, which must be installed
#   make browser-install           install the Chromium of Playwright, with the system's libraries that it needs
#   make nightly                   every test, the slow ones and Ray included, with coverage
#   make conformance               the bridges against the packages themselves, one environment for each group
#   make lowest-test               the tests with the lowest versions that pyproject.toml declares
#   make wheel-test                build the wheel, install it alone into a new environment and use it there
#   make format                    format the code and fix what ruff can fix
#   make clean                     remove environments, caches and builds; runs are kept

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# More workers than this cost more memory and start-up (each imports torch) than they save.
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4 --dist=worksteal

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
PIP    = $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt
CPP    = src/modelnative/native/kernels/*.cpp src/modelnative/native/kernels/*.h

.DEFAULT_GOAL := help
.PHONY: help train test browser-test browser-install docs nightly conformance lowest-test wheel-test format clean

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
	@echo "[test 1/6] ruff format"
	@$(BIN)/ruff format --check . || { echo "Not formatted; run: make format"; exit 1; }
	@echo "[test 2/6] ruff check"
	@$(BIN)/ruff check .
	@echo "[test 3/6] clang-format"
	@$(BIN)/clang-format --dry-run --Werror $(CPP) || { echo "Not formatted; run: make format"; exit 1; }
	@echo "[test 4/6] mypy"
	@$(BIN)/mypy
	@echo "[test 5/6] import direction"
	@$(BIN)/lint-imports --no-logo
	@echo "[test 6/6] pytest: tests, doctests, examples"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# Playwright drives the Chromium that is installed, or its own (CHROMIUM names another); axe-core comes from npm where
# that is there.
browser-test: $(READY)
	@$(PIP) playwright
	@mkdir -p build/axe && cd build/axe && { test -f package/axe.min.js || { npm pack --silent axe-core@4.14.1 && tar xzf axe-core-*.tgz; } } || true
	@AXE=build/axe/package/axe.min.js $(BIN)/python -m pytest -m slow --numprocesses=0 tests/studio/test_browser.py

browser-install: $(READY)
	@$(PIP) playwright
	@$(BIN)/python -m playwright install --with-deps chromium

nightly: $(READY)
	@$(PIP) --no-build-isolation --editable '.[dev,ray]'
	@$(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile=nightly --cov --cov-report=term --cov-report=xml $(PYTEST_ARGS)

# Environments are kept in build/conformance. ARGS="--groups verl trl" runs only these, without what takes minutes.
conformance: $(READY)
	@$(BIN)/python benchmarks/conformance.py $(or $(ARGS),--groups all --slow)

lowest-test:
	@PYTHON=$(PYTHON) .ci/lowest $(PYTEST_ARGS)

wheel-test: $(READY)
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@PATH="$(abspath $(BIN)):$$PATH" PYTHON=$(PYTHON) .ci/wheel dist/*.whl

docs: $(READY)
	@$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

format: $(READY)
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf $(VENV) .venv-lowest build dist site .coverage coverage.xml
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
