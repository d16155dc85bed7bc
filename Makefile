# Two commands for a fresh machine with only Python and make:
#   make example   the bundled example, on real data, in an environment of its own (.venv) with what it needs
#   make test      the suite, in the same environment; the tools of development are added
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is imported is compiled then: all of it, at once, takes minutes.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
PIP := $(INSTALL) --constraint constraints.txt
# Each of these files stands for what is installed: the example's packages, those of the docs, all of them.
EXAMPLE := $(VENV)/.example
DOCS := $(VENV)/.docs
STAMP := $(VENV)/.installed
# One more than two cores have: some tests wait for programs that they start.
WORKERS ?= 3
# Whatever the environment says, compiled modules are kept: dozens of programs that tests start would compile them anew.
export PYTHONDONTWRITEBYTECODE :=
DISCRETIZATION ?= cells
EPOCHS ?= 10
# Some of those of tests/matrix.sh; all of them where it is empty.
ENVIRONMENTS ?=
# A folder that holds NPEET's source, for `make peers`; left out where it is empty.
NPEET ?=
# A folder that holds MNIST/raw; the example downloads into it where it is empty.
DATA ?= $(or $(LIGHTNING_IB_DATA),data)

.PHONY: example disputed truth peers test test-all test-portable test-matrix lint types docs bench dist clean help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(EXAMPLE): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[example]'
	@touch $@

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	@touch $@

# Everything, and so what the other two stand for.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $(EXAMPLE) $(DOCS) $@

# In a folder of its own, since torchmetrics breaks beside a torchvision that was not built for the torch at hand.
$(VENV)/vision: constraints.txt | $(BIN)/python
	rm -rf $@
	$(PIP) --no-deps --target $@ timm torchvision

# The libraries of three loggers, and of what these import what the suite lacks, in a folder of their own that only the
# tests of these loggers put on their path: with all their requirements they bring an older Pillow, boto3 and a web server.
$(VENV)/loggers: constraints.txt | $(BIN)/python
	rm -rf $@
	$(PIP) --no-deps --target $@ trackio brotli gradio-client python-multipart orjson \
		litlogger lightning-sdk blake3 backoff six \
		"aim; python_version < '3.13'" "aimrocks; python_version < '3.13'" RestrictedPython pytz websockets

example: $(EXAMPLE) ## train the example network and draw its information plane
	$(BIN)/python examples/mnist_cnn.py --data-dir '$(DATA)' --discretization $(DISCRETIZATION) --epochs $(EPOCHS)

disputed: $(EXAMPLE) ## draw the disputed planes of tanh and ReLU networks (minutes)
	$(BIN)/python examples/tanh_vs_relu.py

truth: $(STAMP) ## put every estimator beside the truth and write docs/truth.md (an hour or more; goes on where it was)
	$(BIN)/python benchmarks/truth.py --jobs $(WORKERS)
	$(BIN)/python benchmarks/truth.py --docs docs/truth.md

# The estimators of other packages, and what these import, in a folder of their own: none brings another torch.
$(VENV)/peers: $(STAMP)
	rm -rf $@
	$(INSTALL) --no-deps --target $@ infomeasure numba llvmlite sparse ennemi soft-entropy \
		torch-mist hydra-core omegaconf 'antlr4-python3-runtime==4.9.*' pyro-ppl pyro-api opt_einsum mpld3

peers: $(VENV)/peers ## put estimators of other packages beside the truth and write docs/truth.md (goes on where it was)
	PYTHONPATH=$(VENV)/peers $(BIN)/python benchmarks/peers.py --jobs $(WORKERS) $(if $(NPEET),--npeet '$(NPEET)')
	$(BIN)/python benchmarks/truth.py --docs docs/truth.md

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS)

test: $(STAMP) $(VENV)/vision $(VENV)/loggers ## run the suite: all tests but the slow ones
	$(PYTEST) -m 'not slow'

test-all: $(STAMP) $(VENV)/vision $(VENV)/loggers ## run all tests
	$(PYTEST)

test-portable: $(STAMP) $(VENV)/vision $(VENV)/loggers ## run the quick tests with the vector units of older processors: none, then AVX2
	for unit in default avx2; do \
		ATEN_CPU_CAPABILITY=$$unit $(PYTEST) -m 'not slow' || exit 1; \
	done

test-matrix: ## run the suite's core in every supported environment (several gigabytes)
	PYTHON=$(PYTHON) WORKERS=$(WORKERS) tests/matrix.sh $(ENVIRONMENTS)

lint: $(STAMP) ## style
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP) ## static types
	$(BIN)/python -m mypy

docs: $(DOCS) ## build docs/_build/html, which needs no net to be read, and run the examples of its pages
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b doctest -d docs/_build/doctrees docs docs/_build/doctest
	@if grep -rlE '<(script|link|img)[^>]+(src|href)="https?:' docs/_build/html --include='*.html'; then \
		echo 'these pages load something from the net' >&2; exit 1; fi
	@echo 'open docs/_build/html/index.html'

dist: $(STAMP) ## build the wheel and the source distribution
	$(BIN)/python -m build --outdir dist

bench: $(STAMP) ## print the tables of benchmarks/
	$(BIN)/python benchmarks/measurement.py --data-dir '$(DATA)'
	$(BIN)/python benchmarks/kernels.py

clean: ## remove the environment and caches
	rm -rf $(VENV) .matrix docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
