# make help lists the targets; each builds the environment first when it is missing or pyproject.toml changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA_TRIED := $(VENV)/.data-tried
BROWSER_TRIED := $(VENV)/.browser-tried
LITERT_TRIED := $(VENV)/.litert-tried
ONNX2TF := .onnx2tf
SSHD_TRIED := $(VENV)/.sshd-tried
FASHION_MNIST := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz

# Installs the packages $(1) where there is apt and root's rights, else fails.
apt_install = { \
	  if [ "$$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi; \
	  apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=1 -o Acquire::http::Timeout=20"; \
	  command -v apt-get >/dev/null \
	    && { [ -z "$$as_root" ] || sudo -n true 2>/dev/null; } \
	    && { $$as_root $$apt update || true; } \
	    && $$as_root $$apt install -y --no-install-recommends $(1); \
	}

.PHONY: help search test check bench format environment data browser litert sshd clean

help:
	@echo "make search   search for this machine's best networks on Fashion-MNIST, into results/quickstart"
	@echo "make test     run the tests"
	@echo "make check    linters, type checker, import contracts"
	@echo "make bench    run the benchmarks in tests/benchmarks"
	@echo "make browser  install Chromium, its driver and npm where they are missing, for the runtime 'browser'"
	@echo "make litert   install onnx2tf into $(ONNX2TF) by Python 3.12 or newer where it is missing, for the runtime 'litert'"
	@echo "make sshd     install OpenSSH where it is missing, for the tests of --host"
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
	@[ -f $(FASHION_MNIST) ] \
	  || $(call apt_install,dataset-fashion-mnist) \
	  || echo "apt could not install dataset-fashion-mnist: it will be downloaded by torchvision"
	@touch $@

browser: $(BROWSER_TRIED)

# Where apt cannot install them, the tests of the runtime are skipped and say why, so a failure here is no error.
$(BROWSER_TRIED): $(INSTALLED)
	@missing=""; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	command -v chromedriver >/dev/null || missing="$$missing chromium-driver"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	[ -z "$$missing" ] \
	  || $(call apt_install,$$missing) \
	  || echo "apt could not install$$missing: the runtime 'browser' is not there"
	@touch $@

litert: $(LITERT_TRIED)

# onnx2tf pins other versions of our packages and wants Python 3.12. Where it cannot be installed, the tests of the
# runtime are skipped and say why, so a failure here is no error.
$(LITERT_TRIED): $(INSTALLED)
	@[ -x $(ONNX2TF)/bin/onnx2tf ] || command -v onnx2tf >/dev/null || { \
	  for python in $(PYTHON) python3 python3.12 python3.13 python3.14; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break; \
	    python=""; \
	  done; \
	  [ -n "$$python" ] \
	    && $$python -m venv $(ONNX2TF) \
	    && $(ONNX2TF)/bin/pip install --disable-pip-version-check onnx2tf==2.6.9; \
	} || { \
	  rm -rf $(ONNX2TF); \
	  echo "no onnx2tf, which pip installs in Python 3.12 or newer: the runtime 'litert' is not there"; \
	}
	@touch $@

sshd: $(SSHD_TRIED)

# Tests start an sshd of their own on loopback; without one they are skipped and say why, so a failure here is no error.
$(SSHD_TRIED): $(INSTALLED)
	@PATH="$$PATH:/usr/sbin"; { command -v sshd && command -v scp; } >/dev/null \
	  || $(call apt_install,openssh-server openssh-client) \
	  || echo "apt could not install openssh-server: the tests of --host are skipped"
	@touch $@

clean:
	rm -rf $(VENV) $(ONNX2TF) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .benchmarks
