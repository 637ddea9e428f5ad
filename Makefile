.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-all check format test-floors clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[offline,plot]"
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## Install what is needed and run the main job on data that comes with it
	$(BIN)/python examples/quickstart.py

# The problems of tests are small: several processes help them, threads of linear algebra cost more than they bring.
test test-all: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev  ## Install what is missing and run the tests but the slow ones, doctests included
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not slow"

test-all: $(VENV)/.dev  ## Run all tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

check: $(VENV)/.dev  ## Lint, and check the formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## Format, and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-floors: $(VENV)/.made  ## Run the tests with the oldest supported versions, in a venv of its own
	$(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/python -m pip install --quiet $$($(BIN)/python .ci/floors.py) -e ".[test]"
	$(VENV)-floors/bin/python -m pytest

clean:  ## Remove what was installed and built
	rm -rf $(VENV) $(VENV)-floors build dist *.egg-info
