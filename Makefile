# Needs Python 3.11 or newer (PYTHON=...), make, and a package index. Everything is installed into
# .venv, once: a stamp per set of extras says what is there already.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Each worker begins with tests that stand together, so that what they share is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

# TensorFlow's start-up notes would bury the output.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-stress test-jax test-kernels test-extras test-peer random-graphs lint format docs docs-tables clean
.DELETE_ON_ERROR:

## demo: the whole journey on a real data set that needs no download
demo: $(VENV)/.has-demo
	KERAS_BACKEND=tensorflow $(BIN)/python -m keras_sbp demo --restart

## test: the tests for every edit, Keras on TensorFlow
test: $(VENV)/.has-dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not stress"

## test-stress: the others: many networks, whole journeys, every page's code, processes of their own
test-stress: $(VENV)/.has-dev
	KERAS_BACKEND=tensorflow $(PYTEST) -m stress

## test-jax: the backend-neutral tests that differ most by backend, Keras on JAX
# XLA need not optimise what runs once. Compiling every shape of a random network takes long.
JAX_TESTS := tests/distributions tests/layers tests/rules tests/callbacks tests/test_full_precision.py \
	tests/handlers/test_contract.py $(addprefix tests/program/test_,copying.py trace.py unfold.py) \
	$(addprefix tests/insertion/test_,gates_report.py insert_copy.py) tests/evidence/test_refit.py \
	$(addprefix tests/pruning/test_,golden_journey.py independent_copies.py min_keep.py prune.py \
		random_graphs.py rules.py verify.py)
test-jax: $(VENV)/.has-dev
	KERAS_BACKEND=jax \
	XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" \
		$(PYTEST) -m "not stress" $(JAX_TESTS)

## test-kernels: the tests of kernels that TensorFlow has on some processors only, with and without
test-kernels: $(VENV)/.has-dev
	for onednn in 0 1; do \
		TF_ENABLE_ONEDNN_OPTS=$$onednn KERAS_BACKEND=tensorflow \
			$(BIN)/python -m pytest -m kernel tests || exit 1; \
	done

## test-extras: the tests with KerasHub and with tensorflow-model-optimization
test-extras: $(VENV)/.has-extras
	KERAS_BACKEND=tensorflow $(PYTEST) -m "keras_hub or tfmot" tests

## test-peer: the tests with Torch-Pruning; PyTorch is several gigabytes on some platforms
test-peer: $(VENV)/.has-dev $(VENV)/.has-peer
	KERAS_BACKEND=tensorflow $(PYTEST) -m peer tests

## random-graphs: prune many random networks and compare; GRAPHS=10000 says how many
GRAPHS ?= 1000
random-graphs: $(VENV)/.has-dev
	KERAS_BACKEND=numpy $(PYTEST) tests/pruning/test_random_graphs.py --graphs $(GRAPHS)

lint: $(VENV)/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.has-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.has-docs
	$(BIN)/mkdocs build --strict

## docs-tables: write the tables of supported layers into the documentation
docs-tables: $(VENV)/.has-dev
	KERAS_BACKEND=tensorflow $(BIN)/python -m tools.supported_layers

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find keras_sbp tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +

# By their own metadata KerasHub and tf_keras would bring a second TensorFlow.
EXTRAS := keras-hub regex tokenizers tf_keras tensorflow-model-optimization dm-tree attrs
$(VENV)/.has-extras: $(VENV)/.has-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --no-deps $(EXTRAS)
	touch $@

$(VENV)/.has-%: $(BIN)/python pyproject.toml setup.py constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[$*]"
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " \
		+ sys.version.split()[0] + ". Use: make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
