# `make install`, `make demo`, `make docs`, `make test`, `make laws`, `make gpu`, `make lint`: each makes its own .venv; Python and make are all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCUMENTED := $(VENV)/.documented

# Without a GPU a CPU build of torch is installed, not gigabytes of CUDA libraries. The version stands in constraints.txt.
CPU_INDEX := https://download.pytorch.org/whl/cpu
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)

.PHONY: install demo docs test laws gpu lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(MAKE) --no-print-directory torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,figures]'
	touch $@

.PHONY: torch
torch:
ifeq ($(HAS_GPU),yes)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
else
	@# PyTorch's own CPU index where it answers; else whatever index pip is set up with.
	if $(BIN)/python -c 'import urllib.request as u; u.urlopen("$(CPU_INDEX)/torch/", timeout=5)' 2>/dev/null; then \
		$(BIN)/python -m pip install --quiet --index-url $(CPU_INDEX) --extra-index-url https://pypi.org/simple -c constraints.txt torch; \
	else \
		$(BIN)/python -m pip install --quiet $$(sed -n 's/^torch==/torch==/p' constraints.txt); \
	fi
endif

# The phantom, eight short trainings, one table, one page.
demo: install
	$(BIN)/sslbench demo .

# The documentation as a site, site/index.html; a link or an anchor that leads nowhere stops it.
docs: install $(DOCUMENTED)
	$(BIN)/python -m mkdocs build --strict

$(DOCUMENTED): pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# One process a core; each runs its share in order, so that a module's fixtures are mostly made once.
test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

# Every law for every method, in both dimensions and with every kind of loss; `make test` tries each method once in 2-D and
# once in 3-D, in one of them with all laws, in the other with the laws about losses under one of the losses.
laws: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow or not slow" tests/conformance

# What a GPU shows, in nine minutes at most: benchmarks/gpu/README.md. `make gpu GPU="--device cpu --small"` is a dry run.
# Where torch is there and cannot be installed: GPU_PYTHON=python3 make gpu, with WHEELS=<folder> for what is missing.
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),install)
	$(GPU_PYTHON) benchmarks/gpu/run.py $(GPU)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache
