PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install probe test check format test-compat checkpoints bench docs clean

help:
	@echo "make probe        set up .venv, probe the shipped checkpoints, write report.html"
	@echo "make test         set up .venv, run the tests"
	@echo "make check        formatting, lint, types, tests"
	@echo "make format       rewrite the code in the project's format"
	@echo "make test-compat  the model tests under transformer-lens 3.9, in an environment of their own"
	@echo "make checkpoints  train the shipped checkpoints again and compare (FOLDER=checkpoints/tiny for some)"
	@echo "make bench        time a training step against the usual loop, write tests/benchmarks/RESULTS.md and scaling.svg"
	@echo "make docs         build the site in build/site: pages, executed notebooks, reference; takes ten minutes"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

probe: $(INSTALLED)
	$(BIN)/python -m interp.probe --report report.html

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-compat: $(INSTALLED)
	$(BIN)/python tests/compat/run.py

FOLDER ?= checkpoints
checkpoints: $(INSTALLED)
	$(BIN)/python -P tests/retrain.py $(FOLDER)  # -P: tests/ holds folders named like the packages

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -P tests/benchmarks/bench.py
	$(BIN)/python -P tests/benchmarks/one_order.py
	$(BIN)/python -P tests/benchmarks/scaling.py

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	OMP_NUM_THREADS=1 $(BIN)/python -P docs/build.py
	$(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

clean:
	rm -rf $(VENV) .venv-tl39 build *.egg-info report.html
