# make demo | test | bench | lint | format | install | clean
#
# PYTHON        interpreter that makes the virtual environment (3.11 or later)
# TORCH_INDEX   package index that torch is taken from, for example that of a CUDA build; empty = the default one

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow bench lint format install check-tools clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt | check-tools
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=24" "setuptools>=77" wheel
	$(RUN) -m pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),) torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

check-tools:
	@PYTHON="$(PYTHON)" sh tools/check_tools.sh

demo: install
	$(RUN) -m fastamr demo --out demo

test: install
	$(RUN) -m pytest tests

test-slow: install
	$(RUN) -m pytest tests --run-slow

bench: install
	$(RUN) -m pytest benchmarks --benchmark-only

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info demo runs
