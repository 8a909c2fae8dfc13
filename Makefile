# Two commands: `make train` and `make test`. PY=/path/to/python chooses the interpreter.
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
# For `make bench-gpu`: the extra that brings jax's CUDA, and options such as --data-dir FOLDER.
CUDA ?= cuda12
ARGS ?=
# Tests of one file share compiled programs; the longest files begin first (tests/conftest.py).
SPREAD := --dist loadfile --no-loadscope-reorder

.PHONY: train test test-all test-newest dist lint types docs docs-serve bench bench-gpu check-gpu plan-tpu clean
.DEFAULT_GOAL := help

help:
	@echo "make train      install, train a CNN on handwritten digits, print the result and its report"
	@echo "make test       install, run every test not marked slow (make test-all: the slow ones too)"
	@echo "make docs       install, build the site into site/ (make docs-serve: show it in a browser)"
	@echo "make plan-tpu   fetch the TPU compiler, plan a small step for chips that are not there, test it"
	@echo "make dist       build the wheel and the source distribution into dist/"
	@echo "make check-gpu  run every capability once on the device at hand, in eight minutes"
	@echo "make lint types bench bench-gpu clean   PY=/path/to/python chooses the interpreter"

$(VENV)/.made:
	@$(PY) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "jdl needs Python 3.11 or newer; this is %d.%d. Say: make ... PY=/path/to/python3.11" % v[:2])'
	$(PY) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	touch $@

$(VENV)/.train: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[report,tensorboard]"
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

train: $(VENV)/.train
	$(BIN)/python experiments/mnist_cnn.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) $(SPREAD) -m "not slow"

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) $(SPREAD) --timeout 1800
	$(MAKE) test-newest

# The fast tests on the newest Python that jdl supports, where it is installed.
NEWEST := 3.13
test-newest: $(VENV)/.test
	@python=$$($(BIN)/python -m tests.support.environments $(NEWEST)) || \
	  { echo "the fast tests did not run there"; exit 0; }; \
	$(MAKE) test PY="$$python" VENV=.venv-$(NEWEST)

dist: $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check "build>=1.2"
	rm -rf dist
	$(BIN)/python -m build

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

# A broken link, a missing page or a public name without docstring or page ends the build.
# Not --quiet: mkdocs then counts no warnings, and --strict lets everything pass.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$(CUDA)]"
	$(BIN)/python -m benchmarks gpu $(ARGS)

check-gpu: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$(CUDA)]"
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

# The TPU compiler has an environment of its own: where it is installed, JAX looks for a TPU.
.venv-tpu/.made: pyproject.toml
	$(PY) -m venv .venv-tpu
	.venv-tpu/bin/pip install --quiet --disable-pip-version-check -e ".[tpu]" "pytest>=8" pytest-timeout
	touch $@

plan-tpu: .venv-tpu/.made
	.venv-tpu/bin/python -m jdl.cli plan experiments/digits_mlp.py --topology v5e:2x4 --run.sharding fsdp
	.venv-tpu/bin/python -m pytest -k "chips or refuses_what" tests/parallel/test_estimate.py tests/cli/test_plan.py

clean:
	rm -rf $(VENV) .venv-tpu .venv-tests .venv-$(NEWEST) dist site .pytest_cache .ruff_cache
