# Everything a stranger needs; each target does its own set-up.
#
#   make quickstart   digits, four optimizers, their flows: table and figures (minutes)
#   make test         lint, types, tests
#   make test-faults  faults injected into real sweeps
#   make docs         guides and API reference as pages: build/docs/index.html
#   make wheel        the source distribution and the wheel: dist/
#   make hooks        lint and types before every commit
#   make install      the virtual environment .venv, in the versions of constraints.txt

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# small solves on a busy machine are 100 times slower with threads of their own
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED := 0
# a test process takes a little over one core and up to 4 GB
TEST_PROCESSES ?= 2

.PHONY: install quickstart test test-faults lint types format docs wheel hooks constraints clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python >= 3.11 is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,s3]'
	@touch $@

quickstart: install
	$(BIN)/python sweeps/quickstart.py
	$(BIN)/python -m analysis results/quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -m "not faults" -n $(TEST_PROCESSES)

test-faults: install
	$(BIN)/python -m pytest -m faults

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/make_pages.py

wheel: install
	$(BIN)/python -m build --no-isolation

hooks: install
	$(BIN)/pre-commit install

constraints:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra s3 --universal --python-version 3.11 \
		--upgrade --no-header --no-annotate -o constraints.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
