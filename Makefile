# Each target sets up what it needs in .venv (or in $(VENV)).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-matrix lint bench data-report clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/shieldguard demo

test: $(VENV)/installed
	$(BIN)/python -m pytest --cov --cov-report=term

test-matrix: $(VENV)/installed
	$(BIN)/python tests/matrix/run.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/python tests/bench/engine.py
	$(BIN)/python tests/bench/peers.py
	$(BIN)/python tests/bench/judge.py

# The labelled traces through the demonstration's path; needs the data folder.
data-report: $(VENV)/installed
	$(BIN)/python tests/bench/real_traces.py

clean:
	rm -rf $(VENV) .venvs dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
