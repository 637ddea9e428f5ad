.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help demo test test-all coverage check format test-floors clean

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
test test-all coverage: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev  ## Install what is missing and run the tests but the slow ones, doctests included
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev  ## Run all tests
	$(PYTEST)

coverage: $(VENV)/.dev  ## Run all tests, and print which share of the lines the quick ones run, and all
	$(PYTEST) -m "not slow" --cov=skmm --cov-report=
	@$(BIN)/coverage report --format=total --precision=2 >.coverage-quick
	$(PYTEST) -m slow --cov=skmm --cov-report= --cov-append
	@$(BIN)/coverage report --format=total --precision=2 | paste .coverage-quick - | awk \
		'{ printf "lines run by the quick tests %.1f %%, by all %.1f %%, ratio %.3f\n", $$1, $$2, $$1 / $$2 }'

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
	rm -rf $(VENV) $(VENV)-floors build dist *.egg-info .coverage*
