# Each target sets up what it needs in .venv (or in $(VENV)).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-matrix lint fuzz bench data-report clean

# The file's name is the extra that is installed; the demonstration needs less than the tests do.
$(VENV)/demo $(VENV)/dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(@F)]'
	touch $@

demo: $(VENV)/demo
	$(BIN)/shieldguard demo

test: $(VENV)/dev
	$(BIN)/python -m pytest --cov --cov-report=term

test-matrix: $(VENV)/dev
	$(BIN)/python tests/matrix/run.py

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Needs Linux, and a Python that atheris has wheels for.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/dev
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

bench: $(VENV)/dev
	$(BIN)/python tests/bench/engine.py
	$(BIN)/python -m tests.bench.codecs
	$(BIN)/python tests/bench/peers.py
	$(BIN)/python -m tests.bench.proxy
	$(BIN)/python tests/bench/judge.py

# The labelled traces through the demonstration's path; needs the data folder.
data-report: $(VENV)/dev
	$(BIN)/python tests/bench/real_traces.py

clean:
	rm -rf $(VENV) .venvs dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
