# make demo            one prompt, eight candidates scored before they are generated in full, one image
# make test            the default tests: no GPU, no network
# make test-research   the tests of research/, which builds the shipped weights
# make test-slow       the tests that take minutes
# make check           format, lint, types, import layers, language
# make audit           known advisories of the versions in constraints.txt; asks the package index
# make setup           the environment alone
# Each of them works first on a fresh clone and installs into .venv only what it needs.
#
#   PYTHON=python3.12    the Python to make .venv with (3.11 or newer)
#   TORCH_INDEX=URL      one more package index to look in: Linux without a GPU can name PyTorch's own CPU index,
#                        which spares some gigabytes of CUDA libraries
#   WORKERS=4            processes that share the tests (default: 2)

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Stamps: installed for use; installed for development. Older than what they depend on, they are made again.
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev

REQUIRE_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("forejudge needs Python 3.11 or newer, \
  but $(PYTHON) is %d.%d: name another, such as make PYTHON=python3.12" % sys.version_info[:2])

PARALLEL := --numprocesses $(WORKERS) --dist worksteal

DEMO_PROMPT := a photo of two circles

.PHONY: demo test test-research test-slow check audit setup

demo: $(RUNTIME)
	$(BIN)/forejudge generate "$(DEMO_PROMPT)" --n 8 --all --out demo
	@echo "The image: demo/best.png. All eight with their scores: demo/contact_sheet.png."
	@echo "Next: source $(BIN)/activate, then forejudge --help"

test: $(DEVELOPMENT)
	$(BIN)/pytest $(PARALLEL)

test-research: $(DEVELOPMENT)
	$(BIN)/pytest $(PARALLEL) research/tests

test-slow: $(DEVELOPMENT)
	$(BIN)/pytest -m slow tests research/tests

check: $(DEVELOPMENT)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_language.py

audit: $(DEVELOPMENT)
	$(INSTALL) pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip --requirement constraints.txt

setup: $(RUNTIME)

$(RUNTIME): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(REQUIRE_PYTHON)'
	@echo "Installing into $(VENV) (torch is large; a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	@$(INSTALL) --editable '.[dev]'
	@touch $@
