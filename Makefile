# `make app`, `make demo` and `make test` work as the first command on a fresh clone: they create .venv and install into it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo
DOCS ?= build/docs

.PHONY: help app demo test test-fast coverage lint types format docs notebooks readme benchmark clean

help:
	@echo "make app         the lessons in a browser"
	@echo "make demo        pictures of the lessons, in $(OUT)/index.html"
	@echo "make test        the whole test suite        make test-fast   the part that takes under a minute"
	@echo "make coverage    the whole suite, with the lines it never ran"
	@echo "make lint        ruff: lint and format check  make format      let ruff rewrite"
	@echo "make types       the type checker            make docs        the reference, in $(DOCS)/index.html"
	@echo "make notebooks   execute the tutorials again  make benchmark   beside other libraries, and in parallel"
	@echo "make readme      tables and pictures of the READMEs again"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable . --constraint constraints.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@ $(VENV)/.installed $(VENV)/.installed-app

$(VENV)/.installed-app: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[app]' --constraint constraints.txt
	@touch $@ $(VENV)/.installed

app: $(VENV)/.installed-app
	$(BIN)/toydiff app $(if $(PORT),--port $(PORT))

demo: $(VENV)/.installed
	$(BIN)/toydiff demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses auto --dist loadgroup

# without the folders that need diffusers or Streamlit, which take longer to import than the tests to run
test-fast: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses auto --dist loadgroup -m 'not slow' \
	  --ignore tests/sd --ignore tests/app --ignore tests/solvers/test_diffusers.py

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses auto --dist loadgroup --cov --cov-report term:skip-covered

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# every module has its page, whatever its package passes on; the text is the docstrings'
docs: $(VENV)/.installed-dev
	$(BIN)/python -W 'ignore:The module specification' -W 'ignore:Error parsing type' -m pdoc --output-directory $(DOCS) \
	  $$(find toydiff -name '*.py' ! -name '__main__.py' | sed 's,/__init__.py,,; s,\.py$$,,; s,/,.,g' | sort)

notebooks: $(VENV)/.installed-dev
	$(BIN)/python tutorials/execute.py

readme: $(VENV)/.installed-dev
	$(BIN)/python tutorials/readme.py

benchmark: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/quality.py
	$(BIN)/python tests/benchmarks/cost.py
	$(BIN)/python tests/benchmarks/parallel.py
	$(BIN)/python tests/benchmarks/ring.py
	$(BIN)/python tests/benchmarks/turning.py
	$(BIN)/python tests/benchmarks/app.py

clean:
	rm -rf $(VENV) $(OUT) build dist .pytest_cache .ruff_cache .hypothesis
