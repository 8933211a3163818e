# make search | test | check | bench: each builds the environment first when it is missing or pyproject.toml changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA_TRIED := $(VENV)/.data-tried
FASHION_MNIST := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz

.PHONY: help search test check bench format environment data clean

help:
	@echo "make search   search for this machine's best networks on Fashion-MNIST, into results/quickstart"
	@echo "make test     run the tests"
	@echo "make check    linters, type checker, import contracts"
	@echo "make bench    run the benchmarks in tests/benchmarks"
	@echo "make format   let ruff rewrite the code"

search: $(INSTALLED) data
	$(BIN)/nas search --hardware local

test: $(INSTALLED)
	$(BIN)/pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/pytest tests/benchmarks

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

environment: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

data: $(DATA_TRIED)

# Debian packages the data set. Where apt cannot install it, the loader downloads it, so a failure here is no error.
$(DATA_TRIED): $(INSTALLED)
	@if [ -f $(FASHION_MNIST) ]; then :; \
	elif ! command -v apt-get >/dev/null; then echo "no apt-get: Fashion-MNIST will be downloaded by torchvision"; \
	else \
	  if [ "$$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi; \
	  apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=1 -o Acquire::http::Timeout=20"; \
	  { [ -z "$$as_root" ] || sudo -n true 2>/dev/null; } \
	    && { $$as_root $$apt update || true; } \
	    && $$as_root $$apt install -y --no-install-recommends dataset-fashion-mnist \
	    || echo "apt could not install dataset-fashion-mnist: it will be downloaded by torchvision"; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .benchmarks
