# Everything runs in a virtual environment of its own, made by the first target that needs it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps
DEVELOP := $(addprefix requirements/,bench.txt browser.txt docs.txt langgraph.txt notebook.txt otel.txt pyright.txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
PYTEST  := $(BIN)/python -m pytest -n 2 --dist loadfile
named   = while IFS= read -r line; do echo "$(1) | $$line"; done
SHELL   := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help demo docs test quick lint types pyright tests tests-with-engine tests-without-engine release-check langgraph-tests fuzz overhead bench bench-quick setup develop clean

help:  ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: setup  ## Questions about a dozen documents, answers and a score; again: nothing is computed.
	$(BIN)/helium demo

docs: develop  ## The documentation site: docs/_build/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build

test: develop  ## Lint, types, and all tests, real engine included.
	$(MAKE) --no-print-directory --jobs=2 --output-sync lint types pyright
	$(MAKE) --no-print-directory tests

quick: lint types  ## Lint, types, and the tests without the real engine, three minutes.
	$(PYTEST) -m "not engine and not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: develop
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/typing/mypy.ini tests/typing

pyright: develop  ## What users write, checked by pyright, too.
	$(BIN)/basedpyright --pythonpath $(BIN)/python --project tests/typing

# Starting an engine is mostly waiting, so what needs none is tested meanwhile; and in processes of
# its own, since vLLM leaves much behind in one. Each line says which of the two it is of.
tests: develop
	@$(MAKE) --no-print-directory --jobs=2 tests-with-engine tests-without-engine

tests-with-engine: develop
	@$(PYTEST) --no-loadscope-reorder -m engine 2>&1 | $(call named,engine)

tests-without-engine: develop
	@$(PYTEST) -m "not engine" 2>&1 | $(call named,others)

release-check: setup  ## The wheel in an empty environment: runs an example on a server.
	$(BIN)/python -m tests.release

langgraph-tests: setup  ## LangGraph's own tests of its cache, with ours; fetches them.
	@$(PIP) -r requirements/bench.txt
	$(BIN)/python -m tests.langgraph_own

fuzz: setup  ## 24,000 random programs against the plain program; about ten minutes.
	$(BIN)/python -m tests.fuzz --cases 20000
	$(BIN)/python -m tests.fuzz --cases 2000 --guesses
	$(BIN)/python -m tests.fuzz --cases 2000 --planned

overhead: setup  ## What the runtime costs, beside LangGraph and Dask (installs them).
	@$(PIP) -r requirements/bench.txt
	$(BIN)/python -m benchmarks.overhead

bench-quick: setup  ## Every workload once, beside asyncio and LangGraph: under six minutes.
	@$(PIP) -r requirements/bench.txt
	$(BIN)/python -m benchmarks run --quick --json bench-quick.json

bench: setup  ## The default table, beside every other system: under forty minutes.
	@$(PIP) -r requirements/bench.txt
	$(BIN)/python -m benchmarks run --json bench.json

setup: $(VENV)/.ready  ## Make the virtual environment (about 3.5 GB, two minutes).

# torch has a step of its own: where the plain command finds no CPU build, PyTorch's index has it,
# and only this one package need ask there.
$(VENV)/.ready: requirements/cpu.txt requirements/torch-cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch, vLLM and the rest into $(VENV) ..."
	@$(PIP) -r requirements/torch-cpu.txt 2>/dev/null \
	  || $(PIP) -r requirements/torch-cpu.txt --index-url $(TORCH_INDEX)
	@$(PIP) -r requirements/cpu.txt
	@$(PIP) --no-build-isolation --editable .
	@touch $@

develop: $(VENV)/.developed

# What checks and tests need beside the product itself.
$(VENV)/.developed: $(VENV)/.ready $(DEVELOP)
	@$(PIP) $(addprefix -r ,$(DEVELOP))
	@touch $@

clean:  ## Remove the virtual environment and everything that runs left behind.
	rm -rf $(VENV) .helium .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build
