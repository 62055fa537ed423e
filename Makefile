PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check bench soak clean

quickstart: $(VENV)/installed
	$(BIN)/offramp run quickstart

test: $(VENV)/installed-test
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

check: $(VENV)/installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The soak compares nothing: it is a target of its own. The others need root, or hours.
NOT_BENCH := $(patsubst %,benchmarks/%.py,live_soak fidelity emulated_network tcp_messages)

bench: $(VENV)/installed-test
	for script in $(filter-out $(NOT_BENCH),$(wildcard benchmarks/*.py)); do \
		$(BIN)/python $$script || exit 1; \
	done

soak: $(VENV)/installed
	$(BIN)/python benchmarks/live_soak.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Offramp needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/installed-%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q -e '.[$*]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
